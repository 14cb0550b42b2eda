"""Which GPUs there are, and what each is. Opens none of them."""

from __future__ import annotations

import re
from pathlib import Path

from rmr_sdk.cuda.base import DeviceInfo
from rmr_sdk.cuda.driver import UPDATE_DRIVER, Driver, find_driver, version_text
from rmr_sdk.errors import DeviceUnavailableError

_VERSION_FILE = Path("/proc/driver/nvidia/version")


def list_devices() -> tuple[DeviceInfo, ...]:
    """Describe the GPUs that the process sees, without opening them.

    Raises:
        DeviceUnavailableError: There is no NVIDIA driver, it is too old, or it finds no GPU.
    """
    driver = find_driver()
    found = tuple(describe(driver, index) for index in range(driver.count()))
    if not found:
        raise DeviceUnavailableError("The NVIDIA driver finds no GPU.", UPDATE_DRIVER)
    return found


def describe(driver: Driver, index: int) -> DeviceInfo:
    """Describe a GPU by its number."""
    name, capability, multiprocessors, integrated, total = driver.describe(index)
    version = version_text(driver.version()) + _kernel_module()
    return DeviceInfo(index, name, capability, multiprocessors, integrated, total, version)


def _kernel_module() -> str:
    """Give the driver's own version in brackets; "" where it does not say it."""
    try:
        found = re.search(r"Kernel Module.*?\s(\d+(?:\.\d+)+)\s", _VERSION_FILE.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError):
        return ""
    return f" ({found[1]})" if found else ""
