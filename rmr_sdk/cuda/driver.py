"""The calls to the CUDA driver that the SDK makes, as one small protocol, and which library makes them.

Two adapters serve it: pycuda where it is installed (`rmr_sdk.cuda.pycuda_driver`), else the own library of the driver
through ctypes (`rmr_sdk.cuda.libcuda`), which needs no package. Both raise the errors made here.
"""

from __future__ import annotations

import os
from importlib.util import find_spec
from typing import Protocol

from rmr_sdk.errors import ConfigError, DeviceError, DeviceMemoryError, DeviceUnavailableError

LIBRARY_VARIABLE = "RMR_CUDA_LIBRARY"
"""Environment variable that names the adapter: "pycuda" or "driver"; unset or empty for the first that is there."""

OLDEST_DRIVER = 12000
"""CUDA 12.0: the oldest that TensorRT 10.3 and the kernels of the SDK run with (JetPack 6 has 12.6)."""

UPDATE_DRIVER = "Install an NVIDIA driver for CUDA 12.0 or newer (R525 or newer; on a Jetson: JetPack 6.1 or newer)."

_OUT_OF_MEMORY = 2
_UNAVAILABLE = {3, 34, 35, 46, 100, 101, 209, 218, 802, 803, 804}
"""Not initialised, stub library, insufficient driver, device unavailable, no or invalid device, no image for it."""
_LOST = {214, 220, 700, 702, 714, 715, 716, 717, 718, 719, 999}
"""Errors after which the context answers nothing else, as the driver's reference says of each."""

NAMES = {
    1: "invalid value",
    2: "out of memory",
    3: "not initialised",
    4: "deinitialised",
    34: "stub library",
    35: "insufficient driver",
    46: "device unavailable",
    100: "no device",
    101: "invalid device",
    201: "invalid context",
    209: "no binary for this GPU",
    214: "uncorrectable memory error",
    218: "no usable binary for this GPU",
    220: "uncorrectable NVLink error",
    400: "invalid handle",
    600: "not ready",
    700: "illegal address",
    702: "launch timeout",
    714: "hardware stack error",
    715: "illegal instruction",
    716: "misaligned address",
    717: "invalid address space",
    718: "invalid program counter",
    719: "launch failure",
    802: "system not ready",
    803: "driver and library mismatch",
    804: "compatibility mode not supported on this GPU",
    900: "unsupported while capturing",
    901: "invalidated capture",
    999: "unknown error",
}


class Driver(Protocol):
    """The driver of NVIDIA GPUs. Addresses, streams, events and graphs are plain integers.

    All but the first group need a current context. Every method raises what `cuda_error` makes.
    """

    name: str

    def version(self) -> int:
        """Return the newest CUDA version that the driver supports: 13000 is 13.0."""

    def count(self) -> int:
        """Count the GPUs."""

    def describe(self, index: int) -> tuple[str, int, int, bool, int]:
        """Return name, compute capability, multiprocessors, whether integrated, and bytes of memory."""

    def retain(self, index: int) -> int:
        """Keep the primary context of a GPU alive and return it."""

    def release(self, index: int) -> None:
        """Let go of it."""

    def push(self, context: int) -> None:
        """Make a context current to the calling thread."""

    def pop(self) -> None:
        """Make the one before current again."""

    def allocate(self, nbytes: int) -> int:
        """Take memory of the GPU."""

    def free(self, pointer: int) -> None:
        """Give it back."""

    def allocate_host(self, nbytes: int) -> int:
        """Take page-locked memory that is mapped into the GPU's addresses and belongs to every context."""

    def free_host(self, pointer: int) -> None:
        """Give it back."""

    def device_pointer(self, host_pointer: int) -> int:
        """Return the GPU's address of page-locked memory."""

    def owner(self, pointer: int) -> int:
        """Return the number of the GPU whose memory holds an address."""

    def memory(self) -> tuple[int, int]:
        """Return the free bytes and all bytes of memory."""

    def copy_to_device(self, into: int, source: int, nbytes: int, stream: int) -> None:
        """Queue a copy."""

    def copy_to_host(self, into: int, source: int, nbytes: int, stream: int) -> None:
        """Queue a copy."""

    def create_stream(self) -> int:
        """Make a stream that does not synchronise with the default one."""

    def destroy_stream(self, stream: int) -> None:
        """Give it back."""

    def synchronize_stream(self, stream: int) -> None:
        """Wait for it."""

    def stream_context(self, stream: int) -> int:
        """Return the context that a stream belongs to."""

    def create_event(self, timing: bool) -> int:
        """Make an event."""

    def destroy_event(self, event: int) -> None:
        """Give it back."""

    def record_event(self, event: int, stream: int) -> None:
        """Put it into a stream."""

    def synchronize_event(self, event: int) -> None:
        """Wait for it."""

    def elapsed_ms(self, earlier: int, later: int) -> float:
        """Return the time between two events."""

    def begin_capture(self, stream: int) -> None:
        """Record what the calling thread queues into a stream."""

    def end_capture(self, stream: int) -> int:
        """Stop recording, and make it ready to launch."""

    def launch_graph(self, graph: int, stream: int) -> None:
        """Queue a recording."""

    def destroy_graph(self, graph: int) -> None:
        """Give it back."""


def find_driver() -> Driver:
    """Load the adapter: pycuda, or the driver's own library where pycuda is not installed.

    Raises:
        DeviceUnavailableError: There is no NVIDIA driver, it is too old, or it finds no GPU.
        ConfigError: `RMR_CUDA_LIBRARY` names none of them.
    """
    asked = os.environ.get(LIBRARY_VARIABLE, "")
    if asked not in ("", "pycuda", "driver"):
        raise ConfigError(f'{LIBRARY_VARIABLE} is "{asked}".', 'Set it to "pycuda" or "driver", or unset it.')
    driver = _load_pycuda() if asked == "pycuda" or (not asked and find_spec("pycuda")) else _load_library()
    version = driver.version()
    if version < OLDEST_DRIVER:
        raise DeviceUnavailableError(
            f"The NVIDIA driver is too old: it supports CUDA up to {version_text(version)}.",
            UPDATE_DRIVER,
            found=version,
        )
    return driver


def version_text(version: int) -> str:
    """Write the driver's number of a CUDA version as people do: 12060 is "12.6"."""
    return f"{version // 1000}.{version % 1000 // 10}"


def cuda_error(
    what: str, code: int, name: str | None = None, needed: int | None = None, free: int | None = None
) -> DeviceError:
    """Make the error for a result code of the driver.

    Args:
        what: What was being done, such as "taking memory".
        code: The CUresult.
        name: What the library calls it; by default as listed here.
        needed: Bytes asked for, where memory was.
        free: Bytes that were free then, where known.
    """
    called = name or NAMES.get(code, "error")
    text = f"{called} ({code}) while {what}"
    if code == _OUT_OF_MEMORY:
        asked = "" if needed is None else f": {needed / 2**20:.0f} MiB were needed"
        left = "" if free is None else f", {free / 2**20:.0f} MiB were free"
        return DeviceMemoryError(
            f"The GPU has too little memory for {what}{asked}{left}.",
            "Close other programs that use the GPU, pass max_memory_mib, or choose a bundle with smaller tiles.",
            code=code,
            needed=needed,
            free=free,
        )
    if code in _UNAVAILABLE:
        return DeviceUnavailableError(f"No NVIDIA GPU can be used: {text}.", UPDATE_DRIVER, code=code)
    if code in _LOST:
        return DeviceError(
            f"The GPU was lost: {text}. Nothing that it held can be read any more.",
            "Start the process again; if it happens again, look into the system's log for NVIDIA Xid errors.",
            code=code,
            lost=True,
        )
    return DeviceError(f"The GPU refused: {text}.", "Report it with the output of `rmr doctor`.", code=code, lost=False)


def _load_pycuda() -> Driver:
    from rmr_sdk.cuda.pycuda_driver import load_pycuda

    return load_pycuda()


def _load_library() -> Driver:
    from rmr_sdk.cuda.libcuda import load_libcuda

    return load_libcuda()
