"""Segmentation figures against hand-made tables, and what they say where a mask is empty."""

from __future__ import annotations

import math

import numpy as np
import pytest

from rmr_training.evaluate import compare_lesions, compare_masks, count_by_size

UNIT = (1.0, 1.0, 1.0)


def masks() -> tuple[np.ndarray, np.ndarray]:
    """Truth: two cubes of 27 voxels. Prediction: the first shifted by one voxel, and a false cube of 8."""
    truth, predicted = np.zeros((2, 20, 20, 20), bool)
    truth[2:5, 2:5, 2:5] = truth[10:13, 10:13, 10:13] = True
    predicted[3:6, 2:5, 2:5] = predicted[16:18, 2:4, 2:4] = True
    return predicted, truth


def test_figures_of_a_hand_made_pair() -> None:
    predicted, truth = masks()
    found = compare_lesions("study", predicted, truth, UNIT)
    assert found.dice == pytest.approx(2 * 18 / (35 + 54))
    assert found.truth_ml == pytest.approx(0.054)
    assert found.predicted_ml == pytest.approx(0.035)
    assert found.sensitivity == 0.5
    assert found.false_lesions == 1
    assert found.lesion_f1 == pytest.approx(0.5)


def test_volume_errors_have_a_sign() -> None:
    predicted, truth = masks()
    assert compare_masks(predicted, truth, (1.0, 2.0, 1.0)).volume_error_ml == pytest.approx(-0.038)
    assert compare_masks(truth, predicted, (1.0, 2.0, 1.0)).volume_error_ml == pytest.approx(0.038)


def test_a_perfect_mask_is_perfect() -> None:
    _, truth = masks()
    found = compare_lesions("study", truth, truth, (1.0, 1.0, 3.0))
    assert (found.dice, found.sensitivity, found.false_lesions, found.lesion_f1) == (1.0, 1.0, 0, 1.0)
    assert found.hausdorff95_mm == 0.0
    assert found.surface_distance_mm == 0.0


def test_specks_are_not_false_lesions() -> None:
    _, truth = masks()
    predicted = truth.copy()
    predicted[18, 18, 18] = True
    assert compare_lesions("study", predicted, truth, UNIT).false_lesions == 0


def test_distance_is_in_millimetres() -> None:
    truth, predicted = np.zeros((2, 20, 20, 20), bool)
    truth[5, 5, 5], predicted[5, 5, 9] = True, True
    found = compare_masks(predicted, truth, (1.0, 1.0, 0.5))
    assert found.hausdorff95_mm == pytest.approx(2.0)
    assert found.surface_distance_mm == pytest.approx(2.0)


def test_distances_between_two_planes() -> None:
    """Two plates, three slices of 2 mm apart: every surface voxel is 6 mm from the other plate."""
    truth, predicted = np.zeros((2, 20, 20, 20), bool)
    truth[4], predicted[7] = True, True
    found = compare_masks(predicted, truth, (2.0, 1.0, 1.0))
    assert (found.hausdorff95_mm, found.surface_distance_mm) == pytest.approx((6.0, 6.0))


def test_where_the_mask_lies_does_not_matter() -> None:
    predicted, truth = masks()
    moved = [np.roll(np.pad(mask, 6), (3, -4, 5), (0, 1, 2)) for mask in (predicted, truth)]
    assert compare_masks(*moved, UNIT) == compare_masks(predicted, truth, UNIT)


@pytest.mark.parametrize(
    ("any_predicted", "any_true", "dice", "sensitivity", "false_lesions", "f1"),
    [
        (False, False, math.nan, math.nan, 0, math.nan),
        (True, False, 0.0, math.nan, 1, 0.0),
        (False, True, 0.0, 0.0, 0, 0.0),
    ],
    ids=["both empty", "nothing to find", "nothing found"],
)
def test_empty_masks(
    any_predicted: bool, any_true: bool, dice: float, sensitivity: float, false_lesions: int, f1: float
) -> None:
    predicted, truth = np.zeros((2, 10, 10, 10), bool)
    predicted[2:5, 2:5, 2:5], truth[2:5, 2:5, 2:5] = any_predicted, any_true
    found = compare_lesions("study", predicted, truth, UNIT)
    assert (found.dice, found.sensitivity, found.lesion_f1) == pytest.approx((dice, sensitivity, f1), nan_ok=True)
    assert found.false_lesions == false_lesions
    assert math.isnan(found.hausdorff95_mm)
    assert math.isnan(found.surface_distance_mm)


def test_specks_alone_find_nothing() -> None:
    _, truth = masks()
    predicted = np.zeros_like(truth)
    predicted[18, 18, 18] = True
    found = compare_lesions("study", predicted, truth, UNIT)
    assert (found.lesion_f1, found.false_lesions) == (0.0, 0)


def test_lesions_are_counted_by_their_size() -> None:
    truth, predicted = np.zeros((2, 24, 24, 24), bool)
    truth[2:4, 2:4, 2:4] = True  # 8 voxels, touched
    truth[2:4, 2:4, 12:14] = True  # 8 voxels, missed
    truth[10:14, 10:14, 2:6] = True  # 64 voxels, touched
    predicted[3, 3, 3] = True
    predicted[10:12, 10:14, 2:6] = True
    predicted[20:22, 20:22, 2:8] = True  # 24 voxels, false
    predicted[20, 20, 20] = True  # a single voxel, neither found nor false
    small, middling, large = count_by_size(predicted, truth, UNIT)
    assert (small.from_mm3, small.to_mm3, small.lesions, small.touched, small.false_lesions) == (0, 15, 2, 1, 0)
    assert (middling.lesions, middling.touched, middling.false_lesions) == (0, 0, 1)
    assert (large.from_mm3, large.to_mm3, large.lesions, large.touched, large.false_lesions) == (60, None, 1, 1, 0)
    overall = compare_lesions("study", predicted, truth, UNIT)
    assert overall.sensitivity == pytest.approx(2 / 3)
    assert overall.false_lesions == 1
    small, middling, large = count_by_size(predicted, truth, (1.0, 1.0, 4.0))
    assert (small.lesions, middling.lesions, large.lesions) == (0, 2, 1), "volumes, not voxels"
