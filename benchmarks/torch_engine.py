"""A network of PyTorch as an engine of the device pipeline: torch provides the network and nothing else.

Inputs and outputs are arrays of the pipeline's device, which torch sees through `__cuda_array_interface__`; the
network is queued into the pipeline's own stream. So both sides of a comparison run the same weights in the same
precision, and what differs is everything around them.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Mapping
from types import TracebackType
from typing import Any

import numpy as np

from rmr_sdk.cuda import Device, DeviceArray, Stream
from rmr_sdk.engines.base import EngineInfo
from rmr_sdk.manifest import Manifest

Network = Callable[[Any], tuple[Any, Any]]
"""Takes (1, 2, D, H, W) and gives the fused image (1, 1, D, H, W) and the probabilities (1, classes, D, H, W)."""


class TorchEngine:
    """See `rmr_sdk.engines.base.DeviceEngine`.

    Args:
        network: On the GPU.
        device: The GPU.
        manifest: Says what goes in and comes out.
        precision: What the network computes in.
    """

    def __init__(self, network: Network, device: Device, manifest: Manifest, precision: str) -> None:
        self.network, self.device, self.manifest = network, device, manifest
        self.info = EngineInfo("torch", "", device.info.device, device.info.name, precision, 0)
        self.slots, self.warnings = 2, ()

    def session(self) -> Any:
        """Refuse: this engine has no queue of tiles in host memory."""
        raise NotImplementedError("torch computes on the device alone here")

    def device_session(self) -> TorchSession:
        """Open a queue of tiles."""
        return TorchSession(self)

    def close(self) -> None:
        """Close the device."""
        self.device.close()


class TorchSession:
    """See `rmr_sdk.engines.base.DeviceSession`."""

    def __init__(self, engine: TorchEngine) -> None:
        import torch

        self._torch, self._engine, self.slots = torch, engine, engine.slots
        manifest, device = engine.manifest, engine.device
        self._stack = contextlib.ExitStack()
        shapes = {"both": (1, len(manifest.contrasts), *manifest.tile_shape), "fused": (1, 1, *manifest.tile_shape)}
        shapes["probability"] = (1, len(manifest.classes or ()), *manifest.tile_shape)
        self._arrays: list[dict[str, DeviceArray]] = []
        for _ in range(self.slots):
            arrays = {name: device.allocate(shape, np.float32) for name, shape in shapes.items()}
            for array in arrays.values():
                self._stack.callback(array.free)
            self._arrays.append(arrays)
        self._tensors = [
            {name: torch.as_tensor(array, device="cuda") for name, array in arrays.items()} for arrays in self._arrays
        ]

    def inputs(self, slot: int) -> Mapping[str, Any]:
        """Return the contrasts as parts of one array, as the network takes them."""
        from rmr_sdk.device_memory import DeviceView

        both = DeviceView.of(self._arrays[slot]["both"]).part(0)
        return {name: both.part(index) for index, name in enumerate(self._engine.manifest.input_names)}

    def outputs(self, slot: int) -> Mapping[str, DeviceArray]:
        """Return the outputs."""
        return {name: self._arrays[slot][name] for name in ("fused", "probability")}

    def enqueue(self, slot: int, stream: Stream) -> None:
        """Queue one tile."""
        torch, tensors = self._torch, self._tensors[slot]
        with torch.cuda.stream(torch.cuda.ExternalStream(stream.handle)), torch.inference_mode():
            fused, probability = self._engine.network(tensors["both"])
            tensors["fused"].copy_(fused)
            tensors["probability"].copy_(probability)

    def close(self) -> None:
        """Free the arrays."""
        self._torch.cuda.synchronize()
        self._tensors.clear()
        self._stack.close()

    def __enter__(self) -> TorchSession:
        """Return the session."""
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Close the session."""
        self.close()
