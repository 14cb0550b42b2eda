"""Calibration: the offset with the best Dice, found on synthetic patches and put where the network keeps it."""

from __future__ import annotations

import dataclasses
import re
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
import torch
from torch import nn

from rmr_sdk.errors import ConfigError, StudyError
from rmr_training.calibration import best_offset, calibrate
from rmr_training.checkpoint import load_network, read_checkpoint, save_checkpoint
from rmr_training.cli import main
from rmr_training.data import LabelMap
from rmr_training.synthesis import LESION, WHITE
from tests.training.test_stages import TINY, network
from tests.training.test_synthesis import phantom


def label_map(labels: np.ndarray) -> LabelMap:
    return LabelMap("phantom", "1", 1.0, labels, np.argwhere(labels == LESION))


def test_best_offset_of_a_hand_made_table() -> None:
    # Lesions at margins -1 and 2, others at -2 and -3: any offset from 1 to 2 separates them.
    margins = torch.tensor([-1.0, 2.0, -2.0, -3.0])
    truth = torch.tensor([True, True, False, False])
    offset, before, after = best_offset([(margins, truth)])
    assert 1 < offset <= 2
    assert (before, after) == (pytest.approx(2 / 3), 1.0)


def test_nothing_to_gain_is_an_offset_near_zero() -> None:
    margins = torch.cat([torch.full((50,), 3.9), torch.full((50,), -3.9)])
    assert best_offset([(margins, margins > 0)]) == (0.0, 1.0, 1.0)


def test_a_donor_with_few_lesions_counts_as_much_as_one_with_many() -> None:
    # Above 1 the large one gains and the small ones lose, who are two but have 1 of 34 voxels.
    large = torch.cat([torch.full((100,), -1.0), torch.full((300,), 2.0)]), torch.ones(400, dtype=torch.bool)
    small = torch.tensor([2.0, 2.0, -0.5, -0.5, -0.5, -0.5]), torch.tensor([True, True, False, False, False, False])
    assert best_offset([large])[0] > 1
    together = torch.cat([large[0], small[0], small[0]]), torch.cat([large[1], small[1], small[1]])
    assert best_offset([together])[0] > 1
    offset, _, after = best_offset([large, small, small])
    assert -2 < offset <= 0.5
    assert after == pytest.approx((2 * 300 / 700 + 1 + 1) / 3)


def test_network_takes_the_offset() -> None:
    net = network()
    before = net.head.expand.bias.detach().clone()
    found = calibrate(net, [label_map(phantom())], side=16, patches=6)
    assert found.dice_after >= found.dice_before
    moved = net.head.expand.bias.detach() - before
    assert moved[-1] == pytest.approx(found.offset)
    assert not moved[:-1].any()
    again = calibrate(net, [label_map(phantom())], side=16, patches=6)
    assert again.dice_before == pytest.approx(found.dice_after, abs=1e-6)


def test_the_command_writes_a_checkpoint_that_says_so(tmp_path: Path) -> None:
    (tmp_path / "maps").mkdir()
    nib.save(nib.Nifti1Image(phantom(), np.eye(4)), tmp_path / "maps" / "patient05.nii.gz")
    save_checkpoint(tmp_path / "model.pth", network(), "joint", {"step": 3, "studies": ["one"]})
    command = [
        "calibrate",
        str(tmp_path / "model.pth"),
        "--out",
        str(tmp_path / "done.pth"),
        "--patches",
        "2",
        "--heads",
        "0",
    ]
    assert main([*command, "--labelmaps", str(tmp_path / "maps")]) == 0
    content = read_checkpoint(tmp_path / "done.pth")
    assert (content["step"], content["studies"]) == (3, ["one"])
    assert content["calibration"]["patches"] == 2
    assert load_network(tmp_path / "done.pth").preset.name == TINY.name
    command[1:4] = [str(tmp_path / "done.pth"), "--out", str(tmp_path / "again.pth")]
    assert main([*command, "--labelmaps", str(tmp_path / "maps")]) == 0
    again = load_network(tmp_path / "again.pth").head
    before = load_network(tmp_path / "model.pth").head
    assert again is not None
    assert before is not None
    moved = (list(again.parameters())[-1] - list(before.parameters())[-1])[-1].detach()
    assert read_checkpoint(tmp_path / "again.pth")["calibration"]["offset"] == pytest.approx(float(moved), abs=1e-5)


@pytest.mark.parametrize(
    ("stage", "flags", "words"),
    [
        ("autoencoder", [], "model.pth is of stage 1"),
        ("state", [], "model.pth is the state of a run"),
        ("joint", ["--threads", "0"], "threads is 0. It must be at least 1"),
        ("joint", ["--held-out", "05,9"], "no label map is of lesion donor 9"),
        ("joint", ["--anatomies", "mri*"], r"no label map is called mri\*"),
    ],
)
def test_what_cannot_be_calibrated_is_refused_before_anything_is_computed(
    stage: str,
    flags: list[str],
    words: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    (tmp_path / "maps").mkdir()
    nib.save(nib.Nifti1Image(phantom(), np.eye(4)), tmp_path / "maps" / "patient05.nii.gz")
    extra = {"average": {}} if stage == "state" else {}
    save_checkpoint(tmp_path / "model.pth", network(), "joint" if extra else stage, extra)
    monkeypatch.setattr("rmr_training.cli.calibrate", lambda *_: pytest.fail("calibrated"))
    command = ["calibrate", str(tmp_path / "model.pth"), "--out", str(tmp_path / "done.pth")]
    assert main([*command, "--labelmaps", str(tmp_path / "maps"), *flags]) == 3
    assert re.search(words, capsys.readouterr().err)
    assert not (tmp_path / "done.pth").exists()


def test_a_head_without_such_a_convolution_is_refused() -> None:
    net = network()
    net.head = nn.Sequential(nn.Identity())
    with pytest.raises(ConfigError, match="does not end in a convolution"):
        calibrate(net, [label_map(phantom())], side=16, patches=1)


def test_nothing_to_calibrate_on_is_refused() -> None:
    with pytest.raises(StudyError, match="no held-out label map"):
        calibrate(network(), [])
    healthy = phantom()
    healthy[healthy == LESION] = WHITE
    bare = dataclasses.replace(label_map(healthy))
    with pytest.raises(StudyError, match="no lesion on 1 validation patches"):
        calibrate(network(), [bare], side=16, patches=1)
