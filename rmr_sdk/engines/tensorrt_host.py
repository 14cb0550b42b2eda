"""TensorRT on host arrays: a ring of page-locked places, each with its copies and kernels recorded into a CUDA graph.

On a GPU that shares its memory with the CPU the page-locked memory is mapped and nothing is copied.
"""

from __future__ import annotations

import contextlib
import logging
from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass
from types import TracebackType
from typing import Any

import numpy as np
from numpy.typing import NDArray

from rmr_sdk.cuda.base import DeviceArray, Event, Graph
from rmr_sdk.engines.base import REPORT, Tensors
from rmr_sdk.engines.tensorrt_network import Network
from rmr_sdk.errors import DeviceError, EngineError

logger = logging.getLogger(__name__)


@dataclass(slots=True)
class _Staging:
    """One tile's way to the GPU and back.

    Attributes:
        host: Page-locked arrays of all inputs and outputs.
        device: Their counterparts that the network reads and writes.
        done: Passed when the outputs are in `host`.
        used: Whether it has computed a tile.
        graph: The whole of copies and computing, where it could be recorded.
    """

    host: dict[str, NDArray[Any]]
    device: dict[str, DeviceArray]
    done: Event
    used: bool = False
    graph: Graph | None = None


class TensorRtSession:
    """A queue of tiles in host memory; see `rmr_sdk.engines.base.Session`.

    The ring has one place more than the engine has slots, so that the outputs last collected stay untouched while all
    slots compute.
    """

    def __init__(self, network: Network, slots: int) -> None:
        self._device = network.device
        self._ports = {port.name: port for port in (*network.inputs, *network.outputs)}
        self._inputs = [port.name for port in network.inputs]
        self._outputs = [port.name for port in network.outputs]
        self._slots = slots
        self._execution = network.execution()
        self._stack = contextlib.ExitStack()
        self._stack.callback(self._execution.close)
        with closed_on_error(self._stack):
            self._stream = self._device.stream()
            self._stack.callback(self._stream.close)
            self._idle = deque(self._stage() for _ in range(slots + 1))
            self._flying: deque[_Staging] = deque()
            self._lent: _Staging | None = None
        self._recordable = True

    def submit(self, inputs: Tensors) -> None:
        """Start computing a tile; the inputs are copied at once."""
        if len(self._flying) == self._slots:
            raise EngineError(f"All {self._slots} slots of the session are in use.", "Collect a tile first.")
        if set(inputs) != set(self._inputs):
            raise EngineError(f"A tile needs the inputs {sorted(self._inputs)}, not {sorted(inputs)}.", REPORT)
        for name, array in inputs.items():
            if array.shape != self._ports[name].shape:
                raise EngineError(
                    f'Input "{name}" has the shape {array.shape}, and the network takes {self._ports[name].shape}.',
                    REPORT,
                )
        if not self._idle:
            raise EngineError("The session has been closed.", "Open another one.")
        staging = self._idle[0]
        for name, array in inputs.items():
            np.copyto(staging.host[name], array, casting="same_kind")
        self._launch(staging)
        staging.done.record(self._stream)
        self._idle.popleft()
        self._flying.append(staging)

    def collect(self) -> Tensors:
        """Wait for the oldest tile."""
        if not self._flying:
            raise EngineError("No tile of the session is in flight.", "Submit a tile first.")
        if self._lent is not None:
            self._idle.append(self._lent)
        self._lent = self._flying.popleft()
        self._lent.done.synchronize()
        return {name: self._lent.host[name].astype(np.float32, copy=False) for name in self._outputs}

    def close(self) -> None:
        """Wait for the tiles in flight and release the session."""
        self._stack.close()
        self._flying.clear()
        self._idle.clear()
        self._lent = None

    def __enter__(self) -> TensorRtSession:
        """Return the session."""
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Close the session."""
        self.close()

    def _stage(self) -> _Staging:
        integrated, device = self._device.info.integrated, self._device
        done = device.event()
        self._stack.callback(done.close)
        host = {name: device.pinned(port.shape, port.dtype) for name, port in self._ports.items()}
        arrays: dict[str, DeviceArray] = {}
        for name, port in self._ports.items():
            arrays[name] = device.mapped(host[name]) if integrated else device.allocate(port.shape, port.dtype)
            self._stack.callback(arrays[name].free)
        return _Staging(host, arrays, done)

    def _queue(self, staging: _Staging) -> None:
        copied = not self._device.info.integrated
        if copied:
            for name in self._inputs:
                self._device.upload(staging.host[name], staging.device[name], self._stream)
        self._execution.enqueue(staging.device, self._stream)
        if copied:
            for name in self._outputs:
                self._device.download(staging.device[name], staging.host[name], self._stream)

    def _launch(self, staging: _Staging) -> None:
        """Queue a place's work: the first time kernel by kernel, from the second on as one graph."""
        if staging.used and staging.graph is None and self._recordable:
            staging.graph = self._record(staging)
            self._recordable = staging.graph is not None
        if staging.graph is not None:
            staging.graph.launch(self._stream)
        else:
            self._queue(staging)
        staging.used = True

    def _record(self, staging: _Staging) -> Graph | None:
        """Record a place's work into a graph: some hundred kernels are then queued by one call.

        TensorRT wants to have run once before. Where recording fails each kernel is queued by itself, as otherwise.
        """
        if not self._execution.capturable(self._stream):
            logger.info("TensorRT says that this network cannot be recorded into a CUDA graph.")
            return None
        try:
            with self._device.capture(self._stream) as graphs:
                self._queue(staging)
        except (DeviceError, EngineError) as error:
            if error.facts.get("lost"):
                raise
            logger.info("The network is not recorded into a CUDA graph: %s", str(error))
            return None
        self._stack.callback(graphs[0].close)
        return graphs[0]


@contextlib.contextmanager
def closed_on_error(stack: contextlib.ExitStack) -> Iterator[None]:
    """Close what a constructor has opened so far when it fails."""
    try:
        yield
    except BaseException:
        stack.close()
        raise
