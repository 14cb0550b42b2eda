"""The primary context of a GPU, and how whatever lives in it is given back exactly once.

A resource is given back when its owner says so, when the device closes, or with the last reference to it, whichever
comes first. The context itself goes with the last of its resources, so that a page-locked array may outlive its device.
"""

from __future__ import annotations

import contextlib
import logging
import threading
import weakref
from collections.abc import Callable, Iterator

from rmr_sdk.cuda.driver import Driver
from rmr_sdk.errors import DeviceError

logger = logging.getLogger(__name__)


class Context:
    """The primary context of a GPU, kept alive while anything uses it.

    Raises:
        DeviceError: The GPU cannot be opened.
    """

    def __init__(self, driver: Driver, index: int) -> None:
        self.driver = driver
        self.index = index
        self.handle = driver.retain(index)
        self._users = 1
        self._lock = threading.Lock()

    @contextlib.contextmanager
    def active(self) -> Iterator[None]:
        """Make it current to the calling thread."""
        self.driver.push(self.handle)
        try:
            yield
        finally:
            # A lost GPU refuses this too, and must not hide the error that says so.
            with contextlib.suppress(DeviceError):
                self.driver.pop()

    def own(self, holder: object, give_back: Callable[[int], None], handle: int) -> weakref.finalize[..., object]:
        """Give a resource back with `holder`, or when the returned function is called first.

        Args:
            holder: Object that the resource lives with.
            give_back: The driver's call for it.
            handle: What the call takes.
        """
        with self._lock:
            self._users += 1
        finalizer = weakref.finalize(holder, self._give_back, give_back, handle)
        finalizer.atexit = False  # the driver may be gone by then, and takes everything with it
        return finalizer

    def drop(self) -> None:
        """Let go of the context; it is released with its last resource."""
        with self._lock:
            self._users -= 1
            last = self._users == 0
        if last:
            self._quietly(self.driver.release, self.index)

    def _give_back(self, give_back: Callable[[int], None], handle: int) -> None:
        try:
            with self.active():
                self._quietly(give_back, handle)
        except DeviceError as error:
            logger.warning("A resource of the GPU could not be given back: %s", str(error))
        finally:
            self.drop()

    @staticmethod
    def _quietly(call: Callable[[int], None], handle: int) -> None:
        """Give something back; a GPU that was lost refuses, and has forgotten it anyway."""
        try:
            call(handle)
        except DeviceError as error:
            logger.warning("A resource of the GPU could not be given back: %s", str(error))
