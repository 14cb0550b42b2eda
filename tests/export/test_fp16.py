"""The fp16 graph: typed throughout, the same interface, close to fp32, islands where asked, and no silent overflow."""

from __future__ import annotations

import numpy as np
import onnx
import pytest
from networks import TINY, make_network
from onnx import TensorProto, helper, numpy_helper

from rmr_export.errors import PrecisionError
from rmr_export.graph import build_graph
from rmr_export.parity import random_tile, torch_runner
from rmr_export.precision.fp16 import to_fp16
from rmr_export.precision.overflow import check_range, make_fp16
from rmr_export.precision.rounding import rounding_runner
from rmr_sdk.errors import ConfigError


@pytest.fixture(scope="module")
def model() -> onnx.ModelProto:
    return build_graph(make_network(TINY), TINY.tile)


def make_model(nodes: list[onnx.NodeProto], **constants: object) -> onnx.ModelProto:
    graph = helper.make_graph(
        nodes,
        "made",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, [4])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, [4])],
        [numpy_helper.from_array(np.float32(value), name) for name, value in constants.items()],
    )
    made = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=10)
    return onnx.shape_inference.infer_shapes(made)


def types(model: onnx.ModelProto) -> dict[str, int]:
    ports = (*model.graph.input, *model.graph.output, *model.graph.value_info)
    return {port.name: port.type.tensor_type.elem_type for port in ports} | {
        tensor.name: tensor.data_type for tensor in model.graph.initializer
    }


def test_weights_and_tensors_are_half(model: onnx.ModelProto) -> None:
    half = to_fp16(model)
    onnx.checker.check_model(half, full_check=True)
    found = types(half)
    floats = {name for name, kind in found.items() if kind == TensorProto.FLOAT}
    assert floats == {"t1w", "flair", "fused", "probability"}
    assert sum(kind == TensorProto.FLOAT16 for kind in found.values()) > len(half.graph.node) / 2
    assert found["regions_0"] == TensorProto.INT32


def test_the_interface_stays(model: onnx.ModelProto) -> None:
    half = to_fp16(model)
    assert list(half.graph.input) == list(model.graph.input)
    assert list(half.graph.output) == list(model.graph.output)
    casts = [node for node in half.graph.node if node.op_type == "Cast"]
    assert len(casts) == 4, "two inputs, two outputs"


def test_half_inputs_and_outputs(model: onnx.ModelProto) -> None:
    half = to_fp16(model, io="fp16")
    onnx.checker.check_model(half, full_check=True)
    assert not [node for node in half.graph.node if node.op_type == "Cast"]
    assert {types(half)[name] for name in ("t1w", "flair", "fused", "probability")} == {TensorProto.FLOAT16}


def test_rounded_it_stays_close(model: onnx.ModelProto) -> None:
    inputs = random_tile(TINY.tile)
    wanted = torch_runner(make_network(TINY))(inputs)
    found = rounding_runner(to_fp16(model))(inputs)
    errors = {name: float(np.abs(found[name] - wanted[name]).max()) for name in wanted}
    assert 1e-5 < max(errors.values()) < 0.05, "rounded at every step, and no further off than that explains"


def test_rounding_is_that_of_every_tensor() -> None:
    """2048 + 1 is 2048 in float16, so the sum is lost before the second node brings it back."""
    nodes = [helper.make_node("Add", ["x", "one"], ["sum"], "a"), helper.make_node("Sub", ["sum", "x"], ["y"], "b")]
    half = to_fp16(make_model(nodes, one=1))
    x = np.array([1, 2, 2048, 4096], np.float32)
    np.testing.assert_array_equal(rounding_runner(half)({"x": x})["y"], [1, 1, 0, 0])
    kept = to_fp16(make_model(nodes, one=1), keep=["Add", "b"])
    np.testing.assert_array_equal(rounding_runner(kept)({"x": x})["y"], [1, 1, 1, 1])


def test_islands(model: onnx.ModelProto) -> None:
    half = to_fp16(model, keep=["InstanceNormalization", "Softmax"])
    onnx.checker.check_model(half, full_check=True)
    found = types(half)
    for node in half.graph.node:
        if node.op_type in ("InstanceNormalization", "Softmax"):
            assert {found[name] for name in (*node.input, *node.output)} == {TensorProto.FLOAT}
    assert not any(node.name == "cast_probability" for node in half.graph.node), "the last softmax is fp32 already"


def test_a_tensor_is_cast_once(model: onnx.ModelProto) -> None:
    half = to_fp16(model, keep=["Relu"])
    sources = [node.input[0] for node in half.graph.node if node.op_type == "Cast" and node.input[0] != "fused.fp16"]
    assert len(sources) == len(set(sources))


def test_constants_inside_nodes_and_casts_follow() -> None:
    value = numpy_helper.from_array(np.array([2], np.float32))
    nodes = [
        helper.make_node("ConstantOfShape", ["shape"], ["two"], "c", value=value),
        helper.make_node("Cast", ["count"], ["float"], "to_float", to=TensorProto.FLOAT),
        helper.make_node("Mul", ["x", "two"], ["twice"], "m"),
        helper.make_node("Add", ["twice", "float"], ["y"], "a"),
    ]
    model = make_model(nodes)
    model.graph.initializer.append(numpy_helper.from_array(np.array([4]), "shape"))
    model.graph.initializer.append(numpy_helper.from_array(np.array([3], np.int32), "count"))
    half = to_fp16(onnx.shape_inference.infer_shapes(model))
    assert {types(half)[name] for name in ("two", "float", "twice")} == {TensorProto.FLOAT16}
    np.testing.assert_array_equal(rounding_runner(half)({"x": np.ones(4, np.float32)})["y"], [5, 5, 5, 5])


def test_scales_of_a_resize_stay_float32() -> None:
    nodes = [helper.make_node("Resize", ["x", "", "scales"], ["y"], "r", mode="nearest")]
    model = make_model(nodes)
    model.graph.initializer.append(numpy_helper.from_array(np.ones(1, np.float32), "scales"))
    half = to_fp16(model)
    resize = next(node for node in half.graph.node if node.op_type == "Resize")
    assert types(half)[resize.input[2]] == TensorProto.FLOAT


def test_what_is_not_there_cannot_stay() -> None:
    with pytest.raises(ConfigError, match="no node and no operator 'Sofmax'"):
        to_fp16(make_model([helper.make_node("Relu", ["x"], ["y"], "r")]), keep=["Sofmax"])


def test_a_weight_that_does_not_fit() -> None:
    model = make_model([helper.make_node("Mul", ["x", "scale"], ["y"], "m")], scale=1e5)
    with pytest.raises(PrecisionError, match=r'the constant "scale" reaches 1e\+05') as caught:
        to_fp16(model)
    assert caught.value.tensor == "scale"


def test_overflow_is_found_and_named() -> None:
    nodes = [
        helper.make_node("Mul", ["x", "scale"], ["big"], "m"),
        helper.make_node("Div", ["big", "scale"], ["y"], "d"),
    ]
    model = make_model(nodes, scale=6e4)
    fits, overflows = (np.full(4, value, np.float32) for value in (1, 2))
    assert check_range(model, [{"x": fits}])["big"] == pytest.approx(6e4)
    with pytest.raises(PrecisionError, match=r'node "m" \(Mul\) gives values up to 1.2e\+05') as caught:
        make_fp16(model, [{"x": fits}, {"x": overflows}])
    assert caught.value.exit_code == 4
    assert caught.value.node == "m"
    assert check_range(model, [{"x": overflows}], keep=["m"]).keys() == {"y"}


def test_it_is_made_from_a_network(model: onnx.ModelProto) -> None:
    half = make_fp16(model, [random_tile(TINY.tile)])
    assert not any(node.op_type == "ConvTranspose" and node.name == "node_convolution_2" for node in half.graph.node)
    onnx.checker.check_model(half, full_check=True)
