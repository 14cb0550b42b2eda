"""How well two contrasts match: normalised mutual information at any rigid displacement of one of them.

    volume -> reduced to voxels of about 2 mm, intensities to 32 bins
    reference on a lattice of points; the moving contrast sampled there through its displaced affine -> joint histogram

Two contrasts of one head share information because the same tissues lie at the same places, whatever their
intensities. The lattice is not a multiple of either grid, so that no displacement is favoured by voxels that happen to
coincide. One value costs a millisecond. It owns the measure; searching with it is displacement.py's, and what a value
means for a study is align.py's.

Source: C. Studholme et al., "An overlap invariant entropy measure of 3D medical image alignment", Pattern Recognition
32 (1999).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from rmr_sdk import _C
from rmr_sdk.geometry import Affine, Grid, index_map

BINS = 32
VOXEL_MM = 2.0
"""Side of the voxels that volumes are reduced to."""

_TOP_PERCENTILE = 99.0
_FLOOR = 0.1  # of the top percentile of positive voxels: less is air
_MARGIN_MM = 20.0  # of air around the reference's head that takes part
_LEAST_OVERLAP = 0.5  # of the points that meet at the header's position; with less, NMI grows by showing less


@dataclass(frozen=True, slots=True, eq=False)
class Reduced:
    """A contrast in voxels of about 2 mm.

    Attributes:
        grid: Where its voxels are.
        level: Intensity as a fraction of the brightest of the head, float32, clipped to 0 and 1.
        head: Which voxels are no air; none in a volume without a positive voxel.
    """

    grid: Grid
    level: npt.NDArray[np.float32]
    head: npt.NDArray[np.bool_]

    @property
    def head_ml(self) -> float:
        """Return the volume of what is no air."""
        return int(self.head.sum()) * self.grid.voxel_ml

    @property
    def centre_mm(self) -> Affine:
        """Return the centre of mass of what is no air, in RAS mm."""
        return self.grid.world(np.argwhere(self.head).mean(axis=0))


def reduce_volume(voxels: npt.NDArray[Any], grid: Grid, voxel_mm: float = VOXEL_MM) -> Reduced:
    """Average blocks of voxels, so many along each axis that they come closest to `voxel_mm`.

    Args:
        voxels: Array on `grid` of any real dtype and strides, finite; whole blocks count.
        grid: Where the voxels are.
        voxel_mm: Side of a block; an axis with larger voxels keeps them.
    """
    factors = [
        min(max(1, round(voxel_mm / own)), length) for own, length in zip(grid.spacing_mm, grid.shape, strict=True)
    ]
    means = _block_means(voxels, factors)
    head = means > np.float32(_FLOOR) * _top(means[means > 0])
    with np.errstate(over="ignore"):  # what overflows is clipped
        level = means / _top(means[head])
    return Reduced(_block_grid(grid, factors, means.shape), np.clip(level, 0, 1, out=level), head)


def _top(values: npt.NDArray[np.float32]) -> np.float32:
    if values.size == 0:
        return np.float32(1)
    rank = int(_TOP_PERCENTILE / 100 * (values.size - 1))
    return np.float32(np.partition(values, rank)[rank])


def _block_means(voxels: npt.NDArray[Any], factors: list[int]) -> npt.NDArray[np.float32]:
    """Average whole blocks, one layer of blocks at a time in the order of memory: no copy of the volume is made."""
    order = sorted(range(3), key=lambda axis: -abs(voxels.strides[axis]))
    turned = voxels.transpose(order)
    a, b, c = (factors[axis] for axis in order)
    i, j, k = (length // factor for length, factor in zip(turned.shape, (a, b, c), strict=True))
    means = np.empty((i, j, k), np.float32)
    for layer in range(i):
        plane = turned[layer * a : layer * a + a, : j * b, : k * c].sum(axis=0, dtype=np.float64)
        rows = sum(plane[offset::b] for offset in range(b))
        means[layer] = sum(rows[:, offset::c] for offset in range(c)) / (a * b * c)
    return np.ascontiguousarray(means.transpose(np.argsort(order)))


def _block_grid(grid: Grid, factors: list[int], shape: tuple[int, ...]) -> Grid:
    affine = grid.affine.copy()
    affine[:3, :3] *= factors
    affine[:3, 3] = grid.world((np.asarray(factors) - 1) / 2)
    return Grid((shape[0], shape[1], shape[2]), affine)


class Similarity:
    """Normalised mutual information of a reference and a contrast that moves against it; 1 for none.

    Args:
        reference: Stays where it is.
        moving: Is sampled at the points of the lattice.
        lattice_mm: Distance of the points; no multiple of `VOXEL_MM`.
        start: (4, 4) displacement whose overlap is the measure of what is too little.
        threads: Threads that sample; no value depends on them.

    Attributes:
        lattice: The points.
        head_points: Those in the reference's head, (N, 3) RAS mm.
        common_points: How many of these are inside the moving contrast's field of view at the start.
    """

    def __init__(self, reference: Reduced, moving: Reduced, lattice_mm: float, start: Affine, threads: int = 1) -> None:
        self.lattice = _lattice(reference, lattice_mm)
        self._threads = threads
        self._source = moving.level * np.float32(BINS - 1) + 1  # so that 0 is outside its field of view
        self._grid = moving.grid
        self._sampled = np.empty(self.lattice.shape, np.float32)
        self._sample(reference.level, index_map(reference.grid, self.lattice))
        # Where the histogram row of each point begins: a row has one cell more, for points outside.
        self._rows = np.rint(self._sampled.ravel() * (BINS - 1)).astype(np.intp) * (BINS + 1)
        head = self._sampled > _FLOOR
        self.head_points = self.lattice.world(np.argwhere(head))
        counts = self.histogram(start)
        self.common_points = int((head & (self._sampled > 0)).sum())
        self._least = _LEAST_OVERLAP * float(counts.sum())

    def _sample(self, source: npt.NDArray[np.float32], matrix: Affine) -> None:
        _C.resample(source, self._sampled, matrix=matrix, mode="linear", threads=self._threads)

    def histogram(self, displacement: Affine) -> npt.NDArray[np.intp]:
        """Count the lattice points by the bins of both contrasts, (BINS, BINS); points outside either do not count.

        Args:
            displacement: (4, 4), where the header of the moving contrast puts a point -> where it is put instead, mm.
        """
        moved = Grid(self._grid.shape, displacement @ self._grid.affine)
        self._sample(self._source, index_map(moved, self.lattice))
        cells = self._rows + np.rint(self._sampled.ravel()).astype(np.intp)
        counts = np.bincount(cells, minlength=BINS * (BINS + 1)).reshape(BINS, BINS + 1)
        return counts[:, 1:]

    def __call__(self, displacement: Affine) -> float:
        """Return the normalised mutual information; 1 where too few points are inside both to tell."""
        counts = self.histogram(displacement)
        if counts.sum() <= self._least:
            return 1.0
        return normalised_mutual_information(counts)

    def chance(self, displacement: Affine) -> float:
        """Return the normalised mutual information that as many points of two unrelated contrasts would seem to have.

        Source: the bias of an entropy that is counted in bins, G. A. Miller, "Note on the bias of information
        estimates" (1955).
        """
        counts = self.histogram(displacement)
        occupied = np.count_nonzero(counts) + 1
        occupied -= np.count_nonzero(counts.sum(axis=0)) + np.count_nonzero(counts.sum(axis=1))
        return 1.0 + occupied / (2 * max(int(counts.sum()), 1)) / max(_entropy(counts.ravel()), 1e-9)


def normalised_mutual_information(counts: npt.NDArray[np.intp]) -> float:
    """Return (H(rows) + H(columns)) / H(rows, columns) of a joint histogram: 1 where both are independent, up to 2."""
    joint = _entropy(counts.ravel())
    return 1.0 if joint == 0 else (_entropy(counts.sum(axis=0)) + _entropy(counts.sum(axis=1))) / joint


def _entropy(counts: npt.NDArray[np.intp]) -> float:
    shares = counts[counts > 0] / counts.sum()
    return float(-(shares * np.log(shares)).sum())


def _lattice(reference: Reduced, lattice_mm: float) -> Grid:
    """Return points at equal distances over the reference's head and some air around it."""
    occupied = [np.flatnonzero(reference.head.any(axis=tuple({0, 1, 2} - {axis}))) for axis in range(3)]
    spacing = np.asarray(reference.grid.spacing_mm)
    margin = _MARGIN_MM / spacing
    low = np.maximum([each[0] for each in occupied] - margin, 0)
    high = np.minimum([each[-1] for each in occupied] + margin, np.asarray(reference.grid.shape) - 1)
    step = lattice_mm / spacing
    shape = np.maximum(np.floor((high - low) / step + 1e-6).astype(int) + 1, 1)
    affine = reference.grid.affine.copy()
    affine[:3, :3] *= step
    affine[:3, 3] = reference.grid.world((low + high) / 2 - step * (shape - 1) / 2)
    return Grid((int(shape[0]), int(shape[1]), int(shape[2])), affine)
