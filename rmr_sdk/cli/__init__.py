"""The command line `rmr`: one module per command; this one owns the root of the grammar, errors and exit codes.

What was asked for goes to stdout. Progress (on a terminal only), warnings and errors go to stderr, an error as one
line. docs/cli.md has the options and the exit codes.
"""

from __future__ import annotations

import argparse
import sys
import traceback
from collections.abc import Sequence

from rmr_sdk._version import __version__
from rmr_sdk.cli import batch, bench, bundle, demo, doctor, run, study
from rmr_sdk.cli.terminal import logging_to_stderr, prepare_stdout, stop_on_sigterm
from rmr_sdk.errors import Cancelled, DeviceMemoryError, RmrError
from rmr_sdk.manifest import INTENDED_USE

__all__ = ["main"]


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command.

    Args:
        arguments: What follows `rmr`; None for that of the process.

    Returns:
        The exit code: 0 done, 3 input, 4 bundle, 5 engine or device, 6 output, 130 cancelled.

    Raises:
        SystemExit: With 2 where the arguments cannot be parsed, with 0 after `--help` and `--version`.
    """
    prepare_stdout()
    options = _build_parser().parse_args(arguments)
    debug = getattr(options, "debug", False)
    try:
        with logging_to_stderr(verbose=debug), stop_on_sigterm():
            code: int = options.command(options)
            return code
    except RmrError as error:
        return _fail(error, debug)
    except MemoryError:
        return _fail(
            DeviceMemoryError("the study does not fit in memory.", "Check its size, or use a larger machine."), debug
        )
    except KeyboardInterrupt:
        return _fail(Cancelled("the command was interrupted."), debug)


def _build_parser() -> argparse.ArgumentParser:
    everywhere = argparse.ArgumentParser(add_help=False)
    everywhere.add_argument(
        "--debug", action="store_true", default=argparse.SUPPRESS, help="log choices, and show where an error arose"
    )
    parser = argparse.ArgumentParser(
        prog="rmr",
        description=f"Fuse T1 and FLAIR into one volume and find MS lesions. {INTENDED_USE}",
        epilog="Exit codes: 0 done, 2 command line, 3 input, 4 bundle, 5 engine or device, 6 output, 130 cancelled.",
        parents=[everywhere],
        allow_abbrev=False,
    )
    parser.add_argument("--version", action="version", version=f"rmr {__version__}")
    commands = parser.add_subparsers(metavar="COMMAND", required=True)
    for command in (run, demo, batch, study, bench, doctor, bundle):
        command.add_parser(commands, everywhere)
    return parser


def _fail(error: RmrError, debug: bool) -> int:
    """Say on one line of stderr what went wrong; return the exit code."""
    if debug:
        traceback.print_exc()
    print(f"rmr: {type(error).__name__}: {' '.join(str(error).split())}", file=sys.stderr)
    return error.exit_code
