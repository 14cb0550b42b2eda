"""TensorRT and TensorRT-RTX, as installed: which is there, which GPUs it serves, and what it says when it fails.

They share one API; `rmr_sdk.engines.tensorrt_api` has the part that the SDK uses. TensorRT (JetPack, data centre)
builds on the GPU that the engine is for; TensorRT-RTX (workstations) builds anywhere, and compiles on the GPU.
"""

from __future__ import annotations

import importlib
import logging
import re
from collections import deque
from dataclasses import dataclass
from importlib.util import find_spec
from typing import Any, cast

from rmr_sdk.engines.base import REPORT
from rmr_sdk.engines.tensorrt_api import RtxRuntime, TensorRt
from rmr_sdk.errors import (
    DeviceMemoryError,
    DeviceUnavailableError,
    EngineError,
    EngineMismatchError,
    RmrError,
)

logger = logging.getLogger(__name__)

RUNTIMES = {"tensorrt": "tensorrt", "tensorrt-rtx": "tensorrt_rtx"}
"""Name of a runtime in manifests and messages -> the module of its bindings; the preferred first."""

OLDEST = (10, 3)
"""JetPack 6.1 and 6.2 have it; older ones lack memory given by the user and typed graphs as they are used here."""

INSTALL = (
    "On a Jetson install JetPack's TensorRT (apt install tensorrt python3-libnvinfer); on a workstation with an RTX "
    'GPU run: pip install "rmr-sdk[tensorrt-rtx]"; elsewhere install NVIDIA\'s TensorRT 10.3 or newer.'
)

_HEADER_BYTES = 64  # what `get_engine_validity` needs of an engine, as its documentation says
_KEPT_MESSAGES = 20
_NO_MEMORY = re.compile(r"out of memory|outofmemory|insufficient memory|memory allocation|failed to allocate", re.I)
_NO_DRIVER = re.compile(r"no cuda-capable device|insufficient for cuda|cuda initialization failure|cudaerror 35", re.I)


@dataclass(frozen=True, slots=True)
class Library:
    """An installed runtime.

    Attributes:
        runtime: "tensorrt" or "tensorrt-rtx".
        version: Full version; an engine runs on that one only.
        trt: Its bindings.
    """

    runtime: str
    version: str
    trt: TensorRt

    @property
    def targets(self) -> tuple[int, ...]:
        """Return the compute capabilities that it builds for without a GPU; empty where it needs the GPU."""
        names = vars(getattr(self.trt, "ComputeCapability", object))
        return tuple(sorted(int(name[2:]) for name in names if re.fullmatch(r"SM\d+", name)))

    def make_log(self) -> Any:
        """Make a logger for a builder or a runtime; its `errors` are the last error messages."""
        return make_log(self.trt)

    def fits(self, capability: int) -> bool:
        """Tell whether it serves a GPU, as far as it says; TensorRT itself says so only when it builds."""
        return not self.targets or capability in self.targets


def find_libraries() -> tuple[Library, ...]:
    """Import the runtimes that are installed, the preferred first.

    Raises:
        DeviceUnavailableError: None is installed that can be loaded and is new enough.
    """
    tried = [_try_library(runtime) for runtime, module in RUNTIMES.items() if find_spec(module) is not None]
    found = tuple(library for library in tried if isinstance(library, Library))
    if not found:
        problems = " ".join(error.problem for error in tried if isinstance(error, DeviceUnavailableError))
        raise DeviceUnavailableError(problems or "Engine tensorrt is not installed.", INSTALL)
    return found


def load_library(runtime: str) -> Library:
    """Import a runtime.

    Args:
        runtime: One of `RUNTIMES`.

    Raises:
        DeviceUnavailableError: It is not installed, cannot be loaded, or is too old.
    """
    try:
        trt = importlib.import_module(RUNTIMES[runtime])
        version = str(trt.__version__)
    except (ImportError, OSError, AttributeError) as error:  # the bindings without their libraries, or half of them
        raise DeviceUnavailableError(f"{runtime} cannot be loaded ({error}).", INSTALL, runtime=runtime) from error
    if runtime == "tensorrt" and tuple(int(part) for part in re.findall(r"\d+", version)[:2]) < OLDEST:
        raise DeviceUnavailableError(
            f"TensorRT {version} is too old: the SDK needs {OLDEST[0]}.{OLDEST[1]} or newer.", INSTALL, runtime=runtime
        )
    return Library(runtime, version, cast(TensorRt, trt))


def _try_library(runtime: str) -> Library | DeviceUnavailableError:
    try:
        return load_library(runtime)
    except DeviceUnavailableError as error:
        return error


def make_log(trt: TensorRt) -> Any:
    """Make a logger that keeps errors and passes the rest to Python's logging.

    Args:
        trt: The bindings, whose class has to be the base.
    """
    levels = {trt.ILogger.WARNING: logging.INFO, trt.ILogger.INFO: logging.DEBUG}

    class Log(trt.ILogger):  # type: ignore[misc, name-defined]  # the base is known at run time only
        def __init__(self) -> None:
            trt.ILogger.__init__(self)
            self.errors: deque[str] = deque(maxlen=_KEPT_MESSAGES)

        def log(self, severity: Any, message: str) -> None:
            if severity in (trt.ILogger.ERROR, trt.ILogger.INTERNAL_ERROR):
                self.errors.append(" ".join(message.split()))
            elif severity in levels:
                logger.log(levels[severity], "%s", message)

    return Log()


def explain(library: Library, what: str, log: Any) -> RmrError:
    """Make the error for something that TensorRT refused, from what it logged.

    Args:
        library: The runtime.
        what: What it refused, such as "cannot load the engine".
        log: The logger of `make_log`.
    """
    said = " ".join(log.errors)
    last = (log.errors[-1] if log.errors else "it does not say why").rstrip(".")[:300]
    problem = f"{library.runtime} {library.version} {what} ({last})."
    if _NO_MEMORY.search(said):
        return DeviceMemoryError(
            f"The GPU has too little memory: {problem}",
            "Close other programs that use the GPU, or choose a bundle with smaller tiles.",
        )
    if _NO_DRIVER.search(said):
        return DeviceUnavailableError(f"No NVIDIA GPU can be used: {problem}", "Install or update the NVIDIA driver.")
    return EngineError(problem, REPORT)


def check_validity(library: Library, runtime: RtxRuntime, data: bytes, log: Any) -> None:
    """Ask TensorRT-RTX whether an engine fits this machine, from its first bytes.

    Args:
        library: TensorRT-RTX.
        runtime: Its runtime, made with `log`.
        data: The engine.
        log: The logger of `make_log`.

    Raises:
        EngineError: TensorRT-RTX cannot tell.
        EngineMismatchError: It was built by another version, or for other GPUs, or is damaged.
        DeviceUnavailableError: The driver or the CUDA runtime is missing or too old for it.
        DeviceMemoryError: The GPU has too little memory.
    """
    enumerations = cast(Any, library.trt)
    validity, bits = runtime.get_engine_validity(data[:_HEADER_BYTES])
    if validity != enumerations.EngineValidity.INVALID:
        return
    known = enumerations.EngineInvalidityDiagnostics.__members__
    reasons = [name for name, flag in known.items() if bits & int(flag)]
    if not reasons:
        raise explain(library, "cannot tell whether the engine fits this machine", log)
    words = ", ".join(name.lower().replace("_", " ") for name in reasons)
    problem = f"The engine does not fit this machine: {words}."
    if "INSUFFICIENT_GPU_MEMORY" in reasons:
        raise DeviceMemoryError(problem, "Close other programs that use the GPU.", reasons=reasons)
    if {"OLD_CUDA_DRIVER", "OLD_CUDA_RUNTIME", "CUDA_ERROR"} & set(reasons):
        raise DeviceUnavailableError(problem, "Install or update the NVIDIA driver.", reasons=reasons)
    raise EngineMismatchError(problem, "Build it again with this version for this GPU.", reasons=reasons)
