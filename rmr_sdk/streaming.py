"""A study while it is being acquired: slices come in as the scanner makes them, tiles start when theirs are there.

    scanner ──add──> slices so far ──settled──> intensities, tile plan ──> tile 0, tile 1 ... (the stream's own thread)
                                                                              │ wait for their slices
    finish ──> all slices ──> prepared as `run` does ──> within tolerance? keep the tiles : compute them again

What cannot be known before the last slice is the intensity scale and where the foreground ends. Both are taken from
the slices that came first and are held against those of the whole volume at the end.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Mapping
from dataclasses import dataclass, replace
from types import TracebackType
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from rmr_sdk.arrival import Slices, order_by_arrival
from rmr_sdk.common_grid import choose_grid, same_place
from rmr_sdk.errors import Cancelled, ConfigError, GeometryError, StudyError
from rmr_sdk.foreground import Foreground
from rmr_sdk.geometry import Grid, reorient
from rmr_sdk.inference import plan_study
from rmr_sdk.manifest import Manifest
from rmr_sdk.preprocess import Prepared, prepare
from rmr_sdk.scan import take_scan
from rmr_sdk.study import Study, naming
from rmr_sdk.tiles import Corner, TilePlan, plan_tiles
from rmr_sdk.volume import KERNEL_DTYPES, Volume
from rmr_sdk.watch import Stopwatch, Watch

if TYPE_CHECKING:
    from rmr_sdk.blend import BlendOutputs
    from rmr_sdk.pipeline import Pipeline
    from rmr_sdk.result import Result

logger = logging.getLogger(__name__)

MARGIN = 8
"""Voxels that the foreground may still grow by, beyond that of the contrasts that are complete."""


@dataclass(frozen=True, slots=True)
class StreamOptions:
    """The options of `Pipeline.stream`, checked.

    Raises:
        ConfigError: One is out of range.
    """

    slice_axis: int
    dtype: np.dtype[Any]
    overlap: float
    settle: float
    tolerance: float

    def __post_init__(self) -> None:
        if self.slice_axis not in (0, 1, 2):
            raise ConfigError(f"slice_axis is {self.slice_axis}.", "Pass 0, 1 or 2: an array axis of the volume.")
        if self.dtype.name not in KERNEL_DTYPES:
            raise ConfigError(f"slices cannot be {self.dtype.name}.", f"Use one of {', '.join(KERNEL_DTYPES)}.")
        if not 0 < self.settle <= 1:
            raise ConfigError(f"settle is {self.settle}.", "Pass a part of the slices, above 0 up to 1.")
        if not 0 <= self.tolerance <= 1:
            raise ConfigError(f"tolerance is {self.tolerance}.", "Pass a relative difference from 0 to 1.")


class StudyStream:
    """A study that is still being acquired; begun by `Pipeline.stream`. `add` and `finish` are for one thread."""

    def __init__(
        self,
        pipeline: Pipeline,
        arriving: Mapping[str, Grid],
        known: Mapping[str, Volume],
        options: StreamOptions,
        watch: Watch,
    ) -> None:
        self._pipeline = pipeline
        self._options = options
        self._watch = watch
        self._clock = Stopwatch()
        _check_contrasts(pipeline.manifest.contrasts, arriving, known)
        _check_grids(pipeline, arriving, known)
        buffers = {name: Volume(np.zeros(grid.shape, options.dtype), grid.affine) for name, grid in arriving.items()}
        self._study = Study({name: {**known, **buffers}[name] for name in pipeline.manifest.contrasts})
        self._known = tuple(known)
        self._slices = Slices({name: buffer.data for name, buffer in buffers.items()}, options.slice_axis)
        self._error: Exception | None = None
        self._computed: tuple[Prepared, TilePlan, BlendOutputs] | None = None
        self._exact = False
        self._settled = options.settle
        self._worker = threading.Thread(target=self._work, name="rmr-stream", daemon=True)
        self._worker.start()

    def add(self, contrast: str, index: int, plane: npt.ArrayLike) -> None:
        """Take one slice, and return at once.

        Args:
            contrast: One of those that are arriving.
            index: Of the slice along the slice axis.
            plane: The voxels, the volume's shape without its slice axis; copied.

        Raises:
            StudyError: No such contrast or slice, one that is there already, another shape, values that the voxel type
                cannot hold, or values that are not finite.
            RmrError: What ended the stream's computation.
        """
        if self._error is not None:
            raise self._error
        self._slices.add(contrast, index, plane)

    @property
    def missing(self) -> int:
        """Return how many slices have not come yet."""
        return self._slices.missing

    def finish(self) -> Result:
        """Wait for the last tiles and give the result.

        Raises:
            StudyError: Slices are missing; they can still be added. Or the whole study cannot be used.
            RmrError: As `Pipeline.run`; progress and deadline of the stream hold here too.
        """
        self._slices.require_all()
        final = self._prepare()
        self._worker.join()
        if self._error is not None:
            raise self._error
        if self._computed is None:
            raise StudyError("the stream has been closed.", "Begin another one.")
        computed, self._computed = self._computed, None
        return self._conclude(final, *computed)

    def close(self) -> None:
        """Give up what is being computed; again is harmless."""
        self._slices.abandon()
        self._worker.join()
        self._computed = None

    def __enter__(self) -> StudyStream:
        """Return the stream."""
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Close the stream."""
        self.close()

    def _work(self) -> None:
        try:
            self._settled = self._slices.wait_settled(self._options.settle)
            with self._clock("prepare"):
                complete = self._exact = self._slices.missing == 0
                prepared = self._prepare()
                plan = plan_study(prepared, *self._plan_options) if complete else self._plan(prepared)
            arrival = None if complete else self._slices.follow(prepared, plan, self._options.slice_axis)
            outputs = self._pipeline._infer(self._study, prepared, plan, self._clock, self._watch, arrival)
            self._computed = prepared, plan if arrival is None else arrival.computed_plan(), outputs
        except Exception as error:  # whatever it is belongs to the caller's thread
            if not (isinstance(error, Cancelled) and self._slices.abandoned):
                self._error = error

    @property
    def _plan_options(self) -> tuple[Manifest, float, int]:
        return self._pipeline.manifest, self._options.overlap, self._pipeline._threads

    def _prepare(self) -> Prepared:
        """Prepare the study as it is now; after the last slice, just as a run would."""
        pipeline = self._pipeline
        return prepare(self._study, pipeline.manifest, align="header", threads=pipeline._threads)

    def _plan(self, prepared: Prepared) -> TilePlan:
        """Cover where foreground can still be, in the order in which the slices come."""
        manifest = self._pipeline.manifest
        low, high = self._extent(prepared)
        plan = plan_tiles(
            low,
            high,
            prepared.grid.shape,
            manifest.tile_shape,
            self._options.overlap,
            None,
            manifest.window.sigma_scale,
        )
        axis = prepared.axes.order.index(self._options.slice_axis)
        ascending = self._slices.ascending != prepared.axes.flips[axis]
        return replace(plan, tiles=order_by_arrival(plan, axis, ascending))

    def _extent(self, prepared: Prepared) -> tuple[Corner, Corner]:
        shape = prepared.grid.shape
        if not self._known:
            return (0, 0, 0), shape
        found = _foreground(prepared, self._known)
        low = [max(begin - MARGIN, 0) for begin in found.low]
        high = [min(end + MARGIN, length) for end, length in zip(found.high, shape, strict=True)]
        return (low[0], low[1], low[2]), (high[0], high[1], high[2])

    def _conclude(self, final: Prepared, prepared: Prepared, plan: TilePlan, outputs: BlendOutputs) -> Result:
        drift = max(_drift(prepared, final, name) for name in prepared.arrays)
        inside = self._exact or self._covers(prepared, final)
        first = f"intensities from the first {self._settled:.0%} of the slices, {drift:.2%} from those of all"
        if drift > self._options.tolerance or not inside:
            reason = first if inside else "foreground where none was expected"
            logger.warning("streamed tiles are computed again: %s", reason)
            result = self._pipeline._run(self._study, self._watch, self._options.overlap, align="header")
            note = f"streamed, but all tiles were computed again after the last slice: {reason}"
            return replace(result, warnings=(*result.warnings, note))
        kept = replace(final, intensity=prepared.intensity)
        arrays = {name: getattr(outputs, name) for name in ("fused", "labels", "probability")}
        found = {name: array for name, array in arrays.items() if array is not None}
        return self._pipeline._conclude(
            self._study, kept, plan, self._options.overlap, found, self._clock, self._watch, (f"streamed: {first}",)
        )

    def _covers(self, prepared: Prepared, final: Prepared) -> bool:
        """Tell whether all foreground lies where tiles were planned."""
        low, high = self._extent(prepared)
        whole = _foreground(final, tuple(final.arrays))
        return all(a <= b and c >= d for a, b, c, d in zip(low, whole.low, high, whole.high, strict=True))


def _foreground(prepared: Prepared, contrasts: tuple[str, ...]) -> Foreground:
    sources = [prepared.arrays[name] for name in contrasts]
    return Foreground(sources, [prepared.intensity[name].floor for name in contrasts], prepared.threads)


def _drift(early: Prepared, final: Prepared, contrast: str) -> float:
    """Return how far apart two intensity maps of a contrast are, relative to the range that maps to one."""
    before, after = early.intensity[contrast], final.intensity[contrast]
    return max(abs(before.scale / after.scale - 1), abs(before.offset - after.offset) * after.scale)


def _check_contrasts(wanted: tuple[str, ...], arriving: Mapping[str, Grid], known: Mapping[str, Volume]) -> None:
    given = (*arriving, *known)
    if not arriving or sorted(given) != sorted(wanted):
        listing = ", ".join(f'"{name}"' for name in wanted)
        raise StudyError(
            f"a stream needs each of {listing} once, as arriving or as known, and at least one arriving "
            f"(arriving: {', '.join(arriving) or 'none'}; known: {', '.join(known) or 'none'}).",
            "Pass the grid of what is still being acquired, and the volume of what is complete.",
        )


def _check_grids(pipeline: Pipeline, arriving: Mapping[str, Grid], known: Mapping[str, Volume]) -> None:
    """Refuse what would have to be resampled while it arrives, and known volumes that no run would take."""
    manifest = pipeline.manifest
    grids = {**arriving, **{name: volume.grid for name, volume in known.items()}}
    for name, volume in known.items():
        with naming(name):
            take_scan(volume, manifest.orientation, "error")
    common = choose_grid(reorient(grids[manifest.reference], manifest.orientation).grid, manifest)
    for name, grid in arriving.items():
        if not same_place(reorient(grid, manifest.orientation).grid, common):
            raise GeometryError(
                f'contrast "{name}": its slices would have to be resampled from {grid} to {common}.',
                "Collect all slices and call run, which resamples.",
                contrast=name,
            )
