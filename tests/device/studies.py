"""Studies in all the ways that their voxels can lie, and what two equal results have in common."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from tiny_study import make_grid, make_study

from rmr_sdk import Result, Study, Volume
from rmr_sdk.geometry import Grid

VOLUMES = ("fused", "labels", "lesion_probability")


def turned(study: Study, order: str) -> Study:
    """Return the same study in another memory order."""
    return Study({name: Volume(np.array(each.data, order=order), each.affine) for name, each in study.items()})


def spaced(study: Study) -> Study:
    """Return the same study as every other voxel of larger arrays."""
    volumes = {}
    for name, each in study.items():
        larger = np.zeros([2 * length for length in each.data.shape], each.data.dtype)
        larger[::2, ::2, ::2] = each.data
        volumes[name] = Volume(larger[::2, ::2, ::2], each.affine)
    return Study(volumes)


def shifted(spacing_mm: float = 1.0) -> Study:
    """Return a study whose T1w lies on another grid than its FLAIR."""
    other = make_grid("RPI", spacing_mm=spacing_mm)
    affine = other.affine.copy()
    affine[:3, 3] += 0.37
    return make_study({"FLAIR": make_grid(), "T1w": Grid(other.shape, affine)}, np.int16)


STUDIES: dict[str, Callable[[], Study]] = {
    "one grid": lambda: make_study(),
    "integers": lambda: make_study(dtype=np.int16),
    "bytes": lambda: make_study(dtype=np.uint8),
    "turned": lambda: make_study(make_grid("PIR"), np.uint16),
    "fortran": lambda: turned(make_study(dtype=np.int16), "F"),
    "spaced": lambda: spaced(make_study(dtype=np.int16)),
    "interpolated": shifted,
    "interpolated fortran": lambda: turned(shifted(), "F"),
    "averaged": lambda: make_study({"FLAIR": make_grid(), "T1w": make_grid(shape=(60, 70, 66), spacing_mm=0.36)}),
    "doubles": lambda: make_study(dtype=np.float64),
}


def expect_same(found: Result, expected: Result) -> None:
    """Compare to the last bit."""
    for name in VOLUMES:
        np.testing.assert_array_equal(getattr(found, name).data, getattr(expected, name).data)
    assert found.lesions == expected.lesions
    assert found.lesions
