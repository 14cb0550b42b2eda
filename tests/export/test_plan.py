"""Reading a plan off a build log: kernels, types, sizes, and what they say about the graph."""

from __future__ import annotations

import onnx
import pytest
from onnx import TensorProto, helper

from rmr_export.plan import Kernel, Plan, PlanTensor, find_attentions, read_plan


def tensor(name: str, shape: str, dtype: str = "Half") -> str:
    return (
        f"{{ Name: {name}, Dimensions: [{shape}], Strides: [{shape}], StrideOrder: [1,0], Datatype: {dtype}, "
        "Format: (NDHWC) Channel major format }"
    )


def line(name: str, kind: str, inputs: list[str], constants: list[str], outputs: list[str], nodes: str) -> str:
    parts = [f"Name: {name}, LayerType: {kind}, Inputs: [ {', '.join(inputs)}]"]
    parts += [f"Constants: [ {', '.join(constants)}]"] if constants else []
    layers = "".join(f"[ONNX Layer: {node}]" for node in nodes.split())
    parts += [f"Outputs: [ {', '.join(outputs)}]", f"TacticName: {name}_0x1, StreamId: 0, Metadata: {layers}"]
    return ", ".join(parts)


CAT = tensor("cat", "1,4,2,2,2")
LOG = [
    "Using legacy CPU-only mode.",
    "Layers:\n"
    + "\n".join(
        [
            line("_gemm_mha_v2", "kgen", [tensor("q", "4,8,16")], [], [tensor("o", "4,8,16")], "qk add softmax pv"),
            line("conv_prelu", "runtime_fusion", [CAT], [tensor("w", "4,4,3,3,3")], [tensor("a", "8")], "conv0 relu0"),
            line("int8", "correlation", [tensor("b", "8", "Int8")], [], [tensor("c", "8", "Float")], "conv1"),
            line("cast", "kgen", [tensor("b", "8", "Float")], [], [tensor("b8", "8", "Int8")], "conv1"),
            line("__myl_Relu", "kgen", [CAT, CAT], [], [tensor("d", "64")], "relu1 neg1 mul1"),
            line("move", "kgen", [tensor("i", "3", "Int32")], [], [tensor("scalar", "", "Int64")], "gather"),
        ]
    ),
    "Engine Metadata:",
]
NODES = {
    "conv0": "Conv",
    "relu0": "Relu",
    "conv1": "Conv",
    "relu1": "Relu",
    "neg1": "Neg",
    "mul1": "Mul",
    "gather": "Gather",
}


@pytest.fixture
def model() -> onnx.ModelProto:
    """Give a graph with an attention, a softmax over classes, and nodes that nothing connects."""
    nodes = [
        helper.make_node("MatMul", ["q", "k"], ["scores"], "qk"),
        helper.make_node("Add", ["scores", "bias"], ["biased"], "add"),
        helper.make_node("Softmax", ["biased"], ["p"], "softmax"),
        helper.make_node("MatMul", ["p", "v"], ["o"], "pv"),
        helper.make_node("Softmax", ["x"], ["probability"], "classes"),
    ]
    nodes += [helper.make_node(op, ["x"], [f"{name}.out"], name) for name, op in NODES.items()]
    port = helper.make_tensor_value_info("x", TensorProto.FLOAT, [1])
    return helper.make_model(helper.make_graph(nodes, "made", [port], [port]))


@pytest.fixture
def plan(model: onnx.ModelProto) -> Plan:
    return read_plan(LOG, model)


def test_kernels(plan: Plan) -> None:
    assert [kernel.name for kernel in plan.kernels] == [
        "_gemm_mha_v2",
        "conv_prelu",
        "int8",
        "cast",
        "__myl_Relu",
        "move",
    ]
    assert plan.kernels[1] == Kernel(
        "conv_prelu",
        "runtime_fusion",
        (PlanTensor("cat", (1, 4, 2, 2, 2), "Half", "(NDHWC) Channel major format"),),
        (PlanTensor("w", (4, 4, 3, 3, 3), "Half", "(NDHWC) Channel major format"),),
        (PlanTensor("a", (8,), "Half", "(NDHWC) Channel major format"),),
        "conv_prelu_0x1",
        ("conv0", "relu0"),
    )


def test_traffic_counts_a_tensor_once(plan: Plan) -> None:
    found = [kernel.traffic for kernel in plan.kernels]
    assert found == [2 * 1024, 64 + 864 + 16, 8 + 32, 32 + 8, 64 + 128, 12 + 8]
    assert plan.traffic == sum(found)


def test_attention_is_found_in_the_graph(model: onnx.ModelProto, plan: Plan) -> None:
    assert find_attentions(model) == (frozenset({"qk", "softmax", "pv"}),), "a softmax over classes is none"
    assert plan.fused_attentions == 1
    apart = read_plan([LOG[1].replace("[ONNX Layer: pv]", "")], model)
    assert (apart.fused_attentions, len(apart.attentions)) == (0, 1)


def test_attention_is_found_behind_casts(model: onnx.ModelProto) -> None:
    softmax, product = (node for node in model.graph.node if node.name in ("softmax", "pv"))
    model.graph.node.append(helper.make_node("Cast", ["p"], ["p.fp16"], "narrow", to=TensorProto.FLOAT16))
    product.input[0] = "p.fp16"
    model.graph.node.append(helper.make_node("Cast", ["biased"], ["biased.fp32"], "widen", to=TensorProto.FLOAT))
    softmax.input[0] = "biased.fp32"
    assert find_attentions(model) == (frozenset({"qk", "softmax", "pv"}),)


def test_prelus_on_their_own(plan: Plan) -> None:
    assert [kernel.name for kernel in plan.lone_prelus] == ["__myl_Relu"]


def test_precision_is_that_of_what_is_multiplied(plan: Plan) -> None:
    assert [kernel.precision for kernel in plan.kernels] == ["fp16", "fp16", "int8", "fp32", "fp16", "other"]
    assert plan.convolutions == {"conv0": "fp16", "conv1": "int8"}, "not that of the kernel that prepares it"
    assert plan.precisions("Relu") == {"relu0": "fp16", "relu1": "fp16"}


def test_explanation(plan: Plan) -> None:
    lines = list(plan.explain())
    assert lines[0] == "kernels: 6 (4 kgen, 1 runtime_fusion, 1 correlation)"
    assert lines[1] == "attention: 1 of 1 fused"
    assert lines[2] == "prelu: 1 alone, the others fused"
    assert lines[3] == "convolutions: 1 fp16, 1 int8"
    assert lines[5].startswith("traffic: 0.000 GB a tile")
    assert lines[6].endswith("_gemm_mha_v2")


def test_the_older_way_to_write_a_tensor(model: onnx.ModelProto) -> None:
    """TensorRT 8 to 10 write a place, and the type as part of the format."""
    old = (
        "Name: conv0, LayerType: CaskConvolution, Inputs: [ { Name: x, Location: Device, Dimensions: [1,2,4], "
        "Format/Datatype: Channel major FP16 format }], Outputs: [ { Name: y, Location: Device, Dimensions: [1,2,4], "
        "Format/Datatype: Half }], ParameterType: Convolution, Kernel: [3,3,3], TacticName: sm80_x, StreamId: 0, "
        "Metadata: [ONNX Layer: conv0]"
    )
    (kernel,) = read_plan([old], model).kernels
    assert kernel.inputs == (PlanTensor("x", (1, 2, 4), "Half"),)
    assert kernel.outputs == (PlanTensor("y", (1, 2, 4), "Half"),)
    assert (kernel.type, kernel.tactic, kernel.nodes) == ("CaskConvolution", "sm80_x", ("conv0",))
