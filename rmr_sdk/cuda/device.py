"""An opened GPU; see `rmr_sdk.cuda.base.Device` for what it promises.

Owns every check of what callers hand in. The driver behind it is given, so that all of this runs without a GPU too.
"""

from __future__ import annotations

import contextlib
import ctypes
import math
import weakref
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager
from types import TracebackType
from typing import Any, TypeVar

import numpy as np
from numpy.typing import DTypeLike, NDArray

from rmr_sdk.cuda.base import Device, DeviceArray, Graph, Stream
from rmr_sdk.cuda.context import Context
from rmr_sdk.cuda.driver import Driver, find_driver
from rmr_sdk.cuda.gpus import describe
from rmr_sdk.cuda.resources import CudaArray, CudaEvent, CudaGraph, CudaStream
from rmr_sdk.errors import DeviceError, DeviceMemoryError, DeviceUnavailableError

_Resource = CudaArray | CudaStream | CudaEvent | CudaGraph
_Given = TypeVar("_Given", bound=_Resource)


def open_device(index: int = 0) -> Device:
    """Open a GPU in the primary context of the process.

    Args:
        index: Its number among those that the process sees; CUDA_VISIBLE_DEVICES counts.

    Raises:
        DeviceUnavailableError: There is no NVIDIA driver, it is too old, or there is no such GPU.
        DeviceError: The GPU does not answer.
    """
    driver = find_driver()
    count = driver.count()
    if not 0 <= index < count:
        listing = ", ".join(f"cuda:{number}" for number in range(count)) or "none"
        raise DeviceUnavailableError(
            f"There is no GPU cuda:{index} (found: {listing}).", "Choose one of those, or see CUDA_VISIBLE_DEVICES."
        )
    return CudaDevice(driver, index)


class CudaDevice:
    """An opened GPU; see `rmr_sdk.cuda.base.Device`."""

    def __init__(self, driver: Driver, index: int) -> None:
        self.info = describe(driver, index)
        self._context: Context | None = Context(driver, index)
        self._given: weakref.WeakSet[_Resource] = weakref.WeakSet()
        self._pinned: weakref.WeakValueDictionary[int, Any] = weakref.WeakValueDictionary()

    def allocate(self, shape: Sequence[int], dtype: DTypeLike) -> DeviceArray:
        """Take memory for an array."""
        try:
            return self._track(CudaArray(self._open(), shape, dtype))
        except DeviceMemoryError as error:
            needed, free = math.prod(shape) * np.dtype(dtype).itemsize, self.free_bytes()
            raise DeviceMemoryError(
                f"The GPU has too little memory: an array needs {needed / 2**20:.1f} MiB, "
                f"and {free / 2**20:.1f} MiB are free.",
                error.fix,
                needed=needed,
                free=free,
            ) from error

    def pinned(self, shape: Sequence[int], dtype: DTypeLike) -> NDArray[Any]:
        """Make a host array in page-locked memory."""
        kind, context = np.dtype(dtype), self._open()
        nbytes = max(1, math.prod(shape) * kind.itemsize)
        with context.active():
            address = context.driver.allocate_host(nbytes)
        memory = (ctypes.c_byte * nbytes).from_address(address)
        context.own(memory, context.driver.free_host, address)
        self._pinned[address] = memory
        return np.frombuffer(memoryview(memory), dtype=kind, count=math.prod(shape)).reshape(shape)

    def mapped(self, array: NDArray[Any]) -> DeviceArray:
        """Give the GPU's view of an array of `pinned`."""
        context, memory = self._open(), self._pinned.get(array.ctypes.data)
        if not self.info.integrated:
            raise DeviceError(
                f"{self.info.name} is not integrated: it has memory of its own.", "Use `upload` and `download`."
            )
        if memory is None or not array.flags.c_contiguous or array.nbytes > len(memory):
            raise DeviceError("The array is none of this device's `pinned`, or part of one.", "Map a whole one.")
        with context.active():
            pointer = context.driver.device_pointer(array.ctypes.data)
        return self._track(CudaArray(context, array.shape, array.dtype, pointer, keep=array))

    def view(self, array: Any) -> DeviceArray:
        """Take an array of another library."""
        context = self._open()
        facts = getattr(array, "__cuda_array_interface__", None)
        if facts is None:
            raise DeviceError(
                f"A {type(array).__name__} is no device array: it has no __cuda_array_interface__.",
                "Pass a PyTorch, CuPy or pycuda array, or upload a NumPy one.",
            )
        shape, dtype, pointer = facts["shape"], np.dtype(facts["typestr"]), facts["data"][0]
        if not _is_contiguous(shape, facts.get("strides"), dtype.itemsize):
            raise DeviceError(
                f"The device array of shape {tuple(shape)} is not C-contiguous (strides {facts['strides']}).",
                "Make it contiguous first.",
                strides=facts["strides"],
            )
        with context.active():
            if math.prod(shape):
                self._check_owner(context, pointer)
            if facts.get("stream") is not None:
                context.driver.synchronize_stream(facts["stream"])
        return self._track(CudaArray(context, shape, dtype, pointer, keep=array))

    def stream(self) -> Stream:
        """Open a stream."""
        return self._track(CudaStream(self._open()))

    def foreign_stream(self, handle: int) -> Stream:
        """Take the stream of another library."""
        context = self._open()
        with context.active():
            owner = context.driver.stream_context(handle)
        if owner != context.handle:
            raise DeviceError(
                f"The stream belongs to another context than {self.info.device}.",
                "Pass one that was made in the primary context of that GPU, as PyTorch and CuPy make them.",
            )
        return self._track(CudaStream(context, foreign=handle))

    def check_stream(self, stream: Stream) -> None:
        """Refuse a stream that is none of this device's."""
        context = self._open()
        if not isinstance(stream, CudaStream) or stream.context is not context:
            raise DeviceError(
                f"The stream belongs to another context than {self.info.device}.",
                "Use one that this device opened, or `foreign_stream`.",
            )

    def event(self, timing: bool = False) -> CudaEvent:
        """Make a mark."""
        return self._track(CudaEvent(self._open(), timing))

    def upload(self, array: NDArray[Any], into: DeviceArray, stream: Stream) -> None:
        """Queue a copy to the GPU."""
        context = self._check_copy(array, into, stream)
        with context.active():
            context.driver.copy_to_device(into.pointer, array.ctypes.data, array.nbytes, stream.handle)

    def download(self, source: DeviceArray, into: NDArray[Any], stream: Stream) -> None:
        """Queue a copy to the host."""
        context = self._check_copy(into, source, stream)
        with context.active():
            context.driver.copy_to_host(into.ctypes.data, source.pointer, into.nbytes, stream.handle)

    @contextlib.contextmanager
    def capture(self, stream: Stream) -> Iterator[list[Graph]]:
        """Record what is queued into a stream."""
        context, graphs = self._open(), list[Graph]()
        self.check_stream(stream)
        handle = stream.handle
        with context.active():
            context.driver.begin_capture(handle)
            try:
                yield graphs
            except BaseException:
                with contextlib.suppress(DeviceError):
                    context.driver.destroy_graph(context.driver.end_capture(handle))
                raise
            graphs.append(self._track(CudaGraph(context, context.driver.end_capture(handle))))

    def free_bytes(self) -> int:
        """Return the memory that is free now."""
        context = self._open()
        with context.active():
            return context.driver.memory()[0]

    def activate(self) -> AbstractContextManager[None]:
        """Make the context current to the calling thread."""
        return self._open().active()

    def close(self) -> None:
        """Free everything that it handed out."""
        context, self._context = self._context, None
        if context is None:
            return
        # Streams first: closing one waits for the work that uses the others.
        for resource in sorted(self._given, key=lambda resource: not isinstance(resource, CudaStream)):
            resource.close()
        context.drop()

    def __enter__(self) -> CudaDevice:
        """Return the device."""
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Close the device."""
        self.close()

    def _open(self) -> Context:
        if self._context is None:
            raise DeviceError(f"{self.info.device} has been closed.", "Open the pipeline again.")
        return self._context

    def _track(self, resource: _Given) -> _Given:
        self._given.add(resource)
        return resource

    def _check_owner(self, context: Context, pointer: int) -> None:
        try:
            owner = context.driver.owner(pointer)
        except DeviceError as error:
            raise DeviceError("The address of the array is no memory of a GPU.", "Pass a device array.") from error
        if owner != self.info.index:
            raise DeviceError(
                f"The array lies on cuda:{owner}, not on {self.info.device}.", "Copy it there first.", found=owner
            )

    def _check_copy(self, host: NDArray[Any], array: DeviceArray, stream: Stream) -> Context:
        context = self._open()
        self.check_stream(stream)
        if not isinstance(array, CudaArray) or array.context is not context:
            raise DeviceError(
                f"The array belongs to another device than {self.info.device}.", "Allocate it there, or use `view`."
            )
        if (host.shape, host.dtype) != (array.shape, array.dtype):
            raise DeviceError(
                f"A host array {host.dtype} {host.shape} cannot be copied from or to a device array "
                f"{array.dtype} {array.shape}.",
                "Make their shapes and types the same.",
            )
        if not host.flags.c_contiguous:
            raise DeviceError(
                f"The host array of shape {host.shape} is not C-contiguous (strides {host.strides}).",
                "Pass numpy.ascontiguousarray of it.",
                strides=host.strides,
            )
        return context


def _is_contiguous(shape: Sequence[int], strides: Sequence[int] | None, itemsize: int) -> bool:
    if strides is None or 0 in shape:
        return True
    expected = itemsize
    for length, stride in zip(reversed(shape), reversed(strides), strict=True):
        if length != 1 and stride != expected:
            return False
        expected *= length
    return True
