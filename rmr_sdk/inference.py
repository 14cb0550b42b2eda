"""From a prepared study to blended outputs: the loop over tiles, with as many in flight as the engine has slots.

While the engine computes tile n, tile n + 1 is cut out and tile n - 1 is blended.

    extract ─> submit ...engine... collect ─> blend
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

import numpy as np

from rmr_sdk.blend import Blender, BlendOutputs
from rmr_sdk.engines.base import Session, Tensors
from rmr_sdk.errors import Cancelled, EngineError
from rmr_sdk.foreground import Foreground
from rmr_sdk.manifest import Manifest
from rmr_sdk.preprocess import Prepared
from rmr_sdk.tiles import FloatArray, TilePlan, extract_tile, plan_tiles


@dataclass(frozen=True, slots=True)
class Progress:
    """How far a run has come.

    Attributes:
        stage: "prepare", "infer" or "measure".
        done: Steps of the stage that are finished.
        total: Steps of the stage in all.
    """

    stage: str
    done: int
    total: int


ProgressCallback = Callable[[Progress], object]
"""Called with the progress; a return value that is False, and nothing else, cancels the run."""


@dataclass(slots=True)
class Stopwatch:
    """Wall-clock seconds by stage, added up over all times a stage was entered."""

    seconds: dict[str, float] = field(default_factory=dict)

    @contextmanager
    def __call__(self, stage: str) -> Iterator[None]:
        """Time a `with` block as part of a stage."""
        started = time.perf_counter()
        try:
            yield
        finally:
            self.seconds[stage] = self.seconds.get(stage, 0.0) + time.perf_counter() - started


def tell(report: ProgressCallback | None, stage: str, done: int, total: int) -> None:
    """Report progress.

    Raises:
        Cancelled: The callback returned False.
    """
    if report is not None and report(Progress(stage, done, total)) is False:
        raise Cancelled(f"the run was cancelled during {stage!r} ({done} of {total}).", stage=stage, done=done)


def check_finite(predictions: Tensors, index: int) -> None:
    """Refuse a tile with NaN or infinite values: a reduced precision that overflowed must not become an image.

    Raises:
        EngineError: An output holds such a value.
    """
    for name, array in predictions.items():
        if not np.isfinite(array).all():
            raise EngineError(
                f'the engine gave values in "{name}" of tile {index} that are not finite.',
                "Choose a wider precision, such as fp32.",
                output=name,
                tile=index,
            )


def plan_study(prepared: Prepared, manifest: Manifest, overlap: float, threads: int) -> TilePlan:
    """Cover the foreground of a study with tiles, those without foreground left out.

    Raises:
        ConfigError: The overlap is out of range.
    """
    contrasts = list(prepared.arrays)
    sources = [prepared.arrays[name] for name in contrasts]
    foreground = Foreground(sources, [prepared.intensity[name].floor for name in contrasts], threads)
    return plan_tiles(
        foreground.low,
        foreground.high,
        prepared.grid.shape,
        manifest.tile_shape,
        overlap,
        foreground.holds,
        manifest.window.sigma_scale,
    )


def make_blender(prepared: Prepared, plan: TilePlan, manifest: Manifest, threads: int) -> Blender:
    """Return a blender whose fused output is on the reference contrast's intensity scale."""
    classes, lesion = manifest.classes, manifest.lesion_class
    intensity = prepared.intensity[prepared.reference]
    outputs = BlendOutputs.allocate(plan.shape, labels=classes is not None, probability=lesion is not None)
    return Blender(
        plan,
        outputs,
        classes=len(classes or ()),
        chosen_class=None if classes is None or lesion is None else classes.index(lesion),
        gain=1.0 / intensity.scale,
        bias=intensity.offset,
        threads=threads,
    )


def infer(
    session: Session,
    slots: int,
    prepared: Prepared,
    plan: TilePlan,
    blender: Blender,
    clock: Stopwatch,
    report: ProgressCallback | None,
    threads: int,
) -> BlendOutputs:
    """Run every tile through the engine and blend what it gives.

    Args:
        session: The caller's queue of tiles.
        slots: Tiles to keep in flight.
        prepared: Where tiles are cut from.
        plan: The tiles.
        blender: Takes the predictions, in order.
        clock: Takes the seconds of "extract", "network" (waiting for the engine) and "blend".
        report: Told after every tile.
        threads: Threads that cut tiles.

    Raises:
        Cancelled: The callback returned False.
        EngineError: The engine failed on a tile, or gave values that are not finite.
    """
    sources = {name.lower(): (array, prepared.intensity[name]) for name, array in prepared.arrays.items()}
    shape = (1, 1, *plan.tile_shape)
    buffers = [{name: np.empty(shape, np.float32) for name in sources} for _ in range(min(slots, len(plan.tiles)))]
    total = len(plan.tiles)

    def submit(index: int) -> None:
        inputs: dict[str, FloatArray] = buffers[index % len(buffers)]
        with clock("extract"):
            for name, (source, intensity) in sources.items():
                extract_tile(source, plan.tiles[index].origin, inputs[name], intensity, threads)
        session.submit(inputs)

    tell(report, "infer", 0, total)
    for index in range(len(buffers)):
        submit(index)
    for index in range(total):
        with clock("network"):
            predictions = session.collect()
            check_finite(predictions, index)
        if index + len(buffers) < total:
            submit(index + len(buffers))
        with clock("blend"):
            blender.add(index, predictions["fused"], predictions.get("probability"))
        tell(report, "infer", index + 1, total)
    return blender.finish()
