"""Both stages on a tiny network: they learn, freeze what they must, and resume bit for bit."""

from __future__ import annotations

import csv
import dataclasses
import itertools
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

from rmr_sdk.errors import FormatError, OutputError
from rmr_training import stages
from rmr_training.checkpoint import load_network, read_checkpoint
from rmr_training.data import LabelMap, SyntheticPatches
from rmr_training.losses import SegmentationLoss, reconstruction
from rmr_training.models import EncoderShape, Preset, RmrFusion
from rmr_training.objectives import degrade_some
from rmr_training.sampling import keyed_generator
from rmr_training.stages import Material, Recipe, Trainer, TrainingError, learning_rate
from rmr_training.synthesis import Ranges
from rmr_training.validation import VALIDATION_SEED, Validation, validate
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
WITH_DROPOUT = dataclasses.replace(
    TINY, head="segresnet", head_options={"init_filters": 8, "channels": 8, "dropout_prob": 0.5}
)
QUICK = {"batch": 1, "side": 16, "workers": 0, "amp": False, "warmup": 1, "checkpoint_every": 2}


@pytest.fixture(scope="module")
def maps() -> Material:
    labels = phantom()
    return Material([LabelMap("phantom", "1", 1.0, labels, np.argwhere(labels == 4))])


def network(seed: int = 0, preset: Preset = TINY) -> RmrFusion:
    torch.manual_seed(seed)
    return RmrFusion(preset)


def losses(folder: Path) -> list[float]:
    with (folder / "log.csv").open() as file:
        return [float(row["loss"]) for row in csv.DictReader(file)]


@pytest.mark.parametrize(
    ("stage", "preset"),
    [("autoencoder", TINY), ("joint", TINY), ("joint", WITH_DROPOUT)],
    ids=["autoencoder", "joint", "dropout"],
)
def test_resumed_run_equals_an_uninterrupted_one(stage: str, preset: Preset, maps: Material, tmp_path: Path) -> None:
    recipe = Recipe(stage=stage, steps=4, **QUICK)
    Trainer(network(0, preset), recipe, maps, tmp_path / "whole").run()

    class StopError(Exception):
        pass

    def stop(step: int, _: float) -> None:
        if step == 3:
            raise StopError

    with pytest.raises(StopError):
        Trainer(network(0, preset), recipe, maps, tmp_path / "parts").run(stop)
    resumed = Trainer(network(9, preset), recipe, maps, tmp_path / "parts")
    resumed.resume(tmp_path / "parts" / "last.pth")
    assert resumed.step == 2
    resumed.run()
    for name in ("last.pth", "model.pth"):
        whole, parts = (read_checkpoint(tmp_path / run / name)["model"] for run in ("whole", "parts"))
        assert all(torch.equal(whole[key], parts[key]) for key in whole)


def test_joint_stage_leaves_the_autoencoder_alone(maps: Material, tmp_path: Path) -> None:
    net = network()
    before = {key: value.clone() for key, value in net.state_dict().items()}
    Trainer(net, Recipe(stage="joint", steps=2, **QUICK), maps, tmp_path).run()
    changed = {key.split(".")[0] for key, value in net.state_dict().items() if not torch.equal(value, before[key])}
    assert changed == {"fusion", "head"}


def test_autoencoder_stage_leaves_fusion_and_head_alone(maps: Material, tmp_path: Path) -> None:
    net = network()
    before = {key: value.clone() for key, value in net.state_dict().items()}
    Trainer(net, Recipe(stage="autoencoder", steps=2, **QUICK), maps, tmp_path).run()
    changed = {key.split(".")[0] for key, value in net.state_dict().items() if not torch.equal(value, before[key])}
    assert changed == {"autoencoder"}


def test_joint_stage_learns(maps: Material, tmp_path: Path) -> None:
    net = network()
    gentle = Ranges(whole_head=0, look_alikes=0, thick_slices=0, bias=0, lesion_centred=1)
    stream = SyntheticPatches(maps.maps, 16, seed=99, ranges=gentle)
    batch = tuple(torch.stack(parts) for parts in zip(*map(stream.sample, range(8)), strict=True))

    def held_out() -> float:
        with torch.no_grad():
            return stages.joint_loss(net, batch, SegmentationLoss(4.0, batch_dice=True), True, False).item()

    before = held_out()
    recipe = Recipe(stage="joint", steps=40, rate=5e-3, **{**QUICK, "checkpoint_every": 40})
    history: list[float] = []
    material = dataclasses.replace(maps, ranges=gentle)
    Trainer(net, recipe, material, tmp_path).run(lambda _, loss: history.append(loss))
    assert held_out() < 0.85 * before
    assert losses(tmp_path) == pytest.approx([history[i] for i in (19, 39)], abs=1e-3)


def test_averaged_weights_load_as_a_network(maps: Material, tmp_path: Path) -> None:
    Trainer(network(), Recipe(stage="joint", steps=2, **QUICK), maps, tmp_path).run()
    loaded = load_network(tmp_path / "model.pth")
    assert loaded.preset == dataclasses.replace(TINY, head_options=loaded.preset.head_options)


def test_a_loss_that_is_not_finite_stops_the_run(
    maps: Material, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    trainer = Trainer(network(), Recipe(stage="joint", steps=4, **QUICK), maps, tmp_path)
    real = stages.joint_loss
    calls = iter(range(10))

    def broken(*arguments: object) -> torch.Tensor:
        return real(*arguments) * (float("nan") if next(calls) == 3 else 1.0)

    monkeypatch.setattr(stages, "joint_loss", broken)
    with pytest.raises(TrainingError, match="the loss is nan at step 3, on patches of phantom"):
        trainer.run()
    kept = read_checkpoint(tmp_path / "last.pth")
    assert kept["step"] == 2
    assert all(torch.isfinite(value).all() for value in kept["model"].values())


def test_a_gradient_that_is_not_finite_is_not_learnt_from(
    maps: Material, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    trainer = Trainer(network(), Recipe(stage="joint", steps=4, **QUICK), maps, tmp_path)
    real = stages.joint_loss

    def broken(net: RmrFusion, *arguments: object) -> torch.Tensor:
        loss = real(net, *arguments)
        return loss + torch.sqrt(0 * net.head.expand.bias.sum()) if trainer.step == 3 else loss

    monkeypatch.setattr(stages, "joint_loss", broken)
    with pytest.raises(TrainingError, match="the norm of the gradient is nan at step 3, on patches of phantom"):
        trainer.run()
    assert read_checkpoint(tmp_path / "last.pth")["step"] == 2
    assert all(bool(torch.isfinite(value).all()) for value in trainer.network.state_dict().values())


def test_a_new_run_leaves_another_ones_folder_alone(maps: Material, tmp_path: Path) -> None:
    recipe = Recipe(stage="joint", steps=2, **QUICK)
    Trainer(network(), recipe, maps, tmp_path).run()
    before = (tmp_path / "last.pth").read_bytes()
    with pytest.raises(OutputError, match=r"holds a run \(last\.pth\)\. Give --resume"):
        Trainer(network(), recipe, maps, tmp_path).run()
    assert (tmp_path / "last.pth").read_bytes() == before


def test_the_state_to_resume_from_must_be_whole(maps: Material, tmp_path: Path) -> None:
    recipe = Recipe(stage="joint", steps=2, **QUICK)
    trainer = Trainer(network(), recipe, maps, tmp_path)
    trainer.run()
    content = read_checkpoint(tmp_path / "last.pth")
    del content["stage"]
    torch.save(content, tmp_path / "last.pth")
    with pytest.raises(FormatError, match=r"last\.pth has no entry 'stage'"):
        trainer.resume(tmp_path / "last.pth")
    with pytest.raises(FormatError, match=r"model\.pth has no entry 'optimizer'"):
        trainer.resume(tmp_path / "model.pth")


def test_degradations_do_not_follow_the_draws_of_the_sample(
    maps: Material, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With one patch a step, what made a sample synthetic must not keep it from being degraded."""
    recipe = Recipe(stage="joint", steps=40, real_share=0.3, degrade_inputs=0.25, **QUICK)
    trainer = Trainer(network(), recipe, maps, tmp_path)
    batch = tuple(x[None] for x in SyntheticPatches(maps.maps, 16, 5).sample(1))
    degraded = []

    def note(_: object, clean: tuple[torch.Tensor, ...], *arguments: object) -> torch.Tensor:
        degraded.append(arguments[3][0] is not clean[0])
        return torch.zeros(())

    monkeypatch.setattr(stages, "joint_loss", note)
    for trainer.step in range(40):
        trainer._loss(batch)
    synthetic = [float(torch.rand((), generator=keyed_generator(recipe.seed, place))) >= 0.3 for place in range(40)]
    assert 2 <= sum(a and b for a, b in zip(degraded, synthetic, strict=True)) <= 20


def test_resuming_another_stage_is_refused(maps: Material, tmp_path: Path) -> None:
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


def test_best_weights_are_those_of_the_best_validation(
    maps: Material, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    scores = iter([0.3, 0.5, 0.4])
    monkeypatch.setattr(stages, "validate", lambda *_: Validation((0.1, 0.2, 0.3, 0.4), next(scores)))
    recipe = Recipe(stage="joint", steps=6, validate_every=2, **QUICK)
    Trainer(network(), recipe, dataclasses.replace(maps, held_out=maps.maps), tmp_path).run()
    best = read_checkpoint(tmp_path / "best.pth")
    assert (best["step"], best["validation"]) == (4, 0.5)
    with (tmp_path / "validation.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert [(row["step"], row["score"], row["dice_lesion"]) for row in rows] == [
        ("2", "0.3000", "0.4000"),
        ("4", "0.5000", "0.4000"),
        ("6", "0.4000", "0.4000"),
    ]


@pytest.mark.parametrize("stage", ["autoencoder", "joint"])
def test_validation_is_the_same_each_time(stage: str, maps: Material) -> None:
    recipe = Recipe(stage=stage, steps=1, validation_patches=2, **QUICK)
    net = network()
    first, again = (validate(net, maps.maps, recipe, torch.device("cpu")) for _ in range(2))
    assert first == again
    assert len(first.dice) == (4 if stage == "joint" else 0)


def test_validation_of_an_oracle_is_perfect(maps: Material, monkeypatch: pytest.MonkeyPatch) -> None:
    recipe = Recipe(stage="joint", steps=1, validation_patches=3, **QUICK)
    samples = iter([SyntheticPatches(maps.maps, 16, VALIDATION_SEED).sample(i)[2] for i in range(3)])
    net = network()
    monkeypatch.setattr(net.head, "forward", lambda _: torch.eye(5)[next(samples).long()][None].movedim(-1, 1))
    result = validate(net, maps.maps, recipe, torch.device("cpu"))
    assert all(value in (0.0, 1.0) for value in result.dice)
    assert max(result.dice) == 1.0


def test_drawn_degradations_stand_for_all_three(maps: Material) -> None:
    net = network()
    sample = SyntheticPatches(maps.maps, 16, 5).sample(1)
    batch = (sample[0][None], sample[1][None], sample[2][None])

    def loss(seed: int, degraded: int) -> float:
        generator = torch.Generator().manual_seed(seed)
        with torch.no_grad():
            return stages.autoencoder_loss(net, batch, generator, False, degraded).item()

    every = np.mean([loss(seed, 3) for seed in range(12)])
    one = np.mean([loss(seed, 1) for seed in range(72)])
    assert one == pytest.approx(every, rel=0.1)


def test_without_constraints_only_the_clean_image_counts(maps: Material) -> None:
    net = network()
    sample = SyntheticPatches(maps.maps, 16, 5).sample(1)
    batch = (sample[0][None], sample[1][None], sample[2][None])
    with torch.no_grad():
        loss = stages.autoencoder_loss(net, batch, torch.Generator(), False, constraints=False)
        images = net.autoencoder(*batch[:2])
        expected = sum(reconstruction(image, clean) for image, clean in zip(images, batch, strict=False))
    assert loss.item() == pytest.approx(expected.item(), rel=1e-6)


def test_degraded_inputs_keep_clean_targets(maps: Material, tmp_path: Path) -> None:
    sample = SyntheticPatches(maps.maps, 16, 5).sample(1)
    batch = (sample[0][None], sample[1][None], sample[2][None])
    clean = degrade_some(batch, torch.Generator().manual_seed(0), 0.0)
    assert all(torch.equal(a, b) for a, b in zip(clean, batch, strict=False))
    changed = degrade_some(batch, torch.Generator().manual_seed(0), 1.0)
    assert not any(torch.equal(a, b) for a, b in zip(changed, batch, strict=False))
    Trainer(network(), Recipe(stage="joint", steps=1, degrade_inputs=1.0, **QUICK), maps, tmp_path).run()


def test_resuming_another_preset_is_refused(maps: Material, tmp_path: Path) -> None:
    Trainer(network(), Recipe(stage="joint", steps=2, **QUICK), maps, tmp_path).run()
    other = RmrFusion(dataclasses.replace(TINY, growth=8))
    trainer = Trainer(other, Recipe(stage="joint", steps=2, **QUICK), maps, tmp_path)
    with pytest.raises(TrainingError, match="is of preset 'tiny'"):
        trainer.resume(tmp_path / "last.pth")


WORKER = """
import sys
from pathlib import Path
import numpy as np, torch
from rmr_training.data import LabelMap
from rmr_training.stages import Material, Recipe, Trainer
from tests.training.test_stages import QUICK, network
from tests.training.test_synthesis import phantom

torch.set_num_threads(1)
labels = phantom()
material = Material([LabelMap("phantom", "1", 1.0, labels, np.argwhere(labels == 4))])
batch = int(sys.argv[2])
Trainer(network(), Recipe(stage="joint", steps=2, **{**QUICK, "batch": batch, "batch_dice": False, "cross_entropy": 0.0,
        "rate": 1e-4, "clip": 1e9}), material, Path(sys.argv[1])).run()
"""


def test_two_processes_equal_one_with_twice_the_batch(tmp_path: Path) -> None:
    script = tmp_path / "worker.py"
    script.write_text(WORKER)
    root = Path(__file__).parents[2]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(root), str(root / "training")])}
    # The flag means several processes; without a GPU they share the CPU.
    launch = [sys.executable, "-m", "accelerate.commands.launch", "--multi_gpu", "--num_processes", "2"]
    launch += ["--num_machines", "1", "--mixed_precision", "no", "--dynamo_backend", "no"]
    two = [*launch, str(script), str(tmp_path / "two"), "1"]
    one = [sys.executable, str(script), str(tmp_path / "one"), "2"]
    for command in (two, one):
        done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=300, check=False)
        assert done.returncode == 0, done.stderr[-2000:]
    a, b = (read_checkpoint(tmp_path / run / "last.pth")["model"] for run in ("two", "one"))
    start = network().state_dict()
    moved, apart = (torch.cat([(b[k] - other[k]).flatten() for k in b]).abs() for other in (start, a))
    # AdamW's first steps are about the rate, whatever the gradient; the sign of one that is all rounding is chance.
    assert (moved > 5e-5).float().mean() > 0.25
    assert (apart > 5e-5).float().mean() < 0.01


def test_checkpoints_name_the_real_studies_behind_them(maps: Material, tmp_path: Path) -> None:
    recipe = Recipe(stage="joint", steps=2, **QUICK)
    trainer = Trainer(network(), recipe, maps, tmp_path, studies=["stage-1", "earlier"])
    trainer.run()
    assert read_checkpoint(tmp_path / "model.pth")["studies"] == ["earlier", "stage-1"]
    resumed = Trainer(network(), recipe, maps, tmp_path, studies=["later"])
    resumed.resume(tmp_path / "last.pth")
    assert resumed.studies == ["earlier", "later", "stage-1"]


def test_the_last_checkpoints_are_kept(maps: Material, tmp_path: Path) -> None:
    recipe = Recipe(stage="joint", steps=4, keep=2, **{**QUICK, "checkpoint_every": 1})
    (tmp_path / "model-best.pth").touch()
    Trainer(network(), recipe, maps, tmp_path).run()
    assert sorted(path.name for path in tmp_path.glob("model-*.pth")) == [
        "model-3.pth",
        "model-4.pth",
        "model-best.pth",
    ]


def test_stage_1_does_not_ask_for_a_side_that_suits_the_head(maps: Material, tmp_path: Path) -> None:
    recipe = Recipe(stage="autoencoder", steps=1, **{**QUICK, "side": 12, "amp": True})
    assert Trainer(network(), recipe, maps, tmp_path).recipe.amp


@pytest.mark.parametrize(("side", "sound"), [(16, False), (32, True)])
def test_bfloat16_is_left_where_torch_is_unsound(side: int, sound: bool, maps: Material, tmp_path: Path) -> None:
    """The head halves 8 voxels twice: its narrowest convolutions see 2 of them, or 4."""
    made = network().train()
    trainer = Trainer(made, Recipe(stage="joint", steps=1, **{**QUICK, "side": side, "amp": True}), maps, tmp_path)
    assert trainer.recipe.amp is sound
    assert made.training
    assert not any(module._forward_pre_hooks for module in made.modules())
