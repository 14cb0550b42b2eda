"""The rewrites one after another, from what torch's exporter gives to what an engine is built from.

Every step is exact: its graph computes what the step before computes. What each is worth is seen in the plans of
engines built from all of them, which `rmr-export rewrites` prints.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import onnx
from torch import Tensor, nn

from rmr_training.models import RmrFusion, probabilities
from rmr_training.models.swin import Triple

from .device import PASSES, for_device
from .network import ExportNetwork
from .trace import trace, trace_rewritten

_TITLES = {
    "mask_padding": "padding zeroed by a factor, in place of a row of zeros",
    "pad_heads": "head width zero-padded to a multiple of 16",
    "upsample_by_convolution": "upsampling to few channels as a 1x1x1 convolution",
}


@dataclass(frozen=True, slots=True, eq=False)
class Step:
    """A graph with all rewrites up to one.

    Attributes:
        name: What the last of them does.
        model: In fp32. Tables with a default are promoted to inputs when an engine is built; before the
            step "mask from region numbers that are inputs" they are constants.
    """

    name: str
    model: onnx.ModelProto


def rewrite_steps(network: RmrFusion, tile: Triple) -> Iterator[Step]:
    """Apply the rewrites one by one.

    Args:
        network: Left unchanged.
        tile: (D, H, W) in voxels.

    Yields:
        "as torch gives it" first, and what `for_device(build_graph(network, tile))` gives last.

    Raises:
        ExportError: The network cannot be traced on such a tile.
    """
    # Not tidied up: masks of shifted windows, folded into the graph of `paper`, would be larger than a file may be.
    yield Step("as torch gives it", trace(_Plain(network).eval(), tile, {}, network.head is not None))
    whole_prelus = trace_rewritten(ExportNetwork(network, tile, split_prelus=False), tile)
    yield Step(
        "tokens moved by one Gather; position bias gathered once; scale in q, biases of k and v moved",
        _freeze_tables(whole_prelus),
    )
    model = trace_rewritten(ExportNetwork(network, tile), tile)
    yield Step("PReLU as Relu(x) - a * Relu(-x)", _freeze_tables(model))
    yield Step("mask from region numbers that are inputs", model)
    for number, apply in enumerate(PASSES, 1):
        yield Step(_TITLES[apply.__name__], for_device(model, PASSES[:number]))


class _Plain(nn.Module):
    """The network as it was trained, with the outputs of a bundle's graph."""

    def __init__(self, network: RmrFusion) -> None:
        super().__init__()
        self.network = network

    def forward(self, t1w: Tensor, flair: Tensor) -> tuple[Tensor, ...]:
        fused = self.network(t1w, flair)
        return (fused.image,) if fused.logits is None else (fused.image, probabilities(fused.logits))


def _freeze_tables(model: onnx.ModelProto) -> onnx.ModelProto:
    """Make tables with a default constants."""
    frozen = onnx.ModelProto()
    frozen.CopyFrom(model)
    tables = {tensor.name for tensor in model.graph.initializer}
    ports = [port for port in model.graph.input if port.name not in tables]
    del frozen.graph.input[:]
    frozen.graph.input.extend(ports)
    return frozen
