"""Which layers of a graph can run in int8, and which group of layers each belongs to.

Convolutions and linear layers can: a `Conv`, or a `MatMul` or `Gemm` with a constant matrix. Products of two
activations, as in attention, and transposed convolutions stay as they are: in int8 they are slower or no faster on
every engine that was measured, and attention loses accuracy.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

import onnx


@dataclass(frozen=True, slots=True)
class Layer:
    """One layer that can run in int8.

    Attributes:
        name: Of its node.
        group: The part of the network that it belongs to, by which sensitivity is reported: a convolution is one of its
            own, and so are the linear layers of a transformer block.
        op: "Conv", "MatMul" or "Gemm".
        activation: Name of the tensor that it reads.
        weight: Name of the initializer that it multiplies by.
        axis: Axis of the weight that its output channels lie along.
    """

    name: str
    group: str
    op: str
    activation: str
    weight: str
    axis: int

    @property
    def input_axis(self) -> int:
        """Return the axis of the weight that its input channels lie along."""
        return 1 if self.op == "Conv" else 1 - self.axis


def node_name(node: onnx.NodeProto) -> str:
    """Return what a node is called here: its name, or that of what it computes."""
    return node.name or node.output[0]


def find_layers(model: onnx.ModelProto) -> tuple[Layer, ...]:
    """Find the layers that can run in int8, in the order of the graph."""
    weights = {item.name: item for item in model.graph.initializer if item.data_type == onnx.TensorProto.FLOAT}
    found = []
    for node in model.graph.node:
        if len(node.input) < 2 or node.input[1] not in weights or node.input[0] in weights:
            continue
        axis = _output_axis(node, len(weights[node.input[1]].dims))
        if axis is not None:
            found.append(Layer(node_name(node), _group(node), node.op_type, node.input[0], node.input[1], axis))
    return tuple(found)


def _output_axis(node: onnx.NodeProto, rank: int) -> int | None:
    attributes = {attribute.name: attribute for attribute in node.attribute}
    if node.op_type == "Conv":
        return 0
    if node.op_type == "MatMul" and rank == 2:
        return 1
    if node.op_type == "Gemm" and not ("transA" in attributes and attributes["transA"].i):
        return 0 if "transB" in attributes and attributes["transB"].i else 1
    return None


def _group(node: onnx.NodeProto) -> str:
    """Name the part of the network by the path of the weight, without the layer itself and what wraps it."""
    path = [part for part in node.input[1].split(".") if part not in _WRAPPERS]
    if len(path) < 3:
        return node_name(node)
    kept = path[:-1]  # the last part is "weight"
    if "blocks" in kept:
        kept = kept[: kept.index("blocks") + 2]
    return re.sub(r"(\.(linear\d*|qkv|proj))+$", "", ".".join(kept)) or node_name(node)


_WRAPPERS = ("network", "autoencoder", "swinViT", "body", "conv", "0")
