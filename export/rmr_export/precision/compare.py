"""How far the outputs of a precision are from those of fp32, over any number of tiles or whole studies."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

FloatArray = NDArray[np.float32]
Tensors = Mapping[str, FloatArray]
Labels = NDArray[np.integer[Any]]

PERFECT_DB = 200.0
"""Stands for the infinite signal-to-noise ratio of equal images, which JSON cannot write."""


@dataclass(slots=True)
class Comparison:
    """Sums over what was compared so far; the properties are the figures.

    Attributes:
        foreground: Voxels that are foreground in either.
        same: Those of them with equal labels.
        lesion: Lesion voxels in fp32, in the precision, and in both.
        voxels: Voxels of the fused images.
        squared: Sum of the squared differences of the fused images.
        low: Least fused value in fp32.
        high: Greatest.
        largest: Largest difference of the fused images.
        largest_probability: Largest difference of a probability.
    """

    foreground: int = 0
    same: int = 0
    lesion: tuple[int, int, int] = (0, 0, 0)
    voxels: int = 0
    squared: float = 0.0
    low: float = math.inf
    high: float = -math.inf
    largest: float = 0.0
    largest_probability: float = 0.0

    def add_fused(self, reference: FloatArray, other: FloatArray) -> None:
        """Compare fused images of any shape."""
        difference = other.astype(np.float64) - reference
        self.voxels += difference.size
        self.squared += float((difference**2).sum())
        self.low, self.high = min(self.low, float(reference.min())), max(self.high, float(reference.max()))
        self.largest = max(self.largest, float(np.abs(difference).max()))

    def add_labels(self, reference: Labels, other: Labels, lesion: int | None) -> None:
        """Compare labels of any shape.

        Args:
            reference: Of fp32; 0 is background.
            other: Of the precision.
            lesion: The label of lesions, or None.
        """
        foreground = (reference > 0) | (other > 0)
        self.foreground += int(foreground.sum())
        self.same += int(((reference == other) & foreground).sum())
        if lesion is not None:
            a, b = reference == lesion, other == lesion
            found = int(a.sum()), int(b.sum()), int((a & b).sum())
            self.lesion = (self.lesion[0] + found[0], self.lesion[1] + found[1], self.lesion[2] + found[2])

    def add_probability(self, reference: FloatArray, other: FloatArray) -> None:
        """Compare probabilities of any shape."""
        self.largest_probability = max(self.largest_probability, float(np.abs(other - reference).max()))

    def figures(self) -> dict[str, float]:
        """Return every figure that what was compared allows, by its name in a manifest."""
        found: dict[str, float] = {}
        if self.voxels:
            found |= {"fused_psnr_db": self.psnr_db, "fused_max_error": self.largest / max(self.high - self.low, 1e-12)}
        if self.largest_probability:
            found["probability_max_error"] = self.largest_probability
        if self.foreground:
            found["label_agreement"] = self.label_agreement
        if self.lesion[0] + self.lesion[1]:
            found |= {
                "lesion_dice_to_fp32": self.lesion_dice,
                "lesion_volume_change": (self.lesion[1] - self.lesion[0]) / max(self.lesion[0], 1),
            }
        return found

    @property
    def label_agreement(self) -> float:
        """Return the share of the foreground with equal labels; 1 where there is no foreground."""
        return self.same / self.foreground if self.foreground else 1.0

    @property
    def lesion_dice(self) -> float:
        """Return the Dice coefficient between the lesions of both; 1 where neither has any."""
        total = self.lesion[0] + self.lesion[1]
        return 2 * self.lesion[2] / total if total else 1.0

    @property
    def psnr_db(self) -> float:
        """Return the peak signal-to-noise ratio of the fused images, the peak being their range in fp32."""
        if not self.squared:
            return PERFECT_DB
        span = self.high - self.low
        return 10 * math.log10(span**2 * self.voxels / self.squared) if span else -PERFECT_DB


def compare_tiles(
    into: Comparison, inputs: Mapping[str, FloatArray], reference: Tensors, other: Tensors, lesion: int | None
) -> None:
    """Compare the outputs of a network for one tile.

    Args:
        into: Takes the sums.
        inputs: Of the tile; the fused images are compared where one of them is above 0.
        reference: "fused" and, with a head, "probability" (1, K, D, H, W), in fp32.
        other: The same in the precision.
        lesion: The class of lesions, or None.
    """
    mask = np.logical_or.reduce([array > 0 for array in inputs.values()])
    if mask.any():
        into.add_fused(reference["fused"][mask], other["fused"][mask])
    if "probability" in reference:
        into.add_probability(reference["probability"], other["probability"])
        into.add_labels(reference["probability"].argmax(1), other["probability"].argmax(1), lesion)
