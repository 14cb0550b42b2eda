"""One run: an arm, a seed, a number of steps. It resumes where it was cut off and is never run twice."""

from __future__ import annotations

import json
import logging
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from rmr_training.losses import SegmentationLoss
from rmr_training.models import RmrFusion
from rmr_training.objectives import autocast, autoencoder_loss, joint_loss
from rmr_training.recipe import Recipe, learning_rate
from rmr_training.sampling import keyed_generator

from .arms import Arm, DirectNetwork, build, check
from .pool import Batch, Pool

log = logging.getLogger("claims")

LOGGED_EVERY = 25
WARMUP = 20


@dataclass(frozen=True, slots=True, kw_only=True)
class Budget:
    """What every run is given; the same for all arms.

    Attributes:
        steps: Optimiser steps of stage 2 and of direct arms.
        autoencoder_steps: Steps of stage 1.
        batch: Patches a step.
        side: Side of a patch in voxels.
        patches: Patches in the pool to learn from.
        validation: Patches of held-out lesion donors to measure on.
        degraded: Degraded versions of each image a step of stage 1, drawn from three and weighted to stand for all.
        rate: Peak learning rate of stage 2 and of direct arms.
        autoencoder_rate: Peak learning rate of stage 1.
        lesion_weight: Of lesions in the cross-entropy; more than `rmr-train` gives, for lesions to be found so early.
        checkpoint_every: Steps between checkpoints.
    """

    steps: int
    autoencoder_steps: int
    batch: int = 1
    side: int = 64
    patches: int = 200
    validation: int = 24
    degraded: int = 1
    rate: float = 3e-3
    autoencoder_rate: float = 3e-3
    lesion_weight: float = 20.0
    checkpoint_every: int = 50

    def steps_of(self, arm: Arm) -> int:
        """Return the steps of an arm."""
        if arm.kind == "autoencoder":
            return self.autoencoder_steps
        return self.steps + self.autoencoder_steps * arm.both_budgets


@dataclass(frozen=True, slots=True)
class Place:
    """Where a run keeps its files and what it is computed on."""

    folder: Path
    device: torch.device

    def file(self, arm: str, seed: int, ending: str) -> Path:
        """Return the file of a run."""
        return self.folder / f"{arm}-seed{seed}{ending}"


def load_run(arm: Arm, seed: int, place: Place) -> RmrFusion | DirectNetwork:
    """Build the network of a finished run with its weights."""
    network = build(arm, seed)
    content = torch.load(place.file(arm.name, seed, ".pth"), map_location="cpu", weights_only=True)
    network.load_state_dict(content["model"])
    return network.to(place.device).eval()


def train(arm: Arm, seed: int, budget: Budget, pool: Pool, place: Place) -> dict[str, Any]:
    """Train a run to its end, unless it has been.

    Returns:
        Its facts, as they stand in its JSON file: steps, seconds, those of this process's CPU time, and the mean
        loss of each `LOGGED_EVERY` steps.

    Raises:
        ConfigError: The head cannot be trained on such patches.
        FloatingPointError: The loss is not finite.
    """
    report = place.file(arm.name, seed, ".json")
    if report.exists():
        return json.loads(report.read_text())  # type: ignore[no-any-return]
    run = _Run(arm, seed, budget, place)
    run.go(pool)
    facts = {
        "arm": arm.name,
        "seed": seed,
        "steps": run.step,
        "seconds": round(run.seconds, 1),
        "cpu_seconds": round(run.cpu_seconds, 1),
        "resumed": run.resumed,
        "losses": [round(loss, 4) for loss in run.losses],
    }
    torch.save({"model": run.network.state_dict()}, place.file(arm.name, seed, ".pth"))
    report.write_text(json.dumps(facts) + "\n")
    run.part.unlink(missing_ok=True)
    return facts


class _Run:
    """State of a run between two steps."""

    def __init__(self, arm: Arm, seed: int, budget: Budget, place: Place) -> None:
        self.arm, self.seed, self.budget, self.place = arm, seed, budget, place
        self.recipe = _recipe(arm, budget)
        self.network = self._network().to(place.device).train()
        self.parameters = _trained(arm, self.network)
        self.optimiser = torch.optim.AdamW(self.parameters, self.recipe.rate, weight_decay=self.recipe.weight_decay)
        self.loss = _loss(arm, self.network, self.recipe, budget)
        self.step, self.seconds, self.cpu_seconds, self.resumed = 0, 0.0, 0.0, 0
        self.losses: list[float] = []
        self.part = place.file(arm.name, seed, ".part.pth")
        if self.part.exists():
            self._resume()

    def _network(self) -> RmrFusion | DirectNetwork:
        network = build(self.arm, self.seed)
        check(self.arm, network, self.budget.side)
        if self.arm.autoencoder is not None:
            file = self.place.file(self.arm.autoencoder, self.seed, ".pth")
            weights = torch.load(file, map_location="cpu", weights_only=True)["model"]
            own = {key.removeprefix("autoencoder."): w for key, w in weights.items() if key.startswith("autoencoder.")}
            network.get_submodule("autoencoder").load_state_dict(own)
        return network

    def go(self, pool: Pool) -> None:
        """Take all steps that are left."""
        while self.step < self.recipe.steps:
            started, cpu_started = time.perf_counter(), time.process_time()
            batch = pool.take(_indices(len(pool), self.seed, self.step, self.budget.batch), self.place.device)
            value = self._take_step(batch)
            self.seconds += time.perf_counter() - started
            self.cpu_seconds += time.process_time() - cpu_started
            self._note(value)
            self.step += 1
            if self.step % self.budget.checkpoint_every == 0 and self.step < self.recipe.steps:
                self._save()

    def _take_step(self, batch: Batch) -> float:
        for group in self.optimiser.param_groups:
            group["lr"] = learning_rate(self.step, self.recipe)
        loss = self.loss(batch, keyed_generator(self.seed, self.step))
        value = float(loss.detach())
        if not torch.isfinite(loss.detach()):
            raise FloatingPointError(f"{self.arm.name}, seed {self.seed}: the loss is {value} at step {self.step}")
        self.optimiser.zero_grad(set_to_none=True)
        loss.backward()
        nn.utils.clip_grad_norm_(self.parameters, self.recipe.clip)
        self.optimiser.step()
        return value

    def _note(self, loss: float) -> None:
        place, count = divmod(self.step, LOGGED_EVERY)
        if count == 0:
            self.losses.append(0.0)
            log.info("%s seed %d: step %d of %d", self.arm.name, self.seed, self.step, self.recipe.steps)
        self.losses[place] += (loss - self.losses[place]) / (count + 1)

    def _save(self) -> None:
        content = {
            "model": self.network.state_dict(),
            "optimizer": self.optimiser.state_dict(),
            "step": self.step,
            "seconds": self.seconds,
            "cpu_seconds": self.cpu_seconds,
            "losses": self.losses,
        }
        temporary = self.part.with_suffix(".tmp")
        torch.save(content, temporary)
        temporary.replace(self.part)

    def _resume(self) -> None:
        content = torch.load(self.part, map_location=self.place.device, weights_only=True)
        self.network.load_state_dict(content["model"])
        self.optimiser.load_state_dict(content["optimizer"])
        self.step = self.resumed = content["step"]
        self.seconds, self.cpu_seconds = content["seconds"], content["cpu_seconds"]
        self.losses = content["losses"]


def _recipe(arm: Arm, budget: Budget) -> Recipe:
    """Return `rmr-train`'s recipe, with a short warm-up, for what it says of loss, decay and clipping."""
    steps = budget.steps_of(arm)
    if arm.kind == "autoencoder":
        return Recipe(stage="autoencoder", steps=steps, rate=budget.autoencoder_rate, warmup=WARMUP)
    return Recipe(stage="joint", steps=steps, rate=budget.rate, warmup=WARMUP)


def _trained(arm: Arm, network: RmrFusion | DirectNetwork) -> list[nn.Parameter]:
    network.requires_grad_(False)
    parts: list[nn.Module | None] = [network]
    if isinstance(network, RmrFusion):
        parts = [network.autoencoder] if arm.kind == "autoencoder" else [network.fusion, network.head]
    for part in parts:
        if part is not None:
            part.requires_grad_(True)
    return [p for p in network.parameters() if p.requires_grad]


def _loss(
    arm: Arm, network: RmrFusion | DirectNetwork, recipe: Recipe, budget: Budget
) -> Callable[[Batch, torch.Generator], Tensor]:
    """Give the loss of a batch, in which the generator draws degradations."""
    segmentation = SegmentationLoss(recipe.cross_entropy, budget.lesion_weight, recipe.batch_dice)

    def loss(batch: Batch, generator: torch.Generator) -> Tensor:
        if isinstance(network, DirectNetwork):
            with autocast(batch[0].device, recipe.amp):
                logits = network(*batch[:2])
            return segmentation(logits.float(), batch[2])
        if arm.kind == "autoencoder":
            return autoencoder_loss(network, batch, generator, recipe.amp, budget.degraded, arm.constraints)
        return joint_loss(network, batch, segmentation, frozen=True, amp=recipe.amp, weights=arm.weights)

    return loss


def _indices(count: int, seed: int, step: int, batch: int) -> list[int]:
    """Return the patches of a step: the pool in a new order each time it has been gone through."""
    places = range(step * batch, (step + 1) * batch)
    orders: dict[int, list[int]] = {}
    for turn in {place // count for place in places}:
        generator = keyed_generator(seed, turn)
        orders[turn] = torch.randperm(count, generator=generator).tolist()
    return [orders[place // count][place % count] for place in places]
