"""Which of several candidates computes here: measured once on a machine, and kept in the user's cache.

Owns the decision, its key and its words. Which candidates there are is `rmr_sdk.engines.choice`; how they are timed is
`rmr_sdk.engines.timing`.

    candidates -> cached decision ------------------------------> open the chosen one
               -> none: open all -> time in turns -> keep it ---> close the others
"""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import date

import msgspec

from rmr_sdk.bundle import Bundle
from rmr_sdk.engines.base import PRECISIONS, Engine, EngineKind, EngineRequest, Offer
from rmr_sdk.engines.cache import EngineCache, cache_key
from rmr_sdk.engines.cores import usable_cores
from rmr_sdk.engines.timing import MARGIN, preferred, time_engines
from rmr_sdk.errors import DeviceError, EngineError, EngineMismatchError

logger = logging.getLogger(__name__)

_UNKEPT = (
    "The engine cache cannot be written: which precision is fastest is measured at each opening, and may differ from "
    "one opening to the next. Name a precision, or pass a cache folder that can be written."
)


@dataclass(frozen=True, slots=True)
class Candidate:
    """A precision that an engine offers to compute in."""

    kind: EngineKind
    offer: Offer
    precision: str

    @property
    def label(self) -> str:
        """Name it among candidates of several engines."""
        return f"{self.kind.name} {self.precision}"

    def open(self, bundle: Bundle, request: EngineRequest) -> Engine:
        """Make the bundle ready on it; raises as `rmr_sdk.engines.open_engine` does."""
        return self.kind.open(bundle, replace(request, precision=self.precision))


class Decision(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What was chosen on this machine, and what speaks for it.

    `measured` is a date, `seconds` has the seconds a tile by label, and `failed` says why a candidate does not run.
    """

    chosen: str
    measured: str
    seconds: dict[str, float]
    failed: dict[str, str]


def open_fastest(
    bundle: Bundle, request: EngineRequest, candidates: Sequence[Candidate]
) -> tuple[Engine, Candidate, str]:
    """Open the candidate that was decided on; decide where that has not been done on this machine.

    Args:
        bundle: The bundle.
        request: The caller's options.
        candidates: Two or more.

    Returns:
        The engine, its candidate, and what speaks for it.

    Raises:
        EngineError, DeviceError, EngineMismatchError, ChecksumError: The chosen one, or every one, cannot be opened.
    """
    by_label = {candidate.label: candidate for candidate in candidates}
    cache, key = EngineCache("choice", request.cache_dir), _key(bundle, request, candidates)
    decision = _recall(cache, key, by_label)
    if decision is None:
        with cache.making(key):  # two processes that measure at once would measure each other
            decision = _recall(cache, key, by_label)
            if decision is None:
                return _decide(bundle, request, candidates, cache, key)
    chosen = by_label[decision.chosen]
    return chosen.open(bundle, request), chosen, _tell(decision, candidates, "cached")


def _decide(
    bundle: Bundle, request: EngineRequest, candidates: Sequence[Candidate], cache: EngineCache, key: str
) -> tuple[Engine, Candidate, str]:
    by_label = {candidate.label: candidate for candidate in candidates}
    engines, failed = _open_all(bundle, request, candidates)
    with contextlib.ExitStack() as stack:
        for engine in engines.values():
            stack.callback(engine.close)
        logger.info("measuring, once, which of these is the fastest here: %s", ", ".join(engines))
        decision = _measure(bundle, engines, by_label, failed)
        # Another process that could not be kept out may have decided meanwhile: who was first is right.
        first = _recall(cache, key, engines)
        decision = first or decision
        kept = first is not None or cache.store(key, msgspec.json.encode(decision)) is None
        engine = engines.pop(decision.chosen)
        stack.pop_all()
    for other in engines.values():
        other.close()
    if not kept:
        engine.warnings = (*engine.warnings, _UNKEPT)
    return engine, by_label[decision.chosen], _tell(decision, candidates, "now" if kept else "now, not kept")


def _open_all(
    bundle: Bundle, request: EngineRequest, candidates: Sequence[Candidate]
) -> tuple[dict[str, Engine], dict[str, str]]:
    """Open every candidate; one that does not reproduce the golden tile, or finds no memory, is out of the race."""
    engines: dict[str, Engine] = {}
    failed: dict[str, Exception] = {}
    for candidate in candidates:
        opened = _try_open(candidate, bundle, request)
        if isinstance(opened, Exception):
            logger.warning("%s is left out: %s", candidate.label, opened)
            failed[candidate.label] = opened
        else:
            engines[candidate.label] = opened
    if not engines:
        raise next(iter(failed.values()))
    return engines, {label: str(error) for label, error in failed.items()}


def _try_open(candidate: Candidate, bundle: Bundle, request: EngineRequest) -> Engine | Exception:
    try:
        return candidate.open(bundle, request)
    except (EngineError, DeviceError, EngineMismatchError) as error:
        return error


def _measure(
    bundle: Bundle, engines: dict[str, Engine], candidates: dict[str, Candidate], failed: dict[str, str]
) -> Decision:
    seconds = time_engines(engines, bundle.golden().network_inputs())
    exactness = sorted(engines, key=lambda label: PRECISIONS.index(candidates[label].precision))
    chosen = preferred(seconds, exactness)
    return Decision(chosen=chosen, measured=date.today().isoformat(), seconds=seconds, failed=failed)


def _recall(cache: EngineCache, key: str, labels: dict[str, Candidate] | dict[str, Engine]) -> Decision | None:
    data = cache.load(key)
    try:
        decision = None if data is None else msgspec.json.decode(data, type=Decision)
    except msgspec.DecodeError:
        return None
    return decision if decision is not None and decision.chosen in labels else None


def _key(bundle: Bundle, request: EngineRequest, candidates: Sequence[Candidate]) -> str:
    return cache_key(
        {
            "layout": 1,
            "bundle": bundle.hash,
            "threads": request.threads or usable_cores(),
            "candidates": [[candidate.label, candidate.offer.device] for candidate in candidates],
            "facts": {candidate.kind.name: dict(candidate.offer.facts) for candidate in candidates},
        }
    )


def _tell(decision: Decision, candidates: Sequence[Candidate], when: str) -> str:
    one_engine = len({candidate.kind.name for candidate in candidates}) == 1
    names = {candidate.label: candidate.precision if one_engine else candidate.label for candidate in candidates}
    times = ", ".join(f"{names[label]} {value:.3g} s" for label, value in decision.seconds.items())
    fastest = min(decision.seconds, key=decision.seconds.__getitem__) == decision.chosen
    what = "fastest of" if fastest else f"most exact within {MARGIN:.0%} of the fastest of"
    failed = "".join(f"; {names[label]} does not run here" for label in decision.failed)
    return f"{what} {times} a tile that passed the accuracy gate; measured {decision.measured}, {when}{failed}"
