"""How long engines take for a tile, side by side, and which of them that speaks for.

Owns the measurement and its rule. Knows no bundle and keeps nothing: `rmr_sdk.engines.choice` does.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Mapping, Sequence

from rmr_sdk.engines.base import Engine, Tensors

Clock = Callable[[], float]

ROUNDS = 4
"""Rounds of an engine that stays in the race; the first warms it up and does not count."""
HOPELESS = 1.5
"""An engine this much slower than the fastest in its best of two rounds is timed no further."""
MARGIN = 0.1
"""Part of the time that a less exact precision must save: less is not worth other results, and may be noise."""


def time_engines(engines: Mapping[str, Engine], tile: Tensors, clock: Clock = time.perf_counter) -> dict[str, float]:
    """Time engines in turns, so that what else the machine does hits all of them alike.

    Args:
        engines: Label -> engine.
        tile: Inputs of one tile; every slot of an engine computes it.
        clock: Gives seconds.

    Returns:
        Label -> seconds a tile with all slots busy, median over the rounds.
    """
    rounds: dict[str, list[float]] = {label: [] for label in engines}
    racing = list(engines)
    for index in range(ROUNDS):
        if index == 2:
            racing = _contenders(rounds)
        if index >= 2 and len(racing) == 1:
            break
        for label in racing:
            rounds[label].append(_one_round(engines[label], tile, clock))
    return {label: statistics.median(seconds[1:]) for label, seconds in rounds.items()}


def preferred(seconds: Mapping[str, float], exactness: Sequence[str]) -> str:
    """Choose the most exact of those that are nearly as fast as the fastest.

    Args:
        seconds: Label -> seconds a tile.
        exactness: The labels, the most exact first.
    """
    enough = min(seconds.values()) / (1 - MARGIN)
    return next(label for label in exactness if seconds[label] <= enough)


def _contenders(rounds: Mapping[str, Sequence[float]]) -> list[str]:
    best = {label: min(seconds) for label, seconds in rounds.items()}
    return [label for label, value in best.items() if value <= HOPELESS * min(best.values())]


def _one_round(engine: Engine, tile: Tensors, clock: Clock) -> float:
    with engine.session() as session:
        started = clock()
        for _ in range(engine.slots):
            session.submit(tile)
        for _ in range(engine.slots):
            session.collect()
        return (clock() - started) / engine.slots
