"""What a loss of resolution leaves of a mask: by hand, and never more than there was."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import ndimage

from rmr_sdk.errors import ConfigError
from rmr_sdk.geometry import Grid
from rmr_training.evaluate import CONDITIONS, RESOLUTION, damaged_truth

GRID = Grid((30, 24, 24), np.eye(4))


def ball(radius: float) -> np.ndarray:
    d, h, w = np.ogrid[:30, :24, :24]
    return (d - 14) ** 2 + (h - 12) ** 2 + (w - 12) ** 2 <= radius**2


def test_small_lesions_are_lost_before_large_ones() -> None:
    for condition in RESOLUTION:
        small, large = (damaged_truth(ball(radius), GRID, condition, 3) for radius in (1.5, 8))
        assert small < 0.8
        assert large > 0.85
        found = [damaged_truth(ball(3), GRID, condition, strength) for strength in (1, 2, 3)]
        assert sorted(found, reverse=True) == found


def test_a_blurred_mask_is_cut_where_it_agrees_best() -> None:
    truth = ball(3)
    sigma = CONDITIONS["blur"].amounts[2]
    blurred = ndimage.gaussian_filter(truth.astype(np.float64), (0, sigma, sigma), truncate=4)
    dice = [
        2 * ((blurred >= cut) & truth).sum() / ((blurred >= cut).sum() + truth.sum())
        for cut in np.linspace(0.05, 0.95, 19)
    ]
    assert damaged_truth(truth, GRID, "blur", 3) == pytest.approx(max(dice), abs=0.01)


def test_whole_slices_of_the_thickness_lose_nothing() -> None:
    truth = np.zeros((30, 24, 24), bool)
    truth[10:15, 5:9, 5:9] = True  # one slice of 5 mm, 0.8 of it after interpolation in its outermost voxels
    assert damaged_truth(truth, GRID, "thick", 3) == 1.0


def test_other_damage_is_refused() -> None:
    with pytest.raises(ConfigError, match='"noise" is no loss of resolution'):
        damaged_truth(ball(3), GRID, "noise", 1)
