"""The search for foreground against NumPy."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from kernel_devices import Host
from layouts import LAYOUTS

from rmr_sdk.foreground import Foreground


def blob(rng: np.random.Generator, dtype: Any, shape: tuple[int, int, int] = (21, 34, 19)) -> Any:
    values = rng.integers(0, 50, shape).astype(dtype)
    values[5:12, 9:30, 3:11] = rng.integers(40, 120, (7, 21, 8)).astype(dtype)
    return values


@pytest.mark.parametrize("dtype", [np.uint8, np.int16, np.uint16, np.float32])
@pytest.mark.parametrize("layout", LAYOUTS)
def test_occupancy_bounds_each_block(device: Host, rng: np.random.Generator, dtype: Any, layout: str) -> None:
    source = LAYOUTS[layout](blob(rng, dtype))
    bounds = device.put(np.full((3, 5, 3, 6), -1, np.int32))
    device.ops.occupancy(device.put(source), bounds, threshold=100.0, block=8)
    found = device.get(bounds)
    for block in np.ndindex(3, 5, 3):
        low = np.array(block) * 8
        inside = np.argwhere(source[tuple(slice(a, a + 8) for a in low)] > 100)
        expected = np.zeros(6) if len(inside) == 0 else np.r_[low + inside.min(0), low + inside.max(0) + 1]
        np.testing.assert_array_equal(found[block], expected)


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("threads", [1, 3])
def test_foreground_finds_the_box(rng: np.random.Generator, layout: str, threads: int) -> None:
    source = blob(rng, np.int16)
    foreground = Foreground([LAYOUTS[layout](source)], [100.0], threads=threads)
    inside = np.argwhere(source > 100)
    assert foreground.low == tuple(inside.min(axis=0))
    assert foreground.high == tuple(inside.max(axis=0) + 1)
    assert not foreground.empty


def test_holds_is_exact(rng: np.random.Generator) -> None:
    sparse = np.zeros((30, 26, 22), np.float32)
    sparse[tuple(rng.integers(0, extent, 9) for extent in sparse.shape)] = 1.0
    other = np.zeros(sparse.shape, np.int16)
    other[20, 20, 20] = 7
    foreground = Foreground([sparse, other], [0.5, 6.0])
    mask = (sparse > 0.5) | (other > 6)
    answers = []
    for _ in range(300):
        low = [int(rng.integers(0, extent)) for extent in mask.shape]
        high = [int(rng.integers(a + 1, extent + 1)) for a, extent in zip(low, mask.shape, strict=True)]
        truth = bool(mask[tuple(slice(a, b) for a, b in zip(low, high, strict=True))].any())
        assert foreground.holds(tuple(low), tuple(high)) is truth
        answers.append(truth)
    assert 30 < sum(answers) < 270


def test_an_empty_volume_has_no_foreground() -> None:
    foreground = Foreground([np.zeros((9, 9, 9), np.float32), np.full((9, 9, 9), np.nan, np.float32)], [0.0, 0.0])
    assert foreground.empty
    assert foreground.low == foreground.high == (0, 0, 0)
    assert not foreground.holds((0, 0, 0), (9, 9, 9))


@pytest.mark.parametrize("threshold", [0.1, 1 / 3, -0.1, 1e-50])
def test_thresholds_compare_as_in_float64(threshold: float) -> None:
    near = np.float32(threshold)
    values = np.array([np.nextafter(near, np.float32(-9)), near, np.nextafter(near, np.float32(9))], np.float32)
    for value in values:
        source = np.full((1, 1, 1), value, np.float32)
        assert Foreground([source], [threshold]).empty is not (float(value) > threshold)
