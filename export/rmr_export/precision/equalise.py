"""Cross-layer equalisation: move scale from the channels of an activation into the weights that read it, exactly.

Activations have one scale a tensor, so a channel with small values gets few of its 127 steps. Dividing each channel by
a number and multiplying the weights that read it by the same leaves what is computed as it is, and brings channels
closer together. The division goes into what makes the channels: the weights of a convolution, or the gain and bias of a
norm.

    norm or convolution ── activation that keeps a positive scale ── convolutions, linear layers
      rows / s                (ReLU, LeakyReLU, PReLU)                 columns * s

Sources: Nagel et al., ICCV 2019; the split by the square roots of both sides as in Xiao et al., SmoothQuant, ICML 2023.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import numpy_helper

from .layers import Layer, find_layers, node_name
from .ranges import Statistics

FloatArray = NDArray[np.float32]

MOST = 16.0
"""Largest factor of a channel: beyond it, what is gained in one tensor is lost in another."""

_POSITIVE = ("Relu", "LeakyRelu")
_SOURCES = {
    "Conv": {1: 0, 2: 0},
    "ConvTranspose": {1: 1, 2: 0},
    "InstanceNormalization": {1: 0, 2: 0},
    "LayerNormalization": {1: 0, 2: 0},
}
"""Operator -> its constants, by the number of the input, and the axis of the channels in each."""


@dataclass(frozen=True, slots=True)
class Reader:
    """A layer that reads some channels, and where they begin in what it reads."""

    layer: Layer
    first: int


@dataclass(frozen=True, slots=True)
class Pair:
    """What makes channels, how many there are, and all layers that read them, also through a Concat."""

    source: str
    channels: int
    readers: tuple[Reader, ...]


def equalise(model: onnx.ModelProto, statistics: Mapping[str, Statistics]) -> onnx.ModelProto:
    """Return a graph that computes the same with evener activations; calibrate it anew.

    Args:
        model: The graph in fp32; left unchanged.
        statistics: Of its activations.
    """
    made = onnx.ModelProto()
    made.CopyFrom(model)
    nodes = {node_name(node): node for node in made.graph.node}
    weights = _Weights(made)
    for pair in find_pairs(model):
        one = pair.readers[0]
        found = statistics.get(one.layer.activation)
        if found is None or found.peaks is None:
            continue
        read = np.max([weights.peaks(reader, pair.channels) for reader in pair.readers], axis=0)
        scales = channel_scales(found.peaks[one.first : one.first + pair.channels], read)
        source = nodes[pair.source]
        for place, axis in _SOURCES[source.op_type].items():
            if place < len(source.input) and source.input[place]:
                weights.scale(source, place, np.float32(1) / scales, axis)
        for reader in pair.readers:
            columns = weights.columns(reader, scales)
            weights.scale(nodes[reader.layer.name], 1, columns, reader.layer.input_axis)
    return made


def channel_scales(activations: FloatArray, weights: FloatArray) -> FloatArray:
    """Return the number to divide each channel by: sqrt(activation / weight), around a geometric mean of 1.

    Args:
        activations: Greatest magnitude of each channel.
        weights: Greatest magnitude of the weights that read each channel.
    """
    usable = (activations > 0) & (weights > 0)
    ratio = np.sqrt(np.where(usable, activations, 1) / np.where(usable, weights, 1))
    centre = np.exp(np.log(ratio[usable]).mean()) if usable.any() else 1.0
    return np.where(usable, np.clip(ratio / centre, 1 / MOST, MOST), 1).astype(np.float32)


def find_pairs(model: onnx.ModelProto) -> list[Pair]:
    """Find the channels that can be scaled, in the order of the graph."""
    flow = _Flow(model)
    pairs = []
    for node in model.graph.node:
        if node.op_type not in _SOURCES or _grouped(node):
            continue
        tensor = flow.behind(node.output[0])
        readers = flow.readers(tensor, 0)
        if readers:
            pairs.append(Pair(node_name(node), flow.channels(tensor), tuple(readers)))
    return pairs


class _Flow:
    """Who reads what in a graph."""

    def __init__(self, model: onnx.ModelProto) -> None:
        self.outputs = {item.name for item in model.graph.output}
        self.layers = {layer.name: layer for layer in find_layers(model)}
        self.shapes = {
            info.name: [dim.dim_value for dim in info.type.tensor_type.shape.dim]
            for info in (*model.graph.value_info, *model.graph.input, *model.graph.output)
        }
        self.reading: dict[str, list[onnx.NodeProto]] = {}
        for node in model.graph.node:
            for name in node.input:
                self.reading.setdefault(name, []).append(node)

    def channels(self, tensor: str) -> int:
        """Return the channels of a tensor: of a volume or of rows of tokens."""
        shape = self.shapes.get(tensor, [])
        return shape[1 if len(shape) > 2 else -1] if shape else 0

    def behind(self, tensor: str) -> str:
        """Go on through activation functions that a positive scale passes unchanged."""
        while tensor not in self.outputs:
            nodes = self.reading.get(tensor, [])
            kinds = sorted(node.op_type for node in nodes)
            if len(kinds) == 1 and kinds[0] in _POSITIVE:
                tensor = nodes[0].output[0]
            elif kinds == ["Neg", "Relu"] and (after := self._behind_prelu(nodes)) is not None:
                tensor = after
            else:
                break
        return tensor

    def readers(self, tensor: str, first: int) -> list[Reader]:
        """Return all layers that read a tensor, where nothing else does; otherwise none.

        Args:
            tensor: The tensor.
            first: Where the channels that are looked for begin in it.
        """
        found: list[Reader] = []
        for node in self.reading.get(tensor, []):
            layer = self.layers.get(node_name(node))
            if layer is not None and layer.activation == tensor and not _grouped(node):
                found.append(Reader(layer, first))
            elif node.op_type == "Concat" and _axis(node) == 1 and list(node.input).count(tensor) == 1:
                before = list(node.input)[: list(node.input).index(tensor)]
                further = self.readers(node.output[0], first + sum(map(self.channels, before)))
                if not further or not all(map(self.channels, before)):
                    return []
                found += further
            else:
                return []
        return [] if tensor in self.outputs else found

    def _behind_prelu(self, nodes: list[onnx.NodeProto]) -> str | None:
        """Return the output of a split PReLU, x -> relu(x) - a relu(-x), that begins with these two nodes."""
        positive, negative = sorted(nodes, key=lambda node: node.op_type, reverse=True)
        chain = negative
        for kind in ("Relu", "Mul", "Sub"):
            after = self.reading.get(chain.output[0], [])
            if len(after) != 1 or after[0].op_type != kind:
                return None
            chain = after[0]
        return chain.output[0] if list(chain.input)[:1] == list(positive.output) else None


def _axis(node: onnx.NodeProto) -> int | None:
    return next((attribute.i for attribute in node.attribute if attribute.name == "axis"), None)


def _grouped(node: onnx.NodeProto) -> bool:
    return any(attribute.name == "group" and attribute.i != 1 for attribute in node.attribute)


class _Weights:
    """The constants of a graph that change; a constant that others read too is copied first."""

    def __init__(self, model: onnx.ModelProto) -> None:
        self.model = model
        self.values = {item.name: item for item in model.graph.initializer}
        self.uses: dict[str, int] = {}
        for node in model.graph.node:
            for name in node.input:
                self.uses[name] = self.uses.get(name, 0) + 1

    def peaks(self, reader: Reader, channels: int) -> FloatArray:
        """Return the greatest magnitude of the weights that read each channel."""
        weight, axis = np.abs(numpy_helper.to_array(self.values[reader.layer.weight])), reader.layer.input_axis
        peaks = weight.max(axis=tuple(number for number in range(weight.ndim) if number != axis))
        return peaks[reader.first : reader.first + channels]

    def columns(self, reader: Reader, scales: FloatArray) -> FloatArray:
        """Return the factors of all columns of a layer's weights: 1 for channels of another source."""
        factors = np.ones(self.values[reader.layer.weight].dims[reader.layer.input_axis], np.float32)
        factors[reader.first : reader.first + scales.size] = scales
        return factors

    def scale(self, node: onnx.NodeProto, place: int, factors: FloatArray, axis: int) -> None:
        """Multiply the constant that a node reads, along an axis."""
        name = node.input[place]
        values = numpy_helper.to_array(self.values[name])
        spread = factors.reshape([-1 if number == axis else 1 for number in range(values.ndim)])
        scaled = (values * spread).astype(np.float32)
        if self.uses[name] > 1:
            self.uses[name] -= 1
            name = f"{node_name(node)}.{place}.equalised"
            node.input[place] = name
            self.uses[name] = 1
            self.model.graph.initializer.append(numpy_helper.from_array(scaled, name))
            self.values[name] = self.model.graph.initializer[-1]
        else:
            self.values[name].CopyFrom(numpy_helper.from_array(scaled, name))
