"""The pipeline: a bundle made ready on an engine, and studies that run through it.

study -> check -> common grid -> normalise -> tiles -> engine -> blend -> labels -> native grid -> result
"""

from __future__ import annotations

import logging
import math
import os
import time
from collections.abc import Mapping
from types import TracebackType
from typing import Any

import numpy as np
import numpy.typing as npt

from rmr_sdk.blend import BlendOutputs
from rmr_sdk.brain_mask import forget_outside
from rmr_sdk.bundle import Bundle
from rmr_sdk.conclusion import Origin, Ran, conclude
from rmr_sdk.device_pipeline import infer_on_device, runs_on_device
from rmr_sdk.engines import Engine, EngineInfo, open_engine
from rmr_sdk.engines.cores import usable_cores
from rmr_sdk.errors import ConfigError
from rmr_sdk.geometry import Grid
from rmr_sdk.inference import Arrival, infer, make_blender, plan_study
from rmr_sdk.lesion_rule import LesionRule
from rmr_sdk.manifest import Manifest
from rmr_sdk.planning import MemoryPlan, Pace, RunPlan
from rmr_sdk.preprocess import Align, NonFinite, Prepared, prepare
from rmr_sdk.result import Result
from rmr_sdk.streaming import StreamOptions, StudyStream
from rmr_sdk.study import Study
from rmr_sdk.tiles import TilePlan, check_overlap
from rmr_sdk.volume import Volume
from rmr_sdk.watch import ProgressCallback, Stopwatch, Watch

logger = logging.getLogger(__name__)

KERNEL_THREADS = 4
"""Most threads that extraction and blending use: they wait for memory, not for cores."""

DEFAULT_BUNDLE = "ms-edge"
"""The bundle that comes with the package and runs when none is named."""


class Pipeline:
    """A bundle on an engine, ready for any number of studies; safe from several threads.

    Use `Pipeline.open`, as a context manager or with `close`.
    """

    def __init__(
        self,
        bundle: Bundle,
        engine: Engine,
        reason: str,
        max_memory_mib: float | None = None,
        rule: LesionRule | None = None,
    ) -> None:
        self.bundle = bundle
        self.reason = reason
        self._engine = engine
        self._max_memory_mib = max_memory_mib
        self._rule = LesionRule.of(bundle.manifest) if rule is None else rule
        self._pace = Pace()
        self._threads = min(KERNEL_THREADS, engine.info.threads or usable_cores())

    @classmethod
    def open(
        cls,
        bundle: str | os.PathLike[str] = DEFAULT_BUNDLE,
        *,
        engine: str = "auto",
        device: str = "auto",
        precision: str = "auto",
        threads: int | None = None,
        cache_dir: str | os.PathLike[str] | None = None,
        max_memory_mib: float | None = None,
        least_lesion_probability: float | None = None,
        least_white_matter: float | None = None,
        lesion_threshold: float | None = None,
        least_lesion_mm3: float | None = None,
    ) -> Pipeline:
        """Open a bundle and make its network ready.

        Args:
            bundle: Name of a bundle that comes with the package, or the path of a folder or .zip.
            engine: "auto", or one of `rmr_sdk.engines.ENGINES`.
            device: "auto", or one of `rmr_sdk.engines.DEVICES`.
            precision: "auto", "fp32", "bf16", "fp16" or "int8".
            threads: Threads to compute with; None for all cores.
            cache_dir: Where compiled networks are kept; None for the user's cache.
            max_memory_mib: Most memory, in MiB, that a run may plan for its outputs, tiles and blending; the
                network's own memory comes on top. On a GPU it is that of the GPU. None for no limit.
            least_lesion_probability: Mean probability, 0 to 1, from which on a connected lesion is kept; what is below
                becomes what is around it. None for what the bundle states; 0 keeps all.
            least_white_matter: Least share, 0 to 1, of white matter among the labels that a connected lesion touches,
                likewise: what scalp, orbit or cortex surrounds is seldom a lesion.
            lesion_threshold: Probability, 0 to 1, from which on a voxel of a lesion is kept, whatever the load. None
                for what the bundle states for the load that is found; 0 keeps all. Where it parts a lesion, pieces
                are kept as the bundle states (`least_piece`).
            least_lesion_mm3: Least volume, 0 to 1000 mm3, of a connected lesion after all of that. None for what the
                bundle states; 0 keeps all.

        Raises:
            BundleError: The bundle does not exist, is damaged, or has no graph for the engine and the precision.
            ConfigError: An option has a value that does not exist.
            DeviceUnavailableError: The engine, the device or its precision is not there.
            EngineError: The engine does not reproduce the golden tile.
        """
        if max_memory_mib is not None and not 0 < max_memory_mib < math.inf:
            raise ConfigError(f"max_memory_mib is {max_memory_mib}.", "Pass a positive number, or None for no limit.")
        opened = Bundle.open(bundle)
        levels = (least_lesion_probability, least_white_matter, lesion_threshold, least_lesion_mm3)
        rule = LesionRule.of(opened.manifest, *levels)
        ready, reason = open_engine(opened, engine, device, precision, threads, cache_dir)
        logger.info("opened %s: %s", opened.manifest.name, reason)
        return cls(opened, ready, reason, max_memory_mib, rule)

    @property
    def manifest(self) -> Manifest:
        """Return the manifest of the bundle."""
        return self.bundle.manifest

    @property
    def engine_info(self) -> EngineInfo:
        """Return what the network runs on."""
        return self._engine.info

    def run(
        self,
        study: Study,
        *,
        overlap: float = 0.25,
        reference: str | None = None,
        align: Align = "auto",
        non_finite: NonFinite = "error",
        brain_mask: Volume | None = None,
        progress: ProgressCallback | None = None,
        deadline_s: float | None = None,
    ) -> Result:
        """Fuse and segment a study.

        Args:
            study: Holds at least the contrasts of the bundle.
            overlap: Least part of a tile that it shares with the next, 0 to 0.9.
            reference: The contrast whose grid and intensity scale results come back on; by default the manifest's.
            align: "auto" registers a contrast rigidly where its header and what it shows disagree (docs/alignment.md),
                "rigid" always, "header" never; "none" refuses contrasts on different grids.
            non_finite: "error" refuses NaN and infinite voxels, "zero" takes them as background.
            brain_mask: Where the brain is, not 0, on any grid; elsewhere the network sees 0, nothing is labelled, and
                no tile is computed.
            progress: Called between steps with a `Progress`; when it returns False, and only then, the run stops.
            deadline_s: Seconds from now by which the run must be done; None for no deadline. A run ends early between
                two tiles, so within the time of one tile.

        Raises:
            InputError: The study or an option cannot be used; nothing has been computed.
            DeviceMemoryError: The run needs more than `max_memory_mib`.
            EngineError: The engine failed, or has been closed.
            Cancelled: `progress` returned False.
            DeadlineExceeded: The deadline passed first.
        """
        watch = Watch(progress, deadline_s)
        return self._run(study, watch, overlap, reference, align, non_finite, brain_mask)

    def plan(
        self,
        study: Study,
        *,
        overlap: float = 0.25,
        reference: str | None = None,
        align: Align = "auto",
        non_finite: NonFinite = "error",
        brain_mask: Volume | None = None,
    ) -> RunPlan:
        """Say what `run` with the same arguments would take, without running the network on the study.

        The study is prepared for it as for a run, and the first plan of a pipeline also computes tiles of zeros to
        know their time: a few seconds at most.

        Raises:
            InputError, DeviceMemoryError, EngineError: As `run`.
        """
        check_overlap(overlap)
        started = time.perf_counter()
        prepared, plan = self._prepare(study, overlap, reference, align, non_finite, brain_mask)
        memory = MemoryPlan(study, prepared, plan, make_blender(prepared, plan, self.manifest, 1), self.manifest)
        slots = memory.affordable_slots(self._engine.slots, self._max_memory_mib)
        prepare_s = time.perf_counter() - started
        if self._pace.tile_s is None:
            self._measure_pace(slots)
        seconds, basis = self._pace.estimate(prepare_s, len(plan.tiles), math.prod(prepared.grid.shape))
        return RunPlan(len(plan.tiles), plan.skipped, slots, memory.memory(slots), memory.peak(slots), seconds, basis)

    def stream(
        self,
        arriving: Mapping[str, Grid],
        known: Mapping[str, Volume] | None = None,
        *,
        slice_axis: int = 2,
        dtype: npt.DTypeLike = np.int16,
        overlap: float = 0.25,
        settle: float = 0.6,
        tolerance: float = 0.02,
        progress: ProgressCallback | None = None,
        deadline_s: float | None = None,
    ) -> StudyStream:
        """Begin a study whose slices are still being acquired; tiles are computed as soon as their slices are there.

        Args:
            arriving: Contrast -> the grid that its slices will fill.
            known: Contrasts that are complete already.
            slice_axis: Array axis of `arriving` along which slices come, in any order.
            dtype: Voxel type of the slices: uint8, int16, uint16 or float32.
            overlap: As for `run`.
            settle: Part of the slices, above 0 to 1, after which intensities are taken as known and tiles begin; while
                a contrast has no voxel above 0 yet, more are waited for.
            tolerance: Largest relative difference between the intensity scale of these slices and that of all; where it
                is larger, all tiles are computed again at the end. 0 accepts none.
            progress: Called as for `run`, from the stream's own thread; within `finish` from the caller's too.
            deadline_s: As for `run`, from now on.

        Returns:
            The stream; use it as a context manager.

        Raises:
            InputError: A contrast is missing or given twice, a grid would have to be resampled, or an option cannot be
                used.
            EngineError: The engine has been closed.
        """
        check_overlap(overlap)
        options = StreamOptions(slice_axis, np.dtype(dtype), overlap, settle, tolerance)
        return StudyStream(self, arriving, known or {}, options, Watch(progress, deadline_s))

    def warmup(self) -> None:
        """Run one empty tile, so that the first study does not pay for first use."""
        shape = (1, 1, *self.manifest.tile_shape)
        with self._engine.session() as session:
            session.submit({name: np.zeros(shape, np.float32) for name in self.manifest.input_names})
            session.collect()

    def close(self) -> None:
        """Release the network; again is harmless."""
        self._engine.close()

    def __enter__(self) -> Pipeline:
        """Return the pipeline."""
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Close the pipeline."""
        self.close()

    def __repr__(self) -> str:
        info = self.engine_info
        return f"Pipeline({self.manifest.name!r}, {info.name} on {info.device}, {info.precision})"

    def _run(
        self,
        study: Study,
        watch: Watch,
        overlap: float,
        reference: str | None = None,
        align: Align = "auto",
        non_finite: NonFinite = "error",
        brain_mask: Volume | None = None,
    ) -> Result:
        """Do what `run` does, under a watch that may have begun earlier."""
        clock = Stopwatch()
        check_overlap(overlap)
        watch.tell("prepare", 0, 1)
        with clock("prepare"):
            prepared, plan = self._prepare(study, overlap, reference, align, non_finite, brain_mask)
        outputs = self._infer(study, prepared, plan, clock, watch)
        if prepared.brain is not None:
            forget_outside(prepared.brain, outputs.labels, outputs.probability)
        arrays = _arrays_of(outputs)
        del outputs  # each array is let go of once it is restored onto the reference's grid
        return self._conclude(study, prepared, plan, overlap, arrays, clock, watch)

    def _prepare(
        self,
        study: Study,
        overlap: float,
        reference: str | None,
        align: Align,
        non_finite: NonFinite,
        brain_mask: Volume | None,
    ) -> tuple[Prepared, TilePlan]:
        """Bring a study onto the common grid and cover it with tiles."""
        prepared = prepare(
            study,
            self.manifest,
            reference=reference,
            align=align,
            non_finite=non_finite,
            brain_mask=brain_mask,
            threads=self._threads,
        )
        return prepared, plan_study(prepared, self.manifest, overlap, self._threads)

    def _infer(
        self,
        study: Study,
        prepared: Prepared,
        plan: TilePlan,
        clock: Stopwatch,
        watch: Watch,
        arrival: Arrival | None = None,
    ) -> BlendOutputs:
        """Run a plan's tiles through the engine."""
        if arrival is None and runs_on_device(self._engine):
            limit = self._max_memory_mib
            return infer_on_device(self._engine, prepared, plan, self.manifest, clock, watch, limit)
        blender = make_blender(prepared, plan, self.manifest, self._threads)
        memory = MemoryPlan(study, prepared, plan, blender, self.manifest)
        slots = memory.affordable_slots(self._engine.slots, self._max_memory_mib)
        with self._engine.session() as session:
            return infer(session, slots, prepared, plan, blender, clock, watch, self._threads, arrival)

    def _conclude(
        self,
        study: Study,
        prepared: Prepared,
        plan: TilePlan,
        overlap: float,
        arrays: dict[str, npt.NDArray[Any]],
        clock: Stopwatch,
        watch: Watch,
        actions: tuple[str, ...] = (),
    ) -> Result:
        """Make a result of what the network gave; `arrays` is emptied."""
        watch.tell("measure", 0, 1)
        origin = Origin(self.bundle, self.engine_info, self.reason, self._engine.warnings, self._threads, self._rule)
        result = conclude(origin, Ran(study, prepared, plan, float(overlap), actions), arrays, clock)
        self._pace.note_run(clock.seconds, len(plan.tiles), math.prod(prepared.grid.shape))
        return result

    def _measure_pace(self, slots: int) -> None:
        """Time tiles of zeros, all slots busy, the first round apart."""
        inputs = {name: np.zeros((1, 1, *self.manifest.tile_shape), np.float32) for name in self.manifest.input_names}
        with self._engine.session() as session:
            for _ in range(2):
                started = time.perf_counter()
                for _ in range(slots):
                    session.submit(inputs)
                for _ in range(slots):
                    session.collect()
                self._pace.note_tiles(time.perf_counter() - started, slots)


def _arrays_of(outputs: BlendOutputs) -> dict[str, npt.NDArray[Any]]:
    """Return the arrays that the blender filled in; whoever takes one out is the only one that holds it."""
    found = {name: getattr(outputs, name) for name in ("fused", "labels", "probability")}
    return {name: array for name, array in found.items() if array is not None}
