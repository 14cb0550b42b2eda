"""Watch activations of a graph while tiles run through it, in bounded memory.

OpenVINO computes the graph in f32 with the watched tensors as further outputs. Where they would take too much memory at
once, the graph is compiled and run once for each part of them, and only one of these networks exists at a time: each
would hold activations of its own.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray

from rmr_sdk.engines.onnx_tables import split_tables
from rmr_sdk.engines.openvino import openvino_core
from rmr_sdk.errors import ConfigError

FloatArray = NDArray[np.float32]
Tensors = Mapping[str, FloatArray]

MAX_TENSOR_BYTES = 2**31
"""Of one watched tensor."""

MAX_BYTES = 768 * 2**20
"""Of watched tensors that one run may give; OpenVINO keeps no more of them than this at a time."""


class Observer:
    """A graph whose inner tensors can be seen.

    Args:
        model: The graph, with static shapes.
        tensors: Names of the tensors to watch: inputs of the graph, or computed by it.
        max_bytes: Of the tensors of one run.
        threads: Threads to compute with; None for all cores.

    Raises:
        ConfigError: The tile is so large that one tensor alone takes more than `MAX_TENSOR_BYTES`.
    """

    def __init__(
        self,
        model: onnx.ModelProto,
        tensors: Iterable[str],
        max_bytes: int = MAX_BYTES,
        threads: int | None = None,
    ) -> None:
        wanted = list(dict.fromkeys(tensors))
        inputs = {item.name for item in model.graph.input}
        self.given = [name for name in wanted if name in inputs]
        sizes = tensor_bytes(model)
        for name in wanted:
            if sizes.get(name, 0) > MAX_TENSOR_BYTES:
                raise ConfigError(
                    f'the tile is too large to calibrate on: "{name}" alone takes {sizes[name] / 2**30:.1f} GiB.',
                    "Export the bundle with a smaller --tile.",
                    tensor=name,
                )
        self._model, self._threads = model, threads
        self._parts = list(_split([name for name in wanted if name not in inputs], sizes, max_bytes))
        self._kept = _compile(model, self._parts[0], threads) if len(self._parts) == 1 else None

    @property
    def runs(self) -> int:
        """Return how often a tile is computed."""
        return len(self._parts)

    def run(self, inputs: Tensors) -> Iterator[tuple[str, FloatArray]]:
        """Compute a tile.

        Args:
            inputs: Name -> float32, the inputs of the graph without a default.

        Yields:
            Each watched tensor and its values, valid until the next one.
        """
        for name in self.given:
            yield name, inputs[name]
        for part in self._parts:
            request, ports, tables = self._kept or _compile(self._model, part, self._threads)
            outputs = request.infer({**inputs, **tables}, share_outputs=True)
            for name, port in ports.items():
                yield name, outputs[port]
            del outputs, request


def tensor_bytes(model: onnx.ModelProto) -> dict[str, int]:
    """Return the bytes in float32 of every tensor whose shape the graph tells."""
    infos = (*model.graph.value_info, *model.graph.output, *model.graph.input)
    return {info.name: 4 * math.prod(dim.dim_value for dim in info.type.tensor_type.shape.dim) for info in infos}


def _split(names: Sequence[str], sizes: Mapping[str, int], limit: int) -> Iterator[list[str]]:
    """Cut a list of tensors into parts of at most `limit` bytes, or of one tensor."""
    part: list[str] = []
    total = 0
    for name in names:
        size = sizes.get(name, limit)
        if part and total + size > limit:
            yield part
            part, total = [], 0
        part.append(name)
        total += size
    if part:
        yield part


def _compile(
    model: onnx.ModelProto, names: Sequence[str], threads: int | None
) -> tuple[Any, dict[str, Any], dict[str, NDArray[Any]]]:
    """Return a request, its outputs by name, and the tables of the graph, which OpenVINO would unfold into masks."""
    watched = onnx.ModelProto()
    watched.CopyFrom(model)
    known = {info.name: info for info in (*model.graph.value_info, *model.graph.output)}
    del watched.graph.output[:]
    for name in names:
        watched.graph.output.append(known.get(name) or onnx.ValueInfoProto(name=name))
    core = openvino_core()
    config = {"INFERENCE_PRECISION_HINT": "f32"} | ({"INFERENCE_NUM_THREADS": threads} if threads else {})
    data, tables = split_tables(watched.SerializeToString())
    compiled = core.compile_model(core.read_model(data), "CPU", config)
    return compiled.create_infer_request(), dict(zip(names, compiled.outputs, strict=True)), tables
