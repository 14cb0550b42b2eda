"""What every engine is: the protocols, what it says about itself, and the test it must pass before it is trusted.

An `Engine` is a network made ready for one device; it is opened once and shared by threads. A `Session` is one
caller's queue of tiles on it; it belongs to one thread.

    engine.session() -> session     submit(tile 0) submit(tile 1) collect() -> 0  submit(tile 2) collect() -> 1 ...
"""

from __future__ import annotations

import importlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType, TracebackType
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from rmr_sdk.bundle import Bundle
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
        name: "openvino" or "onnxruntime".
        version: Full version of the inference library.
        device: "cpu", or "gpu" or "npu" with a number where there are several.
        device_name: What the library calls it, such as the model of the processor.
        precision: Precision computed in, as read back from the library where it can tell.
        threads: Threads that compute; 0 where the device is no CPU.
    """

    name: str
    version: str
    device: str
    device_name: str
    precision: str
    threads: int


@dataclass(frozen=True, slots=True)
class EngineRequest:
    """What the caller asked for, checked: the options of `rmr_sdk.engines.open_engine`."""

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


@dataclass(frozen=True, slots=True)
class GoldenLimit:
    """Largest deviation from the golden tile that a precision explains, in the units of `rmr_sdk.golden.Deviation`.

    The reduced precisions are held to their root mean square: single voxels at a boundary between two classes may
    change sides. What accuracy they cost is measured at export; this test finds a broken engine.
    """

    maximum: float
    rms: float


GOLDEN_LIMITS: Mapping[str, GoldenLimit] = {
    "fp32": GoldenLimit(maximum=2e-3, rms=2e-4),
    "fp16": GoldenLimit(maximum=1.0, rms=0.02),
    "bf16": GoldenLimit(maximum=1.0, rms=0.05),
    "int8": GoldenLimit(maximum=1.0, rms=0.08),
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


def choose_precision(bundle: Bundle, asked: str) -> str:
    """Resolve "auto" to the most exact precision that the bundle has a graph for."""
    return asked if asked != "auto" else min(bundle.manifest.onnx_precisions, key=PRECISIONS.index)


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
