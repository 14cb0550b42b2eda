"""NVIDIA's management library, asked through nvidia-ml-py where that is installed; without it nothing is known.

Owns the one place that imports `pynvml`. Every question has an answer or None: a board that keeps a figure to itself,
as Jetsons do, is no error.
"""

from __future__ import annotations

import importlib
import os
from collections.abc import Callable
from types import ModuleType
from typing import Any, TypeVar

from rmr_sdk.bench.results import Gpu

_Answer = TypeVar("_Answer")

MIB = 2**20

# Reasons that hold the clocks down (nvml.h: nvmlClocksEventReasons); idleness and settings of the clocks do not count.
_LIMITS = {
    0x0000000000000004: "power cap",
    0x0000000000000008: "hardware slowdown",
    0x0000000000000010: "synchronised with another GPU",
    0x0000000000000020: "software thermal slowdown",
    0x0000000000000040: "hardware thermal slowdown",
    0x0000000000000080: "power brake",
}


class Nvml:
    """One GPU.

    Args:
        index: As NVML counts, in the order of the PCI bus.
        library: What stands for `pynvml`.
    """

    def __init__(self, library: ModuleType, index: int = 0) -> None:
        self._library = library
        self._handle: Any = library.nvmlDeviceGetHandleByIndex(index)

    @classmethod
    def open(cls, index: int = 0) -> Nvml | None:
        """Return the GPU, or None without nvidia-ml-py, a driver, or such a GPU."""
        try:
            library = importlib.import_module("pynvml")
        except ImportError:
            return None
        try:
            library.nvmlInit()
            return cls(library, index)
        except library.NVMLError:
            return None

    def describe(self) -> Gpu | None:
        """Return its name, memory and driver."""
        name, memory = self._ask("nvmlDeviceGetName"), self._ask("nvmlDeviceGetMemoryInfo")
        driver = self._try(lambda: self._library.nvmlSystemGetDriverVersion())
        if name is None or memory is None:
            return None
        return Gpu(name=_text(name), memory_mib=round(memory.total / MIB), driver=_text(driver or ""))

    def joules(self) -> float | None:
        """Return the energy since the driver was loaded."""
        millijoules = self._ask("nvmlDeviceGetTotalEnergyConsumption")
        return None if millijoules is None else millijoules / 1e3

    def memory_of_this_process_mib(self) -> float | None:
        """Return what this process holds on the GPU."""
        processes = self._ask("nvmlDeviceGetComputeRunningProcesses") or ()
        mine = [process.usedGpuMemory for process in processes if process.pid == os.getpid()]
        return round(mine[0] / MIB, 1) if mine and mine[0] is not None else None

    def clocks_mhz(self) -> tuple[float | None, float | None]:
        """Return the clock of the processors, now and at most."""
        sm = self._library.NVML_CLOCK_SM
        return self._ask("nvmlDeviceGetClockInfo", sm), self._ask("nvmlDeviceGetMaxClockInfo", sm)

    def limits(self) -> tuple[str, ...]:
        """Return what holds the clocks down right now."""
        # The older name of the same question: every version of nvidia-ml-py has it.
        reasons = self._ask("nvmlDeviceGetCurrentClocksThrottleReasons") or 0
        return tuple(name for bit, name in _LIMITS.items() if reasons & bit)

    def celsius(self) -> float | None:
        """Return the temperature of the chip."""
        degrees: float | None = self._ask("nvmlDeviceGetTemperature", self._library.NVML_TEMPERATURE_GPU)
        return degrees

    def _ask(self, question: str, *arguments: object) -> Any:
        return self._try(lambda: getattr(self._library, question)(self._handle, *arguments))

    def _try(self, ask: Callable[[], _Answer]) -> _Answer | None:
        try:
            return ask()
        except self._library.NVMLError:
            return None


def _text(value: str | bytes) -> str:
    """Return a name, which old versions of nvidia-ml-py give as bytes."""
    return value.decode(errors="replace") if isinstance(value, bytes) else value
