"""Figures of lesion masks against hand-made tables, and the whole way from a folder to figures."""

from __future__ import annotations

import numpy as np
import pytest

from rmr_training.evaluate import compare_lesions


def masks() -> tuple[np.ndarray, np.ndarray]:
    """Truth: two cubes of 27 voxels. Prediction: the first shifted by one voxel, and a false cube of 8."""
    truth, predicted = np.zeros((2, 20, 20, 20), bool)
    truth[2:5, 2:5, 2:5] = truth[10:13, 10:13, 10:13] = True
    predicted[3:6, 2:5, 2:5] = predicted[16:18, 2:4, 2:4] = True
    return predicted, truth


def test_figures_of_a_hand_made_pair() -> None:
    predicted, truth = masks()
    found = compare_lesions("study", predicted, truth, (1.0, 1.0, 1.0))
    assert found.dice == pytest.approx(2 * 18 / (35 + 54))
    assert found.truth_ml == pytest.approx(0.054)
    assert found.predicted_ml == pytest.approx(0.035)
    assert found.sensitivity == 0.5
    assert found.false_lesions == 1
    assert found.lesion_f1 == pytest.approx(0.5)


def test_a_perfect_mask_is_perfect() -> None:
    _, truth = masks()
    found = compare_lesions("study", truth, truth, (1.0, 1.0, 3.0))
    assert (found.dice, found.sensitivity, found.false_lesions, found.lesion_f1) == (1.0, 1.0, 0, 1.0)
    assert found.hausdorff95_mm == 0.0


def test_specks_are_not_false_lesions() -> None:
    _, truth = masks()
    predicted = truth.copy()
    predicted[18, 18, 18] = True
    assert compare_lesions("study", predicted, truth, (1.0, 1.0, 1.0)).false_lesions == 0


def test_distance_is_in_millimetres() -> None:
    truth, predicted = np.zeros((2, 20, 20, 20), bool)
    truth[5, 5, 5], predicted[5, 5, 9] = True, True
    assert compare_lesions("study", predicted, truth, (1.0, 1.0, 0.5)).hausdorff95_mm == pytest.approx(2.0)
