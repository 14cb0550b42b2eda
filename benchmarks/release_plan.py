"""What is released, from which checkpoints, and what must hold before: `models/NAME.toml`, read and checked.

Owns the file's contract and the rule that a real study is reported only by weights that have not seen it.
"""

from __future__ import annotations

import hashlib
import math
import operator
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import msgspec

from rmr_export.precision.calibration import METHOD
from rmr_export.precision.make import Recipe
from rmr_training.checkpoint import read_checkpoint
from rmr_training.recipe import Stage

ROOT = Path(__file__).parent.parent
MODELS = ROOT / "models"

Row = Mapping[str, Any]


class Fold(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Weights of the released recipe that have not seen one study, and that study, a folder below RMR_DATA."""

    checkpoint: str
    study: str

    @property
    def path(self) -> Path:
        """Return the checkpoint's file."""
        return MODELS / self.checkpoint

    @property
    def held_out(self) -> str:
        """Return the study's name."""
        return Path(self.study).name

    @property
    def checkpoint_sha256(self) -> str:
        """Return the digest of the checkpoint's file, as `bench_accuracy.py` writes it beside the figures."""
        return hashlib.sha256(self.path.read_bytes()).hexdigest()


class Gate(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The least or the greatest value of a figure of one study, as `bench_accuracy.py` names it."""

    study: str
    figure: str
    minimum: float | None = None
    maximum: float | None = None

    @property
    def wish(self) -> str:
        """Say what must hold."""
        limits = (("at least", self.minimum), ("at most", self.maximum))
        bounds = " and ".join(f"{word} {limit:g}" for word, limit in limits if limit is not None)
        return f"{self.study}: {self.figure.replace('_', ' ')} {bounds}"

    def missing(self, row: Row | None) -> str | None:
        """Say that a study has no figures or that this one is not defined, or None."""
        if row is None:
            return f"{self.study}: no figures"
        value = row.get(self.figure)
        return f"{self.study}: {self.figure} is not defined" if value is None or math.isnan(value) else None

    def problem(self, row: Row) -> str | None:
        """Say how a study's figures break the gate, or None."""
        value = row[self.figure]
        for limit, holds, word in ((self.minimum, operator.ge, "least"), (self.maximum, operator.le, "greatest")):
            if limit is not None and not holds(value, limit):  # NaN holds nowhere
                return f"{self.study}: {self.figure} is {value:.3g}, the {word} that is released {limit:g}"
        return None


class Precisions(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What is released beside fp32, and how it is made and measured; folders are below RMR_DATA."""

    names: tuple[str, ...] = ("bf16", "fp16", "int8")
    calibration: tuple[str, ...] = ()
    label_maps: str | None = None
    leave_out: tuple[str, ...] = ()
    check: tuple[str, ...] = ()
    method: str = METHOD
    equalise: bool = False
    correct_bias: bool = False
    keep_float: tuple[str, ...] = ()

    def recipe(self, data: Path) -> Recipe:
        """Return the recipe that the export takes."""
        return Recipe(
            calibration=tuple(data / name for name in self.calibration),
            label_maps=None if self.label_maps is None else data / self.label_maps,
            leave_out=self.leave_out,
            check=tuple(data / name for name in self.check),
            method=self.method,
            equalise=self.equalise,
            correct_bias=self.correct_bias,
            keep_float=self.keep_float,
            fall_back=not self.keep_float,
        )


class TrainingStage(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """One run of `rmr-train` on the way to the checkpoints of a release.

    Attributes:
        name: Of the run's folder.
        command: The stage.
        config: Its TOML file, from the root of the project.
        start: The run whose best weights it begins with; empty for new weights.
        keep: The file under `models/` that its calibrated weights become; empty for none.
        half: Whether that file is in float16.
    """

    name: str
    command: Stage
    config: str
    start: str = ""
    keep: str = ""
    half: bool = False


class Plan(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A release.

    Attributes:
        name: Of the model.
        version: Of the model.
        checkpoint: The released weights, under `models/`.
        card: What a person knows about them, from the root of the project.
        fold: Weights that report the studies which the released ones have seen.
        gate: What the figures must hold.
        despite: Why weights that break a gate are released all the same; empty where none is broken. The card says so.
            It excuses no gate whose figure is missing.
        precisions: What is released beside fp32.
        stage: The runs that make the checkpoints.
    """

    name: str
    version: str
    checkpoint: str
    card: str
    fold: tuple[Fold, ...] = ()
    gate: tuple[Gate, ...] = ()
    despite: str = ""
    precisions: Precisions | None = None
    stage: tuple[TrainingStage, ...] = ()

    @property
    def path(self) -> Path:
        """Return the released checkpoint's file."""
        return MODELS / self.checkpoint


def read_plan(name: str = "ms-edge") -> Plan:
    """Read `models/NAME.toml`."""
    return msgspec.toml.decode((MODELS / f"{name}.toml").read_bytes(), type=Plan)


def broken_gates(plan: Plan, rows: Sequence[Row]) -> list[str]:
    """Return a sentence for each gate that the rows of an accuracy result break; a missing figure breaks it."""
    by_study = {row["study"]: row for row in rows}
    found = []
    for gate in plan.gate:
        row = by_study.get(gate.study)
        problem = gate.missing(row) or gate.problem(row or {})
        found += [problem] if problem else []
    return found


def missing_figures(plan: Plan, rows: Sequence[Row]) -> list[str]:
    """Return a sentence for each gate that the rows of an accuracy result have no value for."""
    by_study = {row["study"]: row for row in rows}
    return [problem for gate in plan.gate if (problem := gate.missing(by_study.get(gate.study)))]


def foreign_figures(plan: Plan, rows: Sequence[Row]) -> list[str]:
    """Return a sentence for each row of an accuracy result that is not of the plan's fold as its file is now."""
    folds = {fold.held_out: fold for fold in plan.fold}
    again = f"Measure again: python benchmarks/bench_accuracy.py --plan {plan.name}"
    found = []
    for row in rows:
        study, fold, digest = row["study"], folds.get(row["study"]), row.get("checkpoint_sha256")
        if fold is None:
            found.append(f"{study}: no fold of the plan reports it. Leave it out of the figures or add a fold.")
        elif digest is None:
            found.append(f"{study}: its figures do not say which checkpoint they are of (checkpoint_sha256). {again}")
        elif digest != fold.checkpoint_sha256:
            found.append(f"{study}: its figures are of another file than {fold.checkpoint} is now. {again}")
    return found


def studies_seen(checkpoint: Path) -> frozenset[str]:
    """Return the real studies that a checkpoint says it has learnt from."""
    return frozenset(read_checkpoint(checkpoint).get("studies", ()))


def broken_folds(plan: Plan) -> list[str]:
    """Compare the folds with the released weights: the same recipe, and each without its study and with the others'."""
    released = read_checkpoint(plan.path)
    held_out = {fold.held_out for fold in plan.fold}
    found = []
    for fold in plan.fold:
        content = read_checkpoint(fold.path)
        different = _differences(content.get("recipe", {}), released.get("recipe", {}))
        found += [f"{fold.checkpoint}: {key} of the recipe differs" for key in different]
        if content["preset"] != released["preset"]:
            found.append(f"{fold.checkpoint}: its preset differs")
        seen = set(content.get("studies", ()))
        if fold.held_out in seen:
            found.append(f"{fold.checkpoint} has seen {fold.held_out}, which it reports")
        if seen | {fold.held_out} != set(released.get("studies", ())) | held_out:
            found.append(f"{fold.checkpoint}: its studies are not those of the released weights without its own")
    return found


def _differences(one: Mapping[str, Any], other: Mapping[str, Any]) -> list[str]:
    return sorted(key for key in one.keys() | other.keys() if one.get(key) != other.get(key))
