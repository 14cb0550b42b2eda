"""A GPU made of host memory: the device pipeline runs on it in full, its launches too, where no GPU is.

`FakeDevice` counts what it hands out and what comes back, can run out of memory at a chosen call, and can be lost.
`FakeEngine` computes tiles with any engine for the CPU. The kernels are the launchers of tests/kernels/_emulated.
"""

from __future__ import annotations

import contextlib
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from types import ModuleType, TracebackType
from typing import Any

import numpy as np
import numpy.typing as npt

from rmr_sdk.cuda.base import DeviceInfo, Graph
from rmr_sdk.engines.base import Engine, EngineInfo
from rmr_sdk.errors import DeviceError, DeviceMemoryError

Array = npt.NDArray[Any]


class FakeArray:
    """Memory of the fake device."""

    def __init__(self, device: FakeDevice, host: Array, owned: bool = True) -> None:
        self.device, self.host, self.freed, self._owned = device, host, False, owned
        self.shape, self.dtype, self.nbytes = host.shape, host.dtype, host.nbytes
        device.live[id(self)] = self
        device.kernels.own(host.ctypes.data, max(host.nbytes, 1), 0)

    @property
    def pointer(self) -> int:
        assert not self.freed, "used after it was freed"
        return self.host.ctypes.data

    @property
    def __cuda_array_interface__(self) -> dict[str, Any]:
        data = (self.pointer, False)
        return {"shape": self.shape, "typestr": self.dtype.str, "data": data, "strides": None, "version": 3}

    def free(self) -> None:
        if not self.freed:
            self.freed = True
            self.device.kernels.disown(self.host.ctypes.data)
            del self.device.live[id(self)]
            if self._owned:
                self.host.view(np.uint8).fill(0xA5)  # whoever still reads it notices


class FakeStream:
    """A stream that does everything at once, or notes it while it is being recorded."""

    def __init__(self, device: FakeDevice, handle: int) -> None:
        self.device, self.handle, self.recording = device, handle, None
        device.live[id(self)] = self

    def do(self, work: Callable[[], None]) -> None:
        if self.recording is None:
            work()
        else:
            self.recording.append(work)

    def synchronize(self) -> None:
        self.device.counts["synchronize"] += 1
        self.device.check_alive()

    def close(self) -> None:
        self.device.live.pop(id(self), None)


class FakeEvent:
    """A mark in a stream."""

    def __init__(self, device: FakeDevice) -> None:
        self.device = device
        device.live[id(self)] = self

    def record(self, stream: FakeStream) -> None:
        assert stream.device is self.device
        self.passed = time.perf_counter()

    def milliseconds_since(self, earlier: FakeEvent) -> float:
        return 1e3 * (self.passed - earlier.passed)

    def synchronize(self) -> None:
        self.device.check_alive()

    def close(self) -> None:
        self.device.live.pop(id(self), None)


class FakeGraph:
    """Recorded work."""

    def __init__(self, device: FakeDevice, work: list[Callable[[], None]]) -> None:
        self.device, self.work = device, work
        device.live[id(self)] = self

    def launch(self, stream: FakeStream) -> None:
        self.device.counts["launch"] += 1
        for each in self.work:
            stream.do(each)

    def close(self) -> None:
        self.device.live.pop(id(self), None)


class FakeDevice:
    """See `rmr_sdk.cuda.base.Device`.

    Args:
        kernels: tests/kernels/_emulated; it is told which memory is the device's, and refuses all other.
        integrated: Whether its memory is the host's.
    """

    def __init__(self, kernels: ModuleType, integrated: bool = False) -> None:
        self.info = DeviceInfo(0, "a fake", 86, 1, integrated, 2**30, "13.0")
        self.kernels = kernels
        self.live: dict[int, Any] = {}
        self.counts: Counter[str] = Counter()
        self.memory_for = 10**9
        self.lost = False
        self.active = 0
        kernels.forget()
        kernels.own(1, 1, 0)  # from now on memory that nobody named is no memory of the device

    def check_alive(self) -> None:
        if self.lost:
            raise DeviceError("The GPU has fallen off the bus.", "Open the pipeline again.")

    def allocate(self, shape: Sequence[int], dtype: npt.DTypeLike) -> FakeArray:
        self._take("allocate")
        return FakeArray(self, self._dirty(shape, dtype))

    def pinned(self, shape: Sequence[int], dtype: npt.DTypeLike) -> Array:
        self._take("pinned")
        return self._dirty(shape, dtype)

    def mapped(self, array: Array) -> FakeArray:
        assert self.info.integrated
        assert array.flags.c_contiguous
        return FakeArray(self, array, owned=False)

    def stream(self) -> FakeStream:
        return FakeStream(self, 7)

    def event(self, timing: bool = False) -> FakeEvent:
        return FakeEvent(self)

    def upload(self, array: Array, into: FakeArray, stream: FakeStream) -> None:
        self._check_copy(array, into)
        self.counts["upload"] += 1
        stream.do(lambda: np.copyto(into.host, array))

    def download(self, source: FakeArray, into: Array, stream: FakeStream) -> None:
        self._check_copy(into, source)
        self.counts["download"] += 1
        stream.do(lambda: np.copyto(into, source.host))

    @contextlib.contextmanager
    def capture(self, stream: FakeStream) -> Iterator[list[Graph]]:
        self.counts["capture"] += 1
        stream.recording, graphs = [], list[Graph]()
        try:
            yield graphs
        finally:
            work, stream.recording = stream.recording, None
        graphs.append(FakeGraph(self, work))

    @contextlib.contextmanager
    def activate(self) -> Iterator[None]:
        self.active += 1
        try:
            yield
        finally:
            self.active -= 1

    def free_bytes(self) -> int:
        return self.info.total_bytes

    def close(self) -> None:
        self.live.clear()

    def _take(self, what: str) -> None:
        self.check_alive()
        self.counts[what] += 1
        self.memory_for -= 1
        if self.memory_for < 0:
            raise DeviceMemoryError("The GPU has too little memory.", "Choose a bundle with smaller tiles.")

    def _check_copy(self, host: Array, array: FakeArray) -> None:
        self.check_alive()
        assert (host.shape, host.dtype) == (array.shape, array.dtype)
        assert host.flags.c_contiguous
        assert not array.freed

    @staticmethod
    def _dirty(shape: Sequence[int], dtype: npt.DTypeLike) -> Array:
        array = np.empty(shape, dtype)
        array.view(np.uint8).reshape(-1).fill(0x5A)
        return array


class FakeSession:
    """See `rmr_sdk.engines.base.DeviceSession`."""

    def __init__(self, engine: FakeEngine) -> None:
        self.engine, self.slots = engine, engine.slots
        device, self._arrays, self.closed = engine.device, [], False
        with contextlib.ExitStack() as stack:
            for _ in range(engine.slots):
                arrays: dict[str, FakeArray] = {}
                for name, shape in engine.shapes.items():
                    arrays[name] = device.allocate(shape, engine.dtype)
                    stack.callback(arrays[name].free)
                self._arrays.append(arrays)
            self._host = stack.enter_context(engine.network.session())
            self._stack = stack.pop_all()
        device.live[id(self)] = self

    def inputs(self, slot: int) -> Mapping[str, FakeArray]:
        return {name: self._arrays[slot][name] for name in self.engine.inputs}

    def outputs(self, slot: int) -> Mapping[str, FakeArray]:
        return {name: array for name, array in self._arrays[slot].items() if name not in self.engine.inputs}

    def enqueue(self, slot: int, stream: FakeStream) -> None:
        self.engine.enqueued += 1
        assert self.engine.device.active, "the context is not current"
        stream.do(lambda: self._compute(slot))

    def _compute(self, slot: int) -> None:
        self.engine.device.check_alive()
        self.engine.computed += 1
        if self.engine.computed == self.engine.lost_at:
            self.engine.device.lost = True
        inputs = {name: array.host.astype(np.float32) for name, array in self.inputs(slot).items()}
        self._host.submit(inputs)
        for name, values in self._host.collect().items():
            self._arrays[slot][name].host[...] = self.engine.spoil(name, values)

    def close(self) -> None:
        self.engine.device.live.pop(id(self), None)
        self._stack.close()

    def __enter__(self) -> FakeSession:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


class RecordableSession(FakeSession):
    """A session whose work can be recorded into a graph."""

    def capturable(self, stream: FakeStream) -> bool:
        return stream.handle == 7


class FakeEngine:
    """See `rmr_sdk.engines.base.DeviceEngine`.

    Args:
        network: Computes the tiles.
        device: Where they seem to be computed.
        shapes: Name -> shape of the network's inputs and outputs.
        inputs: Names of the inputs.
        dtype: Of all of them.
        session: Kind of the device sessions.
    """

    def __init__(
        self,
        network: Engine,
        device: FakeDevice,
        shapes: Mapping[str, tuple[int, ...]],
        inputs: Sequence[str],
        dtype: npt.DTypeLike = np.float32,
        session: type[FakeSession] = FakeSession,
    ) -> None:
        self.network, self.device, self.shapes, self.inputs = network, device, shapes, tuple(inputs)
        self.dtype, self._session = dtype, session
        self.info = EngineInfo("fake", "1", "cuda:0", "a fake", "fp32", 1)
        self.slots, self.warnings = 2, ()
        self.enqueued = self.computed = 0
        self.lost_at = -1
        self.spoil: Callable[[str, Array], Array] = lambda name, values: values

    def session(self) -> Any:
        return self.network.session()

    def device_session(self) -> FakeSession:
        return self._session(self)

    def close(self) -> None:
        self.network.close()
        self.device.close()
