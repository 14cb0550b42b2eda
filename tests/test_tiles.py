"""Tile positions, blending windows and plans."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from rmr_sdk.tiles import axis_windows, plan_tiles, tile_starts

extents = st.integers(1, 300)
sizes = st.integers(1, 140)
overlaps = st.floats(0.0, 0.9)


@pytest.mark.parametrize(
    ("extent", "size", "overlap", "starts"),
    [
        (10, 10, 0.5, [0]),
        (9, 10, 0.5, [-1]),
        (4, 10, 0.5, [-3]),
        (20, 10, 0.0, [0, 10]),
        (20, 10, 0.5, [0, 5, 10]),
        (21, 10, 0.0, [0, 5, 11]),
        (218, 128, 0.5, [0, 45, 90]),
        (182, 96, 0.5, [0, 43, 86]),
        (12, 4, 0.75, [0, 1, 2, 3, 4, 5, 6, 7, 8]),
    ],
)
def test_tile_starts_table(extent: int, size: int, overlap: float, starts: list[int]) -> None:
    assert tile_starts(extent, size, overlap) == starts


@given(extents, sizes, overlaps)
def test_tiles_cover_the_axis_evenly(extent: int, size: int, overlap: float) -> None:
    starts = tile_starts(extent, size, overlap)
    if extent <= size:
        assert starts == [(extent - size) // 2]
        return
    steps = np.diff(starts)
    assert starts[0] == 0
    assert starts[-1] == extent - size
    assert steps.max() - steps.min() <= 1
    shared = size - steps.max()
    assert shared >= overlap * size - 1e-6 or steps.max() == 1  # no step is shorter than a voxel


@given(extents, sizes, overlaps, st.floats(0.01, 1.0))
def test_windows_are_a_partition_of_unity(extent: int, size: int, overlap: float, sigma_scale: float) -> None:
    starts = tile_starts(extent, size, overlap)
    total = np.zeros(extent)
    for start, window in zip(starts, axis_windows(starts, size, extent, sigma_scale), strict=True):
        assert window.shape == (size,)
        assert window.dtype == np.float32
        inside = (np.arange(size) + start >= 0) & (np.arange(size) + start < extent)
        assert not window[~inside].any()
        assert window.min() >= 0.0
        total[max(start, 0) : start + size] += window[inside]
    np.testing.assert_allclose(total, 1.0, rtol=0, atol=3e-7)


def test_windows_are_gaussian_shares() -> None:
    first, second = axis_windows([0, 5], 10, 15)
    np.testing.assert_array_equal(first[:5], 1.0)
    gaussian = np.exp(-0.5 * ((np.arange(10) - 4.5) / 1.25) ** 2)
    np.testing.assert_allclose(first[5:], gaussian[5:] / (gaussian[5:] + gaussian[:5]), rtol=1e-6)
    np.testing.assert_allclose(second, first[::-1], rtol=1e-6)


def test_a_plan_runs_in_z_order() -> None:
    plan = plan_tiles((0, 0, 0), (20, 20, 20), (20, 20, 20), (8, 8, 8), 0.5)
    origins = [tile.origin for tile in plan.tiles]
    assert origins == sorted(origins)
    assert len(origins) == 64
    assert plan.skipped == 0


@pytest.mark.parametrize(
    ("low", "high", "extent", "origin"),
    [
        (4, 8, 40, 2),  # centred on the box
        (0, 4, 40, 0),  # moved in at the low end
        (36, 40, 40, 32),  # and at the high end
        (1, 3, 5, -2),  # the volume itself is shorter
        (10, 18, 40, 10),  # exactly one tile
    ],
)
def test_a_box_shorter_than_a_tile_gets_real_surroundings(low: int, high: int, extent: int, origin: int) -> None:
    plan = plan_tiles((low,) * 3, (high,) * 3, (extent,) * 3, (8, 8, 8), 0.5)
    (tile,) = plan.tiles
    assert tile.origin == (origin,) * 3
    assert (tile.low, tile.high) == ((low,) * 3, (high,) * 3)
    inside = np.arange(8) + origin
    np.testing.assert_array_equal(tile.windows[0], (inside >= low) & (inside < high))


def test_tiles_without_foreground_are_skipped() -> None:
    asked = []

    def foreground(low: tuple[int, int, int], high: tuple[int, int, int]) -> bool:
        asked.append((low, high))
        return low[2] >= 4

    plan = plan_tiles((0, 0, 0), (8, 8, 12), (8, 8, 12), (8, 8, 4), 0.0, foreground)
    assert [tile.origin for tile in plan.tiles] == [(0, 0, 4), (0, 0, 8)]
    assert plan.skipped == 1
    assert asked == [((0, 0, 0), (8, 8, 4)), ((0, 0, 4), (8, 8, 8)), ((0, 0, 8), (8, 8, 12))]


def test_an_empty_box_has_no_tiles() -> None:
    plan = plan_tiles((0, 0, 0), (0, 0, 0), (9, 9, 9), (8, 8, 8), 0.5)
    assert plan.tiles == ()
