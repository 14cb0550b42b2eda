"""Resampling: voxels of one grid, seen on another. Owns the way to the native kernel and the choice of interpolation.

A voxel fills its box: up to half a voxel beyond the outermost centres the outermost voxels are continued, further out
is 0. That is also what ITK's interpolators do inside the buffer, which the tests compare with.
"""

from __future__ import annotations

from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from rmr_sdk import _C
from rmr_sdk.geometry import Grid, index_map

Interpolation = Literal["linear", "nearest", "area"]

_AREA_FACTOR = 1.5


def resample(
    voxels: npt.NDArray[Any], source: Grid, target: Grid, mode: Interpolation, threads: int = 1
) -> npt.NDArray[Any]:
    """Interpolate voxels on another grid.

    Args:
        voxels: Array on `source`, uint8, int16, uint16 or float32, of any strides.
        source: Where the voxels are.
        target: Where they are wanted.
        mode: "linear" between the eight neighbours, "nearest" voxel, or "area": the average over the box of the
            target voxel.
        threads: Threads of the shared pool to use; the result does not depend on them.

    Returns:
        C-contiguous array on `target`; float32, or with "nearest" the dtype of the voxels.
    """
    out = np.empty(target.shape, voxels.dtype if mode == "nearest" else np.float32)
    _C.resample(voxels, out, matrix=index_map(source, target), mode=mode, threads=threads)
    return out


def image_mode(source: Grid, target: Grid) -> Interpolation:
    """Choose the interpolation of intensities.

    Where the target's voxels are more than 1.5 times as long as the source's, along any axis of the source, linear
    interpolation would skip voxels (noise stays, thin structures come and go with the phase of the grids), so the
    average over the target voxel is taken. Otherwise it is linear: overshoot-free and without a parameter.
    """
    footprint = np.linalg.norm(index_map(source, target)[:, :3], axis=1)
    return "area" if footprint.max() > _AREA_FACTOR else "linear"
