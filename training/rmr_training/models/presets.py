"""The whole network, and the presets it comes in: `paper` (exact) and the `edge` family (ours)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, replace
from typing import Any, NamedTuple

import msgspec
import torch
from torch import Tensor, nn

from rmr_sdk.errors import ConfigError

from .autoencoder import DualSwinAE, EncoderShape
from .fusion import FusionNet
from .heads import build_head

CLASSES = ("background", "csf", "grey_matter", "white_matter", "lesion")


@dataclass(frozen=True, slots=True)
class Preset:
    """Everything that fixes the shape of a network.

    Attributes:
        name: One of `PRESETS`, or the caller's own.
        encoder: Shape of both encoders and of the decoder.
        growth: Channels that each dense layer of the fusion network adds.
        head: Name of the segmentation head, or None.
        head_options: Keyword arguments of the head.
        classes: Class names, background first.
        tile: Inference tile (D, H, W) that the shape was chosen for.
    """

    name: str
    encoder: EncoderShape
    growth: int = 16
    head: str | None = "swin_unetr"
    head_options: Mapping[str, Any] = field(default_factory=dict)
    classes: tuple[str, ...] = CLASSES
    tile: tuple[int, int, int] = (32, 128, 128)

    def to_metadata(self) -> dict[str, Any]:
        """Return the preset as plain values, as checkpoints keep it."""
        return {**asdict(self), "head_options": dict(self.head_options)}

    @classmethod
    def from_metadata(cls, metadata: Mapping[str, Any]) -> Preset:
        """Build a preset from what `to_metadata` gave."""
        return msgspec.convert(dict(metadata), cls)


def _edge(name: str, encoder: EncoderShape, filters: tuple[int, int, int, int]) -> Preset:
    """Make a preset of the edge family: dense fusion as wide as the features, and a DynUNet on them."""
    options = {"filters": filters, "channels": filters[0]}
    return Preset(name, encoder, encoder.features, "dynunet", options, tile=(96, 112, 96))


# What the members of the edge family share, and why: docs/decisions/0001-edge-shape.md.
_EDGE = EncoderShape(
    stem=(16, 32),
    stride=2,
    width=48,
    patch=2,
    depths=(2, 2),
    heads=3,
    window=4,
    mlp_ratio=2.0,
    tail=16,
    features=16,
    decoder=16,
    mask_padding=True,
)
_SMALL = replace(_EDGE, stem=(8, 16), width=32, heads=2, features=8, decoder=8)
_LARGE = replace(_EDGE, stem=(24, 48), width=80, heads=5, tail=24, features=24, decoder=24)

PRESETS: dict[str, Preset] = {
    "paper": Preset("paper", EncoderShape()),
    "edge": _edge("edge", _EDGE, (32, 48, 64, 80)),
    # A third of the operations of `edge`, and two and a half times as many: what `edge` was chosen between.
    "edge-small": _edge("edge-small", _SMALL, (16, 32, 48, 64)),
    "edge-large": _edge("edge-large", _LARGE, (56, 80, 96, 128)),
}


def find_preset(name: str) -> Preset:
    """Look up a preset.

    Raises:
        ConfigError: There is no preset of that name.
    """
    if name not in PRESETS:
        raise ConfigError(f"unknown preset {name!r} (known: {', '.join(PRESETS)}).", "Name one of them.", preset=name)
    return PRESETS[name]


class Fused(NamedTuple):
    """What the network gives: the fused image (N, 1, D, H, W) and class scores (N, K, D, H, W), or None."""

    image: Tensor
    logits: Tensor | None


class RmrFusion(nn.Module):
    """Autoencoder, fusion network and segmentation head as one network.

    Args:
        preset: The shape to build.
    """

    def __init__(self, preset: Preset) -> None:
        super().__init__()
        self.preset = preset
        self.autoencoder = DualSwinAE(preset.encoder)
        self.fusion = FusionNet(preset.encoder.features, preset.growth)
        self.head: nn.Module | None = None
        if preset.head is not None:
            self.head = build_head(
                preset.head,
                preset.encoder.features,
                len(preset.classes),
                preset.encoder.stride,
                preset.head_options,
            )

    def fuse(self, t1w: Tensor, flair: Tensor) -> Tensor:
        """Return the fused features of two contrasts (N, 1, D, H, W)."""
        return self.fusion(self.autoencoder.encoder1(t1w), self.autoencoder.encoder2(flair))  # type: ignore[no-any-return]

    def forward(self, t1w: Tensor, flair: Tensor) -> Fused:
        """Fuse two contrasts (N, 1, D, H, W) and score the classes of each voxel."""
        features = self.fuse(t1w, flair)
        return Fused(self.autoencoder.decoder(features), None if self.head is None else self.head(features))


def probabilities(logits: Tensor) -> Tensor:
    """Turn class scores (N, K, D, H, W) into probabilities."""
    return torch.softmax(logits, 1)
