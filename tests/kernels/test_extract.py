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


EVERY_KIND_OF_FLOAT = np.array(
    [
        0.0,
        -0.0,
        1.0,
        -2.5,
        65504.0,
        65519.99,
        65520.0,
        1e9,
        np.inf,
        -np.inf,
        6e-8,
        2.9802322e-08,
        2.98e-8,
        6.1e-5,
        1e-30,
    ],
    np.float32,
)


@pytest.mark.parametrize("dtype", [np.uint8, np.int16, np.uint16, np.float32])
@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("width", [16, 19])
def test_half_precision_tiles_are_rounded_float_tiles(
    device: Host, rng: np.random.Generator, dtype: Any, layout: str, width: int
) -> None:
    source = LAYOUTS[layout](volume(rng, dtype, (40, 37, 41)))
    for origin in ((2, 3, 4), (-3, -2, -5), (-1, 0, 8)):
        exact = np.empty((34, 11, width), np.float32)
        _C.extract(source, exact, origin=origin, **MAP)
        out = device.put(np.full((34, 11, width), np.nan, np.float16))
        device.ops.extract(device.put(source), out, origin=origin, **MAP)
        np.testing.assert_array_equal(device.get(out), exact.astype(np.float16))


def test_half_precision_is_written_as_numpy_rounds(device: Host, rng: np.random.Generator) -> None:
    halves = np.arange(65536, dtype=np.uint16).view(np.float16).astype(np.float32)
    halves = halves[np.isfinite(halves)]
    between = (halves + np.roll(halves, 1)) / 2
    near = np.concatenate([np.nextafter(between, np.float32(np.inf)), np.nextafter(between, np.float32(-np.inf))])
    noise = rng.integers(0, 2**32, 4096, dtype=np.uint32).view(np.float32)
    values = np.concatenate([EVERY_KIND_OF_FLOAT, halves, between, near, noise[~np.isnan(noise)]])
    values = values[: values.size // 8 * 8].reshape(1, 1, -1)
    out = device.put(np.empty(values.shape, np.float16))
    plain = {"scale": 1.0, "offset": 0.0, "low": -np.inf, "high": np.inf}
    device.ops.extract(device.put(values), out, origin=(0, 0, 0), **plain)
    with np.errstate(over="ignore"):
        expected = values.astype(np.float16)
    np.testing.assert_array_equal(device.get(out).view(np.uint16), expected.view(np.uint16))


MATRIX = np.array(
    [[0.9137, 0.1529, -0.1013, 1.2171], [-0.2039, 1.1093, 0.0517, -0.7177], [0.0731, -0.1237, 0.8119, 0.4133]]
)


@pytest.mark.parametrize("dtype", [np.uint8, np.int16, np.uint16, np.float32])
@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("half", [False, True])
def test_sampling_tiles_is_resampling_and_cutting(
    device: Host, rng: np.random.Generator, dtype: Any, layout: str, half: bool
) -> None:
    source, grid = LAYOUTS[layout](volume(rng, dtype)), (15, 31, 33)
    resampled = np.empty(grid, np.float32)
    _C.resample(source, resampled, matrix=MATRIX, mode="linear")
    for origin in ((1, 2, 3), (-3, -2, -5), (9, 25, 30)):
        expected = np.empty((6, 11, 19), np.float32)
        _C.extract(resampled, expected, origin=origin, **MAP)
        out = device.put(np.empty((6, 11, 19), np.float16 if half else np.float32))
        device.ops.extract(device.put(source), out, origin=origin, matrix=MATRIX, grid=grid, **MAP)
        np.testing.assert_array_equal(device.get(out), expected.astype(np.float16) if half else expected)


def test_tiles_wider_than_a_square_of_the_transpose(device: Host, rng: np.random.Generator) -> None:
    source = np.asfortranarray(volume(rng, np.int16, (70, 40, 75)))
    for turned in (source, source.transpose(1, 0, 2)):
        expected = np.empty((36, 37, 66), np.float32)
        _C.extract(np.ascontiguousarray(turned), expected, origin=(1, 2, 3), **MAP)
        out = device.put(np.empty(expected.shape, np.float32))
        device.ops.extract(device.put(turned), out, origin=(1, 2, 3), **MAP)
        np.testing.assert_array_equal(device.get(out), expected)
