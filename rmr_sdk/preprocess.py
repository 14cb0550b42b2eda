"""From a study to what the network sees, and back: the common grid, alignment, intensity maps.

    study -> scans, checked -> aligned -> one grid in the manifest's orientation -> intensity maps -> Prepared
    volumes of the network on the common grid -> restore_image, restore_labels -> the reference's own grid

Where the grids agree and the spacing suits the manifest, every array is a view of the study's own voxels. The rules
are in docs/coordinates.md and docs/alignment.md; intensities themselves are mapped by the native tile extraction.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, get_args

import numpy as np
import numpy.typing as npt

from rmr_sdk.align import Align, Alignment, check_extra
from rmr_sdk.brain_mask import keep_brain, mask_on_grid
from rmr_sdk.common_grid import checked_coverage, choose_grid, place_scans, same_place
from rmr_sdk.contrast_check import check_contrasts
from rmr_sdk.errors import ConfigError
from rmr_sdk.geometry import AxisMap, Grid
from rmr_sdk.intensity import IntensityMap, fit_normalisation
from rmr_sdk.resample import Interpolation, image_mode, resample
from rmr_sdk.scan import NonFinite, Scan, take_scan
from rmr_sdk.study import Study, naming
from rmr_sdk.volume import Volume

if TYPE_CHECKING:
    from rmr_sdk.manifest import Manifest

__all__ = [
    "Align",
    "IntensityMap",
    "NonFinite",
    "Prepared",
    "fit_normalisation",
    "prepare",
    "restore_image",
    "restore_labels",
]

_FULL_COVERAGE = 0.95  # of the reference's field of view; less is worth a warning


@dataclass(frozen=True, slots=True, eq=False)
class Prepared:
    """A study on one grid, in the manifest's orientation.

    Attributes:
        arrays: Contrast -> (D, H, W) array on `grid`, of a kernel dtype and any strides; a view of the study's own
            voxels where nothing was resampled.
        intensity: Contrast -> map from its intensities to the network's; its `floor` says what is foreground.
        grid: The common grid.
        reference: The contrast whose grid results come back on.
        axes: From the reference's own grid to the manifest's orientation.
        resampled: Whether `grid` is another grid than `axes.grid`, so that results must be resampled too.
        actions: What was done to the contrasts, in order.
        warnings: What the reader of the result should know.
        threads: Threads that resampling may use.
        alignments: How every contrast but the reference came to lie where it lies.
        brain: Where the brain mask of the caller is on `grid`; None without one.
        scans: Contrast -> what its array was made of: a device interpolates on the fly (device_tiles.py).
    """

    arrays: Mapping[str, npt.NDArray[Any]]
    intensity: Mapping[str, IntensityMap]
    grid: Grid
    reference: str
    axes: AxisMap
    resampled: bool
    actions: tuple[str, ...]
    warnings: tuple[str, ...]
    threads: int
    alignments: tuple[Alignment, ...] = ()
    brain: npt.NDArray[np.bool_] | None = None
    scans: Mapping[str, Scan] = field(default_factory=dict)


def prepare(
    study: Study,
    manifest: Manifest,
    *,
    reference: str | None = None,
    align: Align = "auto",
    non_finite: NonFinite = "error",
    brain_mask: Volume | None = None,
    threads: int = 1,
) -> Prepared:
    """Check a study and bring its contrasts onto one grid in the manifest's orientation and spacing.

    Args:
        study: Holds at least the contrasts of the manifest.
        manifest: Says which contrasts, orientation, spacing and normalisation the network was trained with.
        reference: The contrast whose grid results come back on; by default the manifest's.
        align: "auto" registers a contrast rigidly where its header and what it shows disagree, "rigid" always,
            "header" never; "none" refuses contrasts on different grids.
        non_finite: "error" refuses NaN and infinite voxels, "zero" takes them as background.
        brain_mask: Where the brain is, not 0; elsewhere every contrast is taken as 0, and no tile is computed.
        threads: Threads that resampling and alignment may use; nothing depends on them but time.

    Raises:
        ConfigError: An option has an unknown value, or is "rigid" without the extra `align`.
        StudyError: A contrast is missing, constant, without a positive voxel, of another head, or holds NaN or infinite
            voxels; or the brain mask is empty.
        GeometryError: A contrast does not overlap the reference, is on another grid with "none", matches too far from
            its header's position, or its spacing or its field of view cannot be that of a head; or the brain mask does
            not overlap the study.
    """
    reference = _checked_options(manifest, reference, align, non_finite)
    study.require(manifest.contrasts)
    scans, warnings = _take_scans(study, manifest, non_finite)
    axes = scans[reference].axes
    grid = choose_grid(axes.grid, manifest)
    actions = [] if grid is axes.grid else [f"common grid: {grid}, over the field of view of the {reference}"]
    scans, alignments, unaligned = place_scans(scans, reference, grid, align, study.frames, threads)
    warnings += unaligned
    brain = None if brain_mask is None else mask_on_grid(brain_mask, grid, manifest.orientation, threads)

    arrays, intensity = {}, {}
    for contrast, scan in scans.items():
        with naming(contrast):
            warnings += _coverage_warnings(contrast, checked_coverage(scan.grid, grid, reference), reference)
            array, action = _bring_to(grid, scan, threads)
            arrays[contrast] = array if brain is None else keep_brain(array, brain)
            intensity[contrast] = fit_normalisation(arrays[contrast], manifest.normalisation)
        moved = "".join(each.action for each in alignments if each.contrast == contrast)
        actions.append(f"{contrast}: {moved}{action}{_stretched(intensity[contrast])}")
    warnings += check_contrasts(arrays, grid)
    return Prepared(
        arrays=arrays,
        intensity=intensity,
        grid=grid,
        reference=reference,
        axes=axes,
        resampled=grid is not axes.grid,
        actions=tuple(actions if brain is None else [*actions, "voxels outside the brain mask taken as background"]),
        warnings=tuple(warnings),
        threads=threads,
        alignments=alignments,
        brain=brain,
        scans=scans,
    )


def restore_image(prepared: Prepared, array: npt.NDArray[Any]) -> Volume:
    """Return intensities or probabilities on the reference's own grid, interpolated linearly.

    Args:
        prepared: What the network saw.
        array: (D, H, W) on the common grid, of a kernel dtype; where nothing was resampled the volume is a view of it.
    """
    return _restore(prepared, array, "linear")


def restore_labels(prepared: Prepared, labels: npt.NDArray[np.uint8]) -> Volume:
    """Return labels on the reference's own grid: each voxel takes the label of the nearest voxel of the common grid.

    No class can appear between two others, and small lesions stay: interpolating one map per class instead erodes
    what is one or two voxels wide (measured in docs/coordinates.md).

    Args:
        prepared: What the network saw.
        labels: (D, H, W) on the common grid; where nothing was resampled the volume is a view of it.
    """
    return _restore(prepared, labels, "nearest")


def _restore(prepared: Prepared, array: npt.NDArray[Any], mode: Interpolation) -> Volume:
    if prepared.resampled:
        array = resample(array, prepared.grid, prepared.axes.grid, mode, prepared.threads)
    return Volume(prepared.axes.invert(array), prepared.axes.source.affine)


def _checked_options(manifest: Manifest, reference: str | None, align: str, non_finite: str) -> str:
    """Refuse unknown options; return the reference contrast."""
    _check_choice("align", align, get_args(Align))
    _check_choice("non_finite", non_finite, get_args(NonFinite))
    check_extra(align)
    if reference is None:
        return manifest.reference
    _check_choice("reference", reference, manifest.contrasts)
    return reference


def _check_choice(option: str, value: str, choices: tuple[str, ...]) -> None:
    if value not in choices:
        quoted = ", ".join(f'"{choice}"' for choice in choices)
        raise ConfigError(f'{option} is "{value}".', f"Choose one of {quoted}.", option=option, value=value)


def _take_scans(study: Study, manifest: Manifest, non_finite: NonFinite) -> tuple[dict[str, Scan], list[str]]:
    scans, warnings = {}, list(study.warnings)
    for contrast in manifest.contrasts:
        with naming(contrast):
            scans[contrast] = take_scan(study[contrast], manifest.orientation, non_finite)
        warnings += [f"{contrast}: {odd}" for odd in scans[contrast].odd]
    return scans, warnings


def _bring_to(grid: Grid, scan: Scan, threads: int) -> tuple[npt.NDArray[Any], str]:
    """Return the voxels of a contrast on the common grid, and how they got there."""
    source = scan.axes.source
    if same_place(scan.grid, grid):
        return scan.array, f"axes {source.orientation} taken as {grid.orientation}, no voxel resampled"
    mode = image_mode(scan.grid, grid)
    return resample(scan.array, scan.grid, grid, mode, threads), f"resampled ({mode}) from {source}"


def _stretched(line: IntensityMap) -> str:
    return f", flat: its contrast stretched by a factor of {line.scale * line.gain:.2f}" if line.stretch else ""


def _coverage_warnings(contrast: str, coverage: float, reference: str) -> list[str]:
    if coverage >= _FULL_COVERAGE:
        return []
    return [
        f"{contrast}: covers {coverage:.0%} of the field of view of the {reference}; the rest was taken as background"
    ]
