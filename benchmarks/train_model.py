"""Train a model from nothing to the checkpoints of its release: every stage, in as many sittings as it takes.

    python benchmarks/train_model.py --runs runs/ms-edge                            two CPU cores: hours
    python benchmarks/train_model.py --runs runs/ms-edge --steps-factor 6 --batch 8 --workers 14 --minutes 9    a GPU

The stages stand in `models/NAME.toml`, their recipes beside the training code. A stage begins with the best validated
weights of the one before; folds and released weights are calibrated on synthetic patches and kept under --models. A run
that was cut off goes on from its last checkpoint, one that is finished is not repeated: give the same command again
until it says that all is done. Then put what it kept into `models/` and run `make release-model`, whose gates decide.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Sequence
from pathlib import Path

from keep_model import keep
from release_plan import ROOT, TrainingStage, read_plan

from rmr_training.checkpoint import read_checkpoint
from rmr_training.cli import main as rmr_train
from rmr_training.config import make_recipe, read_config

SCALED = ("steps", "warmup", "validate_every", "checkpoint_every")
"""Numbers of a recipe that count steps."""


def flags(stage: TrainingStage, options: argparse.Namespace) -> dict[str, int]:
    """Return what differs from the recipe of a stage."""
    recipe = make_recipe(stage.command, read_config(ROOT / stage.config), {})
    found = {name: round(getattr(recipe, name) * options.steps_factor) for name in SCALED}
    return found | {name: getattr(options, name) for name in ("batch", "workers") if getattr(options, name) is not None}


def steps_done(folder: Path) -> int:
    """Return the steps that a run has done."""
    last = folder / "last.pth"
    return int(read_checkpoint(last)["step"]) if last.exists() else 0


def best_of(folder: Path) -> Path:
    """Return the best weights of a finished run: the last where nothing was validated."""
    best = folder / "best.pth"
    return best if best.exists() else folder / "model.pth"


def train(stage: TrainingStage, options: argparse.Namespace, seconds: float | None) -> bool:
    """Run a stage, or go on with it; tell whether it is finished.

    Raises:
        SystemExit: `rmr-train` refused.
    """
    folder, changed = options.runs / stage.name, flags(stage, options)
    done = steps_done(folder)
    if done >= changed["steps"]:
        return True
    command = [stage.command, "--config", str(ROOT / stage.config), "--out", str(folder)]
    if stage.start:
        command += ["--start", str(best_of(options.runs / stage.start))]
    for name, value in changed.items():
        command += [f"--{name.replace('_', '-')}", str(value)]
    command += ["--resume"] if done else []
    command += [] if seconds is None else ["--minutes", str(seconds / 60)]
    started = time.monotonic()
    code = rmr_train(command)
    if code:
        raise SystemExit(code)
    now = steps_done(folder)
    rate = (now - done) / (time.monotonic() - started)
    print(f"{stage.name}: {now} of {changed['steps']} steps, {rate:.2f} a second in this sitting", flush=True)
    return now >= changed["steps"]


def finish(stage: TrainingStage, options: argparse.Namespace) -> None:
    """Calibrate what a finished run gave, and keep it."""
    target = (options.models or options.runs / "models") / stage.keep
    calibrated = options.runs / stage.name / "calibrated.pth"
    if calibrated.exists():
        return
    amounts = ["--patches", str(options.calibration_patches), "--heads", str(options.calibration_heads)]
    code = rmr_train(["calibrate", str(best_of(options.runs / stage.name)), "--out", str(calibrated), *amounts])
    if code:
        raise SystemExit(code)
    target.parent.mkdir(parents=True, exist_ok=True)
    keep(calibrated, target, stage.half)
    print(f"{stage.name}: {target}", flush=True)


def main(arguments: Sequence[str] | None = None) -> int:
    """Train what is not trained yet, for as long as there is time."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--plan", default="ms-edge", help="models/NAME.toml (default %(default)s)")
    parser.add_argument("--runs", type=Path, required=True, help="folder of the runs")
    parser.add_argument("--models", type=Path, help="folder of the kept checkpoints (default: models in --runs)")
    parser.add_argument("--steps-factor", type=float, default=1, help="times the steps of every recipe")
    parser.add_argument("--batch", type=int, help="patches a step (default: the recipes')")
    parser.add_argument("--workers", type=int, help="processes that make samples (default: the recipes')")
    parser.add_argument("--calibration-patches", type=int, default=96)
    parser.add_argument("--calibration-heads", type=int, default=3)
    parser.add_argument("--minutes", type=float, help="stop after so long, ready to be given again (default: no limit)")
    options = parser.parse_args(arguments)
    deadline = None if options.minutes is None else time.monotonic() + 60 * options.minutes
    for stage in read_plan(options.plan).stage:
        left = None if deadline is None else max(deadline - time.monotonic(), 0.0)  # a sitting does a step at least
        if not train(stage, options, left):
            print(f"not done: {stage.name} is next; give the same command again")
            return 3
        if stage.keep:
            finish(stage, options)
    print("all stages are done")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
