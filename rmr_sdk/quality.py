"""Quality checks: what about a study should make a reader doubt its result. None of them stops a run.

Each check is one number against a limit and one sentence. docs/report.md says where the limits come from. Movement in
the plane of the slices is not judged: no measure of it held on heads without the air around them.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace

import numpy as np

from rmr_sdk.atlas import LEAST_SIMILARITY, Placement
from rmr_sdk.atlas.order import compare_orders
from rmr_sdk.geometry import Grid
from rmr_sdk.location import OUTSIDE, TissueLabels
from rmr_sdk.resample import resample
from rmr_sdk.result import Lesion, QualityCheck
from rmr_sdk.volume import Volume
from rmr_sdk.white_matter import LEAST_SAMPLES, BoolArray, WhiteMatter, slice_unevenness, white_over_noise

SLICE_MM = 3.0
"""Most length of a voxel: Wattjes et al., Lancet Neurology 20, 2021 (MAGNIMS, CMSC and NAIMS), for brain MRI in MS."""

CLIPPED_PERCENT = 0.1
"""Most voxels at the greatest value: 0.0001 in 9 real studies, a thousand times as much where a scanner clipped."""

LEAST_SNR = 10.0
"""Least white matter over noise. 9 real studies have 18 and more; below, added noise makes a third more lesions."""

UNEVEN_PERCENT = 3.0
"""Most change of white matter from slice to slice: 0.1 to 1.9 in 17 series, 4.9 in one with slices bright and dark."""

GREY_OVER_WHITE = {"T1w": (None, 0.95), "FLAIR": (0.93, None)}
"""Grey over white matter, least and most: 9 real studies have 0.70 to 0.90 in T1w and 1.00 to 1.16 in FLAIR."""

MOST_GAIN_BY_EXCHANGE, LEAST_LIKE_A_HEAD = 0.03, 0.5
"""Most that exchanging the names may gain in similarity, and least similarity of the better one. Without a segmentation
to help, 9 real studies lose 0.21 to 0.53 by it, and come to 0.59 to 0.95 as they are."""

LEAST_COVERAGE_PERCENT = 95.0
"""Least of the brain that must be in the field of view."""

BRAIN_ML = (700.0, 1700.0)
"""Grey and white matter of an adult: about 1130 ml in women, 1270 ml in men, deviation 110 (Allen et al., Am J Phys
Anthropol 118, 2002); four deviations wide, and lower for atrophy."""


@dataclass(frozen=True, slots=True, eq=False, kw_only=True)
class Examined:
    """What the checks look at.

    Attributes:
        contrasts: The contrasts as they were acquired, in the place where they belong.
        inputs: The contrasts on the reference's own grid.
        labels: On the reference's own grid; None without a segmentation.
        tissue: Which label is which; None where the classes are others.
        placement: Where the atlas lies; None where it could not be looked for.
        lesions: The lesions; None without a segmentation.
        threads: Threads that may resample.
        atlas: Where the atlas is sure of white and of grey matter, on the grid of the labels; None where it does not
            fit. `check_quality` looks it up.
    """

    contrasts: Mapping[str, Volume]
    inputs: Mapping[str, Volume] = field(default_factory=dict)
    labels: Volume | None = None
    tissue: TissueLabels | None = None
    placement: Placement | None = None
    lesions: tuple[Lesion, ...] | None = None
    threads: int = 1
    atlas: tuple[BoolArray, BoolArray] | None = None


def check_quality(examined: Examined) -> tuple[QualityCheck, ...]:
    """Run every check that the study allows; those that need tissue labels are left out without them."""
    examined = replace(examined, contrasts={name: _finite(volume) for name, volume in examined.contrasts.items()})
    placement, labels = examined.placement, examined.labels
    if placement is not None and placement.fits and labels is not None:
        examined = replace(examined, atlas=placement.tissue(labels.grid, examined.threads))
    return (*_check_contrasts(examined), *_check_anatomy(examined), *_check_lesions(examined))


def quality_warnings(checks: tuple[QualityCheck, ...]) -> tuple[str, ...]:
    """Return the sentences of the checks that warn."""
    return tuple(
        f"{check.contrast}: {check.sentence[0].lower()}{check.sentence[1:-1]}"
        if check.contrast
        else check.sentence[:-1]
        for check in checks
        if check.status == "warn"
    )


def _check_contrasts(examined: Examined) -> Iterator[QualityCheck]:
    placement = examined.placement if examined.placement is not None and examined.placement.fits else None
    white, seen = _surely_white(examined), None
    for name, volume in examined.contrasts.items():
        yield _check_voxels(name, volume.grid)
        yield _check_clipping(name, volume)
        if placement is not None:
            yield _check_coverage(name, placement.coverage(volume.grid))
        if white is not None:
            if seen is None or not seen.grid.matches(volume.grid):
                seen = WhiteMatter.of(_on(white, volume.grid, examined.threads), volume.grid)
            yield from _check_white(name, volume, seen)
    yield from _check_order(examined)


def _check_voxels(name: str, grid: Grid) -> QualityCheck:
    longest = round(max(grid.spacing_mm), 2)  # headers round
    return _check(
        "slice thickness",
        name,
        (longest, "mm"),
        most=SLICE_MM,
        ok="Slices are thin enough for small lesions",
        warn=f"Slices are {longest:.1f} mm thick: lesions smaller than that are missed or blurred",
    )


def _check_clipping(name: str, volume: Volume) -> QualityCheck:
    voxels = volume.data
    greatest, bright = voxels.max(), int(np.count_nonzero(voxels > 0))
    percent = 100.0 * int(np.count_nonzero(voxels == greatest)) / max(bright, 1)
    return _check(
        "clipped voxels",
        name,
        (percent, "%"),
        most=CLIPPED_PERCENT,
        ok="Bright voxels keep their differences",
        warn=f"{percent:.1f} % of the voxels have the greatest value: what is bright was clipped",
    )


def _check_coverage(name: str, share: float) -> QualityCheck:
    percent = 100.0 * share
    return _check(
        "brain in the field of view",
        name,
        (percent, "%"),
        least=LEAST_COVERAGE_PERCENT,
        ok="The field of view holds the whole brain",
        warn=f"The field of view holds {percent:.0f} % of the brain: lesions beyond it are not seen",
    )


def _check_white(name: str, volume: Volume, white: WhiteMatter) -> Iterator[QualityCheck]:
    ratio = white_over_noise(volume, white)
    if ratio is not None:
        yield _check(
            "white matter over noise",
            name,
            (ratio, ""),
            least=LEAST_SNR,
            ok="Noise is low against white matter",
            warn=f"White matter is only {ratio:.1f} times the noise: small lesions may be noise, or hidden by it",
        )
    uneven = slice_unevenness(volume, white.mask)
    if uneven is not None:
        yield _check(
            "change between slices",
            name,
            (uneven, "%"),
            most=UNEVEN_PERCENT,
            ok="White matter is equally bright from slice to slice",
            warn=f"White matter changes by {uneven:.1f} % from slice to slice: slices are uneven, or the head moved",
        )


def _check_order(examined: Examined) -> Iterator[QualityCheck]:
    """Tell whether each contrast is what it is called, whatever the labels say."""
    placement, labels = examined.placement, examined.labels
    if placement is None or labels is None:
        return
    if not placement.fits:
        yield from _check_exchange(examined)
        return
    masks = [(mask, labels.grid) for mask in examined.atlas or ()]
    for name in [name for name in GREY_OVER_WHITE if name in examined.contrasts]:
        volume = examined.contrasts[name]
        white, grey = (_median(volume, _on(mask, volume.grid, examined.threads)) for mask in masks)
        if white is not None and grey is not None and white > 0:
            yield _check_grey_over_white(name, grey / white)


def _check_grey_over_white(name: str, ratio: float) -> QualityCheck:
    least, most = GREY_OVER_WHITE[name]
    other = "FLAIR" if name == "T1w" else "T1w"
    return _check(
        "grey over white matter",
        name,
        (ratio, ""),
        least=least,
        most=most,
        ok="Grey and white matter differ as they should in T1w and FLAIR",
        warn=f"Grey matter is {ratio:.2f} times as bright as white matter, which is not like a {name}: "
        f"it may be swapped with the {other}",
    )


def _check_exchange(examined: Examined) -> Iterator[QualityCheck]:
    """Look, where the segmentation failed, whether that is because T1w and FLAIR are swapped."""
    if not examined.inputs.keys() >= {"T1w", "FLAIR"}:
        return
    t1, flair = (_finite(examined.inputs[name]) for name in ("T1w", "FLAIR"))
    found = compare_orders(t1.data, flair.data, t1.grid)
    if found is None or max(found) < LEAST_LIKE_A_HEAD:
        return
    yield _check(
        "like a head if swapped",
        None,
        (found[1] - found[0], ""),
        most=MOST_GAIN_BY_EXCHANGE,
        ok="T1w and FLAIR are not swapped",
        warn="T1w and FLAIR look swapped: exchanged, they are more like a head "
        f"({found[1]:.2f} against {found[0]:.2f})",
    )


def _check_anatomy(examined: Examined) -> Iterator[QualityCheck]:
    labels, tissue = examined.labels, examined.tissue
    if labels is None or tissue is None:
        return
    brain = np.isin(np.arange(256), (tissue.grey_matter, tissue.white_matter, tissue.lesion))
    volume = float(sum(np.count_nonzero(brain[plane]) for plane in labels.data)) * labels.grid.voxel_ml
    yield _check(
        "brain volume",
        None,
        (volume, "ml"),
        least=BRAIN_ML[0],
        most=BRAIN_ML[1],
        ok="Grey and white matter add up to a brain of usual size",
        warn=f"Grey and white matter add up to {volume:.0f} ml, which is not the size of a brain: "
        "tissue volumes cannot be trusted",
    )
    similarity = 0.0 if examined.placement is None else examined.placement.similarity
    yield _check(
        "tissue like the atlas",
        None,
        (similarity, ""),
        least=LEAST_SIMILARITY,
        ok="Grey and white matter lie as they do in a head",
        warn=f"Grey and white matter do not lie as they do in a head (agreement {similarity:.2f}): "
        "the segmentation may have failed, and lesions are given no location",
    )


def _check_lesions(examined: Examined) -> Iterator[QualityCheck]:
    if examined.lesions is None or examined.labels is None or examined.tissue is None:
        return
    cut = _lesions_at_edges(examined.labels, examined.tissue.lesion)
    yield _check(
        "lesions cut off",
        None,
        (float(cut), ""),
        most=0.0,
        ok="No lesion touches the edge of the field of view",
        warn=f"Lesions touch the edge of the field of view ({cut} voxels there): their volumes are too small",
    )
    if examined.placement is not None and examined.placement.fits:
        outside = sum(lesion.location == OUTSIDE for lesion in examined.lesions)
        yield _check(
            "lesions outside the brain",
            None,
            (float(outside), ""),
            most=0.0,
            ok="All lesions lie in the brain",
            warn=f"{outside} of {len(examined.lesions)} lesions lie outside the brain: they are false, "
            "and others may be",
        )


def _finite(volume: Volume) -> Volume:
    """Return a volume whose NaN and infinite voxels are 0."""
    if np.isfinite(volume.data.min()) and np.isfinite(volume.data.max()):
        return volume
    return Volume(np.nan_to_num(volume.data, posinf=0, neginf=0), volume.affine)


def _check(
    name: str,
    contrast: str | None,
    measured: tuple[float, str],
    *,
    least: float | None = None,
    most: float | None = None,
    ok: str,
    warn: str,
) -> QualityCheck:
    value, unit = measured
    fine = (least is None or value >= least) and (most is None or value <= most)
    return QualityCheck(
        name=name,
        contrast=contrast,
        value=float(value),
        unit=unit,
        least=least,
        most=most,
        status="ok" if fine else "warn",
        sentence=f"{ok if fine else warn}.",
    )


def _surely_white(examined: Examined) -> tuple[BoolArray, Grid] | None:
    """Return where both labels and atlas see white matter; where the atlas does not fit, the labels alone."""
    labels, tissue = examined.labels, examined.tissue
    if labels is None or tissue is None:
        return None
    white = labels.data == tissue.white_matter
    if examined.atlas is not None:
        white &= examined.atlas[0]
    return white, labels.grid


def _on(mask: tuple[BoolArray, Grid], grid: Grid, threads: int) -> BoolArray:
    """Return a mask on another grid."""
    voxels, own = mask
    if own.matches(grid):
        return voxels
    return resample(voxels.view(np.uint8), own, grid, "nearest", threads) > 0


def _median(volume: Volume, mask: BoolArray) -> float | None:
    values = volume.data[mask]
    return float(np.median(values)) if values.size >= LEAST_SAMPLES else None


def _lesions_at_edges(labels: Volume, lesion: int) -> int:
    """Return the number of lesion voxels on the faces of the field of view."""
    faces = (np.moveaxis(labels.data, axis, 0)[end] for axis in range(3) for end in (0, -1))
    return sum(int(np.count_nonzero(face == lesion)) for face in faces)
