"""The devices that kernel tests run on: the host, the device launchers compiled for the host, and a GPU.

A test writes `ops = device.ops`, puts arrays, calls the op, and gets the result back; the same body serves all three.
"""

from __future__ import annotations

import ctypes
from types import ModuleType
from typing import Any

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[Any]


class Host:
    """NumPy arrays as they are."""

    def __init__(self, ops: ModuleType) -> None:
        self.ops = ops

    def put(self, array: Array) -> Any:
        """Return what the ops take for this array."""
        return array

    def get(self, handle: Any) -> Array:
        """Return the array behind a handle, after all ops on it."""
        return handle


class _HostArray:
    def __init__(self, array: Array) -> None:
        self.array = array

    @property
    def __cuda_array_interface__(self) -> dict[str, Any]:
        return dict(self.array.__array_interface__)


class Emulated(Host):
    """Host memory behind the interface of device memory."""

    def put(self, array: Array) -> Any:
        """Return the array in a wrapper."""
        return _HostArray(array)

    def get(self, handle: Any) -> Array:
        """Return the wrapped array."""
        return handle.array


class _DeviceArray:
    """A copy of the memory that an array spans, strides included."""

    def __init__(self, driver: ctypes.CDLL, array: Array) -> None:
        self.driver = driver
        self.array = array
        low, high = np.lib.array_utils.byte_bounds(array)
        self.low, self.bytes = low, max(high - low, 1)
        self.address = ctypes.c_uint64()
        _check(driver.cuMemAlloc_v2(ctypes.byref(self.address), ctypes.c_size_t(self.bytes)))
        _check(driver.cuMemcpyHtoD_v2(self.address, ctypes.c_void_p(low), ctypes.c_size_t(self.bytes)))

    def __del__(self) -> None:
        self.driver.cuMemFree_v2(self.address)

    @property
    def __cuda_array_interface__(self) -> dict[str, Any]:
        facts = dict(self.array.__array_interface__)
        address, read_only = facts["data"]
        return {**facts, "data": (self.address.value + address - self.low, read_only)}


class Gpu(Host):
    """Memory of the first GPU, through the driver alone."""

    def __init__(self, ops: ModuleType) -> None:
        super().__init__(ops)
        self.driver = ctypes.CDLL("libcuda.so.1")
        context = ctypes.c_void_p()
        _check(self.driver.cuInit(0))
        _check(self.driver.cuDevicePrimaryCtxRetain(ctypes.byref(context), 0))
        _check(self.driver.cuCtxSetCurrent(context))

    def put(self, array: Array) -> Any:
        """Copy an array to the device."""
        return _DeviceArray(self.driver, array)

    def get(self, handle: Any) -> Array:
        """Wait for the device and copy the array back into the one it was made from."""
        _check(self.driver.cuCtxSynchronize())
        _check(self.driver.cuMemcpyDtoH_v2(ctypes.c_void_p(handle.low), handle.address, ctypes.c_size_t(handle.bytes)))
        return handle.array


def _check(status: int) -> None:
    assert status == 0, f"CUDA driver call failed with {status}"
