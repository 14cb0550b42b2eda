"""Facts about the machine and the state it is in; no names of hosts, users or folders."""

from __future__ import annotations

import os
import platform
import re
import time
from collections.abc import Sequence
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path

from rmr_sdk.bench.nvml import Nvml
from rmr_sdk.bench.results import Conditions, Machine
from rmr_sdk.engines.cores import cpu_identity, usable_cores

_PACKAGES = ("numpy", "openvino", "onnxruntime", "tensorrt", "tensorrt_rtx", "pycuda", "msgspec")
_INSTRUCTIONS = (
    *("avx2", "avx512f", "avx512_vnni", "avx512_bf16", "avx512_fp16", "amx_bf16", "amx_int8", "amx_fp16"),
    *("asimd", "asimddp", "i8mm", "bf16", "sve"),
)


def describe_machine(root: Path = Path("/"), gpu: Nvml | None = None) -> Machine:
    """Return what the machine is.

    Args:
        root: Where `proc` and `sys` are; another one in tests.
        gpu: The NVIDIA GPU, if there is one.
    """
    architecture, flags = cpu_identity()
    known = set(flags.split())
    facts = None if gpu is None else gpu.describe()
    return Machine(
        cpu=_field(root / "proc/cpuinfo", "model name") or platform.processor() or architecture,
        architecture=architecture,
        usable_cores=usable_cores(),
        logical_cores=os.cpu_count() or 1,
        instructions=tuple(name for name in _INSTRUCTIONS if name in known),
        memory_gib=_memory_gib(root),
        board=_text(root / "proc/device-tree/model").strip("\0"),
        system=f"{platform.system()} {platform.release()}",
        versions={"python": platform.python_version(), **_versions()},
        gpus=() if facts is None else (facts,),
    )


def _versions() -> dict[str, str]:
    found = {package: _version(package) for package in _PACKAGES}
    return {package: version for package, version in found.items() if version is not None}


def _version(package: str) -> str | None:
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return None


def _memory_gib(root: Path) -> float | None:
    kib = re.match(r"\d+", _field(root / "proc/meminfo", "MemTotal"))
    return round(int(kib[0]) / 2**20, 1) if kib else None


@dataclass(slots=True)
class _Times:
    """CPU time of the whole machine and of this process with its children, in seconds."""

    busy: float
    stolen: float
    total: float
    own: float


class Observer:
    """Watches the machine between `start` and `finish`, and says what went on.

    Args:
        root: Where `proc`, `sys` and `var` are; another one in tests.
        gpu: The NVIDIA GPU, if there is one.
    """

    def __init__(self, root: Path = Path("/"), gpu: Nvml | None = None) -> None:
        self._root, self._gpu = root, gpu
        self._load = _load(root)
        self._throttled = _throttle_events(root)
        self._times = _cpu_times(root)
        self._limits: dict[str, None] = {}
        self._megahertz: list[float] = []

    def look(self) -> None:
        """Note clocks and limits as they are now, between two runs."""
        self._megahertz += [value for value in [_cpu_mhz(self._root)] if value is not None]
        if self._gpu is not None:
            self._limits |= dict.fromkeys(self._gpu.limits())

    def finish(self) -> Conditions:
        """Return what went on since the watch was made."""
        self.look()
        after = _throttle_events(self._root)
        others, stolen = _shares(self._times, _cpu_times(self._root))
        gpu_now, gpu_most = (None, None) if self._gpu is None else self._gpu.clocks_mhz()
        return Conditions(
            power_mode=_power_mode(self._root),
            governor=_text(self._root / "sys/devices/system/cpu/cpu0/cpufreq/scaling_governor") or None,
            cpu_mhz=round(sum(self._megahertz) / len(self._megahertz)) if self._megahertz else None,
            cpu_max_mhz=_megahertz(self._root / "sys/devices/system/cpu/cpu0/cpufreq/cpuinfo_max_freq"),
            hottest_celsius=_hottest(self._root, self._gpu),
            throttle_events=None if after is None or self._throttled is None else after - self._throttled,
            others_share=others,
            stolen_share=stolen,
            load_before=self._load,
            gpu_mhz=gpu_now,
            gpu_max_mhz=gpu_most,
            gpu_limits=tuple(self._limits),
        )


def _shares(before: _Times | None, after: _Times | None) -> tuple[float | None, float | None]:
    """Return the parts of all CPU time that other processes and the hypervisor took."""
    if before is None or after is None or after.total <= before.total:
        return None, None
    total = after.total - before.total
    others = (after.busy - before.busy) - (after.own - before.own)
    return round(max(0.0, others / total), 4), round((after.stolen - before.stolen) / total, 4)


def _cpu_times(root: Path) -> _Times | None:
    first = _text(root / "proc/stat").partition("\n")[0].split()
    if len(first) < 9 or first[0] != "cpu":
        return None
    user, nice, system, idle, waiting, hard, soft, stolen = (
        int(ticks) / os.sysconf("SC_CLK_TCK") for ticks in first[1:9]
    )
    busy = user + nice + system + hard + soft
    mine = os.times()
    own = mine.user + mine.system + mine.children_user + mine.children_system
    return _Times(busy, stolen, busy + stolen + idle + waiting, own)


def _load(root: Path) -> float | None:
    words = _text(root / "proc/loadavg").split()
    return float(words[0]) if words else None


def _throttle_events(root: Path) -> int | None:
    folder = root / "sys/devices/system/cpu"
    counts = _integers(sorted(folder.glob("cpu[0-9]*/thermal_throttle/core_throttle_count")))
    return sum(counts) if counts else None


def _cpu_mhz(root: Path) -> float | None:
    """Return the mean clock of all cores."""
    clocks = _integers(sorted((root / "sys/devices/system/cpu").glob("cpu[0-9]*/cpufreq/scaling_cur_freq")))
    return sum(clocks) / len(clocks) / 1000 if clocks else None


def _megahertz(path: Path) -> float | None:
    found = _integers([path])
    return found[0] / 1000 if found else None


def _hottest(root: Path, gpu: Nvml | None) -> float | None:
    zones = sorted((root / "sys/class/thermal").glob("thermal_zone*/temp"))
    found = [value / 1000 for value in _integers(zones) if value > 0]
    found += [value for value in [None if gpu is None else gpu.celsius()] if value is not None]
    return round(max(found), 1) if found else None


def _power_mode(root: Path) -> str | None:
    """Return the power mode of a Jetson, as `nvpmodel` left it, such as "MODE_30W (2)"."""
    number = _text(root / "var/lib/nvpmodel/status").rpartition(":")[2].strip()
    if not number.isdigit():
        return None
    table = _text(root / "etc/nvpmodel.conf")
    name = re.search(rf"POWER_MODEL\s+ID={int(number)}\s+NAME=(\S+?)\s*>", table)
    return f"{name[1]} ({int(number)})" if name else f"mode {int(number)}"


def _integers(paths: Sequence[Path]) -> list[int]:
    """Read whole numbers; files that are not there, or not for us to read, are left out."""
    words = (_text(path) for path in paths)
    return [int(word) for word in words if re.fullmatch(r"-?[0-9]+", word)]


def _field(path: Path, name: str) -> str:
    match = re.search(rf"^{name}\s*:\s*(.*)$", _text(path), re.M)
    return match[1].strip() if match else ""


def _text(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8", errors="replace").strip()
    except OSError:
        return ""


def remarks(conditions: Conditions, elapsed_others: float = 0.05) -> tuple[str, ...]:
    """Say what makes the figures less trustworthy.

    Args:
        conditions: What went on.
        elapsed_others: Share of the CPU time above which other processes are worth a remark.
    """
    found = []
    if conditions.others_share is not None and conditions.others_share > elapsed_others:
        found.append(f"other processes took {conditions.others_share:.0%} of the CPU time: stop them and measure again")
    if conditions.stolen_share is not None and conditions.stolen_share > elapsed_others:
        found.append(f"the hypervisor took {conditions.stolen_share:.0%} of the CPU time: this machine is shared")
    if conditions.throttle_events:
        found.append(f"the CPU slowed itself down {conditions.throttle_events} times: improve the cooling")
    if conditions.gpu_limits:
        found.append(f"the GPU's clocks were held down: {', '.join(conditions.gpu_limits)}")
    if conditions.governor in ("powersave", "ondemand", "conservative"):
        found.append(f'the CPU frequency governor is "{conditions.governor}": latencies of short runs suffer')
    return tuple(found)


def now() -> str:
    """Return today's date."""
    return time.strftime("%Y-%m-%d")
