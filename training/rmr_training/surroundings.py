"""What surrounds the brain in a scan that was not stripped: fluid, skull, fat, scalp, face and neck, air.

The textures are abstract; what a network must learn from them is that bright things outside the brain are no lesions.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from .sampling import Draw

Pair = tuple[Tensor, Tensor]


def head_shell(draw: Draw, brain: Tensor) -> Pair:
    """Draw the intensities (1, 1, D, H, W) outside a brain mask of that shape, on T1 and on FLAIR."""
    images = (torch.zeros_like(brain), torch.zeros_like(brain))
    skull = _add_layers(draw, brain, images)
    if draw.chance(0.7):
        _add_clutter(draw, 1 - skull, images)
    return images


def _add_layers(draw: Draw, brain: Tensor, images: Pair) -> Tensor:
    """Paint fluid, skull, fat and skin around the brain; return what is covered."""
    layers = [
        (draw.integer(1, 3), (draw.uniform(0.05, 0.3), draw.uniform(0.02, 0.3))),
        (draw.integer(2, 4), (draw.uniform(0.02, 0.2), draw.uniform(0.02, 0.2))),
        (draw.integer(0, 2), (draw.uniform(0.3, 1.2), draw.uniform(0.2, 1.0))),
        (draw.integer(2, 5), (draw.uniform(0.5, 1.6), draw.uniform(0.3, 1.3))),
    ]
    ragged = (1 + 0.4 * draw.field(brain.shape[2:], 8)).clamp(0.2, 2.0)
    grown = brain
    for thickness, intensities in layers:
        outer = grown
        for _ in range(thickness):
            outer = F.max_pool3d(outer, 3, 1, 1)
        for image, intensity in zip(images, intensities, strict=True):
            image += (outer - grown) * intensity * ragged
        grown = outer
    return grown


def _add_clutter(draw: Draw, outside: Tensor, images: Pair) -> None:
    """Fill part of the outside with blobs of muscle, fat, fluid and air of random brightness."""
    shape = outside.shape[2:]
    region = outside * (draw.field(shape, 3) > draw.uniform(-0.5, 0.8))
    for knots, share in ((6, 2.0), (12, 0.8), (20, 0.6)):
        blobs = region * (draw.field(shape, knots) > 0.6)
        for image, highest in zip(images, (1.4, 1.2), strict=True):
            image += blobs * draw.uniform(0.0, highest) * share / 2
    base = (draw.uniform(0.1, 0.6), draw.uniform(0.05, 0.5))
    for image, level in zip(images, base, strict=True):
        image += region * level


def remnants(draw: Draw, brain: Tensor) -> Pair:
    """Draw what imperfect stripping leaves: patches of dura, vessels and bone at the rim of the brain mask."""
    rim = F.max_pool3d(brain, 3, 1, 1)
    if draw.chance(0.4):
        rim = F.max_pool3d(rim, 3, 1, 1)
    place = (rim - brain) * (draw.field(brain.shape[2:], 10) > draw.uniform(-0.5, 1.0))
    return place * draw.uniform(0.1, 1.2), place * draw.uniform(0.1, 1.1)
