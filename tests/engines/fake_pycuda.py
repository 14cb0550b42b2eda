"""The part of `pycuda.driver` that the adapter uses, over the driver on host memory.

It fails as pycuda does: exceptions of its own that carry the driver's words and not its number. That the adapter works
with pycuda 2026.1 itself was tried over the same driver.
"""

from __future__ import annotations

import ctypes
import types
from ctypes import byref, c_size_t, c_uint, c_ulonglong, c_void_p
from typing import Any

import numpy as np


class Error(Exception):
    """pycuda.driver.Error."""


class MemoryError(Error):
    """pycuda.driver.MemoryError."""


class LaunchError(Error):
    """pycuda.driver.LaunchError."""


def make_module(library: Any) -> types.ModuleType:
    """Make the module `pycuda.driver`."""

    def call(function: str, *arguments: Any) -> None:
        code = getattr(library, function)(*arguments)
        if code:
            text = ctypes.c_char_p()
            library.cuGetErrorString(code, byref(text))
            kind = {2: MemoryError, 719: LaunchError}.get(code, Error)
            raise kind(f"{function} failed: {(text.value or b'strange').decode()}")

    class Context:
        def __init__(self, index: int) -> None:
            self.index, self.handle = index, c_void_p()
            call("cuDevicePrimaryCtxRetain", byref(self.handle), index)

        def push(self) -> None:
            call("cuCtxPushCurrent_v2", self.handle)

        @staticmethod
        def pop() -> None:
            call("cuCtxPopCurrent_v2", byref(c_void_p()))

        def detach(self) -> None:
            self.push()  # and it stays entered, as with pycuda and primary contexts
            call("cuDevicePrimaryCtxRelease_v2", self.index)

    class Device:
        def __init__(self, index: int) -> None:
            self.index = index

        def retain_primary_context(self) -> Context:
            return Context(self.index)

    class Allocation:
        def __init__(self, nbytes: int) -> None:
            self.pointer = c_ulonglong()
            call("cuMemAlloc_v2", byref(self.pointer), c_size_t(nbytes))

        def __int__(self) -> int:
            return self.pointer.value

        def free(self) -> None:
            call("cuMemFree_v2", self.pointer)

    class PagelockedHostAllocation:
        def __init__(self, nbytes: int) -> None:
            self.pointer = c_void_p()
            call("cuMemHostAlloc", byref(self.pointer), c_size_t(nbytes), c_uint(3))
            self.__array_interface__ = {
                "shape": (nbytes,),
                "typestr": "|u1",
                "data": (self.pointer.value, False),
                "version": 3,
            }

        def free(self) -> None:
            call("cuMemFreeHost", self.pointer)

    class Stream:
        def __init__(self, flags: int = 0) -> None:
            assert flags == 1, "it does not wait for the default stream"
            self.handle: int | None = None
            stream = c_void_p()
            call("cuStreamCreate", byref(stream), c_uint(flags))
            self.handle, self.context = stream.value, c_void_p()
            call("cuCtxGetCurrent", byref(self.context))

        def synchronize(self) -> None:
            call("cuStreamSynchronize", c_void_p(self.handle))

        def __del__(self) -> None:
            if self.handle is not None:
                call("cuCtxPushCurrent_v2", self.context)
                call("cuStreamDestroy_v2", c_void_p(self.handle))
                call("cuCtxPopCurrent_v2", byref(c_void_p()))

    def pagelocked_empty(shape: int, dtype: str, mem_flags: int) -> np.ndarray:
        assert (dtype, mem_flags) == ("u1", 3)
        return np.asarray(PagelockedHostAllocation(shape))

    module: Any = types.ModuleType("pycuda.driver")
    module.Error, module.MemoryError, module.LaunchError = Error, MemoryError, LaunchError
    module.init = lambda: call("cuInit", c_uint(0))
    module.Device, module.Context, module.Stream = Device, Context, Stream
    module.mem_alloc, module.pagelocked_empty = Allocation, pagelocked_empty
    module.host_alloc_flags = types.SimpleNamespace(PORTABLE=1, DEVICEMAP=2)
    return module
