"""What the SDK needs from an NVIDIA GPU: memory, copies and streams, as protocols; and what a GPU says about itself.

`rmr_sdk.cuda.open_device` gives the real thing. Whoever works on a GPU takes these, so that a test can hand in one that
computes on host memory.
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from types import TracebackType
from typing import Any, Protocol

import numpy as np
from numpy.typing import DTypeLike, NDArray


@dataclass(frozen=True, slots=True)
class DeviceInfo:
    """A GPU, as its driver describes it.

    Attributes:
        index: Number among the GPUs that the process sees.
        name: Such as "NVIDIA RTX A4000" or "Orin".
        compute_capability: Major times ten plus minor: 86, 87, 120.
        sm_count: Streaming multiprocessors.
        integrated: Shares its memory with the CPU, as on a Jetson: arrays can be mapped instead of copied.
        total_bytes: Memory, shared or its own.
        driver: Newest CUDA version that the driver supports, and the driver's own where it says it: "13.0 (580.65.06)".
    """

    index: int
    name: str
    compute_capability: int
    sm_count: int
    integrated: bool
    total_bytes: int
    driver: str

    @property
    def device(self) -> str:
        """Name it as callers do: "cuda:0"."""
        return f"cuda:{self.index}"


class DeviceArray(Protocol):
    """A C-contiguous array in the memory of a GPU."""

    @property
    def shape(self) -> tuple[int, ...]:
        """Return the length of each axis."""

    @property
    def dtype(self) -> np.dtype[Any]:
        """Return the type of an element."""

    @property
    def nbytes(self) -> int:
        """Return the bytes it takes."""

    @property
    def pointer(self) -> int:
        """Return its address on the GPU.

        Raises:
            DeviceError: The array has been freed.
        """

    @property
    def __cuda_array_interface__(self) -> dict[str, Any]:
        """Describe it to CuPy, PyTorch, Numba and the kernels of the SDK, version 3 of the interface."""

    def free(self) -> None:
        """Give the memory back; again is harmless. Nothing that is still queued may use it."""


class Stream(Protocol):
    """A queue of work of one GPU; never the default stream."""

    @property
    def handle(self) -> int:
        """Return the address of the CUstream.

        Raises:
            DeviceError: The stream has been closed.
        """

    def synchronize(self) -> None:
        """Wait until all that was queued is done.

        Raises:
            DeviceError: Some of it failed.
        """

    def close(self) -> None:
        """Wait for the work in it, as far as it can be, and give it back; again is harmless."""


class Event(Protocol):
    """A mark in a stream."""

    def record(self, stream: Stream) -> None:
        """Put the mark behind all that is queued in `stream`."""

    def synchronize(self) -> None:
        """Wait until the work before the mark is done.

        Raises:
            DeviceError: Some of it failed.
        """

    def milliseconds_since(self, earlier: Event) -> float:
        """Return the time between two marks that have been passed."""

    def close(self) -> None:
        """Give it back; again is harmless."""


class Graph(Protocol):
    """Recorded work that is launched as one."""

    def launch(self, stream: Stream) -> None:
        """Queue the whole of it."""

    def close(self) -> None:
        """Give it back; again is harmless."""


class Device(Protocol):
    """An opened GPU in the primary context of the process, which PyTorch, CuPy and the CUDA runtime share.

    Its methods may be called from any thread; each makes the context current for as long as it runs. What it handed
    out is freed with it at the latest.
    """

    info: DeviceInfo

    def allocate(self, shape: Sequence[int], dtype: DTypeLike) -> DeviceArray:
        """Take memory for an array; its content is undefined.

        Raises:
            DeviceMemoryError: There is not enough; `needed` and `free` are bytes.
        """

    def pinned(self, shape: Sequence[int], dtype: DTypeLike) -> NDArray[Any]:
        """Make a host array in page-locked memory, freed with the last reference to it; its content is undefined.

        Copies from and to it run beside computing. On an integrated GPU it is mapped: see `mapped`.

        Raises:
            DeviceMemoryError: The host has not enough.
        """

    def mapped(self, array: NDArray[Any]) -> DeviceArray:
        """Give the GPU's view of a whole array of `pinned`, without a copy; it keeps the host array alive.

        Raises:
            DeviceError: The GPU is not integrated, or the array is not one of `pinned` and C-contiguous.
        """

    def view(self, array: Any) -> DeviceArray:
        """Take an array of another library through `__cuda_array_interface__`, without a copy.

        Work that its `stream` still has to do is waited for. `free` lets go of it and frees nothing.

        Raises:
            DeviceError: It is not C-contiguous, lies on another device, or has no such interface.
        """

    def stream(self) -> Stream:
        """Open a stream that does not wait for the default stream, nor that for it."""

    def foreign_stream(self, handle: int) -> Stream:
        """Take the stream of another library; closing it leaves the CUstream alone.

        Raises:
            DeviceError: It belongs to another context, or is none.
        """

    def check_stream(self, stream: Stream) -> None:
        """Refuse a stream that is none of this device's.

        Raises:
            DeviceError: It belongs to another one.
        """

    def event(self, timing: bool = False) -> Event:
        """Make a mark, that can measure time where `timing` is set."""

    def upload(self, array: NDArray[Any], into: DeviceArray, stream: Stream) -> None:
        """Queue a copy to the GPU; leave `array` alone until it is done.

        Raises:
            DeviceError: Shape or dtype differ, an array is not C-contiguous, or belongs to another device.
        """

    def download(self, source: DeviceArray, into: NDArray[Any], stream: Stream) -> None:
        """Queue a copy to the host; `into` is valid once the stream has been synchronised.

        Raises:
            DeviceError: As `upload`.
        """

    def capture(self, stream: Stream) -> AbstractContextManager[list[Graph]]:
        """Record what is queued into `stream` in the block instead of running it.

        The list holds the one graph after the block. Does nothing of what is recorded.

        Raises:
            DeviceError: The work cannot be recorded.
        """

    def free_bytes(self) -> int:
        """Return the memory that is free now."""

    def activate(self) -> AbstractContextManager[None]:
        """Make the context current to the calling thread, for libraries that need it so."""

    def close(self) -> None:
        """Free everything that it handed out, page-locked arrays still referenced apart; again is harmless."""

    def __enter__(self) -> Device:
        """Return the device."""

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Close the device."""
