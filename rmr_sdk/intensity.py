"""Intensities: from the scanner's arbitrary units to what the network was trained on, and back."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import numpy.typing as npt

from rmr_sdk.errors import StudyError
from rmr_sdk.manifest import MinMax, Normalisation, Robust

_TOP_PERCENTILE = 99.0  # of the positive voxels; what `floor_fraction` is a fraction of

_LEAST_RANGE = 1e-30  # its inverse is still a float32

MOST_STRETCH = 4.0
"""By how much a contrast is stretched at most: noise grows with it."""


@dataclass(frozen=True, slots=True)
class IntensityMap:
    """The line from a contrast's intensities to the network's: y = clip((x - offset) * scale, low, high).

    Attributes:
        scale: Network units per unit of the contrast.
        offset: Intensity that maps to 0.
        low: Least value of y.
        high: Greatest value of y.
        floor: Intensity above which a voxel is foreground; a float32 number, so that all dtypes compare alike.
        stretch: Part of `offset` that gives a flat contrast its range back. Outputs come back without it: 0 stays air.
    """

    scale: float
    offset: float = 0.0
    low: float = 0.0
    high: float = math.inf
    floor: float = 0.0
    stretch: float = 0.0

    @property
    def gain(self) -> float:
        """Return the intensity of an output per network unit: 1 is the same intensity in outputs as in inputs."""
        return 1.0 / self.scale + self.stretch

    @property
    def zero(self) -> float:
        """Return the intensity of an output where the network gives 0."""
        return self.offset - self.stretch

    def apply(self, array: npt.ArrayLike) -> npt.NDArray[np.float32]:
        """Return network values, float32. The native tile extraction computes the same on the fly."""
        values = (np.asarray(array, np.float32) - np.float32(self.offset)) * np.float32(self.scale)
        return np.clip(values, np.float32(self.low), np.float32(self.high), out=values)

    def invert(self, array: npt.ArrayLike) -> npt.NDArray[np.float32]:
        """Return the intensities, float32, of outputs with these network values; what was clipped stays clipped."""
        return np.asarray(array, np.float32) * np.float32(self.gain) + np.float32(self.zero)

    def recover(self, array: npt.ArrayLike) -> npt.NDArray[np.float32]:
        """Return the network values, float32, of outputs with these intensities: undo `invert`, and clip as `apply`."""
        values = (np.asarray(array, np.float32) - np.float32(self.zero)) * np.float32(1.0 / self.gain)
        return np.clip(values, np.float32(self.low), np.float32(self.high), out=values)


def fit_normalisation(array: npt.NDArray[Any], normalisation: Normalisation) -> IntensityMap:
    """Find the intensity map of one contrast.

    Statistics are taken over all voxels, so that a permuted or flipped array gives the same map bit for bit.

    Args:
        array: The voxels of the contrast, finite, of any shape and real dtype.
        normalisation: `MinMax`: clamp at 0, subtract the minimum, divide by the maximum. `Robust`: with top the 99th
            percentile of the positive voxels and foreground what lies above `floor_fraction` * top, divide by the
            `percentile` of the foreground and clip at `high`; where the median of the foreground is then above
            `most_median`, stretch below that percentile until it has this value, by no more than `MOST_STRETCH`.

    Raises:
        StudyError: No voxel is positive, or the range to map is empty.

    Source: MinMax as in the authors' code (AAAI 2024, doi 10.1609/aaai.v38i7.28536); Robust is ours.
    """
    values = array.ravel(order="K")  # as it lies in memory: a view unless the array is a strided one
    return _fit_minmax(values) if isinstance(normalisation, MinMax) else _fit_robust(values, normalisation)


def _fit_minmax(values: npt.NDArray[Any]) -> IntensityMap:
    least, most = max(float(values.min()), 0.0), max(float(values.max()), 0.0)
    if most - least < _LEAST_RANGE:
        raise _flat()
    return IntensityMap(scale=1.0 / (most - least), offset=least, high=1.0, floor=least)


def _fit_robust(values: npt.NDArray[Any], normalisation: Robust) -> IntensityMap:
    positive = values[values > 0]
    if positive.size == 0:
        raise _flat()
    floor = float(np.float32(normalisation.floor_fraction * _percentile(positive, _TOP_PERCENTILE)))
    foreground = positive[positive > floor]
    bright = _percentile(foreground, normalisation.percentile)
    if bright < _LEAST_RANGE:
        raise _flat()
    flat = IntensityMap(scale=1.0 / bright, high=normalisation.high, floor=floor)
    most = normalisation.most_median
    middle = _percentile(foreground, 50.0) if most < 1 else 0.0
    if middle <= most * bright:
        return flat
    spread = max(bright - middle, (1.0 - most) * bright / MOST_STRETCH)
    offset = bright - spread / (1.0 - most)
    return replace(flat, scale=(1.0 - most) / spread, offset=offset, stretch=offset)


def _percentile(values: npt.NDArray[Any], percentile: float) -> float:
    """Return a percentile, interpolated linearly between ranks in float64 for every dtype; reorders the values."""
    rank = percentile / 100.0 * (values.size - 1)
    lower, upper = math.floor(rank), math.ceil(rank)
    values.partition((lower, upper))
    return float(values[lower]) + (float(values[upper]) - float(values[lower])) * (rank - lower)


def _flat() -> StudyError:
    return StudyError(
        "no two voxels above zero differ, so there is nothing to see.",
        "Check that this is the contrast it should be and that a mask has not emptied it.",
    )
