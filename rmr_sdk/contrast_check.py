"""Whether T1w and FLAIR are what they are called: evidence from the brain itself.

    tissue bright in both -> its largest thick part: the brain -> depth of every voxel below its surface

White matter lies deep, grey matter at the rim. On T1 white matter is the brighter one, so T1 rises from the rim
inward; on FLAIR grey matter is as bright or brighter, so FLAIR falls. How much more T1 rises than FLAIR tells which is
which, whatever their units, and with a head as well as with a brain alone. It warns and refuses nothing: disease and
age change contrasts. docs/alignment.md has the measurements.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from rmr_sdk.geometry import Grid
from rmr_sdk.postprocess import components
from rmr_sdk.similarity import Reduced, reduce_volume

BoolArray = npt.NDArray[np.bool_]

_CENTRE_MM = 30.0  # from the centre of the head: brain, whatever else is in the field of view
_TISSUE = 0.6  # of the median at the centre: fluid, bone and air are darker in one contrast or both
_RIM, _DEEP, _CORE = 2, 4, 3  # steps of about 2 mm below the surface; the outermost step is half fluid
_LEAST_BRAIN_ML, _LEAST_VOXELS = 250.0, 500
_SWAPPED = 0.05  # real and simulated pairs have 0.11 to 0.43, and the same with the other sign when swapped
_ALIKE = 0.97  # correlation within the brain


@dataclass(frozen=True, slots=True)
class RimToDeep:
    """How brightness changes from the rim of the brain inward.

    Attributes:
        t1w: Logarithm of deep over rim, T1w.
        flair: The same of the FLAIR.
        correlation: Of both contrasts within the brain.
    """

    t1w: float
    flair: float
    correlation: float


def check_contrasts(arrays: Mapping[str, npt.NDArray[Any]], grid: Grid) -> list[str]:
    """Say where T1w and FLAIR seem to be swapped, or to be one image.

    Args:
        arrays: Contrast -> voxels on `grid`; other contrasts than T1w and FLAIR are left alone.
        grid: The common grid.
    """
    if not {"T1w", "FLAIR"} <= set(arrays):
        return []
    change = measure_change(*(reduce_volume(arrays[name], grid) for name in ("T1w", "FLAIR")))
    if change is None:
        return []
    if change.correlation > _ALIKE:
        return [f"T1w and FLAIR look like one image: their correlation within the brain is {change.correlation:.3f}"]
    if change.t1w - change.flair < -_SWAPPED:
        deep = ", ".join(
            f"{np.expm1(value):+.0%} on the volume given as {name}"
            for name, value in (("T1w", change.t1w), ("FLAIR", change.flair))
        )
        return [
            "T1w and FLAIR look swapped: white matter is brighter than grey matter on T1, but from the rim of the brain"
            f" inward brightness changes by {deep}"
        ]
    return []


def measure_change(t1w: Reduced, flair: Reduced) -> RimToDeep | None:
    """Measure how both contrasts change from the rim of the brain inward.

    Args:
        t1w: The volume given as T1w.
        flair: The volume given as FLAIR, on the same grid.

    Returns:
        None where no brain was found.
    """
    tissue = _tissue(t1w, flair)
    if tissue is None:
        return None
    depth = _depth(tissue)
    brain = _largest(depth >= _CORE)
    for _ in range(_CORE):
        brain = _grown(brain) & tissue
    rim, deep = brain & (depth == _RIM), brain & (depth >= _DEEP)
    enough = int(brain.sum()) * t1w.grid.voxel_ml >= _LEAST_BRAIN_ML
    if not enough or min(int(rim.sum()), int(deep.sum())) < _LEAST_VOXELS:
        return None
    changes = [float(np.log(np.median(level[deep]) / np.median(level[rim]))) for level in (t1w.level, flair.level)]
    correlation = float(np.corrcoef(t1w.level[brain], flair.level[brain])[0, 1])
    return RimToDeep(changes[0], changes[1], correlation)


def _tissue(first: Reduced, second: Reduced) -> BoolArray | None:
    """Return what is nowhere dark, compared with the middle of the head."""
    head = first.head & second.head
    if not head.any():
        return None
    spacing = np.asarray(first.grid.spacing_mm)
    centre, reach = np.argwhere(head).mean(axis=0), _CENTRE_MM / spacing
    middle = tuple(slice(max(int(a - b), 0), int(a + b) + 1) for a, b in zip(centre, reach, strict=True))
    if not head[middle].any():
        return None
    bars = [_TISSUE * float(np.median(each.level[middle][head[middle]])) for each in (first, second)]
    return head & (first.level > bars[0]) & (second.level > bars[1])


def _depth(mask: BoolArray) -> npt.NDArray[np.uint8]:
    """Return how many steps each voxel is below the surface, up to `_DEEP`; 0 outside."""
    depth = mask.astype(np.uint8)
    for _ in range(_DEEP - 1):
        mask = ~_grown(~mask)
        depth += mask
    return depth


def _grown(mask: BoolArray) -> BoolArray:
    """Return a mask grown by one voxel across faces; beyond the volume nothing is known, so nothing grows in."""
    grown = mask.copy()
    for axis in range(3):
        inner, outer = np.moveaxis(mask, axis, 0), np.moveaxis(grown, axis, 0)
        outer[1:] |= inner[:-1]
        outer[:-1] |= inner[1:]
    return grown


def _largest(mask: BoolArray) -> BoolArray:
    ids = np.zeros(mask.shape, np.int32)
    components(np.ascontiguousarray(mask), ids=ids)
    largest: BoolArray = ids == 1
    return largest
