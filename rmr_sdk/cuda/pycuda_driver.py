"""pycuda as the owner of memory, streams and the context; see `rmr_sdk.cuda.driver.Driver`.

Its objects are kept here under the numbers that the driver knows them by. What pycuda does not offer goes directly to
the driver's library: graphs, asking whose an address or a stream is, and work on the streams of other libraries.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import Any

from rmr_sdk.cuda.driver import NAMES, Driver, cuda_error
from rmr_sdk.cuda.libcuda import LibCuda, load_libcuda
from rmr_sdk.errors import DeviceUnavailableError

_INVALID_VALUE, _OUT_OF_MEMORY, _LAUNCH_FAILED = 1, 2, 719
_NON_BLOCKING = 1  # CU_STREAM_*: pycuda has no name for it


def load_pycuda() -> Driver:
    """Import pycuda and initialise the driver.

    Raises:
        DeviceUnavailableError: pycuda or the driver is not there, or it finds no GPU.
    """
    library = load_libcuda()  # where the driver is missing this says so; pycuda would only fail to import
    try:
        import pycuda.driver as cuda
    except ImportError as error:
        raise DeviceUnavailableError(
            f"pycuda cannot be loaded ({error}).",
            'Install it again for this Python, or set RMR_CUDA_LIBRARY to "driver".',
            library="pycuda",
        ) from error
    return PycudaDriver(cuda, library)


class PycudaDriver(LibCuda):
    """pycuda over the driver's library; see `rmr_sdk.cuda.driver.Driver`. It serves one device.

    Args:
        cuda: The module `pycuda.driver`.
        library: The driver's library.
    """

    name = "pycuda"

    def __init__(self, cuda: Any, library: LibCuda) -> None:
        super().__init__(library.library)
        self._cuda = cuda
        self._context: Any = None
        self._owned: dict[int, Any] = {}  # by address or handle, which the driver never gives twice at a time
        with self._errors("initialising the driver"):
            cuda.init()

    def retain(self, index: int) -> int:
        """Keep the primary context of a GPU alive and return it."""
        handle = super().retain(index)
        with self._errors("opening it"):
            self._context = self._cuda.Device(index).retain_primary_context()
        return handle

    def release(self, index: int) -> None:
        """Let go of it; pycuda keeps one that another thread has opened until the process ends."""
        before = self.current()
        try:
            with self._errors("closing it"):
                self._context.detach()
        finally:
            # pycuda enters a context to detach it, and leaves that to a call which no longer does it.
            if self.current() != before:
                super().pop()
            self._context = None
            super().release(index)

    def push(self, context: int) -> None:
        """Make a context current to the calling thread."""
        with self._errors("entering its context"):
            self._context.push()

    def pop(self) -> None:
        """Make the one before current again."""
        with self._errors("leaving its context"):
            self._cuda.Context.pop()

    def allocate(self, nbytes: int) -> int:
        """Take memory of the GPU."""
        with self._errors("taking memory"):
            memory = self._cuda.mem_alloc(nbytes)
        return self._own(int(memory), memory)

    def free(self, pointer: int) -> None:
        """Give it back."""
        with self._errors("giving memory back"):
            self._owned.pop(pointer).free()

    def allocate_host(self, nbytes: int) -> int:
        """Take page-locked memory."""
        flags = self._cuda.host_alloc_flags.PORTABLE | self._cuda.host_alloc_flags.DEVICEMAP
        with self._errors("taking page-locked memory"):
            memory = self._cuda.pagelocked_empty(nbytes, "u1", mem_flags=flags)
        return self._own(memory.ctypes.data, memory.base)

    def free_host(self, pointer: int) -> None:
        """Give it back."""
        with self._errors("giving page-locked memory back"):
            self._owned.pop(pointer).free()

    def create_stream(self) -> int:
        """Make a stream."""
        with self._errors("opening a stream"):
            stream = self._cuda.Stream(_NON_BLOCKING)
        return self._own(stream.handle, stream)

    def destroy_stream(self, stream: int) -> None:
        """Give it back."""
        del self._owned[stream]

    def synchronize_stream(self, stream: int) -> None:
        """Wait for it; pycuda has no object for a stream of another library."""
        own = self._owned.get(stream)
        if own is None:
            super().synchronize_stream(stream)
        else:
            with self._errors("waiting for it"):
                own.synchronize()

    def _own(self, handle: int, thing: Any) -> int:
        self._owned[handle] = thing
        return handle

    @contextlib.contextmanager
    def _errors(self, what: str) -> Iterator[None]:
        """Turn pycuda's exceptions, which carry the driver's words but not its number, into those of the SDK."""
        try:
            yield
        except (self._cuda.Error, self._cuda.MemoryError) as error:
            words = str(error).partition(" failed: ")[2]
            codes = {self.words(code): code for code in NAMES}
            kinds = {self._cuda.MemoryError: _OUT_OF_MEMORY, self._cuda.LaunchError: _LAUNCH_FAILED}
            code = codes.get(words.partition(" - ")[0]) or kinds.get(type(error), _INVALID_VALUE)
            raise cuda_error(what, code) from error
