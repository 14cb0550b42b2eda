"""Percentiles, what they need, and verdicts on two sets of samples."""

from __future__ import annotations

import numpy as np
import pytest

from rmr_sdk.bench.samples import claimable, compare_samples, describe, percentile


@pytest.mark.parametrize(("share", "expected"), [(0.05, 15), (0.3, 20), (0.4, 20), (0.5, 35), (0.95, 50), (1.0, 50)])
def test_percentiles_are_nearest_rank(share: float, expected: float) -> None:
    assert percentile([35, 50, 15, 40, 20], share) == expected  # the textbook's example of the method


@pytest.mark.parametrize("count", [1, 2, 19, 20, 21, 99, 100, 1000])
@pytest.mark.parametrize("share", [0.5, 0.95, 0.99])
def test_percentiles_equal_those_of_numpy(count: int, share: float) -> None:
    values = np.random.default_rng(count).random(count)
    assert percentile(list(values), share) == np.percentile(values, 100 * share, method="inverted_cdf")


def test_a_percentile_is_claimed_where_it_is_not_the_largest_sample() -> None:
    assert [claimable(n, 0.95) for n in (1, 19, 20)] == [False, False, True]
    assert [claimable(n, 0.99) for n in (20, 99, 100)] == [False, False, True]


def test_a_description_claims_no_more_than_its_samples_allow() -> None:
    few, many = describe([3.0, 1.0, 2.0]), describe([float(n) for n in range(1, 101)])
    assert (few.samples, few.values_s, few.min_s, few.p50_s, few.max_s) == (3, (3.0, 1.0, 2.0), 1.0, 2.0, 3.0)
    assert (few.p95_s, few.p99_s) == (None, None)
    assert (many.p50_s, many.p95_s, many.p99_s) == (50.0, 95.0, 99.0)


@pytest.mark.parametrize(
    ("factor", "noise", "verdict"),
    [
        (0.8, 0.01, "faster"),
        (1.25, 0.01, "slower"),
        (1.0, 0.05, "no difference at this noise"),
        (0.97, 0.2, "no difference at this noise"),
        (0.99, 0.0001, "no difference at this noise"),
    ],
)
def test_verdicts(factor: float, noise: float, verdict: str) -> None:
    rng = np.random.default_rng(3)
    before, after = (1 + noise * rng.standard_normal((2, 15))) * np.array([[1.0], [factor]])
    found = compare_samples(list(before), list(after))
    assert found.verdict == verdict
    assert found.low <= found.value <= found.high
    assert found.value == pytest.approx(factor, rel=4 * noise)


def test_few_samples_give_no_verdict() -> None:
    assert compare_samples([1.0] * 4, [0.1] * 50).verdict == "too few samples"
    assert compare_samples([1.0] * 50, [0.1] * 4).verdict == "too few samples"


def test_the_same_samples_give_the_same_answer() -> None:
    assert compare_samples([1.0, 2.0, 3.0], [2.0, 1.0]) == compare_samples([1.0, 2.0, 3.0], [2.0, 1.0])


def test_runs_of_the_same_thing_are_seldom_called_different() -> None:
    rng = np.random.default_rng(0)
    verdicts = [
        compare_samples(*(list(1 + 0.05 * rng.standard_normal(10)) for _ in range(2)), seed=trial).verdict
        for trial in range(60)
    ]
    assert verdicts.count("no difference at this noise") >= 52
