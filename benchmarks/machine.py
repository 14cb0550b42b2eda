"""Facts about the machine that a measurement was taken on; no names of hosts, users or paths."""

from __future__ import annotations

import os
import platform
import re
from datetime import date
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import numpy as np

RESULTS = Path(__file__).parent / "results"

_LIBRARIES = ("numpy", "openvino", "onnxruntime", "torch", "monai", "torchio", "SimpleITK")
_VECTOR_FLAGS = ("avx2", "avx512f", "avx512_vnni", "avx512_bf16", "amx_bf16", "amx_int8")


def machine_facts() -> dict[str, Any]:
    """Return processor, memory, system, library versions and how busy the machine was just now."""
    return {
        "cpu": _cpu_field("model name") or platform.processor() or platform.machine(),
        "cores": os.cpu_count(),
        "vector_extensions": [flag for flag in _VECTOR_FLAGS if flag in _cpu_field("flags").split()],
        "memory_gib": round(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30, 1),
        "system": f"{platform.system()} {platform.release()} {platform.machine()}",
        "python": platform.python_version(),
        "libraries": {name: found for name in _LIBRARIES if (found := _version(name))},
        "load_average": [round(load, 2) for load in os.getloadavg()],
    }


def result_path(kind: str) -> Path:
    """Return where today's result of a kind, such as "pipeline", is kept for this machine's processor."""
    return RESULTS / f"cpu-{os.cpu_count()}core-{date.today().isoformat()}-{kind}.json"


def copy_bandwidth(threads: int, repeats: int = 7) -> float:
    """Return the bytes per second, read plus written, of the fastest of some large copies on all threads."""
    from concurrent.futures import ThreadPoolExecutor
    from time import perf_counter

    source = np.ones(2**26, np.float32)
    target = np.empty_like(source)
    pieces = list(zip(np.array_split(target, threads), np.array_split(source, threads), strict=True))
    best = float("inf")
    with ThreadPoolExecutor(threads) as pool:
        for _ in range(repeats + 1):
            started = perf_counter()
            list(pool.map(lambda pair: np.copyto(*pair), pieces))
            best = min(best, perf_counter() - started)
    return 2 * source.nbytes / best


def reset_peak() -> int:
    """Forget the peak memory of this process so far; return its resident bytes."""
    Path("/proc/self/clear_refs").write_text("5")
    return _status_bytes("VmRSS")


def peak_bytes() -> int:
    """Return the peak resident bytes since `reset_peak`."""
    return _status_bytes("VmHWM")


def _status_bytes(field: str) -> int:
    match = re.search(rf"{field}:\s+(\d+) kB", Path("/proc/self/status").read_text())
    if match is None:
        raise RuntimeError(f"/proc/self/status has no {field}: peak memory can be measured on Linux only")
    return 1024 * int(match[1])


def _cpu_field(name: str) -> str:
    path = Path("/proc/cpuinfo")
    match = re.search(rf"^{name}\s*:\s*(.*)$", path.read_text(), re.M) if path.exists() else None
    return match[1] if match else ""


def _version(name: str) -> str | None:
    try:
        return version(name)
    except PackageNotFoundError:
        return None
