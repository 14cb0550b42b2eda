"""What a fresh process of the benchmark does: open a bundle, compute a tile, run a study, and tell times and memory.

`rmr_sdk.bench.cold` starts it. Imported after the clock of the import has stopped, so it must not be imported before.
"""

from __future__ import annotations

import re
import sys
import time
from pathlib import Path
from typing import Any

import msgspec

from rmr_sdk import Pipeline, Study
from rmr_sdk.bench.nvml import Nvml


def main(started: float, imported: float) -> None:
    """Do what the JSON on standard input says, and write what was found to standard output.

    Args:
        started: Seconds of the system's clock when the interpreter ran its first line.
        imported: The same when `rmr_sdk` was imported.
    """
    task: dict[str, Any] = msgspec.json.decode(sys.stdin.buffer.read())
    found = work(task["open"], task["study"], task["overlap"])
    found |= {"started": started, "imported": imported}
    sys.stdout.buffer.write(msgspec.json.encode(found) + b"\n")


def work(options: dict[str, Any], study: str | None, overlap: float) -> dict[str, Any]:
    """Open, compute a tile, and run a study if there is one.

    Args:
        options: Of `Pipeline.open`.
        study: Folder; None for no study.
        overlap: Of the study's tiles.

    Returns:
        Seconds `open_s` and `first_tile_s`, and `host_mib` and `device_mib` of `rmr_sdk.bench.results.Memory`.
    """
    memory = {"imported": peak_mib()}
    began = time.perf_counter()
    with Pipeline.open(**options) as pipeline:
        opened = time.perf_counter()
        pipeline.warmup()
        computed = time.perf_counter()
        memory["opened"] = peak_mib()
        device_mib = None
        if study is not None:
            loaded = Study.from_folder(study)
            memory["read"] = peak_mib()
            pipeline.run(loaded, overlap=overlap)
            memory["ran"] = peak_mib()
            gpu = Nvml.open() if pipeline.engine_info.device.startswith("cuda") else None
            device_mib = None if gpu is None else gpu.memory_of_this_process_mib()
    return {
        "open_s": opened - began,
        "first_tile_s": computed - opened,
        "host_mib": memory,
        "device_mib": device_mib,
    }


def peak_mib(status: Path = Path("/proc/self/status")) -> float:
    """Return the peak resident memory of this process."""
    try:
        match = re.search(r"VmHWM:\s+(\d+) kB", status.read_text(encoding="ascii", errors="replace"))
    except OSError:
        match = None
    if match is not None:
        return round(int(match[1]) / 1024, 1)
    import resource  # not on Windows

    # This figure may be that of the process that started us, where it was larger.
    unit = 2**20 if sys.platform == "darwin" else 2**10
    return round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / unit, 1)
