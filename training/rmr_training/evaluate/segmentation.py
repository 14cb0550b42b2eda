"""How well a segmentation agrees with a truth: overlap, volume and surfaces of any class, and lesions one by one.

Overlap and distances are MONAI's. Where a mask is empty they are decided here, not left to a library:

    truth, prediction    Dice    distances      sensitivity, lesion F1
    both empty           NaN     NaN            NaN, NaN: there was nothing to find, and nothing was
    one of them empty    0       NaN            0 and 0, or NaN and 0 where nothing was to be found
    empty, only small    0       NaN            NaN, NaN: no predicted lesion counts, none of them is false

"Small" are predicted lesions below `SMALLEST_LESION_MM3`, which says what they count for. NaN stands for "not defined";
means leave it out and count the rest.
"""

from __future__ import annotations

import math
import warnings
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
import torch
from monai.metrics import compute_average_surface_distance, compute_dice, compute_hausdorff_distance
from numpy.typing import NDArray
from scipy import ndimage
from torch import Tensor

from .fusion_quality import bounding_box

Mask = NDArray[np.bool_]
Spacing = tuple[float, float, float]

SMALLEST_LESION_MM3 = 3.0
"""Predicted lesions below this are not counted: neither as false, nor in the share of predicted lesions that are true,
which is 0 where no other is predicted. A lesion of the truth that one of them touches does count as touched, and their
voxels count in overlap, volume and distances. Raters do not mark single voxels."""

LESION_SIZES_MM3 = (0.0, 15.0, 60.0, math.inf)
"""Where lesions are parted by volume: of a ball of 3 and of 5 mm across."""


@dataclass(frozen=True, slots=True)
class ClassFigures:
    """How well one class agrees with the truth.

    Attributes:
        dice: Dice overlap.
        truth_ml: Volume of the truth.
        predicted_ml: Volume of the prediction.
        hausdorff95_mm: The greater of both 95th percentiles of the distances between the surfaces.
        surface_distance_mm: Mean distance between the surfaces, both ways.
    """

    dice: float
    truth_ml: float
    predicted_ml: float
    hausdorff95_mm: float
    surface_distance_mm: float

    @property
    def volume_error_ml(self) -> float:
        """Return by how much the prediction is larger; negative where it is smaller."""
        return self.predicted_ml - self.truth_ml


@dataclass(frozen=True, slots=True)
class LesionCounts:
    """Lesions one by one.

    Attributes:
        sensitivity: Share of the truth's lesions that were touched, by however small a predicted lesion.
        false_lesions: Predicted lesions of at least `SMALLEST_LESION_MM3` that touch none of the truth.
        lesion_f1: Harmonic mean of sensitivity and the share of predicted lesions, of that volume, that are true.
    """

    sensitivity: float
    false_lesions: int
    lesion_f1: float


@dataclass(frozen=True, slots=True)
class SizeCounts:
    """Lesions of a range of volumes.

    Attributes:
        from_mm3: Least volume.
        to_mm3: Volume below which they are; None where there is no limit.
        lesions: Lesions of the truth that have this volume there.
        touched: Those of them that the prediction touches.
        false_lesions: Lesions that have it in the prediction and touch none of the truth.
    """

    from_mm3: float
    to_mm3: float | None
    lesions: int
    touched: int
    false_lesions: int


@dataclass(frozen=True, slots=True)
class LesionFigures:
    """How well a lesion mask agrees with the consensus of raters.

    Attributes:
        study: Name of the study's folder.
        dice: Dice overlap of all lesion voxels.
        truth_ml: Lesion volume of the consensus.
        predicted_ml: Lesion volume of the network.
        sensitivity: Share of the consensus' lesions that were touched.
        false_lesions: Predicted lesions that touch none of the consensus.
        lesion_f1: Harmonic mean of sensitivity and the share of predicted lesions that are true.
        hausdorff95_mm: 95th percentile of the surface distances.
        surface_distance_mm: Mean of the surface distances.
    """

    study: str
    dice: float
    truth_ml: float
    predicted_ml: float
    sensitivity: float
    false_lesions: int
    lesion_f1: float
    hausdorff95_mm: float
    surface_distance_mm: float


def compare_masks(predicted: Mask, truth: Mask, spacing_mm: Spacing) -> ClassFigures:
    """Compare two masks (D, H, W) of one class on one grid with the given spacing."""
    voxel_ml = float(np.prod(spacing_mm)) / 1000
    sizes = int(predicted.sum()), int(truth.sum())
    hausdorff95 = surface = math.nan
    if all(sizes):
        hausdorff95, surface = _distances(_tensors(predicted, truth), spacing_mm)
    dice = overlap(predicted, truth)
    return ClassFigures(dice, sizes[1] * voxel_ml, sizes[0] * voxel_ml, hausdorff95, surface)


def overlap(predicted: Mask, truth: Mask) -> float:
    """Return the Dice overlap of two masks (D, H, W): 0 where one of them is empty, NaN where both are."""
    if not (predicted.any() and truth.any()):
        return 0.0 if predicted.any() or truth.any() else math.nan
    return float(compute_dice(*_tensors(predicted, truth)))


def count_lesions(predicted: Mask, truth: Mask, spacing_mm: Spacing) -> LesionCounts:
    """Count the lesions found and the false ones in two masks (D, H, W).

    Lesions are 26-connected; one of the truth counts as touched when a single voxel of it is predicted. Small predicted
    lesions are treated as `SMALLEST_LESION_MM3` says.
    """
    real, touched = _label(truth, predicted, spacing_mm)
    found, true_found = _label(predicted, truth, spacing_mm)
    counted = found >= SMALLEST_LESION_MM3
    sensitivity = float(touched.mean()) if len(real) else math.nan
    precision = float(true_found[counted].mean()) if counted.any() else 0.0
    false_lesions = int((counted & ~true_found).sum())
    return LesionCounts(sensitivity, false_lesions, _f1(sensitivity, precision, bool(len(real)), bool(counted.any())))


def count_by_size(predicted: Mask, truth: Mask, spacing_mm: Spacing) -> tuple[SizeCounts, ...]:
    """Count as `count_lesions` does, lesions of each range of `LESION_SIZES_MM3` by themselves."""
    real, touched = _label(truth, predicted, spacing_mm)
    found, true_found = _label(predicted, truth, spacing_mm)
    false_found = found[(found >= SMALLEST_LESION_MM3) & ~true_found]
    counts = []
    for low, high in pairwise(LESION_SIZES_MM3):
        here = (real >= low) & (real < high)
        false_here = int(((false_found >= low) & (false_found < high)).sum())
        limit = None if math.isinf(high) else high
        counts.append(SizeCounts(low, limit, int(here.sum()), int(touched[here].sum()), false_here))
    return tuple(counts)


def _label(mask: Mask, other: Mask, spacing_mm: Spacing) -> tuple[NDArray[np.float64], NDArray[np.bool_]]:
    """Return the volume of each lesion of a mask, and whether the other mask touches it, (n,) both."""
    lesions, count = ndimage.label(mask, np.ones((3, 3, 3), bool))
    voxels = np.bincount(lesions.ravel(), minlength=count + 1)[1:]
    volumes = voxels.astype(np.float64) * float(np.prod(spacing_mm))
    return volumes, np.isin(np.arange(1, count + 1), lesions[other])


def compare_lesions(study: str, predicted: Mask, truth: Mask, spacing_mm: Spacing) -> LesionFigures:
    """Compare two lesion masks (D, H, W) on one grid with the given spacing."""
    overall, counts = compare_masks(predicted, truth, spacing_mm), count_lesions(predicted, truth, spacing_mm)
    return LesionFigures(
        study=study,
        dice=overall.dice,
        truth_ml=overall.truth_ml,
        predicted_ml=overall.predicted_ml,
        sensitivity=counts.sensitivity,
        false_lesions=counts.false_lesions,
        lesion_f1=counts.lesion_f1,
        hausdorff95_mm=overall.hausdorff95_mm,
        surface_distance_mm=overall.surface_distance_mm,
    )


def _f1(sensitivity: float, precision: float, any_real: bool, any_found: bool) -> float:
    if not any_real:
        return 0.0 if any_found else math.nan
    total = sensitivity + precision
    return 2 * sensitivity * precision / total if total else 0.0


def _tensors(predicted: Mask, truth: Mask) -> list[Tensor]:
    """Return both masks (1, 1, d, h, w), cut to the box around them."""
    box = bounding_box(predicted | truth, margin=1)
    cut = [np.ascontiguousarray(mask[box], np.float32) for mask in (predicted, truth)]
    return [torch.from_numpy(mask[None, None]) for mask in cut]


def _distances(pair: list[Tensor], spacing_mm: Spacing) -> tuple[float, float]:
    """Return the 95 % Hausdorff distance and the mean symmetric surface distance of masks that are not empty."""
    spacing = list(spacing_mm)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)  # MONAI 1.6 warns of an argument that it passes itself
        hausdorff95 = compute_hausdorff_distance(*pair, percentile=95, spacing=spacing)
        surface = compute_average_surface_distance(*pair, symmetric=True, spacing=spacing)
    return float(hausdorff95), float(surface)
