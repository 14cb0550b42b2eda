"""Meters of energy: what this machine's hardware says it has used, where it says anything and we may read it.

intel-rapl   /sys/class/powercap   CPU packages and memory, Intel and AMD; root only on most systems
INA3221      /sys/class/hwmon      the power rails of a Jetson, sampled and integrated
NVML                               an NVIDIA GPU's own counter
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from pathlib import Path
from types import TracebackType
from typing import Protocol

from rmr_sdk.bench.nvml import Nvml

SAMPLING_S = 0.05
"""Seconds between two looks at a rail."""
TOTAL_RAILS = ("VDD_IN", "SYS_5V0", "VIN_SYS_5V0")
"""Rails that feed the whole module, by the boards' names for them; where there is one, the others are parts of it."""


class Meter(Protocol):
    """Counts energy from the moment it is opened.

    Attributes:
        source: What it counts, for the result.
    """

    source: str

    def joules(self) -> float:
        """Return the energy since the meter was opened."""

    def close(self) -> None:
        """Stop counting."""


class RaplMeter:
    """The energy counters of a CPU's packages; they wrap around, so read them more often than once a minute or so."""

    def __init__(self, zones: list[Path]) -> None:
        names = ", ".join(_read(zone / "name") for zone in zones)
        self.source = f"RAPL: {names}"
        self._zones = zones
        self._ranges = [int(_read(zone / "max_energy_range_uj")) for zone in zones]
        self._last = self._read_all()
        self._microjoules = 0

    def joules(self) -> float:
        """Return the energy since the meter was opened."""
        now = self._read_all()
        for before, after, full in zip(self._last, now, self._ranges, strict=True):
            self._microjoules += after - before if after >= before else after - before + full
        self._last = now
        return self._microjoules / 1e6

    def close(self) -> None:
        """Do nothing: the counter runs by itself."""

    def _read_all(self) -> list[int]:
        return [int(_read(zone / "energy_uj")) for zone in self._zones]


class NvmlMeter:
    """The energy counter of an NVIDIA GPU."""

    def __init__(self, gpu: Nvml, start: float) -> None:
        self.source = "NVML: GPU board"
        self._gpu, self._start, self._last = gpu, start, start

    def joules(self) -> float:
        """Return the energy since the meter was opened."""
        self._last = self._gpu.joules() or self._last
        return self._last - self._start

    def close(self) -> None:
        """Do nothing: the counter runs by itself."""


class RailMeter:
    """Power rails, read by a thread of its own and added up over time.

    Args:
        source: What the rails are.
        watts: Reads them.
    """

    def __init__(self, source: str, watts: Callable[[], float]) -> None:
        self.source = source
        self._watts = watts
        self._lock = threading.Lock()
        self._stop = threading.Event()
        self._sum, self._power, self._when = 0.0, watts(), time.perf_counter()
        self._thread = threading.Thread(target=self._sample, name="rmr-bench-rails", daemon=True)
        self._thread.start()

    def joules(self) -> float:
        """Return the energy since the meter was opened."""
        with self._lock:
            self._add()
            return self._sum

    def close(self) -> None:
        """End the thread."""
        self._stop.set()
        self._thread.join()

    def _sample(self) -> None:
        while not self._stop.wait(SAMPLING_S):
            with self._lock:
                self._add()

    def _add(self) -> None:
        now, power = time.perf_counter(), self._watts()
        self._sum += (now - self._when) * (power + self._power) / 2
        self._power, self._when = power, now


def open_meter(device: str, root: Path = Path("/"), gpu: Nvml | None = None) -> Meter | None:
    """Return the meter that covers a device best, or None where the machine tells nothing.

    Args:
        device: "cpu", "cuda:0", ...
        root: Where `sys` is; another one in tests.
        gpu: The NVIDIA GPU, if there is one.
    """
    start = gpu.joules() if gpu is not None and device.startswith("cuda") else None
    if gpu is not None and start is not None:
        return NvmlMeter(gpu, start)
    rails = _find_rails(root)
    if rails:
        names = ", ".join(name for name, _, _ in rails)
        return RailMeter(f"INA3221: {names}", lambda: sum(_rail_watts(*rail[1:]) for rail in rails))
    zones = _find_zones(root)
    return RaplMeter(zones) if zones and not device.startswith("cuda") else None


def _find_zones(root: Path) -> list[Path]:
    """Return the RAPL zones of whole packages and of memory that may be read; cores and platform would count twice."""
    found = []
    for zone in sorted((root / "sys/class/powercap").glob("intel-rapl:*")):
        try:
            name = _read(zone / "name")
            int(_read(zone / "energy_uj"))
            int(_read(zone / "max_energy_range_uj"))
        except (OSError, ValueError):  # root only, or no counter
            continue
        if name.startswith("package") or name == "dram":
            found.append(zone)
    return found


def _find_rails(root: Path) -> list[tuple[str, Path, Path]]:
    """Return name, millivolts and milliamperes of each rail to add up."""
    rails = []
    for chip in sorted((root / "sys/class/hwmon").glob("hwmon*")):
        try:
            if not _read(chip / "name").startswith("ina3221"):
                continue
        except OSError:
            continue
        for label in sorted(chip.glob("in*_label")):
            number = label.name[2 : -len("_label")]
            volts, amperes = chip / f"in{number}_input", chip / f"curr{number}_input"
            if volts.exists() and amperes.exists():
                rails.append((_read(label), volts, amperes))
    whole = [rail for rail in rails if rail[0] in TOTAL_RAILS]
    return whole[:1] or rails


def _rail_watts(volts: Path, amperes: Path) -> float:
    return int(_read(volts)) * int(_read(amperes)) / 1e6


def _read(path: Path) -> str:
    return path.read_text(encoding="utf-8", errors="replace").strip()


class Metered:
    """Counts the energy of what happens inside `with` blocks, one meter for all of them."""

    def __init__(self, meter: Meter | None) -> None:
        self._meter = meter
        self._start = (0.0, 0.0)
        self.joules = 0.0
        self.seconds = 0.0
        self.blocks = 0

    @property
    def source(self) -> str | None:
        """Return what is counted; None where nothing is."""
        return None if self._meter is None else self._meter.source

    def __enter__(self) -> Metered:
        """Begin a block."""
        if self._meter is not None:
            self._start = (self._meter.joules(), time.perf_counter())
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """End the block."""
        if self._meter is not None:
            self.joules += self._meter.joules() - self._start[0]
            self.seconds += time.perf_counter() - self._start[1]
            self.blocks += 1
