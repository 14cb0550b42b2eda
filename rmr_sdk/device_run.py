"""Studies whose voxels are on a device already, and results that stay there.

    from rmr_sdk.device_run import run_on_device
    with run_on_device(pipeline, {"T1w": t1, "FLAIR": flair}, affine=affine) as found:
        use(found.labels, found.fused)          anything that takes __cuda_array_interface__

The voxels come down once, because a study is checked and its intensities are fitted on the host; tiles are cut from
the arrays where they are.
"""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import ExitStack
from dataclasses import dataclass, field
from types import TracebackType
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from rmr_sdk.cuda.base import DeviceArray
from rmr_sdk.device_blend import DeviceBlender, DeviceOutputs
from rmr_sdk.device_kernels import DeviceKernels, device_kernels
from rmr_sdk.device_memory import DeviceView, Workspace
from rmr_sdk.device_pipeline import run_tiles
from rmr_sdk.device_tiles import DeviceForeground, place_sources
from rmr_sdk.engines.base import DeviceEngine
from rmr_sdk.errors import ConfigError, StudyError
from rmr_sdk.geometry import Grid
from rmr_sdk.inference import blend_options, plan_study
from rmr_sdk.lesion_rule import LesionRule
from rmr_sdk.manifest import Manifest
from rmr_sdk.preprocess import Align, NonFinite, Prepared, prepare
from rmr_sdk.study import Study, naming
from rmr_sdk.tiles import Corner, TilePlan, check_overlap
from rmr_sdk.volume import KERNEL_DTYPES
from rmr_sdk.watch import ProgressCallback, Stopwatch, Watch

if TYPE_CHECKING:
    from rmr_sdk.pipeline import Pipeline


@dataclass(frozen=True, slots=True, eq=False)
class DeviceResult:
    """What a pipeline found, in memory of the device; a context manager that frees it.

    Attributes:
        outputs: `labels`, `probability` and `fused`, C-contiguous on `grid`; None where the bundle gives none.
        grid: Where the voxels are: the common grid, in the manifest's orientation.
        plan: The tiles that were run.
        warnings: What the reader of the result should know.
        timings: Stage -> wall-clock seconds.
    """

    outputs: DeviceOutputs
    grid: Grid
    plan: TilePlan
    warnings: tuple[str, ...]
    timings: Mapping[str, float]
    _held: ExitStack = field(repr=False)

    @property
    def labels(self) -> DeviceArray | None:
        """Return the class of each voxel, uint8."""
        return self.outputs.labels

    @property
    def probability(self) -> DeviceArray | None:
        """Return the probability of the lesion class, float32."""
        return self.outputs.probability

    @property
    def fused(self) -> DeviceArray | None:
        """Return the fused image in the reference's units, float32."""
        return self.outputs.fused

    def close(self) -> None:
        """Free the arrays; again is harmless."""
        self._held.close()

    def __enter__(self) -> DeviceResult:
        """Return the result."""
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Free the arrays."""
        self.close()


def run_on_device(
    pipeline: Pipeline,
    arrays: Mapping[str, Any],
    *,
    affine: npt.ArrayLike | Mapping[str, npt.ArrayLike],
    overlap: float = 0.25,
    reference: str | None = None,
    align: Align = "auto",
    non_finite: NonFinite = "error",
    progress: ProgressCallback | None = None,
    deadline_s: float | None = None,
) -> DeviceResult:
    """Fuse and segment a study that is on the pipeline's device, and leave the result there.

    Args:
        pipeline: Opened on a GPU.
        arrays: Contrast -> (i, j, k) array with `__cuda_array_interface__`, uint8, int16, uint16 or float32, of any
            strides. A stream that an array names is followed; where it names none, its voxels must be there.
        affine: (4, 4), voxel index -> RAS mm, one for all contrasts or one per contrast.
        overlap: As `Pipeline.run`, like all that follow.
        reference: The contrast whose grid and intensity scale the result is on.
        align: How contrasts are brought together.
        non_finite: What becomes of NaN and infinite voxels.
        progress: Told between steps.
        deadline_s: Seconds from now by which the run must be done.

    Raises:
        ConfigError: The pipeline's engine does not compute on a GPU.
        StudyError: An array is of another type, or as `Pipeline.run`.
        ValueError: An array is null, or on another device.
        DeviceMemoryError: The device has too little memory, or the run may not take so much; nothing of it is left
            there.
        RmrError: As `Pipeline.run`.
    """
    engine = _device_engine(pipeline)
    kernels, device, manifest = device_kernels(), engine.device, pipeline.manifest
    watch, clock = Watch(progress, deadline_s), Stopwatch()
    check_overlap(overlap)
    watch.tell("prepare", 0, 1)
    limit = pipeline._max_memory_mib
    with device.activate(), ExitStack() as held, engine.device_session() as session, Workspace(device, limit) as space:
        with clock("prepare"):
            views = {name: _checked_view(name, array) for name, array in arrays.items()}
            copies = {name: _copy_to_host(view, kernels, space) for name, view in views.items()}
            study = Study.from_arrays(copies, affine=affine)
            prepared = prepare(
                study, manifest, reference=reference, align=align, non_finite=non_finite, threads=pipeline._threads
            )
            sources = place_sources(prepared, space, _usable(views, study, prepared))
            foreground = DeviceForeground(sources, prepared, kernels, space)
            plan = plan_study(prepared, manifest, overlap, pipeline._threads, foreground)
            outputs = _allocate(space, plan.shape, manifest, held)
            blender = DeviceBlender(plan, blend_options(prepared, manifest), outputs, kernels, space)
        with clock("network"):
            run_tiles(session, sources, plan, blender, kernels, space, watch)
            blender.check_finite()
            _drop_lesions(outputs, pipeline._rule, prepared.grid.voxel_ml, space)
        warnings = (*engine.warnings, *prepared.warnings)
        return DeviceResult(outputs, prepared.grid, plan, warnings, clock.seconds, held.pop_all())


def _drop_lesions(outputs: DeviceOutputs, rule: LesionRule, voxel_ml: float, space: Workspace) -> None:
    """Drop lesions as `Pipeline.run` does; they are looked at on the host."""
    if outputs.labels is None or outputs.probability is None or rule.keeps_all:
        return
    labels = np.empty(outputs.labels.shape, np.uint8)
    probability = np.empty(labels.shape, np.float32)
    space.device.download(outputs.labels, labels, space.stream)
    space.device.download(outputs.probability, probability, space.stream)
    space.stream.synchronize()
    if rule.apply(labels, probability, voxel_ml).voxels:
        space.device.upload(labels, outputs.labels, space.stream)
        space.stream.synchronize()


def _device_engine(pipeline: Pipeline) -> DeviceEngine:
    engine = pipeline._engine
    if not isinstance(engine, DeviceEngine):
        raise ConfigError(
            f"the pipeline computes with {engine.info.name} on {engine.info.device}, which takes no device arrays.",
            'Open it with engine="tensorrt", or pass host arrays to Pipeline.run.',
        )
    return engine


def _checked_view(contrast: str, array: Any) -> DeviceView:
    view = DeviceView.of(array)
    with naming(contrast):
        if view.dtype.name not in KERNEL_DTYPES or len(view.shape) != 3:
            raise StudyError(
                f"the device array is {view.dtype.name} with {len(view.shape)} axes.",
                f"Pass three axes of {', '.join(KERNEL_DTYPES)}.",
                dtype=view.dtype.name,
            )
    return view


def _copy_to_host(view: DeviceView, kernels: DeviceKernels, space: Workspace) -> npt.NDArray[Any]:
    """Return a copy of an array of any strides, gathered on the device first."""
    gathered, host = space.device.allocate(view.shape, view.dtype), np.empty(view.shape, view.dtype)
    try:
        kernels.resample(view, gathered, matrix=np.eye(3, 4), mode="nearest", stream=space.stream.handle)
        space.device.download(gathered, host, space.stream)
        space.stream.synchronize()
    finally:
        gathered.free()
    return host


def _usable(views: Mapping[str, DeviceView], study: Study, prepared: Prepared) -> dict[str, DeviceView]:
    """Leave out contrasts whose voxels were changed on the host, such as NaN that became background."""
    scans = prepared.scans
    return {name: views[name] for name in scans if np.may_share_memory(scans[name].voxels, study[name].data)}


def _allocate(space: Workspace, shape: Corner, manifest: Manifest, held: ExitStack) -> DeviceOutputs:
    def take(dtype: npt.DTypeLike, wanted: bool) -> DeviceArray | None:
        if not wanted:
            return None
        space.claim(shape, dtype)
        array = space.device.allocate(shape, dtype)
        held.callback(array.free)
        return array

    return DeviceOutputs(
        labels=take(np.uint8, manifest.classes is not None),
        probability=take(np.float32, manifest.lesion_class is not None),
        fused=take(np.float32, True),
    )
