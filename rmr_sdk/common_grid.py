"""The common grid of a study, and where every scan lies on it.

Owns when two grids count as one, which grid is the common one, and the order of headers and alignment; how a contrast
is aligned is align.py's. It moves affines, never voxels.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

from rmr_sdk.align import Align, Alignment, AlignmentTask, align_contrast
from rmr_sdk.errors import GeometryError
from rmr_sdk.geometry import Grid
from rmr_sdk.scan import Scan
from rmr_sdk.similarity import reduce_volume
from rmr_sdk.study import naming

if TYPE_CHECKING:
    from rmr_sdk.manifest import Manifest

_SAME_PLACE = 0.01  # of a voxel: grids closer than this are one, since interpolation would cost more than it corrects
_ROUNDING_MM = 1e-4  # of spacings in headers


def choose_grid(native: Grid, manifest: Manifest) -> Grid:
    """Return the reference's grid itself where its spacing suits the manifest, else its field of view in other voxels.

    Axis by axis: a suitable spacing stays; thick slices are divided into whole parts of suitable spacing, so that each
    acquired slice is a slice of the common grid; anything else gets the manifest's spacing.
    """
    parts = [_parts(own, wanted, manifest) for own, wanted in zip(native.spacing_mm, manifest.spacing_mm, strict=True)]
    divided = native if max(parts) <= 1 else native.subdivided([max(part, 1) for part in parts])
    if min(parts) > 0:
        return divided
    kept = zip(parts, divided.spacing_mm, manifest.spacing_mm, strict=True)
    return divided.respaced([own if part else wanted for part, own, wanted in kept])


def _parts(own_mm: float, wanted_mm: float, manifest: Manifest) -> int:
    """Return how many parts of suitable spacing a voxel has along an axis; 0 where no whole number suits."""
    parts = max(round(own_mm / wanted_mm), 1)
    apart = abs(own_mm / parts - wanted_mm)
    return parts if apart <= manifest.spacing_tolerance * wanted_mm + _ROUNDING_MM else 0


def place_scans(
    scans: Mapping[str, Scan],
    reference: str,
    grid: Grid,
    align: Align,
    frames: Mapping[str, str] | None,
    threads: int,
) -> tuple[dict[str, Scan], tuple[Alignment, ...], list[str]]:
    """Decide where every scan but the reference lies.

    Args:
        scans: Contrast -> its scan, where its header puts it.
        reference: The contrast that stays.
        grid: The common grid.
        align: As `rmr_sdk.preprocess.prepare`.
        frames: Contrast -> token of its frame of reference, where the files say.
        threads: Threads that search; nothing depends on them but time.

    Returns:
        The scans where they lie, how each but the reference came there, and what the reader should know.

    Raises:
        StudyError, GeometryError: As `rmr_sdk.align.align_contrast`; or a scan does not overlap the reference, or is
            on another grid with "none".
    """
    placed, alignments, warnings = dict(scans), [], []
    frames = frames or {}
    for contrast, scan in scans.items():
        if contrast == reference:
            continue
        task = AlignmentTask(
            contrast=contrast,
            reference=reference,
            align=align,
            frames_differ=len({frames[name] for name in (contrast, reference) if name in frames}) == 2,
            same_grid=same_place(scan.grid, grid),
            threads=threads,
        )
        with naming(contrast):
            alignment, odd = _place(task, scan, scans[reference])
        placed[contrast] = scan if alignment.method != "rigid" else scan.moved(alignment.matrix)
        alignments.append(alignment)
        warnings += [f"{contrast}: {each}" for each in odd]
    return placed, tuple(alignments), warnings


def _place(task: AlignmentTask, scan: Scan, reference: Scan) -> tuple[Alignment, list[str]]:
    if task.align == "none":
        if not same_place(scan.grid, reference.grid):
            raise GeometryError(
                f'it is on another grid than the reference "{task.reference}", and align="none" does not resample.',
                'Resample it beforehand, or use align="header".',
            )
        return task.stay("none", "as asked, nothing was checked: both are on one grid"), []
    if not task.frames_differ:
        checked_coverage(scan.grid, reference.grid, task.reference)
    if task.align == "header":
        return task.stay("header", "as asked, its header was taken at its word"), []
    return align_contrast(task, *(reduce_volume(each.array, each.grid) for each in (reference, scan)))


def checked_coverage(own: Grid, grid: Grid, reference: str) -> float:
    """Return the share of the common grid that a contrast covers.

    Raises:
        GeometryError: It covers nothing.
    """
    if same_place(own, grid):
        return 1.0
    coverage = own.coverage_of(grid)
    if coverage == 0:
        raise GeometryError(
            f'it does not overlap the reference "{reference}" in space.',
            "Check that all contrasts are of one session and that their affines are right.",
        )
    return coverage


def same_place(grid: Grid, other: Grid) -> bool:
    """Tell whether two grids put every voxel at the same place, to a hundredth of a voxel."""
    return grid.matches(other, _SAME_PLACE * min(other.spacing_mm))
