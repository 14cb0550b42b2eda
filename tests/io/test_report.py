"""The report says what the result holds, in JSON and in HTML, and the page depends on nothing outside itself."""

from __future__ import annotations

import base64
import json
import math
import re
from collections.abc import Callable
from html.parser import HTMLParser
from io import BytesIO
from pathlib import Path

import pytest
from PIL import Image
from sample_results import CLASSES, PROVENANCE, make_fused_only, make_result

from rmr_sdk.intensity import IntensityMap
from rmr_sdk.io import report
from rmr_sdk.io.planes import build_view
from rmr_sdk.io.preview import class_colours, draw_panels
from rmr_sdk.result import Result

SCHEMA = Path(__file__).parents[2] / "docs" / "report.schema.json"
HOSTILE = """<script>alert(1)</script>"'><img src=x onerror=alert(2)>{{ 7 * 7 }}"""


class Page(HTMLParser):
    """Collects the tags, the attributes and the text of a page."""

    def __init__(self, source: str) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.attributes: list[tuple[str, str]] = []
        self.text = ""
        self.feed(source)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.attributes += [(name, value or "") for name, value in attrs]

    def handle_data(self, data: str) -> None:
        self.text += data

    @property
    def words(self) -> str:
        return " ".join(self.text.split())


@pytest.fixture(scope="module")
def render() -> Callable[[Result], str]:
    return lambda result: report.render_html(
        report.build_report(result), draw_panels(result, build_view(result)), class_colours(result)
    )


def test_json_holds_the_result() -> None:
    result = make_result(spheres=[((0, 0, 0), 5.0), ((12, 0, 0), 3.0)], warnings=("coarse",), notice="simulated")
    data = json.loads(report.encode_report(report.build_report(result)))
    assert data["schema_version"] == 1
    assert data["lesions"]["count"] == 2
    assert data["lesions"]["total_ml"] == pytest.approx(sum(item["volume_ml"] for item in data["lesions"]["items"]))
    assert data["lesions"]["items"][1]["centroid_mm"] == pytest.approx([12, 0, 0], abs=0.6)
    assert data["tissue_ml"].keys() == set(CLASSES[1:4])
    assert data["grid"] == {
        "shape": [60, 72, 54],
        "spacing_mm": [1.0, 1.0, 1.0],
        "orientation": "LAS",
        "affine": result.fused.affine.tolist(),
    }
    assert data["intensity"] == {"contrast": "FLAIR", "scale": 1 / 120, "offset": 0.0, "low": 0.0, "high": 1.5}
    assert (data["warnings"], data["notice"]) == (["coarse"], "simulated")
    assert data["timings_s"] == {"prepare": 0.25, "network": 3.5}
    assert data["provenance"]["bundle_hash"] == PROVENANCE.bundle_hash


@pytest.mark.parametrize("make", [make_result, make_fused_only], ids=["segmented", "fused only"])
def test_json_reads_back_as_it_was(make: Callable[[], Result]) -> None:
    written = report.build_report(make())
    assert report.decode_report(report.encode_report(written)) == written


def test_json_tells_no_lesion_from_no_segmentation() -> None:
    none_found, fused_only = (report.build_report(r) for r in (make_result(spheres=[]), make_fused_only()))
    assert none_found.lesions is not None
    assert (none_found.lesions.count, none_found.lesions.total_ml) == (0, 0.0)
    assert (fused_only.lesions, fused_only.tissue_ml, fused_only.classes) == (None, None, None)


def test_an_unlimited_intensity_scale_is_null_and_left_out_of_the_page(render: Callable[[Result], str]) -> None:
    result = make_result(intensity=IntensityMap(scale=0.5, high=math.inf))
    assert json.loads(report.encode_report(report.build_report(result)))["intensity"]["high"] is None
    assert "at most" not in Page(render(result)).words


def test_schema_in_docs_is_the_one_in_the_code() -> None:
    assert SCHEMA.read_text(encoding="utf-8").strip() == report.json_schema(), (
        "see rmr_sdk/io/report.py for the command"
    )


def test_page_shows_every_figure(render: Callable[[Result], str]) -> None:
    result = make_result(warnings=("FLAIR is coarse",), notice="simulated")
    (lesion,) = result.lesions or ()
    words = Page(render(result)).words
    for part in (
        "Research software, not a medical device",
        "simulated",
        "FLAIR is coarse",
        f"{lesion.volume_ml:.3f} ml",
        f"{(6000 * lesion.volume_ml / math.pi) ** (1 / 3):.1f} mm",
        "R 10, A 13, S 8",
        "0.90",
        "60 x 72 x 54 voxels of 1.00 x 1.00 x 1.00 mm, axes LAS",
        "0.00833333, at least 0, at most 1.5",
        "both contrasts share one grid",
        PROVENANCE.bundle_hash,
        "8 run, 3 skipped",
        "3.75",
    ):
        assert part in words, part


def test_page_without_segmentation_has_no_lesion_table(render: Callable[[Result], str]) -> None:
    words = Page(render(make_fused_only())).words
    assert "this bundle only fuses" in words
    assert "Tissue volumes" not in words
    assert "Probability" not in words


def test_page_without_lesions_says_so(render: Callable[[Result], str]) -> None:
    words = Page(render(make_result(spheres=[]))).words
    assert "No lesion found" in words
    assert "largest" not in words


def test_page_needs_nothing_but_itself(render: Callable[[Result], str]) -> None:
    html = render(make_result(warnings=("w",), notice="n"))
    page = Page(html)
    outside = [(n, v) for n, v in page.attributes if n in ("src", "href", "srcset", "data", "poster", "action")]
    assert [value.partition(",")[0] for _, value in outside] == ["data:image/png;base64"]
    assert not {"script", "link", "iframe", "object", "embed", "base"} & set(page.tags)
    without_picture = re.sub(r"base64,[A-Za-z0-9+/=]+", "", html)
    assert not re.search(r"https?:|//|url\(|@import", without_picture)
    assert ("content", "default-src 'none'; img-src data:; style-src 'unsafe-inline'") in page.attributes


def test_picture_in_the_page_is_the_panels(render: Callable[[Result], str]) -> None:
    result = make_result()
    (source,) = (value for name, value in Page(render(result)).attributes if name == "src")
    with Image.open(BytesIO(base64.b64decode(source.partition(",")[2]))) as picture:
        assert picture.tobytes() == draw_panels(result, build_view(result)).tobytes()


def test_hostile_strings_stay_text(render: Callable[[Result], str]) -> None:
    import dataclasses

    hostile = dataclasses.replace(
        PROVENANCE,
        bundle=HOSTILE,
        bundle_version=HOSTILE,
        engine=HOSTILE,
        engine_reason=HOSTILE,
        device=HOSTILE,
        geometry=(HOSTILE,),
        versions={HOSTILE: HOSTILE},
    )
    names = ("background", "csf", "grey_matter", HOSTILE, "lesion")
    page = Page(
        render(
            make_result(
                provenance=hostile,
                notice=HOSTILE,
                warnings=(HOSTILE,),
                classes=names,
                tissue_ml={HOSTILE: 3.0},
                timings={HOSTILE: 1.0},
            )
        )
    )
    plain = Page(render(make_result(notice="n", warnings=("w",), tissue_ml={"csf": 3.0}, timings={"t": 1.0})))
    assert page.tags == plain.tags
    assert not [name for name, _ in page.attributes if name.startswith("on")]
    assert page.text.count("{{ 7 * 7 }}") >= 10


def test_writes_no_path(tmp_path: Path) -> None:
    make_result().save(tmp_path / "Jane Doe 1970")
    for name in ("report.json", "report.html"):
        assert "Jane" not in (tmp_path / "Jane Doe 1970" / name).read_text(encoding="utf-8")
