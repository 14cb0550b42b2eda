"""What can be said from some samples: percentiles, and whether two sets of them differ.

Owns the statistics of the benchmark, and how many samples a claim takes. docs/benchmarking.md explains them.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from rmr_sdk.bench.results import Distribution

RESAMPLES = 10_000
CONFIDENCE = 0.95
LEAST_SAMPLES = 5
"""Samples a side below which no verdict is given."""
LEAST_CHANGE = 0.02
"""Smallest change that is called one: what two runs of the same thing differ by on a quiet machine."""

_DIGITS = 6


def percentile(values: Sequence[float], share: float) -> float:
    """Return the nearest-rank percentile: the smallest sample that at least `share` of all do not exceed.

    Args:
        values: At least one.
        share: Above 0, at most 1.
    """
    return sorted(values)[max(1, math.ceil(share * len(values) - 1e-9)) - 1]


def claimable(samples: int, share: float) -> bool:
    """Tell whether a percentile of so many samples is anything but the largest of them."""
    return math.ceil(share * samples - 1e-9) < samples


def describe(values: Sequence[float]) -> Distribution:
    """Sum samples up.

    Args:
        values: Seconds, at least one.
    """
    count = len(values)
    tails = {
        share: round(percentile(values, share), _DIGITS) if claimable(count, share) else None for share in (0.95, 0.99)
    }
    return Distribution(
        samples=count,
        values_s=tuple(round(value, _DIGITS) for value in values),
        min_s=round(min(values), _DIGITS),
        p50_s=round(percentile(values, 0.5), _DIGITS),
        p95_s=tails[0.95],
        p99_s=tails[0.99],
        max_s=round(max(values), _DIGITS),
    )


@dataclass(frozen=True, slots=True)
class Ratio:
    """How B's median relates to A's: below 1, B is faster.

    Attributes:
        value: Median of B over median of A.
        low: Lower end of its confidence interval.
        high: Upper end.
        verdict: "faster", "slower", "no difference at this noise", or "too few samples".
    """

    value: float
    low: float
    high: float
    verdict: str


def compare_samples(before: Sequence[float], after: Sequence[float], seed: int = 0) -> Ratio:
    """Compare the medians of two sets of samples by resampling both.

    Args:
        before: Seconds of A, at least one and positive.
        after: Seconds of B, likewise.
        seed: Of the resampling; the same samples give the same answer.

    Source: percentile bootstrap, Efron, Ann. Statist. 7 (1979).
    """
    value = _median(np.asarray(after, float)[None])[0] / _median(np.asarray(before, float)[None])[0]
    rng = np.random.default_rng(seed)
    ratios = _resampled(after, rng) / _resampled(before, rng)
    tail = 100 * (1 - CONFIDENCE) / 2
    low, high = np.percentile(ratios, [tail, 100 - tail])
    return Ratio(float(value), float(low), float(high), _judge(value, low, high, min(len(before), len(after))))


def _judge(value: float, low: float, high: float, samples: int) -> str:
    if samples < LEAST_SAMPLES:
        return "too few samples"
    if high < 1 and value <= 1 - LEAST_CHANGE:
        return "faster"
    if low > 1 and value >= 1 + LEAST_CHANGE:
        return "slower"
    return "no difference at this noise"


def _resampled(values: Sequence[float], rng: np.random.Generator) -> npt.NDArray[np.float64]:
    """Return the medians of `RESAMPLES` draws with replacement."""
    array = np.asarray(values, np.float64)
    return _median(array[rng.integers(0, len(array), (RESAMPLES, len(array)))])


def _median(rows: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    """Return the nearest-rank median of each row."""
    middle: npt.NDArray[np.float64] = np.sort(rows, axis=1)[:, math.ceil(rows.shape[1] / 2) - 1]
    return middle
