"""The whole network in its export form: one static tile in, fused image and probabilities out.

Owns what is exchanged: the Swin transformers of the encoders and of MONAI heads, and the PReLUs. Everything else is
traced as it is.
"""

from __future__ import annotations

import copy
from typing import Any

import torch
from monai.networks.nets.swin_unetr import BasicLayer, SwinUNETR
from torch import Tensor, nn

from rmr_training.models import RmrFusion, probabilities
from rmr_training.models.swin import SwinTransformer, Triple

from .attention import RegionMasks
from .blocks import static_blocks
from .weights import BlockWeights


class ExportNetwork(nn.Module):
    """A network rewritten for one tile shape.

    Args:
        network: Left unchanged; its weights are copied.
        tile: (D, H, W) in voxels, multiples of what the network needs.
        split_prelus: Whether PReLUs are written as `SplitPReLU`; without it only to see what that is worth.

    Attributes:
        masks: Region tables, which the graph takes as inputs behind the contrasts.
    """

    def __init__(self, network: RmrFusion, tile: Triple, split_prelus: bool = True) -> None:
        super().__init__()
        self.masks = RegionMasks()
        self.network = copy.deepcopy(network).eval()
        shape = network.preset.encoder
        features = _divide(tile, shape.stride)
        parts: Any = self.network.autoencoder
        for encoder in (parts.encoder1, parts.encoder2):
            encoder.swinViT = StaticSwin(encoder.swinViT, _divide(features, shape.patch), self.masks)
        for module in list(self.network.modules()):
            if isinstance(module, SwinUNETR):
                _rewrite_swin_unetr(module, features, self.masks)
        if split_prelus:
            _rewrite_prelus(self.network)

    def forward(self, t1w: Tensor, flair: Tensor, *tables: Tensor) -> tuple[Tensor, ...]:
        """Map contrasts (1, 1, D, H, W) to the fused image and, with a head, probabilities (1, K, D, H, W).

        `tables` are those of `masks`, as inputs of the graph.
        """
        self.masks.bind(tables or tuple(self.masks.tables))
        fused = self.network(t1w, flair)
        return (fused.image,) if fused.logits is None else (fused.image, probabilities(fused.logits))


class StaticSwin(nn.Module):
    """The transformer of an encoder on a static grid of tokens."""

    def __init__(self, swin: SwinTransformer, grid: Triple, masks: RegionMasks) -> None:
        super().__init__()
        self.width, self.grid = swin.width, grid
        self.patch_embed = swin.patch_embed
        layers: Any = (swin.layers1[0], swin.layers2[0])
        self.blocks = static_blocks((BlockWeights.of(b) for layer in layers for b in layer.blocks), grid, masks)

    def forward(self, x: Tensor) -> Tensor:
        """Map features (1, C, D', H', W') to (1, width, D, H, W), the grid of tokens."""
        rows = self.patch_embed(x).reshape(self.width, -1).transpose(0, 1)
        rows = nn.functional.layer_norm(self.blocks(rows), (self.width,))
        return rows.transpose(0, 1).reshape(1, self.width, *self.grid)


class StaticLayer(nn.Module):
    """A layer of MONAI's Swin transformer on a static grid of tokens: blocks, then patch merging."""

    def __init__(self, layer: BasicLayer, grid: Triple, masks: RegionMasks) -> None:
        super().__init__()
        self.grid = grid
        self.blocks = static_blocks((BlockWeights.of(block) for block in layer.blocks), grid, masks)
        self.downsample = layer.downsample

    def forward(self, x: Tensor) -> Tensor:
        """Map (1, C, D, H, W) to (1, 2 C, D / 2, H / 2, W / 2)."""
        width = x.shape[1]
        rows = self.blocks(x.reshape(width, -1).transpose(0, 1))
        tokens = rows.reshape(1, *self.grid, width)
        if self.downsample is not None:
            tokens = self.downsample(tokens)
        return tokens.permute(0, 4, 1, 2, 3)


class SplitPReLU(nn.Module):
    """PReLU as Relu(x) - a * Relu(-x).

    TensorRT fuses this into the convolution before it, unlike a PReLU. OpenVINO knows this form, of the several that
    are equal, as a PReLU and fuses that.
    """

    def __init__(self, slope: Tensor) -> None:
        super().__init__()
        self.slope = nn.Parameter(slope.detach().reshape(1, -1, 1, 1, 1).clone())

    def forward(self, x: Tensor) -> Tensor:
        """Map (N, C, D, H, W) to the same shape."""
        return torch.relu(x) - self.slope * torch.relu(-x)


def _rewrite_swin_unetr(network: SwinUNETR, features: Triple, masks: RegionMasks) -> None:
    swin = network.swinViT
    grid = _divide(features, swin.patch_size[0])
    for layers in (swin.layers1, swin.layers2, swin.layers3, swin.layers4):
        layers[0] = StaticLayer(layers[0], grid, masks)
        grid = _divide(grid, 2)


def _rewrite_prelus(module: nn.Module) -> None:
    for name, child in module.named_children():
        if isinstance(child, nn.PReLU):
            setattr(module, name, SplitPReLU(child.weight))
        else:
            _rewrite_prelus(child)


def _divide(lengths: Triple, divisor: int) -> Triple:
    d, h, w = (-(-length // divisor) for length in lengths)
    return d, h, w
