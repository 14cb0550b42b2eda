"""What white matter says of a contrast: how noisy it is, and how even from slice to slice. Owns no limits."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from rmr_sdk.geometry import Grid
from rmr_sdk.volume import Volume

LEAST_SAMPLES = 500
"""Voxels of white matter below which nothing is said."""

_SAMPLES = 100_000
_THICK = 1.5  # times the least spacing: slices, not a volume
_MOST_OF_A_SLICE = 0.3  # of the largest white matter of any slice: smaller ones are no sample
_MAD_TO_DEVIATION = 1.4826

BoolArray = npt.NDArray[np.bool_]
Places = tuple[npt.NDArray[np.intp], ...]


@dataclass(frozen=True, slots=True, eq=False)
class WhiteMatter:
    """White matter on the grid of a contrast, and a sample of it.

    Attributes:
        mask: Where it is.
        grid: Of the mask.
        sample: Some of its voxels.
        triples: For each axis within a slice, voxels of the sample with both neighbours white: before, here, after.
    """

    mask: BoolArray
    grid: Grid
    sample: Places
    triples: tuple[tuple[Places, Places, Places], ...]

    @classmethod
    def of(cls, mask: BoolArray, grid: Grid) -> WhiteMatter:
        """Sample a mask."""
        points = np.argwhere(mask)
        points = points[:: max(1, len(points) // _SAMPLES)]
        triples, least = [], min(grid.spacing_mm)
        for axis in (axis for axis, mm in enumerate(grid.spacing_mm) if mm <= _THICK * least):
            inner = points[(points[:, axis] > 0) & (points[:, axis] < mask.shape[axis] - 1)]
            step = np.eye(3, dtype=np.intp)[axis]
            among = mask[tuple((inner - step).T)] & mask[tuple((inner + step).T)]
            inner = inner[among]
            low, here, high = (tuple(place.T) for place in (inner - step, inner, inner + step))
            triples.append((low, here, high))
        return cls(mask, grid, tuple(points.T), tuple(triples))


def white_over_noise(volume: Volume, white: WhiteMatter) -> float | None:
    """Return the median of white matter over the deviation of its noise.

    The noise is what a voxel differs by from the mean of its two neighbours within the slice, along each of its axes,
    where all three are white matter: d has 1.5 times the variance of a voxel, and its median absolute value is robust
    against lesions and vessels.
    """
    data, differences = volume.data, []
    for places in white.triples:
        before, here, after = (data[place].astype(np.float64) for place in places)
        differences.append(here - (before + after) / 2)
    difference = np.concatenate(differences)
    if difference.size < LEAST_SAMPLES:
        return None
    deviation = _MAD_TO_DEVIATION * float(np.median(np.abs(difference))) / np.sqrt(1.5)
    level = float(np.median(data[white.sample]))
    return level / deviation if deviation > 0 else None


def slice_unevenness(volume: Volume, white: BoolArray) -> float | None:
    """Return by how much the median of white matter differs from that of the two slices beside, in %, root mean square.

    Slices are those across the longest side of a voxel, otherwise axial ones.
    """
    grid = volume.grid
    thick = int(np.argmax(grid.spacing_mm))
    if grid.spacing_mm[thick] <= _THICK * min(grid.spacing_mm):
        thick = next(axis for axis, code in enumerate(grid.orientation) if code in "IS")
    data, mask = np.moveaxis(volume.data, thick, 0), np.moveaxis(white, thick, 0)
    sizes = mask.sum(axis=(1, 2))
    enough = sizes >= max(_MOST_OF_A_SLICE * sizes.max(), LEAST_SAMPLES)
    medians = np.array([np.median(data[k][mask[k]]) if enough[k] else np.nan for k in range(len(data))])
    change = medians[1:-1] - (medians[:-2] + medians[2:]) / 2
    change = change[np.isfinite(change)]
    if not change.size:
        return None
    return float(100 * np.sqrt(np.mean(change**2)) / np.nanmedian(medians))
