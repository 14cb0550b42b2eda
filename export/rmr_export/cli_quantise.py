"""The command `rmr-export quantise`, and the options of precisions that `rmr-export bundle` shares with it."""

from __future__ import annotations

import argparse
import json
from collections.abc import Iterator
from pathlib import Path

from rmr_sdk.bundle import Bundle
from rmr_sdk.errors import OutputError

from .precision.apply import quantise_bundle
from .precision.calibration import METHOD
from .precision.make import Made, Recipe
from .precision.ranges import METHODS
from .precision.report import describe, report

_DEFAULT = Recipe()


def add_quantise(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add the command."""
    about = "Add precisions to a bundle: make their graphs, measure them against fp32, refuse what is out of tolerance."
    parser = commands.add_parser("quantise", help=about, description=about, allow_abbrev=False)
    parser.add_argument("bundle", metavar="BUNDLE", help="shipped name, folder or .zip")
    parser.add_argument(
        "--precision",
        nargs="+",
        choices=("bf16", "fp16", "int8"),
        default=["fp16", "int8"],
        help="precisions to add; bf16 is computed from the fp32 graph and only measured (default: fp16 int8)",
    )
    add_precision_options(parser)
    parser.add_argument("--out", type=Path, required=True, metavar="DIR|FILE.zip", help="bundle to write")
    parser.add_argument("--overwrite", action="store_true", help="replace a bundle, and a graph that it has already")
    parser.set_defaults(command=_quantise)


def add_precision_options(parser: argparse.ArgumentParser) -> None:
    """Add the options that say how precisions are made and measured."""
    made = parser.add_argument_group("how int8 is made")
    made.add_argument(
        "--calibration", type=Path, nargs="+", default=[], metavar="DIR", help="studies or cohorts to calibrate on"
    )
    made.add_argument("--label-maps", type=Path, metavar="DIR", help="synthesise tiles to calibrate on from label maps")
    made.add_argument(
        "--leave-out", nargs="+", default=[], metavar="DONOR", help="lesion donors whose maps are not used"
    )
    made.add_argument(
        "--calibration-tiles",
        type=int,
        default=_DEFAULT.tiles,
        metavar="N",
        help="tiles of each study (default %(default)s)",
    )
    made.add_argument(
        "--synthetic-tiles",
        type=int,
        default=_DEFAULT.synthetic_tiles,
        metavar="N",
        help="tiles from label maps, in all (default %(default)s)",
    )
    made.add_argument(
        "--method", choices=METHODS, default=METHOD, help="how activations are clipped (default %(default)s)"
    )
    made.add_argument(
        "--keep-float", nargs="+", default=[], metavar="LAYER", help="layers and groups that stay in float"
    )
    made.add_argument("--equalise", action="store_true", help="make the channels of activations evener first")
    made.add_argument("--correct-bias", action="store_true", help="take the mean error of rounded weights off biases")
    made.add_argument(
        "--no-fall-back", action="store_true", help="quantise every layer, even where the tolerance does not hold then"
    )
    held = parser.add_argument_group("how precisions are measured")
    held.add_argument(
        "--check", type=Path, nargs="+", default=[], metavar="DIR", help="studies or cohorts to measure on"
    )
    held.add_argument("--check-tiles", type=int, metavar="N", help="measure N tiles of each study, not the whole of it")
    held.add_argument(
        "--force", nargs="+", choices=("bf16", "fp16", "int8"), default=[], help="ship these even if out of tolerance"
    )
    held.add_argument("--threads", type=int, metavar="N", help="threads to compute with (default: all cores)")
    held.add_argument("--report", type=Path, metavar="JSON", help="write everything that was measured")


def read_recipe(options: argparse.Namespace) -> Recipe:
    """Make a recipe of parsed options."""
    return Recipe(
        calibration=tuple(options.calibration),
        label_maps=options.label_maps,
        leave_out=tuple(options.leave_out),
        tiles=options.calibration_tiles,
        synthetic_tiles=options.synthetic_tiles,
        method=options.method,
        keep_float=tuple(options.keep_float),
        equalise=options.equalise,
        correct_bias=options.correct_bias,
        fall_back=not options.no_fall_back,
        check=tuple(options.check),
        check_tiles=options.check_tiles,
        force=tuple(options.force),
        threads=options.threads,
    )


def describe_bundle(bundle: Bundle) -> str:
    """Say in one line what was written."""
    manifest = bundle.manifest
    size = sum(file.size for file in manifest.files) / 1e6
    tile = " x ".join(map(str, manifest.tile_shape))
    return f"{manifest.name} {manifest.version}: {', '.join(manifest.onnx_precisions)}, tile {tile}, {size:.1f} MB"


def write_report(path: Path | None, made: Made) -> None:
    """Write the report, where one is wanted.

    Raises:
        OutputError: It cannot be written.
    """
    if path is None:
        return
    try:
        path.write_text(json.dumps(report(made), indent=2) + "\n")
    except OSError as error:
        raise OutputError(
            f'cannot write the report "{path.name}": {error.strerror}.', "Choose another place."
        ) from error


def _quantise(options: argparse.Namespace) -> Iterator[str]:
    bundle, made = quantise_bundle(
        Bundle.open(options.bundle), options.precision, read_recipe(options), options.out, options.overwrite
    )
    write_report(options.report, made)
    yield from describe(made)
    yield describe_bundle(bundle)
