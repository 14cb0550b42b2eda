"""The page: complete, self-contained, safe, and drawn within its frame whatever was measured."""

from __future__ import annotations

import itertools
import re
from collections.abc import Callable
from html.parser import HTMLParser
from xml.etree import ElementTree

import msgspec
import pytest

from rmr_sdk.bench import plots
from rmr_sdk.bench.accuracy import accuracy_values
from rmr_sdk.bench.page import HALF, NARROW, WIDE, render_html
from rmr_sdk.bench.results import (
    AccuracyFigure,
    Agreement,
    BenchResult,
    ColdStart,
    Conditions,
    Configuration,
    Energy,
    Gpu,
    Memory,
    Point,
    Roof,
    Roofline,
)
from rmr_sdk.bench.samples import describe
from rmr_sdk.bench.svg import Scale, short
from rmr_sdk.bench.table import render_result

MakeConfiguration = Callable[..., Configuration]
MakeResult = Callable[..., BenchResult]


class Words(HTMLParser):
    """Collects the words of a page, and every address in it."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.parts: list[str] = []
        self.addresses: list[str] = []
        self.feed(text)
        self.text = " ".join(" ".join(self.parts).split())

    def handle_data(self, data: str) -> None:
        self.parts.append(data)

    def handle_starttag(self, tag: str, attributes: list[tuple[str, str | None]]) -> None:
        assert tag != "script"
        self.addresses += [value or "" for name, value in attributes if name in ("src", "href", "action")]


@pytest.fixture
def full(make_configuration: MakeConfiguration, make_result: MakeResult) -> BenchResult:
    """Give a result with everything that a page can show."""
    start = ColdStart(
        processes=3,
        engine_cache="warm",
        interpreter_s=0.02,
        import_s=0.3,
        open_s=0.5,
        first_tile_s=0.6,
        ready_s=1.4,
    )
    stages = {
        name: describe([value] * 20)
        for name, value in (("network", 0.9), ("prepare", 0.05), ("extract", 0.01), ("blend", 0.01), ("late", 0.02))
    }
    extra = {
        "cold_starts": (start,),
        "memory": Memory(host_mib={"imported": 50, "ran": 700}, device_mib=812),
        "energy": Energy(source="RAPL: package-0", joules_per_study=210.0, mean_watts=35.0),
        "stages_s": stages,
    }
    fp32 = make_configuration([1.0 + 0.01 * n for n in range(20)], **extra)
    bf16 = make_configuration(
        [0.5] * 20, "bf16", agreement=Agreement(labels=0.9987, lesion_dice=0.99, fused_rms=1e-3), **extra
    )
    points = [
        Point(name=f"{kind}, openvino fp32", precision="fp32", gflop=gflop, gigabytes=0.2, seconds=0.05, how="counted")
        for kind, gflop in (("network", 90.0), ("extract", 0.1), ("blend", 0.2))
    ]
    roofline = Roofline(
        copy_gb_per_s=28.0,
        roofs=(Roof(precision="fp32", gflop_per_s=230.0, how="measured"),),
        points=tuple(points),
        left_out=("openvino bf16: nobody counted",),
    )
    return make_result(
        fp32,
        bf16,
        roofline=roofline,
        notes=("other processes took 30% of the CPU time",),
        accuracy=tuple(
            AccuracyFigure(precision=precision, metric="lesion_dice", study_set="held out", value=value, studies=2)
            for precision, value in (("fp32", 0.5), ("bf16", 0.499))
        ),
        conditions=Conditions(
            power_mode="MODE_30W (2)", cpu_mhz=2500, cpu_max_mhz=3500, governor="performance", throttle_events=2,
            gpu_limits=("power cap",), hottest_celsius=61.0, others_share=0.3, stolen_share=0.01,
        ),
    )  # fmt: skip


def test_the_page_shows_every_figure(full: BenchResult) -> None:
    machine = msgspec.structs.replace(
        full.machine, board="Jetson", gpus=(Gpu(name="GPU", memory_mib=8192, driver="1"),), instructions=("avx2",)
    )
    words = Words(render_html(msgspec.structs.replace(full, machine=machine))).text
    for part in (
        "Research software, not a medical device",
        "Benchmark of tiny",
        "The demo study of 2 x 2 x 2 voxels",
        "Other processes took 30% of the CPU time",
        "openvino fp32 1.09 1.18 - 1.19 20",
        "99.87 %",
        "network 0.9 s, 90.9 %",
        "late",
        "from the cache 0.3 0.5 0.6 1.4 3",
        "700 812 210 35",
        "RAPL: package-0",
        "copy 28 GB/s",
        "Left out: openvino bf16: nobody counted.",
        "lesion dice by the manifest, n = 2",
        "2500 MHz of at most 3500 MHz",
        "MODE_30W (2)",
        "2 times, GPU: power cap, hottest 61 degrees Celsius",
        "GPU, 8192 MiB, driver 1",
        "Jetson",
        "a" * 64,
    ):
        assert part in words, part


def test_the_page_needs_nothing_but_itself(full: BenchResult) -> None:
    text = render_html(full)
    assert Words(text).addresses == []
    assert "http:" not in text
    assert "https:" not in text
    assert "Content-Security-Policy" in text


def test_names_are_escaped(make_configuration: MakeConfiguration, make_result: MakeResult) -> None:
    evil = '<script>alert("x")</script>'
    result = make_result(make_configuration([1.0], label=evil, engine_reason=evil), notes=(evil,))
    text = render_html(result)
    assert evil not in text
    assert evil in Words(text).text


def test_the_smallest_result_has_a_page(make_result: MakeResult, make_configuration: MakeConfiguration) -> None:
    nothing = {"network": describe([0.0])}
    for result in (make_result(), make_result(make_configuration([1e-6], stages_s=nothing, tiles=0))):
        words = Words(render_html(result)).text
        assert "Accuracy over latency is left out" in words
        assert "Cold start" not in words
        assert "The roofline is left out" in words
        assert "tiny 1.0.0, demo study" in render_result(result)


def test_the_measured_result_has_a_page_and_a_table(measured: BenchResult) -> None:
    assert "share of labels equal to openvino fp32" in Words(render_html(measured)).text
    table = render_result(measured)
    assert "No p95 or p99: they take 20 and 100 rounds, and there were 2." in table
    assert len({line.index("openvino") for line in table.splitlines() if line.startswith("openvino")}) == 1


@pytest.mark.parametrize("width", [WIDE, HALF, NARROW])
def test_plots_stay_in_their_frame(full: BenchResult, measured: BenchResult, width: float) -> None:
    for result in (full, measured):
        drawn = [plots.distribution(result, figure, width) for figure in ("study", "tile")]
        drawn += [plots.waterfall(each, width, "#000") for each in result.configurations]
        assert result.roofline is not None
        drawn.append(plots.roofline(result, result.roofline, width))
        found = accuracy_values(result)
        assert found is not None
        drawn.append(plots.pareto(result, *found, width))
        for svg in drawn:
            _check_inside(ElementTree.fromstring(svg))


@pytest.mark.parametrize("width", [WIDE, HALF, NARROW])
def test_long_labels_at_the_ends_of_an_axis_stay_in_its_frame(
    make_configuration: MakeConfiguration, make_result: MakeResult, width: float
) -> None:
    for step in range(40):
        low = 1.7e-4 + 1e-6 * step
        result = make_result(make_configuration([low, 1.4 * low, 2 * low]))
        for figure in ("study", "tile"):
            _check_inside(ElementTree.fromstring(plots.distribution(result, figure, width)))


def _check_inside(svg: ElementTree.Element) -> None:
    _, _, width, height = (float(word) for word in svg.attrib["viewBox"].split())
    for element in svg.iter():
        xs = [float(element.attrib[name]) for name in ("x", "x1", "x2", "cx") if name in element.attrib]
        ys = [float(element.attrib[name]) for name in ("y", "y1", "y2", "cy") if name in element.attrib]
        pairs = [pair.split(",") for pair in element.attrib.get("points", "").split()]
        assert all(-0.5 <= x <= width + 0.5 for x in (*xs, *(float(x) for x, _ in pairs))), element.attrib
        assert all(-0.5 <= y <= height + 0.5 for y in (*ys, *(float(y) for _, y in pairs))), element.attrib
        if element.text and element.tag == "text":
            reach = 0.5 * 12 * len(element.text)
            sides = {"start": (0.0, reach), "middle": (reach / 2, reach / 2), "end": (reach, 0.0)}
            left, right = sides[element.attrib["text-anchor"]]
            assert xs[0] - left >= -8, element.text
            assert xs[0] + right <= width + 8, element.text


def test_a_point_above_its_roof_is_remarked_on(full: BenchResult) -> None:
    found = full.roofline
    assert found is not None
    low = msgspec.structs.replace(found, roofs=(Roof(precision="fp32", gflop_per_s=1.0, how="measured"),))
    assert "above its roof" in Words(render_html(msgspec.structs.replace(full, roofline=low))).text
    high = msgspec.structs.replace(found, roofs=(Roof(precision="fp32", gflop_per_s=1e4, how="measured"),))
    assert "above its roof" not in Words(render_html(msgspec.structs.replace(full, roofline=high))).text


def test_every_sample_is_drawn(full: BenchResult) -> None:
    svg = plots.distribution(full, "study", WIDE)
    assert svg.count("<circle") == sum(each.study_s.samples for each in full.configurations)
    assert svg.count("stroke-dasharray") == 2  # p95 of both


def test_the_waterfall_is_as_long_as_the_run(full: BenchResult) -> None:
    boxes = re.findall(
        r'<rect x="([\d.]+)" y="[\d.]+" width="([\d.]+)"', plots.waterfall(full.configurations[0], WIDE, "#000")
    )
    ends = [(float(x), float(x) + float(width)) for x, width in boxes]
    assert len(ends) == 5
    for (_, end), (start, _) in itertools.pairwise(ends):
        assert start == pytest.approx(end, abs=0.3)
    assert ends[-1][1] == pytest.approx(WIDE - 8, abs=0.3)


def test_accuracy_needs_two_precisions_or_two_answers(full: BenchResult, make_result: MakeResult) -> None:
    values, meaning = accuracy_values(full) or ([], "")
    assert dict(values) == {"openvino fp32": 0.5, "openvino bf16": 0.499}
    assert meaning == "lesion dice by the manifest, n = 2"
    one = msgspec.structs.replace(full, accuracy=full.accuracy[:1])
    values, meaning = accuracy_values(one) or ([], "")
    assert dict(values) == {"openvino fp32": 1.0, "openvino bf16": 0.9987}
    assert meaning == "share of labels equal to openvino fp32"
    assert accuracy_values(make_result()) is None


def test_accuracy_is_compared_on_the_same_studies(full: BenchResult) -> None:
    def figures(*rows: tuple[str, str, float]) -> BenchResult:
        return msgspec.structs.replace(
            full,
            accuracy=tuple(
                AccuracyFigure(precision=precision, metric="lesion_dice", study_set=name, value=value, studies=1)
                for precision, name, value in rows
            ),
        )

    easy, hard = ("fp32", "easy", 0.9), ("fp32", "hard", 0.3)
    values, meaning = accuracy_values(figures(easy, hard, ("bf16", "hard", 0.29))) or ([], "")
    assert (dict(values), meaning) == (
        {"openvino fp32": 0.3, "openvino bf16": 0.29},
        "lesion dice by the manifest, n = 1",
    )
    values, meaning = accuracy_values(figures(easy, ("bf16", "hard", 0.29))) or ([], "")
    assert meaning.startswith("share of labels")


def test_fp32_is_what_the_others_are_told_against(full: BenchResult) -> None:
    told = AccuracyFigure(precision="bf16", metric="label_agreement", study_set="held out", value=0.998, studies=2)
    values, meaning = accuracy_values(msgspec.structs.replace(full, accuracy=(told,))) or ([], "")
    assert dict(values) == {"openvino fp32": 1.0, "openvino bf16": 0.998}
    assert meaning == "label agreement by the manifest, n = 2"


@pytest.mark.parametrize(
    ("low", "high", "logarithmic", "expected"),
    [
        (0, 1, False, [0, 0.2, 0.4, 0.6, 0.8, 1.0]),
        (0.95, 1.13, False, [0.95, 1.0, 1.05, 1.1]),
        (0, 3, False, [0, 0.5, 1, 1.5, 2, 2.5, 3]),
        (1, 100, True, [1, 3, 10, 30, 100]),
        (0.1, 1e5, True, [0.1, 10, 1e3, 1e5]),
    ],
)
def test_ticks_are_round(low: float, high: float, logarithmic: bool, expected: list[float]) -> None:
    scale = Scale(low, high, 0, 100, logarithmic)
    assert scale.ticks(6) == pytest.approx(expected) or scale.ticks(6)[: len(expected)] == pytest.approx(expected)
    assert scale(low) == pytest.approx(0)
    assert scale(high) == pytest.approx(100)


@pytest.mark.parametrize(
    ("value", "text"),
    [(0, "0"), (0.000475, "0.000475"), (0.0251, "0.0251"), (1.0, "1"), (6.104, "6.1"), (12.34, "12.3"), (1200, "1200")],
)
def test_numbers_are_short(value: float, text: str) -> None:
    assert short(value) == text
