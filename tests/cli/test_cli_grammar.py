"""The grammar of the command line: help for every command, and docs/cli.md in step with it."""

from __future__ import annotations

import argparse
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from rmr_sdk.cli import _build_parser, main

DOCS = Path(__file__).parents[2] / "docs" / "cli.md"


def commands(parser: argparse.ArgumentParser, name: str = "rmr") -> Iterator[tuple[str, argparse.ArgumentParser]]:
    """Give every command that has none below it."""
    below = [action for action in parser._actions if isinstance(action, argparse._SubParsersAction)]
    if not below:
        yield name, parser
    for action in below:
        for word, child in action.choices.items():
            yield from commands(child, f"{name} {word}")


COMMANDS = dict(commands(_build_parser()))


def test_the_commands() -> None:
    assert list(COMMANDS) == [
        "rmr run",
        "rmr demo",
        "rmr batch",
        "rmr study show",
        "rmr bench",
        "rmr doctor",
        "rmr bundle list",
        "rmr bundle show",
        "rmr bundle verify",
    ]


@pytest.mark.parametrize("command", COMMANDS)
def test_help(command: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as caught:
        main([*command.split()[1:], "--help"])
    assert caught.value.code == 0
    printed = capsys.readouterr().out
    assert f"usage: {command}" in printed
    assert "--debug" in printed


@pytest.mark.parametrize("command", COMMANDS)
def test_the_documentation_names_every_command_and_option(command: str) -> None:
    text = DOCS.read_text(encoding="utf-8")
    assert command in text
    options = {option for action in COMMANDS[command]._actions for option in action.option_strings}
    assert {option for option in options if option.startswith("--")} - {"--help"} <= set(
        re.findall(r"--[a-z0-9-]+", text)
    )


def test_the_documentation_says_which_options_of_run_the_demo_lacks() -> None:
    run, demo = (
        {option for action in COMMANDS[command]._actions for option in action.option_strings}
        for command in ("rmr run", "rmr demo")
    )
    section = DOCS.read_text(encoding="utf-8").split("## rmr demo")[1].split("\n## ")[0]
    assert set(re.findall(r"--[a-z0-9-]+", section.split("It does not take")[1])) == run - demo


def test_the_documentation_names_no_option_that_is_gone() -> None:
    options = {option for parser in COMMANDS.values() for action in parser._actions for option in action.option_strings}
    assert set(re.findall(r"--[a-z][a-z0-9-]+", DOCS.read_text(encoding="utf-8"))) <= options
