"""Validation on synthetic patches of lesion donors that training does not see: what chooses the best checkpoint."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from .data import LabelMap, Patches
from .losses import reconstruction
from .models import RmrFusion
from .objectives import autocast
from .recipe import Recipe
from .synthesis import Ranges

VALIDATION_SEED = 900_001
"""Seed of the patches: the same for every run, so that runs can be compared."""


@dataclass(frozen=True, slots=True)
class Validation:
    """Figures of one validation.

    Attributes:
        dice: Dice of each class but the background over all patches together; empty in stage 1.
        score: What is maximised: the mean of `dice`, or minus the reconstruction loss in stage 1.
    """

    dice: tuple[float, ...]
    score: float


def validate(
    network: RmrFusion,
    maps: Sequence[LabelMap],
    recipe: Recipe,
    device: torch.device,
    ranges: Ranges | None = None,
) -> Validation:
    """Assess a network on the patches that `VALIDATION_SEED` gives.

    Args:
        network: Assessed in evaluation mode.
        maps: Label maps of held-out donors.
        recipe: Its stage, patch side and number of patches count.
        device: Where the network is.
        ranges: How far the patches vary.
    """
    stream = Patches(maps, recipe.side, VALIDATION_SEED, ranges=ranges)
    network.eval()
    overlap = torch.zeros(3, len(network.preset.classes))
    losses = []
    with torch.inference_mode():
        for index in range(recipe.validation_patches):
            t1w, flair, labels = (x[None].to(device) for x in stream.sample(index))
            with autocast(device, recipe.amp):
                if recipe.stage == "autoencoder":
                    images = network.autoencoder(t1w, flair)
                    losses += [float(reconstruction(i.float(), x)) for i, x in zip(images, (t1w, flair), strict=True)]
                else:
                    overlap += _counts(network, t1w, flair, labels)
    network.train()
    if losses:
        return Validation((), -sum(losses) / len(losses))
    both, predicted, true = overlap[:, 1:]
    dice = (2 * both / (predicted + true).clamp(min=1)).tolist()
    return Validation(tuple(dice), sum(dice) / len(dice))


def _counts(network: RmrFusion, t1w: Tensor, flair: Tensor, labels: Tensor) -> Tensor:
    """Count voxels in both, in the prediction and in the truth, by class."""
    fused = network.fuse(t1w, flair)
    predicted = network.head(fused).argmax(1) if network.head is not None else torch.zeros_like(labels)
    classes = range(len(network.preset.classes))
    counts = [[((predicted == c) & (labels == c)).sum(), (predicted == c).sum(), (labels == c).sum()] for c in classes]
    return torch.tensor(counts).T.float()
