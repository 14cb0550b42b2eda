"""What is known of an activation after many tiles, and the magnitude at which it is best clipped.

A `Statistics` holds a histogram of magnitudes, a maximum and the mean of every channel: a few kilobytes, however many
tiles it has seen.

    tile 0 ─┐
    tile 1 ─┼─> Statistics.add ─> clip(method) ─> the magnitude that becomes 127
    ...    ─┘

Sources: entropy as in S. Migacz, 8-bit Inference with TensorRT, GTC 2017; the squared error summed over a histogram is
elementary.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from .int8 import LEVELS

FloatArray = NDArray[np.float32]
Histogram = NDArray[np.float64]

METHODS = ("max", "percentile", "entropy", "mse")
BINS = 4096
PERCENTILE = 99.99
SAMPLE = 1 << 20
"""Values of one tile that go into a histogram; of a larger activation every n-th. The maximum is taken over all."""

_CANDIDATES = 128


@dataclass(slots=True)
class Statistics:
    """Running statistics of one activation.

    Attributes:
        limit: Where the histogram ends; doubled whenever a greater magnitude comes, so that no tile is needed twice.
        counts: (BINS,) values by magnitude, from 0 to `limit`.
        maximum: Greatest magnitude.
        peaks: Greatest magnitude of each channel; None before the first tile.
        totals: Sum of each channel; None before the first tile.
        voxels: Values of each channel behind `totals`.
    """

    limit: float = 0.0
    counts: Histogram = field(default_factory=lambda: np.zeros(BINS))
    maximum: float = 0.0
    peaks: FloatArray | None = None
    totals: Histogram | None = None
    voxels: int = 0

    def add(self, values: FloatArray, channel_axis: int) -> None:
        """Take in the activation of one tile.

        Args:
            values: Finite, any shape.
            channel_axis: The axis that the weights of its layer sum over.
        """
        others = tuple(axis for axis in range(values.ndim) if axis != channel_axis % values.ndim)
        totals = values.sum(axis=others, dtype=np.float64)
        self.totals = totals if self.totals is None else self.totals + totals
        self.voxels += values.size // values.shape[channel_axis]
        peaks = np.maximum(values.max(axis=others), -values.min(axis=others))
        self.peaks = peaks if self.peaks is None else np.maximum(self.peaks, peaks)
        maximum = float(peaks.max())
        self.maximum = max(self.maximum, maximum)
        self._widen(maximum)
        sample = np.abs(values.reshape(-1)[:: _stride(values.size)])
        if self.limit:
            bins = np.minimum((sample * np.float32(BINS / self.limit)).astype(np.int32), BINS - 1)
            self.counts += np.bincount(bins, minlength=BINS)

    def clip(self, method: str) -> float:
        """Return the magnitude that becomes 127.

        Args:
            method: One of `METHODS`. "max" clips nothing; "percentile" all but 99.99 % of the values; "entropy" where
                the quantised distribution tells least from the real one; "mse" where the squared error is least.
        """
        if not self.limit or method == "max":
            return self.maximum
        return min(_CLIPS[method](self.counts, self.limit), self.maximum)

    @property
    def means(self) -> Histogram:
        """Return the mean of each channel."""
        return np.zeros(1) if self.totals is None else self.totals / self.voxels

    def _widen(self, maximum: float) -> None:
        if maximum and not self.limit:
            self.limit = maximum
        while maximum > self.limit:
            self.counts = np.concatenate([self.counts.reshape(-1, 2).sum(1), np.zeros(BINS // 2)])
            self.limit *= 2


def squared_error(counts: Histogram, limit: float, clip: float) -> float:
    """Return the mean squared error of clipping at a magnitude and rounding to 127 steps, over a histogram."""
    centres = _centres(counts, limit)
    step = clip / LEVELS
    restored = np.minimum(np.rint(centres / step), LEVELS) * step
    return float((counts * (restored - centres) ** 2).sum() / counts.sum())


def divergence(counts: Histogram, kept: int) -> float:
    """Return the Kullback-Leibler divergence of a histogram, clipped to `kept` bins, from its 128 levels.

    What is clipped off counts as the last bin that is kept. Each level spreads its share evenly over its bins that hold
    something. Infinite where a bin that holds something loses its level.
    """
    real = counts[:kept].copy()
    levels = np.arange(kept) * (LEVELS + 1) // kept
    filled = real > 0
    totals = np.bincount(levels, weights=real, minlength=LEVELS + 1)
    shares = np.bincount(levels, weights=filled, minlength=LEVELS + 1)
    spread = np.where(filled, (totals / np.maximum(shares, 1))[levels], 0)
    real[-1] += counts[kept:].sum()
    used = real > 0
    if not spread[used].all():
        return float("inf")
    p, q = real[used] / real.sum(), spread[used] / spread.sum()
    return float((p * np.log(p / q)).sum())


def _percentile(counts: Histogram, limit: float) -> float:
    reached = np.searchsorted(np.cumsum(counts), counts.sum() * PERCENTILE / 100)
    return float((min(reached, counts.size - 1) + 1) * limit / counts.size)


def _entropy(counts: Histogram, limit: float) -> float:
    # Zeros are exact at any scale, and background would drown all else.
    counts = np.concatenate([[0.0], counts[1:]])
    if not counts.any():
        return limit
    candidates = np.unique(np.linspace(LEVELS + 1, counts.size, _CANDIDATES).astype(int))
    found = [divergence(counts, int(kept)) for kept in candidates]
    return float(candidates[int(np.argmin(found))] * limit / counts.size)


def _mse(counts: Histogram, limit: float) -> float:
    candidates = limit * np.linspace(1 / _CANDIDATES, 1, _CANDIDATES)
    found = [squared_error(counts, limit, clip) for clip in candidates]
    return float(candidates[int(np.argmin(found))])


_CLIPS: dict[str, Callable[[Histogram, float], float]] = {"percentile": _percentile, "entropy": _entropy, "mse": _mse}


def _centres(counts: Histogram, limit: float) -> Histogram:
    return (np.arange(counts.size, dtype=np.float64) + 0.5) * np.float64(limit / counts.size)


def _stride(size: int) -> int:
    """Return every how many values one is taken: odd, so that it does not keep step with the axes of a tile."""
    return max(1, size // SAMPLE) | 1 if size > SAMPLE else 1
