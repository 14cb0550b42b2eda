"""Real builds with TensorRT-RTX, which needs no GPU: what the fakes of the other tests only play."""

from __future__ import annotations

import re
from collections.abc import Callable

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper
from tiny_bundle import make_graph

from rmr_sdk.cuda import list_devices
from rmr_sdk.engines.onnx_tables import split_tables
from rmr_sdk.engines.tensorrt_build import build_engine
from rmr_sdk.engines.tensorrt_library import Library, check_validity, load_library
from rmr_sdk.errors import DeviceUnavailableError, EngineError, EngineMismatchError, RmrError


@pytest.fixture(scope="module")
def library() -> Library:
    """Give TensorRT-RTX, where it is installed."""
    pytest.importorskip("tensorrt_rtx")
    return load_library("tensorrt-rtx")


def expect(error: type[RmrError], words: str, act: Callable[[], object]) -> RmrError:
    with pytest.raises(RmrError, match=re.escape(words)) as caught:
        act()
    assert type(caught.value) is error, caught.value
    assert caught.value.fix
    return caught.value


def masked_graph() -> onnx.ModelProto:
    """Give a network that adds a mask made of region ids, which are an input with a default."""
    ids = (np.arange(64, dtype=np.int32) // 8).reshape(1, 64, 1)
    nodes = [
        helper.make_node("Transpose", ["region_ids"], ["across"], perm=[0, 2, 1]),
        helper.make_node("Equal", ["region_ids", "across"], ["same"]),
        helper.make_node("Where", ["same", "zero", "away"], ["mask"]),
        helper.make_node("Add", ["t1w", "mask"], ["fused"]),
    ]
    constants = {"zero": np.float16(0), "away": np.float16(-100), "region_ids": ids}
    graph = helper.make_graph(
        nodes,
        "masked",
        [
            helper.make_tensor_value_info("t1w", TensorProto.FLOAT16, (1, 64, 64)),
            helper.make_tensor_value_info("region_ids", TensorProto.INT32, ids.shape),
        ],
        [helper.make_tensor_value_info("fused", TensorProto.FLOAT16, (1, 64, 64))],
        [numpy_helper.from_array(np.asarray(array), name) for name, array in constants.items()],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)


def inputs_of(library: Library, model: bytes) -> list[str]:
    """Let the parser say which inputs it sees."""
    log = library.make_log()
    builder = library.trt.Builder(log)
    assert builder is not None
    network = builder.create_network(1 << int(library.trt.NetworkDefinitionCreationFlag.STRONGLY_TYPED))
    assert library.trt.OnnxParser(network, log).parse(model)
    return [network.get_input(index).name for index in range(network.num_inputs)]


def test_the_parser_folds_a_table_unless_its_default_is_taken_away(library: Library) -> None:
    model = masked_graph().SerializeToString()
    onnx.checker.check_model(masked_graph())
    promoted, tables = split_tables(model)
    assert inputs_of(library, model) == ["t1w"]
    assert inputs_of(library, promoted) == ["t1w", "region_ids"]
    assert tables["region_ids"].shape == (1, 64, 1)


@pytest.mark.parametrize("precision", ["fp32", "fp16", "int8"])
def test_every_precision_builds_twice_to_the_same_bytes(library: Library, precision: str) -> None:
    model, _ = split_tables(make_graph(precision).SerializeToString())
    first, second = (build_engine(library, model, (86,), 2**28) for _ in range(2))
    assert len(first) > 1000
    assert first == second


def test_one_engine_for_several_gpus(library: Library) -> None:
    assert {75, 86, 89, 120} <= set(library.targets)
    assert build_engine(library, split_tables(masked_graph().SerializeToString())[0], (86, 120))


def test_a_gpu_that_it_does_not_serve_is_named(library: Library) -> None:
    words = "does not build for compute capability 87 (it does for 75, 80, 86"
    error = expect(EngineMismatchError, words, lambda: build_engine(library, make_graph().SerializeToString(), (87,)))
    assert "TensorRT itself on a Jetson" in error.fix
    assert library.fits(86)
    assert not library.fits(87)


def test_an_operator_that_the_parser_refuses_is_named(library: Library) -> None:
    model = make_graph()
    model.graph.node[0].op_type, model.graph.node[0].name = "Frobnicate", "first"
    error = expect(
        EngineError,
        'refuses operator Frobnicate of node "first"',
        lambda: build_engine(library, model.SerializeToString(), (86,)),
    )
    assert (error.operator, error.node) == ("Frobnicate", "first")


@pytest.mark.parametrize("data", [b"", b"no graph at all"])
def test_a_file_that_is_no_graph_is_refused(library: Library, data: bytes) -> None:
    expect(EngineError, "tensorrt-rtx", lambda: build_engine(library, data, (86,)))


def test_without_a_driver_the_missing_driver_is_the_reason(library: Library) -> None:
    try:
        list_devices()
    except DeviceUnavailableError:
        pass
    else:
        pytest.skip("there is an NVIDIA driver")
    log = library.make_log()
    runtime = library.trt.Runtime(log)
    engine = build_engine(library, split_tables(masked_graph().SerializeToString())[0], (86,))
    words = "No NVIDIA GPU can be used: tensorrt-rtx"
    expect(DeviceUnavailableError, words, lambda: check_validity(library, runtime, engine, log))  # type: ignore[arg-type]
