"""A lock between processes, and between threads of one, that lives in a file.

The operating system gives the lock back when its process ends in any way, so a lock is never left behind. One that is
held by a process which hangs is waited for only so long.
"""

from __future__ import annotations

import contextlib
import os
import sys
import time
from collections.abc import Iterator
from pathlib import Path

_POLL_S = 0.1


class FileLock:
    """A lock in a file.

    Args:
        path: The file; it is made when the lock is taken, and removed when it is given back.
    """

    def __init__(self, path: Path) -> None:
        self._path = path

    @contextlib.contextmanager
    def held(self, timeout_s: float) -> Iterator[bool]:
        """Hold the lock.

        Args:
            timeout_s: How long to wait for another that holds it.

        Returns:
            Whether it is held: no, where the file cannot be made, or the other holds it for too long.
        """
        descriptor = self._open()
        if descriptor is None:
            yield False
            return
        taken = False
        try:
            taken = self._take(descriptor, timeout_s)
            yield taken
        finally:
            if taken:
                with contextlib.suppress(OSError):
                    self._path.unlink()  # while it is held: whoever comes next makes a file of its own
            os.close(descriptor)

    def _open(self) -> int | None:
        try:
            self._path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            return os.open(self._path, os.O_RDWR | os.O_CREAT, 0o600)
        except OSError:  # a cache that may only be read
            return None

    def _take(self, descriptor: int, timeout_s: float) -> bool:
        end = time.monotonic() + timeout_s
        while not _try_lock(descriptor):
            if time.monotonic() >= end:
                return False
            time.sleep(_POLL_S)
        return True


def _try_lock(descriptor: int) -> bool:
    try:
        if sys.platform == "win32":
            import msvcrt

            msvcrt.locking(descriptor, msvcrt.LK_NBLCK, 1)
        else:
            import fcntl

            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        return False
    return True
