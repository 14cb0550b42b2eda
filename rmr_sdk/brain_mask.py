"""Brain masks that come with a study: where the network looks, and where it must not."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from rmr_sdk.errors import GeometryError, StudyError
from rmr_sdk.geometry import Grid, reorient
from rmr_sdk.resample import resample
from rmr_sdk.volume import Volume


def mask_on_grid(mask: Volume, grid: Grid, orientation: str, threads: int = 1) -> npt.NDArray[np.bool_]:
    """Bring a mask onto the common grid through its header: each voxel takes the nearest one's answer.

    Args:
        mask: Whatever is not zero, and not NaN, is brain.
        grid: The common grid.
        orientation: Its axis codes.
        threads: Threads that resample; nothing depends on them but time.

    Raises:
        StudyError: The mask is empty, or its brain is outside the common grid.
        GeometryError: The mask does not overlap the common grid.
    """
    axes = reorient(mask.grid, orientation)
    brain = axes.apply(np.nan_to_num(mask.data) != 0)
    if not brain.any():
        raise StudyError("the brain mask is empty: every voxel is 0.", "Pass a mask that is not 0 in the brain.")
    if axes.grid.coverage_of(grid) == 0:
        raise GeometryError(
            "the brain mask does not overlap the study in space.",
            "Check that it was made from this study and that its affine is right.",
        )
    if axes.grid.matches(grid):
        return brain
    found = resample(np.ascontiguousarray(brain).view(np.uint8), axes.grid, grid, "nearest", threads).view(np.bool_)
    if not found.any():
        raise StudyError(
            "the brain mask has no voxel of brain where the study is.",
            "Check that it was made from this study and that its affine is right.",
        )
    return found


def keep_brain(array: npt.NDArray[Any], brain: npt.NDArray[np.bool_]) -> npt.NDArray[Any]:
    """Return a copy of an array that is 0 outside the brain, in the same order in memory."""
    kept = np.zeros_like(array)
    np.copyto(kept, array, where=brain)
    return kept


def forget_outside(brain: npt.NDArray[np.bool_], *outputs: npt.NDArray[Any] | None) -> None:
    """Set labels and probabilities outside the brain to 0, in place: a network sees a little beyond each voxel."""
    outside = ~brain
    for output in outputs:
        if output is not None:
            output[outside] = 0
