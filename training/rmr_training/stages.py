"""The two stages of training: the autoencoder under two levels of constraints, then fusion and head together.

Source: Zhang et al., AAAI 38(7):7087-7095 (2024). Departures, each a field of `Recipe`: the segmentation loss adds a
cross-entropy, and the weights that are kept are an exponential average over steps.
"""

from __future__ import annotations

import csv
import logging
import math
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor, nn
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn
from torch.utils.data import DataLoader

from rmr_sdk.errors import RmrError

from .checkpoint import read_checkpoint, save_checkpoint
from .data import LabelMap, SyntheticPatches
from .degradations import DEGRADATIONS
from .losses import SegmentationLoss, content, reconstruction, visual
from .models import RmrFusion

log = logging.getLogger(__name__)

Stage = Literal["autoencoder", "joint"]
Batch = tuple[Tensor, Tensor, Tensor]


class TrainingError(RmrError):
    """A run cannot go on; its last good checkpoint is kept."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Recipe:
    """Everything that decides the outcome of one stage.

    Attributes:
        stage: "autoencoder" or "joint".
        steps: Optimiser steps in all.
        warmup: Steps of linear warm-up from 0; after it the rate follows a cosine to 0.
        rate: Peak learning rate.
        weight_decay: Weight decay of AdamW.
        batch: Patches a step.
        side: Side of a patch in voxels.
        seed: Seed of weights, samples and degradations.
        amp: Compute in bfloat16 where torch deems it safe.
        clip: Largest norm of the gradient.
        ema: Decay of the weight average.
        cross_entropy: Weight of the cross-entropy beside Dice; 0 is the authors' loss.
        batch_dice: Dice over the batch rather than per patch; False is the authors' loss.
        train_autoencoder: Train the autoencoder in the joint stage too; False is the authors' way.
        workers: Processes that make samples.
        checkpoint_every: Steps between checkpoints.
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
    cross_entropy: float = 4.0
    batch_dice: bool = True
    train_autoencoder: bool = False
    workers: int = 1
    checkpoint_every: int = 100


def learning_rate(step: int, recipe: Recipe) -> float:
    """Rate of a step: linear warm-up, then a cosine to 0."""
    if step < recipe.warmup:
        return recipe.rate * (step + 1) / recipe.warmup
    done = (step - recipe.warmup) / max(1, recipe.steps - recipe.warmup)
    return recipe.rate * 0.5 * (1 + math.cos(math.pi * min(1.0, done)))


def autoencoder_loss(network: RmrFusion, batch: Batch, generator: torch.Generator, amp: bool) -> Tensor:
    """Two-level loss of stage 1 for a batch; T1 trains encoder1, FLAIR encoder2, both the decoder.

    Networks may compute in bfloat16 (`amp`); losses are always float32.
    """
    autoencoder = network.autoencoder
    total = torch.zeros(())
    for encoder, clean in ((autoencoder.encoder1, batch[0]), (autoencoder.encoder2, batch[1])):
        versions = [clean, *(degrade(clean, generator) for degrade in DEGRADATIONS.values())]
        with _autocast(amp):
            features = encoder(torch.cat(versions))
            images = autoencoder.decoder(features)
        reference, *degraded = features.float().chunk(len(versions))
        images = images.float().chunk(len(versions))
        feature_level = [content(f, reference) for f in degraded]
        image_level = [reconstruction(image, clean) for image in images]
        total = total + torch.stack(feature_level).sum() + torch.stack(image_level).sum()
    return total


def joint_loss(network: RmrFusion, batch: Batch, segmentation: SegmentationLoss, frozen: bool, amp: bool) -> Tensor:
    """Visual and segmentation loss of stage 2 for a batch.

    A frozen autoencoder is not trained, but its decoder passes gradients to the fusion.
    """
    t1w, flair, labels = batch
    with _autocast(amp):
        with torch.set_grad_enabled(not frozen):
            features = network.autoencoder.encoder1(t1w), network.autoencoder.encoder2(flair)
        fused = network.fusion(*features)
        image = network.autoencoder.decoder(fused)
        logits = None if network.head is None else network.head(fused)
    loss = visual(image.float(), t1w, flair)
    return loss if logits is None else loss + segmentation(logits.float(), labels)


def _autocast(amp: bool) -> torch.autocast:
    return torch.autocast("cpu", torch.bfloat16, enabled=amp)


def trainable(network: RmrFusion, recipe: Recipe) -> list[nn.Parameter]:
    """Return the parameters that a stage trains, and freeze the others."""
    parts: list[nn.Module] = [network.autoencoder]
    if recipe.stage == "joint":
        parts = [part for part in (network.fusion, network.head) if part is not None]
        if recipe.train_autoencoder:
            parts.append(network.autoencoder)
    network.requires_grad_(False)
    for part in parts:
        part.requires_grad_(True)
    return [p for p in network.parameters() if p.requires_grad]


class Trainer:
    """One stage of one run: steps, weight average, log and checkpoints in a folder.

    Args:
        network: Trained in place.
        recipe: What to do.
        maps: Label maps to synthesise from.
        folder: Takes `last.pth` (to resume), `model.pth` (the averaged weights) and `log.csv`.
    """

    def __init__(self, network: RmrFusion, recipe: Recipe, maps: list[LabelMap], folder: Path) -> None:
        self.network, self.recipe, self.maps, self.folder = network, recipe, maps, folder
        self.parameters = trainable(network, recipe)
        self.optimiser = torch.optim.AdamW(self.parameters, recipe.rate, weight_decay=recipe.weight_decay)
        self.average = AveragedModel(network, multi_avg_fn=get_ema_multi_avg_fn(recipe.ema), use_buffers=True)
        self.segmentation = SegmentationLoss(recipe.cross_entropy, batch_dice=recipe.batch_dice)
        self.step = 0

    def resume(self, path: Path) -> None:
        """Go on from a checkpoint of the same stage.

        Raises:
            TrainingError: The checkpoint is of another stage.
        """
        content = read_checkpoint(path)
        if content["stage"] != self.recipe.stage:
            raise TrainingError(f"{path.name} is of stage {content['stage']!r}.", f"Resume a {self.recipe.stage} run.")
        self.network.load_state_dict(content["model"])
        self.optimiser.load_state_dict(content["optimizer"])
        self.average.load_state_dict(content["average"])
        self.step = int(content["step"])

    def run(self, progress: Callable[[int, float], None] | None = None) -> None:
        """Train to the last step of the recipe.

        Args:
            progress: Called after each step with the steps done and the loss.

        Raises:
            TrainingError: The loss is not finite.
        """
        self.folder.mkdir(parents=True, exist_ok=True)
        batches = self._batches()
        started, seconds = time.perf_counter(), 0.0
        while self.step < self.recipe.steps:
            waited = time.perf_counter()
            batch = next(batches)
            seconds += time.perf_counter() - waited
            loss = self._train(batch)
            self.step += 1
            if progress is not None:
                progress(self.step, loss)
            if self.step % 20 == 0:
                self._log(loss, time.perf_counter() - started, seconds)
            if self.step % self.recipe.checkpoint_every == 0 or self.step == self.recipe.steps:
                self.save()

    def save(self) -> None:
        """Write the averaged weights, then the state to resume from."""
        averaged: RmrFusion = self.average.module  # type: ignore[assignment]
        save_checkpoint(
            self.folder / "model.pth", averaged, self.recipe.stage, {"step": self.step, "recipe": asdict(self.recipe)}
        )
        extra: dict[str, Any] = {
            "optimizer": self.optimiser.state_dict(),
            "average": self.average.state_dict(),
            "step": self.step,
        }
        save_checkpoint(self.folder / "last.pth", self.network, self.recipe.stage, extra)

    def _batches(self) -> Iterator[Batch]:
        recipe = self.recipe
        stream = SyntheticPatches(self.maps, recipe.side, recipe.seed, first=self.step * recipe.batch)
        loader = DataLoader(
            stream,
            recipe.batch,
            num_workers=recipe.workers,
            prefetch_factor=4 if recipe.workers else None,
            multiprocessing_context="fork" if recipe.workers else None,
        )
        return iter(loader)

    def _train(self, batch: Batch) -> float:
        recipe = self.recipe
        for group in self.optimiser.param_groups:
            group["lr"] = learning_rate(self.step, recipe)
        if recipe.stage == "autoencoder":
            generator = torch.Generator().manual_seed((recipe.seed << 32) + self.step)
            loss = autoencoder_loss(self.network, batch, generator, recipe.amp)
        else:
            loss = joint_loss(self.network, batch, self.segmentation, not recipe.train_autoencoder, recipe.amp)
        if not bool(torch.isfinite(loss)):
            raise TrainingError(
                f"the loss is {loss.item()} at step {self.step}.",
                "Lower --rate, or resume from last.pth, which is from before it.",
                step=self.step,
            )
        self.optimiser.zero_grad(set_to_none=True)
        loss.backward()
        nn.utils.clip_grad_norm_(self.parameters, recipe.clip)
        self.optimiser.step()
        self.average.update_parameters(self.network)
        return float(loss.detach())

    def _log(self, loss: float, elapsed: float, waiting: float) -> None:
        path = self.folder / "log.csv"
        new = not path.exists()
        with path.open("a", newline="") as file:
            writer = csv.writer(file)
            if new:
                writer.writerow(["step", "loss", "rate", "elapsed_s", "waiting_share"])
            rate = learning_rate(self.step - 1, self.recipe)
            writer.writerow([self.step, f"{loss:.4f}", f"{rate:.2e}", f"{elapsed:.1f}", f"{waiting / elapsed:.3f}"])
