"""`rmr doctor`: print what `rmr_sdk.doctor` finds."""

from __future__ import annotations

import argparse

from rmr_sdk.cli.terminal import say
from rmr_sdk.doctor import encode_checkup, examine
from rmr_sdk.errors import DeviceError


def add_parser(
    commands: argparse._SubParsersAction[argparse.ArgumentParser], everywhere: argparse.ArgumentParser
) -> None:
    """Add the command to the grammar."""
    about = "Say what this machine has, which engine each bundle gets here, and whether the default one runs."
    parser = commands.add_parser("doctor", help=about, description=about, parents=[everywhere], allow_abbrev=False)
    parser.add_argument("--json", action="store_true", help="print JSON")
    parser.set_defaults(command=_doctor)


def _doctor(options: argparse.Namespace) -> int:
    checkup = examine()
    say(encode_checkup(checkup).decode().rstrip("\n") if options.json else str(checkup))
    return 0 if checkup.healthy else DeviceError.exit_code
