"""From a prepared study to blended outputs with all voxels on one device: the loop over tiles, on one stream.

    upload ─> [ cut ─> network ─> blend ] for every tile ─> download          one stream, in this order
                 host: queues tile n + 1 while the device computes tile n

Nothing is copied, allocated or waited for between the first tile and the last, but for the host keeping a few tiles
ahead. The geometry, the plan of tiles and the schedule of rows are those of the host's path (inference.py).
"""

from __future__ import annotations

import logging
from collections.abc import Mapping
from typing import Protocol, TypeGuard, runtime_checkable

from rmr_sdk.blend import BlendOutputs
from rmr_sdk.cuda.base import Event, Graph, Stream
from rmr_sdk.device_blend import DeviceBlender, DeviceOutputs, allocate_outputs
from rmr_sdk.device_kernels import DeviceKernels, device_kernels, kernels_built
from rmr_sdk.device_memory import DeviceView, Workspace
from rmr_sdk.device_tiles import DeviceSource, place_sources
from rmr_sdk.engines.base import DeviceEngine, DeviceSession, Engine
from rmr_sdk.errors import DeviceError
from rmr_sdk.inference import blend_options
from rmr_sdk.manifest import Manifest
from rmr_sdk.preprocess import Prepared
from rmr_sdk.tiles import TilePlan
from rmr_sdk.watch import Stopwatch, Watch

logger = logging.getLogger(__name__)

QUEUED = 2
"""Tiles that the host is ahead of the device: enough to keep it busy, few enough to stop within about one tile."""


@runtime_checkable
class Recordable(Protocol):
    """A device session that knows whether its work can be recorded into a graph."""

    def capturable(self, stream: Stream) -> bool:
        """Tell whether `enqueue` on the stream can be recorded, once a tile has run."""


def runs_on_device(engine: Engine) -> TypeGuard[DeviceEngine]:
    """Tell whether tiles of an engine are cut and blended where it computes; the log says when they could be."""
    if not isinstance(engine, DeviceEngine):
        return False
    if not kernels_built():
        logger.warning("tiles are cut and blended on the CPU: this installation has no CUDA kernels (docs/cuda.md)")
        return False
    return True


def infer_on_device(
    engine: DeviceEngine,
    prepared: Prepared,
    plan: TilePlan,
    manifest: Manifest,
    clock: Stopwatch,
    watch: Watch,
    max_memory_mib: float | None = None,
) -> BlendOutputs:
    """Run a plan's tiles with one upload, one download and everything between them on the engine's device.

    Args:
        engine: The engine.
        prepared: Where tiles are cut from.
        plan: The tiles.
        manifest: Of the engine's bundle.
        clock: Takes the seconds of "upload", "network" (with cutting and blending) and "download".
        watch: Told after every tile.
        max_memory_mib: Most memory of the device that the study may take beside the network; None for no limit.

    Returns:
        Outputs in host memory; on an integrated device in page-locked memory that the device wrote itself.

    Raises:
        Cancelled, DeadlineExceeded: As `Watch.tell`.
        DeviceMemoryError: The device has too little memory for the study, or it may not take so much; nothing of it
            is left there.
        DeviceError: The device failed.
        EngineError: The engine failed on a tile, or gave values that are not finite.
    """
    kernels = device_kernels()
    device = engine.device
    with device.activate(), engine.device_session() as session, Workspace(device, max_memory_mib) as space:
        with clock("upload"):
            sources = place_sources(prepared, space)
            on_device, on_host = allocate_outputs(space, plan.shape, manifest)
            blender = DeviceBlender(plan, blend_options(prepared, manifest), on_device, kernels, space)
        with clock("network"):
            run_tiles(session, sources, plan, blender, kernels, space, watch)
            blender.check_finite()
        with clock("download"):
            fetch_outputs(on_device, on_host, space)
        return on_host


def run_tiles(
    session: DeviceSession,
    sources: Mapping[str, DeviceSource],
    plan: TilePlan,
    blender: DeviceBlender,
    kernels: DeviceKernels,
    space: Workspace,
    watch: Watch,
) -> None:
    """Queue every tile, at most `QUEUED` ahead of the device.

    Raises:
        Cancelled, DeadlineExceeded: As `Watch.tell`.
        DeviceError, EngineError: As `infer_on_device`.
    """
    total = len(plan.tiles)
    queue = [space.event() for _ in range(min(QUEUED, total))]
    slots = [_Slot(session, index, space) for index in range(min(session.slots, total))]
    watch.tell("infer", 0, total)
    for index, tile in enumerate(plan.tiles):
        _wait(queue, index - len(queue), total, watch)
        slot = slots[index % len(slots)]
        for name, source in sources.items():
            source.cut(kernels, tile.origin, slot.inputs[name.lower()], space.stream.handle)
        slot.enqueue()
        blender.add(index, slot.outputs)
        queue[index % len(queue)].record(space.stream)
    for index in range(total - len(queue), total):
        _wait(queue, index, total, watch)


def fetch_outputs(on_device: DeviceOutputs, on_host: BlendOutputs, space: Workspace) -> None:
    """Bring all outputs to the host, and wait for them."""
    for name in ("labels", "probability", "fused"):
        source, target = getattr(on_device, name), getattr(on_host, name)
        if source is not None:
            space.fetch(source, target)
    space.stream.synchronize()


class _Slot:
    """One place of a session: its arrays as the kernels take them, and its work, recorded where that can be."""

    def __init__(self, session: DeviceSession, index: int, space: Workspace) -> None:
        self.inputs = {name: DeviceView.of(array).last_axes(3) for name, array in session.inputs(index).items()}
        self.outputs = {
            name: DeviceView.of(array).last_axes(4 if name == "probability" else 3)
            for name, array in session.outputs(index).items()
        }
        self._session, self._index, self._space = session, index, space
        self._runs = 0
        self._graph: Graph | None = None

    def enqueue(self) -> None:
        """Queue the network: the first time kernel by kernel, from the second time on as one graph."""
        self._runs += 1
        if self._runs == 2:
            self._graph = self._record()
        if self._graph is not None:
            self._graph.launch(self._space.stream)
        else:
            self._session.enqueue(self._index, self._space.stream)

    def _record(self) -> Graph | None:
        device, stream = self._space.device, self._space.stream
        if not (isinstance(self._session, Recordable) and self._session.capturable(stream)):
            return None
        try:
            with device.capture(stream) as recorded:
                self._session.enqueue(self._index, stream)
        except DeviceError as error:
            logger.info("tiles are queued kernel by kernel: %s", error)
            return None
        self._space.keep_until_done(recorded[0].close)
        return recorded[0]


def _wait(queue: list[Event], index: int, total: int, watch: Watch) -> None:
    """Wait for a tile that has been queued, and tell."""
    if index >= 0:
        queue[index % len(queue)].synchronize()
        watch.tell("infer", index + 1, total)
