"""From an fp32 graph to an explicitly typed fp16 one: what is computed in which precision stands in the file.

Owns where weights and tensors become float16 and where a Cast stands between the two. Engines that accept nothing but
strongly typed networks take the file as it is, and any other engine computes the same types. Whether fp16 holds what a
network computes is measured in `overflow`, and what it costs by running the graph with `rounding`.

    t1w fp32 - Cast - fp16 ... fp16 - Cast - island fp32 - Cast - fp16 ... fp16 - Cast - fused fp32
"""

from __future__ import annotations

from collections.abc import Collection, Iterator
from typing import Literal

import numpy as np
import onnx
from onnx import AttributeProto, TensorProto, helper, numpy_helper

from rmr_export.errors import PrecisionError
from rmr_sdk.errors import ConfigError

Io = Literal["fp32", "fp16"]

FLOAT, HALF = TensorProto.FLOAT, TensorProto.FLOAT16

LARGEST = float(np.finfo(np.float16).max)
"""65504: what is larger becomes infinite."""

ISLANDS: tuple[str, ...] = ()
"""Operators that stay in fp32 unless the caller says otherwise."""

FLOAT_INPUTS = {"Resize": (2,)}
"""Operator -> inputs that the ONNX standard wants in float32 whatever the others are: scales of a resize."""


def to_fp16(model: onnx.ModelProto, *, keep: Collection[str] = ISLANDS, io: Io = "fp32") -> onnx.ModelProto:
    """Convert a graph to fp16.

    Statistics of a LayerNormalization stay in fp32 by its `stash_type`.

    Args:
        model: A graph in fp32, of static shape; or with Q/DQ nodes, whose scales are converted with the rest.
        keep: Names of nodes, or of operators such as "Softmax", that go on computing in fp32.
        io: Type of the inputs and outputs that are float32 in `model`.

    Returns:
        A new model. With `io="fp32"` its inputs and outputs have the names, shapes and types of `model`.

    Raises:
        ConfigError: `keep` names what is not in the graph.
        PrecisionError: A weight does not fit into float16.
    """
    nodes = model.graph.node
    unknown = set(keep) - {node.name for node in nodes} - {node.op_type for node in nodes} - set(ISLANDS)
    if unknown:
        raise ConfigError(
            f"the graph has no node and no operator {', '.join(sorted(map(repr, unknown)))}.",
            "Name what shall stay in fp32 as the graph names it.",
            unknown=sorted(unknown),
        )
    return _Typing(model, keep, io).convert()


class _Typing:
    """One conversion: which tensor exists in which type, under which name."""

    def __init__(self, model: onnx.ModelProto, keep: Collection[str], io: Io) -> None:
        self.keep, self.io = keep, FLOAT if io == "fp32" else HALF
        self.model = onnx.ModelProto()
        self.model.CopyFrom(onnx.shape_inference.infer_shapes(model))
        graph = self.model.graph
        self.floats = {
            info.name
            for info in (*graph.input, *graph.output, *graph.value_info)
            if info.type.tensor_type.elem_type == FLOAT
        }
        self.weights = {tensor.name: tensor for tensor in graph.initializer if tensor.data_type == FLOAT}
        self.outputs = {port.name for port in graph.output}
        self.names: dict[tuple[str, int], str] = {}
        self.nodes: list[onnx.NodeProto] = []
        self.constants: list[onnx.TensorProto] = []

    def convert(self) -> onnx.ModelProto:
        graph = self.model.graph
        for port in (*graph.input, *graph.output):
            if port.name in self.floats:
                port.type.tensor_type.elem_type = self.io
                self.names[port.name, self.io] = port.name
        for port in graph.output:
            self.names.pop((port.name, self.io), None)
        for node in graph.node:
            self._convert_node(node)
        constants = [tensor for tensor in graph.initializer if tensor.name not in self.weights]
        for field, items in ((graph.node, self.nodes), (graph.initializer, [*constants, *self.constants])):
            del field[:]
            field.extend(items)  # type: ignore[attr-defined]
        del graph.value_info[:]
        return onnx.shape_inference.infer_shapes(self.model, check_type=True, strict_mode=True)

    def _convert_node(self, node: onnx.NodeProto) -> None:
        kind = FLOAT if node.name in self.keep or node.op_type in self.keep else HALF
        exempt = FLOAT_INPUTS.get(node.op_type, ())
        for place, name in enumerate(node.input):
            if name in self.floats or name in self.weights:
                node.input[place] = self._read(name, FLOAT if place in exempt else kind)
        _retype_attributes(node, kind)
        self.nodes.append(node)
        late: list[onnx.NodeProto] = []
        for place, name in enumerate(node.output):
            if name in self.floats:
                late += self._write(node, place, kind)
        self.nodes += late

    def _read(self, name: str, kind: int) -> str:
        """Give the name under which a tensor is there in a type; the first reader puts it there."""
        if (name, kind) not in self.names:
            if name in self.weights:
                new = name if kind == HALF else f"{name}.fp32"
                self.constants.append(_constant(self.weights[name], new, kind))
            else:
                new = f"{name}.{_word(kind)}"
                self.nodes.append(_cast(self._known(name), new, kind))
            self.names[name, kind] = new
        return self.names[name, kind]

    def _known(self, name: str) -> str:
        return self.names.get((name, FLOAT)) or self.names[name, HALF]

    def _write(self, node: onnx.NodeProto, place: int, kind: int) -> Iterator[onnx.NodeProto]:
        """Name what a node gives; an output of the graph of another type is cast at once."""
        name = node.output[place]
        own = name
        if name in self.outputs and kind != self.io:
            own = node.output[place] = f"{name}.{_word(kind)}"
            self.names[name, self.io] = name
            yield _cast(own, name, self.io)
        self.names[name, kind] = own


def _word(kind: int) -> str:
    return "fp32" if kind == FLOAT else "fp16"


def _cast(source: str, target: str, kind: int) -> onnx.NodeProto:
    return helper.make_node("Cast", [source], [target], name=f"cast_{target}", to=kind)


def _retype_attributes(node: onnx.NodeProto, kind: int) -> None:
    """Let constants inside a node, and a Cast to float, give the type that the node computes in."""
    if kind == FLOAT:
        return
    for attribute in node.attribute:
        if attribute.type == AttributeProto.TENSOR and attribute.t.data_type == FLOAT:
            attribute.t.CopyFrom(_constant(attribute.t, attribute.t.name, HALF))
        elif node.op_type == "Cast" and attribute.name == "to" and attribute.i == FLOAT:
            attribute.i = HALF


def _constant(tensor: onnx.TensorProto, name: str, kind: int) -> onnx.TensorProto:
    values = numpy_helper.to_array(tensor)
    if kind == FLOAT:
        return numpy_helper.from_array(values, name)
    largest = float(np.abs(values).max(initial=0))
    if not largest <= LARGEST:
        raise PrecisionError(
            f'the constant "{tensor.name}" reaches {largest:.3g}, and float16 ends at {LARGEST:.0f}.',
            "Keep the node that reads it in fp32.",
            tensor=tensor.name,
            largest=largest,
        )
    return numpy_helper.from_array(values.astype(np.float16), name)
