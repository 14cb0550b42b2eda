"""The log of a run: one CSV line every few steps, with speed and the share of time spent waiting for samples."""

from __future__ import annotations

import csv
import time
from collections.abc import Mapping
from pathlib import Path


class StepLog:
    """Writes `log.csv`.

    Args:
        path: File to append to.
        patches: Patches a step, all processes together.
    """

    def __init__(self, path: Path, patches: int) -> None:
        self.path, self.patches = path, patches
        self._started, self._waiting = time.perf_counter(), 0.0
        self._steps: int | None = None

    def waited(self, seconds: float) -> None:
        """Count time in which the network had no sample to work on."""
        self._waiting += seconds

    def write(self, step: int, loss: float, rate: float) -> None:
        """Append a line about the steps since the last one."""
        elapsed = time.perf_counter() - self._started
        done = step - self._steps if self._steps is not None else None
        self.append(
            self.path,
            {
                "step": step,
                "loss": f"{loss:.4f}",
                "rate": f"{rate:.2e}",
                "seconds": f"{elapsed:.1f}",
                "patches_per_s": "" if done is None else f"{done * self.patches / elapsed:.2f}",
                "waiting_share": f"{self._waiting / elapsed:.3f}",
            },
        )
        self._started, self._waiting, self._steps = time.perf_counter(), 0.0, step

    @staticmethod
    def append(path: Path, row: Mapping[str, object]) -> None:
        """Append a row to a CSV file, with a header where it is new."""
        new = not path.exists()
        with path.open("a", newline="") as file:
            writer = csv.DictWriter(file, list(row))
            if new:
                writer.writeheader()
            writer.writerow(row)
