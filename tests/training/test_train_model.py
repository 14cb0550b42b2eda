"""The whole training by one command: stages in their order, cut off anywhere, nothing done twice."""

from __future__ import annotations

import sys
from argparse import Namespace
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

import nibabel as nib
import numpy as np
import pytest

from rmr_training.checkpoint import read_checkpoint
from rmr_training.stages import Trainer
from tests.training.test_synthesis import phantom

BENCHMARKS = Path(__file__).parents[2] / "benchmarks"
RECIPE = """
[network]
preset = "edge-small"

[recipe]
steps = {steps}
warmup = 1
rate = 1e-5
amp = false
batch = 1
side = 32
workers = 0
validate_every = {steps}
validation_patches = 1
"""


@pytest.fixture(scope="module")
def bench() -> Iterator[ModuleType]:
    """Give the script, which stands beside the packages."""
    sys.path.insert(0, str(BENCHMARKS))
    import train_model

    yield train_model
    sys.path.remove(str(BENCHMARKS))


@pytest.fixture
def arguments(bench: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Give the command line of a plan of two stages, the second of which is kept."""
    (tmp_path / "labelmaps").mkdir()
    for donor in ("01", "05", "09", "20", "28"):
        nib.save(nib.Nifti1Image(phantom(), np.eye(4)), tmp_path / "labelmaps" / f"patient{donor}.nii.gz")
    monkeypatch.setenv("RMR_DATA", str(tmp_path))
    for name, steps in (("one", 1), ("two", 2)):
        (tmp_path / f"{name}.toml").write_text(RECIPE.format(steps=steps))
    stage = bench.TrainingStage
    stages = (
        stage(name="one", command="autoencoder", config=str(tmp_path / "one.toml")),
        stage(name="two", command="joint", config=str(tmp_path / "two.toml"), start="one", keep="kept.pth", half=True),
    )
    plan = bench.read_plan("ms-edge")
    monkeypatch.setattr(
        bench, "read_plan", lambda name: type(plan)(name="x", version="1", checkpoint="", card="", stage=stages)
    )
    return [
        "--runs",
        str(tmp_path / "runs"),
        "--steps-factor",
        "2",
        "--calibration-patches",
        "2",
        "--calibration-heads",
        "0",
    ]


def test_sittings_give_what_one_run_gives(
    bench: ModuleType,
    arguments: list[str],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    runs = tmp_path / "runs"
    assert bench.main([*arguments, "--minutes", "1e-6"]) == 3
    assert "not done: one is next" in capsys.readouterr().out
    assert bench.steps_done(runs / "one") == 1
    sittings = 2
    while bench.main([*arguments, "--minutes", "1e-6"]) == 3:
        sittings += 1
    assert sittings == 5, "one step each; the last of a stage is followed by the first of the next"
    recipe = read_checkpoint(runs / "two" / "best.pth")["recipe"]
    assert (recipe["steps"], recipe["warmup"], recipe["batch"]) == (4, 2, 1)
    kept = read_checkpoint(runs / "models" / "kept.pth")
    assert {str(w.dtype) for w in kept["model"].values() if w.is_floating_point()} == {"torch.float16"}

    assert bench.main([*arguments, "--runs", str(tmp_path / "whole")]) == 0
    whole, parts = (read_checkpoint(folder / "two" / "last.pth")["model"] for folder in (tmp_path / "whole", runs))
    assert all((parts[name] == weight).all() for name, weight in whole.items())
    monkeypatch.setattr(Trainer, "run", lambda *_: pytest.fail("trained again"))
    assert bench.main(arguments) == 0


def test_the_shipped_plan_trains_its_folds_without_their_studies(bench: ModuleType) -> None:
    plan = bench.read_plan("ms-edge")
    kept = {stage.keep: stage for stage in plan.stage if stage.keep}
    assert set(kept) == {plan.checkpoint, *(fold.checkpoint for fold in plan.fold)}
    names = [stage.name for stage in plan.stage]
    for stage in plan.stage:
        assert not stage.start or names.index(stage.start) < names.index(stage.name)
        assert bench.flags(stage, Namespace(steps_factor=1, batch=8, workers=None))["batch"] == 8
    for fold in plan.fold:
        config = bench.read_config(bench.ROOT / kept[fold.checkpoint].config)
        assert fold.study not in config.data.real
