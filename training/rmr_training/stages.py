"""The two stages of training: the autoencoder under two levels of constraints, then fusion and head together.

Source: Zhang et al., AAAI 38(7):7087-7095 (2024). Departures are fields of `Recipe`; the weights that are kept are an
exponential average over steps. Many processes (`accelerate launch`) average their gradients.
"""

from __future__ import annotations

import logging
import re
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

import torch
from accelerate import Accelerator
from torch import Tensor, nn
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn
from torch.utils.data import DataLoader

from rmr_sdk.errors import FormatError, OutputError, RmrError, StudyError

from .checkpoint import read_checkpoint, save_checkpoint
from .data import LabelMap, Patches
from .log import StepLog
from .losses import SegmentationLoss
from .models import RmrFusion
from .objectives import Batch, autoencoder_loss, bfloat16_is_sound, degrade_some, joint_loss
from .real import RealStudy
from .recipe import Recipe, Stage, learning_rate
from .sampling import keyed_generator
from .synthesis import Ranges
from .validation import Validation, validate

__all__ = ["Material", "Recipe", "Stage", "Trainer", "TrainingError", "autoencoder_loss", "joint_loss", "learning_rate"]

log = logging.getLogger(__name__)

LAYOUT = torch.channels_last_3d
"""Memory layout of weights and images: a step of `edge` takes 1.26 s of one core instead of 1.63 s."""

STATE = ("model", "preset", "stage", "optimizer", "average", "step", "best")
"""What `last.pth` holds for `Trainer.resume`."""


class TrainingError(RmrError):
    """A run cannot go on; its last good checkpoint is kept."""


@dataclass(frozen=True, slots=True, eq=False)
class Material:
    """What a run learns from.

    Attributes:
        maps: Label maps to synthesise from.
        held_out: Label maps of lesion donors kept for validation.
        real: Real studies; the joint stage needs their lesion masks.
        ranges: How far synthetic samples vary.
        whole_heads: Real heads without a lesion mask, of `whole_heads.load_whole_head`; for the joint stage.
    """

    maps: Sequence[LabelMap]
    held_out: Sequence[LabelMap] = ()
    real: Sequence[RealStudy] = ()
    ranges: Ranges = field(default_factory=Ranges)
    whole_heads: Sequence[RealStudy] = ()


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


def check_unused(folder: Path) -> None:
    """Refuse a folder that holds a run, which a new one would overwrite.

    Raises:
        OutputError: It holds one.
    """
    if (folder / "last.pth").exists():
        raise OutputError(f"{folder} holds a run (last.pth).", "Give --resume to go on with it, or another --out.")


class Trainer:
    """One stage of one run: steps, weight average, validation, log and checkpoints in a folder.

    Args:
        network: Trained in place.
        recipe: What to do.
        material: What to learn from.
        folder: Takes `last.pth` (to resume), `model.pth` (the averaged weights), `best.pth` (the averaged weights of
            the best validation), `log.csv` and `validation.csv`.
        studies: Real studies that the weights have learnt from before; checkpoints name them and those of `material`.

    Raises:
        StudyError: There is nothing to learn from, nothing to validate on, or a real study lacks its lesion mask.
    """

    def __init__(
        self, network: RmrFusion, recipe: Recipe, material: Material, folder: Path, studies: Sequence[str] = ()
    ) -> None:
        _check_material(material, recipe)
        self.studies = sorted({*studies, *(study.name for study in (*material.real, *material.whole_heads))})
        self.accelerator = Accelerator(cpu=not torch.cuda.is_available())
        self.device = self.accelerator.device
        network = network.to(self.device, memory_format=LAYOUT)  # type: ignore[call-overload]
        part = network.autoencoder if recipe.stage == "autoencoder" else network
        if recipe.amp and not bfloat16_is_sound(part, recipe.side, self.device):
            log.warning("patches of %d voxels are computed in float32: torch's bfloat16 is unsound there", recipe.side)
            recipe = replace(recipe, amp=False)
        self.network, self.recipe, self.material, self.folder = network, recipe, material, folder
        self.parameters = trainable(network, recipe)
        self.optimiser = torch.optim.AdamW(self.parameters, recipe.rate, weight_decay=recipe.weight_decay)
        self.average = AveragedModel(network, multi_avg_fn=get_ema_multi_avg_fn(recipe.ema), use_buffers=True)
        self.segmentation = SegmentationLoss(recipe.cross_entropy, batch_dice=recipe.batch_dice)
        self.step = 0
        self.best = -float("inf")

    @property
    def averaged(self) -> RmrFusion:
        """Return the network with averaged weights."""
        return self.average.module  # type: ignore[return-value]

    def resume(self, path: Path) -> None:
        """Go on from a checkpoint of the same stage.

        Raises:
            TrainingError: The checkpoint is of another stage or preset.
            FormatError: It is not the state of a run.
        """
        content = read_checkpoint(path)
        missing = [key for key in STATE if key not in content]
        if missing:
            raise FormatError(f"{path.name} has no entry {missing[0]!r}.", "Resume from the last.pth of a run.")
        if content["stage"] != self.recipe.stage:
            raise TrainingError(f"{path.name} is of stage {content['stage']!r}.", f"Resume a {self.recipe.stage} run.")
        if content["preset"] != self.network.preset.to_metadata():
            raise TrainingError(
                f"{path.name} is of preset {content['preset']['name']!r}, whose shape differs.",
                "Resume with the preset and the head that the run began with.",
            )
        self.network.load_state_dict(content["model"])
        self.optimiser.load_state_dict(content["optimizer"])
        self.average.load_state_dict(content["average"])
        self.step, self.best = int(content["step"]), float(content["best"])
        self.studies = sorted({*self.studies, *content.get("studies", ())})

    def run(self, progress: Callable[[int, float], None] | None = None, seconds: float | None = None) -> None:
        """Train to the last step of the recipe.

        Args:
            progress: Called after each step with the steps done and the loss.
            seconds: Stop after so long, ready to be resumed; None for no limit.

        Raises:
            TrainingError: Loss or gradient is not finite; the message names the studies of the batch.
            OutputError: The folder holds a run, and this one has not been resumed.
        """
        if not self.step:
            check_unused(self.folder)
        recipe, started = self.recipe, time.monotonic()
        self.folder.mkdir(parents=True, exist_ok=True)
        batches, steps = (
            self._batches(),
            StepLog(self.folder / "log.csv", self.accelerator.num_processes * recipe.batch),
        )
        self.network.train()
        while self.step < recipe.steps:
            waited = time.perf_counter()
            batch, sources = next(batches)
            steps.waited(time.perf_counter() - waited)
            loss = self._train(batch, sources)
            self.step += 1
            if progress is not None:
                progress(self.step, loss)
            last = self.step == recipe.steps
            late = seconds is not None and self._agree(time.monotonic() - started >= seconds)
            if self.accelerator.is_main_process:
                if self.step % recipe.log_every == 0 or last:
                    steps.write(self.step, loss, learning_rate(self.step - 1, recipe))
                if recipe.validate_every and (self.step % recipe.validate_every == 0 or last):
                    self._validate()
                if self.step % recipe.checkpoint_every == 0 or last:
                    self._keep()
                    self.save()
                elif late:
                    self.save()
            if late:
                break
        self.accelerator.wait_for_everyone()

    def save(self) -> None:
        """Write the averaged weights, then the state to resume from."""
        self._save_averaged("model.pth")
        extra: dict[str, Any] = {
            "optimizer": self.optimiser.state_dict(),
            "average": self.average.state_dict(),
            "step": self.step,
            "best": self.best,
            "studies": self.studies,
        }
        save_checkpoint(self.folder / "last.pth", self.network, self.recipe.stage, extra)

    def _keep(self) -> None:
        """Keep the averaged weights of the last checkpoints, and remove older ones."""
        if not self.recipe.keep:
            return
        self._save_averaged(f"model-{self.step}.pth")
        named = ((re.fullmatch(r"model-(\d+)\.pth", path.name), path) for path in self.folder.iterdir())
        kept = sorted((int(match[1]), path) for match, path in named if match)
        for _, old in kept[: -self.recipe.keep]:
            old.unlink()

    def _save_averaged(self, name: str, **facts: Any) -> None:
        extra = {"step": self.step, "recipe": asdict(self.recipe), "studies": self.studies, **facts}
        save_checkpoint(self.folder / name, self.averaged, self.recipe.stage, extra)

    def _validate(self) -> None:
        result: Validation = validate(self.averaged, self.material.held_out, self.recipe, self.device)
        StepLog.append(
            self.folder / "validation.csv",
            {"step": self.step, "score": f"{result.score:.4f}"}
            | {
                f"dice_{name}": f"{value:.4f}"
                for name, value in zip(self.network.preset.classes[1:], result.dice, strict=False)
            },
        )
        log.info("step %d: validation %.4f", self.step, result.score)
        if result.score > self.best:
            self.best = result.score
            self._save_averaged("best.pth", validation=result.score)

    def _batches(self) -> Iterator[tuple[Batch, list[str]]]:
        recipe, material = self.recipe, self.material
        stride = recipe.batch * self.accelerator.num_processes
        stream = Patches(
            material.maps,
            recipe.side,
            recipe.seed,
            first=self.step * stride + self.accelerator.process_index * recipe.batch,
            ranges=material.ranges,
            real=material.real,
            real_share=recipe.real_share,
            batch=recipe.batch,
            stride=stride,
            whole_heads=material.whole_heads,
            whole_heads_share=recipe.whole_heads_share,
        )
        loader = DataLoader(
            stream,
            recipe.batch,
            num_workers=recipe.workers,
            prefetch_factor=4 if recipe.workers else None,
            multiprocessing_context="fork" if recipe.workers else None,
        )
        for t1w, flair, labels, sources in loader:
            t1w, flair = (x.to(self.device, memory_format=LAYOUT) for x in (t1w, flair))
            yield (t1w, flair, labels.to(self.device)), list(sources)

    def _loss(self, batch: Batch) -> Tensor:
        """Compute the loss of this step; its random numbers are neither those of samples nor of another step."""
        recipe = self.recipe
        place = self.step * self.accelerator.num_processes + self.accelerator.process_index
        generator = keyed_generator(recipe.seed, place, 1)
        torch.manual_seed(keyed_generator(recipe.seed, place, 2).initial_seed())  # dropout draws from the global one
        if recipe.stage == "autoencoder":
            return autoencoder_loss(self.network, batch, generator, recipe.amp, recipe.degraded, recipe.constraints)
        inputs = degrade_some(batch, generator, recipe.degrade_inputs)
        weights = (recipe.visual, recipe.segmentation)
        frozen = not recipe.train_autoencoder
        return joint_loss(self.network, batch, self.segmentation, frozen, recipe.amp, inputs, weights)

    def _train(self, batch: Batch, sources: Sequence[str]) -> float:
        recipe = self.recipe
        for group in self.optimiser.param_groups:
            group["lr"] = learning_rate(self.step, recipe)
        loss = self._loss(batch)
        self._check_finite("loss", loss, sources)
        self.optimiser.zero_grad(set_to_none=True)
        loss.backward()
        self._average_gradients()
        norm = nn.utils.clip_grad_norm_(self.parameters, recipe.clip)
        self._check_finite("norm of the gradient", norm, sources)
        self.optimiser.step()
        self.average.update_parameters(self.network)
        return float(loss.detach())

    def _check_finite(self, name: str, value: Tensor, sources: Sequence[str]) -> None:
        if not bool(torch.isfinite(value)):
            raise TrainingError(
                f"the {name} is {value.item()} at step {self.step}, on patches of {', '.join(sources)}.",
                "Check those studies, lower the rate, or resume from last.pth, which is from before it.",
                step=self.step,
                sources=tuple(sources),
            )

    def _agree(self, late: bool) -> bool:
        """Tell every process whether one of them is late: all stop at the same step."""
        if self.accelerator.num_processes == 1:
            return late
        told: Tensor = self.accelerator.reduce(torch.tensor(float(late), device=self.device), "sum")  # type: ignore[assignment]
        return bool(told > 0)

    def _average_gradients(self) -> None:
        """Take the mean of all processes' gradients, as one vector."""
        if self.accelerator.num_processes == 1:
            return
        gradients = [p.grad if p.grad is not None else torch.zeros_like(p) for p in self.parameters]
        flat = self.accelerator.reduce(torch.cat([g.flatten() for g in gradients]), "mean")
        for parameter, part in zip(self.parameters, flat.split([g.numel() for g in gradients]), strict=True):
            parameter.grad = part.view_as(parameter)


def _check_material(material: Material, recipe: Recipe) -> None:
    if not material.maps:
        raise StudyError("there is no label map to train on.", "Check the folder and the held-out donors.")
    if recipe.validate_every and not material.held_out:
        raise StudyError(
            "there is no held-out label map to validate on.", "Hold a donor out, or set validate_every to 0."
        )
    bare = [study.name for study in material.real if study.labels is None]
    if recipe.stage == "joint" and bare:
        raise StudyError(f"study {bare[0]} has no lesion mask.", "The joint stage learns from labelled studies only.")
