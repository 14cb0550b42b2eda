"""Memory of one run on a device: what it takes, and that all of it is given back. Owns no arithmetic and no launches.

A `DeviceView` is a box of voxels with any strides in memory that something else owns: what NumPy's views are to arrays.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace
from types import TracebackType
from typing import Any

import numpy as np
import numpy.typing as npt

from rmr_sdk.cuda.base import Device, DeviceArray, Event, Stream
from rmr_sdk.errors import DeviceError, DeviceMemoryError
from rmr_sdk.planning import MIB


@dataclass(frozen=True, slots=True, eq=False)
class DeviceView:
    """Elements of device memory, with any strides.

    Attributes:
        pointer: Address of the first element.
        shape: Length of each axis.
        strides: Bytes from one element to the next along each axis.
        dtype: Of an element.
        owner: What keeps the memory.
        producer: The stream on which it is being computed; None where it is there.
    """

    pointer: int
    shape: tuple[int, ...]
    strides: tuple[int, ...]
    dtype: np.dtype[Any]
    owner: object
    producer: int | None = None

    @classmethod
    def of(cls, array: Any) -> DeviceView:
        """See an array of any library whole.

        Raises:
            DeviceError: It has no `__cuda_array_interface__`.
        """
        facts = getattr(array, "__cuda_array_interface__", None)
        if facts is None:
            raise DeviceError(
                f"a {type(array).__name__} is no array in device memory.",
                "Pass objects with __cuda_array_interface__, as CuPy, pycuda and PyTorch make them.",
            )
        dtype, shape = np.dtype(facts["typestr"]), tuple(facts["shape"])
        strides = facts.get("strides") or _contiguous_strides(shape, dtype.itemsize)
        return cls(facts["data"][0], shape, tuple(strides), dtype, array, facts.get("stream"))

    @property
    def __cuda_array_interface__(self) -> dict[str, Any]:
        """Describe it, version 3 of the interface."""
        facts: dict[str, Any] = {"shape": self.shape, "typestr": self.dtype.str, "strides": self.strides, "version": 3}
        return {**facts, "data": (self.pointer, False), "stream": self.producer}

    def transpose(self, order: Sequence[int]) -> DeviceView:
        """Return a view whose axis n is axis `order[n]` of this one."""
        shape, strides = zip(*((self.shape[axis], self.strides[axis]) for axis in order), strict=True)
        return replace(self, shape=shape, strides=strides)

    def __getitem__(self, slices: tuple[slice, ...]) -> DeviceView:
        """Return a view in which the axes with a step of -1 run backwards; slices are whole axes."""
        pointer, strides = self.pointer, list(self.strides)
        for axis, part in enumerate(slices):
            if part.step == -1:
                pointer += (self.shape[axis] - 1) * strides[axis]
                strides[axis] = -strides[axis]
        return replace(self, pointer=pointer, strides=tuple(strides))

    def part(self, index: int) -> DeviceView:
        """Return the elements at one index of the first axis."""
        return replace(
            self, pointer=self.pointer + index * self.strides[0], shape=self.shape[1:], strides=self.strides[1:]
        )

    def stretch(self, begin: int, count: int) -> DeviceView:
        """Return `count` elements of a one-dimensional view."""
        return replace(self, pointer=self.pointer + begin * self.strides[0], shape=(count,))

    def last_axes(self, count: int) -> DeviceView:
        """Return a view without the leading axes, each of length one."""
        return replace(self, shape=self.shape[-count:], strides=self.strides[-count:])


class Workspace:
    """A stream of a device and what one run has there; a context manager that gives all of it back, come what may.

    On an integrated device, whose memory is the host's, arrays for the host are mapped instead of copied.

    Args:
        device: Where.
        max_memory_mib: Most memory of the device that the run may take, in MiB; None for no limit.
    """

    def __init__(self, device: Device, max_memory_mib: float | None = None) -> None:
        self.device = device
        self._limit, self._taken = max_memory_mib, 0
        self._held = ExitStack()
        self._uploaded: list[npt.NDArray[Any]] = []  # left alone until the stream has come by
        self.stream: Stream = device.stream()

    def take(self, shape: Sequence[int], dtype: npt.DTypeLike) -> DeviceArray:
        """Take memory until the end of the run.

        Raises:
            DeviceMemoryError: There is not enough, or the run may not take so much.
        """
        self.claim(shape, dtype)
        array = self.device.allocate(shape, dtype)
        self._held.callback(array.free)
        return array

    def event(self) -> Event:
        """Make a mark that lives until the end of the run."""
        event = self.device.event()
        self._held.callback(event.close)
        return event

    def keep_until_done(self, give_back: Callable[[], None]) -> None:
        """Call something once the stream has been waited for, at the end of the run."""
        self._held.callback(give_back)

    def put(self, array: npt.NDArray[Any]) -> DeviceArray:
        """Queue the copy of a C-contiguous array to the device; it must not change until the stream has come by.

        Raises:
            DeviceMemoryError: There is not enough memory.
        """
        if self.device.info.integrated:
            return self._map(array)
        found = self.take(array.shape, array.dtype)
        self._uploaded.append(array)
        self.device.upload(array, found, self.stream)
        return found

    def put_view(self, array: npt.NDArray[Any]) -> DeviceView:
        """Queue the copy of an array of any strides as it lies in memory, and return the same view of it.

        Only where its elements do not fill the memory that they span it is made contiguous first.
        """
        order = sorted(range(array.ndim), key=lambda axis: -abs(array.strides[axis]) * (array.shape[axis] > 1))
        flips = tuple(slice(None, None, -1 if stride < 0 else None) for stride in array.strides)
        stored = DeviceView.of(self.put(np.ascontiguousarray(array[flips].transpose(order))))
        return stored.transpose([order.index(axis) for axis in range(array.ndim)])[flips]

    def take_for_host(self, shape: Sequence[int], dtype: npt.DTypeLike) -> tuple[DeviceArray, npt.NDArray[Any]]:
        """Take an array that the host wants to see, and the host's own; `fetch` fills the latter."""
        if not self.device.info.integrated:
            return self.take(shape, dtype), np.empty(shape, dtype)
        self.claim(shape, dtype)
        host = self.device.pinned(shape, dtype)
        return self._hold(self.device.mapped(host)), host

    def fetch(self, array: DeviceArray, into: npt.NDArray[Any]) -> None:
        """Queue the way of a pair of `take_for_host` to the host."""
        if not self.device.info.integrated:
            self.device.download(array, into, self.stream)

    def __enter__(self) -> Workspace:
        """Return the workspace."""
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Wait for the stream, as far as it can be, and give everything back."""
        try:
            self.stream.close()
        finally:
            self._held.close()
            self._uploaded.clear()

    def claim(self, shape: Sequence[int], dtype: npt.DTypeLike) -> None:
        """Count an array against what the run may take.

        Raises:
            DeviceMemoryError: It is more.
        """
        self._taken += math.prod(shape) * np.dtype(dtype).itemsize
        if self._limit is not None and self._taken > self._limit * MIB:
            raise DeviceMemoryError(
                f"this study needs {-(-self._taken // MIB)} MiB or more on the GPU beside the network, and "
                f"max_memory_mib is {self._limit:g}.",
                "Raise max_memory_mib, or choose a bundle with smaller tiles.",
                max_memory_mib=self._limit,
            )

    def _map(self, array: npt.NDArray[Any]) -> DeviceArray:
        self.claim(array.shape, array.dtype)
        host = self.device.pinned(array.shape, array.dtype)
        host[...] = array
        return self._hold(self.device.mapped(host))

    def _hold(self, array: DeviceArray) -> DeviceArray:
        self._held.callback(array.free)
        return array


def _contiguous_strides(shape: Sequence[int], itemsize: int) -> tuple[int, ...]:
    return tuple(itemsize * math.prod(shape[axis + 1 :]) for axis in range(len(shape)))
