"""The rule, stated before the runs, and the comparisons it is applied to.

The rule, for paired differences over seeds, in the direction that the claim predicts:

- *holds*: all seeds are above zero, and the mean is more than twice its standard error;
- *does not hold here*: all seeds are below zero, and the mean is more than twice its standard error below zero;
- *undecided at this scale*: otherwise, and always with fewer than two seeds.

With three seeds and no true difference it says *holds* about 9 times in 100 (Student's t with two degrees of freedom):
it is a rule for reading a table, not a significance test. A claim of several parts holds where all of them do, does
not hold here where one of them does not, and is undecided otherwise, and always where one of them was not run.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from statistics import mean, stdev
from typing import Any

HOLDS, REVERSED, UNDECIDED = "holds", "does not hold here", "undecided at this scale"

Measured = Mapping[str, Any]
Figure = Callable[[Measured], float]
Runs = Mapping[tuple[str, int], Measured]
"""(arm, seed) -> what `measures.measure` gave."""

DEGRADED = ("noise", "blur", "fourier")
HEADS = ("dynunet", "unet", "segresnet")


@dataclass(frozen=True, slots=True)
class Comparison:
    """A paired comparison.

    Attributes:
        claim: "a", "b" or "c".
        what: What is compared, for a reader.
        unit: Of the difference.
        differences: One a seed, positive where the claim predicts it.
        decides: Whether the verdict on the claim rests on it.
    """

    claim: str
    what: str
    unit: str
    differences: tuple[float, ...]
    decides: bool

    @property
    def mean(self) -> float:
        """Return the mean difference."""
        return mean(self.differences)

    @property
    def error(self) -> float:
        """Return the standard error of the mean, NaN for one seed."""
        n = len(self.differences)
        return stdev(self.differences) / math.sqrt(n) if n > 1 else math.nan

    @property
    def verdict(self) -> str:
        """Return what the rule says."""
        return decide(self.differences)

    def to_row(self) -> dict[str, Any]:
        """Return the comparison as plain values."""
        error = None if math.isnan(self.error) else round(self.error, 5)
        return {
            **asdict(self),
            "differences": [round(d, 5) for d in self.differences],
            "mean": round(self.mean, 5),
            "standard_error": error,
            "verdict": self.verdict,
        }


def decide(differences: Sequence[float]) -> str:
    """Apply the rule to paired differences."""
    if len(differences) < 2:
        return UNDECIDED
    clear = abs(mean(differences)) > 2 * stdev(differences) / math.sqrt(len(differences))
    if clear and all(d > 0 for d in differences):
        return HOLDS
    return REVERSED if clear and all(d < 0 for d in differences) else UNDECIDED


def combine(verdicts: Iterable[str]) -> str:
    """Return the verdict on a claim from those on its parts."""
    found = set(verdicts)
    if REVERSED in found:
        return REVERSED
    return HOLDS if found == {HOLDS} else UNDECIDED


def compare(runs: Runs) -> list[Comparison]:
    """Compare what can be compared among the runs that are there."""
    return [c for c in _comparisons(runs) if c.differences]


def claims(comparisons: Sequence[Comparison]) -> dict[str, str]:
    """Return the verdict on each claim; one of which a part is missing is undecided."""
    return {name: _judge(name, comparisons) for name in sorted({c.claim for c in comparisons})}


def _judge(claim: str, comparisons: Sequence[Comparison]) -> str:
    found = {c.what: c.verdict for c in comparisons if c.claim == claim and c.decides}
    parts = {c.what for c in _comparisons({}) if c.claim == claim and c.decides}
    return combine(found.values()) if parts <= found.keys() else UNDECIDED


def _comparisons(runs: Runs) -> Iterable[Comparison]:
    """Give every comparison, without differences where its runs are not there."""
    return (*_mutual(runs), *_robust(runs), *_general(runs))


def _lesion(run: Measured) -> float:
    return float(run["dice"]["lesion"])


def _paired(runs: Runs, better: str, worse: str, figure: Figure) -> tuple[float, ...]:
    seeds = sorted({seed for _, seed in runs if (better, seed) in runs and (worse, seed) in runs})
    return tuple(figure(runs[better, seed]) - figure(runs[worse, seed]) for seed in seeds)


def _mutual(runs: Runs) -> Iterable[Comparison]:
    def lesion(worse: str) -> tuple[float, ...]:
        return _paired(runs, "fused-dynunet", worse, _lesion)

    def fusion(name: str) -> tuple[float, ...]:
        return _paired(runs, "fused-dynunet", "visual-only", lambda run: float(run["fusion"][name]))

    yield Comparison("a", "lesion Dice: fused features - T1 and FLAIR directly", "Dice", lesion("direct-dynunet"), True)
    yield Comparison("a", "Q^AB/F: with - without segmentation loss", "Q", fusion("qabf"), True)
    yield Comparison("a", "lesion Dice: with - without visual loss", "Dice", lesion("segmentation-only"), False)
    large = "lesion Dice: fused features - wider direct head, steps of both stages"
    yield Comparison("a", large, "Dice", lesion("direct-large"), False)
    yield Comparison("a", "SSIM: with - without segmentation loss", "SSIM", fusion("ssim"), False)
    contrast = "lesion contrast of the fused image: with - without segmentation loss"
    yield Comparison("a", contrast, "deviations", fusion("lesion_contrast"), False)


def _robust(runs: Runs) -> Iterable[Comparison]:
    def less_drop(degradation: str, figure: str) -> tuple[float, ...]:
        def drop(run: Measured) -> float:
            return float(run["dice"][figure]) - float(run["degraded"][degradation]["dice"][figure])

        return _paired(runs, "plain-dynunet", "fused-dynunet", drop)

    def less_change(degradation: str) -> tuple[float, ...]:
        return _paired(
            runs, "plain-dynunet", "fused-dynunet", lambda run: float(run["degraded"][degradation]["image_change"])
        )

    for name in DEGRADED:
        what = f"drop of lesion Dice under {name}: without - with constraints"
        yield Comparison("b", what, "Dice", less_drop(name, "lesion"), True)
    for name in DEGRADED:
        what = f"drop of tissue Dice under {name}: without - with constraints"
        yield Comparison("b", what, "Dice", less_drop(name, "tissues"), False)
    for name in DEGRADED:
        what = f"change of the fused image under {name}: without - with constraints"
        yield Comparison("b", what, "intensity", less_change(name), False)


def _general(runs: Runs) -> Iterable[Comparison]:
    for head in HEADS:
        gain = _paired(runs, f"fused-{head}", f"direct-{head}", _lesion)
        yield Comparison("c", f"lesion Dice, {head}: fused features - directly", "Dice", gain, True)
