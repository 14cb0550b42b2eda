"""The benchmark against other software: what is cropped, concluded and tabled; the peers themselves do not run here."""

from __future__ import annotations

import importlib
from collections.abc import Callable
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import numpy as np
import pytest
from tiny_study import make_study

BENCHMARKS = Path(__file__).parents[2] / "benchmarks"
OURS, EAGER = "rmr_sdk bf16", "torch eager + MONAI, fp32"


@pytest.fixture
def load(monkeypatch: pytest.MonkeyPatch) -> Callable[[str], ModuleType]:
    """Give a function that imports a module of the benchmarks."""
    monkeypatch.syspath_prepend(BENCHMARKS)
    return importlib.import_module


@pytest.fixture
def rows() -> dict[str, Any]:
    """Give rows as a run leaves them: ours in two precisions, the better one out of step with fp32, and torch."""

    def row(box: float, memory: int, agreement: float, whole: float | None = None, **more: Any) -> dict[str, Any]:
        found = {"box_median_s": box, "whole_median_s": whole, "box_peak_mib": memory, "label_agreement": agreement}
        return {**found, **({"whole_peak_mib": memory + 100} if whole else {}), **more}

    stages = {"stages_median_s": {"network": 3.0}, "gate": []}
    return {
        "rmr_sdk fp32": row(6.0, 700, 1.0, **stages),
        OURS: row(3.0, 300, 0.998, **stages),
        "rmr_sdk int8": row(1.0, 300, 0.9, **stages),
        "rmr_sdk fp16": row(1.0, 300, 1.0, **{**stages, "gate": ["not measured"]}),
        EAGER: row(12.0, 900, 0.9999, 33.0),
        "odd": row(2.0, 900, 0.5, 4.0),
    }


def test_the_middle_is_cropped_and_stays_in_place(load: Callable[[str], ModuleType]) -> None:
    study = make_study()
    cropped = load("bench_peers").crop_study(study, (8, 10, 200))
    before, after = study["FLAIR"], cropped["FLAIR"]
    assert after.data.shape == (8, 10, before.data.shape[2])
    start = [(a - b) // 2 for a, b in zip(before.data.shape, after.data.shape, strict=True)]
    np.testing.assert_allclose(after.grid.world((0, 0, 0)), before.grid.world(start))
    assert after.data[3, 4, 5] == before.data[start[0] + 3, start[1] + 4, start[2] + 5]


def test_the_best_precision_is_the_fastest_whose_labels_agree(
    load: Callable[[str], ModuleType], rows: dict[str, Any]
) -> None:
    found = load("bench_peers").conclude(rows)
    assert found["best"] == OURS
    assert (found["times_faster_same_tiles"], found["times_faster_whole_volume"]) == (4.0, 11.0)
    assert found["memory_share_whole_volume"] == 0.3
    assert all(found["targets"].values())
    rows[EAGER]["whole_median_s"] = None
    assert not all(load("bench_peers").conclude(rows)["targets"].values())
    del rows[EAGER]
    assert load("bench_peers").conclude(rows) == {}


def test_no_ratio_stands_beside_labels_that_differ(load: Callable[[str], ModuleType], rows: dict[str, Any]) -> None:
    make_row = load("speed_tables")._peer_row
    assert make_row(EAGER, rows[EAGER], rows) == [EAGER, "12.0", "4.0 x", "33.0", "11.0 x", "900 / 1000", "99.99 %"]
    assert make_row("odd", rows["odd"], rows) == ["odd", "2.0", "", "4.0", "", "900 / 1000", "50.00 %"]
    assert make_row("rmr_sdk fp16", rows["rmr_sdk fp16"], rows)[0] == "rmr_sdk fp16 (not gated)"
    assert make_row(OURS, rows[OURS], rows)[1:5] == ["3.0", "", "", ""]


def test_a_peer_that_cannot_run_says_why(load: Callable[[str], ModuleType], monkeypatch: pytest.MonkeyPatch) -> None:
    peers = load("peers_study")
    monkeypatch.setattr(peers, "find_spec", lambda name: None if name == "nnunetv2" else SimpleNamespace())
    reasons = {name: peer.why_not("cpu") for name, peer in peers.STUDY_PEERS.items()}
    assert reasons["nnU-Net predictor, torch eager, fp32"] == "not installed: nnunetv2"
    assert reasons["Torch-TensorRT + MONAI, fp16"] == "not for cpu"
    assert reasons[EAGER] == ""


def test_a_process_that_cannot_open_its_peer_says_so(load: Callable[[str], ModuleType], tmp_path: Path) -> None:
    setting = load("peers_study").Setting("none.pth", "none", (8, 16, 16), 0.25, 1, "cpu", 5, 0.125)
    task = load("peer_process").Task("rmr_sdk fp32", setting, str(tmp_path))
    peer = load("peer_process").Peer(task)
    assert peer.ready["unavailable"].startswith('There is no bundle "none"')
    assert peer.run("box") == {"unavailable": "its process ended with 0"}
    peer.close()
