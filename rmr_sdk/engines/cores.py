"""The CPU under this process: how many cores it may use, and which kind they are. Does not start threads."""

from __future__ import annotations

import math
import os
import platform
from pathlib import Path

_TOPOLOGY = "/sys/devices/system/cpu/cpu{}/topology/thread_siblings_list"
_QUOTA = Path("/sys/fs/cgroup/cpu.max")


def usable_cores() -> int:
    """Count the cores to compute on; at least 1.

    Two hyper-threads of one core count once, since they share the units that convolutions keep busy. A container's
    CPU quota counts, since threads beyond it only wait.
    """
    return max(1, min(_physical_cores(), _quota()))


def cpu_identity() -> list[str]:
    """Name the kind of CPU by what it can execute, for cache keys."""
    try:
        with open("/proc/cpuinfo", encoding="ascii", errors="replace") as file:
            flags = next((line.strip() for line in file if line.startswith(("flags", "Features"))), "")
    except OSError:
        flags = platform.processor()
    return [platform.machine(), flags]


def _physical_cores() -> int:
    if not hasattr(os, "sched_getaffinity"):
        return os.cpu_count() or 1
    cpus = os.sched_getaffinity(0)
    try:
        return len({Path(_TOPOLOGY.format(cpu)).read_text() for cpu in cpus})
    except OSError:
        return len(cpus)


def _quota() -> int:
    try:
        quota, period = _QUOTA.read_text().split()
        return math.ceil(int(quota) / int(period))
    except (OSError, ValueError):  # no cgroup v2, or "max": no quota
        return os.cpu_count() or 1
