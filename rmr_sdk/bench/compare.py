"""Two benchmarks side by side: what got faster, what got slower, and what the noise does not let anyone say."""

from __future__ import annotations

from collections.abc import Collection, Iterator
from dataclasses import dataclass

import msgspec

from rmr_sdk.bench.results import BenchResult, Configuration, Distribution
from rmr_sdk.bench.samples import Ratio, compare_samples
from rmr_sdk.errors import ConfigError

MAY_DIFFER = ("study", "bundle", "overlap")
"""What two results must share unless the caller names it."""


class ComparedFigure(msgspec.Struct, frozen=True, kw_only=True):
    """One figure of both sides: B's median over A's, with a confidence interval of 95 %."""

    configuration: str
    figure: str
    before_s: float
    after_s: float
    before_samples: int
    after_samples: int
    ratio: float
    ratio_low: float
    ratio_high: float
    verdict: str


class Comparison(msgspec.Struct, frozen=True, kw_only=True):
    """Two results compared; `remarks` says what else differs or disturbs."""

    figures: tuple[ComparedFigure, ...]
    remarks: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class _Pair:
    label: str
    before: Configuration
    after: Configuration


def compare_results(before: BenchResult, after: BenchResult, may_differ: Collection[str] = ()) -> Comparison:
    """Compare two results.

    Args:
        before: A.
        after: B.
        may_differ: Those of `MAY_DIFFER` that need not be the same.

    Raises:
        ConfigError: They measured different things, or share no configuration, or `may_differ` names something else.
    """
    for name in may_differ:
        if name not in MAY_DIFFER:
            raise ConfigError(
                f'"{name}" is nothing that two results must share.',
                f"Choose among {', '.join(MAY_DIFFER)}.",
                value=name,
            )
    different = [name for name in MAY_DIFFER if _identity(before, name) != _identity(after, name)]
    refused = [name for name in different if name not in may_differ]
    if refused:
        raise ConfigError(
            f"The results differ in {' and '.join(f'{name} ({_describe(before, after, name)})' for name in refused)}.",
            f"Compare like with like, or pass --may-differ {' '.join(refused)}.",
            different=tuple(refused),
        )
    pairs = _pair_up(before, after)
    figures = tuple(figure for pair in pairs for figure in _figures(pair))
    return Comparison(figures=figures, remarks=tuple(_remarks(before, after, different)))


def encode_comparison(comparison: Comparison) -> bytes:
    """Return a comparison as indented JSON."""
    return msgspec.json.format(msgspec.json.encode(comparison), indent=2) + b"\n"


def _identity(result: BenchResult, name: str) -> object:
    return {
        "study": result.study.fingerprint,
        "bundle": result.bundle.hash,
        "overlap": result.protocol.overlap,
    }[name]


def _describe(before: BenchResult, after: BenchResult, name: str) -> str:
    """Say how both sides differ, in words that a reader can check."""
    if name == "study":
        a, b = (
            ("demo study" if each.study.demo else "study") + f" {each.study.fingerprint[:8]}"
            for each in (before, after)
        )
    elif name == "bundle":
        a, b = (f"{each.bundle.name} {each.bundle.version} {each.bundle.hash[:8]}" for each in (before, after))
    else:
        a, b = (f"{each.protocol.overlap:g}" for each in (before, after))
    return f"{a} and {b}"


def _pair_up(before: BenchResult, after: BenchResult) -> list[_Pair]:
    """Match configurations by engine, kind of device and precision; single ones match whatever they are.

    Raises:
        ConfigError: None match.
    """
    theirs = {_key(each): each for each in reversed(after.configurations)}
    pairs = [
        _Pair(each.label, each, theirs[_key(each)])
        for each in {_key(each): each for each in reversed(before.configurations)}.values()
        if _key(each) in theirs
    ][::-1]
    if pairs:
        return pairs
    if len(before.configurations) == len(after.configurations) == 1:
        a, b = before.configurations[0], after.configurations[0]
        return [_Pair(f"{a.label} -> {b.label}", a, b)]
    raise ConfigError(
        "The results share no configuration: "
        f"{', '.join(each.label for each in before.configurations)} in A, "
        f"{', '.join(each.label for each in after.configurations)} in B.",
        "Measure the same engine and precision on both sides, or a single one on each.",
    )


def _key(configuration: Configuration) -> tuple[str, str, str]:
    return configuration.engine, configuration.device.partition(":")[0], configuration.precision


def _figures(pair: _Pair) -> Iterator[ComparedFigure]:
    yield _figure(pair.label, "study", pair.before.study_s, pair.after.study_s)
    yield _figure(pair.label, "tile", pair.before.tile_s, pair.after.tile_s)
    for stage, samples in pair.before.stages_s.items():
        other = pair.after.stages_s.get(stage)
        if other is not None and stage != "other":
            yield _figure(pair.label, stage, samples, other)


def _figure(label: str, name: str, before: Distribution, after: Distribution) -> ComparedFigure:
    least = 1e-9  # a clock that ticks too seldom
    ratio: Ratio = compare_samples(
        [max(value, least) for value in before.values_s], [max(value, least) for value in after.values_s]
    )
    return ComparedFigure(
        configuration=label,
        figure=name,
        before_s=before.p50_s,
        after_s=after.p50_s,
        before_samples=before.samples,
        after_samples=after.samples,
        ratio=round(ratio.value, 4),
        ratio_low=round(ratio.low, 4),
        ratio_high=round(ratio.high, 4),
        verdict=ratio.verdict,
    )


def _remarks(before: BenchResult, after: BenchResult, different: Collection[str]) -> Iterator[str]:
    for name in different:
        yield f"different {name}: {_describe(before, after, name)}"
    a, b = before.machine, after.machine
    for what, one, other in (
        ("machine", f"{a.cpu}, {a.usable_cores} cores", f"{b.cpu}, {b.usable_cores} cores"),
        ("SDK", before.sdk_version, after.sdk_version),
        ("power mode", before.conditions.power_mode, after.conditions.power_mode),
    ):
        if one != other:
            yield f"different {what}: {one} and {other}"
    for package in sorted(a.versions.keys() | b.versions.keys()):
        one, other = a.versions.get(package), b.versions.get(package)
        if one != other:
            yield f"different {package}: {one or 'none'} and {other or 'none'}"
    for side, result in (("A", before), ("B", after)):
        for note in result.notes:
            yield f"{side}: {note}"
