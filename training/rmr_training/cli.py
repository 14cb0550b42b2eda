"""The command line `rmr-train`."""

from __future__ import annotations

import argparse
import hashlib
import logging
import math
import os
import sys
import typing
from dataclasses import asdict, fields, replace
from fnmatch import fnmatch
from pathlib import Path
from typing import Any

import msgspec
import torch
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from rmr_sdk.errors import Cancelled, ConfigError, FormatError, RmrError, StudyError
from rmr_sdk.io.files import check_outputs, make_folder

from .averaging import average
from .calibration import Calibration, calibrate
from .checkpoint import KEEP_ALL, NORMALISATION, load_network, read_checkpoint, read_weights, save_checkpoint
from .cli_evaluate import add_evaluate
from .config import (
    HELD_OUT,
    DataConfig,
    check_donors,
    check_side,
    data_folder,
    load_material,
    make_ranges,
    make_recipe,
    read_config,
    start_network,
    study_names,
)
from .data import SyntheticPatches, load_label_maps, split_by_donor
from .models import PRESETS, RmrFusion, check_head
from .real import RealStudy, load_real_study, plain_patches
from .recipe import Recipe, Stage, check_range
from .sampling import LEAST_SIDE
from .sheet import COLUMNS, check_sheet, contact_sheet
from .stages import Trainer, check_unused
from .sureness import MOST_MEDIAN, choose_levels, choose_white_matter
from .whole_heads import is_labelled, load_whole_head

FLAG_TYPES = typing.get_type_hints(Recipe)


def _add_stage(commands: argparse._SubParsersAction[argparse.ArgumentParser], stage: Stage, about: str) -> None:
    parser = commands.add_parser(stage, help=about, description=about)
    parser.add_argument("--out", type=Path, required=True, help="folder of the run")
    parser.add_argument("--config", type=Path, help="TOML file of the run; flags take precedence")
    parser.add_argument("--labelmaps", help="folder of label maps (default: labelmaps in RMR_DATA)")
    parser.add_argument("--held-out", help=f"lesion donors kept for validation (default {','.join(HELD_OUT)})")
    parser.add_argument("--real", nargs="*", metavar="DIR", help="real studies; with lesion masks in the joint stage")
    parser.add_argument(
        "--whole-heads", nargs="*", metavar="DIR", help="joint: heads without lesion masks; needs --start"
    )
    parser.add_argument("--preset", choices=sorted(PRESETS), help="shape of a new network (default edge)")
    parser.add_argument(
        "--start", type=Path, help="checkpoint whose weights to start from (joint: a trained autoencoder)"
    )
    parser.add_argument("--resume", action="store_true", help="go on from OUT/last.pth")
    parser.add_argument("--minutes", type=float, help="stop after so long, ready for --resume (default: no limit)")
    parser.add_argument("--threads", type=int, default=os.cpu_count(), help="threads of the training process")
    for item in fields(Recipe):
        kind = FLAG_TYPES[item.name]
        flag = "--" + item.name.replace("_", "-")
        if item.name == "stage":
            continue
        if kind is bool:
            parser.add_argument(flag, action=argparse.BooleanOptionalAction, default=None)
        else:
            parser.add_argument(flag, type=kind, default=None)
    parser.set_defaults(command=_train, stage=stage)


def _set_threads(count: int) -> None:
    check_range("threads", count, 1, math.inf, "at least 1")
    torch.set_num_threads(count)


def _check_file(path: Path) -> None:
    """Refuse a file that could not be written, before anything is computed."""
    check_outputs(path.parent, [path.name], overwrite=True)


def _train(options: argparse.Namespace) -> None:
    _set_threads(options.threads)
    check_outputs(options.out, (), overwrite=True)
    if not options.resume:
        check_unused(options.out)
    config = read_config(options.config)
    names = [item.name for item in fields(Recipe) if item.name != "stage"]
    flags = {name: getattr(options, name) for name in names if getattr(options, name) is not None}
    recipe = make_recipe(options.stage, config, flags)
    given = {
        "labelmaps": options.labelmaps and str(Path(options.labelmaps).absolute()),
        "held_out": options.held_out and tuple(filter(None, options.held_out.split(","))),
        "real": _absolute(options.real),
        "whole_heads": _absolute(options.whole_heads),
    }
    data: DataConfig = msgspec.structs.replace(config.data, **{k: v for k, v in given.items() if v is not None})
    network_config = config.network
    if options.preset:
        network_config = msgspec.structs.replace(network_config, preset=options.preset)
    torch.manual_seed(recipe.seed)
    network = start_network(network_config, options.start, options.stage)
    check_side(recipe.side, options.stage, network.preset)
    if options.stage == "joint" and network.head is not None:
        shape = network.preset
        encoder, sides = shape.encoder, (recipe.side,) * 3
        check_head(network.head, str(shape.head), encoder.features, len(shape.classes), encoder.stride, sides)
    seen = read_checkpoint(options.start).get("studies", ()) if options.start else ()
    material = load_material(data, make_ranges(config), options.stage)
    if data.whole_heads:
        material = replace(material, whole_heads=_load_whole_heads(data, network, options))
    trainer = Trainer(network, recipe, material, options.out, seen)
    if options.resume:
        trainer.resume(options.out / "last.pth")
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns, TextColumn("loss {task.fields[loss]:.3f}"), disable=not sys.stdout.isatty()) as progress:
        task = progress.add_task(recipe.stage, total=recipe.steps, completed=trainer.step, loss=float("nan"))
        limit = None if options.minutes is None else 60 * options.minutes
        trainer.run(lambda step, loss: progress.update(task, completed=step, loss=loss), limit)
    if trainer.step < recipe.steps:
        print(f"{options.out}: stopped after step {trainer.step} of {recipe.steps}; --resume goes on")


def _absolute(folders: list[str] | None) -> tuple[str, ...] | None:
    return None if folders is None else tuple(str(Path(folder).absolute()) for folder in folders)


def _load_whole_heads(data: DataConfig, network: RmrFusion, options: argparse.Namespace) -> list[RealStudy]:
    """Have the weights of --start label the heads, once: what they found is kept in OUT/whole_heads."""
    names = study_names(data)
    files = {folder: options.out / "whole_heads" / f"{names[folder]}.nii.gz" for folder in data.whole_heads}
    weights = None if options.start is None else hashlib.sha256(options.start.read_bytes()).hexdigest()
    trained = options.start is not None and read_checkpoint(options.start).get("stage") == "joint"
    if options.stage != "joint" or not (trained or all(is_labelled(file, weights) for file in files.values())):
        raise ConfigError(
            "heads without lesion masks are labelled by the weights that a joint stage starts from.",
            "Give --start a checkpoint of the joint stage, or drop whole_heads.",
        )
    return [
        replace(load_whole_head(data_folder() / folder, network, file, weights), name=names[folder])
        for folder, file in files.items()
    ]


def _synthesise(options: argparse.Namespace) -> None:
    check_range("samples", options.samples, 1, math.inf, "at least 1")
    check_range("side", options.side, LEAST_SIDE, math.inf, f"at least {LEAST_SIDE}")
    check_range("seed", options.seed, 0, 2**63 - 1)
    check_sheet(options.preview)
    _check_file(options.preview)
    ranges = make_ranges(read_config(options.config))
    maps = load_label_maps(Path(options.labelmaps) if options.labelmaps else data_folder() / "labelmaps")
    stream = SyntheticPatches(maps, options.side, options.seed, ranges=ranges)
    samples = [stream.sample(index) for index in range(options.samples)]
    real = [load_real_study(folder, labelled=False) for folder in options.beside or ()]
    samples += [sample for study in real for sample in plain_patches(study, options.side, COLUMNS)]
    make_folder(options.preview.parent)
    contact_sheet(samples).save(options.preview)
    print(
        f"{options.preview}: {options.samples} samples of seed {options.seed}, then {COLUMNS} patches of each of "
        f"{len(real)} real studies; T1, FLAIR, labels of the middle slice"
    )


def _calibrate(options: argparse.Namespace) -> None:
    if not 0 < options.most_median <= 1:
        raise ConfigError(
            f"--most-median is {options.most_median:g}.", "Pass a share above 0, up to 1; 1 stretches nothing."
        )
    _set_threads(options.threads)
    _check_file(options.out)
    network, content = load_network(options.checkpoint), read_weights(options.checkpoint)
    if content.get("stage") == "autoencoder":
        raise FormatError(
            f"{options.checkpoint.name} is of stage 1: its fusion and head are not trained.",
            "Calibrate a checkpoint of the joint stage.",
        )
    maps = load_label_maps(Path(options.labelmaps) if options.labelmaps else data_folder() / "labelmaps")
    donors = HELD_OUT
    if options.held_out is not None:
        donors = tuple(filter(None, options.held_out.split(",")))
        check_donors(maps, donors)
    _, held_out = split_by_donor(maps, donors)
    anatomies = [each for each in maps if fnmatch(each.name, options.anatomies)]
    if options.lost and not anatomies:
        raise StudyError(
            f"no label map is called {options.anatomies}.",
            "Name real anatomies by --anatomies, or pass --lost 0 to keep lesions wherever they lie.",
        )
    before = content.get("calibration", {})
    found: dict[str, Any] = {item.name: before[item.name] for item in fields(Calibration) if item.name in before}
    if options.patches:
        offset = calibrate(network, held_out, patches=options.patches)
        found |= asdict(offset) | {"offset": offset.offset + before.get("offset", 0.0)}
        print(
            f"{options.out}: lesion offset {offset.offset:+.2f}, lesion Dice {offset.dice_before:.3f} to "
            f"{offset.dice_after:.3f} on {offset.patches} synthetic patches"
        )
    found |= KEEP_ALL._asdict()
    if options.lost:
        white = choose_white_matter(anatomies, options.lost)
        found |= asdict(white)
        print(
            f"{options.out}: lesions from {white.least_white_matter:.2f} white matter around them on, as all but "
            f"{white.true_lesions_dropped} of {white.true_lesions} of real anatomies have"
        )
    if options.heads:
        white_matter = found["least_white_matter"]
        chosen = choose_levels(
            network,
            held_out,
            options.heads,
            least_white_matter=white_matter,
            damaged=options.damaged,
            most_median=options.most_median,
        )
        by_load = chosen.lesion_threshold
        found |= asdict(chosen) | {"lesion_threshold": msgspec.to_builtins(by_load)}
        voxels = (
            "all voxels"
            if by_load is None
            else f"voxels from {by_load.small:.2f} on, {by_load.large:.2f} at large loads, pieces from "
            f"{by_load.least_piece:g} of the largest on"
        )
        print(
            f"{options.out}: {voxels}, lesion Dice {chosen.head_dice_before:.3f} to {chosen.head_dice_after:.3f}; "
            f"lesions from {chosen.least_lesion_probability:.2f} and {chosen.least_lesion_mm3:g} mm3 on, lesion-wise "
            f"F1 {chosen.f1_before:.3f}, by probability {chosen.f1_by_probability:.3f}, by pieces "
            f"{chosen.f1_by_piece:.3f}, by size {chosen.f1_after:.3f} on {chosen.heads} synthetic heads"
        )
    kept = {k: v for k, v in content.items() if k in ("step", "recipe", "studies", "mean_of")}
    normalisation = NORMALISATION | {"most_median": options.most_median}
    save_checkpoint(options.out, network, "joint", {**kept, "normalisation": normalisation, "calibration": found})


def _average(options: argparse.Namespace) -> None:
    _check_file(options.out)
    average(options.checkpoints, options.out)
    print(f"{options.out}: the mean of {len(options.checkpoints)} checkpoints; calibrate it before it is exported")


def main(arguments: list[str] | None = None) -> int:
    """Run `rmr-train` and return its exit code."""
    parser = argparse.ArgumentParser(prog="rmr-train", description="Train RMR-Fusion.")
    parser.add_argument("--debug", action="store_true", help="show the traceback of an error")
    parser.add_argument("--verbose", action="store_true", help="log every validation")
    commands = parser.add_subparsers(required=True, metavar="COMMAND")
    _add_stage(commands, "autoencoder", "stage 1: train the autoencoder under two levels of constraints")
    _add_stage(commands, "joint", "stage 2: train fusion network and segmentation head together")
    synthesise = commands.add_parser("synthesise", help="look at synthetic training samples")
    synthesise.add_argument("--labelmaps", help="folder of label maps (default: labelmaps in RMR_DATA)")
    synthesise.add_argument("--config", type=Path, help="TOML file whose [ranges] to use")
    synthesise.add_argument("--preview", type=Path, required=True, help="contact sheet to write (PNG)")
    synthesise.add_argument("--beside", type=Path, nargs="*", metavar="DIR", help="real studies to show below them")
    synthesise.add_argument("--samples", type=int, default=16)
    synthesise.add_argument("--side", type=int, default=64)
    synthesise.add_argument("--seed", type=int, default=0)
    synthesise.set_defaults(command=_synthesise)
    mean = commands.add_parser("average", help="take the mean of the weights of checkpoints of one network")
    mean.add_argument("checkpoints", type=Path, nargs="+", help="averaged weights; step and recipe are the last one's")
    mean.add_argument("--out", type=Path, required=True, help="checkpoint to write")
    mean.set_defaults(command=_average)
    adjust = commands.add_parser(
        "calibrate", help="choose lesion threshold and which lesions to keep on label maps and synthetic data"
    )
    adjust.add_argument("checkpoint", type=Path, help="averaged weights of the joint stage")
    adjust.add_argument("--out", type=Path, required=True, help="checkpoint to write")
    adjust.add_argument("--labelmaps", help="folder of label maps (default: labelmaps in RMR_DATA)")
    adjust.add_argument(
        "--held-out", help=f"lesion donors to look at (default: those there are of {','.join(HELD_OUT)})"
    )
    adjust.add_argument(
        "--patches", type=int, default=96, help="patches to look at (default %(default)s; 0: the threshold stays)"
    )
    about = (
        "share of the lesions of real anatomies that may be lost for touching too little white matter "
        "(default %(default)s; 0: none is dropped for that)"
    )
    adjust.add_argument("--lost", type=float, default=0.02, metavar="SHARE", help=about)
    about = "which label maps are real anatomies with the lesions of their own patients (default %(default)s)"
    adjust.add_argument("--anatomies", default="patient*", metavar="PATTERN", help=about)
    about = (
        "heads of each label map at each load to choose probabilities of lesions on (default %(default)s; 0: keep all)"
    )
    adjust.add_argument("--heads", type=int, default=3, help=about)
    about = "damage all but the first of these heads, in one way each, as evaluate does"
    adjust.add_argument("--damaged", action="store_true", help=about)
    about = "stretch contrasts whose median is above this share of their 99th percentile (default %(default)s; 1: none)"
    adjust.add_argument("--most-median", type=float, default=MOST_MEDIAN, metavar="SHARE", help=about)
    adjust.add_argument("--threads", type=int, default=os.cpu_count(), help="threads of torch (default: all cores)")
    adjust.set_defaults(command=_calibrate)
    add_evaluate(commands)
    options = parser.parse_args(arguments)
    logging.basicConfig(level=logging.INFO if options.verbose else logging.WARNING, format="%(message)s")
    try:
        options.command(options)
    except RmrError as error:
        if options.debug:
            raise
        return _fail(error)
    except KeyboardInterrupt:
        return _fail(Cancelled("the command was interrupted."))
    return 0


def _fail(error: RmrError) -> int:
    print(f"rmr-train: {type(error).__name__}: {error}", file=sys.stderr)
    return error.exit_code


if __name__ == "__main__":
    sys.exit(main())
