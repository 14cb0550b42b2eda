"""Bias correction: what rounding the weights of a layer adds to its output on average goes into its bias.

A layer computes W x + b, and in int8 Q(W) x + b. The mean of the difference, (Q(W) - W) E[x], is known from the mean of
every input channel, so the bias takes it away.

Source: Nagel et al., Data-Free Quantization Through Weight Equalization and Bias Correction, ICCV 2019; the means are
measured here.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import numpy_helper

from .int8 import chosen_layers, quantise_weight
from .layers import Layer, node_name
from .ranges import Statistics


def correct_biases(
    model: onnx.ModelProto, statistics: Mapping[str, Statistics], exclude: Collection[str] = ()
) -> onnx.ModelProto:
    """Return a graph in fp32 whose biases make up for the rounding of the weights that `quantise` does.

    A convolution without a bias gets one. A linear layer is corrected where an Add with a constant follows it; one
    without is left alone.

    Args:
        model: The graph in fp32; left unchanged.
        statistics: Of the activations, as calibration gives them.
        exclude: Layers and groups that will not be quantised.

    Raises:
        ExportError: No layer is left to quantise.
    """
    made = onnx.ModelProto()
    made.CopyFrom(model)
    weights = {item.name: item for item in made.graph.initializer}
    nodes = {node_name(node): node for node in made.graph.node}
    readers: dict[str, list[onnx.NodeProto]] = {}
    for node in made.graph.node:
        for name in node.input:
            readers.setdefault(name, []).append(node)
    for layer in chosen_layers(model, exclude):
        shift = mean_shift(numpy_helper.to_array(weights[layer.weight]), layer, statistics[layer.activation].means)
        place = _bias_place(nodes[layer.name], readers, weights)
        if place is None:
            continue
        node, index = place
        known = numpy_helper.to_array(weights[node.input[index]]) if index < len(node.input) else 0.0
        name = f"{layer.name}.corrected"
        made.graph.initializer.append(numpy_helper.from_array((known - shift).astype(np.float32), name))
        if index < len(node.input):
            node.input[index] = name
        else:
            node.input.append(name)
    return made


def mean_shift(weight: NDArray[np.float32], layer: Layer, means: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return what rounding a weight adds to each output channel on average, (Q(W) - W) E[x]."""
    integers, scales = quantise_weight(weight, layer.axis)
    spread = scales.reshape([-1 if axis == layer.axis else 1 for axis in range(weight.ndim)])
    error = integers.astype(np.float64) * spread - weight
    error = np.moveaxis(error, layer.axis, 0)
    if layer.op != "Conv":
        return error @ means
    # In a grouped convolution a channel reads only its own group's inputs.
    groups = means.size // weight.shape[1]
    per_tap = error.reshape(groups, -1, *error.shape[1:]).sum(axis=tuple(range(3, error.ndim + 1)))
    return np.einsum("goi,gi->go", per_tap, means.reshape(groups, -1)).reshape(-1)


def _bias_place(
    node: onnx.NodeProto, readers: Mapping[str, list[onnx.NodeProto]], weights: Mapping[str, onnx.TensorProto]
) -> tuple[onnx.NodeProto, int] | None:
    """Return where the bias of a layer stands: a node, and the number of its input."""
    if node.op_type in ("Conv", "Gemm"):
        return (node, 2) if len(node.input) < 3 or node.input[2] in weights else None
    after = readers.get(node.output[0], [])
    if len(after) == 1 and after[0].op_type == "Add":
        for index, name in enumerate(after[0].input):
            if name in weights and len(weights[name].dims) == 1:
                return after[0], index
    return None
