"""The command line `rmr-train`."""

from __future__ import annotations

import argparse
import json
import os
import sys
from dataclasses import MISSING, fields
from pathlib import Path

import torch
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from rmr_sdk.errors import RmrError

from .checkpoint import load_network
from .data import SyntheticPatches, load_label_maps, split_by_donor
from .evaluate import evaluate, to_table
from .models import PRESETS, RmrFusion, find_preset
from .sheet import contact_sheet
from .stages import Recipe, Trainer

HELD_OUT = "05,09,20,28"
"""Lesion donors kept for validation by default; 09, 20 and 28 are lesions on the template, 05 a real anatomy too."""


def _add_stage(commands: argparse._SubParsersAction[argparse.ArgumentParser], stage: str, about: str) -> None:
    parser = commands.add_parser(stage, help=about, description=about)
    parser.add_argument("--out", type=Path, required=True, help="folder of the run")
    parser.add_argument("--labelmaps", type=Path, default=_data_folder() / "labelmaps", help="folder of label maps")
    parser.add_argument("--held-out", default=HELD_OUT, help="lesion donors kept for validation (default %(default)s)")
    parser.add_argument("--preset", choices=sorted(PRESETS), default="edge", help="shape of a new network")
    parser.add_argument(
        "--start", type=Path, help="checkpoint whose weights to start from (joint: a trained autoencoder)"
    )
    parser.add_argument("--resume", action="store_true", help="go on from OUT/last.pth")
    parser.add_argument("--threads", type=int, default=os.cpu_count(), help="threads of the training process")
    for item in fields(Recipe):
        if item.name == "stage":
            continue
        flag = "--" + item.name.replace("_", "-")
        if item.default is MISSING:
            parser.add_argument(flag, type=int, required=True)
        elif isinstance(item.default, bool):
            parser.add_argument(flag, action=argparse.BooleanOptionalAction, default=item.default)
        else:
            parser.add_argument(flag, type=type(item.default), default=item.default)
    parser.set_defaults(command=_train, stage=stage)


def _data_folder() -> Path:
    return Path(os.environ.get("RMR_DATA", "../shared/data"))


def _train(options: argparse.Namespace) -> None:
    torch.set_num_threads(options.threads)
    torch.manual_seed(options.seed)
    recipe = Recipe(**{item.name: getattr(options, item.name) for item in fields(Recipe)})
    train, _ = split_by_donor(load_label_maps(options.labelmaps), options.held_out.split(","))
    network = load_network(options.start) if options.start else RmrFusion(find_preset(options.preset))
    trainer = Trainer(network, recipe, train, options.out)
    if options.resume:
        trainer.resume(options.out / "last.pth")
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns, TextColumn("loss {task.fields[loss]:.3f}"), disable=not sys.stdout.isatty()) as progress:
        task = progress.add_task(recipe.stage, total=recipe.steps, completed=trainer.step, loss=float("nan"))
        trainer.run(lambda step, loss: progress.update(task, completed=step, loss=loss))


def _synthesise(options: argparse.Namespace) -> None:
    stream = SyntheticPatches(load_label_maps(options.labelmaps), options.side, options.seed)
    contact_sheet([stream.sample(index) for index in range(options.samples)]).save(options.preview)
    print(f"{options.preview}: {options.samples} samples of seed {options.seed}; T1, FLAIR, labels of the middle slice")


def _evaluate(options: argparse.Namespace) -> None:
    rows = to_table(evaluate(load_network(options.checkpoint), options.studies))
    if options.json:
        print(json.dumps(rows, indent=2))
        return
    for row in rows:
        print(
            "  ".join(
                f"{key} {value:.3f}" if isinstance(value, float) else f"{key} {value}" for key, value in row.items()
            )
        )


def main(arguments: list[str] | None = None) -> int:
    """Run `rmr-train` and return its exit code."""
    parser = argparse.ArgumentParser(prog="rmr-train", description="Train RMR-Fusion.")
    parser.add_argument("--debug", action="store_true", help="show the traceback of an error")
    commands = parser.add_subparsers(required=True, metavar="COMMAND")
    _add_stage(commands, "autoencoder", "stage 1: train both encoders and the decoder, self-supervised")
    _add_stage(commands, "joint", "stage 2: train fusion and segmentation head together")
    synthesise = commands.add_parser("synthesise", help="look at synthetic training samples")
    synthesise.add_argument("--labelmaps", type=Path, default=_data_folder() / "labelmaps", help="folder of label maps")
    synthesise.add_argument("--preview", type=Path, required=True, help="contact sheet to write (PNG)")
    synthesise.add_argument("--samples", type=int, default=16)
    synthesise.add_argument("--side", type=int, default=64)
    synthesise.add_argument("--seed", type=int, default=0)
    synthesise.set_defaults(command=_synthesise)
    assess = commands.add_parser("evaluate", help="figures of a checkpoint on labelled studies")
    assess.add_argument("checkpoint", type=Path)
    assess.add_argument("studies", type=Path, nargs="+", help="folders with t1, flair and lesion .nii.gz")
    assess.add_argument("--json", action="store_true", help="print JSON")
    assess.set_defaults(command=_evaluate)
    options = parser.parse_args(arguments)
    try:
        options.command(options)
    except RmrError as error:
        if options.debug:
            raise
        print(f"rmr-train: {type(error).__name__}: {error}", file=sys.stderr)
        return error.exit_code
    return 0


if __name__ == "__main__":
    sys.exit(main())
