"""The measurement: every configuration opened, started cold, warmed up and run in interleaved rounds.

    open all -> cold starts -> warm-up rounds -> rounds that count: run each study, then single tiles -> roofline

Interleaving lets every configuration see the same moments of a machine that is never quite quiet; the order turns by
one from round to round.
"""

from __future__ import annotations

import gc
import time
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path

from rmr_sdk._version import __version__
from rmr_sdk.bench.answers import agreement, study_facts
from rmr_sdk.bench.cold import measure_cold_starts
from rmr_sdk.bench.energy import Metered, open_meter
from rmr_sdk.bench.machine import Observer, describe_machine, now, remarks
from rmr_sdk.bench.nvml import Nvml
from rmr_sdk.bench.results import (
    AccuracyFigure,
    BenchResult,
    BundleFacts,
    ColdStart,
    Configuration,
    Energy,
    Memory,
    Protocol,
)
from rmr_sdk.bench.roofline import measure_roofline
from rmr_sdk.bench.samples import describe
from rmr_sdk.bench.settings import Asked, BenchSettings
from rmr_sdk.demo import demo_study_folder
from rmr_sdk.manifest import Manifest
from rmr_sdk.pipeline import Pipeline
from rmr_sdk.result import Result
from rmr_sdk.study import Study
from rmr_sdk.watch import Progress

TILES_PER_ROUND = 2
"""Single tiles that each configuration computes in a round."""

Report = Callable[[Progress], object]


@dataclass(slots=True)
class Bench:
    """One configuration while it is measured."""

    asked: Asked
    pipeline: Pipeline
    meter: Metered
    cold_starts: tuple[ColdStart, ...] = ()
    memory: Memory | None = None
    study_s: list[float] = field(default_factory=list)
    stages_s: dict[str, list[float]] = field(default_factory=dict)
    tile_s: list[float] = field(default_factory=list)
    first: Result | None = None


def run_bench(folder: Path | None, settings: BenchSettings, report: Report = lambda progress: None) -> BenchResult:
    """Measure a study.

    Args:
        folder: As for `Study.from_folder`; None for the demo study.
        settings: How.
        report: Told of every step.

    Raises:
        RmrError: As `Study.from_folder`, `Pipeline.open` and `Pipeline.run`; a fresh process may fail too.
    """
    report(Progress("read", 0, 1))
    place = demo_study_folder() if folder is None else folder
    study = Study.from_folder(place)
    gpu = Nvml.open()
    with ExitStack() as stack:
        benches = _open_all(settings, gpu, stack, report)
        _start_cold(benches, settings, place, report)
        _rounds("warm", settings.warmup, benches, lambda bench: _run_once(bench, study, settings, counts=False), report)
        observer = Observer(gpu=gpu)

        def measure(bench: Bench) -> None:
            _run_once(bench, study, settings, counts=True)
            _time_tiles(bench)
            observer.look()

        _rounds("bench", settings.repeats, benches, measure, report)
        conditions = observer.finish()
        configurations = _finish(benches)
        manifest, bundle_hash = benches[0].pipeline.manifest, benches[0].pipeline.bundle.hash
        report(Progress("roof", 0, 1))
        roofline = measure_roofline(benches[0].pipeline.bundle, configurations, study) if settings.roofline else None
    return BenchResult(
        date=now(),
        sdk_version=__version__,
        study=study_facts(study, manifest.reference, demo=folder is None),
        bundle=BundleFacts(
            name=manifest.name, version=manifest.version, hash=bundle_hash, tile_shape=manifest.tile_shape
        ),
        protocol=Protocol(
            warmup=settings.warmup,
            repeats=settings.repeats,
            cold_starts=settings.cold_starts,
            overlap=settings.overlap,
        ),
        machine=describe_machine(gpu=gpu),
        conditions=conditions,
        configurations=configurations,
        roofline=roofline,
        accuracy=_accuracy(manifest),
        notes=remarks(conditions),
    )


def _open_all(settings: BenchSettings, gpu: Nvml | None, stack: ExitStack, report: Report) -> list[Bench]:
    asked = list(settings.configurations)
    benches = []
    for index, each in enumerate(asked):
        report(Progress("open", index, len(asked)))
        pipeline = stack.enter_context(Pipeline.open(**settings.open_options(each)))
        meter = open_meter(pipeline.engine_info.device, gpu=gpu)
        if meter is not None:
            stack.callback(meter.close)
        benches.append(Bench(each, pipeline, Metered(meter)))
    return benches


def _start_cold(benches: Sequence[Bench], settings: BenchSettings, place: Path, report: Report) -> None:
    total, done = len(benches) * (settings.cold_starts + 1), 0
    if settings.cold_starts == 0:
        return
    report(Progress("cold", 0, total))

    def tell() -> None:
        nonlocal done
        done += 1
        report(Progress("cold", done, total))

    for bench in benches:
        bench.cold_starts, bench.memory = measure_cold_starts(settings, bench.asked, place, tell)


def _rounds(stage: str, count: int, benches: Sequence[Bench], step: Callable[[Bench], None], report: Report) -> None:
    """Do a step for every configuration in every round, each round beginning with another one."""
    total = count * len(benches)
    for index in range(total):
        report(Progress(stage, index, total))
        turn, place = divmod(index, len(benches))
        step(benches[(turn + place) % len(benches)])


def _run_once(bench: Bench, study: Study, settings: BenchSettings, counts: bool) -> None:
    """Run the study; keep the first result, which agreement is measured on."""
    gc.collect()
    if not counts:
        bench.first = bench.pipeline.run(study, overlap=settings.overlap)
        return
    with bench.meter:
        began = time.perf_counter()
        result = bench.pipeline.run(study, overlap=settings.overlap)
        seconds = time.perf_counter() - began
    bench.study_s.append(seconds)
    for stage, value in {**result.timings, "other": seconds - sum(result.timings.values())}.items():
        bench.stages_s.setdefault(stage, []).append(max(0.0, value))
    if bench.first is None:
        bench.first = result


def _time_tiles(bench: Bench) -> None:
    """Compute the golden tile, nothing else in flight."""
    inputs = bench.pipeline.bundle.golden().network_inputs()
    with bench.pipeline._engine.session() as session:
        for _ in range(TILES_PER_ROUND):
            began = time.perf_counter()
            session.submit(inputs)
            session.collect()
            bench.tile_s.append(time.perf_counter() - began)


def _finish(benches: Sequence[Bench]) -> tuple[Configuration, ...]:
    found: list[Configuration] = []
    for bench in benches:
        label = _label(bench, {each.label for each in found})
        found.append(_configuration(bench, label, benches[0]))
    return tuple(found)


def _label(bench: Bench, taken: set[str]) -> str:
    info = bench.pipeline.engine_info
    name = f"{info.name} {info.precision}" + ("" if info.device == "cpu" else f" on {info.device}")
    number = next(n for n in range(1, len(taken) + 2) if _numbered(name, n) not in taken)
    return _numbered(name, number)


def _numbered(name: str, number: int) -> str:
    return name if number == 1 else f"{name} #{number}"


def _configuration(bench: Bench, label: str, base: Bench) -> Configuration:
    info, result, meter = bench.pipeline.engine_info, bench.first, bench.meter
    assert result is not None  # every configuration has run
    assert base.first is not None
    return Configuration(
        label=label,
        asked={"engine": bench.asked.engine, "device": bench.asked.device, "precision": bench.asked.precision},
        engine=info.name,
        engine_version=info.version,
        engine_reason=bench.pipeline.reason,
        device=info.device,
        device_name=info.device_name,
        precision=info.precision,
        threads=info.threads or None,
        tiles=result.provenance.tiles,
        tiles_skipped=result.provenance.tiles_skipped,
        study_s=describe(bench.study_s),
        stages_s={stage: describe(values) for stage, values in bench.stages_s.items()},
        tile_s=describe(bench.tile_s),
        cold_starts=bench.cold_starts,
        memory=bench.memory,
        energy=_energy(meter),
        agreement=None if bench is base else agreement(base.first, result),
        warnings=bench.pipeline._engine.warnings,
    )


def _energy(meter: Metered) -> Energy | None:
    if meter.source is None or meter.blocks == 0:
        return None
    return Energy(
        source=meter.source,
        joules_per_study=round(meter.joules / meter.blocks, 3),
        mean_watts=round(meter.joules / meter.seconds, 3) if meter.seconds > 0 else 0.0,
    )


def _accuracy(manifest: Manifest) -> tuple[AccuracyFigure, ...]:
    return tuple(
        AccuracyFigure(
            precision=figure.precision,
            metric=figure.metric,
            study_set=figure.study_set,
            value=figure.value,
            studies=figure.studies,
        )
        for figure in manifest.accuracy
    )
