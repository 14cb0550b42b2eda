"""What the network of a bundle costs by its graph: multiply-accumulates, and the values its layers read and write.

Counted on the graph as OpenVINO reads it, so that no ONNX library is needed. Convolutions and matrix products count;
what lies between them is under a hundredth of the arithmetic.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

from rmr_sdk.bundle import Bundle
from rmr_sdk.engines.openvino import openvino_core
from rmr_sdk.errors import DeviceUnavailableError

_CONVOLUTIONS = {
    "Convolution": 1,
    "GroupConvolution": 2,
    "ConvolutionBackpropData": 1,
    "GroupConvolutionBackpropData": 2,
}
"""Layer -> first axis of its weights that each output, or each input of a transposed one, is multiplied along."""


@dataclass(frozen=True, slots=True)
class GraphCost:
    """Cost of one tile.

    Attributes:
        macs: Multiply-accumulates of convolutions and matrix products.
        values: Values that those layers read and write, weights included, when each goes through memory by itself.
    """

    macs: int
    values: int


def count_cost(bundle: Bundle) -> GraphCost | None:
    """Count what one tile costs; None where OpenVINO is not installed or a shape is not fixed.

    Raises:
        ChecksumError: The graph is not the one that the manifest describes.
    """
    try:
        core = openvino_core()
    except DeviceUnavailableError:
        return None
    model = core.read_model(bundle.graph(bundle.manifest.onnx_precisions[0]))
    macs = values = 0
    for node in model.get_ordered_ops():
        kind = node.get_type_name()
        if kind not in _CONVOLUTIONS and kind != "MatMul":
            continue
        if any(port.get_partial_shape().is_dynamic for port in (*node.inputs(), *node.outputs())):
            return None
        shapes = [tuple(port.get_shape()) for port in (*node.inputs(), node.output(0))]
        macs += _matmul_macs(node, shapes) if kind == "MatMul" else _convolution_macs(kind, shapes)
        values += sum(math.prod(shape) for shape in shapes[:2]) + math.prod(shapes[-1])
    return GraphCost(macs, values)


def _matmul_macs(node: Any, shapes: list[tuple[int, ...]]) -> int:
    inner = shapes[0][-2 if node.get_attributes()["transpose_a"] and len(shapes[0]) > 1 else -1]
    return math.prod(shapes[-1]) * inner


def _convolution_macs(kind: str, shapes: list[tuple[int, ...]]) -> int:
    """Count each output, or for a transposed convolution each input, times what it is multiplied with."""
    source, weights, target = shapes[0], shapes[1], shapes[-1]
    return math.prod(source if "Backprop" in kind else target) * math.prod(weights[_CONVOLUTIONS[kind] :])
