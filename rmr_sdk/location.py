"""Where in the brain lesions are: periventricular, juxtacortical, infratentorial, or deep in the white matter.

The names are those of the regions in which the McDonald criteria of 2017 look for dissemination in space (Thompson et
al., Lancet Neurology 17, 2018), read as the MAGNIMS guidelines of 2019 do (Filippi et al., Brain 142, 2019): a
periventricular lesion is in contact with a lateral ventricle, a juxtacortical one with the cortex, an infratentorial
one lies in brainstem, cerebellar peduncles or cerebellum. What counts as ventricle, cortex and infratentorial comes
from the tissue labels and the zones of the atlas; docs/report.md states the rule and its limits.

Distances are between the boxes of voxels, so that neighbours are 0 mm apart however thick the slices are.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from rmr_sdk.atlas import BRAIN, INFRATENTORIAL, VENTRICLE, Placement
from rmr_sdk.geometry import Grid
from rmr_sdk.postprocess import ComponentVoxels, bounding_box, components

INFRATENTORIAL_LESION = "infratentorial"
PERIVENTRICULAR = "periventricular"
JUXTACORTICAL = "juxtacortical"
DEEP_WHITE = "deep white matter"
OUTSIDE = "outside the brain"
LOCATIONS = (PERIVENTRICULAR, JUXTACORTICAL, INFRATENTORIAL_LESION, DEEP_WHITE, OUTSIDE)
"""In the order of a report."""

VENTRICLE_MM = 1.0
"""A lesion this near a ventricle is in contact with it: the wall between is one voxel of mixed signal at 1 mm."""

CORTEX_MM = 4.5
"""Grey matter this near the fluid outside is cortex: it is 1 to 4.5 mm thick (Fischl and Dale, PNAS 97, 2000)."""

LEAST_VENTRICLE_ML = 0.2
"""Least fluid that is a ventricle, or a part of one, and not a hole in a lesion or the space around a vessel."""

RULE = (
    "Infratentorial: more than half of it lies below the tentorium. Otherwise periventricular: within "
    f"{VENTRICLE_MM:g} mm of a lateral ventricle. Otherwise juxtacortical: touches the cortex. Otherwise deep white "
    "matter. Outside the brain, which no lesion is: more than half of it lies over 6 mm outside. Names after McDonald "
    "2017 (Thompson et al., Lancet Neurol 2018), read as in Filippi et al., Brain 2019; found by computer from the "
    "tissue labels and an atlas, not confirmed by a reader."
)
"""The rule in words, for reports."""

_MARGIN_MM = 10.0  # around the lesions: enough of a ventricle to see that it is one

BoolArray = npt.NDArray[np.bool_]
Index = npt.NDArray[np.intp]


@dataclass(frozen=True, slots=True)
class TissueLabels:
    """Which label is which tissue."""

    csf: int
    grey_matter: int
    white_matter: int
    lesion: int

    @classmethod
    def of(cls, classes: Sequence[str], lesion_class: str) -> TissueLabels | None:
        """Find the labels among class names; None where a tissue is missing."""
        names = ("csf", "grey_matter", "white_matter", lesion_class)
        return cls(*(classes.index(name) for name in names)) if set(names) <= set(classes) else None


@dataclass(frozen=True, slots=True)
class Place:
    """Where one lesion is.

    Attributes:
        location: One of `LOCATIONS`.
        reaches_cortex: Whether it touches the cortex, whatever else it touches; False below the tentorium.
    """

    location: str
    reaches_cortex: bool


def locate_lesions(
    labels: npt.NDArray[np.uint8],
    grid: Grid,
    lesions: ComponentVoxels,
    tissue: TissueLabels,
    placement: Placement,
    threads: int = 1,
) -> tuple[Place, ...]:
    """Name the place of every lesion.

    Args:
        labels: (D, H, W), C-contiguous.
        grid: Where they lie.
        lesions: Voxels of at least one lesion.
        tissue: Which label is which.
        placement: Where the atlas lies; it fits.
        threads: Threads that may look up the zones.
    """
    low, crop = _crop(grid, lesions.index)
    near = labels[crop]
    zones = placement.zones(_grid_at(grid, low, near.shape), threads)
    index = lesions.index - low
    fluid, nowhere = (near == tissue.csf) | (near == 0), (zones & ~np.uint8(BRAIN)) == 0

    outside = lesions.share(_bits_at(zones, index, BRAIN)) < 0.5
    below = lesions.share(_bits_at(zones, index, INFRATENTORIAL)) > 0.5
    ventricle = _without_specks(fluid & _has(zones, VENTRICLE), LEAST_VENTRICLE_ML / grid.voxel_ml)
    beside_ventricle = lesions.any(_touching(ventricle, index, _offsets(grid.spacing_mm, VENTRICLE_MM)))
    cortex = _cortex_beside(index, (near == tissue.grey_matter) & nowhere, fluid & nowhere, grid)
    beside_cortex = lesions.any(_touching(cortex, index, _offsets(grid.spacing_mm, 0.0))) & ~below & ~outside
    names = np.select(
        [outside, below, beside_ventricle, beside_cortex],
        [OUTSIDE, INFRATENTORIAL_LESION, PERIVENTRICULAR, JUXTACORTICAL],
        DEEP_WHITE,
    )
    return tuple(Place(str(name), bool(cortical)) for name, cortical in zip(names, beside_cortex, strict=True))


def _cortex_beside(index: Index, grey: BoolArray, outside: BoolArray, grid: Grid) -> BoolArray:
    """Mark the voxels of cortex among the neighbours of some voxels: grey, with outer fluid near."""
    candidate = np.zeros(grey.shape, bool)
    for offset in _offsets(grid.spacing_mm, 0.0):
        beside = index + offset
        beside = beside[((beside >= 0) & (beside < grey.shape)).all(axis=1)]
        candidate[tuple(beside.T)] = True
    candidate &= grey
    found = np.argwhere(candidate)
    found = found[_touching(outside, found, _offsets(grid.spacing_mm, CORTEX_MM))]
    candidate[:] = False
    candidate[tuple(found.T)] = True
    return candidate


def _touching(mask: BoolArray, index: Index, offsets: Sequence[tuple[int, int, int]]) -> BoolArray:
    """Tell for each voxel of `index` whether the mask is set at any of the offsets; beyond its edge it is not."""
    reach = np.abs(offsets).max(axis=0)
    padded = np.pad(mask, [(side, side) for side in reach])
    strides = np.array([padded.shape[1] * padded.shape[2], padded.shape[2], 1])
    flat, rows = padded.ravel(), (index + reach) @ strides
    touching = np.zeros(len(index), bool)
    open_rows = np.arange(len(index))
    for offset in offsets:
        hit = flat[rows[open_rows] + int(np.dot(offset, strides))]
        touching[open_rows[hit]] = True
        open_rows = open_rows[~hit]
    return touching


def _offsets(spacing_mm: Sequence[float], reach_mm: float) -> list[tuple[int, int, int]]:
    """Return the offsets of all voxels whose boxes are at most `reach_mm` from that of the centre, nearest first."""
    sides = [range(-count, count + 1) for count in (int(reach_mm / spacing) + 1 for spacing in spacing_mm)]
    within = []
    for d, h, w in itertools.product(*sides):
        gap_mm = float(np.linalg.norm(np.maximum(np.abs((d, h, w)) - 1, 0) * spacing_mm))
        if gap_mm <= reach_mm + 1e-6:
            within.append((float(np.linalg.norm(np.multiply((d, h, w), spacing_mm))), (d, h, w)))
    return [offset for _, offset in sorted(within)]


def _without_specks(mask: BoolArray, least_voxels: float) -> BoolArray:
    """Return a mask without its small components."""
    kept = np.zeros(mask.shape, bool)
    box = bounding_box(mask)
    if box is not None:
        part = np.ascontiguousarray(mask[box])
        ids = np.empty(part.shape, np.int32)
        large = sum(found.voxels >= least_voxels for found in components(part, ids=ids))  # the largest come first
        kept[box] = (ids > 0) & (ids <= large)
    return kept


def _crop(grid: Grid, index: Index) -> tuple[Index, tuple[slice, ...]]:
    """Return the first index and the slices of a box around voxels, with a margin."""
    margin = np.ceil(_MARGIN_MM / np.asarray(grid.spacing_mm)).astype(np.intp)
    low = np.maximum(index.min(axis=0) - margin, 0)
    high = np.minimum(index.max(axis=0) + 1 + margin, grid.shape)
    return low, tuple(slice(int(a), int(b)) for a, b in zip(low, high, strict=True))


def _grid_at(grid: Grid, low: Index, shape: tuple[int, ...]) -> Grid:
    affine = grid.affine.copy()
    affine[:3, 3] = grid.world(low)
    return Grid((shape[0], shape[1], shape[2]), affine)


def _has(zones: npt.NDArray[np.uint8], bit: int) -> BoolArray:
    return (zones & np.uint8(bit)) > 0


def _bits_at(zones: npt.NDArray[np.uint8], index: Index, bit: int) -> BoolArray:
    return _has(zones[tuple(index.T)], bit)
