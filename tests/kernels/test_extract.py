"""Tile extraction against NumPy in float64."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from kernel_devices import Host
from layouts import LAYOUTS

from rmr_sdk import _C
from rmr_sdk.tiles import extract_tile

ORIGINS = {
    "inside": (2, 3, 4),
    "over the low corner": (-3, -2, -5),
    "over the high corner": (9, 30, 33),
    "away": (40, 0, 0),
}
MAP = {"scale": 0.00173, "offset": -37.0, "low": 0.0, "high": 1.5}


def volume(rng: np.random.Generator, dtype: npt.DTypeLike, shape: tuple[int, int, int] = (13, 37, 41)) -> Any:
    values = rng.uniform(-900 if np.dtype(dtype).kind != "u" else 0, 1500, shape)
    return values.clip(0, 255).astype(dtype) if dtype == np.uint8 else values.astype(dtype)


def oracle(source: Any, origin: tuple[int, int, int], shape: tuple[int, int, int]) -> npt.NDArray[np.float64]:
    values = np.clip((source.astype(np.float64) - MAP["offset"]) * MAP["scale"], MAP["low"], MAP["high"])
    padded = np.pad(values, 64)
    return padded[tuple(slice(64 + a, 64 + a + length) for a, length in zip(origin, shape, strict=True))]


@pytest.mark.parametrize("dtype", [np.uint8, np.int16, np.uint16, np.float32])
@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("origin", ORIGINS.values(), ids=ORIGINS)
def test_extract_equals_numpy(
    device: Host, rng: np.random.Generator, dtype: Any, layout: str, origin: tuple[int, int, int]
) -> None:
    source = LAYOUTS[layout](volume(rng, dtype))
    out = device.put(np.full((5, 11, 19), np.nan, np.float32))
    device.ops.extract(device.put(source), out, origin=origin, **MAP)
    np.testing.assert_allclose(device.get(out), oracle(source, origin, (5, 11, 19)), rtol=0, atol=1e-6)


@pytest.mark.parametrize("layout", LAYOUTS)
def test_extract_takes_volumes_smaller_than_a_tile(device: Host, rng: np.random.Generator, layout: str) -> None:
    source = LAYOUTS[layout](volume(rng, np.int16, (3, 4, 5)))
    out = device.put(np.full((8, 8, 40), np.nan, np.float32))
    device.ops.extract(device.put(source), out, origin=(-2, -2, -17), **MAP)
    np.testing.assert_allclose(device.get(out), oracle(source, (-2, -2, -17), (8, 8, 40)), rtol=0, atol=1e-6)


def test_extract_is_exactly_zero_outside(device: Host) -> None:
    out = device.put(np.full((4, 4, 4), np.nan, np.float32))
    source = np.zeros((2, 2, 2), np.int16)
    device.ops.extract(device.put(source), out, origin=(-1, -1, -1), scale=1.0, offset=-5.0, low=1.0, high=9.0)
    expected = np.zeros((4, 4, 4))
    expected[1:3, 1:3, 1:3] = 5.0
    np.testing.assert_array_equal(device.get(out), expected)


@pytest.mark.parametrize("layout", LAYOUTS)
def test_extract_does_not_depend_on_threads_or_layout(rng: np.random.Generator, layout: str) -> None:
    source = volume(rng, np.float32)
    reference = np.empty((9, 33, 40), np.float32)
    _C.extract(source, reference, origin=(1, -2, 3), **MAP)
    for threads in (1, 2, 3, 4, 50):
        out = np.empty_like(reference)
        _C.extract(LAYOUTS[layout](source), out, origin=(1, -2, 3), threads=threads, **MAP)
        np.testing.assert_array_equal(out, reference)


def test_device_ops_refuse_host_arrays(emulated: Any) -> None:
    out = np.empty((2, 2, 2), np.float32)
    with pytest.raises(TypeError, match="out must be an array in device memory"):
        emulated.extract(out, out, origin=(0, 0, 0), **MAP)


def test_extract_tile_fills_an_engine_input(rng: np.random.Generator) -> None:
    class Map:
        scale, offset, low, high = MAP["scale"], MAP["offset"], MAP["low"], MAP["high"]

    source = volume(rng, np.uint16)
    out = np.empty((1, 1, 5, 6, 7), np.float32)
    extract_tile(source, (1, 2, 3), out, Map(), threads=2)
    np.testing.assert_allclose(out[0, 0], oracle(source, (1, 2, 3), (5, 6, 7)), rtol=0, atol=1e-6)
