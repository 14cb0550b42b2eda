"""From a prepared study to blended outputs: the loop over tiles, with as many in flight as the engine has slots.

While the engine computes tile n, tile n + 1 is cut out and tile n - 1 is blended.

    extract ─> submit ...engine... collect ─> blend
"""

from __future__ import annotations

from collections import deque
from dataclasses import asdict
from typing import Protocol

import numpy as np

from rmr_sdk.blend import Blender, BlendOptions, BlendOutputs
from rmr_sdk.engines.base import Session, Tensors
from rmr_sdk.errors import EngineError
from rmr_sdk.foreground import Foreground
from rmr_sdk.manifest import Manifest
from rmr_sdk.preprocess import Prepared
from rmr_sdk.tiles import FloatArray, TilePlan, extract_tile, plan_tiles
from rmr_sdk.watch import Stopwatch, Watch


class Arrival(Protocol):
    """When the voxels of each tile are there, for a study that is still being acquired."""

    def ready(self, index: int) -> bool:
        """Tell whether all voxels of a tile are there."""

    def wait(self, index: int) -> None:
        """Return once they are.

        Raises:
            Cancelled: Nobody is waiting for the result any more.
        """

    def holds(self, index: int) -> bool:
        """Tell whether a tile, whose voxels are there, holds foreground."""


def check_finite(predictions: Tensors, index: int) -> None:
    """Refuse a tile with NaN or infinite values: a reduced precision that overflowed must not become an image.

    Raises:
        EngineError: An output holds such a value.
    """
    for name, array in predictions.items():
        if not np.isfinite(array).all():
            raise not_finite(name, index)


def not_finite(output: str, index: int) -> EngineError:
    """Say which output of which tile holds NaN or infinite values."""
    return EngineError(
        f'the engine gave values in "{output}" of tile {index} that are not finite.',
        "Choose a wider precision, such as fp32.",
        output=output,
        tile=index,
    )


def plan_study(
    prepared: Prepared, manifest: Manifest, overlap: float, threads: int, foreground: Foreground | None = None
) -> TilePlan:
    """Cover the foreground of a study with tiles, those without foreground left out.

    Args:
        prepared: The study.
        manifest: Says what a tile is.
        overlap: Least part of a tile that it shares with the next.
        threads: Threads that search for foreground.
        foreground: Where it is, where that is known already.

    Raises:
        ConfigError: The overlap is out of range.
    """
    if foreground is None:
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


def blend_options(prepared: Prepared, manifest: Manifest) -> BlendOptions:
    """Say what is blended: the manifest's classes, and a fused image on the reference contrast's intensity scale."""
    classes, lesion = manifest.classes, manifest.lesion_class
    intensity = prepared.intensity[prepared.reference]
    return BlendOptions(
        classes=len(classes or ()),
        chosen_class=None if classes is None or lesion is None else classes.index(lesion),
        gain=intensity.gain,
        bias=intensity.zero,
    )


def make_blender(prepared: Prepared, plan: TilePlan, manifest: Manifest, threads: int) -> Blender:
    """Return a blender of `blend_options` that owns its outputs."""
    options = blend_options(prepared, manifest)
    outputs = BlendOutputs.allocate(
        plan.shape, labels=manifest.classes is not None, probability=manifest.lesion_class is not None
    )
    return Blender(plan, outputs, **asdict(options), threads=threads)


def infer(
    session: Session,
    slots: int,
    prepared: Prepared,
    plan: TilePlan,
    blender: Blender,
    clock: Stopwatch,
    watch: Watch,
    threads: int,
    arrival: Arrival | None = None,
) -> BlendOutputs:
    """Run every tile through the engine and blend what it gives.

    Args:
        session: The caller's queue of tiles.
        slots: Tiles to keep in flight.
        prepared: Where tiles are cut from.
        plan: The tiles.
        blender: Takes the predictions, in order.
        clock: Takes the seconds of "extract", "network" (waiting for the engine) and "blend".
        watch: Told after every tile.
        threads: Threads that cut tiles.
        arrival: When each tile can be cut, and whether it is worth it; None where all voxels are there.

    Raises:
        Cancelled: The callback returned False, or the deadline passed.
        EngineError: The engine failed on a tile, or gave values that are not finite.
    """
    sources = {name.lower(): (array, prepared.intensity[name]) for name, array in prepared.arrays.items()}
    shape, total = (1, 1, *plan.tile_shape), len(plan.tiles)
    buffers = [{name: np.empty(shape, np.float32) for name in sources} for _ in range(min(slots, total))]
    underway: deque[bool] = deque()  # whether each started tile went to the engine, the oldest first
    started = submitted = 0

    def start() -> None:
        nonlocal started, submitted
        worthwhile = arrival is None or arrival.holds(started)
        if worthwhile:
            inputs: dict[str, FloatArray] = buffers[submitted % len(buffers)]
            with clock("extract"):
                for name, (source, intensity) in sources.items():
                    extract_tile(source, plan.tiles[started].origin, inputs[name], intensity, threads)
            session.submit(inputs)
            submitted += 1
        underway.append(worthwhile)
        started += 1

    def start_ready() -> None:
        while len(underway) < len(buffers) and started < total and (arrival is None or arrival.ready(started)):
            start()

    watch.tell("infer", 0, total)
    start_ready()
    for index in range(total):
        if not underway and arrival is not None:
            with clock("arrival"):
                arrival.wait(index)
            start()
        if underway.popleft():
            with clock("network"):
                predictions = session.collect()
                check_finite(predictions, index)
        else:
            predictions = blender.background()
        start_ready()
        with clock("blend"):
            blender.add(index, predictions["fused"], predictions.get("probability"))
        watch.tell("infer", index + 1, total)
    return blender.finish()
