"""A peer in a process of its own, which does one thing at a time when told to and tells its time and its memory.

    parent                              child
    {"scope": "box"} ──────────────>    runs, keeps its labels as a file
                     <──────────────    {"seconds": ..., "peak_mib": ..., "stages": {...}}

All peers are alive at the same time and wait; so runs can be interleaved, and each peer's memory is its own.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from machine import peak_bytes
from peers_study import STUDY_PEERS, FloatArray, Setting, Unavailable, silence

OURS = "rmr_sdk"


@dataclass(frozen=True)
class Task:
    """What a process is started with.

    Attributes:
        name: Of the peer, or `rmr_sdk` and a precision.
        setting: What all peers share.
        folder: Holds `box.npy` and `whole.npy` for peers, `study/` for the SDK; takes the answers.
    """

    name: str
    setting: Setting
    folder: str


class Peer:
    """A peer's process, seen from the parent."""

    def __init__(self, task: Task) -> None:
        self.name = task.name
        environment = {**os.environ, "OMP_NUM_THREADS": str(task.setting.threads), "OMP_WAIT_POLICY": "PASSIVE"}
        self._process = subprocess.Popen(
            [sys.executable, "-W", "ignore", __file__, json.dumps(asdict(task))],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env=environment,
        )
        self.ready = self._hear()

    def run(self, scope: str) -> dict[str, Any]:
        """Run the study once and return seconds, peak memory and what else it says."""
        assert self._process.stdin is not None
        with suppress(BrokenPipeError):  # it has ended: hearing nothing from it says so
            self._process.stdin.write(json.dumps({"scope": scope}) + "\n")
            self._process.stdin.flush()
        return self._hear()

    def close(self) -> None:
        """Let the process end."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        with suppress(BrokenPipeError):
            self._process.stdin.close()
        self._process.wait()
        self._process.stdout.close()

    def _hear(self) -> dict[str, Any]:
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        if not line:
            return {"unavailable": f"its process ended with {self._process.wait()}"}
        answer: dict[str, Any] = json.loads(line)
        return answer


def serve(task: Task) -> None:
    """Be the process: make the peer ready, then run whenever told to, until nobody asks any more."""
    answers = os.fdopen(os.dup(1), "w")
    silence()

    def tell(answer: dict[str, Any]) -> None:
        answers.write(json.dumps(answer) + "\n")
        answers.flush()

    folder = Path(task.folder)
    began = time.perf_counter()
    try:
        run = _open_ours(task) if task.name.startswith(OURS) else _open_peer(task)
    except (Unavailable, ImportError, RuntimeError) as error:
        lines = str(error).splitlines() or [type(error).__name__]
        tell({"unavailable": lines[0]})
        return
    tell({"ready_s": time.perf_counter() - began})
    for line in sys.stdin:
        scope = json.loads(line)["scope"]
        seconds, fused, labels, more = run(scope)
        np.save(folder / f"{task.name.replace('/', '-')}.{scope}.labels.npy", labels)
        np.save(folder / f"{task.name.replace('/', '-')}.{scope}.fused.npy", fused)
        tell({"seconds": seconds, "peak_mib": round(peak_bytes() / 2**20), **more})


Serve = Callable[[str], tuple[float, FloatArray, Any, dict[str, Any]]]


def _open_peer(task: Task) -> Serve:
    peer = STUDY_PEERS[task.name]
    run_on = peer.open(task.setting)

    def run(scope: str) -> tuple[float, FloatArray, Any, dict[str, Any]]:
        inputs = np.load(Path(task.folder) / f"{scope}.npy")
        began = time.perf_counter()
        fused, labels = run_on(inputs)
        return time.perf_counter() - began, fused, labels, {}

    return run


def _open_ours(task: Task) -> Serve:
    from rmr_sdk import Pipeline, RmrError, Study

    setting, precision = task.setting, task.name.rpartition(" ")[2]
    device = "auto" if setting.device == "cpu" else setting.device
    try:
        pipeline = Pipeline.open(setting.bundle, device=device, precision=precision, threads=setting.threads)
    except RmrError as error:
        raise Unavailable(str(error)) from error
    study = Study.from_folder(Path(task.folder) / "study")

    def run(scope: str) -> tuple[float, FloatArray, Any, dict[str, Any]]:
        began = time.perf_counter()
        result = pipeline.run(study, overlap=setting.overlap)
        seconds = time.perf_counter() - began
        assert result.labels is not None
        more = {"stages": dict(result.timings), "engine": result.provenance.engine_reason}
        return seconds, result.fused.data, result.labels.data, more

    return run


if __name__ == "__main__":
    fields = json.loads(sys.argv[1])
    shared = fields.pop("setting")
    serve(Task(setting=Setting(**{**shared, "tile_shape": tuple(shared["tile_shape"])}), **fields))
