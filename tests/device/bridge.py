"""An engine on a real GPU that computes its tiles on the host: for the device pipeline without TensorRT.

Inputs and outputs lie on the GPU, so all that the SDK does there is done there; the network in between is one for the
CPU, and the results must be those of the CPU to the bit.
"""

from __future__ import annotations

import contextlib
from collections.abc import Mapping
from types import TracebackType
from typing import Any

import numpy as np

from rmr_sdk.cuda import Device, DeviceArray, Stream
from rmr_sdk.engines.base import Engine, EngineInfo


class BridgeSession:
    """See `rmr_sdk.engines.base.DeviceSession`."""

    def __init__(self, engine: BridgeEngine) -> None:
        self.engine, self.slots = engine, engine.slots
        device = engine.device
        with contextlib.ExitStack() as stack:
            self._arrays: list[dict[str, DeviceArray]] = []
            for _ in range(self.slots):
                arrays = {}
                for name, shape in engine.shapes.items():
                    arrays[name] = device.allocate(shape, engine.dtype)
                    stack.callback(arrays[name].free)
                self._arrays.append(arrays)
            self._host = stack.enter_context(engine.network.session())
            self._stack = stack.pop_all()

    def inputs(self, slot: int) -> Mapping[str, DeviceArray]:
        return {name: self._arrays[slot][name] for name in self.engine.inputs}

    def outputs(self, slot: int) -> Mapping[str, DeviceArray]:
        return {name: array for name, array in self._arrays[slot].items() if name not in self.engine.inputs}

    def enqueue(self, slot: int, stream: Stream) -> None:
        device, inputs = self.engine.device, {}
        for name, array in self.inputs(slot).items():
            inputs[name] = np.empty(array.shape, array.dtype)
            device.download(array, inputs[name], stream)
        stream.synchronize()
        self._host.submit({name: array.astype(np.float32) for name, array in inputs.items()})
        found = self._host.collect()
        for name, array in self.outputs(slot).items():
            device.upload(np.ascontiguousarray(found[name], array.dtype), array, stream)
        stream.synchronize()

    def close(self) -> None:
        self._stack.close()

    def __enter__(self) -> BridgeSession:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


class BridgeEngine:
    """See `rmr_sdk.engines.base.DeviceEngine`."""

    def __init__(
        self, network: Engine, device: Device, shapes: Mapping[str, tuple[int, ...]], inputs: Any, dtype: Any
    ) -> None:
        self.network, self.device, self.shapes, self.inputs, self.dtype = network, device, shapes, inputs, dtype
        self.info = EngineInfo("bridge", "1", device.info.device, device.info.name, "fp32", 1)
        self.slots, self.warnings = 2, ()

    def session(self) -> Any:
        return self.network.session()

    def device_session(self) -> BridgeSession:
        return BridgeSession(self)

    def close(self) -> None:
        self.device.close()
