"""The command line as a process of its own: streams that close, and disks that are full."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from rmr_sdk import __version__
from rmr_sdk.cli.terminal import say
from rmr_sdk.errors import OutputError

Rmr = Callable[..., int]

needs_full_device = pytest.mark.skipif(not os.path.exists("/dev/full"), reason="no /dev/full on this system")


def process(*arguments: object, stdout: int = subprocess.PIPE) -> subprocess.CompletedProcess[str]:
    """Run the command line as a process of its own."""
    command = [sys.executable, "-m", "rmr_sdk", *map(str, arguments)]
    return subprocess.run(command, stdout=stdout, stderr=subprocess.PIPE, text=True, timeout=120, check=False)


def test_a_process_of_its_own(bundle: Path) -> None:
    assert process("--version").stdout == f"rmr {__version__}\n"
    failed = process("bundle", "verify", bundle.parent / "none.zip")
    assert failed.returncode == 4
    assert failed.stderr.startswith("rmr: BundleError: There is no bundle")


def test_a_reader_that_has_left_is_no_error(bundle: Path) -> None:
    reading, writing = os.pipe()
    os.close(reading)
    try:
        finished = process("bundle", "show", bundle, stdout=writing)
    finally:
        os.close(writing)
    assert (finished.returncode, finished.stderr) == (0, "")


@needs_full_device
def test_an_answer_that_does_not_fit_is_an_output_error(monkeypatch: pytest.MonkeyPatch) -> None:
    with open("/dev/full", "w") as full:
        monkeypatch.setattr(sys, "stdout", full)
        with pytest.raises(OutputError, match=r"No space left on device\. Send it to a place with room\."):
            say("an answer")
        say("goes nowhere, and is no second error")


@needs_full_device
def test_a_full_disk_behind_stdout_ends_with_6(bundle: Path) -> None:
    full = os.open("/dev/full", os.O_WRONLY)
    try:
        finished = process("bundle", "show", bundle, stdout=full)
    finally:
        os.close(full)
    assert finished.returncode == 6
    assert finished.stderr.startswith("rmr: OutputError: standard output cannot be written: No space left on device.")
