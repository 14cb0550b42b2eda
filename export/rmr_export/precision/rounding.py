"""Run an fp16 graph on a CPU in such a way that the result says what fp16 costs.

A CPU engine given a float16 graph mostly computes it in float32 and rounds the weights alone, so its result is better
than that of any device. Here every tensor that the graph says is float16 is rounded to float16 where it is made, and
what lies between is computed in float32: a tensor core multiplies float16, adds up in float32 and stores float16. A
device that fuses nodes rounds less often than that.
"""

from __future__ import annotations

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from rmr_export.parity import Run, Tensors

_SUFFIX = ".stored"


def round_tensors(model: onnx.ModelProto) -> onnx.ModelProto:
    """Rewrite an fp16 graph so that it computes in float32 and rounds every float16 tensor.

    Args:
        model: As `to_fp16` gives it.

    Returns:
        A graph of float32 alone, apart from the rounding. Inputs and outputs keep their names; those that were float16
        are float32 and hold numbers of float16.
    """
    typed = onnx.shape_inference.infer_shapes(model)
    graph = typed.graph
    ports = (*graph.input, *graph.output, *graph.value_info)
    halves = {port.name for port in ports if port.type.tensor_type.elem_type == TensorProto.FLOAT16}
    for port in (*graph.input, *graph.output):
        if port.name in halves:
            port.type.tensor_type.elem_type = TensorProto.FLOAT
    for tensor in graph.initializer:
        if tensor.data_type == TensorProto.FLOAT16:
            tensor.CopyFrom(_widened(tensor))
    nodes: list[onnx.NodeProto] = []
    for node in graph.node:
        nodes.append(node)
        _widen_attributes(node)
        for place, name in enumerate(node.output):
            if name in halves:
                nodes += _round(node, place)
    del graph.node[:], graph.value_info[:]
    graph.node.extend(nodes)
    return typed


def rounding_runner(model: onnx.ModelProto) -> Run:
    """Give a function that computes tiles as `model`, an fp16 graph, says, rounding each tensor.

    The function takes and gives float32, whatever the graph does.
    """
    import onnxruntime  # its import starts a thread pool

    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    # Optimised, two casts that follow each other would be removed, and the rounding with them.
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    data = round_tensors(model).SerializeToString()
    session = onnxruntime.InferenceSession(data, options, providers=["CPUExecutionProvider"])
    names = [port.name for port in session.get_outputs()]

    def run(inputs: Tensors) -> dict[str, np.ndarray]:
        return dict(zip(names, session.run(names, dict(inputs)), strict=True))

    return run


def _round(node: onnx.NodeProto, place: int) -> list[onnx.NodeProto]:
    """Store what a node gives as float16, and read it back."""
    name = node.output[place]
    computed, stored = f"{name}.computed", f"{name}{_SUFFIX}"
    node.output[place] = computed
    return [
        helper.make_node("Cast", [computed], [stored], name=f"store_{name}", to=TensorProto.FLOAT16),
        helper.make_node("Cast", [stored], [name], name=f"load_{name}", to=TensorProto.FLOAT),
    ]


def _widened(tensor: onnx.TensorProto) -> onnx.TensorProto:
    return numpy_helper.from_array(numpy_helper.to_array(tensor).astype(np.float32), tensor.name)


def _widen_attributes(node: onnx.NodeProto) -> None:
    for attribute in node.attribute:
        if attribute.type == onnx.AttributeProto.TENSOR and attribute.t.data_type == TensorProto.FLOAT16:
            attribute.t.CopyFrom(_widened(attribute.t))
        elif node.op_type == "Cast" and attribute.name == "to" and attribute.i == TensorProto.FLOAT16:
            attribute.i = TensorProto.FLOAT
