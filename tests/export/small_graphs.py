"""Small ONNX graphs written by hand, for what is done to graphs."""

from __future__ import annotations

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

SHAPE = (1, 16, 6, 8, 6)


class Builder:
    """Puts a graph together node by node; every method returns the name of what it computes."""

    def __init__(self) -> None:
        self.nodes: list[onnx.NodeProto] = []
        self.constants: list[onnx.TensorProto] = []
        self.generator = np.random.default_rng(0)

    def constant(self, name: str, values: NDArray[np.generic]) -> str:
        self.constants.append(numpy_helper.from_array(values, name))
        return name

    def weight(self, name: str, *shape: int) -> str:
        return self.constant(name, (self.generator.normal(size=shape) * 0.2).astype(np.float32))

    def node(self, op: str, inputs: list[str], name: str, **attributes: object) -> str:
        self.nodes.append(helper.make_node(op, inputs, [name], name, **attributes))
        return name

    def conv(self, x: str, name: str, channels: int, out: int = 16, bias: bool = False, group: int = 1) -> str:
        inputs = [x, self.weight(f"{name}.weight", out, channels // group, 3, 3, 3)]
        if bias:
            inputs.append(self.weight(f"{name}.bias", out))
        return self.node("Conv", inputs, name, kernel_shape=[3] * 3, pads=[1] * 6, group=group)

    def prelu(self, x: str, name: str) -> str:
        slope = self.constant(f"{name}.slope", np.full((1, 16, 1, 1, 1), 0.25, np.float32))
        positive = self.node("Relu", [x], f"{name}.positive")
        negative = self.node("Relu", [self.node("Neg", [x], f"{name}.neg")], f"{name}.negative")
        return self.node("Sub", [positive, self.node("Mul", [slope, negative], f"{name}.scaled")], name)

    def model(self, inputs: list[str], output: str, shape: tuple[int, ...] = SHAPE, opset: int = 20) -> onnx.ModelProto:
        ports = [helper.make_tensor_value_info(name, TensorProto.FLOAT, shape) for name in inputs]
        out = helper.make_tensor_value_info(output, TensorProto.FLOAT, None)
        graph = helper.make_graph(self.nodes, "small", ports, [out], self.constants)
        model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)], ir_version=10)
        return onnx.shape_inference.infer_shapes(model)


def concat_model() -> onnx.ModelProto:
    """Two branches that a convolution reads through a Concat: what OpenVINO 2026.4 quantises wrongly."""
    made = Builder()
    joined = made.node("Concat", [made.prelu("x", "px"), made.prelu("y", "py")], "joined", axis=1)
    return made.model(["x", "y"], made.conv(joined, "out", 32))


def chain_model() -> onnx.ModelProto:
    """Convolutions in a row, with a norm, PReLU and LeakyReLU between them."""
    made = Builder()
    first = made.prelu(made.conv("x", "first", 16, bias=True), "p")
    second = made.conv(first, "second", 16, bias=True)
    gain, shift = made.weight("gain", 16), made.weight("shift", 16)
    norm = made.node("InstanceNormalization", [second, gain, shift], "norm")
    leaky = made.node("LeakyRelu", [norm], "leaky", alpha=0.01)
    return made.model(["x"], made.conv(leaky, "third", 16))


def linear_model() -> onnx.ModelProto:
    """A norm and two linear layers on rows of 16."""
    made = Builder()
    norm = made.node("LayerNormalization", ["x", made.weight("gain", 16), made.weight("shift", 16)], "norm", axis=-1)
    hidden = made.node("MatMul", [norm, made.weight("one.weight", 16, 24)], "one")
    hidden = made.node("Add", [hidden, made.weight("one.bias", 24)], "one_biased")
    return made.model(["x"], made.node("MatMul", [hidden, made.weight("two.weight", 24, 8)], "two"), (40, 16))
