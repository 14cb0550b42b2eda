"""A CUDA driver on host memory: compiles `fake_libcuda.c` and puts it in the place of the driver's own library.

Nothing of the product is replaced: the whole way from `open_device` to the driver's functions runs.
"""

from __future__ import annotations

import ctypes
import os
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path

SOURCE = Path(__file__).with_name("fake_libcuda.c")
TYPES = ("memory", "host", "streams", "events", "graphs", "retained")


def compiler() -> str | None:
    """Give a C compiler, or None."""
    return next((path for name in ("cc", "gcc", "clang") if (path := shutil.which(name))), None)


def build(folder: Path) -> Path:
    """Compile the driver."""
    target = folder / "libfakecuda.so"  # without the driver's own name, by which others in this process would find it
    flags = ["-shared", "-fPIC", "-O1", "-o", os.fspath(target), os.fspath(SOURCE)]
    subprocess.run([compiler() or "cc", *flags, "-lpthread"], check=True, timeout=120)
    return target


class FakeCuda:
    """What a test says to the driver, and asks it."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.library = ctypes.CDLL(os.fspath(path))
        self.library.fake_used.restype = ctypes.c_size_t
        self._callbacks: list[object] = []
        self.library.fake_reset()
        self.forget()

    def configure(self, gpus: int = 1, version: int = 13000, integrated: bool = False, mib: float = 8192) -> None:
        """Say what the driver finds."""
        self.library.fake_configure(gpus, version, int(integrated), ctypes.c_size_t(int(mib * 2**20)))

    def fail(self, function: str, code: int, after: int = 0) -> None:
        """Let a function fail from its call number `after` on; "" lets none."""
        self.library.fake_fail(function.encode(), code, after)

    def live(self) -> dict[str, int]:
        """Count what has been made and not given back."""
        return {name: self.library.fake_live(number) for number, name in enumerate(TYPES)}

    @property
    def depth(self) -> int:
        """Return how many contexts the calling thread is in."""
        return int(self.library.fake_depth())

    @property
    def used(self) -> int:
        """Return the bytes of device memory in use."""
        return int(self.library.fake_used())

    def enqueue(self, stream: int, work: Callable[[], None]) -> None:
        """Queue work of the test's own, as a library that launches kernels does."""
        callback = ctypes.CFUNCTYPE(None, ctypes.c_void_p)(lambda _: work())
        self._callbacks.append(callback)  # C holds it for as long as a graph may run it
        self.library.fake_enqueue(ctypes.c_void_p(stream), callback, None)

    def forget(self) -> None:
        """Count anew: what a lost GPU held is gone without having been given back."""
        self.library.fake_forget()
