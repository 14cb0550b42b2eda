"""What is compared: small networks, and how each of them is trained.

Fused and direct arms differ in what the head sees, and in nothing else: the head of one seed starts from the same
weights in both, and both see the same patches in the same order.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any, Literal

import torch
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from rmr_training.models import EncoderShape, Preset, RmrFusion, build_head, check_head

Kind = Literal["autoencoder", "fused", "direct"]

CLAIMS = Preset(
    "claims",
    EncoderShape(
        stem=(8, 16),
        stride=2,
        width=24,
        patch=2,
        depths=(2, 2),
        heads=2,
        window=4,
        mlp_ratio=2.0,
        tail=16,
        features=16,
        decoder=8,
    ),
    growth=8,
    head=None,
    tile=(64, 64, 64),
)
"""A narrower `edge`. Its 16 features at half resolution are as many as 2x2x2 voxels of two contrasts."""

HEADS: dict[str, dict[str, Any]] = {
    "dynunet": {"filters": (16, 32, 48), "channels": 16},
    "unet": {"channels": (16, 32, 48), "num_res_units": 1},
    "segresnet": {"init_filters": 8, "blocks_down": (1, 2, 2), "blocks_up": (1, 1), "channels": 16},
}
LARGE_HEAD: dict[str, Any] = {"filters": (32, 64, 96), "channels": 32}
"""About as many operations a voxel as the whole fused network."""


@dataclass(frozen=True, slots=True)
class Arm:
    """One way to train one network.

    Attributes:
        name: Of its files and in the tables.
        kind: "autoencoder" is stage 1; "fused" is stage 2 on a trained autoencoder; "direct" is a head alone.
        about: What it is, for a reader.
        head: Name of the head.
        options: Of the head.
        constraints: Two-level constraints in stage 1; of a fused arm, in its autoencoder's.
        weights: Of the visual and the segmentation loss.
        both_budgets: Train for the steps of both stages.
        degraded: Measure it on degraded inputs too.
        control: No verdict rests on it; it is run last.
    """

    name: str
    kind: Kind
    about: str
    head: str | None = None
    options: dict[str, Any] | None = None
    constraints: bool = True
    weights: tuple[float, float] = (1.0, 1.0)
    both_budgets: bool = False
    degraded: bool = False
    control: bool = False

    @property
    def autoencoder(self) -> str | None:
        """Return the name of the arm whose autoencoder this one builds on."""
        if self.kind != "fused":
            return None
        return "autoencoder" if self.constraints else "autoencoder-plain"

    @property
    def segments(self) -> bool:
        """Tell whether its head is trained."""
        return self.head is not None and self.weights[1] > 0

    @property
    def fuses(self) -> bool:
        """Tell whether its fused image is trained."""
        return self.kind == "fused" and self.weights[0] > 0


def _pairs() -> list[Arm]:
    arms = []
    for head, options in HEADS.items():
        first = head == "dynunet"
        arms.append(Arm(f"fused-{head}", "fused", f"both stages, {head}", head, options, degraded=first))
        arms.append(Arm(f"direct-{head}", "direct", f"{head} fed T1 and FLAIR", head, options, degraded=first))
    return arms


def _variants() -> list[Arm]:
    dynunet = HEADS["dynunet"]
    fused = Arm("", "fused", "", "dynunet", dynunet)
    return [
        replace(fused, name="visual-only", about="stage 2 without the segmentation loss", weights=(1.0, 0.0)),
        replace(
            fused, name="segmentation-only", about="stage 2 without the visual loss", weights=(0.0, 1.0), control=True
        ),
        replace(
            fused,
            name="plain-dynunet",
            about="both stages, no constraints in stage 1",
            constraints=False,
            degraded=True,
        ),
        Arm(
            "direct-large",
            "direct",
            "a wider dynunet fed T1 and FLAIR, for the steps of both stages",
            "dynunet",
            LARGE_HEAD,
            both_budgets=True,
            control=True,
        ),
    ]


ARMS: tuple[Arm, ...] = (
    Arm("autoencoder", "autoencoder", "stage 1 with constraints on features and images"),
    Arm("autoencoder-plain", "autoencoder", "stage 1, reconstruction of clean images only", constraints=False),
    *_pairs(),
    *_variants(),
)
"""Autoencoders first: fused arms build on them. Controls last."""


class DirectNetwork(nn.Module):
    """A head fed the contrasts themselves on the grid that features live on.

    Each block of stride^3 voxels of both contrasts becomes the channels of one place, so nothing is lost and nothing
    is learnt before the head.
    """

    def __init__(self, head: nn.Module, stride: int) -> None:
        super().__init__()
        self.head, self.stride = head, stride

    def forward(self, t1w: Tensor, flair: Tensor) -> Tensor:
        """Score the classes of two contrasts (N, 1, D, H, W)."""
        return self.head(blocks_to_channels(torch.cat([t1w, flair], 1), self.stride))  # type: ignore[no-any-return]


def blocks_to_channels(x: Tensor, stride: int) -> Tensor:
    """Turn (N, C, D, H, W) into (N, C * stride^3, D / stride, H / stride, W / stride) without loss."""
    n, c, *sides = x.shape
    d, h, w = (side // stride for side in sides)
    x = x.view(n, c, d, stride, h, stride, w, stride).permute(0, 1, 3, 5, 7, 2, 4, 6)
    return x.reshape(n, c * stride**3, d, h, w)


def build(arm: Arm, seed: int) -> RmrFusion | DirectNetwork:
    """Build an arm's network; heads of the same shape start from the same weights whatever feeds them."""
    shape = CLAIMS.encoder
    head = None
    if arm.segments and arm.head is not None:
        torch.manual_seed(seed)
        head = build_head(arm.head, shape.features, len(CLAIMS.classes), shape.stride, arm.options)
        if arm.kind == "direct":
            return DirectNetwork(head, shape.stride)
    torch.manual_seed(seed + 1_000_000)
    network = RmrFusion(CLAIMS)
    network.head = head
    return network


def check(arm: Arm, network: RmrFusion | DirectNetwork, side: int) -> None:
    """Try the head of a network.

    Raises:
        ConfigError: It cannot be trained on patches of this side.
    """
    if network.head is not None:
        shape = CLAIMS.encoder
        check_head(network.head, str(arm.head), shape.features, len(CLAIMS.classes), shape.stride, (side, side, side))


def cost(arm: Arm) -> tuple[int, float]:
    """Return an arm's parameters and its kMAC a voxel, of all that it computes for its output."""
    network = build(arm, 0).eval()
    part: nn.Module = network.autoencoder if arm.kind == "autoencoder" else network  # type: ignore[assignment]
    tile = torch.zeros(1, 1, 32, 32, 32, device="meta")
    with FlopCounterMode(display=False) as counter, torch.inference_mode():
        part.to("meta")(tile, tile)
    return sum(p.numel() for p in part.parameters()), counter.get_total_flops() / 2 / tile.numel() / 1000
