"""TensorRT at work: the engine that threads share, and a queue of tiles whose arrays stay on the GPU.

Tiles from and to the host run in `rmr_sdk.engines.tensorrt_host`.
"""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Callable, Iterable, Mapping
from types import TracebackType

from rmr_sdk.cuda.base import Device, DeviceArray, Stream
from rmr_sdk.engines.base import EngineInfo
from rmr_sdk.engines.tensorrt_host import TensorRtSession, closed_on_error
from rmr_sdk.engines.tensorrt_network import Network, Port
from rmr_sdk.errors import DeviceError, EngineError

logger = logging.getLogger(__name__)

SLOTS = 2
"""Tiles in flight: while one is computed, the next is prepared and the one before is blended."""


class TensorRtEngine:
    """A TensorRT network on a GPU; see `rmr_sdk.engines.base.DeviceEngine`.

    Args:
        network: The network; closed with this.
        info: What it is.
        before_close: Called before the network is released, such as to keep what it has compiled.
    """

    def __init__(
        self, network: Network, info: EngineInfo, before_close: Callable[[Network], None] | None = None
    ) -> None:
        self._network: Network | None = network
        self._before_close = before_close
        self.device: Device = network.device
        self.info = info
        self.slots = SLOTS
        self.warnings: tuple[str, ...] = ()

    def session(self) -> TensorRtSession:
        """Open a queue of tiles in host memory for the calling thread."""
        return TensorRtSession(self._opened(), self.slots)

    def device_session(self) -> TensorRtDeviceSession:
        """Open a queue of tiles on the GPU for the calling thread."""
        return TensorRtDeviceSession(self._opened(), self.slots)

    def close(self) -> None:
        """Release the network and the GPU."""
        network, self._network = self._network, None
        if network is None:
            return
        try:
            if self._before_close is not None:
                self._before_close(network)
            network.close()
        except DeviceError as error:  # a lost GPU has nothing left to release
            logger.warning("The engine could not be closed in good order: %s", str(error))
        finally:
            self.device.close()

    def _opened(self) -> Network:
        if self._network is None:
            raise EngineError("The engine has been closed.", "Open the pipeline again.")
        return self._network


class TensorRtDeviceSession:
    """A queue of tiles on the GPU; see `rmr_sdk.engines.base.DeviceSession`."""

    def __init__(self, network: Network, slots: int) -> None:
        self._execution = network.execution()
        self._stack = contextlib.ExitStack()
        self._stack.callback(self._execution.close)
        self._used: dict[int, Stream] = {}
        self.slots = slots
        with closed_on_error(self._stack):
            self._inputs = [self._allocate(network, network.inputs) for _ in range(slots)]
            self._outputs = [self._allocate(network, network.outputs) for _ in range(slots)]

    def inputs(self, slot: int) -> Mapping[str, DeviceArray]:
        """Return what the network reads."""
        return self._inputs[slot]

    def outputs(self, slot: int) -> Mapping[str, DeviceArray]:
        """Return what the network writes."""
        return self._outputs[slot]

    def enqueue(self, slot: int, stream: Stream) -> None:
        """Queue one tile."""
        self._execution.enqueue(self._inputs[slot] | self._outputs[slot], stream)
        self._used[stream.handle] = stream

    def capturable(self, stream: Stream) -> bool:
        """Tell whether `enqueue` can be recorded into a graph."""
        return self._execution.capturable(stream)

    def close(self) -> None:
        """Wait for the work that is queued and release the arrays."""
        for stream in self._used.values():
            with contextlib.suppress(DeviceError):  # closed by its owner, or lost
                stream.synchronize()
        self._used.clear()
        self._stack.close()

    def __enter__(self) -> TensorRtDeviceSession:
        """Return the session."""
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Close the session."""
        self.close()

    def _allocate(self, network: Network, ports: Iterable[Port]) -> dict[str, DeviceArray]:
        arrays = {}
        for port in ports:
            arrays[port.name] = network.device.allocate(port.shape, port.dtype)
            self._stack.callback(arrays[port.name].free)
        return arrays
