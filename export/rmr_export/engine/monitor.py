"""What a builder says while it works: its log, kept, and its progress.

The bindings want subclasses of their own classes, which exist only once a runtime is imported: so classes are made here
by functions that are given its module.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

Progress = Callable[[str, int, int], None]
"""Told of a phase of the build: its name, steps done, steps in all."""


def make_log(trt: Any) -> Any:
    """Make a logger that keeps everything: the plan of an engine stands in its verbose messages.

    Args:
        trt: The bindings.

    Returns:
        An `ILogger` with the lists `messages`, all of them, and `errors`, those that say why a build failed.
    """

    class KeepingLog(trt.ILogger):  # type: ignore[misc]  # the base is known at run time only
        def __init__(self) -> None:
            trt.ILogger.__init__(self)
            self.messages: list[str] = []
            self.errors: list[str] = []

        def log(self, severity: Any, message: str) -> None:
            self.messages.append(message)
            if severity in (trt.ILogger.ERROR, trt.ILogger.INTERNAL_ERROR):
                self.errors.append(" ".join(message.split()))

    return KeepingLog()


def make_monitor(trt: Any, progress: Progress) -> Any:
    """Make a progress monitor that tells of every phase.

    Args:
        trt: The bindings.
        progress: Is called at the start, after each step and at the end of a phase.

    Returns:
        An `IProgressMonitor`. Builders call it from threads of their own.
    """

    class TellingMonitor(trt.IProgressMonitor):  # type: ignore[misc]
        def __init__(self) -> None:
            trt.IProgressMonitor.__init__(self)
            self.steps: dict[str, int] = {}

        def phase_start(self, phase_name: str, parent_phase: str | None, num_steps: int) -> None:
            self.steps[phase_name] = num_steps
            progress(phase_name, 0, num_steps)

        def step_complete(self, phase_name: str, step: int) -> bool:
            progress(phase_name, min(step + 1, self.steps[phase_name]), self.steps[phase_name])
            return True  # False would stop the build

        def phase_finish(self, phase_name: str) -> None:
            steps = self.steps.pop(phase_name)
            progress(phase_name, steps, steps)

    return TellingMonitor()
