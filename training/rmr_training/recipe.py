"""The recipe of a stage: every number that decides its outcome."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

from rmr_sdk.errors import ConfigError

Stage = Literal["autoencoder", "joint"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Recipe:
    """Everything that decides the outcome of one stage.

    What departs from the authors' recipe has a field whose comment says so; their values are in docs/training.md.

    Attributes:
        stage: "autoencoder" or "joint".
        steps: Optimiser steps in all.
        warmup: Steps of linear warm-up from 0; after it the rate follows a cosine to 0.
        rate: Peak learning rate.
        weight_decay: Weight decay of AdamW.
        batch: Patches a step and process.
        side: Side of a patch in voxels.
        seed: Seed of weights, samples and degradations.
        amp: Compute in bfloat16 where torch deems it safe.
        clip: Largest norm of the gradient.
        ema: Decay of the weight average.
        degraded: Degraded versions of each image a step in stage 1, drawn from the three without return; their terms
            are scaled to stand for all three. 3 is the authors' way, 1 costs half of it.
        constraints: Two-level constraints in stage 1; without them only clean images are reconstructed.
        real_share: Share of patches that are cut from real studies, where there are any.
        whole_heads_share: Part of these that are cut from heads without a lesion mask, where there are any.
        degrade_inputs: Probability that an input of stage 2 is degraded while its targets stay clean; 0 is the
            authors' way.
        visual: Weight of the visual loss; 1 is the authors' loss.
        segmentation: Weight of the segmentation loss; 1 is the authors' loss.
        cross_entropy: Weight of the cross-entropy beside Dice; 0 is the authors' loss.
        batch_dice: Dice over the batch rather than per patch; False is the authors' loss.
        train_autoencoder: Train the autoencoder in the joint stage too (fine-tuning); False is the authors' way.
        workers: Processes that make samples.
        log_every: Steps between lines of the log.
        checkpoint_every: Steps between checkpoints.
        keep: Averaged weights of the last so many checkpoints are kept as `model-STEP.pth`, to see how stable they are.
        validate_every: Steps between validations that choose `best.pth`; 0 for none.
        validation_patches: Synthetic patches of held-out donors that a validation looks at.
    """

    stage: Stage
    steps: int
    warmup: int = 50
    rate: float = 1e-3
    weight_decay: float = 1e-5
    batch: int = 2
    side: int = 64
    seed: int = 0
    amp: bool = True
    clip: float = 5.0
    ema: float = 0.995
    degraded: int = 3
    constraints: bool = True
    real_share: float = 0.3
    whole_heads_share: float = 0.4
    degrade_inputs: float = 0.0
    visual: float = 1.0
    segmentation: float = 1.0
    cross_entropy: float = 4.0
    batch_dice: bool = True
    train_autoencoder: bool = False
    workers: int = 1
    log_every: int = 20
    checkpoint_every: int = 100
    keep: int = 0
    validate_every: int = 0
    validation_patches: int = 16


ABOVE_0 = ("steps", "batch", "side", "log_every", "checkpoint_every", "validation_patches", "rate", "clip")
AT_LEAST_0 = (
    "warmup",
    "weight_decay",
    "workers",
    "keep",
    "validate_every",
    "visual",
    "segmentation",
    "cross_entropy",
)
SHARES = ("real_share", "whole_heads_share", "degrade_inputs")


def check_recipe(recipe: Recipe) -> None:
    """Refuse numbers that would spoil a run.

    Raises:
        ConfigError: One is out of range; the message names it and the range.
    """
    for keys, low, words in ((ABOVE_0, math.ulp(0), "above 0"), (AT_LEAST_0, 0, "at least 0")):
        for key in keys:
            check_range(key, getattr(recipe, key), low, math.inf, words)
    for key in SHARES:
        check_range(key, getattr(recipe, key), 0, 1)
    check_range("ema", recipe.ema, 0, math.nextafter(1, 0), "at least 0 and below 1")
    check_range("degraded", recipe.degraded, 1, 3)
    check_range("seed", recipe.seed, 0, 2**63 - 1)
    if recipe.stage == "joint" and not (recipe.visual or recipe.segmentation):
        raise ConfigError("visual and segmentation are both 0.", "One of the two losses must count.", key="visual")


def check_range(key: str, value: float, low: float, high: float, words: str | None = None) -> None:
    """Refuse a number that is not finite or not from `low` to `high`, both included.

    Args:
        key: What it is called.
        value: The number.
        low: Least that it may be.
        high: Most that it may be.
        words: The range in words, where it is not "from `low` to `high`".

    Raises:
        ConfigError: It is out of range.
    """
    if not (low <= value <= high and math.isfinite(value)):
        raise ConfigError(f"{key} is {value}.", f"It must be {words or f'from {low} to {high}'}.", key=key)


def learning_rate(step: int, recipe: Recipe) -> float:
    """Rate of a step: linear warm-up, then a cosine to 0."""
    if step < recipe.warmup:
        return recipe.rate * (step + 1) / recipe.warmup
    done = (step - recipe.warmup) / max(1, recipe.steps - recipe.warmup)
    return recipe.rate * 0.5 * (1 + math.cos(math.pi * min(1.0, done)))
