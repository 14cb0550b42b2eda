"""Engines that TensorRT-RTX builds from real graphs: what they must fuse, and what their plans may cost at most.

The ceilings are in `plan_ceilings.json`. A plan that gets better lowers them in the same change; one that gets worse
says why.

Dense fusion is the one place where a PReLU stands alone: its four convolutions write into the buffer that they read
from, and TensorRT fuses no more than a ReLU where that is so. Buffers of their own would fuse it, and move more than
they save.
"""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import onnx
import onnx_graphsurgeon as gs
import pytest
import torch

pytest.importorskip("tensorrt_rtx", reason="TensorRT-RTX is not installed")

from rmr_export.engine import BuildOptions, Built, build_engine, engine_graph
from rmr_export.graph import build_graph
from rmr_export.graph.device import for_device
from rmr_export.plan import Plan
from rmr_export.precision.fp16 import to_fp16
from rmr_export.precision.int8 import chosen_layers, quantise
from rmr_sdk.bundle import Bundle
from rmr_sdk.engines.tensorrt_library import load_library
from rmr_training.models import RmrFusion, find_preset

CEILINGS = json.loads((Path(__file__).parent / "plan_ceilings.json").read_text())
TARGETS = (86, 120)


def build(model: onnx.ModelProto, targets: tuple[int, ...] = TARGETS) -> Built:
    return build_engine(model, load_library("tensorrt-rtx"), BuildOptions(targets=targets))


def paper_graph() -> onnx.ModelProto:
    """Export the paper preset with random weights on its own tile, as every export does, but without the proof."""
    torch.manual_seed(0)
    preset = replace(find_preset("paper"), head=None)
    return build_graph(RmrFusion(preset).eval(), preset.tile)


def make_paper() -> onnx.ModelProto:
    return to_fp16(for_device(paper_graph()))


@pytest.fixture(scope="module")
def shipped() -> onnx.ModelProto:
    return onnx.load_model_from_string(Bundle.open("ms-edge").graph("fp32"))


@pytest.fixture(scope="module")
def edge(shipped: onnx.ModelProto) -> Built:
    return build(to_fp16(for_device(shipped)))


@pytest.fixture(scope="module", params=["ms-edge", "paper"])
def fp16(request: pytest.FixtureRequest) -> tuple[str, Built]:
    name = f"{request.param} fp16"
    return name, request.getfixturevalue("edge") if request.param == "ms-edge" else build(make_paper())


def hold(name: str, built: Built) -> None:
    """Compare an engine with its ceilings."""
    plan, limit = built.plan, CEILINGS[name]
    assert plan.fused_attentions == len(plan.attentions) == limit["attentions"]
    assert len(plan.kernels) <= limit["kernels"]
    assert plan.traffic <= limit["traffic_mb"] * 1e6
    assert len(plan.lone_prelus) <= limit["lone_prelus"]
    assert len(built.engine) <= limit["engine_mb"] * 1e6


def dense_convolutions(plan: Plan) -> set[str]:
    """Give the convolutions that read the buffer which another kernel of theirs writes to."""
    found = set()
    for kernel in plan.kernels:
        read = {tensor.name for tensor in kernel.inputs}
        for lone in plan.lone_prelus:
            makes = {tensor.name for tensor in kernel.outputs} & {tensor.name for tensor in lone.inputs}
            if makes and read & {tensor.name for tensor in lone.outputs}:
                found.add(lone.name)
    return found


def test_fp16_plans(fp16: tuple[str, Built]) -> None:
    name, built = fp16
    hold(name, built)
    plan = built.plan
    assert set(plan.convolutions.values()) == {"fp16"}
    assert len(plan.convolutions) == sum(op in ("Conv", "ConvTranspose") for op in plan.operators.values())
    assert set(plan.precisions("MatMul").values()) == {"fp16"}
    assert {kernel.name for kernel in plan.lone_prelus} == dense_convolutions(plan)


def test_the_targets_of_the_paper_preset() -> None:
    limit = CEILINGS["paper fp16"]
    assert limit["kernels"] <= 157
    assert limit["traffic_mb"] <= 7700


def test_the_same_graph_gives_the_same_engine(shipped: onnx.ModelProto, edge: Built) -> None:
    """Of two outputs TensorRT-RTX lists either first, and nothing else differs; of one there is one way."""
    again = build(to_fp16(for_device(shipped)))
    assert again.plan.kernels == edge.plan.kernels
    assert len(again.engine) == len(edge.engine)
    fusion = for_device(shipped, (drop_probability,))
    assert len({build(to_fp16(fusion), (86,)).engine for _ in range(3)}) == 1


def drop_probability(graph: gs.Graph) -> None:
    """Leave the fused image as the only output."""
    graph.outputs = [tensor for tensor in graph.outputs if tensor.name == "fused"]


def test_one_engine_serves_several_gpus(shipped: onnx.ModelProto, edge: Built) -> None:
    alone = build(to_fp16(for_device(shipped)), (86,))
    assert [kernel.name for kernel in alone.plan.kernels] == [kernel.name for kernel in edge.plan.kernels]
    assert len(edge.engine) <= 1.01 * len(alone.engine)


def test_attention_is_fused_in_fp16_only(shipped: onnx.ModelProto) -> None:
    plan = build(for_device(shipped), (86,)).plan
    assert (plan.fused_attentions, len(plan.attentions)) == (0, 8)
    assert set(plan.convolutions.values()) == {"fp32"}


@pytest.mark.parametrize(("name", "quantised_convolutions"), [("ms-edge", 35), ("paper", 21)])
def test_int8_where_it_is_promised(name: str, quantised_convolutions: int, request: pytest.FixtureRequest) -> None:
    """Every layer is quantised; plans do not depend on the ranges."""
    graph = request.getfixturevalue("shipped") if name == "ms-edge" else paper_graph()
    model = quantise(graph, {layer.activation: 1.0 for layer in chosen_layers(graph, ())})
    built = build(to_fp16(for_device(model)))
    hold(f"{name} int8", built)
    quantised = {node.output[0] for node in model.graph.node if node.op_type == "DequantizeLinear"}
    promised = {node.name for node in model.graph.node if node.op_type == "Conv" and node.input[0] in quantised}
    assert len(promised) == quantised_convolutions
    assert {built.plan.convolutions[name] for name in promised} == {"int8"}
    rest = {name: found for name, found in built.plan.convolutions.items() if name not in promised}
    assert set(rest.values()) == {"fp16"}


def test_graph_of_a_bundle() -> None:
    bundle = Bundle.open("ms-edge")
    model = engine_graph(bundle, "fp32")
    assert not any(node.name == "node_convolution_2" for node in model.graph.node), "rewritten for GPUs"
