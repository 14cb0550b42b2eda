"""The command line `rmr-export`: what is printed is the answer; notes and errors go to stderr."""

from __future__ import annotations

import argparse
import json
import logging
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from msgspec.structs import replace

from rmr_sdk.bundle import Bundle
from rmr_sdk.cli.terminal import say
from rmr_sdk.engines import ENGINES
from rmr_sdk.engines.base import PRECISIONS
from rmr_sdk.errors import ConfigError, EngineError, RmrError

from .bundle import Card, export_bundle, read_accuracy, read_card
from .checkpoint import Source, load_authors, load_own
from .cli_engine import add_engine_commands
from .cli_quantise import add_precision_options, add_quantise, describe_bundle, read_recipe, write_report
from .precision.make import Made
from .precision.report import describe
from .verify import Verdict, verify_bundle


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command.

    Args:
        arguments: What follows `rmr-export`; None for that of the process.

    Returns:
        The exit code: 0 done, 3 input, 4 bundle, 5 engine or device, 6 output.

    Raises:
        SystemExit: With 2 where the arguments cannot be parsed, with 0 after `--help`.
    """
    options = _parser().parse_args(arguments)
    handler = logging.StreamHandler()
    handler.setFormatter(logging.Formatter("rmr-export: %(message)s"))
    logger = logging.getLogger("rmr_export")
    logger.addHandler(handler)
    logger.setLevel(logging.INFO)
    try:
        for line in options.command(options):
            say(line)
    except RmrError as error:
        if options.debug:
            raise
        print(f"rmr-export: {type(error).__name__}: {' '.join(str(error).split())}", file=sys.stderr)
        return error.exit_code
    finally:
        logger.removeHandler(handler)
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="rmr-export", description="Turn trained networks into bundles.")
    parser.add_argument("--debug", action="store_true", help="show the traceback of an error")
    commands = parser.add_subparsers(required=True, metavar="COMMAND")
    _add_bundle(commands)
    add_quantise(commands)
    _add_verify(commands)
    add_engine_commands(commands)
    return parser


def _add_bundle(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    about = "Write a bundle from a checkpoint of rmr-train or from checkpoints of the authors' format."
    parser = commands.add_parser("bundle", help=about, description=about, allow_abbrev=False)
    source = parser.add_mutually_exclusive_group(required=True)
    source.add_argument("--checkpoint", type=Path, metavar="PTH", help="checkpoint of rmr-train")
    source.add_argument("--autoencoder", type=Path, metavar="PTH", help="the authors' DualSwinAE; needs --fusion")
    parser.add_argument("--fusion", type=Path, metavar="PTH", help="the authors' FusionNet")
    parser.add_argument("--segmentation", type=Path, metavar="PTH", help="segmentation head; without it only fuses")
    parser.add_argument(
        "--head", nargs="+", metavar=("NAME", "KEY=VALUE"), help="head of --segmentation (default swin_unetr)"
    )
    parser.add_argument("--tile", type=int, nargs=3, metavar=("D", "H", "W"), help="tile in voxels (default: preset's)")
    parser.add_argument(
        "--precision", nargs="+", choices=PRECISIONS, default=["fp32"], help="graphs to write (default: fp32)"
    )
    parser.add_argument("--name", help="name of the bundle (default: file name of --out)")
    parser.add_argument("--version", default="0.1.0", help="version of the bundle (default %(default)s)")
    parser.add_argument("--card", type=Path, metavar="TOML", help="licence, training and accuracy; see docs/export.md")
    parser.add_argument("--accuracy", type=Path, metavar="JSON", help="take the accuracy from a measurement")
    parser.add_argument("--out", type=Path, required=True, metavar="DIR|FILE.zip", help="bundle to write")
    parser.add_argument("--overwrite", action="store_true", help="replace an existing bundle")
    add_precision_options(parser)
    parser.set_defaults(command=_bundle)


def _add_verify(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    about = "Compute a bundle's golden tile on every engine at hand, in every precision."
    parser = commands.add_parser("verify", help=about, description=about, allow_abbrev=False)
    parser.add_argument("bundle", metavar="BUNDLE", help="shipped name, folder or .zip")
    parser.add_argument("--engine", nargs="+", choices=ENGINES, default=ENGINES, help="engines to try")
    parser.set_defaults(command=_verify)


def _bundle(options: argparse.Namespace) -> Iterator[str]:
    measured: list[Made] = []
    bundle = export_bundle(
        _source(options),
        options.out,
        tile=tuple(options.tile) if options.tile else None,
        name=options.name or options.out.name.removesuffix(".zip"),
        version=options.version,
        card=_card(options),
        overwrite=options.overwrite,
        precisions=options.precision,
        recipe=read_recipe(options),
        told=measured.append,
    )
    for made in measured:
        write_report(options.report, made)
        yield from describe(made)
    yield describe_bundle(bundle)


def _card(options: argparse.Namespace) -> Card:
    card = read_card(options.card) if options.card else Card()
    return card if options.accuracy is None else replace(card, accuracy=read_accuracy(options.accuracy))


def _source(options: argparse.Namespace) -> Source:
    if options.checkpoint is not None:
        if options.fusion or options.segmentation or options.head:
            raise ConfigError(
                "--fusion, --segmentation and --head do not go with --checkpoint, which is a whole network.",
                "Leave them out, or pass --autoencoder.",
            )
        return load_own(options.checkpoint)
    if options.fusion is None:
        raise ConfigError("--autoencoder needs --fusion.", "Pass the authors' FusionNet with --fusion.")
    if options.head and options.segmentation is None:
        raise ConfigError("--head needs --segmentation.", "Pass the weights of the head with --segmentation.")
    head, *pairs = options.head or ["swin_unetr"]
    return load_authors(options.autoencoder, options.fusion, options.segmentation, head, _read_options(pairs))


def _read_options(pairs: Sequence[str]) -> dict[str, Any]:
    """Read `key=value` pairs; values are JSON where they can be, otherwise text."""
    found = {}
    for pair in pairs:
        key, separator, value = pair.partition("=")
        if not key or not separator:
            raise ConfigError(f'"{pair}" is not an option of a head.', "Write KEY=VALUE, as in feature_size=24.")
        try:
            found[key] = json.loads(value)
        except json.JSONDecodeError:
            found[key] = value
    return found


def _verify(options: argparse.Namespace) -> Iterator[str]:
    verdicts = []
    for verdict in verify_bundle(Bundle.open(options.bundle), tuple(options.engine)):
        verdicts.append(verdict)
        yield _describe(verdict)
    failed = sum(verdict.failed for verdict in verdicts)
    if failed or not any(verdict.deviation for verdict in verdicts):
        raise EngineError(
            f"{failed} engines do not reproduce the golden tile." if failed else "no engine could run the bundle.",
            "Export the bundle again, or install an engine.",
        )


def _describe(verdict: Verdict) -> str:
    line = f"{verdict.engine:12} {verdict.precision:5} "
    if verdict.deviation is None:
        return line + ("FAILED: " if verdict.failed else "not here: ") + str(verdict.problem)
    return line + f"ok: largest {verdict.deviation.maximum:.1e}, root mean square {verdict.deviation.rms:.1e}"


if __name__ == "__main__":
    sys.exit(main())
