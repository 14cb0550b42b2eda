"""What of the lesions is kept: chosen on whole synthetic heads at two loads, kept, and handed to the bundle."""

from __future__ import annotations

from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import msgspec
import nibabel as nib
import numpy as np
import pytest
import torch

from rmr_export import export_bundle, load_own
from rmr_sdk.errors import ConfigError, StudyError
from rmr_sdk.lesion_rule import LesionRule
from rmr_sdk.manifest import LesionThreshold, Robust
from rmr_training import cli, sureness
from rmr_training.checkpoint import LesionLevels, lesion_levels, read_checkpoint, save_checkpoint
from rmr_training.data import LabelMap
from rmr_training.evaluate.subjects import open_subject
from rmr_training.models import RmrFusion
from rmr_training.sureness import Segmented
from rmr_training.synthesis import LESION, WHITE, Sample
from tests.training.test_stages import TINY, network
from tests.training.test_synthesis import phantom


def label_map(labels: np.ndarray, donor: str = "1") -> LabelMap:
    return LabelMap("phantom", donor, 1.0, labels, np.argwhere(labels == LESION))


def table(true_at: float, false_at: float, voxels: int = 8) -> Segmented:
    """Make a head of one true and one false lesion of that many voxels, with the given probabilities."""
    labels, probability = np.full((12, 12, 60), WHITE, np.uint8), np.zeros((12, 12, 60), np.float32)
    truth = np.zeros(labels.shape, bool)
    for place, probable in ((2, true_at), (8, false_at)):
        lesion = np.s_[place : place + 2, 2:4, 2 : 2 + voxels // 4]
        labels[lesion], probability[lesion] = LESION, probable
        truth[lesion] = place == 2
    return Segmented(labels, probability, truth)


RULE = LesionRule(LESION, WHITE)


class Nothing:
    """What a network without a head makes."""

    labels = probability = None


def by_level(rule: LesionRule) -> list[LesionRule]:
    return [replace(rule, least_probability=level) for level in sureness.LEVELS]


def test_f1_of_rules_of_a_hand_made_head() -> None:
    head = table(true_at=0.82, false_at=0.62)
    before = head.labels.copy()
    found = dict(zip(sureness.LEVELS, sureness.f1_of_rules(head, by_level(RULE)), strict=True))
    assert found[0.0] == found[0.6] == pytest.approx(2 / 3)
    assert found[0.7] == found[0.8] == 1.0
    assert found[0.9] == 0.0
    np.testing.assert_array_equal(head.labels, before)
    trimmed = LesionRule(LESION, WHITE, threshold=by_load(0.7, 0.0))
    assert sureness.f1_of_rules(head, [trimmed]) == [1.0]


def by_load(small: float, large: float) -> LesionThreshold:
    return LesionThreshold(small_ml=5, small=small, large_ml=20, large=large)


def test_dice_of_thresholds_of_a_hand_made_head() -> None:
    head = table(true_at=0.82, false_at=0.62)
    before = head.labels.copy()
    thresholds = [by_load(0.0, 0.0), by_load(0.7, 0.0), by_load(0.9, 0.0)]
    assert sureness.dice_of_thresholds(head, RULE, thresholds) == pytest.approx([2 / 3, 1, 0])
    np.testing.assert_array_equal(head.labels, before)
    for each in thresholds:  # the same by the rule itself
        kept = head.labels.copy()
        LesionRule(LESION, WHITE, threshold=each).apply(kept, head.probability)
        found = kept == LESION
        dice = 2 * (found & head.truth).sum() / (found.sum() + head.truth.sum())
        assert sureness.dice_of_thresholds(head, RULE, [each]) == [pytest.approx(dice)]


def test_small_and_large_loads_get_thresholds_of_their_own(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sureness, "FOUND_ML", (0.05, 0.2))  # of 0.016 and 0.4 ml that are found
    few = table(true_at=0.92, false_at=0.72)
    many = table(true_at=0.66, false_at=0.52, voxels=200)
    threshold, dice = sureness._choose_threshold({"1": [many], "1, few": [few]}, RULE)
    assert threshold is not None
    assert (threshold.small, threshold.large) == (0.75, 0.55)  # of equals the least
    assert (threshold.small_ml, threshold.large_ml) == (0.05, 0.2)
    assert dice == (pytest.approx(2 / 3), 1.0)
    sure = table(true_at=0.92, false_at=0.72)
    np.copyto(sure.truth, sure.labels == LESION)
    assert sureness._choose_threshold({"1": [sure]}, RULE) == (None, (1.0, 1.0))


def test_groups_count_alike_and_the_least_of_equals_is_taken() -> None:
    # One gains above 0.7 from two heads, the other loses there: the mean over groups is best between.
    groups = {"a": [table(0.95, 0.72), table(0.95, 0.72)], "b": [table(0.66, 0.55)]}
    level, f1 = sureness._best(sureness.LEVELS, groups, lambda head: sureness.f1_of_rules(head, by_level(RULE)))
    # a: 2/3 to 0.7, 1 from 0.8 on; b: 2/3 to 0.5, 1 at 0.6, 0 above. Means: 5/6 at 0.6, 1/2 at 0.8.
    assert level == 0.6
    assert f1 == (pytest.approx(2 / 3), pytest.approx(5 / 6))


def test_few_lesions_are_kept_and_none_of_them_is_large() -> None:
    labels = np.full((40, 40, 40), WHITE, np.uint8)
    labels[:12, :12, :12] = LESION  # 1.7 ml
    for row in range(16, 40, 6):
        for column in range(0, 40, 6):
            labels[row : row + 4, column : column + 4, 10:20] = LESION  # 0.16 ml each, 28 of them
    source = label_map(labels)
    few = [sureness.keep_few(source, sureness.keyed_generator(seed)) for seed in range(3)]
    for each in few:
        assert not (each.labels[:12, :12, :12] == LESION).any()
        assert (each.labels[(each.labels != labels)] == WHITE).all()
        assert 1000 <= len(each.lesions) <= 1160
        np.testing.assert_array_equal(each.lesions, np.argwhere(each.labels == LESION))
    assert not np.array_equal(few[0].labels, few[1].labels)
    assert (source.labels == LESION).sum() == len(source.lesions)


def test_a_network_is_run_over_heads_of_label_maps() -> None:
    net = network()
    weights = {name: value.clone() for name, value in net.state_dict().items()}
    labels = phantom()
    labels[12:15, 28:31, 28:31] = LESION  # small enough for a small load
    first = sureness.choose_levels(net, [label_map(labels)], per_map=2, side=48)
    assert first.heads == 4
    assert first.head_dice_after >= first.head_dice_before >= 0
    assert first.f1_after >= first.f1_before >= 0
    assert first.least_lesion_probability in sureness.LEVELS
    assert sureness.choose_levels(net, [label_map(labels)], per_map=2, side=48) == first
    assert all(value.equal(weights[name]) for name, value in net.state_dict().items())


def test_all_heads_but_the_first_can_be_damaged(monkeypatch: pytest.MonkeyPatch) -> None:
    done: list[tuple[str, int]] = []

    def note(net: RmrFusion, head: Sample, *damage: Any, **_: Any) -> Segmented:
        done.append(damage)
        return table(0.9, 0.4)

    monkeypatch.setattr(sureness, "segment", note)
    labels = phantom()
    labels[12:15, 28:31, 28:31] = LESION  # small enough for a small load
    maps = [label_map(labels, donor) for donor in ("1", "2")]
    sureness.choose_levels(network(), maps, per_map=3, side=48)
    assert set(done) == {("clean", 0)}
    done.clear()
    sureness.choose_levels(network(), maps, per_map=3, side=48, damaged=True)
    assert done[:4] == [("clean", 0)] * 4
    assert done[4::2] == done[5::2]  # a head with all lesions, and one with few
    assert done[4::2] == list(sureness.DAMAGES[:4])
    assert len(set(sureness.DAMAGES)) == 15


def test_damage_changes_what_the_network_sees_and_nothing_else(monkeypatch: pytest.MonkeyPatch) -> None:
    seen = []
    monkeypatch.setattr(sureness, "infer_network", lambda net, prepared, manifest: seen.append(prepared) or Nothing)
    head = sureness.make_head(label_map(phantom()), sureness.keyed_generator(1), 96)
    before = head.flair.clone()
    for damage in (("clean", 0), ("thick", 3), ("thick", 3)):
        with pytest.raises(ConfigError, match="no segmentation head"):
            sureness.segment(network(), head, *damage)
    clean, thick, again = (prepared.arrays["FLAIR"] for prepared in seen)
    assert torch.equal(head.flair, before)
    np.testing.assert_array_equal(clean, head.flair[0].numpy())
    np.testing.assert_array_equal(thick, again)
    inside = clean > 0
    assert np.abs(thick - clean)[inside].mean() > 0.01
    assert not thick[~inside].any()
    rows = np.abs(np.diff(thick, axis=0))[:, inside.any(0)].mean()
    assert rows < 0.8 * np.abs(np.diff(clean, axis=0))[:, inside.any(0)].mean()


def test_heads_are_upright_and_whole() -> None:
    labels = phantom()
    head = sureness.make_head(label_map(labels), sureness.keyed_generator(1), 96)
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
    head = table(true_at=0.82, false_at=0.9)
    head.labels[7:11, 1:6, 1:6] = np.where(head.labels[7:11, 1:6, 1:6] == LESION, LESION, 0)
    white = LesionRule(LESION, WHITE, least_white_matter=0.1)
    assert max(sureness.f1_of_rules(head, by_level(RULE))) == pytest.approx(2 / 3)
    assert max(sureness.f1_of_rules(head, by_level(white))) == 1.0
    assert sureness.dice_of_thresholds(head, white, [by_load(0, 0)]) == [1.0]


def test_the_size_is_chosen_among_lesions_that_are_probable_enough(monkeypatch: pytest.MonkeyPatch) -> None:
    large = table(true_at=0.9, false_at=0.9, voxels=40)
    specks = np.s_[8:10, 2:4, 2:12]  # the false lesion: two specks of 4 voxels in its place
    large.labels[specks], large.probability[specks] = WHITE, 0
    for place in (2, 6):
        speck = np.s_[8:10, 2:4, place : place + 1]
        large.labels[speck], large.probability[speck] = LESION, 0.9
    monkeypatch.setattr(sureness, "draw_heads", lambda *_: [("1", Drawn(large), ("clean", 0))])
    monkeypatch.setattr(sureness, "segment", lambda _, head, *__, **___: head.segmented)
    found = sureness.choose_levels(network(), [])
    assert (found.least_lesion_probability, found.least_lesion_mm3) == (0.0, 5.0)
    assert (found.f1_before, found.f1_by_probability, found.f1_by_piece, found.f1_after) == (0.5, 0.5, 0.5, 1.0)


def test_small_pieces_are_dropped_where_that_finds_no_lesion_less(monkeypatch: pytest.MonkeyPatch) -> None:
    # The true lesion and a false piece hang together by voxels without which Dice is better.
    head = table(true_at=0.9, false_at=0.9, voxels=48)
    false = np.s_[8:10, 2:4, 2:14]
    head.labels[false], head.probability[false] = WHITE, 0
    for part, probable in ((np.s_[2:4, 2:4, 14:30], 0.52), (np.s_[2:4, 2:4, 30:32], 0.9)):
        head.labels[part], head.probability[part] = LESION, probable
    monkeypatch.setattr(sureness, "draw_heads", lambda *_: [("1", Drawn(head), ("clean", 0))])
    monkeypatch.setattr(sureness, "segment", lambda _, head, *__, **___: head.segmented)
    found = sureness.choose_levels(network(), [])
    assert found.lesion_threshold is not None
    assert (found.lesion_threshold.small, found.lesion_threshold.least_piece) == (0.55, 0.2)  # 8 voxels beside 48
    assert (found.f1_before, found.f1_by_probability, found.f1_by_piece) == (pytest.approx(2 / 3),) * 2 + (1.0,)
    assert found.least_lesion_mm3 == 0.0


def test_heads_are_seen_as_the_runtime_will_see_studies(monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[float] = []

    def note(net: RmrFusion, head: Sample, *_: Any, most_median: float) -> Segmented:
        seen.append(most_median)
        return table(0.9, 0.4)

    monkeypatch.setattr(sureness, "segment", note)
    sureness.choose_levels(network(), [label_map(phantom())], per_map=1, side=48, most_median=0.75)
    assert set(seen) == {0.75}


@pytest.mark.parametrize("share", ["0", "1.5", "nan"])
def test_a_share_that_stretches_everything_is_refused(
    share: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    command = ["calibrate", str(tmp_path / "none.pth"), "--out", str(tmp_path / "done.pth"), "--most-median", share]
    assert cli.main(command) != 0
    assert f"--most-median is {share}. Pass a share above 0, up to 1" in capsys.readouterr().err


class Drawn:
    """A head with a lesion, and what a network makes of it."""

    def __init__(self, segmented: Segmented) -> None:
        self.segmented, self.labels = segmented, torch.tensor([LESION])


def test_no_lesion_on_any_head_is_refused() -> None:
    with pytest.raises(StudyError, match="no lesion on the synthetic heads"):
        sureness.choose_levels(network(), [], per_map=1, side=32)


def test_a_network_without_a_head_is_refused() -> None:
    bare = RmrFusion(replace(TINY, head=None))
    with pytest.raises(ConfigError, match="no segmentation head"):
        sureness.choose_levels(bare, [label_map(phantom())], per_map=1, side=32)


def test_the_level_reaches_the_bundle(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "maps").mkdir()
    nib.save(nib.Nifti1Image(phantom(), np.eye(4)), tmp_path / "maps" / "patient05.nii.gz")
    save_checkpoint(tmp_path / "model.pth", network(), "joint", {"calibration": {"offset": 0.25}})
    assert lesion_levels(read_checkpoint(tmp_path / "model.pth")) == LesionLevels()
    monkeypatch.setattr(cli, "choose_levels", partial(sureness.choose_levels, side=32))
    found = LesionThreshold(small_ml=5, small=0.8, large_ml=20, large=0.5)
    monkeypatch.setattr(
        sureness, "dice_of_thresholds", lambda _, rule, all_of_them: [each == found for each in all_of_them]
    )
    wanted = (0.6, 5.0)
    pieces = msgspec.structs.replace(found, least_piece=0.25)
    monkeypatch.setattr(
        sureness,
        "f1_of_rules",
        lambda _, rules: [
            float(rule.least_probability == wanted[0]) + (rule.least_mm3 == wanted[1]) + (rule.threshold == pieces)
            for rule in rules
        ],
    )
    command = ["calibrate", str(tmp_path / "model.pth"), "--out", str(tmp_path / "done.pth"), "--patches", "0"]
    assert cli.main([*command, "--heads", "1", "--labelmaps", str(tmp_path / "maps")]) == 0
    content = read_checkpoint(tmp_path / "done.pth")
    assert content["calibration"]["offset"] == 0.25
    levels = lesion_levels(content)
    assert (levels.least_lesion_probability, levels.least_lesion_mm3) == wanted
    assert levels.least_white_matter > 0
    manifest = open_subject(tmp_path / "done.pth").manifest
    assert levels.lesion_threshold == pieces
    assert [getattr(manifest, name) for name in LesionLevels._fields] == list(levels)
    bundle = export_bundle(load_own(tmp_path / "done.pth"), tmp_path / "bundle", name="level", tile=(16, 16, 16))
    assert [getattr(bundle.manifest, name) for name in LesionLevels._fields] == list(levels)
    for made in (manifest, bundle.manifest):
        assert made.normalisation == Robust(most_median=sureness.MOST_MEDIAN)
    plain = ["--heads", "0", "--lost", "0", "--most-median", "1"]
    assert cli.main([*command, *plain, "--labelmaps", str(tmp_path / "maps")]) == 0
    assert open_subject(tmp_path / "done.pth").manifest.normalisation == Robust()
    assert lesion_levels(read_checkpoint(tmp_path / "done.pth")) == LesionLevels()
