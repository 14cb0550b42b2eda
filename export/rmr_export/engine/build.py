"""From a graph to an engine and its plan, for the GPU at hand or, with TensorRT-RTX, for GPUs that are elsewhere.

The runtime side builds engines too, on the device, and has the one code path for all versions:
`rmr_sdk.engines.tensorrt_build`. What is added here is what a developer wants to see: the plan, progress, and times of
kernels that are kept from one build to the next.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import onnx

from rmr_export.plan import Plan, read_plan
from rmr_sdk.cuda import Device, open_device
from rmr_sdk.engines.onnx_tables import split_tables
from rmr_sdk.engines.tensorrt_build import build_engine as build_on
from rmr_sdk.engines.tensorrt_library import Library
from rmr_sdk.errors import ConfigError, DeviceUnavailableError, EngineMismatchError, OutputError

from .monitor import Progress, make_log, make_monitor

DEFAULT_TARGETS = (86, 89, 120)
"""What TensorRT-RTX builds for unless the caller says otherwise: Ampere, Ada and Blackwell workstations."""


@dataclass(frozen=True, slots=True)
class BuildOptions:
    """How to build.

    Attributes:
        targets: Compute capabilities such as 86; none for `DEFAULT_TARGETS`, or for the GPU at hand.
        workspace_mib: Most memory that a kernel may use beside its tensors; None for all there is.
        timing_cache: File with measured times of kernels; read where it exists, written after the build.
        progress: Is told how far the build is.
    """

    targets: tuple[int, ...] = ()
    workspace_mib: int | None = None
    timing_cache: Path | None = None
    progress: Progress | None = None


@dataclass(frozen=True, slots=True, eq=False)
class Built:
    """An engine and how it came to be.

    Attributes:
        engine: Its bytes, as the runtime loads them.
        plan: Its kernels.
        runtime: "tensorrt" or "tensorrt-rtx".
        version: Full version of the runtime; the engine runs on that one.
        targets: Compute capabilities that it runs on.
        seconds: Wall time of the build.
    """

    engine: bytes
    plan: Plan
    runtime: str
    version: str
    targets: tuple[int, ...]
    seconds: float


def build_engine(model: onnx.ModelProto, library: Library, options: BuildOptions | None = None) -> Built:
    """Build an engine.

    Args:
        model: A typed graph of static shape. Inputs with a default, its tables, become real inputs: an engine that
            knows the region numbers of shifted windows unfolds them into masks. The runtime side binds them once.
        library: What builds it.
        options: How.

    Raises:
        ConfigError: The workspace is none.
        EngineMismatchError: The runtime does not build for one of the targets.
        EngineError: The parser refuses a node, or the builder the network.
        DeviceUnavailableError: The runtime needs a GPU, and none can be used here.
        DeviceMemoryError: The GPU has too little memory.
        OutputError: The timing cache cannot be read or written.
        PlanError: The engine was built, and its log holds no plan.
    """
    options = options or BuildOptions()
    if options.workspace_mib is not None and options.workspace_mib < 1:
        raise ConfigError(f"a workspace of {options.workspace_mib} MiB is none.", "Pass 1 or more, or leave it out.")
    log, config = make_log(library.trt), _Configuration(library.trt, options)
    workspace = None if options.workspace_mib is None else options.workspace_mib * 2**20
    data, _ = split_tables(model.SerializeToString())
    with _gpus(library, options.targets) as targets:
        wanted = targets if library.targets else ()
        started = time.perf_counter()
        engine = build_on(library, data, wanted, workspace, log=log, adjust=config.adjust)
        seconds = time.perf_counter() - started
    config.keep_times()
    return Built(engine, read_plan(log.messages, model), library.runtime, library.version, targets, seconds)


class _Configuration:
    """What this side adds to a builder's configuration."""

    def __init__(self, trt: Any, options: BuildOptions) -> None:
        self.trt, self.options = trt, options
        self.config: Any = None

    def adjust(self, config: Any) -> None:
        self.config = config
        config.profiling_verbosity = self.trt.ProfilingVerbosity.DETAILED
        if self.options.progress is not None:
            config.progress_monitor = make_monitor(self.trt, self.options.progress)
        if self.options.timing_cache is not None:
            file = self.options.timing_cache
            known = _on_file(file, lambda: file.read_bytes() if file.exists() else b"")
            # One of another GPU or version is refused; the build then measures for itself.
            config.set_timing_cache(config.create_timing_cache(known), ignore_mismatch=False)

    def keep_times(self) -> None:
        file = self.options.timing_cache
        if file is None:
            return
        temporary = file.with_name(f".{file.name}.new")
        data = bytes(self.config.get_timing_cache().serialize())
        _on_file(file, lambda: (temporary.write_bytes(data), temporary.replace(file)))


def _on_file(file: Path, action: Callable[[], Any]) -> Any:
    try:
        return action()
    except OSError as error:
        raise OutputError(
            f'the timing cache "{file.name}" cannot be used: {error.strerror}.', "Choose a file that can be written."
        ) from error


@contextmanager
def _gpus(library: Library, asked: Sequence[int]) -> Iterator[tuple[int, ...]]:
    """Give the compute capabilities that an engine will run on, with the GPU current where one is needed."""
    if library.targets:
        yield tuple(sorted(set(asked or DEFAULT_TARGETS)))
        return
    with _gpu_at_hand(library) as device, device.activate():
        found = device.info.compute_capability
        if set(asked) - {found}:
            raise EngineMismatchError(
                f"TensorRT builds for the GPU at hand, which is SM {found}, and SM {', '.join(map(str, asked))} was "
                "asked for.",
                "Leave --sm out, build on the device itself, or use --runtime tensorrt-rtx.",
                found=found,
                asked=tuple(asked),
            )
        yield (found,)


@contextmanager
def _gpu_at_hand(library: Library) -> Iterator[Device]:
    try:
        device = open_device()
    except DeviceUnavailableError as error:
        raise DeviceUnavailableError(
            f"{library.runtime} builds on the GPU that the engine is for, and none can be used here ({error.problem})",
            "Run this on that machine, or build for an RTX GPU with --runtime tensorrt-rtx, which needs none.",
            runtime=library.runtime,
        ) from error
    try:
        yield device
    finally:
        device.close()
