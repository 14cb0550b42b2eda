"""What every engine is: the protocols, what it says about itself, and the test it must pass before it is trusted.

An `Engine` is a network made ready for one device; it is opened once and shared by threads. A `Session` is one
caller's queue of tiles on it; it belongs to one thread.

    engine.session() -> session     submit(tile 0) submit(tile 1) collect() -> 0  submit(tile 2) collect() -> 1 ...
"""

from __future__ import annotations

import importlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType, TracebackType
from typing import Protocol, runtime_checkable

import numpy as np
from numpy.typing import NDArray

from rmr_sdk.bundle import Bundle
from rmr_sdk.cuda.base import Device, DeviceArray, Stream
from rmr_sdk.errors import DeviceUnavailableError, EngineError, EngineMismatchError
from rmr_sdk.golden import GoldenTile

FloatArray = NDArray[np.float32]
Tensors = Mapping[str, FloatArray]

PRECISIONS = ("fp32", "bf16", "fp16", "int8")
"""From the most exact to the least."""
REPORT = "Report it with the output of `rmr doctor`."


@dataclass(frozen=True, slots=True)
class EngineInfo:
    """What a result records about the engine behind it.

    Attributes:
        name: "openvino", "tensorrt" or "onnxruntime".
        version: Full version of the inference library.
        device: "cpu", or "gpu" or "npu" with a number where there are several, or "cuda:0".
        device_name: What the library calls it, such as the model of the processor.
        precision: Precision computed in, as read back from the library where it can tell.
        threads: Threads that compute; 0 where the device is no CPU.
        detail: What `precision` alone does not say, such as how many layers of an int8 graph run in int8; may be "".
    """

    name: str
    version: str
    device: str
    device_name: str
    precision: str
    threads: int
    detail: str = ""


@dataclass(frozen=True, slots=True)
class EngineRequest:
    """What the caller asked for, checked: the options of `rmr_sdk.engines.open_engine`.

    Where an engine is opened, `precision` is one of `PRECISIONS`: `rmr_sdk.engines.choice` has resolved "auto".
    """

    device: str
    precision: str
    threads: int | None
    cache_dir: Path | None


class Session(Protocol):
    """One caller's queue of tiles; use it from one thread, as a context manager."""

    def submit(self, inputs: Tensors) -> None:
        """Start computing a tile.

        Args:
            inputs: Name -> C-contiguous float32 (1, 1, D, H, W). Used without a copy: leave them alone until the
                tile has been collected.

        Raises:
            EngineError: As many tiles as the engine has slots are in flight, or the inputs do not fit the network.
        """

    def collect(self) -> Tensors:
        """Wait for the oldest tile.

        Returns:
            Name -> float32 (1, channels, D, H, W), owned by the session and valid until the next `collect` or `close`.

        Raises:
            EngineError: No tile is in flight, or computing it failed.
        """

    def close(self) -> None:
        """Give up the tiles in flight and release the session; again is harmless."""

    def __enter__(self) -> Session:
        """Return the session."""

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Close the session."""


class Engine(Protocol):
    """A network made ready for one device; safe from several threads.

    Attributes:
        info: What it is.
        slots: Tiles to keep in flight for full speed; the most that a session takes.
        warnings: What the caller should know about how it was opened.
    """

    info: EngineInfo
    slots: int
    warnings: tuple[str, ...]

    def session(self) -> Session:
        """Open a queue of tiles for the calling thread.

        Raises:
            EngineError: The engine has been closed.
        """

    def close(self) -> None:
        """Release the network; again is harmless. Close its sessions first."""


class DeviceSession(Protocol):
    """One caller's queue of tiles whose inputs and outputs stay on a GPU; use it from one thread.

    Each slot has arrays of its own, at fixed addresses for as long as the session is open. Work of all slots may be
    queued into one stream, in which it runs in order; whoever queues it into several orders it with events, because
    the network computes one tile at a time.
    """

    slots: int

    def inputs(self, slot: int) -> Mapping[str, DeviceArray]:
        """Return what the network reads: contrast -> float32 or float16 (1, 1, D, H, W)."""

    def outputs(self, slot: int) -> Mapping[str, DeviceArray]:
        """Return what the network writes: name -> float32 or float16 (1, channels, D, H, W)."""

    def enqueue(self, slot: int, stream: Stream) -> None:
        """Queue one tile; returns at once.

        Args:
            slot: 0 to `slots` - 1.
            stream: A stream of the engine's device, also one that is being captured into a graph.

        Raises:
            EngineError: The network refuses, or the session has been closed.
            DeviceError: The GPU failed, or the stream belongs to another.
        """

    def capturable(self, stream: Stream) -> bool:
        """Tell whether `enqueue` can be recorded by `Device.capture`, once each slot has run."""

    def close(self) -> None:
        """Wait for the work that is queued and release the arrays; again is harmless."""

    def __enter__(self) -> DeviceSession:
        """Return the session."""

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Close the session."""


@runtime_checkable
class DeviceEngine(Engine, Protocol):
    """An engine on a GPU that also takes and gives device arrays.

    Attributes:
        device: The GPU; it closes with the engine.
    """

    device: Device

    def device_session(self) -> DeviceSession:
        """Open a queue of tiles on the GPU for the calling thread.

        Raises:
            EngineError: The engine has been closed.
            DeviceMemoryError: The GPU has too little memory for another session.
        """


@dataclass(frozen=True, slots=True)
class Offer:
    """What an engine can do with a bundle on this machine, found out without opening the bundle's graphs.

    Attributes:
        device: Where it would compute, such as "cpu".
        precisions: Those that it has a graph for and that the device computes in; empty where there is none.
        facts: Versions and hardware: whatever a measured time no longer holds after. JSON types only.
        device_reason: Why that device, where the caller left it to us.
    """

    device: str
    precisions: tuple[str, ...]
    facts: Mapping[str, object]
    device_reason: str = "the default device"


@dataclass(frozen=True, slots=True)
class EngineKind:
    """How one engine is reached: what each module of an engine exports, and all that the choice knows of it.

    Attributes:
        name: One of `rmr_sdk.engines.ENGINES`.
        offer: Says what it can do. Raises DeviceUnavailableError where its library or the device is not there.
        open: Makes a bundle ready in the precision of the request, which is never "auto". Raises as
            `rmr_sdk.engines.open_engine` does.
    """

    name: str
    offer: Callable[[Bundle, EngineRequest], Offer]
    open: Callable[[Bundle, EngineRequest], Engine]


@dataclass(frozen=True, slots=True)
class GoldenLimit:
    """Largest deviation from the golden tile that a precision explains, in the units of `rmr_sdk.golden.Deviation`.

    The reduced precisions are held to their root mean square: single voxels at a boundary between two classes may
    change sides. What accuracy they cost is measured at export; this test finds a broken engine. Measured root mean
    squares: bf16 0.0008 (`ms-edge`) and 0.0005 (paper preset), fp16 0.0001, int8 0.006; an int8 graph that OpenVINO
    computed wrongly had 0.38.
    """

    maximum: float
    rms: float


GOLDEN_LIMITS: Mapping[str, GoldenLimit] = {
    "fp32": GoldenLimit(maximum=2e-3, rms=2e-4),
    "fp16": GoldenLimit(maximum=1.0, rms=0.01),
    "bf16": GoldenLimit(maximum=1.0, rms=0.02),
    "int8": GoldenLimit(maximum=1.0, rms=0.05),
}


def self_test(engine: Engine, golden: GoldenTile) -> None:
    """Run the golden tile, and refuse an engine that does not reproduce it.

    Raises:
        EngineError: The outputs deviate by more than the precision explains; `deviation` and `limit` say how far.
    """
    with engine.session() as session:
        session.submit(golden.network_inputs())
        found = golden.deviation(session.collect())
    limit = GOLDEN_LIMITS[engine.info.precision]
    if found.maximum > limit.maximum or found.rms > limit.rms:
        raise EngineError(
            f"Engine {engine.info.name} in {engine.info.precision} does not reproduce the golden tile "
            f"(root mean square {found.rms:.2g}, limit {limit.rms:.2g}; largest {found.maximum:.2g}, "
            f"limit {limit.maximum:.2g}).",
            f"Choose another engine or precision. {REPORT}",
            deviation=found,
            limit=limit,
        )


def why(asked: str, otherwise: str) -> str:
    """Say why an option has its value: it was asked for, or `otherwise`."""
    return otherwise if asked == "auto" else "asked for"


def find_graph(bundle: Bundle, precision: str, usable: tuple[str, ...]) -> str:
    """Choose the graph of a bundle that an engine computes a precision from.

    Args:
        bundle: The bundle.
        precision: What the engine shall compute in.
        usable: Precisions of the graphs that serve, the best first.

    Returns:
        The precision of the graph, for `Bundle.graph`.

    Raises:
        EngineMismatchError: The bundle has none of them.
    """
    found = bundle.manifest.onnx_precisions
    for candidate in usable:
        if candidate in found:
            return candidate
    raise EngineMismatchError(
        f'Bundle "{bundle.manifest.name}" cannot run in {precision}: it has no {" or ".join(usable)} graph '
        f"(it has: {', '.join(found)}).",
        "Choose another precision, or export the bundle with that one.",
        precision=precision,
        found=found,
    )


def check_signature(bundle: Bundle, inputs: Mapping[str, Sequence[int]], outputs: Mapping[str, Sequence[int]]) -> None:
    """Refuse a graph whose inputs and outputs are not those that the manifest promises.

    Args:
        bundle: The bundle.
        inputs: Name -> shape of each input of the graph; -1 where it is dynamic.
        outputs: The same of each output.

    Raises:
        EngineMismatchError: A name or a shape differs.
    """
    manifest = bundle.manifest
    promised = dict.fromkeys(manifest.input_names, (1, 1, *manifest.tile_shape))
    promised |= {name: (1, channels, *manifest.tile_shape) for name, channels in manifest.output_channels.items()}
    found = {name: tuple(shape) for name, shape in (*inputs.items(), *outputs.items())}
    if set(inputs) != set(manifest.input_names) or found != promised:
        raise EngineMismatchError(
            f'The graph of bundle "{manifest.name}" has {found}, and its manifest promises {promised}.',
            "Export the bundle again.",
            found=found,
            promised=promised,
        )


def graph_facts(bundle: Bundle, graph: str, precision: str) -> dict[str, object]:
    """Give what of a bundle makes a tested engine invalid when it changes, without reading its files.

    Args:
        bundle: The bundle.
        graph: Precision of the ONNX graph.
        precision: Precision computed in.
    """
    artifacts = bundle.manifest.artifacts
    sha256 = next(a.sha256 for a in artifacts if a.kind == "onnx" and a.precision == graph)
    limit = GOLDEN_LIMITS[precision]
    return {"graph": sha256, "golden": [bundle.manifest.golden.sha256, limit.maximum, limit.rms]}


def import_library(name: str, extra: str) -> ModuleType:
    """Import an inference library.

    Args:
        name: Module to import.
        extra: What to install for it.

    Raises:
        DeviceUnavailableError: It is not installed, or cannot be loaded.
    """
    try:
        return importlib.import_module(name)
    except ImportError as error:
        raise DeviceUnavailableError(
            f"Engine {name} is not installed ({error}).", f'Run: pip install "{extra}".', library=name
        ) from error
