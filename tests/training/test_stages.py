"""Both stages on a tiny network: they learn, freeze what they must, and resume bit for bit."""

from __future__ import annotations

import csv
import dataclasses
import itertools
from pathlib import Path

import pytest
import torch

from rmr_sdk.errors import FormatError
from rmr_training import stages
from rmr_training.checkpoint import load_network, read_checkpoint
from rmr_training.data import LabelMap, SyntheticPatches
from rmr_training.losses import SegmentationLoss
from rmr_training.models import EncoderShape, Preset, RmrFusion
from rmr_training.stages import Recipe, Trainer, TrainingError, learning_rate
from tests.training.test_synthesis import phantom

TINY = Preset(
    "tiny",
    EncoderShape(
        stem=(4, 8), stride=2, width=16, patch=2, depths=(1, 1), heads=1, window=4, tail=8, features=8, decoder=8
    ),
    growth=4,
    head="dynunet",
    head_options={"filters": (8, 8, 8), "channels": 8},
    tile=(16, 16, 16),
)
QUICK = {"batch": 1, "side": 16, "workers": 0, "amp": False, "warmup": 1, "checkpoint_every": 2}


@pytest.fixture(scope="module")
def maps() -> list[LabelMap]:
    labels = phantom()
    return [LabelMap("phantom", "1", 1.0, labels, (labels == 4).nonzero()[0][:, None].repeat(3, 1))]


def network(seed: int = 0) -> RmrFusion:
    torch.manual_seed(seed)
    return RmrFusion(TINY)


def losses(folder: Path) -> list[float]:
    with (folder / "log.csv").open() as file:
        return [float(row["loss"]) for row in csv.DictReader(file)]


@pytest.mark.parametrize("stage", ["autoencoder", "joint"])
def test_resumed_run_equals_an_uninterrupted_one(stage: str, maps: list[LabelMap], tmp_path: Path) -> None:
    recipe = Recipe(stage=stage, steps=4, **QUICK)
    Trainer(network(), recipe, maps, tmp_path / "whole").run()

    class StopError(Exception):
        pass

    def stop(step: int, _: float) -> None:
        if step == 3:
            raise StopError

    with pytest.raises(StopError):
        Trainer(network(), recipe, maps, tmp_path / "parts").run(stop)
    resumed = Trainer(network(seed=9), recipe, maps, tmp_path / "parts")
    resumed.resume(tmp_path / "parts" / "last.pth")
    assert resumed.step == 2
    resumed.run()
    for name in ("last.pth", "model.pth"):
        whole, parts = (read_checkpoint(tmp_path / run / name)["model"] for run in ("whole", "parts"))
        assert all(torch.equal(whole[key], parts[key]) for key in whole)


def test_joint_stage_leaves_the_autoencoder_alone(maps: list[LabelMap], tmp_path: Path) -> None:
    net = network()
    before = {key: value.clone() for key, value in net.state_dict().items()}
    Trainer(net, Recipe(stage="joint", steps=2, **QUICK), maps, tmp_path).run()
    changed = {key.split(".")[0] for key, value in net.state_dict().items() if not torch.equal(value, before[key])}
    assert changed == {"fusion", "head"}


def test_autoencoder_stage_leaves_fusion_and_head_alone(maps: list[LabelMap], tmp_path: Path) -> None:
    net = network()
    before = {key: value.clone() for key, value in net.state_dict().items()}
    Trainer(net, Recipe(stage="autoencoder", steps=2, **QUICK), maps, tmp_path).run()
    changed = {key.split(".")[0] for key, value in net.state_dict().items() if not torch.equal(value, before[key])}
    assert changed == {"autoencoder"}


def test_joint_stage_learns(maps: list[LabelMap], tmp_path: Path) -> None:
    net = network()
    sample = SyntheticPatches(maps, 16, seed=99).sample(0)
    batch = (sample[0][None], sample[1][None], sample[2][None])

    def held_out() -> float:
        with torch.no_grad():
            return stages.joint_loss(net, batch, SegmentationLoss(4.0), True, False).item()

    before = held_out()
    recipe = Recipe(stage="joint", steps=40, rate=5e-3, **{**QUICK, "checkpoint_every": 40})
    history: list[float] = []
    Trainer(net, recipe, maps, tmp_path).run(lambda _, loss: history.append(loss))
    assert held_out() < 0.9 * before
    assert losses(tmp_path) == pytest.approx([history[i] for i in (19, 39)], abs=1e-3)


def test_averaged_weights_load_as_a_network(maps: list[LabelMap], tmp_path: Path) -> None:
    Trainer(network(), Recipe(stage="joint", steps=2, **QUICK), maps, tmp_path).run()
    loaded = load_network(tmp_path / "model.pth")
    assert loaded.preset == dataclasses.replace(TINY, head_options=loaded.preset.head_options)


def test_a_loss_that_is_not_finite_stops_the_run(
    maps: list[LabelMap], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    trainer = Trainer(network(), Recipe(stage="joint", steps=4, **QUICK), maps, tmp_path)
    real = stages.joint_loss
    calls = iter(range(10))

    def broken(*arguments: object) -> torch.Tensor:
        return real(*arguments) * (float("nan") if next(calls) == 3 else 1.0)

    monkeypatch.setattr(stages, "joint_loss", broken)
    with pytest.raises(TrainingError, match="the loss is nan at step 3"):
        trainer.run()
    kept = read_checkpoint(tmp_path / "last.pth")
    assert kept["step"] == 2
    assert all(torch.isfinite(value).all() for value in kept["model"].values())


def test_resuming_another_stage_is_refused(maps: list[LabelMap], tmp_path: Path) -> None:
    Trainer(network(), Recipe(stage="joint", steps=2, **QUICK), maps, tmp_path).run()
    trainer = Trainer(network(), Recipe(stage="autoencoder", steps=2, **QUICK), maps, tmp_path)
    with pytest.raises(TrainingError, match="is of stage 'joint'"):
        trainer.resume(tmp_path / "last.pth")


def test_a_broken_checkpoint_is_refused(tmp_path: Path) -> None:
    (tmp_path / "model.pth").write_bytes(b"not a checkpoint")
    with pytest.raises(FormatError, match=r"model\.pth is not a readable checkpoint"):
        read_checkpoint(tmp_path / "model.pth")


def test_rate_warms_up_and_falls_to_zero() -> None:
    recipe = Recipe(stage="joint", steps=100, warmup=10, rate=1.0)
    rates = [learning_rate(step, recipe) for step in range(101)]
    assert rates[0] == pytest.approx(0.1)
    assert rates[9] == max(rates) == 1.0
    assert rates[100] == pytest.approx(0.0, abs=1e-9)
    assert all(a >= b for a, b in itertools.pairwise(rates[9:]))
