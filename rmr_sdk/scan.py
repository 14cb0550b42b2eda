"""Scans: the contrasts of a study as they come in, each checked and turned to the manifest's orientation.

Owns what a volume must be to be a scan of a head: finite voxels that vary, voxel sizes and a field of view that a
scanner makes. Where scans lie relative to each other is preprocess.py's.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any, Literal, TypeAlias

import numpy as np
import numpy.typing as npt

from rmr_sdk.errors import GeometryError, StudyError
from rmr_sdk.geometry import Affine, AxisMap, Grid, reorient
from rmr_sdk.volume import Volume, to_kernel_dtype

NonFinite: TypeAlias = Literal["error", "zero"]

_SPACING_MM = (0.1, 25.0)  # of scans of a head; beyond it the unit of the affine is wrong
_FIELD_MM = 1000.0  # longest side of a scan of a head; beyond it the unit of the affine is wrong


@dataclass(frozen=True, slots=True, eq=False)
class Scan:
    """One contrast.

    Attributes:
        axes: From its own grid to the manifest's orientation.
        voxels: On its own grid, of a kernel dtype and any strides.
        odd: What the reader should know about its voxels.
    """

    axes: AxisMap
    voxels: npt.NDArray[Any]
    odd: tuple[str, ...] = ()

    @property
    def grid(self) -> Grid:
        """Return where the voxels of `array` are."""
        return self.axes.grid

    @property
    def array(self) -> npt.NDArray[Any]:
        """Return the voxels in the manifest's orientation, a view."""
        return self.axes.apply(self.voxels)

    def moved(self, matrix: Affine) -> Scan:
        """Return the same voxels displaced by a (4, 4) matrix in world mm."""
        return replace(self, axes=self.axes.moved(matrix))


def take_scan(volume: Volume, orientation: str, non_finite: NonFinite) -> Scan:
    """Check a volume.

    Args:
        volume: The contrast as it was read.
        orientation: Axis codes to turn it to, without interpolation.
        non_finite: "error" refuses NaN and infinite voxels, "zero" takes them as background.

    Raises:
        StudyError: It is constant, or holds NaN or infinite voxels.
        GeometryError: Its spacing or its field of view cannot be that of a head.
    """
    _check_size(volume.grid)
    axes = reorient(volume.grid, orientation)
    voxels, odd = _finite_voxels(volume, non_finite)
    return Scan(axes, voxels, odd)


def _check_size(grid: Grid) -> None:
    if min(grid.spacing_mm) < _SPACING_MM[0] or max(grid.spacing_mm) > _SPACING_MM[1]:
        spacing = " x ".join(f"{length:.3g}" for length in grid.spacing_mm)
        raise GeometryError(
            f"its voxels are {spacing} mm, which no scan of a head has.",
            "Check the unit of the affine: it must give millimetres.",
            spacing_mm=grid.spacing_mm,
        )
    field = [length * spacing for length, spacing in zip(grid.shape, grid.spacing_mm, strict=True)]
    if max(field) > _FIELD_MM:
        raise GeometryError(
            f"its field of view is {' x '.join(f'{length:.0f}' for length in field)} mm, which no scan of a head has.",
            "Check the unit of the affine: it must give millimetres.",
            field_mm=tuple(field),
        )


def _finite_voxels(volume: Volume, non_finite: NonFinite) -> tuple[npt.NDArray[Any], tuple[str, ...]]:
    """Return voxels of a kernel dtype, all finite and not all the same, and what was odd about them."""
    voxels = to_kernel_dtype(volume.data)
    odd: tuple[str, ...] = ()
    least, most = voxels.min(), voxels.max()  # both are NaN where any voxel is
    if not (np.isfinite(least) and np.isfinite(most)):
        finite = np.isfinite(voxels)
        count = voxels.size - int(finite.sum())
        if non_finite == "error":
            raise StudyError(
                f"it holds NaN or infinite voxels ({count} of {voxels.size}).",
                'Pass non_finite="zero" (--non-finite zero) to take them as background.',
                voxels=count,
            )
        odd = (f"{count} voxels that are NaN or infinite were taken as background",)
        voxels = np.where(finite, voxels, voxels.dtype.type(0))
        least, most = voxels.min(), voxels.max()
    if least == most:
        raise StudyError(f"every voxel is {least}.", "Check that this is the contrast it should be.")
    return voxels, odd
