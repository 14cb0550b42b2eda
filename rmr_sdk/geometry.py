"""Grids: where the voxels of a volume lie in the world. The one home of affines, orientations and index maps.

Array axis n belongs to affine column n; the world is RAS+ in millimetres; voxel index 0 is the centre of the first
voxel. An orientation names the end that each array axis runs to: "LAS" = to the left, to the front, to the top.

                 affine (4 x 4)
    index (i, j, k)  ------->  world (x right, y anterior, z superior) in mm

It does not touch voxels except as views (AxisMap); interpolation is native (csrc/ops) and driven by preprocess.py.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias, TypeVar

import numpy as np
import numpy.typing as npt

from rmr_sdk.errors import GeometryError

Affine: TypeAlias = npt.NDArray[np.float64]
Scalar = TypeVar("Scalar", bound=np.generic)

_ENDS = ("LR", "PA", "IS")  # per world axis: the letter of its negative and of its positive end
_SINGULAR = 1e-6  # volume of the unit cube spanned by the axis directions; real scans, oblique ones too, are near 1
_LATTICE = 32  # points per axis with which fields of view are compared
_AFFINE_FIX = "Correct the header, or pass the affine that maps voxel indices to RAS millimetres."


@dataclass(frozen=True, slots=True, eq=False)
class Grid:
    """The shape of a volume and the affine that puts its voxels in the world.

    Args:
        shape: Voxels along each array axis, all positive.
        affine: (4, 4), voxel index -> RAS mm. A read-only float64 copy is kept.

    Raises:
        GeometryError: The shape is not three positive lengths, or the affine is not (4, 4), not finite, singular, or
            its last row is not 0 0 0 1.
    """

    shape: tuple[int, int, int]
    affine: Affine

    def __post_init__(self) -> None:
        object.__setattr__(self, "shape", _checked_shape(self.shape))
        object.__setattr__(self, "affine", _checked_affine(self.affine))

    def __str__(self) -> str:
        """Say shape, spacing and orientation, without the position."""
        spacing = " x ".join(f"{length:.4g}" for length in self.spacing_mm)
        return f"{' x '.join(map(str, self.shape))} voxels, {spacing} mm, {self.orientation}"

    def __repr__(self) -> str:
        return f"Grid({self})"

    @property
    def spacing_mm(self) -> tuple[float, float, float]:
        """Return the distance between neighbouring voxel centres along each array axis."""
        x, y, z = np.linalg.norm(self.affine[:3, :3], axis=0)
        return float(x), float(y), float(z)

    @property
    def voxel_ml(self) -> float:
        """Return the volume of one voxel."""
        return float(abs(np.linalg.det(self.affine[:3, :3]))) / 1000.0

    @property
    def orientation(self) -> str:
        """Return the axis codes: the end of the world that each array axis runs to, as closely as it can be said."""
        cosines = self.affine[:3, :3] / np.asarray(self.spacing_mm)
        world_axes = _closest_axes(cosines)
        return "".join(_ENDS[world][int(cosines[world, axis] > 0)] for axis, world in enumerate(world_axes))

    def world(self, index: npt.ArrayLike) -> Affine:
        """Return where voxel indices (..., 3), fractions allowed, lie in RAS mm."""
        points: Affine = np.asarray(index, np.float64) @ self.affine[:3, :3].T + self.affine[:3, 3]
        return points

    def index(self, world_mm: npt.ArrayLike) -> Affine:
        """Return the fractional voxel indices of points (..., 3) in RAS mm."""
        inverse = np.linalg.inv(self.affine[:3, :3])
        points: Affine = (np.asarray(world_mm, np.float64) - self.affine[:3, 3]) @ inverse.T
        return points

    def corners_mm(self) -> Affine:
        """Return the centres of the eight corner voxels in RAS mm, (8, 3)."""
        return self.world(list(itertools.product(*((0, length - 1) for length in self.shape))))

    def matches(self, other: Grid, tolerance_mm: float = 1e-3) -> bool:
        """Tell whether both grids put every voxel at the same place, within a tolerance."""
        if self.shape != other.shape:
            return False
        return bool(np.abs(self.corners_mm() - other.corners_mm()).max() <= tolerance_mm)

    def respaced(self, spacing_mm: Sequence[float]) -> Grid:
        """Return the grid of the same field of view, centre and directions at another spacing.

        The shape is rounded up, so that no part of the field of view is lost; an axis that keeps its spacing keeps
        its voxels.
        """
        factors = np.asarray(spacing_mm, np.float64) / self.spacing_mm
        shape = np.maximum(np.ceil(self.shape / factors - 1e-3), 1).astype(int)
        affine = self.affine.copy()
        affine[:3, :3] *= factors
        centre = self.world((np.asarray(self.shape) - 1) / 2)
        affine[:3, 3] = centre - affine[:3, :3] @ ((shape - 1) / 2)
        return Grid((int(shape[0]), int(shape[1]), int(shape[2])), affine)

    def subdivided(self, parts: Sequence[int]) -> Grid:
        """Return the grid with so many voxels in the place of one along each axis; every voxel centre stays one.

        So what is sampled there and back is exact at the centres. The field of view stays too, but for half a new
        voxel at either end of an axis of even parts.
        """
        factors = np.asarray(parts)
        beyond = (factors - 1) // 2
        shape = (np.asarray(self.shape) - 1) * factors + 1 + 2 * beyond
        affine = self.affine.copy()
        affine[:3, :3] /= factors
        affine[:3, 3] = self.world(-beyond / factors)
        return Grid((int(shape[0]), int(shape[1]), int(shape[2])), affine)

    def coverage_of(self, other: Grid) -> float:
        """Return the share of the other grid's field of view that this grid's field of view covers, 0 to 1.

        Counted on a lattice of up to 32 voxels per axis, so an overlap thinner than 1/32 may count as none.
        """
        axes = [(np.arange(min(n, _LATTICE)) + 0.5) * n / min(n, _LATTICE) - 0.5 for n in other.shape]
        points = np.stack(np.meshgrid(*axes, indexing="ij"), axis=-1)
        inside = self.index(other.world(points))
        return float(np.all((inside > -0.5) & (inside < np.asarray(self.shape) - 0.5), axis=-1).mean())


@dataclass(frozen=True, slots=True, eq=False)
class AxisMap:
    """A permutation and flips of array axes: exact, invertible, and free of copies.

    Attributes:
        order: Axis n of the result is axis `order[n]` of the source.
        flips: Whether axis n of the result runs against the source.
        source: The grid that `apply` takes arrays of.
        grid: The grid of what `apply` returns; every voxel stays where it is in the world.
    """

    order: tuple[int, int, int]
    flips: tuple[bool, bool, bool]
    source: Grid
    grid: Grid

    def apply(self, array: npt.NDArray[Scalar]) -> npt.NDArray[Scalar]:
        """Return a view of a source array with its axes permuted, then flipped."""
        return array.transpose(self.order)[self._slices()]

    def invert(self, array: npt.NDArray[Scalar]) -> npt.NDArray[Scalar]:
        """Return a view of a result array as it lies on the source grid."""
        return array[self._slices()].transpose(np.argsort(self.order))

    def moved(self, matrix: Affine) -> AxisMap:
        """Return the same permutation and flips of a volume that is displaced by a (4, 4) matrix in world mm."""
        source, grid = (Grid(each.shape, matrix @ each.affine) for each in (self.source, self.grid))
        return AxisMap(self.order, self.flips, source, grid)

    def _slices(self) -> tuple[slice, ...]:
        return tuple(slice(None, None, -1) if flip else slice(None) for flip in self.flips)


def reorient(grid: Grid, codes: str) -> AxisMap:
    """Find the permutation and the flips that bring a grid to an orientation.

    Oblique grids stay oblique: each array axis counts as the world axis closest to it, nothing is rotated.

    Args:
        grid: The grid to start from.
        codes: Axis codes of the result, e.g. "RAS".

    Raises:
        GeometryError: The codes do not name each world axis once.
    """
    wanted = _parse_codes(codes)
    have = _parse_codes(grid.orientation)
    order = [next(axis for axis in range(3) if have[axis][0] == world) for world, _ in wanted]
    flips = [have[axis][1] != positive for axis, (_, positive) in zip(order, wanted, strict=True)]

    index = np.zeros((4, 4))  # result index -> source index
    index[3, 3] = 1.0
    for axis, (source_axis, flip) in enumerate(zip(order, flips, strict=True)):
        index[source_axis, axis] = -1.0 if flip else 1.0
        index[source_axis, 3] = grid.shape[source_axis] - 1 if flip else 0.0
    shape = (grid.shape[order[0]], grid.shape[order[1]], grid.shape[order[2]])
    return AxisMap(
        (order[0], order[1], order[2]), (flips[0], flips[1], flips[2]), grid, Grid(shape, grid.affine @ index)
    )


def index_map(source: Grid, target: Grid) -> Affine:
    """Return the (3, 4) matrix that maps a target voxel index to the source voxel index at the same place."""
    return np.linalg.solve(source.affine, target.affine)[:3].astype(np.float64)


def _checked_shape(shape: Any) -> tuple[int, int, int]:
    lengths = tuple(int(length) for length in shape)
    if len(lengths) != 3 or min(lengths) < 1:
        raise GeometryError(
            f"a volume needs three axes of at least one voxel, not the shape {lengths}.",
            "Pass one 3-D volume per contrast.",
            shape=lengths,
        )
    return lengths[0], lengths[1], lengths[2]


def _checked_affine(affine: npt.ArrayLike) -> Affine:
    matrix = np.array(affine, np.float64)
    if matrix.shape != (4, 4):
        raise GeometryError(f"an affine has the shape (4, 4), not {matrix.shape}.", _AFFINE_FIX)
    if not np.isfinite(matrix).all():
        raise GeometryError("the affine holds NaN or infinite numbers.", _AFFINE_FIX)
    if not np.array_equal(matrix[3], (0, 0, 0, 1)):
        raise GeometryError(f"the last row of the affine is {matrix[3].tolist()}, not 0 0 0 1.", _AFFINE_FIX)
    spacing = np.linalg.norm(matrix[:3, :3], axis=0)
    if spacing.min() == 0 or abs(np.linalg.det(matrix[:3, :3] / spacing)) < _SINGULAR:
        raise GeometryError("the affine is singular: its axes do not span the space.", _AFFINE_FIX)
    matrix.setflags(write=False)
    return matrix


def _closest_axes(cosines: Affine) -> tuple[int, ...]:
    """Return the world axis of each array axis: the pairing with the greatest sum of absolute cosines."""
    weight = np.abs(cosines)
    return max(itertools.permutations(range(3)), key=lambda worlds: sum(weight[w, a] for a, w in enumerate(worlds)))


def _parse_codes(codes: str) -> list[tuple[int, bool]]:
    """Return (world axis, runs to its positive end) per array axis."""
    found = [
        (world, letter == ends[1]) for letter in codes.upper() for world, ends in enumerate(_ENDS) if letter in ends
    ]
    if len(codes) != 3 or sorted(world for world, _ in found) != [0, 1, 2]:
        raise GeometryError(
            f'"{codes}" is not an orientation.',
            "Give one letter of each pair L/R, P/A and I/S, in the order of the array axes, such as RAS.",
            codes=codes,
        )
    return found
