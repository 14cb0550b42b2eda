"""Post-processing: from labels to countable things: connected components and voxel counts.

It knows voxels and indices only; millimetres and millilitres come in where grids are known (pipeline, result).
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from rmr_sdk import _C


@dataclass(frozen=True, slots=True)
class Component:
    """Voxels of one label that touch by a face, an edge or a corner.

    Attributes:
        id: 1 for the largest.
        voxels: How many.
        centroid: Mean voxel index (axis 0, 1, 2).
        mean_probability: Over its voxels; None where no probability was given.
    """

    id: int
    voxels: int
    centroid: tuple[float, float, float]
    mean_probability: float | None


@dataclass(frozen=True, slots=True, eq=False)
class ComponentVoxels:
    """The voxels of all components of a volume, component after component.

    Attributes:
        index: (n, 3) voxel indices.
        starts: First row of each component; row `id - 1` belongs to component `id`.
    """

    index: npt.NDArray[np.intp]
    starts: npt.NDArray[np.intp]

    @classmethod
    def of(cls, ids: npt.NDArray[np.int32], origin: npt.ArrayLike = (0, 0, 0)) -> ComponentVoxels:
        """Collect them from what `components` filled; `origin` is the index of the first voxel of `ids`."""
        index = np.argwhere(ids)
        numbers = ids[tuple(index.T)]
        order = np.argsort(numbers, kind="stable")
        starts = np.flatnonzero(np.diff(numbers[order], prepend=0))
        return cls(index[order] + np.asarray(origin, np.intp), starts)

    def __len__(self) -> int:
        return len(self.starts)

    def __iter__(self) -> Iterator[npt.NDArray[np.intp]]:
        """Give the (m, 3) indices of one component after the other."""
        return iter(np.split(self.index, self.starts[1:]))

    def any(self, flags: npt.NDArray[np.bool_]) -> npt.NDArray[np.bool_]:
        """Tell for each component whether any of its voxels is flagged; `flags` are (n,), in the order of `index`."""
        return np.logical_or.reduceat(flags, self.starts)

    def share(self, flags: npt.NDArray[np.bool_]) -> npt.NDArray[np.float64]:
        """Return for each component the share of its voxels that is flagged."""
        sizes = np.diff(self.starts, append=len(self.index))
        shares: npt.NDArray[np.float64] = np.add.reduceat(flags.astype(np.float64), self.starts) / sizes
        return shares


def components(
    labels: npt.NDArray[np.uint8] | npt.NDArray[np.bool_],
    value: int = 1,
    probability: npt.NDArray[np.float32] | None = None,
    ids: npt.NDArray[np.int32] | None = None,
) -> list[Component]:
    """Find the connected components (26 neighbours) of the voxels that carry one label.

    Args:
        labels: (D, H, W), C-contiguous uint8, or bool for a mask.
        value: The label; 1 for a mask.
        probability: (D, H, W) float32 to average over each component.
        ids: (D, H, W) int32, filled with each voxel's component id, 0 outside; None when not wanted.

    Returns:
        The components, largest first; equal ones in the order of their first voxels.
    """
    sizes, centroids, means = _C.components(labels.view(np.uint8), probability, ids, value=value)
    return [
        Component(
            id=number,
            voxels=int(voxels),
            centroid=(float(centroid[0]), float(centroid[1]), float(centroid[2])),
            mean_probability=None if probability is None else float(mean),
        )
        for number, (voxels, centroid, mean) in enumerate(zip(sizes, centroids, means, strict=True), start=1)
    ]


def bounding_box(mask: npt.NDArray[np.bool_]) -> tuple[slice, slice, slice] | None:
    """Return the least box around what is True; None where nothing is."""
    sides = []
    for axis in range(3):
        found = np.flatnonzero(mask.any(axis=tuple({0, 1, 2} - {axis})))
        if not found.size:
            return None
        sides.append(slice(int(found[0]), int(found[-1]) + 1))
    return sides[0], sides[1], sides[2]


def count_labels(labels: npt.NDArray[np.uint8], classes: int) -> list[int]:
    """Return the number of voxels of each class; plane by plane, so that no wide copy of the labels is made."""
    counts: npt.NDArray[Any] = np.zeros(classes, np.int64)
    for plane in labels:
        counts += np.bincount(plane.ravel(), minlength=classes)[:classes]
    return [int(count) for count in counts]
