"""The measurement itself, on the tiny bundle: what is counted, in which order, and against what it is checked."""

from __future__ import annotations

import sys
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from tiny_bundle import CLASSES, HIDDEN, TILE
from tiny_study import make_study

from rmr_sdk import Bundle, Pipeline, Progress, Volume
from rmr_sdk.bench import roofline
from rmr_sdk.bench.answers import agreement, study_facts
from rmr_sdk.bench.child import peak_mib, work
from rmr_sdk.bench.cold import measure_cold_starts
from rmr_sdk.bench.graph_cost import count_cost
from rmr_sdk.bench.measure import TILES_PER_ROUND, run_bench
from rmr_sdk.bench.results import BenchResult, decode_result, encode_result
from rmr_sdk.bench.settings import BenchSettings
from rmr_sdk.engines import openvino
from rmr_sdk.errors import ConfigError, DeviceUnavailableError, EngineError


def test_every_configuration_is_measured(measured: BenchResult) -> None:
    first, second = measured.configurations
    assert (first.label, second.label) == ("openvino fp32", "openvino int8")
    for each in measured.configurations:
        assert each.study_s.samples == 2
        assert each.tile_s.samples == 2 * TILES_PER_ROUND
        assert {"prepare", "extract", "network", "blend", "measure", "check", "other"} <= each.stages_s.keys()
        total = sum(stage.values_s[0] for stage in each.stages_s.values())
        assert total == pytest.approx(each.study_s.values_s[0], rel=0.05)
        assert (each.threads, each.device, each.cold_starts, each.memory) == (1, "cpu", (), None)
    assert first.tiles == second.tiles > 0
    assert first.agreement is None
    assert second.agreement is not None
    assert second.agreement.labels is not None
    assert second.agreement.labels > 0.9
    assert 0 < second.agreement.fused_rms < 0.1


def test_the_result_says_what_was_measured(measured: BenchResult, place: Path) -> None:
    bundle = Bundle.open(place / "tiny.zip")
    assert measured.bundle.hash == bundle.hash
    assert measured.bundle.tile_shape == TILE
    assert not measured.study.demo
    assert measured.study.shape == make_study()["FLAIR"].data.shape
    assert measured.protocol.repeats == 2
    assert measured.conditions.others_share is not None
    assert 0 <= measured.conditions.others_share <= 1


def test_the_fingerprint_follows_the_voxels() -> None:
    study = make_study()
    same = study_facts(make_study(), "FLAIR", demo=False)
    moved = make_study()
    flair = moved["FLAIR"]
    changed = type(moved)({**moved.volumes, "FLAIR": Volume(flair.data + np.float32(1e-3), flair.affine)})
    assert study_facts(study, "FLAIR", demo=False) == same
    assert study_facts(changed, "FLAIR", demo=False).fingerprint != same.fingerprint


def test_rounds_are_interleaved_and_turn(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    ran: list[str] = []
    original = Pipeline.run

    def run(self: Pipeline, *arguments: Any, **options: Any) -> Any:
        ran.append(self.engine_info.precision)
        return original(self, *arguments, **options)

    monkeypatch.setattr(Pipeline, "run", run)
    told: list[Progress] = []
    settings = BenchSettings(
        bundle=str(place / "tiny.zip"),
        engines=("openvino",),
        precisions=("fp32", "int8"),
        cache_dir=place / "cache",
        repeats=3,
        warmup=1,
        cold_starts=0,
        roofline=False,
    )
    result = run_bench(place / "study", settings, told.append)
    assert ran == ["fp32", "int8", "fp32", "int8", "int8", "fp32", "fp32", "int8"]
    assert Counter(progress.stage for progress in told) == {
        "read": 1,
        "open": 2,
        "warm": 2,
        "bench": 6,
        "roof": 1,
    }
    assert result.roofline is None
    assert decode_result(encode_result(result)) == result


def test_the_same_configuration_twice_is_told_apart(place: Path) -> None:
    settings = BenchSettings(
        bundle=str(place / "tiny.zip"),
        engines=("openvino",),
        precisions=("fp32", "fp32"),
        cache_dir=place / "cache",
        repeats=1,
        warmup=0,
        cold_starts=0,
        roofline=False,
    )
    first, second = run_bench(place / "study", settings).configurations
    assert (first.label, second.label) == ("openvino fp32", "openvino fp32 #2")
    assert second.agreement is not None
    assert (second.agreement.labels, second.agreement.lesion_dice, second.agreement.fused_rms) == (1.0, 1.0, 0.0)


def test_agreement_counts_voxels_that_are_something(place: Path) -> None:
    with Pipeline.open(place / "tiny.zip", precision="fp32", cache_dir=place / "cache") as pipeline:
        first, second = (pipeline.run(make_study()) for _ in range(2))
    assert first.labels is not None
    assert second.labels is not None
    marked = np.argwhere(first.labels.data)
    second.labels.data[tuple(marked[:10].T)] = 0
    found = agreement(first, second)
    assert found.labels == pytest.approx(1 - 10 / len(marked), abs=1e-6)


def test_cold_starts_of_fresh_processes(place: Path) -> None:
    settings = BenchSettings(
        bundle=str(place / "tiny.zip"), engines=("openvino",), cold_starts=1, cache_dir=place / "cache"
    )
    told: list[None] = []
    (asked,) = settings.configurations
    (warm, empty), memory = measure_cold_starts(settings, asked, place / "study", lambda: told.append(None))
    assert (warm.engine_cache, empty.engine_cache, warm.processes, empty.processes) == ("warm", "empty", 1, 1)
    for start in (warm, empty):
        assert min(start.interpreter_s, start.import_s, start.open_s, start.first_tile_s) > 0
        assert start.ready_s == pytest.approx(start.import_s + start.open_s + start.first_tile_s, abs=1e-3)
    assert len(told) == 2
    assert memory is not None
    assert list(memory.host_mib) == ["imported", "opened", "read", "ran"]
    assert 10 < memory.host_mib["imported"] <= memory.host_mib["opened"] <= memory.host_mib["ran"] < 2000


@pytest.mark.parametrize("program", ["false", "true"])
def test_a_fresh_process_that_fails(place: Path, monkeypatch: pytest.MonkeyPatch, program: str) -> None:
    settings = BenchSettings(cold_starts=1)
    (asked,) = settings.configurations
    monkeypatch.setattr(sys, "executable", program)
    with pytest.raises(EngineError, match="a fresh process of the benchmark failed"):
        measure_cold_starts(settings, asked, place / "study", lambda: None)


def test_what_a_fresh_process_says_last_is_in_the_error(place: Path) -> None:
    settings = BenchSettings(bundle=str(place / "none.zip"), cold_starts=1)
    (asked,) = settings.configurations
    with pytest.raises(EngineError, match="There is no bundle") as caught:
        measure_cold_starts(settings, asked, place / "study", lambda: None)
    assert "--cold-starts 0" in str(caught.value)


def test_the_work_of_a_fresh_process(place: Path) -> None:
    options = {"bundle": str(place / "tiny.zip"), "engine": "openvino", "cache_dir": str(place / "cache")}
    found = work(options, None, 0.25)
    assert found["open_s"] > 0
    assert found["first_tile_s"] > 0
    assert list(found["host_mib"]) == ["imported", "opened"]
    assert found["device_mib"] is None


def test_peak_memory_without_linux(tmp_path: Path) -> None:
    assert 10 < peak_mib(tmp_path / "status") < 100_000


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"repeats": 0}, "repeats is 0. Pass a whole number from 1 to 10000"),
        ({"repeats": 10_001}, "repeats is 10001"),
        ({"warmup": -1}, "warmup is -1. Pass a whole number from 0"),
        ({"cold_starts": -1}, "cold_starts is -1"),
        ({"overlap": 1.0}, "overlap 1.0 is out of range"),
        ({"precisions": ()}, "There is no configuration"),
    ],
)
def test_settings_out_of_range(change: dict[str, Any], words: str) -> None:
    with pytest.raises(ConfigError, match=words):
        BenchSettings(**change)


def test_the_cost_of_a_graph_is_that_of_its_layers(place: Path) -> None:
    voxels = int(np.prod(TILE))
    found = count_cost(Bundle.open(place / "tiny.zip"))
    assert found is not None
    assert found.macs == voxels * (HIDDEN * 2 * 27 + 2 + len(CLASSES) * HIDDEN)
    weights = HIDDEN * 2 * 27 + 2 + len(CLASSES) * HIDDEN
    assert found.values == voxels * (2 + HIDDEN + 2 + 1 + HIDDEN + len(CLASSES)) + weights


def test_without_openvino_the_network_is_left_out(
    measured: BenchResult, place: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse() -> None:
        raise DeviceUnavailableError("gone")

    monkeypatch.setattr("rmr_sdk.bench.graph_cost.openvino_core", refuse)
    monkeypatch.setattr(roofline, "COPY_BYTES", 2**16)
    monkeypatch.setattr(roofline, "SIDE", 16)
    here = tuple(
        type(each)(**{**{name: getattr(each, name) for name in each.__struct_fields__}, "engine": "onnxruntime"})
        for each in measured.configurations
    )
    found = roofline.measure_roofline(Bundle.open(place / "tiny.zip"), here, make_study())
    assert found is not None
    assert [roof.precision for roof in found.roofs] == ["fp32"]
    assert "NumPy" in found.roofs[0].how
    assert not any(point.name.startswith("network") for point in found.points)
    assert "the network" in found.left_out[0]


def test_the_roofline_of_the_tiny_bundle(measured: BenchResult) -> None:
    found = measured.roofline
    assert found is not None
    assert found.copy_gb_per_s > 0
    assert [roof.precision for roof in found.roofs] == ["fp32", "int8"]
    assert [point.name for point in found.points] == [
        f"{part}, openvino {precision}" for precision in ("fp32", "int8") for part in ("network", "extract", "blend")
    ]
    network, extract, blend = found.points[:3]
    tiles, voxels = measured.configurations[0].tiles, int(np.prod(TILE))
    assert extract.gigabytes == pytest.approx(tiles * voxels * 2 * 8 / 1e9)
    assert blend.gigabytes > tiles * voxels * len(CLASSES) * 4 / 1e9
    assert network.intensity > extract.intensity
    assert found.left_out == ()
    assert openvino.import_openvino() is sys.modules["openvino"]
