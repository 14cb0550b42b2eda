"""What a device hands out: arrays, streams, events and graphs. See `rmr_sdk.cuda.base` for what each promises."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import DTypeLike

from rmr_sdk.cuda.base import Event, Stream
from rmr_sdk.cuda.context import Context
from rmr_sdk.cuda.driver import Driver
from rmr_sdk.errors import DeviceError

REPORT = "Report it with the output of `rmr doctor`."


class CudaArray:
    """Memory of a GPU; see `rmr_sdk.cuda.base.DeviceArray`.

    Args:
        context: Where it lies.
        shape: Length of each axis.
        dtype: Type of an element.
        pointer: Address of memory that belongs to `keep`, or None to take memory.
        keep: What must live as long as the memory is used.
    """

    def __init__(
        self, context: Context, shape: Sequence[int], dtype: DTypeLike, pointer: int | None = None, keep: object = None
    ) -> None:
        self.context = context
        self.shape = tuple(int(length) for length in shape)
        self.dtype = np.dtype(dtype)
        self.nbytes = math.prod(self.shape) * self.dtype.itemsize
        self._keep = keep
        self._release = None
        if pointer is None:
            with context.active():
                pointer = context.driver.allocate(max(1, self.nbytes))
            self._release = context.own(self, context.driver.free, pointer)
        self._pointer: int | None = pointer

    @property
    def pointer(self) -> int:
        """Return its address on the GPU."""
        if self._pointer is None:
            raise DeviceError("The device array has been freed.", "Keep its device and itself open while it is used.")
        return self._pointer

    @property
    def __cuda_array_interface__(self) -> dict[str, Any]:
        """Describe it to other libraries; `stream` is absent: who fills the array synchronises."""
        data = (self.pointer, False)
        return {"shape": self.shape, "typestr": self.dtype.str, "data": data, "strides": None, "version": 3}

    def free(self) -> None:
        """Give the memory back."""
        self._pointer = self._keep = None
        if self._release is not None:
            self._release()

    close = free


class CudaStream:
    """A stream; see `rmr_sdk.cuda.base.Stream`. One of another library is given as `foreign`."""

    def __init__(self, context: Context, foreign: int | None = None) -> None:
        self.context = context
        self._release = None
        if foreign is None:
            with context.active():
                handle = context.driver.create_stream()
            self._release = context.own(self, _Finish(context.driver), handle)
        else:
            handle = foreign
        self._handle: int | None = handle

    @property
    def handle(self) -> int:
        """Return the address of the CUstream."""
        if self._handle is None:
            raise DeviceError("The stream has been closed.", "Keep its device and itself open while it is used.")
        return self._handle

    def synchronize(self) -> None:
        """Wait until all that was queued is done."""
        handle = self.handle
        with self.context.active():
            self.context.driver.synchronize_stream(handle)

    def close(self) -> None:
        """Give it back."""
        self._handle = None
        if self._release is not None:
            self._release()


class _Finish:
    """Gives a stream back once its work is done, since that uses memory which is freed next."""

    def __init__(self, driver: Driver) -> None:
        self._driver = driver

    def __call__(self, stream: int) -> None:
        try:
            self._driver.synchronize_stream(stream)
        finally:
            self._driver.destroy_stream(stream)


class CudaEvent:
    """A mark in a stream; see `rmr_sdk.cuda.base.Event`."""

    def __init__(self, context: Context, timing: bool) -> None:
        self.context = context
        with context.active():
            self.handle = context.driver.create_event(timing)
        self._release = context.own(self, context.driver.destroy_event, self.handle)

    def record(self, stream: Stream) -> None:
        """Put the mark behind all that is queued."""
        with self.context.active():
            self.context.driver.record_event(self.handle, stream.handle)

    def synchronize(self) -> None:
        """Wait until the work before the mark is done."""
        with self.context.active():
            self.context.driver.synchronize_event(self.handle)

    def milliseconds_since(self, earlier: Event) -> float:
        """Return the time between two marks."""
        if not isinstance(earlier, CudaEvent) or earlier.context is not self.context:
            raise DeviceError("The events belong to two devices.", REPORT)
        with self.context.active():
            return self.context.driver.elapsed_ms(earlier.handle, self.handle)

    def close(self) -> None:
        """Give it back."""
        self._release()


class CudaGraph:
    """Recorded work; see `rmr_sdk.cuda.base.Graph`."""

    def __init__(self, context: Context, handle: int) -> None:
        self.context = context
        self._handle = handle
        self._release = context.own(self, context.driver.destroy_graph, handle)

    def launch(self, stream: Stream) -> None:
        """Queue the whole of it."""
        with self.context.active():
            self.context.driver.launch_graph(self._handle, stream.handle)

    def close(self) -> None:
        """Give it back."""
        self._release()
