"""Small networks of every kind that the exporter must take, with weights that make each rewrite matter."""

from __future__ import annotations

from dataclasses import replace

import torch
from torch import nn

from rmr_export.checkpoint import Source
from rmr_sdk.manifest import Robust
from rmr_training.models import EncoderShape, Preset, RmrFusion

TINY = Preset(
    "tiny",
    EncoderShape(stem=(4, 8), stride=2, width=16, depths=(2, 2), heads=2, window=2, tail=4, features=4, decoder=4),
    growth=4,
    head="dynunet",
    head_options={"filters": (4, 8, 8), "channels": 4},
    tile=(16, 16, 24),
)
"""Like `edge`: features at half the resolution, and windows that need no padding."""

PAPER_LIKE = Preset(
    "paper-like",
    EncoderShape(stem=(4, 8), width=12, depths=(3, 3), heads=2, window=3, tail=4, features=4, decoder=4),
    growth=4,
    head=None,
    tile=(10, 14, 18),
)
"""Like `paper`: features at full resolution; on its tile, windows are padded along two of the three axes."""

SWIN_HEAD = replace(
    PAPER_LIKE, head="swin_unetr", head_options={"feature_size": 12, "depths": (2, 2, 1, 1)}, tile=(32, 32, 64)
)


def make_network(preset: Preset) -> RmrFusion:
    """Build a network whose biases, norms and slopes are far from the values that they start at."""
    torch.manual_seed(0)
    network = RmrFusion(preset).eval()
    for name, parameter in network.named_parameters():
        if name.endswith("bias_table"):
            nn.init.normal_(parameter, std=0.5)
        elif name.endswith(("qkv.weight", "qkv.bias", "proj.bias")):
            nn.init.normal_(parameter, std=0.3)
        elif parameter.ndim == 1 and not name.endswith("bias"):
            nn.init.uniform_(parameter, 0.2, 1.2)
    return network


def make_source(network: RmrFusion) -> Source:
    """Say of a network what a checkpoint of ours would say."""
    return Source(network, Robust(), "SAR", (1.0, 1.0, 1.0), 0.25, "Random weights, for a test.")
