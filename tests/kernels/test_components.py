"""Connected components against scipy.ndimage."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import ndimage

from rmr_sdk.lesion_rule import Applied, LesionRule
from rmr_sdk.manifest import LesionThreshold
from rmr_sdk.postprocess import components, count_labels

TOUCHING = np.ones((3, 3, 3))


@pytest.mark.parametrize("density", [0.01, 0.08, 0.3, 0.9])
@pytest.mark.parametrize("shape", [(17, 23, 29), (1, 9, 40), (12, 1, 1), (5, 6, 1)])
def test_components_equal_scipy(rng: np.random.Generator, density: float, shape: tuple[int, int, int]) -> None:
    mask = rng.random(shape) < density
    probability = rng.random(shape, np.float32)
    ids = np.empty(shape, np.int32)
    found = components(mask, probability=probability, ids=ids)

    expected, count = ndimage.label(mask, TOUCHING)
    assert len(found) == count
    np.testing.assert_array_equal(ids > 0, mask)
    for component in found:
        inside = ids == component.id
        assert len(np.unique(expected[inside])) == 1
        assert component.voxels == inside.sum() == (expected == expected[inside][0]).sum()
        np.testing.assert_allclose(component.centroid, ndimage.center_of_mass(inside), rtol=1e-12)
        np.testing.assert_allclose(component.mean_probability, probability[inside].mean(dtype=np.float64), rtol=1e-12)


def test_components_are_ordered_by_size_then_by_first_voxel(rng: np.random.Generator) -> None:
    mask = rng.random((16, 18, 20)) < 0.05
    ids = np.empty(mask.shape, np.int32)
    found = components(mask, ids=ids)
    firsts = [int(np.flatnonzero(ids == component.id)[0]) for component in found]
    keys = [(-component.voxels, first) for component, first in zip(found, firsts, strict=True)]
    assert keys == sorted(keys)
    assert [component.id for component in found] == list(range(1, len(found) + 1))


@pytest.mark.parametrize("step", [(0, 0, 1), (0, 1, 1), (0, 1, -1), (1, 1, 1), (1, -1, 1), (1, 1, -1), (1, -1, -1)])
def test_all_26_neighbours_connect(step: tuple[int, int, int]) -> None:
    mask = np.zeros((3, 3, 3), bool)
    mask[1, 1, 1] = mask[1 + step[0], 1 + step[1], 1 + step[2]] = True
    assert len(components(mask)) == 1


def test_voxels_two_apart_do_not_connect() -> None:
    mask = np.zeros((1, 1, 5), bool)
    mask[0, 0, [0, 2, 4]] = True
    assert [component.voxels for component in components(mask)] == [1, 1, 1]


def test_components_of_one_label_only() -> None:
    labels = np.zeros((2, 2, 6), np.uint8)
    labels[0, 0, :3] = 4
    labels[0, 0, 3:] = 3
    (lesion,) = components(labels, value=4)
    assert (lesion.voxels, lesion.centroid, lesion.mean_probability) == (3, (0.0, 0.0, 1.0), None)
    assert components(labels, value=2) == []


def test_count_labels() -> None:
    labels = np.array([[[0, 1, 4]], [[4, 4, 0]]], np.uint8)
    assert count_labels(labels, 5) == [2, 1, 0, 0, 3]


def votes_around(labels: np.ndarray, own: np.ndarray) -> np.ndarray:
    """Count how often the voxels of a component of 7 touch each other label."""
    votes = np.zeros(256, int)
    for voxel in np.argwhere(own):
        around = tuple(slice(max(0, at - 1), at + 2) for at in voxel)
        votes += np.bincount(labels[around].ravel(), minlength=256)
    votes[7] = 0
    return votes


@pytest.mark.parametrize("shape", [(13, 17, 19), (1, 9, 40), (12, 1, 1)])
@pytest.mark.parametrize("density", [0.02, 0.1])
@pytest.mark.parametrize("share", [0.0, 0.25])
def test_dropping_equals_scipy(
    rng: np.random.Generator, shape: tuple[int, int, int], density: float, share: float
) -> None:
    labels = rng.integers(0, 4, shape).astype(np.uint8)
    labels[rng.random(shape) < density] = 7
    probability = rng.random(shape, np.float32)
    ids, count = ndimage.label(labels == 7, TOUCHING)
    expected, dropped = labels.copy(), 0
    for number in range(1, count + 1):
        own = ids == number
        votes = votes_around(labels, own)
        if probability[own].mean(dtype=np.float64) >= 0.5 and votes[3] >= share * votes.sum():
            continue
        expected[own] = votes.argmax()
        dropped += 1
    found = labels.copy()
    assert LesionRule(7, 3, 0.5, share).apply(found, probability).lesions == dropped
    np.testing.assert_array_equal(found, expected)


def test_what_is_dropped_becomes_what_is_around_it() -> None:
    labels = np.full((7, 8, 9), 3, np.uint8)
    labels[:, :4] = 2
    labels[3, 1:3, 2:6] = 4  # within 2
    labels[3, 5:7, 2:6] = 4  # within 3
    labels[5, 7, 7] = 4
    probability = np.full(labels.shape, 0.4, np.float32)
    probability[5, 7, 7] = 0.9
    assert LesionRule(4, least_probability=0.6).apply(labels, probability).lesions == 2
    expected = np.full(labels.shape, 3, np.uint8)
    expected[:, :4] = 2
    expected[5, 7, 7] = 4
    np.testing.assert_array_equal(labels, expected)


def test_nothing_else_around_is_background_and_zero_drops_nothing() -> None:
    labels, nothing = np.full((2, 3, 4), 4, np.uint8), np.zeros((2, 3, 4), np.float32)
    assert LesionRule(4).apply(labels, nothing).lesions == 0
    assert LesionRule(4, 3, least_white_matter=1.0).apply(labels, nothing).lesions == 0  # no neighbour, so no share
    assert LesionRule(None, least_probability=0.1).apply(labels, nothing).lesions == 0
    assert (labels == 4).all()
    assert LesionRule(4, least_probability=0.1).apply(labels, nothing).lesions == 1
    assert not labels.any()


def test_what_white_matter_hardly_touches_is_dropped() -> None:
    labels = np.full((9, 9, 20), 3, np.uint8)
    labels[:, :, :5] = 0
    labels[4, 4, 2] = labels[4, 4, 4] = labels[4, 4, 5] = 4  # one in air, one of two voxels at the border
    labels[4, 4, 10] = 4
    sure = np.ones(labels.shape, np.float32)
    # Pairs of a voxel and another label: 26 of air; 17 of air and 8, then 8 and 17, of each of the two; 26 of white.
    for share, dropped in ((0.0, 0), (0.01, 1), (25 / 51, 1), (25 / 50 + 1e-6, 2), (1.0, 2)):
        found = labels.copy()
        assert LesionRule(4, 3, least_white_matter=share).apply(found, sure).lesions == dropped
        assert found[4, 4, 2] == (4 if dropped == 0 else 0)
        assert found[4, 4, 10] == 4


@pytest.mark.parametrize("least", [0.3, 0.7])
def test_trimming_equals_scipy(rng: np.random.Generator, least: float) -> None:
    labels = rng.integers(0, 4, (13, 17, 19)).astype(np.uint8)
    labels[rng.random(labels.shape) < 0.06] = 7
    probability = rng.random(labels.shape, np.float32)
    probability[rng.random(labels.shape) < 0.01] = np.float32(least)  # as much as is needed is enough
    ids, count = ndimage.label(labels == 7, TOUCHING)
    expected, gone = labels.copy(), 0
    for number in range(1, count + 1):
        own = ids == number
        votes = votes_around(labels, own)
        weak = own & (probability < np.float64(least))
        expected[weak] = votes.argmax()
        gone += bool((weak == own).all())
    found = labels.copy()
    rule = LesionRule(7, threshold=LesionThreshold(small_ml=1, small=least, large_ml=2, large=0.0))
    applied = rule.apply(found, probability)
    np.testing.assert_array_equal(found, expected)
    assert applied == Applied(least, gone, int((found != labels).sum()))
    assert 0 < gone < count


@pytest.mark.parametrize("share", [0.0, 0.26, 0.5, 1.0])
def test_small_pieces_of_what_a_threshold_parts_go_as_by_scipy(rng: np.random.Generator, share: float) -> None:
    labels = rng.integers(0, 4, (17, 19, 23)).astype(np.uint8)
    labels[ndimage.uniform_filter(rng.random(labels.shape), 4) > 0.55] = 7  # blobs, with specks around them
    labels[rng.random(labels.shape) < 0.01] = 7
    probability = rng.random(labels.shape, np.float32)
    ids, count = ndimage.label(labels == 7, TOUCHING)
    expected, parted, gone = labels.copy(), 0, 0
    for number in range(1, count + 1):
        own = ids == number
        pieces, _ = ndimage.label(own & (probability >= 0.9), TOUCHING)
        sizes = np.bincount(pieces.ravel())[1:]
        kept = 1 + np.flatnonzero(sizes >= share * sizes.max(initial=0))
        expected[own & ~np.isin(pieces, kept)] = votes_around(labels, own).argmax()
        parted += len(kept) < len(sizes)
        gone += not len(sizes)
    found = labels.copy()
    threshold = LesionThreshold(small_ml=1, small=0.9, large_ml=2, large=0.9, least_piece=share)
    applied = LesionRule(7, threshold=threshold).apply(found, probability)
    np.testing.assert_array_equal(found, expected)
    assert applied == Applied(0.9, gone, int((found != labels).sum()))
    assert (parted > 1) == (share > 0)


def test_lesions_that_no_threshold_parts_stay_however_small() -> None:
    labels, sure = np.ones((3, 3, 40), np.uint8), np.ones((3, 3, 40), np.float32)
    labels[1, 1, 1:21] = labels[1, 1, 30] = 7
    for level in (0.0, 0.5):  # a lesion of one voxel is no piece of a large one
        threshold = LesionThreshold(small_ml=1, small=level, large_ml=2, large=level, least_piece=1.0)
        assert LesionRule(7, threshold=threshold).apply(labels, sure) == Applied(level, 0, 0)


@pytest.mark.parametrize(("size_mm3", "voxel_ml"), [(3.0, 0.001), (2.5, 0.001), (12.0, 0.004), (1e-3, 0.001)])
def test_what_is_left_of_a_lesion_must_be_large_enough(
    rng: np.random.Generator, size_mm3: float, voxel_ml: float
) -> None:
    labels = rng.integers(0, 4, (13, 17, 19)).astype(np.uint8)
    labels[rng.random(labels.shape) < 0.06] = 7
    probability = rng.random(labels.shape, np.float32)
    trimming = LesionThreshold(small_ml=1, small=0.3, large_ml=2, large=0.3)
    expected = labels.copy()
    gone = LesionRule(7, threshold=trimming).apply(expected, probability, voxel_ml).lesions
    parts, count = ndimage.label(expected == 7, TOUCHING)
    left = expected.copy()
    for number in range(1, count + 1):
        own = parts == number
        if own.sum() * voxel_ml * 1000 >= size_mm3:
            continue
        expected[own] = votes_around(left, own).argmax()
        gone += 1
    found = labels.copy()
    applied = LesionRule(7, threshold=trimming, least_mm3=size_mm3).apply(found, probability, voxel_ml)
    np.testing.assert_array_equal(found, expected)
    assert applied == Applied(0.3, gone, int((found != labels).sum()))
    assert LesionRule(7, least_mm3=1000.0).apply(labels, probability, voxel_ml).voxels > 0
    assert not (labels == 7).any()


def test_a_piece_that_a_threshold_parts_counts_where_the_rest_stays() -> None:
    labels, probability = np.ones((5, 5, 12), np.uint8), np.full((5, 5, 12), 0.9, np.float32)
    labels[2, 2, 1:11] = 7
    probability[2, 2, 8] = 0.1
    applied = LesionRule(7, threshold=LesionThreshold(small_ml=1, small=0.5, large_ml=2, large=0.5), least_mm3=3).apply(
        labels, probability
    )
    assert applied == Applied(0.5, 1, 3)
    assert (labels[2, 2] == 7).tolist() == [False] + [True] * 7 + [False] * 4


def test_the_threshold_follows_the_load() -> None:
    by_load = LesionThreshold(small_ml=2, small=0.9, large_ml=32, large=0.5)
    labels, even = np.zeros((4, 5, 6), np.uint8), np.full((4, 5, 6), 0.75, np.float32)
    labels[0] = 4
    for voxel_ml, threshold in ((0.01, 0.9), (2 / 30, 0.9), (4 / 30, 0.8), (8 / 30, 0.7), (32 / 30, 0.5), (9.0, 0.5)):
        found = labels.copy()
        applied = LesionRule(4, threshold=by_load).apply(found, even, voxel_ml)
        assert applied.threshold == pytest.approx(threshold)
        assert (applied.lesions, applied.voxels) == ((1, 30) if threshold > 0.75 else (0, 0))
        assert (found == 4).any() == (threshold < 0.75)
    assert LesionRule(4, threshold=by_load).apply(np.zeros_like(labels), even) == Applied(0.9)


def test_dropping_needs_one_shape() -> None:
    with pytest.raises(ValueError, match="probability"):
        LesionRule(4, least_probability=0.5).apply(np.zeros((2, 3, 4), np.uint8), np.zeros((2, 3, 5), np.float32))
