"""The driver's own library through ctypes: needs no package, only the driver. See `rmr_sdk.cuda.driver.Driver`.

Function names and constants are those of NVIDIA's CUDA driver API, whose symbols carry a version suffix where a call
changed its meaning; the ones used here are in every driver since CUDA 11.4.
"""

from __future__ import annotations

import ctypes
import sys
from ctypes import byref, c_char, c_char_p, c_float, c_int, c_size_t, c_uint, c_ulonglong, c_void_p
from typing import Any

from rmr_sdk.cuda.driver import UPDATE_DRIVER, cuda_error
from rmr_sdk.errors import DeviceUnavailableError

NO_DRIVER = "There is no NVIDIA driver"

_LIBRARY = "nvcuda.dll" if sys.platform == "win32" else "libcuda.so.1"
_MULTIPROCESSORS, _INTEGRATED, _MAJOR, _MINOR = 16, 18, 75, 76  # CU_DEVICE_ATTRIBUTE_*
_DEVICE_ORDINAL = 9  # CU_POINTER_ATTRIBUTE_*
_PORTABLE_AND_MAPPED = 1 | 2  # CU_MEMHOSTALLOC_*
_NON_BLOCKING = 1  # CU_STREAM_*
_BLOCKING_SYNC, _DISABLE_TIMING = 1, 2  # CU_EVENT_*: a waiting thread sleeps and leaves its core to others
_THREAD_LOCAL = 1  # CU_STREAM_CAPTURE_MODE_*: other threads go on as usual
_NAME_BYTES = 256


def load_libcuda() -> LibCuda:
    """Load the library of the driver and initialise it.

    Raises:
        DeviceUnavailableError: There is no driver, or it finds no GPU.
    """
    try:
        library = ctypes.CDLL(_LIBRARY)
    except OSError as error:
        raise DeviceUnavailableError(f"{NO_DRIVER} ({error}).", UPDATE_DRIVER, library=_LIBRARY) from error
    driver = LibCuda(library)
    driver.call("initialising the driver", "cuInit", c_uint(0))
    return driver


class LibCuda:
    """The driver's library; see `rmr_sdk.cuda.driver.Driver`."""

    name = "driver"

    def __init__(self, library: Any) -> None:
        self.library = library

    def call(self, what: str, function: str, *arguments: Any) -> None:
        """Call a function of the driver.

        Raises:
            DeviceError: It did not return 0, or the driver is too old to have it.
        """
        try:
            code = getattr(self.library, function)(*arguments)
        except AttributeError as error:
            raise DeviceUnavailableError(
                f"The NVIDIA driver is too old: it has no {function}.", UPDATE_DRIVER, function=function
            ) from error
        if code:
            raise cuda_error(what, code)

    def version(self) -> int:
        """Return the newest CUDA version that the driver supports."""
        value = c_int()
        self.call("asking for its version", "cuDriverGetVersion", byref(value))
        return value.value

    def count(self) -> int:
        """Count the GPUs."""
        value = c_int()
        self.call("counting the GPUs", "cuDeviceGetCount", byref(value))
        return value.value

    def describe(self, index: int) -> tuple[str, int, int, bool, int]:
        """Return what identifies a GPU."""
        device, name, size = self._device(index), (c_char * _NAME_BYTES)(), c_size_t()
        self.call("asking for its name", "cuDeviceGetName", name, c_int(_NAME_BYTES), device)
        self.call("asking for its memory", "cuDeviceTotalMem_v2", byref(size), device)
        major, minor, multiprocessors, integrated = (
            self._attribute(device, number) for number in (_MAJOR, _MINOR, _MULTIPROCESSORS, _INTEGRATED)
        )
        return name.value.decode(), 10 * major + minor, multiprocessors, bool(integrated), size.value

    def retain(self, index: int) -> int:
        """Keep the primary context of a GPU alive and return it."""
        context = c_void_p()
        self.call("opening it", "cuDevicePrimaryCtxRetain", byref(context), self._device(index))
        return context.value or 0

    def release(self, index: int) -> None:
        """Let go of it."""
        self.call("closing it", "cuDevicePrimaryCtxRelease_v2", self._device(index))

    def current(self) -> int:
        """Return the context that is current to the calling thread, or 0."""
        context = c_void_p()
        self.call("asking for the context", "cuCtxGetCurrent", byref(context))
        return context.value or 0

    def words(self, code: int) -> str:
        """Return the driver's words for a result code, or "" where it does not know the code."""
        text = c_char_p()
        known = self.library.cuGetErrorString(c_int(code), byref(text)) == 0
        return (text.value or b"").decode() if known else ""

    def push(self, context: int) -> None:
        """Make a context current to the calling thread."""
        self.call("entering its context", "cuCtxPushCurrent_v2", c_void_p(context))

    def pop(self) -> None:
        """Make the one before current again."""
        self.call("leaving its context", "cuCtxPopCurrent_v2", byref(c_void_p()))

    def allocate(self, nbytes: int) -> int:
        """Take memory of the GPU."""
        pointer = c_ulonglong()
        self.call("taking memory", "cuMemAlloc_v2", byref(pointer), c_size_t(nbytes))
        return pointer.value

    def free(self, pointer: int) -> None:
        """Give it back."""
        self.call("giving memory back", "cuMemFree_v2", c_ulonglong(pointer))

    def allocate_host(self, nbytes: int) -> int:
        """Take page-locked memory."""
        pointer, flags = c_void_p(), c_uint(_PORTABLE_AND_MAPPED)
        self.call("taking page-locked memory", "cuMemHostAlloc", byref(pointer), c_size_t(nbytes), flags)
        return pointer.value or 0

    def free_host(self, pointer: int) -> None:
        """Give it back."""
        self.call("giving page-locked memory back", "cuMemFreeHost", c_void_p(pointer))

    def device_pointer(self, host_pointer: int) -> int:
        """Return the GPU's address of page-locked memory."""
        pointer = c_ulonglong()
        host = c_void_p(host_pointer)
        self.call("mapping memory", "cuMemHostGetDevicePointer_v2", byref(pointer), host, c_uint(0))
        return pointer.value

    def owner(self, pointer: int) -> int:
        """Return the number of the GPU whose memory holds an address."""
        ordinal, attribute = c_int(), c_int(_DEVICE_ORDINAL)
        self.call("asking whose memory it is", "cuPointerGetAttribute", byref(ordinal), attribute, c_ulonglong(pointer))
        return ordinal.value

    def memory(self) -> tuple[int, int]:
        """Return the free bytes and all bytes of memory."""
        free, total = c_size_t(), c_size_t()
        self.call("asking for its free memory", "cuMemGetInfo_v2", byref(free), byref(total))
        return free.value, total.value

    def copy_to_device(self, into: int, source: int, nbytes: int, stream: int) -> None:
        """Queue a copy."""
        arguments = c_ulonglong(into), c_void_p(source), c_size_t(nbytes), c_void_p(stream)
        self.call("copying to it", "cuMemcpyHtoDAsync_v2", *arguments)

    def copy_to_host(self, into: int, source: int, nbytes: int, stream: int) -> None:
        """Queue a copy."""
        arguments = c_void_p(into), c_ulonglong(source), c_size_t(nbytes), c_void_p(stream)
        self.call("copying from it", "cuMemcpyDtoHAsync_v2", *arguments)

    def create_stream(self) -> int:
        """Make a stream."""
        stream = c_void_p()
        self.call("opening a stream", "cuStreamCreate", byref(stream), c_uint(_NON_BLOCKING))
        return stream.value or 0

    def destroy_stream(self, stream: int) -> None:
        """Give it back."""
        self.call("closing a stream", "cuStreamDestroy_v2", c_void_p(stream))

    def synchronize_stream(self, stream: int) -> None:
        """Wait for it."""
        self.call("waiting for it", "cuStreamSynchronize", c_void_p(stream))

    def stream_context(self, stream: int) -> int:
        """Return the context that a stream belongs to."""
        context = c_void_p()
        self.call("asking whose stream it is", "cuStreamGetCtx", c_void_p(stream), byref(context))
        return context.value or 0

    def create_event(self, timing: bool) -> int:
        """Make an event."""
        event, flags = c_void_p(), c_uint(_BLOCKING_SYNC | (0 if timing else _DISABLE_TIMING))
        self.call("making an event", "cuEventCreate", byref(event), flags)
        return event.value or 0

    def destroy_event(self, event: int) -> None:
        """Give it back."""
        self.call("giving an event back", "cuEventDestroy_v2", c_void_p(event))

    def record_event(self, event: int, stream: int) -> None:
        """Put it into a stream."""
        self.call("recording an event", "cuEventRecord", c_void_p(event), c_void_p(stream))

    def synchronize_event(self, event: int) -> None:
        """Wait for it."""
        self.call("waiting for it", "cuEventSynchronize", c_void_p(event))

    def elapsed_ms(self, earlier: int, later: int) -> float:
        """Return the time between two events."""
        value = c_float()
        self.call("measuring time", "cuEventElapsedTime", byref(value), c_void_p(earlier), c_void_p(later))
        return value.value

    def begin_capture(self, stream: int) -> None:
        """Record what the calling thread queues into a stream."""
        self.call("recording work", "cuStreamBeginCapture_v2", c_void_p(stream), c_int(_THREAD_LOCAL))

    def end_capture(self, stream: int) -> int:
        """Stop recording, and make it ready to launch."""
        graph, ready = c_void_p(), c_void_p()
        self.call("recording work", "cuStreamEndCapture", c_void_p(stream), byref(graph))
        try:
            self.call("preparing a graph", "cuGraphInstantiateWithFlags", byref(ready), graph, c_ulonglong(0))
        finally:
            self.call("giving a graph back", "cuGraphDestroy", graph)
        return ready.value or 0

    def launch_graph(self, graph: int, stream: int) -> None:
        """Queue a recording."""
        self.call("launching a graph", "cuGraphLaunch", c_void_p(graph), c_void_p(stream))

    def destroy_graph(self, graph: int) -> None:
        """Give it back."""
        self.call("giving a graph back", "cuGraphExecDestroy", c_void_p(graph))

    def _device(self, index: int) -> c_int:
        device = c_int()
        self.call("looking for it", "cuDeviceGet", byref(device), c_int(index))
        return device

    def _attribute(self, device: c_int, number: int) -> int:
        value = c_int()
        self.call("asking what it is", "cuDeviceGetAttribute", byref(value), c_int(number), device)
        return value.value
