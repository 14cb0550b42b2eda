"""What the command line writes where: answers on stdout, progress and warnings on stderr."""

from __future__ import annotations

import io
import logging
import os
import signal
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager

from rmr_sdk.errors import OutputError
from rmr_sdk.watch import Progress, ProgressCallback

_STAGES = {
    "read": "Reading the study",
    "open": "Opening the bundle",
    "prepare": "Preparing",
    "infer": "Computing tiles",
    "measure": "Measuring",
    "save": "Writing",
    "cold": "Starting cold",
    "warm": "Warming up",
    "bench": "Measuring",
    "roof": "Measuring the roofs",
}


def prepare_stdout() -> None:
    """Let stdout take any text, such as a file name that is not valid Unicode."""
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="backslashreplace")


def say(text: str) -> None:
    """Print an answer at once. A reader that has left, such as `head`, is no error: the command goes on silently.

    Raises:
        OutputError: It cannot be written, on a full disk for example.
    """
    try:
        print(text, flush=True)
    except BrokenPipeError:
        _drop_stdout()
    except OSError as error:
        _drop_stdout()
        raise OutputError(
            f"standard output cannot be written: {error.strerror or error}.", "Send it to a place with room."
        ) from error


def _drop_stdout() -> None:
    """Give up what stdout still holds, so that Python does not stumble over it again at its end."""
    null = os.open(os.devnull, os.O_WRONLY)
    os.dup2(null, sys.stdout.fileno())
    os.close(null)


@contextmanager
def stop_on_sigterm() -> Iterator[None]:
    """Let SIGTERM end the body as Ctrl-C does, so that nothing half-written stays behind.

    Only the main thread may set this; elsewhere nothing changes.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return

    def stop(number: int, frame: object) -> None:
        raise KeyboardInterrupt

    before = signal.signal(signal.SIGTERM, stop)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


@contextmanager
def progress_bar() -> Iterator[ProgressCallback]:
    """Show a bar on stderr while the body runs, where stderr is a terminal.

    Yields:
        What takes the progress: `Pipeline.run` calls it, and the command for the stages around it.
    """
    if not (sys.stderr and sys.stderr.isatty()):
        yield lambda progress: None
        return
    from rich import progress as rich  # not worth its import time in a pipe
    from rich.console import Console

    columns = (rich.TextColumn("{task.description}"), rich.BarColumn(), rich.MofNCompleteColumn())
    with rich.Progress(*columns, rich.TimeElapsedColumn(), console=Console(stderr=True), transient=True) as bar:
        task = bar.add_task("")

        def show(progress: Progress) -> None:
            text, starts = _STAGES[progress.stage], progress.done == 0
            bar.update(task, description=text, completed=progress.done, total=progress.total, refresh=starts)

        yield show


class _StderrHandler(logging.Handler):
    """Writes to the stderr of the moment, which a progress bar replaces while it is shown."""

    def emit(self, record: logging.LogRecord) -> None:
        print(f"rmr: {record.levelname.lower()}: {record.getMessage()}", file=sys.stderr)


@contextmanager
def logging_to_stderr(verbose: bool) -> Iterator[None]:
    """Show the log of the SDK on stderr while the body runs: warnings, or everything from INFO up."""
    logger, handler = logging.getLogger("rmr_sdk"), _StderrHandler()
    level, propagate = logger.level, logger.propagate
    logger.addHandler(handler)
    logger.setLevel(logging.INFO if verbose else logging.WARNING)
    logger.propagate = False
    try:
        yield
    finally:
        logger.removeHandler(handler)
        logger.setLevel(level)
        logger.propagate = propagate
