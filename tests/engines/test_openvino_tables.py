"""Tables are bound, not folded: the values, the memory that is not taken, and the entry of the cache."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import helper, numpy_helper
from run_tiles import compute, expected
from tiny_bundle import TILE, make_golden, make_graph, make_manifest

from rmr_sdk.bundle import Bundle, write_bundle
from rmr_sdk.engines import open_engine
from rmr_sdk.engines.openvino_tables import pack, unpack
from rmr_sdk.golden import encode_golden


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    """Give the tiny bundle, with a table whose unfolded square is added to `fused`, times zero where ids agree."""
    model = make_graph()
    ids = np.zeros(TILE[2], np.int32)
    model.graph.input.append(helper.make_tensor_value_info("regions_0", onnx.TensorProto.INT32, ids.shape))
    model.graph.initializer.extend(
        [
            numpy_helper.from_array(ids, "regions_0"),
            numpy_helper.from_array(np.int64([1]), "axis"),
            numpy_helper.from_array(np.float32(0), "open"),
            numpy_helper.from_array(np.float32(-100), "shut"),
        ]
    )
    last = next(node for node in model.graph.node if node.output[0] == "fused")
    last.input[0] = "masked"
    masking = [
        helper.make_node("Unsqueeze", ["regions_0", "axis"], ["column"]),
        helper.make_node("Equal", ["regions_0", "column"], ["same"]),
        helper.make_node("Where", ["same", "open", "shut"], ["mask"]),
        helper.make_node("Add", ["fused.y", "mask"], ["masked"]),
    ]
    place = list(model.graph.node).index(last)
    nodes = [*list(model.graph.node)[:place], *masking, *list(model.graph.node)[place:]]
    del model.graph.node[:]
    model.graph.node.extend(nodes)
    onnx.checker.check_model(model)
    data = model.SerializeToString()
    files = {"model.fp32.onnx": data, "golden.npz": encode_golden(make_golden(make_graph().SerializeToString()))}
    return write_bundle(tmp_path_factory.mktemp("tables") / "tables.zip", make_manifest(), files)


@pytest.mark.parametrize("openings", [1, 2])
def test_a_table_is_bound_once_and_the_values_are_the_graphs(openings: int, bundle: Bundle, cache_dir: Path) -> None:
    for _ in range(openings):
        engine, _ = open_engine(bundle, "openvino", threads=2, cache_dir=cache_dir)
    assert "regions_0" in {port.get_any_name() for port in engine._compiled.inputs}  # type: ignore[attr-defined]
    for seed, outputs in enumerate(compute(engine, range(5))):
        np.testing.assert_allclose(outputs["fused"], expected(seed)["fused"], atol=2e-6)


def test_an_entry_comes_apart_as_it_was_put_together() -> None:
    tables = {"regions_0": np.arange(6, dtype=np.int32).reshape(2, 3)}
    found, network = unpack(pack(tables, b"network"))
    assert network == b"network"
    np.testing.assert_array_equal(found["regions_0"], tables["regions_0"])
    assert unpack(pack({}, b"")) == ({}, b"")


@pytest.mark.parametrize("data", [b"", b"\x05", b"not an entry of the cache", b"\x00" * 9])
def test_what_is_no_entry_is_refused(data: bytes) -> None:
    with pytest.raises(ValueError, match="not an entry"):
        unpack(data)
