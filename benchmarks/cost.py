"""What a network costs whatever computes it: parameters, and multiply-accumulate operations a voxel."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch.utils.flop_counter import FlopCounterMode

from rmr_training.models import Preset, RmrFusion


@dataclass(frozen=True, slots=True)
class Cost:
    """Cost of a network with its head.

    Attributes:
        parameters: How many.
        kmac_per_voxel: Thousands of multiply-accumulate operations of convolutions and matrix products, over the
            voxels of the tile.
    """

    parameters: int
    kmac_per_voxel: float


def measure_cost(preset: Preset) -> Cost:
    """Count what one inference tile of a preset costs; torch's own counter does, on tensors without data."""
    network = RmrFusion(preset).eval().to("meta")
    tile = torch.empty(1, 1, *preset.tile, device="meta")
    with FlopCounterMode(display=False) as counter, torch.inference_mode():
        network(tile, tile)
    parameters = sum(parameter.numel() for parameter in network.parameters())
    return Cost(parameters, counter.get_total_flops() / 2 / tile.numel() / 1000)
