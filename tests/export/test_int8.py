"""The int8 graph: where the pairs are, and that engines compute what an independent computation of the same says."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable

import numpy as np
import onnx
import onnxruntime
import pytest
from numpy.typing import NDArray
from onnx import numpy_helper
from small_graphs import SHAPE, chain_model, concat_model, linear_model

from rmr_export.errors import ExportError
from rmr_export.phantom import phantom
from rmr_export.precision.calibration import calibrate
from rmr_export.precision.fp16 import to_fp16
from rmr_export.precision.int8 import quantise, quantise_weight
from rmr_export.precision.layers import find_layers
from rmr_export.precision.observe import Observer
from rmr_export.precision.runners import openvino_runner
from rmr_sdk.bundle import Bundle

Arrays = dict[str, NDArray[np.float32]]


@pytest.fixture(scope="module")
def graph(exported: Bundle) -> onnx.ModelProto:
    return onnx.load_from_string(exported.graph("fp32"))


@pytest.fixture(scope="module")
def inputs(exported: Bundle) -> Arrays:
    return phantom(exported.manifest.tile_shape)


def noise(*names: str, shape: tuple[int, ...] = SHAPE) -> Arrays:
    generator = np.random.default_rng(1)
    return {name: generator.normal(size=shape).astype(np.float32) for name in names}


def run_onnxruntime(model: onnx.ModelProto, inputs: Arrays) -> Arrays:
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    # As it stands: nothing fused, so that every pair is computed in float.
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    session = onnxruntime.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])
    names = [port.name for port in session.get_outputs()]
    return dict(zip(names, session.run(names, inputs), strict=True))


def peaks(model: onnx.ModelProto, inputs: Arrays) -> dict[str, float]:
    observer = Observer(model, [layer.activation for layer in find_layers(model)], threads=1)
    return {name: float(np.abs(values).max()) for name, values in observer.run(inputs)}


def fake_quantise(values: NDArray[np.floating], magnitude: NDArray[np.floating] | float) -> NDArray[np.float64]:
    """What int8 numbers up to this magnitude say: written down without the code under test."""
    exact = np.atleast_1d(np.asarray(magnitude, np.float64) / 127)
    half = exact.astype(np.float16)
    scale = np.where(half < exact, half + np.spacing(half), half).astype(np.float64)
    return np.clip(np.round(values.astype(np.float64) / scale), -128, 127) * scale


def test_pairs_are_symmetric_and_of_one_layer_each(graph: onnx.ModelProto, inputs: Arrays) -> None:
    made = quantise(graph, peaks(graph, inputs))
    constants = {item.name: numpy_helper.to_array(item) for item in made.graph.initializer}
    layers = find_layers(graph)
    readers = Counter(name for node in made.graph.node for name in node.input)
    quantised, restored = 0, 0
    for node in made.graph.node:
        if node.op_type in ("QuantizeLinear", "DequantizeLinear"):
            zero = constants[node.input[2]]
            assert zero.dtype == np.int8
            assert not zero.any()
            assert readers[node.output[0]] == 1
            quantised += node.op_type == "QuantizeLinear"
            restored += node.op_type == "DequantizeLinear"
    assert (quantised, restored) == (len(layers), 2 * len(layers))
    for node in made.graph.node:
        made_by = {name: other for other in made.graph.node for name in other.output}
        if node.name in {layer.name for layer in layers}:
            assert [made_by[name].op_type for name in node.input[:2]] == ["DequantizeLinear"] * 2
            axis = next(item.i for item in made_by[node.input[1]].attribute if item.name == "axis")
            assert axis == (0 if node.op_type == "Conv" else 1)
        elif node.op_type in ("Softmax", "ConvTranspose", "MatMul"):
            assert not any(made_by[name].op_type == "DequantizeLinear" for name in node.input if name in made_by)


def test_weights_are_kept_as_integers(graph: onnx.ModelProto, inputs: Arrays) -> None:
    made = quantise(graph, peaks(graph, inputs))
    assert made.ByteSize() < 0.7 * graph.ByteSize()
    names = {item.name for item in made.graph.initializer}
    assert not names & {layer.weight for layer in find_layers(graph)}
    assert [port.name for port in made.graph.output] == [port.name for port in graph.graph.output]


def test_openvino_computes_what_the_pairs_say(graph: onnx.ModelProto, inputs: Arrays) -> None:
    # One layer at a time: behind it, a rounding that falls the other way would move everything by a little.
    ranges, layers = peaks(graph, inputs), find_layers(graph)
    joined = {node.output[0] for node in graph.graph.node if node.op_type == "Concat"}
    chosen = [
        next(layer for layer in layers if layer.op == "MatMul"),
        next(layer for layer in layers if layer.op == "Conv" and layer.activation not in inputs),
        *[layer for layer in layers if layer.activation in joined][-2:],
    ]
    exact = openvino_runner(graph, threads=1)(inputs)
    for layer in chosen:
        made = quantise(graph, ranges, exclude=[other.name for other in layers if other is not layer])
        wanted, found = run_onnxruntime(made, inputs), openvino_runner(made, threads=1)(inputs)
        error = max(float(np.abs(wanted[name] - exact[name]).mean()) for name in wanted)
        assert error > 1e-6, "int8 that costs nothing is no int8"
        for name, values in wanted.items():
            assert float(np.abs(found[name] - values).mean()) < 0.1 * error, layer


def test_a_concat_is_quantised_behind_it() -> None:
    model, inputs = concat_model(), noise("x", "y")
    made = quantise(model, {layer.activation: 4.0 for layer in find_layers(model)})
    assert [node.op_type for node in made.graph.node].count("Max") == 1
    wanted = run_onnxruntime(made, inputs)["out"]
    np.testing.assert_allclose(openvino_runner(made, threads=1)(inputs)["out"], wanted, atol=1e-4)
    assert np.abs(wanted - run_onnxruntime(model, inputs)["out"]).max() < 0.4


def test_a_linear_layer_by_hand() -> None:
    model, inputs = linear_model(), noise("x", shape=(40, 16))
    ranges = peaks(model, inputs)
    weights = {item.name: numpy_helper.to_array(item) for item in model.graph.initializer}
    x = inputs["x"].astype(np.float64)
    norm = (x - x.mean(1, keepdims=True)) / np.sqrt(x.var(1, keepdims=True) + 1e-5)
    hidden = (norm * weights["gain"] + weights["shift"]).astype(np.float32)
    for name, bias in (("one", "one.bias"), ("two", None)):
        activation = "norm" if name == "one" else "one_biased"
        rounded = fake_quantise(hidden, ranges[activation])
        columns = weights[f"{name}.weight"]
        hidden = (rounded @ fake_quantise(columns, np.abs(columns).max(0))).astype(np.float32)
        hidden = hidden + weights[bias] if bias else hidden
    made = quantise(model, ranges)
    for run in (run_onnxruntime, lambda made, inputs: openvino_runner(made, threads=1)(inputs)):
        found = run(made, inputs)["two"]
        assert np.abs(found - hidden).mean() < 1e-3
        assert np.abs(found - hidden).max() < 0.05


def test_weights_by_hand() -> None:
    weight = np.array([[[0.5, -1.27]], [[0.0, 0.0]], [[2.54, 0.013]]], np.float32)
    integers, scales = quantise_weight(weight, axis=0)
    np.testing.assert_allclose(scales, [0.01, 1.0, 0.02], rtol=2e-3)
    np.testing.assert_array_equal(scales.astype(np.float16).astype(np.float32), scales)
    assert (scales[0] * 127, scales[2] * 127) >= (1.27, 2.54), "rounded up, so that nothing is clipped"
    assert integers.tolist() == [[[50, -127]], [[0, 0]], [[127, 1]]]


def test_what_is_left_out_stays_as_it_is() -> None:
    model, inputs = chain_model(), noise("x")
    ranges = peaks(model, inputs)
    made = quantise(model, ranges, exclude=["second", "third"])
    assert [node.op_type for node in made.graph.node].count("QuantizeLinear") == 1
    with pytest.raises(ExportError, match="no layer to quantise"):
        quantise(model, ranges, exclude=["first", "second", "third"])


def test_a_network_without_layers() -> None:
    from small_graphs import Builder

    made = Builder()
    model = made.model(["x"], made.node("Relu", ["x"], "y"))
    with pytest.raises(ExportError, match="no convolution or linear layer"):
        calibrate(model, iter([("one", noise("x"))]))


@pytest.mark.parametrize("magnitude", [None, float("nan"), float("inf"), -1.0])
def test_an_activation_without_a_range(magnitude: float | None) -> None:
    ranges = {} if magnitude is None else {"x": magnitude}
    with pytest.raises(ExportError, match='the input of layer "first" has no usable range'):
        quantise(chain_model(), ranges)


def test_an_fp16_graph_stays_strongly_typed(graph: onnx.ModelProto, inputs: Arrays) -> None:
    whole = quantise(graph, peaks(graph, inputs))
    made = to_fp16(whole)
    kinds = {item.name: item.data_type for item in made.graph.initializer}
    scales = [node.input[1] for node in made.graph.node if node.op_type in ("QuantizeLinear", "DequantizeLinear")]
    assert {kinds[name] for name in scales} == {onnx.TensorProto.FLOAT16}
    onnx.checker.check_model(made, full_check=True)
    before, after = (
        {item.name: numpy_helper.to_array(item) for item in each.graph.initializer} for each in (whole, made)
    )
    for name in set(scales) & before.keys():
        np.testing.assert_array_equal(after[name].astype(np.float32), before[name])


@pytest.mark.parametrize("make", [concat_model, chain_model, linear_model])
def test_layers_are_found(make: Callable[[], onnx.ModelProto]) -> None:
    found = {layer.name: layer.op for layer in find_layers(make())}
    assert (
        found
        == {
            "concat_model": {"out": "Conv"},
            "chain_model": {"first": "Conv", "second": "Conv", "third": "Conv"},
            "linear_model": {"one": "MatMul", "two": "MatMul"},
        }[make.__name__]
    )
