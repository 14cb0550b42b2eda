"""What watches over a run: the caller's progress callback, its deadline, and the clock of the stages."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

from rmr_sdk.errors import Cancelled, ConfigError, DeadlineExceeded


@dataclass(frozen=True, slots=True)
class Progress:
    """How far a run has come.

    Attributes:
        stage: "prepare", "infer" or "measure".
        done: Steps of the stage that are finished.
        total: Steps of the stage in all.
    """

    stage: str
    done: int
    total: int


ProgressCallback = Callable[[Progress], object]
"""Called with the progress; a return value that is False, and nothing else, cancels the run."""


class Watch:
    """Tells the caller how far a run is, and stops it when the caller or the clock says so.

    Args:
        report: Called at every step; None for nobody.
        deadline_s: Seconds from now by which the run must be done; None for no deadline.

    Raises:
        ConfigError: The deadline is not a positive number.
    """

    def __init__(self, report: ProgressCallback | None = None, deadline_s: float | None = None) -> None:
        if deadline_s is not None and not 0 < deadline_s < math.inf:
            raise ConfigError(f"deadline_s is {deadline_s}.", "Pass a positive number of seconds, or None for none.")
        self._report = report
        self._deadline_s = deadline_s
        self._started = time.monotonic()

    def tell(self, stage: str, done: int, total: int) -> None:
        """Report progress; the place where a run can end early.

        Raises:
            Cancelled: The callback returned False.
            DeadlineExceeded: The deadline has passed.
        """
        if self._report is not None and self._report(Progress(stage, done, total)) is False:
            raise Cancelled(f"the run was cancelled during {stage!r} ({done} of {total}).", stage=stage, done=done)
        if self._deadline_s is not None and time.monotonic() - self._started > self._deadline_s:
            raise DeadlineExceeded(
                f"the deadline of {self._deadline_s:g} s passed during {stage!r} ({done} of {total}).",
                "Allow more time, or choose a smaller overlap; Pipeline.plan says what a run takes.",
                stage=stage,
                done=done,
                deadline_s=self._deadline_s,
            )


@dataclass(slots=True)
class Stopwatch:
    """Wall-clock seconds by stage, added up over all times a stage was entered."""

    seconds: dict[str, float] = field(default_factory=dict)

    @contextmanager
    def __call__(self, stage: str) -> Iterator[None]:
        """Time a `with` block as part of a stage."""
        started = time.perf_counter()
        try:
            yield
        finally:
            self.seconds[stage] = self.seconds.get(stage, 0.0) + time.perf_counter() - started
