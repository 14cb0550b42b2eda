"""Measurements in millimetres and millilitres of a volume of labels: lesions and tissues. Counting is native."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from functools import lru_cache

import numpy as np
import numpy.typing as npt

from rmr_sdk.atlas import Placement
from rmr_sdk.atlas.fit import fit_atlas
from rmr_sdk.geometry import Grid, reorient
from rmr_sdk.location import Place, TissueLabels, locate_lesions
from rmr_sdk.manifest import Manifest
from rmr_sdk.postprocess import Component, ComponentVoxels, bounding_box, components, count_labels
from rmr_sdk.result import Lesion
from rmr_sdk.volume import Volume

_DIRECTIONS = 150  # half a sphere of them: the farthest two voxels are among the extremes to within 1 %


def place_atlas(labels: Volume, manifest: Manifest) -> Placement | None:
    """Find the atlas of the head in a volume of labels; None where it has no tissue classes, or too little of them."""
    tissue = TissueLabels.of(manifest.classes or (), manifest.lesion_class or "")
    if tissue is None:
        return None
    axes = reorient(labels.grid, manifest.orientation)
    turned = np.ascontiguousarray(axes.apply(labels.data))
    return fit_atlas(turned, axes.grid, (tissue.white_matter, tissue.lesion), (tissue.grey_matter,))


def find_lesions(
    labels: Volume,
    probability: Volume,
    manifest: Manifest,
    placement: Placement | None = None,
    threads: int = 1,
) -> tuple[Lesion, ...]:
    """Return the connected lesions of a volume of labels, largest first, with their size and their place.

    They are numbered in the manifest's orientation, so that a flipped input numbers them alike.

    Args:
        labels: On the reference's own grid.
        probability: Lesion probability on the same grid.
        manifest: Names the classes, has a lesion class, and gives the orientation.
        placement: Where the atlas of the head lies; without one that fits, the lesions have no place.
        threads: Threads that may look for their place.
    """
    classes, lesion_class = manifest.classes or (), manifest.lesion_class or ""
    axes = reorient(labels.grid, manifest.orientation)
    turned = np.ascontiguousarray(axes.apply(labels.data))
    found, voxels = _count_lesions(turned == classes.index(lesion_class), axes.apply(probability.data))
    if not found:
        return ()
    tissue = TissueLabels.of(classes, lesion_class)
    places: tuple[Place | None, ...] = (None,) * len(found)
    if tissue is not None and placement is not None and placement.fits:
        places = locate_lesions(turned, axes.grid, voxels, tissue, placement, threads)
    return tuple(
        Lesion(
            id=lesion.id,
            volume_ml=lesion.voxels * axes.grid.voxel_ml,
            diameter_mm=measure_diameter(index, axes.grid),
            centroid_mm=_point(axes.grid.world(lesion.centroid)),
            mean_probability=float(lesion.mean_probability or 0.0),
            voxels=lesion.voxels,
            location=None if place is None else place.location,
            reaches_cortex=place is not None and place.reaches_cortex,
        )
        for lesion, index, place in zip(found, voxels, places, strict=True)
    )


def _count_lesions(
    mask: npt.NDArray[np.bool_], probability: npt.NDArray[np.float32]
) -> tuple[list[Component], ComponentVoxels]:
    """Return the components of a mask and their voxels, looking at the box around it alone."""
    box = bounding_box(mask)
    if box is None:
        return [], ComponentVoxels(np.empty((0, 3), np.intp), np.empty(0, np.intp))
    origin = np.array([side.start for side in box])
    inside = np.ascontiguousarray(mask[box])
    ids = np.empty(inside.shape, np.int32)
    found = components(inside, 1, np.ascontiguousarray(probability[box]), ids)
    moved = [replace(each, centroid=_point(origin + each.centroid)) for each in found]
    return moved, ComponentVoxels.of(ids, origin)


def measure_diameter(index: npt.NDArray[np.intp], grid: Grid) -> float:
    """Return the greatest extent in mm of some voxels, in any direction.

    It is the distance of the two voxel centres farthest apart and, at the ends, half a voxel each along that line: a
    row of n voxels measures n voxels.

    Args:
        index: (n, 3) voxel indices, at least one.
        grid: Where they lie.
    """
    if len(index) == 1:
        return max(grid.spacing_mm)
    edges = grid.affine[:3, :3]
    points = index[_row_ends(index)] @ edges.T
    along = points @ _directions()
    ends = points[np.unique([along.argmin(axis=0), along.argmax(axis=0)])]
    apart = ends[:, None] - ends
    lengths = np.linalg.norm(apart, axis=-1)
    pair = np.unravel_index(lengths.argmax(), lengths.shape)
    line = apart[pair] / lengths[pair]
    return float(lengths[pair] + np.linalg.norm(line @ edges))


def _row_ends(index: npt.NDArray[np.intp]) -> npt.NDArray[np.bool_]:
    """Mark the first and the last voxel of each run along the last axis: no other can be farthest in any direction."""
    starts = np.ones(len(index) + 1, bool)
    starts[1:-1] = (np.diff(index[:, :2], axis=0) != 0).any(axis=1)
    ends: npt.NDArray[np.bool_] = starts[:-1] | starts[1:]
    return ends


@lru_cache(maxsize=1)
def _directions() -> npt.NDArray[np.float64]:
    """Return (3, n) unit vectors spread evenly over half a sphere: a spiral of golden angles."""
    steps = np.arange(_DIRECTIONS)
    z = (steps + 0.5) / _DIRECTIONS
    angle = steps * np.pi * (3 - np.sqrt(5))
    radius = np.sqrt(1 - z**2)
    return np.stack([radius * np.cos(angle), radius * np.sin(angle), z])


def measure_tissue(labels: Volume, manifest: Manifest) -> Mapping[str, float]:
    """Return the volume in ml of every class but the background and the lesions."""
    classes = manifest.classes or ()
    counts = count_labels(labels.data, len(classes))
    voxel_ml = labels.grid.voxel_ml
    return {
        name: count * voxel_ml
        for name, count in zip(classes[1:], counts[1:], strict=True)
        if name != manifest.lesion_class
    }


def _point(values: npt.NDArray[np.float64]) -> tuple[float, float, float]:
    x, y, z = (float(value) for value in values)
    return x, y, z
