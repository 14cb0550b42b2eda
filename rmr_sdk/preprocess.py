"""From a study to what the network sees, and back: checks, the common grid, intensity maps.

    study -> finite, varying voxels -> one grid in the manifest's orientation -> intensity maps -> Prepared
    volumes of the network on the common grid -> restore_image, restore_labels -> the reference's own grid

Where the grids agree and the spacing suits the manifest, every array is a view of the study's own voxels. The rules
are in docs/coordinates.md; intensities themselves are mapped by the native tile extraction.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal, TypeAlias, get_args

import numpy as np
import numpy.typing as npt

from rmr_sdk.errors import ConfigError, GeometryError, StudyError
from rmr_sdk.geometry import AxisMap, Grid, reorient
from rmr_sdk.intensity import IntensityMap, fit_normalisation
from rmr_sdk.resample import Interpolation, image_mode, resample
from rmr_sdk.study import Study, naming
from rmr_sdk.volume import Volume, to_kernel_dtype

if TYPE_CHECKING:
    from rmr_sdk.manifest import Manifest

__all__ = ["IntensityMap", "Prepared", "fit_normalisation", "prepare", "restore_image", "restore_labels"]

Align: TypeAlias = Literal["auto", "header", "rigid", "none"]
NonFinite: TypeAlias = Literal["error", "zero"]

_SAME_PLACE = 0.01  # of a voxel: grids closer than this are one, since interpolation would cost more than it corrects
_ROUNDING_MM = 1e-4  # of spacings in headers
_SPACING_MM = (0.1, 25.0)  # of scans of a head; beyond it the unit of the affine is wrong
_FIELD_MM = 1000.0  # longest side of a scan of a head; beyond it the unit of the affine is wrong
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
        actions: What was done to the geometry, in order.
        warnings: What the reader of the result should know.
        threads: Threads that resampling may use.
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


def prepare(
    study: Study,
    manifest: Manifest,
    *,
    reference: str | None = None,
    align: Align = "auto",
    non_finite: NonFinite = "error",
    threads: int = 1,
) -> Prepared:
    """Check a study and bring its contrasts onto one grid in the manifest's orientation and spacing.

    Args:
        study: Holds at least the contrasts of the manifest.
        manifest: Says which contrasts, orientation, spacing and normalisation the network was trained with.
        reference: The contrast whose grid results come back on; by default the manifest's.
        align: "auto" and "header" bring contrasts together through their affines, "none" refuses contrasts on
            different grids.
        non_finite: "error" refuses NaN and infinite voxels, "zero" takes them as background.
        threads: Threads that resampling may use; nothing depends on them but time.

    Raises:
        ConfigError: An option has an unknown value, or is "rigid", which is not there yet.
        StudyError: A contrast is missing, constant, without a positive voxel, or holds NaN or infinite voxels.
        GeometryError: A contrast does not overlap the reference, is on another grid with "none", or its spacing
            or its field of view cannot be that of a head.
    """
    reference = _checked_options(manifest, reference, align, non_finite)
    study.require(manifest.contrasts)
    axes = reorient(study[reference].grid, manifest.orientation)
    grid = _common_grid(axes.grid, manifest)
    actions = [] if grid is axes.grid else [f"common grid: {grid}, over the field of view of the {reference}"]
    warnings = list(study.warnings)

    arrays, intensity = {}, {}
    for contrast in manifest.contrasts:
        with naming(contrast):
            volume = study[contrast]
            own = reorient(_checked_size(volume.grid), manifest.orientation)
            if align == "none":
                _check_same_grid(own.grid, axes.grid, reference)
            voxels, odd = _finite_voxels(volume, non_finite)
            coverage = _checked_coverage(own.grid, grid, reference)
            arrays[contrast], action = _bring_to(grid, own, voxels, threads)
            intensity[contrast] = fit_normalisation(arrays[contrast], manifest.normalisation)
        actions.append(f"{contrast}: {action}")
        warnings += [f"{contrast}: {warning}" for warning in (*odd, *_coverage_warnings(coverage, reference))]
    return Prepared(
        arrays=arrays,
        intensity=intensity,
        grid=grid,
        reference=reference,
        axes=axes,
        resampled=grid is not axes.grid,
        actions=tuple(actions),
        warnings=tuple(warnings),
        threads=threads,
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
    if align == "rigid":
        raise ConfigError(
            "rigid alignment needs the extra `align`, which this version does not offer yet.",
            'Align the contrasts beforehand, or use align="header".',
            option="align",
            value=align,
        )
    if reference is None:
        return manifest.reference
    _check_choice("reference", reference, manifest.contrasts)
    return reference


def _check_choice(option: str, value: str, choices: tuple[str, ...]) -> None:
    if value not in choices:
        quoted = ", ".join(f'"{choice}"' for choice in choices)
        raise ConfigError(f'{option} is "{value}".', f"Choose one of {quoted}.", option=option, value=value)


def _checked_size(grid: Grid) -> Grid:
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
    return grid


def _check_same_grid(grid: Grid, reference_grid: Grid, reference: str) -> None:
    if not _same_place(grid, reference_grid):
        raise GeometryError(
            f'it is on another grid than the reference "{reference}", and align="none" does not resample.',
            'Resample it beforehand, or use align="header".',
        )


def _finite_voxels(volume: Volume, non_finite: NonFinite) -> tuple[npt.NDArray[Any], list[str]]:
    """Return voxels of a kernel dtype, all finite and not all the same, and what was odd about them."""
    voxels, warnings = to_kernel_dtype(volume.data), []
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
        warnings.append(f"{count} voxels that are NaN or infinite were taken as background")
        voxels = np.where(finite, voxels, voxels.dtype.type(0))
        least, most = voxels.min(), voxels.max()
    if least == most:
        raise StudyError(f"every voxel is {least}.", "Check that this is the contrast it should be.")
    return voxels, warnings


def _common_grid(native: Grid, manifest: Manifest) -> Grid:
    """Return the reference's grid itself where its spacing suits the manifest, else its field of view respaced."""
    spacing = tuple(
        own if abs(own - wanted) <= manifest.spacing_tolerance * wanted + _ROUNDING_MM else wanted
        for own, wanted in zip(native.spacing_mm, manifest.spacing_mm, strict=True)
    )
    return native if spacing == native.spacing_mm else native.respaced(spacing)


def _checked_coverage(own: Grid, grid: Grid, reference: str) -> float:
    """Return the share of the common grid that a contrast covers."""
    if _same_place(own, grid):
        return 1.0
    coverage = own.coverage_of(grid)
    if coverage == 0:
        raise GeometryError(
            f'it does not overlap the reference "{reference}" in space.',
            "Check that all contrasts are of one session and that their affines are right.",
        )
    return coverage


def _bring_to(grid: Grid, own: AxisMap, voxels: npt.NDArray[Any], threads: int) -> tuple[npt.NDArray[Any], str]:
    """Return the voxels of a contrast on the common grid, and how they got there."""
    turned = own.apply(voxels)
    if _same_place(own.grid, grid):
        return turned, f"axes {own.source.orientation} taken as {grid.orientation}, no voxel resampled"
    mode = image_mode(own.grid, grid)
    return resample(turned, own.grid, grid, mode, threads), f"resampled ({mode}) from {own.source}"


def _same_place(grid: Grid, other: Grid) -> bool:
    return grid.matches(other, _SAME_PLACE * min(other.spacing_mm))


def _coverage_warnings(coverage: float, reference: str) -> list[str]:
    if coverage >= _FULL_COVERAGE:
        return []
    return [f"covers {coverage:.0%} of the field of view of the {reference}; the rest was taken as background"]
