"""Each clean-up pass alone, on a graph made for it: it removes what it names, and the result is the same."""

from __future__ import annotations

import numpy as np
import onnx
import onnx_graphsurgeon as gs
import pytest
from onnx import TensorProto, helper, numpy_helper
from onnx.reference import ReferenceEvaluator

from rmr_export.graph import passes


def make_model(nodes: list[onnx.NodeProto], constants: dict[str, np.ndarray]) -> onnx.ModelProto:
    graph = helper.make_graph(
        nodes,
        "made",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, [4, 2])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, [4, 2])],
        [numpy_helper.from_array(array, name) for name, array in constants.items()],
    )
    return onnx.shape_inference.infer_shapes(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)]))


GATHER = make_model(
    [
        helper.make_node("Reshape", ["index", "flat"], ["rows"]),
        helper.make_node("Gather", ["x", "rows"], ["gathered"], axis=0),
        helper.make_node("Transpose", ["gathered"], ["same"], perm=[0, 1]),
        helper.make_node("Reshape", ["same", "shape"], ["also same"]),
        helper.make_node("Identity", ["also same"], ["still same"]),
        helper.make_node("Add", ["still same", "one"], ["sum"]),
        helper.make_node("Add", ["sum", "another one"], ["y"]),
    ],
    {
        "index": np.array([[3, 2], [1, 0]]),
        "flat": np.array([-1]),
        "shape": np.array([4, 2]),
        "one": np.ones(2, np.float32),
        "another one": np.ones(2, np.float32),
    },
)


def run(model: onnx.ModelProto) -> np.ndarray:
    return ReferenceEvaluator(model).run(None, {"x": np.arange(8, dtype=np.float32).reshape(4, 2)})[0]


def apply(name: str, model: onnx.ModelProto = GATHER) -> onnx.ModelProto:
    graph = gs.import_onnx(model)
    getattr(passes, name)(graph)
    changed = gs.export_onnx(graph.cleanup().toposort())
    np.testing.assert_array_equal(run(changed), run(model))
    return changed


def operators(model: onnx.ModelProto) -> list[str]:
    return [node.op_type for node in model.graph.node]


def test_fold_constants() -> None:
    assert operators(apply("fold_constants")) == ["Gather", "Transpose", "Reshape", "Identity", "Add", "Add"]


def test_drop_identities() -> None:
    assert operators(apply("drop_identities")) == ["Reshape", "Gather", "Add", "Add"]


def test_an_identity_that_feeds_an_output_stays() -> None:
    model = make_model([helper.make_node("Identity", ["x"], ["y"])], {})
    assert operators(apply("drop_identities", model)) == ["Identity"]


def test_narrow_indices() -> None:
    narrowed = apply("narrow_indices", apply("fold_constants"))
    types = {tensor.name: tensor.data_type for tensor in narrowed.graph.initializer}
    gather = next(node for node in narrowed.graph.node if node.op_type == "Gather")
    assert types[gather.input[1]] == TensorProto.INT32


def test_share_constants() -> None:
    shared = apply("share_constants")
    assert shared.graph.node[-1].input[1] == shared.graph.node[-2].input[1]
    assert len(shared.graph.initializer) == len(GATHER.graph.initializer) - 1


@pytest.mark.parametrize("made_where", ["node", "graph", "model"])
def test_tidy_leaves_no_notes(made_where: str) -> None:
    model = onnx.ModelProto.FromString(GATHER.SerializeToString())
    target = {"node": model.graph.node[0], "graph": model.graph, "model": model}[made_where]
    target.doc_string = "made in /home/someone"
    target.metadata_props.add(key="source", value="/home/someone")
    tidied = passes.tidy(model)
    assert b"/home" not in tidied.SerializeToString()
    assert operators(tidied) == ["Gather", "Add", "Add"]
    np.testing.assert_array_equal(run(tidied), run(GATHER))
