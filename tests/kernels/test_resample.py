"""Resampling against NumPy in float64 and against SimpleITK."""

from __future__ import annotations

from types import ModuleType
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt
import pytest
from kernel_devices import Host
from layouts import LAYOUTS

from rmr_sdk import _C

MATRICES = {
    "oblique": [
        [0.9137, 0.1529, -0.1013, 1.2171],
        [-0.2039, 1.1093, 0.0517, -0.7177],
        [0.0731, -0.1237, 0.8119, 0.4133],
    ],
    "coarser": [[2.0, 0.0, 0.0, 0.5], [0.0, 1.5, 0.0, 0.3], [0.0, 0.0, 3.0, 1.0]],
    "finer, flipped": [[-0.5, 0.0, 0.0, 11.3], [0.0, 0.4, 0.0, -0.3], [0.0, 0.0, 0.6, 0.2]],
    "swapped axes": [[0.0, 0.0, 1.0, 0.0], [1.0, 0.0, 0.0, 0.0], [0.0, 1.0, 0.0, 0.0]],
    "away": [[1.0, 0.0, 0.0, 100.0], [0.0, 1.0, 0.0, 0.0], [0.0, 0.0, 1.0, 0.0]],
}
SIZE = (9, 11, 10)
Points: TypeAlias = npt.NDArray[np.float64]


def sample(source: Any, points: Points, mode: str) -> tuple[Points, npt.NDArray[np.bool_]]:
    """Return the values at source indices (..., 3), 0 outside, and which are inside."""
    extents = np.array(source.shape)
    inside = np.all((points >= -0.5) & (points < extents - 0.5), axis=-1)
    if mode == "nearest":
        nearest = np.clip(np.floor(points + 0.5).astype(int), 0, extents - 1)
        return np.where(inside, source[tuple(np.moveaxis(nearest, -1, 0))], 0.0), inside
    low = np.floor(points).astype(int)
    values = np.zeros(inside.shape)
    for corner in np.ndindex(2, 2, 2):
        weight = np.prod(np.where(corner, points - low, 1.0 - (points - low)), axis=-1)
        at = np.clip(low + corner, 0, extents - 1)
        values += weight * source[tuple(np.moveaxis(at, -1, 0))]
    return np.where(inside, values, 0.0), inside


def oracle(source: Any, matrix: npt.NDArray[np.float64], mode: str) -> Points:
    target = np.moveaxis(np.indices(SIZE), 0, -1).astype(np.float64)
    centre, inside = sample(source, target @ matrix[:, :3].T + matrix[:, 3], mode)
    if mode != "area":
        return centre
    steps = [max(1, int(np.ceil(np.linalg.norm(matrix[:, axis]) - 1e-3))) for axis in range(3)]
    total, count = np.zeros(SIZE), np.zeros(SIZE)
    for sub in np.ndindex(*steps):
        offset = (np.array(sub) + 0.5) / steps - 0.5
        values, counts = sample(source, (target + offset) @ matrix[:, :3].T + matrix[:, 3], "linear")
        total += values
        count += counts
    return np.where(inside, total / np.maximum(count, 1), 0.0)


def resample(device: Host, source: Any, matrix: Any, mode: str, **where: int) -> Any:
    out = device.put(np.full(SIZE, 77, source.dtype if mode == "nearest" else np.float32))
    device.ops.resample(device.put(source), out, matrix=np.array(matrix, np.float64), mode=mode, **where)
    return device.get(out)


@pytest.mark.parametrize("dtype", [np.uint8, np.int16, np.uint16, np.float32])
@pytest.mark.parametrize("mode", ["nearest", "linear", "area"])
@pytest.mark.parametrize("matrix", MATRICES)
def test_resample_equals_numpy(device: Host, rng: np.random.Generator, matrix: str, mode: str, dtype: Any) -> None:
    source = (rng.random((12, 14, 13)) * 200).astype(dtype)
    expected = oracle(source, np.array(MATRICES[matrix]), mode)
    out = resample(device, source, MATRICES[matrix], mode)
    np.testing.assert_allclose(out, expected, rtol=0, atol=1e-6 * 200)
    assert (matrix == "away") is not bool(expected.any())


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("mode", ["nearest", "linear", "area"])
def test_resample_does_not_depend_on_layout_or_threads(rng: np.random.Generator, layout: str, mode: str) -> None:
    source = rng.random((12, 14, 13), np.float32)
    reference = resample(Host(_C), source, MATRICES["oblique"], mode)
    for threads in (1, 2, 3, 4):
        out = resample(Host(_C), LAYOUTS[layout](source), MATRICES["oblique"], mode, threads=threads)
        np.testing.assert_array_equal(out, reference)


@pytest.mark.parametrize(("mode", "interpolator"), [("nearest", "sitkNearestNeighbor"), ("linear", "sitkLinear")])
@pytest.mark.parametrize("matrix", MATRICES)
def test_resample_equals_simpleitk(
    sitk: ModuleType, rng: np.random.Generator, matrix: str, mode: str, interpolator: str
) -> None:
    source = rng.random((12, 14, 13)).astype(np.float32)
    backwards = np.array(MATRICES[matrix])[::-1]  # SimpleITK counts x, y, z: our axes 2, 1, 0
    transform = sitk.AffineTransform(3)
    transform.SetMatrix(backwards[:, 2::-1].ravel().tolist())
    transform.SetTranslation(backwards[:, 3].tolist())
    image = sitk.GetImageFromArray(source)
    expected = sitk.GetArrayFromImage(
        sitk.Resample(image, SIZE[::-1], transform, getattr(sitk, interpolator), (0, 0, 0), (1, 1, 1))
    )
    out = resample(Host(_C), source, MATRICES[matrix], mode)
    np.testing.assert_allclose(out, expected, rtol=0, atol=1e-6)


def test_area_over_whole_voxels_is_their_mean(device: Host, rng: np.random.Generator) -> None:
    source = rng.integers(0, 1000, (18, 22, 20)).astype(np.int16)
    matrix = [[2, 0, 0, 0.5], [0, 2, 0, 0.5], [0, 0, 2, 0.5]]
    expected = source.reshape(9, 2, 11, 2, 10, 2).mean(axis=(1, 3, 5))
    np.testing.assert_allclose(resample(device, source, matrix, "area"), expected, rtol=1e-6)


@pytest.mark.parametrize("mode", ["nearest", "linear", "area"])
def test_the_identity_gives_the_source(device: Host, rng: np.random.Generator, mode: str) -> None:
    source = rng.integers(0, 30000, SIZE).astype(np.uint16)
    np.testing.assert_array_equal(resample(device, source, np.eye(3, 4), mode), source)


def test_rounding_noise_of_an_affine_does_not_move_borders(rng: np.random.Generator) -> None:
    source = rng.random((9, 11, 10), np.float32)
    half = np.eye(3, 4)
    half[:, 3] = -0.5
    reference = resample(Host(_C), source, half, "nearest")
    for noise in (-1e-12, 1e-12):
        np.testing.assert_array_equal(resample(Host(_C), source, half + noise, "nearest"), reference)
    assert reference.all()
