"""The benchmark of three sizes: one seed and one stream for all, nothing trained twice, every figure in its place."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from types import ModuleType

import nibabel as nib
import numpy as np
import pytest
import torch

from rmr_sdk.geometry import Grid
from rmr_sdk.study import Study
from rmr_training.models import find_preset
from rmr_training.stages import Trainer
from tests.tiny_bundle import make_bundle
from tests.training.test_synthesis import phantom

BENCHMARKS = Path(__file__).parents[2] / "benchmarks"
MICRO = ("--sizes", "edge-small", "--steps", "4", "--side", "32", "--batch", "1", "--validation-patches", "1")


@pytest.fixture(scope="module")
def bench() -> Iterator[ModuleType]:
    """Give the benchmark, a script beside the packages."""
    sys.path.insert(0, str(BENCHMARKS))
    import bench_pareto

    yield bench_pareto
    sys.path.remove(str(BENCHMARKS))


@pytest.fixture(scope="module")
def labelmaps(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("labelmaps")
    for donor in ("01", "05", "09", "20", "28"):
        nib.save(nib.Nifti1Image(phantom(), np.eye(4)), folder / f"patient{donor}.nii.gz")
    return folder


@pytest.fixture
def arguments(labelmaps: Path, tmp_path: Path) -> list[str]:
    folders = ("--labelmaps", str(labelmaps), "--runs", str(tmp_path / "runs"), "--out", str(tmp_path / "pareto.json"))
    return [*MICRO, *folders, "--no-study", "--workers", "0", "--checkpoint-every", "2"]


def test_a_finished_size_is_measured_and_never_trained_again(
    bench: ModuleType, arguments: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert bench.main(arguments) == 0
    report = json.loads((tmp_path / "pareto.json").read_text())
    [row] = report["sizes"]
    assert (row["size"], row["parameters"]) == ("edge-small", bench.measure_cost(find_preset("edge-small")).parameters)
    assert row["training"].keys() == {"step_cpu_s", "steps_per_s", "waiting_share"}
    assert row["training"]["step_cpu_s"] > 0
    assert set(row["synthetic_dice"]) == {"mean", "csf", "grey_matter", "white_matter", "lesion"}
    assert row["bundle_mb"] > 1
    assert report["recipe"]["train_autoencoder"]
    assert report["recipe"]["real_share"] == 0
    assert torch.get_num_threads() == report["training_threads"] == 1

    monkeypatch.setattr(Trainer, "run", lambda *_: pytest.fail("trained again"))
    monkeypatch.setattr(bench, "measure", lambda *_: row)
    assert bench.main(arguments) == 0
    with pytest.raises(SystemExit, match="a run of another recipe"):
        bench.main([*arguments, "--rate", "1e-4"])


def test_a_run_that_was_cut_off_goes_on(
    bench: ModuleType, arguments: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    count, steps = bench.Meter.__call__, []

    def cut_off_once(meter: object, step: int, loss: float) -> None:
        steps.append(step)
        count(meter, step, loss)
        if steps == [1, 2, 3]:
            raise KeyboardInterrupt

    monkeypatch.setattr(bench, "measure", lambda *_: {})
    monkeypatch.setattr(bench.Meter, "__call__", cut_off_once)
    with pytest.raises(KeyboardInterrupt):
        bench.main(arguments)
    assert bench.main(arguments) == 0
    assert steps == [1, 2, 3, 3, 4]  # the last checkpoint was of step 2
    assert json.loads((tmp_path / "runs" / "edge-small" / "meter.json").read_text())["steps"] == 5


def test_a_study_is_timed_in_every_precision_that_is_there(
    bench: ModuleType, tmp_path: Path, make_phantom: Callable[..., Study], make_grid: Callable[..., Grid]
) -> None:
    make_bundle(tmp_path / "tiny.zip")
    seconds = bench.end_to_end(tmp_path / "tiny.zip", make_phantom(make_grid()), repeats=2, threads=1)
    assert "fp32" in seconds
    assert set(seconds) <= set(bench.PRECISIONS)
    assert all(value > 0 for value in seconds.values())


def test_cost_counts_what_a_hand_can(bench: ModuleType) -> None:
    # Dense fusion: 27 taps x 16 outputs x (32 + 48 + 64 + 80 + 96 + 16) inputs, at an eighth of the voxels.
    edge, wider = (bench.measure_cost(find_preset(name)) for name in ("edge", "edge-large"))
    assert edge.kmac_per_voxel > 27 * 16 * 336 / 8 / 1000
    assert edge.kmac_per_voxel == pytest.approx(55.9, abs=0.1)
    assert wider.parameters > 2 * edge.parameters
