"""The export form and its graph: the same numbers as the network, and nothing in it that engines dislike."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from dataclasses import replace

import numpy as np
import onnx
import pytest
import torch
from networks import PAPER_LIKE, SWIN_HEAD, TINY, make_network
from onnx import numpy_helper

from rmr_export import ExportError, parity
from rmr_export.graph import build_graph
from rmr_export.graph.network import ExportNetwork
from rmr_export.parity import prove, random_tile, torch_runner
from rmr_training.models import Preset, RmrFusion, find_preset


@pytest.fixture(scope="module")
def graph_of() -> Callable[[Preset], tuple[RmrFusion, onnx.ModelProto]]:
    """Give a function that exports the network of a preset once."""
    made: dict[str, tuple[RmrFusion, onnx.ModelProto]] = {}

    def export(preset: Preset) -> tuple[RmrFusion, onnx.ModelProto]:
        if preset.name not in made:
            network = make_network(preset)
            made[preset.name] = network, build_graph(network, preset.tile)
        return made[preset.name]

    return export


@pytest.mark.parametrize(
    ("preset", "tile"),
    [
        (TINY, (16, 16, 24)),
        (replace(TINY, head=None), (8, 8, 8)),  # one window an axis: no shift
        (PAPER_LIKE, (10, 14, 18)),  # padding along two axes
        (PAPER_LIKE, (12, 12, 18)),  # no padding
        (PAPER_LIKE, (4, 14, 18)),  # depth shorter than the window
        (SWIN_HEAD, (32, 32, 64)),
    ],
)
def test_the_export_form_computes_the_same(preset: Preset, tile: tuple[int, int, int]) -> None:
    network = make_network(preset)
    inputs = random_tile(tile)
    wanted = torch_runner(network)(inputs)
    with torch.inference_mode():
        found = ExportNetwork(network, tile).eval()(*(torch.from_numpy(array) for array in inputs.values()))
    for tensor, array in zip(found, wanted.values(), strict=True):
        np.testing.assert_allclose(tensor.numpy(), array, atol=2e-5)


def test_large_scores_may_round_but_no_more(
    graph_of: Callable[..., tuple[RmrFusion, onnx.ModelProto]], monkeypatch: pytest.MonkeyPatch
) -> None:
    network, graph = graph_of(TINY)
    inputs = random_tile(TINY.tile)
    tiles = {"random": (inputs, torch_runner(network)(inputs))}
    monkeypatch.setattr(parity, "LIMIT", 1e-9)  # below what any engine's float32 can hold
    with pytest.raises(ExportError, match=r"on the random tile \(limit 1e-09\)"):
        prove(graph, tiles)
    found = prove(graph, tiles, network)
    assert all(1e-9 < each.maximum < 1e-5 for each in found)
    wrong = {name: array + np.float32(1e-3) for name, array in tiles["random"][1].items()}
    monkeypatch.setattr(parity, "exact_runner", lambda network: lambda inputs: tiles["random"][1])
    monkeypatch.setattr(parity, "ROUNDINGS", 0.5)
    with pytest.raises(ExportError, match=r"openvino differs from torch by 0\.001"):
        prove(graph, {"random": (inputs, wrong)}, network)


@pytest.mark.parametrize("preset", [TINY, PAPER_LIKE], ids=lambda preset: preset.name)
def test_engines_compute_the_same(preset: Preset, graph_of: Callable[..., tuple[RmrFusion, onnx.ModelProto]]) -> None:
    network, graph = graph_of(preset)
    inputs = random_tile(preset.tile)
    differences = prove(graph, {"random": (inputs, torch_runner(network)(inputs))})
    assert {difference.engine for difference in differences} == {"openvino", "onnxruntime"}
    assert max(difference.maximum for difference in differences) < 2e-5


def test_the_network_is_left_unchanged() -> None:
    network = make_network(TINY)
    before = {name: tensor.clone() for name, tensor in network.state_dict().items()}
    ExportNetwork(network, TINY.tile)
    after = network.state_dict()
    assert list(before) == list(after)
    assert all(torch.equal(before[name], after[name]) for name in before)


def test_interface(graph_of: Callable[..., tuple[RmrFusion, onnx.ModelProto]]) -> None:
    _, model = graph_of(TINY)
    inputs = {port.name: [d.dim_value for d in port.type.tensor_type.shape.dim] for port in model.graph.input}
    outputs = {port.name: [d.dim_value for d in port.type.tensor_type.shape.dim] for port in model.graph.output}
    assert list(inputs) == ["t1w", "flair", "regions_0"]
    assert inputs["t1w"] == inputs["flair"] == [1, 1, *TINY.tile]
    assert outputs == {"fused": [1, 1, *TINY.tile], "probability": [1, 5, *TINY.tile]}
    _, without = graph_of(PAPER_LIKE)
    assert [port.name for port in without.graph.output] == ["fused"]


def test_region_tables_have_a_default(graph_of: Callable[..., tuple[RmrFusion, onnx.ModelProto]]) -> None:
    _, model = graph_of(TINY)
    table = next(t for t in model.graph.initializer if t.name == "regions_0")
    assert table.data_type == onnx.TensorProto.INT32
    assert len(np.unique(numpy_helper.to_array(table))) == 8


def test_the_graph_is_clean(graph_of: Callable[..., tuple[RmrFusion, onnx.ModelProto]]) -> None:
    for preset in (TINY, PAPER_LIKE):
        _, model = graph_of(preset)
        operators = Counter(node.op_type for node in model.graph.node)
        assert not operators.keys() & {"Identity", "Constant", "PRelu", "Pad", "Slice", "ScatterND", "Shape", "Cast"}
        assert operators["Where"] == 1, "one mask for all shifted blocks"
        for node in model.graph.node:
            assert not node.doc_string
            assert not node.metadata_props, "the exporter notes paths of the machine there"
        indices = [node.input[1] for node in model.graph.node if node.op_type == "Gather"]
        types = {t.name: t.data_type for t in model.graph.initializer}
        assert {types[name] for name in indices} == {onnx.TensorProto.INT32}


def test_unpadded_blocks_share_one_gather_between_them(
    graph_of: Callable[..., tuple[RmrFusion, onnx.ModelProto]],
) -> None:
    _, model = graph_of(TINY)
    operators = Counter(node.op_type for node in model.graph.node)
    assert operators["Gather"] == 2 * 5, "in, between four blocks, and out, for two encoders"
    assert operators["Concat"] == 1 + 4 + 2, "both contrasts, dense fusion, skips of the head: none in the encoders"


def test_node_ceiling_of_the_paper_encoder() -> None:
    preset = replace(find_preset("paper"), head=None)
    model = build_graph(RmrFusion(preset), (16, 32, 32))
    prelu, concatenations = 5, 5
    fusion_and_decoder = (6 + 4) * (1 + prelu) + concatenations + 1
    assert (len(model.graph.node) - fusion_and_decoder) / 2 <= 210
