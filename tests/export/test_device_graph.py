"""Rewrites for GPUs, each alone: it changes what it names, computes the same on a random tile, and is done once."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from dataclasses import replace

import numpy as np
import onnx
import onnx_graphsurgeon as gs
import pytest
from networks import PAPER_LIKE, SWIN_HEAD, TINY, make_network
from onnx import numpy_helper

from rmr_export.graph import build_graph
from rmr_export.graph.device import for_device, mask_padding, pad_heads, upsample_by_convolution
from rmr_export.graph.steps import rewrite_steps
from rmr_export.parity import _open_openvino, random_tile, torch_runner
from rmr_export.plan import find_attentions
from rmr_export.precision.calibration import calibrate
from rmr_export.precision.fp16 import to_fp16
from rmr_export.precision.int8 import quantise
from rmr_export.precision.runners import openvino_runner
from rmr_training.models import Preset

Pass = Callable[[gs.Graph], None]


@pytest.fixture(scope="module")
def graph_of() -> Callable[[Preset], onnx.ModelProto]:
    """Give a function that exports the network of a preset once."""
    made: dict[str, onnx.ModelProto] = {}

    def export(preset: Preset) -> onnx.ModelProto:
        key = f"{preset.name} {preset.head}"
        if key not in made:
            made[key] = build_graph(make_network(preset), preset.tile)
        return made[key]

    return export


def same(before: onnx.ModelProto, after: onnx.ModelProto, tile: tuple[int, int, int]) -> None:
    """Compute both graphs on a random tile."""
    onnx.checker.check_model(after, full_check=True)
    assert [port.name for port in before.graph.input] == [port.name for port in after.graph.input]
    inputs = random_tile(tile)
    wanted, found = (_open_openvino(model.SerializeToString())(inputs) for model in (before, after))
    assert max(float(array.std()) for array in wanted.values()) > 1e-3, "the tile shows something"
    for name, array in wanted.items():
        np.testing.assert_allclose(found[name], array, atol=2e-6)


def operators(model: onnx.ModelProto) -> Counter[str]:
    return Counter(node.op_type for node in model.graph.node)


def head_widths(model: onnx.ModelProto) -> set[int]:
    """Read the length of the products inside attention off the shapes."""
    shapes = {info.name: [d.dim_value for d in info.type.tensor_type.shape.dim] for info in model.graph.value_info}
    products = {name for names in find_attentions(model) for name in names}
    scores = [node for node in model.graph.node if node.name in products and node.op_type == "MatMul"]
    return {shapes[node.input[1]][3] for node in scores if shapes[node.input[1]][2] == shapes[node.output[0]][2]}


@pytest.mark.parametrize("preset", [PAPER_LIKE, SWIN_HEAD], ids=["padded", "swin-unetr"])
def test_pad_heads(preset: Preset, graph_of: Callable[[Preset], onnx.ModelProto]) -> None:
    model = graph_of(preset)
    padded = for_device(model, (pad_heads,))
    same(model, padded, preset.tile)
    assert len(find_attentions(model)) == len(find_attentions(padded)) > 4
    assert max(head_widths(model)) < 9
    assert head_widths(padded) == {16}


def test_wide_heads_stay(graph_of: Callable[[Preset], onnx.ModelProto]) -> None:
    wide = replace(TINY, name="wide", encoder=replace(TINY.encoder, width=32), head=None, tile=(8, 8, 16))
    model = graph_of(wide)
    assert head_widths(model) == {16}
    assert operators(for_device(model, (pad_heads,))) == operators(model)
    assert head_widths(for_device(model, (pad_heads,))) == {16}


def test_mask_padding(graph_of: Callable[[Preset], onnx.ModelProto]) -> None:
    model = graph_of(PAPER_LIKE)
    masked = for_device(model, (mask_padding,))
    same(model, masked, PAPER_LIKE.tile)
    blocks = len(find_attentions(model))
    assert operators(model)["Concat"] - operators(masked)["Concat"] == blocks
    assert operators(masked)["Mul"] - operators(model)["Mul"] == blocks


def test_upsample_by_convolution(graph_of: Callable[[Preset], onnx.ModelProto]) -> None:
    model = graph_of(TINY)
    changed = for_device(model, (upsample_by_convolution,))
    same(model, changed, TINY.tile)
    narrow = [node.name for node in model.graph.node if node.op_type == "ConvTranspose" and outputs(model, node) < 8]
    assert narrow
    assert operators(model)["ConvTranspose"] - operators(changed)["ConvTranspose"] == len(narrow)


def outputs(model: onnx.ModelProto, node: onnx.NodeProto) -> int:
    weight = next(tensor for tensor in model.graph.initializer if tensor.name == node.input[1])
    return int(numpy_helper.to_array(weight).shape[1])


@pytest.mark.parametrize("change", ["stride", "padding", "group"])
def test_other_transposed_convolutions_stay(change: str, graph_of: Callable[[Preset], onnx.ModelProto]) -> None:
    model = onnx.ModelProto()
    model.CopyFrom(graph_of(TINY))
    for node in model.graph.node:
        if node.op_type == "ConvTranspose":
            values = {"stride": ("strides", [1, 1, 1]), "padding": ("pads", [1] * 6), "group": ("group", 2)}
            name, value = values[change]
            kept = [attribute for attribute in node.attribute if attribute.name != name]
            del node.attribute[:]
            node.attribute.extend([*kept, onnx.helper.make_attribute(name, value)])
    graph = gs.import_onnx(model)
    upsample_by_convolution(graph)
    assert sum(node.op == "ConvTranspose" for node in graph.nodes) == operators(model)["ConvTranspose"]


@pytest.mark.parametrize("preset", [TINY, PAPER_LIKE], ids=lambda preset: preset.name)
def test_a_second_time_changes_nothing(preset: Preset, graph_of: Callable[[Preset], onnx.ModelProto]) -> None:
    once = for_device(graph_of(preset))
    assert for_device(once).SerializeToString() == once.SerializeToString()


@pytest.mark.parametrize("preset", [PAPER_LIKE, SWIN_HEAD], ids=["padded", "swin-unetr"])
def test_it_looks_behind_what_quantises(preset: Preset, graph_of: Callable[[Preset], onnx.ModelProto]) -> None:
    model, inputs = graph_of(preset), random_tile(preset.tile)
    before = quantise(model, calibrate(model, [("noise", inputs)]).ranges())
    after = for_device(before)
    onnx.checker.check_model(after, full_check=True)
    assert operators(after)["QuantizeLinear"] == operators(before)["QuantizeLinear"]
    assert operators(after)["Concat"] < operators(before)["Concat"]
    assert max(head_widths(before)) < 9
    assert head_widths(after) == {16}
    exact, wanted, found = (openvino_runner(graph, "f32")(inputs) for graph in (model, before, after))
    for name, array in wanted.items():
        # A sum that another order rounds may fall into the next of 255 steps: far rarer than what int8 costs at all.
        assert np.abs(found[name] - array).mean() < 0.05 * np.abs(exact[name] - array).mean()


def test_it_works_on_an_fp16_graph(graph_of: Callable[[Preset], onnx.ModelProto]) -> None:
    model = graph_of(PAPER_LIKE)
    before, after = for_device(to_fp16(model)), to_fp16(for_device(model))
    onnx.checker.check_model(before, full_check=True)
    assert operators(before) == operators(after)


def test_every_step_computes_the_same() -> None:
    preset = PAPER_LIKE
    network = make_network(preset)
    inputs = random_tile(preset.tile)
    wanted = torch_runner(network)(inputs)
    steps = list(rewrite_steps(network, preset.tile))
    assert len({step.name for step in steps}) == len(steps) == 7
    assert operators(steps[0].model)["PRelu"] == operators(steps[1].model)["PRelu"] > 0
    assert "regions_0" not in [port.name for port in steps[2].model.graph.input]
    assert "regions_0" in [port.name for port in steps[3].model.graph.input]
    for step in steps:
        found = _open_openvino(step.model.SerializeToString())(inputs)
        for name, array in wanted.items():
            np.testing.assert_allclose(found[name], array, atol=2e-5, err_msg=step.name)
