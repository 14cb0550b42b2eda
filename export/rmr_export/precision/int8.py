"""The int8 graph: explicit symmetric quantisation, written into the graph as Q/DQ pairs.

    activation ── QuantizeLinear ── DequantizeLinear ──┐
                                                       Conv or MatMul ── the rest of the graph, in float
    weight (int8) ──────────────── DequantizeLinear ───┘

Zero points are 0. Activations have one scale a tensor, weights one for each output channel. Two things are there for
OpenVINO 2026.4 alone, and cost the others next to nothing: every layer has pairs of its own, because wrong values come
out where one DequantizeLinear feeds an int8 layer and a float one; and what a layer reads from a Concat goes through a
Max with the lowest value that int8 can hold, which changes nothing, because OpenVINO would otherwise quantise each part
before the Concat, with zero points of which it loses some.

Source: Jacob et al., Quantization and Training of Neural Networks for Efficient Integer-Arithmetic-Only Inference, CVPR
2018; the placement is what TensorRT asks of explicitly quantised networks.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Iterable, Mapping

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import helper, numpy_helper

from rmr_export.errors import ExportError

from .layers import Layer, find_layers, node_name

FloatArray = NDArray[np.float32]

LEVELS = 127
"""Greatest magnitude of a quantised value; -128 is left alone, so that the scale is the same on both sides."""

_ZERO = "int8.zero"


def quantise(model: onnx.ModelProto, ranges: Mapping[str, float], *, exclude: Collection[str] = ()) -> onnx.ModelProto:
    """Write the int8 graph of a float graph.

    Args:
        model: A graph in fp32; it is left unchanged. `to_fp16` makes the rest of the result fp16.
        ranges: Activation -> the magnitude that becomes 127. More is clipped.
        exclude: Layers, by name, and groups of layers that stay in float.

    Returns:
        The graph, with the same inputs and outputs.

    Raises:
        ExportError: No layer is left to quantise, or an activation has no usable range.
    """
    layers = chosen_layers(model, exclude)
    made = onnx.ModelProto()
    made.CopyFrom(model)
    weights = {item.name: item for item in made.graph.initializer}
    writer = _Writer(ranges, weights, _behind_concats(made))
    planned = {layer.name: layer for layer in layers}
    nodes: list[onnx.NodeProto] = []
    for node in made.graph.node:
        layer = planned.get(node_name(node))
        if layer is not None:
            nodes += writer.pairs(layer, node)
        nodes.append(node)
    del made.graph.node[:]
    made.graph.node.extend(nodes)
    made.graph.initializer.extend(writer.initializers.values())
    _drop_unused(made)
    onnx.checker.check_model(made, full_check=True)
    return made


def chosen_layers(model: onnx.ModelProto, exclude: Collection[str] = ()) -> tuple[Layer, ...]:
    """Return the layers to quantise.

    Raises:
        ExportError: There is none.
    """
    found = find_layers(model)
    kept = tuple(layer for layer in found if layer.name not in exclude and layer.group not in exclude)
    if not kept:
        raise ExportError(
            f"the graph has no layer to quantise ({len(found)} convolutions and linear layers, all left out)."
            if found
            else "the graph has no convolution or linear layer with constant weights: nothing can run in int8.",
            "Leave fewer layers out, or export another precision.",
            layers=len(found),
        )
    return kept


def quantise_weight(weight: FloatArray, axis: int) -> tuple[NDArray[np.int8], FloatArray]:
    """Round a weight to int8, symmetrically and with one scale for each output channel.

    Args:
        weight: Any shape.
        axis: The axis of the output channels.

    Returns:
        The weight in int8, and the scales; a channel of zeros has scale 1.
    """
    others = tuple(number for number in range(weight.ndim) if number != axis)
    scales = scales_for(np.abs(weight).max(axis=others))
    spread = scales.reshape([-1 if number == axis else 1 for number in range(weight.ndim)])
    return np.clip(np.rint(weight / spread), -LEVELS, LEVELS).astype(np.int8), scales


def scales_for(magnitude: FloatArray) -> FloatArray:
    """Return the scales at which magnitudes become 127, or 1 where a magnitude is too small to have one.

    They are numbers of float16, rounded up: the graph converted to fp16 has the very same scales.
    """
    exact = np.asarray(magnitude, np.float64) / LEVELS
    with np.errstate(over="ignore"):
        rounded = exact.astype(np.float16)
        rounded = np.where(rounded < exact, np.nextafter(rounded, np.float16(np.inf)), rounded)
    # A magnitude beyond float16 keeps its float32 scale: converting such a graph is refused anyhow.
    scales = np.where(np.isfinite(rounded), rounded, exact).astype(np.float32)
    return np.where(exact > 0, scales, 1).astype(np.float32)


class _Writer:
    """Makes the nodes and initializers of the pairs; equal weights and scales are kept once."""

    def __init__(
        self, ranges: Mapping[str, float], weights: Mapping[str, onnx.TensorProto], joined: Collection[str]
    ) -> None:
        self.ranges, self.weights, self.joined = ranges, weights, joined
        self.initializers: dict[str, onnx.TensorProto] = {}

    def pairs(self, layer: Layer, node: onnx.NodeProto) -> Iterable[onnx.NodeProto]:
        """Return the nodes that go before a layer, and make it read them."""
        weight = numpy_helper.to_array(self.weights[layer.weight])
        scale = self._activation_scale(layer)
        zero = self._keep(_ZERO, np.zeros((), np.int8))
        name, activation = layer.name, node.input[0]
        quantised, restored = f"{name}.input.int8", f"{name}.input.restored"
        if activation in self.joined:
            lowest = self._keep(f"{activation}.lowest", -(LEVELS + 1) * numpy_helper.to_array(self.initializers[scale]))
            yield helper.make_node("Max", [activation, lowest], [f"{name}.joined"], f"{name}.join")
            activation = f"{name}.joined"
        yield helper.make_node("QuantizeLinear", [activation, scale, zero], [quantised], f"{name}.quantise")
        yield helper.make_node("DequantizeLinear", [quantised, scale, zero], [restored], f"{name}.dequantise")
        integers, scales = quantise_weight(weight, layer.axis)
        inputs = [
            self._keep(f"{layer.weight}.int8", integers),
            self._keep(f"{layer.weight}.scale", scales),
            self._keep(f"{_ZERO}.{scales.size}", np.zeros(scales.shape, np.int8)),
        ]
        node.input[0], node.input[1] = restored, f"{name}.weight.restored"
        yield helper.make_node(
            "DequantizeLinear", inputs, [node.input[1]], f"{name}.weight.dequantise", axis=layer.axis
        )

    def _activation_scale(self, layer: Layer) -> str:
        magnitude = self.ranges.get(layer.activation)
        if magnitude is None or not np.isfinite(magnitude) or magnitude < 0:
            raise ExportError(
                f'the input of layer "{layer.name}" has no usable range ({magnitude}).',
                "Calibrate on the graph that is quantised.",
                layer=layer.name,
            )
        return self._keep(f"{layer.activation}.scale", scales_for(np.asarray(magnitude, np.float32)))

    def _keep(self, name: str, values: NDArray[np.generic]) -> str:
        if name not in self.initializers:
            self.initializers[name] = numpy_helper.from_array(np.asarray(values, order="C"), name)
        return name


def _behind_concats(model: onnx.ModelProto) -> set[str]:
    """Return the tensors that a Concat gives, also through a Relu."""
    found: set[str] = set()
    for node in model.graph.node:
        if node.op_type == "Concat" or (node.op_type == "Relu" and node.input[0] in found):
            found.add(node.output[0])
    return found


def _drop_unused(model: onnx.ModelProto) -> None:
    used = Counter(name for node in model.graph.node for name in node.input)
    used.update(item.name for item in (*model.graph.input, *model.graph.output))
    kept = [item for item in model.graph.initializer if used[item.name]]
    del model.graph.initializer[:]
    model.graph.initializer.extend(kept)
