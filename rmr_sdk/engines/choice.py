"""What "auto" means: the fastest precision whose accuracy was measured and is within the bundle's tolerance.

Owns the candidates and the reason that a result records. What passes the gate the manifest says; the candidates are
timed by `rmr_sdk.engines.decision`, once per machine.

    engines -> offers -> candidates -> gate -> one left: take it
                                            -> several:  the one decided on for this machine
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from rmr_sdk.bundle import Bundle
from rmr_sdk.engines.base import Engine, EngineKind, EngineRequest, Offer, why
from rmr_sdk.engines.decision import Candidate, open_fastest
from rmr_sdk.errors import DeviceUnavailableError, EngineMismatchError
from rmr_sdk.manifest import Manifest


def open_chosen(
    bundle: Bundle, asked_engine: str, request: EngineRequest, groups: Sequence[Sequence[EngineKind]]
) -> tuple[Engine, str]:
    """Open what the caller asked for, or the best of what may be chosen.

    Args:
        bundle: The bundle.
        asked_engine: "auto", or the name of the one engine in `groups`.
        request: The other options.
        groups: Engines to choose from. A group is looked at only where none of the one before it is available.

    Returns:
        The engine, and one line that says what was chosen and why.

    Raises:
        EngineMismatchError: The bundle has no graph for it, or no precision may be chosen without being named.
        DeviceUnavailableError, EngineError, ChecksumError: As `rmr_sdk.engines.open_engine` says.
    """
    candidates, missing = find_candidates(bundle, request, groups)
    left_out: dict[str, str] = {}
    if request.precision == "auto":
        candidates, left_out = _pass_gate(bundle.manifest, candidates)
    measured = ""
    if len(candidates) > 1:
        engine, chosen, measured = open_fastest(bundle, request, candidates)
    else:
        chosen = candidates[0]
        engine = chosen.open(bundle, request)
    if request.precision != "auto":
        engine.warnings = (*engine.warnings, *_warn(bundle.manifest, request.precision))
    several = len({candidate.kind.name for candidate in candidates}) > 1
    by_default = "the fastest engine here" if several else "the default engine"
    by_engine = why(asked_engine, "; ".join((by_default, *missing)))
    by_device = why(request.device, chosen.offer.device_reason)
    by_precision = _explain(request.precision, measured, engine.info.detail, left_out)
    reason = (
        f"{chosen.kind.name} ({by_engine}), {engine.info.device} ({by_device}), {chosen.precision} ({by_precision})"
    )
    return engine, reason


def find_candidates(
    bundle: Bundle, request: EngineRequest, groups: Sequence[Sequence[EngineKind]]
) -> tuple[list[Candidate], tuple[str, ...]]:
    """Ask the engines what they offer, and keep what fits the request.

    Returns:
        The candidates, and what is wrong with the engines of the groups that had to be passed over.

    Raises:
        DeviceUnavailableError: No engine is there, or none for that device.
        EngineMismatchError: The bundle has no graph that they could run.
    """
    missing: list[DeviceUnavailableError] = []
    for group in groups:
        passed_over = tuple(str(error) for error in missing)
        offers = []
        for kind in group:
            offer = _ask(kind, bundle, request)
            if isinstance(offer, DeviceUnavailableError):
                missing.append(offer)
            else:
                offers.append((kind, offer))
        if offers:
            return _fitting(bundle, request, offers), passed_over
    raise missing[0]


def _ask(kind: EngineKind, bundle: Bundle, request: EngineRequest) -> Offer | DeviceUnavailableError:
    try:
        return kind.offer(bundle, request)
    except DeviceUnavailableError as error:
        return error


def _fitting(bundle: Bundle, request: EngineRequest, offers: Sequence[tuple[EngineKind, Offer]]) -> list[Candidate]:
    found = [Candidate(kind, offer, precision) for kind, offer in offers for precision in offer.precisions]
    if request.precision != "auto":
        # Where no engine offers it, the first one says why when it is opened.
        named = [candidate for candidate in found if candidate.precision == request.precision]
        return named or [Candidate(*offers[0], request.precision)]
    if not found:
        graphs = bundle.manifest.onnx_precisions
        raise EngineMismatchError(
            f'Bundle "{bundle.manifest.name}" has no graph that {" or ".join(kind.name for kind, _ in offers)} can run '
            f"here (it has: {', '.join(graphs)}).",
            "Choose another engine, or export the bundle with fp32.",
            found=graphs,
        )
    return found


def _pass_gate(manifest: Manifest, candidates: Sequence[Candidate]) -> tuple[list[Candidate], dict[str, str]]:
    problems = {candidate.precision: manifest.tolerance_problems(candidate.precision) for candidate in candidates}
    left_out = {precision: "; ".join(found) for precision, found in problems.items() if found}
    passed = [candidate for candidate in candidates if candidate.precision not in left_out]
    if not passed:
        raise EngineMismatchError(
            f'Bundle "{manifest.name}" has no precision that may be chosen here: {"; ".join(left_out.values())}.',
            "Name a precision, or measure it with rmr-export quantise.",
            left_out=left_out,
        )
    return passed, left_out


def _warn(manifest: Manifest, precision: str) -> tuple[str, ...]:
    problems = "; ".join(manifest.tolerance_problems(precision))
    return (f"{precision} runs because it was asked for by name: {problems}.",) if problems else ()


def _explain(asked: str, measured: str, detail: str, left_out: Mapping[str, str]) -> str:
    if asked != "auto":
        parts = ["asked for", measured]
    else:
        parts = [measured or "the only precision that may be chosen here"]
        parts += [f"{precision} left out: {problem}" for precision, problem in left_out.items()]
    return "; ".join(part for part in (*parts, detail) if part)
