"""A benchmark and a comparison as lines of text for a terminal."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from rmr_sdk.bench.compare import Comparison
from rmr_sdk.bench.plots import ordered_stages
from rmr_sdk.bench.results import BenchResult, Configuration
from rmr_sdk.bench.svg import short
from rmr_sdk.manifest import INTENDED_USE

NONE = "-"


def render_result(result: BenchResult) -> str:
    """Lay a result out for a person."""
    return "\n".join(_result_lines(result))


def render_comparison(comparison: Comparison) -> str:
    """Lay a comparison out for a person."""
    head = ["configuration", "figure", "A (s)", "B (s)", "B / A", "95 % interval", "n", "verdict"]
    rows = [
        [
            each.configuration,
            each.figure,
            short(each.before_s),
            short(each.after_s),
            f"{each.ratio:.3f}",
            f"{each.ratio_low:.3f} to {each.ratio_high:.3f}",
            f"{each.before_samples}, {each.after_samples}",
            each.verdict,
        ]
        for each in comparison.figures
    ]
    lines = [*_aligned(head, rows, right={2, 3, 4}), *(f"Remark:   {remark}" for remark in comparison.remarks)]
    return "\n".join(lines)


def _result_lines(result: BenchResult) -> Iterator[str]:
    protocol, machine, study = result.protocol, result.machine, result.study
    name = "demo study" if study.demo else f"study {study.fingerprint[:8]}"
    yield (
        f"{result.bundle.name} {result.bundle.version}, {name}, {' x '.join(map(str, study.shape))} voxels, "
        f"overlap {protocol.overlap:g}, {protocol.repeats} interleaved rounds"
    )
    gpus = "".join(f", {gpu.name}" for gpu in machine.gpus)
    yield f"{machine.cpu}, {machine.usable_cores} cores{gpus}; {result.date}"
    yield ""
    yield from _aligned(*_latency(result), right=set(range(1, 9)))
    stages = list(dict.fromkeys(stage for each in result.configurations for stage in ordered_stages(each)))
    yield ""
    yield from _aligned(
        ["stage (s, p50)", *stages],
        [[each.label, *(_stage(each, stage) for stage in stages)] for each in result.configurations],
        right=set(range(1, len(stages) + 1)),
    )
    starts = [
        [
            each.label,
            start.engine_cache,
            *(short(value) for value in (start.import_s, start.open_s, start.first_tile_s, start.ready_s)),
            str(start.processes),
        ]
        for each in result.configurations
        for start in each.cold_starts
    ]
    if starts:
        yield ""
        head = ["cold start (s)", "engine cache", "import", "open", "first tile", "ready", "n"]
        yield from _aligned(head, starts, right=set(range(2, 7)))
    yield ""
    if all(each.study_s.p95_s is None for each in result.configurations):
        yield f"No p95 or p99: they take 20 and 100 rounds, and there were {protocol.repeats}."
    for note in result.notes:
        yield f"Warning:  {note}"
    yield INTENDED_USE


def _latency(result: BenchResult) -> tuple[list[str], list[list[str]]]:
    head = ["study (s)", "p50", "p95", "p99", "max", "n", "tile p50", "same labels", "peak MiB", "joules"]
    rows = []
    for each in result.configurations:
        samples, agreement, memory = each.study_s, each.agreement, each.memory
        rows.append(
            [
                each.label,
                *(_seconds(value) for value in (samples.p50_s, samples.p95_s, samples.p99_s, samples.max_s)),
                str(samples.samples),
                short(each.tile_s.p50_s),
                NONE if agreement is None or agreement.labels is None else f"{100 * agreement.labels:.2f} %",
                NONE if memory is None else f"{max(memory.host_mib.values()):.0f}",
                NONE if each.energy is None else short(each.energy.joules_per_study),
            ]
        )
    return head, rows


def _stage(each: Configuration, stage: str) -> str:
    return short(each.stages_s[stage].p50_s) if stage in each.stages_s else NONE


def _seconds(value: float | None) -> str:
    return NONE if value is None else short(value)


def _aligned(head: Sequence[str], rows: Sequence[Sequence[str]], right: set[int]) -> Iterator[str]:
    """Give lines whose columns stand below each other."""
    widths = [max(len(row[column]) for row in (head, *rows)) for column in range(len(head))]
    for row in (head, *rows):
        cells = (
            cell.rjust(width) if column in right else cell.ljust(width)
            for column, (cell, width) in enumerate(zip(row, widths, strict=True))
        )
        yield "  ".join(cells).rstrip()
