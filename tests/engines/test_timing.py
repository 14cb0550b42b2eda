"""The race between engines: whose time counts, who is dropped, and what a less exact precision must save."""

from __future__ import annotations

import numpy as np
import pytest
from fake_engines import FakeClock, FakeEngine

from rmr_sdk.engines.timing import ROUNDS, preferred, time_engines

TILE = {name: np.zeros((1, 1, 2, 2, 2), np.float32) for name in ("t1w", "flair")}
EXACTNESS = ("fp32", "bf16", "int8")


def test_the_first_round_only_warms_up() -> None:
    clock = FakeClock()
    engines = {"a": FakeEngine(clock, [9.0, 1.0]), "b": FakeEngine(clock, [9.0, 1.2])}
    assert time_engines(engines, TILE, clock) == pytest.approx({"a": 1.0, "b": 1.2})


def test_one_slow_round_does_not_count() -> None:
    clock = FakeClock()
    engines = {"a": FakeEngine(clock, [1.0, 1.0, 30.0, 1.0]), "b": FakeEngine(clock, [1.2])}
    assert time_engines(engines, TILE, clock) == pytest.approx({"a": 1.0, "b": 1.2})


def test_the_hopeless_are_dropped_after_two_rounds() -> None:
    clock = FakeClock()
    slow, fast, close = FakeEngine(clock, [1.6]), FakeEngine(clock, [1.0]), FakeEngine(clock, [1.4])
    found = time_engines({"slow": slow, "fast": fast, "close": close}, TILE, clock)
    assert found == pytest.approx({"slow": 1.6, "fast": 1.0, "close": 1.4})
    assert (slow.tiles, fast.tiles, close.tiles) == (2, ROUNDS, ROUNDS)


def test_a_hiccup_in_one_of_the_first_two_rounds_drops_nobody() -> None:
    clock = FakeClock()
    unlucky = FakeEngine(clock, [1.0, 5.0, 1.0, 1.0])
    assert time_engines({"fast": FakeEngine(clock, [1.2]), "unlucky": unlucky}, TILE, clock)["unlucky"] == 1.0


def test_a_winner_without_rivals_is_not_timed_further() -> None:
    clock = FakeClock()
    fast = FakeEngine(clock, [1.0])
    time_engines({"fast": fast, "slow": FakeEngine(clock, [2.0])}, TILE, clock)
    assert fast.tiles == 2


def test_seconds_are_those_of_a_tile_with_all_slots_busy() -> None:
    clock = FakeClock()
    engine = FakeEngine(clock, [0.5], slots=4)
    assert time_engines({"a": engine, "b": FakeEngine(clock, [0.5])}, TILE, clock)["a"] == 0.5
    assert engine.tiles == 4 * ROUNDS


@pytest.mark.parametrize(
    ("seconds", "chosen"),
    [
        ({"fp32": 1.27, "bf16": 0.60, "int8": 0.52}, "int8"),
        ({"fp32": 1.27, "bf16": 0.60, "int8": 0.55}, "bf16"),  # saves 8 %: not worth other results
        ({"fp32": 1.27, "bf16": 0.60, "int8": 0.70}, "bf16"),
        ({"fp32": 1.00, "bf16": 0.91, "int8": 0.95}, "fp32"),
        ({"bf16": 1.00, "int8": 0.80}, "int8"),
    ],
)
def test_the_most_exact_of_the_nearly_fastest_wins(seconds: dict[str, float], chosen: str) -> None:
    assert preferred(seconds, [label for label in EXACTNESS if label in seconds]) == chosen
