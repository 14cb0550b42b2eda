"""How well two contrasts match: reduced volumes against NumPy, the measure against hand-made tables."""

from __future__ import annotations

import numpy as np
import pytest

from rmr_sdk.geometry import Grid, reorient
from rmr_sdk.similarity import BINS, Reduced, Similarity, normalised_mutual_information, reduce_volume


def blob(spacing_mm: float = 2.0, shift_mm: tuple[float, float, float] = (0.0, 0.0, 0.0)) -> Reduced:
    """Make a head-sized ball of smooth texture that is no image of itself when turned."""
    grid = Grid((70, 80, 75), np.diag([spacing_mm] * 3 + [1.0]))
    points = grid.world(np.moveaxis(np.indices(grid.shape), 0, -1)) - np.array([69.0, 79.0, 74.0]) - shift_mm
    inside = (np.linalg.norm(points / (55, 65, 60), axis=-1) < 1).astype(np.float32)
    waves = np.sin(points[..., 0] / 9) + np.sin(points[..., 1] / 7 + 1) * np.sin(points[..., 2] / 11 + 2)
    return reduce_volume((inside * (1000 + 200 * waves)).astype(np.float32), grid)


@pytest.mark.parametrize("order", ["C", "F"])
@pytest.mark.parametrize("dtype", [np.uint16, np.float32])
def test_blocks_are_averaged_where_they_are(order, dtype) -> None:
    voxels = np.random.default_rng(0).integers(1, 900, (13, 17, 6)).astype(dtype, order=order)
    affine = np.array([[0.7, 0.0, 0.1, 5.0], [0.0, 0.9, 0.0, -7.0], [0.1, 0.0, 3.0, 11.0], [0, 0, 0, 1.0]])
    grid = Grid(voxels.shape, affine)
    reduced = reduce_volume(voxels, grid)
    blocks = voxels[:12, :16].astype(float).reshape(4, 3, 8, 2, 6).mean(axis=(1, 3))
    bright = blocks[blocks > 0.1 * np.sort(blocks, axis=None)[int(0.99 * (blocks.size - 1))]]
    top = np.sort(bright)[int(0.99 * (bright.size - 1))]
    np.testing.assert_allclose(reduced.level, np.minimum(blocks / top, 1), rtol=1e-6)
    np.testing.assert_allclose(reduced.grid.world((0, 0, 0)), grid.world((1, 0.5, 0)))
    np.testing.assert_allclose(reduced.grid.spacing_mm, np.multiply(grid.spacing_mm, (3, 2, 1)))


def test_a_turned_volume_reduces_to_the_same_blocks() -> None:
    voxels = np.random.default_rng(1).uniform(0, 500, (12, 10, 14)).astype(np.float32)
    grid = Grid(voxels.shape, np.eye(4))
    axes = reorient(grid, "PSL")
    turned = reorient(axes.grid, "RAS")
    there = reduce_volume(turned.apply(np.ascontiguousarray(axes.apply(voxels))), turned.grid)
    here = reduce_volume(voxels, grid)
    assert np.array_equal(here.level, there.level)
    assert here.grid.matches(there.grid)


@pytest.mark.parametrize(("value", "level"), [(0.0, 0.0), (3e38, 1.0)])
def test_extreme_voxels_reduce_without_a_warning(value, level) -> None:
    reduced = reduce_volume(np.full((8, 8, 8), value, np.float32), Grid((8, 8, 8), np.eye(4)))
    assert reduced.level.max() == level
    assert reduced.head.any() == (value > 0)


def test_normalised_mutual_information_by_hand() -> None:
    assert normalised_mutual_information(np.array([[5, 0], [0, 5]])) == pytest.approx(2.0)
    assert normalised_mutual_information(np.array([[4, 4], [4, 4]])) == pytest.approx(1.0)
    assert normalised_mutual_information(np.array([[7, 0], [0, 0]])) == 1.0
    # H(rows) = H(columns) = ln 2, H(joint) = -(0.8 ln 0.4 + 0.2 ln 0.1)
    expected = 2 * np.log(2) / -(0.8 * np.log(0.4) + 0.2 * np.log(0.1))
    assert normalised_mutual_information(np.array([[4, 1], [1, 4]])) == pytest.approx(expected)


def test_a_volume_matches_itself_best_where_it_is() -> None:
    itself = blob()
    similarity = Similarity(itself, itself, 3.7, np.eye(4))
    here = similarity(np.eye(4))
    assert here > 1.9
    for axis in range(3):
        for step in (-2.0, 2.0):
            aside = np.eye(4)
            aside[axis, 3] = step
            assert similarity(aside) < here - 0.1


def test_a_displacement_undoes_that_of_the_volume() -> None:
    still, moved = blob(), blob(shift_mm=(6.0, -4.0, 8.0))
    back = np.eye(4)
    back[:3, 3] = (-6.0, 4.0, -8.0)
    similarity = Similarity(still, moved, 3.7, np.eye(4))
    assert similarity(back) > similarity(np.eye(4)) + 0.3


def test_too_little_overlap_counts_as_no_match() -> None:
    itself = blob()
    similarity = Similarity(itself, itself, 3.7, np.eye(4))
    away = np.eye(4)
    away[0, 3] = 90.0
    assert similarity(away) == 1.0
    assert similarity.histogram(away).sum() > 0


def test_chance_is_what_unrelated_points_seem_to_share() -> None:
    rng = np.random.default_rng(2)
    grid = Grid((60, 60, 60), np.diag([2.0, 2.0, 2.0, 1.0]))
    pair = [Reduced(grid, rng.uniform(0, 1, grid.shape).astype(np.float32), np.ones(grid.shape, bool)) for _ in "ab"]
    similarity = Similarity(*pair, lattice_mm=3.7, start=np.eye(4))
    counted, expected = similarity(np.eye(4)) - 1, similarity.chance(np.eye(4)) - 1
    assert 0.5 * counted < expected < 1.5 * counted  # rare cells of the histogram are only estimated
    assert similarity.histogram(np.eye(4)).shape == (BINS, BINS)
