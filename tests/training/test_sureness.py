"""The level of mean probability: chosen on whole synthetic heads by lesion-wise F1, kept, and handed to the bundle."""

from __future__ import annotations

from dataclasses import replace
from functools import partial
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest

from rmr_export import export_bundle, load_own
from rmr_sdk.errors import ConfigError, StudyError
from rmr_training import cli, sureness
from rmr_training.checkpoint import LesionLevels, lesion_levels, read_checkpoint, save_checkpoint
from rmr_training.data import LabelMap
from rmr_training.evaluate.subjects import open_subject
from rmr_training.models import RmrFusion
from rmr_training.synthesis import LESION, WHITE
from tests.training.test_stages import TINY, network
from tests.training.test_synthesis import phantom

Table = tuple[np.ndarray, np.ndarray, np.ndarray]


def label_map(labels: np.ndarray, donor: str = "1") -> LabelMap:
    return LabelMap("phantom", donor, 1.0, labels, np.argwhere(labels == LESION))


def table(true_at: float, false_at: float) -> Table:
    """Make labels, probability and truth of one true and one false lesion with the given mean probabilities."""
    labels, probability = np.full((12, 12, 12), WHITE, np.uint8), np.zeros((12, 12, 12), np.float32)
    for place, mean in ((2, true_at), (8, false_at)):
        labels[place : place + 2, 2:4, 2:4] = LESION
        probability[place : place + 2, 2:4, 2:4] = mean
    truth = np.zeros(labels.shape, bool)
    truth[2:4, 2:4, 2:4] = True
    return labels, probability, truth


def test_f1_of_levels_of_a_hand_made_head() -> None:
    labels, probability, truth = table(true_at=0.82, false_at=0.62)
    before = labels.copy()
    found = dict(zip(sureness.LEVELS, sureness.f1_of_levels(labels, probability, truth), strict=True))
    assert found[0.0] == found[0.6] == pytest.approx(2 / 3)
    assert found[0.65] == found[0.8] == 1.0
    assert found[0.85] == 0.0
    np.testing.assert_array_equal(labels, before)


def test_donors_count_alike_and_the_least_of_equals_is_taken(monkeypatch: pytest.MonkeyPatch) -> None:
    # One donor with two maps gains above 0.7, one with a single map loses there: the mean over donors is best between.
    heads = {"a": table(0.95, 0.72), "b": table(0.66, 0.55)}
    drawn: list[str] = []

    def make(source: LabelMap, *_: object) -> object:
        drawn.append(source.donor)
        return type("Head", (), {"labels": _Truth(heads[source.donor][2])})

    monkeypatch.setattr(sureness, "_make_head", make)
    monkeypatch.setattr(sureness, "segment", lambda net, head: heads[drawn[-1]][:2])
    maps = [label_map(phantom(), donor) for donor in ("a", "a", "b")]
    found = sureness.choose_level(network(), maps, per_map=1)
    # a: 2/3 to 0.7, 1 from 0.75 to 0.95; b: 2/3 to 0.55, 1 from 0.6 to 0.65, 0 above. Means: 5/6 at 0.6, 1/2 at 0.75.
    assert found.least_lesion_probability == 0.6
    assert (found.f1_before, found.f1_after, found.heads) == (pytest.approx(2 / 3), pytest.approx(5 / 6), 3)


class _Truth:
    def __init__(self, mask: np.ndarray) -> None:
        self.mask = mask

    def numpy(self) -> np.ndarray:
        return np.where(self.mask, LESION, WHITE)


def test_a_network_is_run_over_heads_of_label_maps() -> None:
    net = network()
    weights = {name: value.clone() for name, value in net.state_dict().items()}
    first = sureness.choose_level(net, [label_map(phantom())], per_map=2, side=32)
    assert first.heads == 2
    assert first.f1_after >= first.f1_before >= 0
    assert first.least_lesion_probability in sureness.LEVELS
    assert sureness.choose_level(net, [label_map(phantom())], per_map=2, side=32) == first
    assert all(value.equal(weights[name]) for name, value in net.state_dict().items())


def test_heads_are_upright_and_whole() -> None:
    labels = phantom()
    head = sureness._make_head(label_map(labels), sureness.keyed_generator(1), 96)
    brain = (head.labels.numpy() > 0).sum()
    assert 0.6 < brain / (labels > 0).sum() < 1.6
    faces = [head.labels[0], head.labels[-1], head.labels[:, 0], head.labels[:, -1], head.labels[..., 0]]
    assert not any(bool(face.any()) for face in faces)


def surrounded(*counts: int) -> LabelMap:
    """Make a label map of single voxels of lesion in fluid, each with that many voxels of white matter around it."""
    labels = np.ones((7, 7, 6 * len(counts)), np.uint8)
    for number, count in enumerate(counts):
        block = np.ones(27, np.uint8)
        block[:count] = WHITE
        block[count:] = np.where(np.arange(count, 27) == 13, LESION, block[count:])
        labels[2:5, 2:5, 6 * number + 1 : 6 * number + 4] = block.reshape(3, 3, 3)
    return label_map(labels)


def test_the_highest_share_that_costs_hardly_any_lesion() -> None:
    maps = [surrounded(0, 4, 6), surrounded(10, 13)]  # shares 0, 0.15, 0.23, 0.38 and 0.5
    for lost, share, dropped in ((0.0, 0.0, 0), (0.2, 0.15, 1), (0.39, 0.15, 1), (0.4, 0.2, 2), (1.0, 0.5, 4)):
        found = sureness.choose_white_matter(maps, lost)
        assert (found.least_white_matter, found.true_lesions) == (share, 5)
        assert found.true_lesions_dropped == dropped
    with pytest.raises(StudyError, match="no lesion on the label maps of real anatomies"):
        sureness.choose_white_matter([])


def test_what_hardly_touches_white_matter_counts_at_no_level() -> None:
    labels, probability, truth = table(true_at=0.82, false_at=0.9)
    labels[7:11, 1:6, 1:6] = np.where(labels[7:11, 1:6, 1:6] == LESION, LESION, 0)
    assert max(sureness.f1_of_levels(labels, probability, truth)) == pytest.approx(2 / 3)
    assert max(sureness.f1_of_levels(labels, probability, truth, 0.1)) == 1.0


def test_no_lesion_on_any_head_is_refused() -> None:
    with pytest.raises(StudyError, match="no lesion on the synthetic heads"):
        sureness.choose_level(network(), [], per_map=1, side=32)


def test_a_network_without_a_head_is_refused() -> None:
    bare = RmrFusion(replace(TINY, head=None))
    with pytest.raises(ConfigError, match="no segmentation head"):
        sureness.choose_level(bare, [label_map(phantom())], per_map=1, side=32)


def test_the_level_reaches_the_bundle(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "maps").mkdir()
    nib.save(nib.Nifti1Image(phantom(), np.eye(4)), tmp_path / "maps" / "patient05.nii.gz")
    save_checkpoint(tmp_path / "model.pth", network(), "joint", {"calibration": {"offset": 0.25}})
    assert lesion_levels(read_checkpoint(tmp_path / "model.pth")) == LesionLevels(0.0, 0.0)
    monkeypatch.setattr(cli, "choose_level", partial(sureness.choose_level, side=32))
    monkeypatch.setattr(sureness, "f1_of_levels", lambda *_: [float(level == 0.65) for level in sureness.LEVELS])
    command = ["calibrate", str(tmp_path / "model.pth"), "--out", str(tmp_path / "done.pth"), "--patches", "0"]
    assert cli.main([*command, "--heads", "1", "--labelmaps", str(tmp_path / "maps")]) == 0
    content = read_checkpoint(tmp_path / "done.pth")
    assert content["calibration"]["offset"] == 0.25
    levels = lesion_levels(content)
    assert levels.least_lesion_probability == 0.65
    assert levels.least_white_matter > 0
    manifest = open_subject(tmp_path / "done.pth").manifest
    assert (manifest.least_lesion_probability, manifest.least_white_matter) == levels
    bundle = export_bundle(load_own(tmp_path / "done.pth"), tmp_path / "bundle", name="level", tile=(16, 16, 16))
    assert (bundle.manifest.least_lesion_probability, bundle.manifest.least_white_matter) == levels
    assert cli.main([*command, "--heads", "0", "--lost", "0", "--labelmaps", str(tmp_path / "maps")]) == 0
    assert lesion_levels(read_checkpoint(tmp_path / "done.pth")) == LesionLevels(0.0, 0.0)
