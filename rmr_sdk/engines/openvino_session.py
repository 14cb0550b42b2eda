"""A compiled OpenVINO network at work: the engine that threads share, and the ring of requests of one caller.

Does not compile: `rmr_sdk.engines.openvino` does. OpenVINO itself is passed in, so that importing this costs nothing.
"""

from __future__ import annotations

import contextlib
import io
from collections import deque
from types import ModuleType, TracebackType
from typing import Any

from rmr_sdk.engines.base import REPORT, EngineInfo, Tensors
from rmr_sdk.engines.openvino_tables import Tables, pack
from rmr_sdk.errors import EngineError


class OpenVinoEngine:
    """A compiled network; see `rmr_sdk.engines.base.Engine`."""

    def __init__(self, openvino: ModuleType, compiled: Any, tables: Tables, info: EngineInfo, slots: int) -> None:
        self._openvino = openvino
        self._compiled = compiled
        self._tables = tables
        self.info = info
        self.slots = slots
        self.warnings: tuple[str, ...] = ()

    def session(self) -> OpenVinoSession:
        """Open a queue of tiles for the calling thread."""
        if self._compiled is None:
            raise EngineError("The engine has been closed.", "Open the pipeline again.")
        return OpenVinoSession(self._openvino, self._compiled, self._tables, self.slots)

    def close(self) -> None:
        """Release the network."""
        self._compiled = None

    def export(self) -> bytes:
        """Give an entry for the cache, from which it is opened again without compiling."""
        stream = io.BytesIO()
        self._compiled.export_model(stream)
        return pack(self._tables, stream.getvalue())


class OpenVinoSession:
    """A ring of inference requests; see `rmr_sdk.engines.base.Session`.

    The ring has one request more than the engine has slots, so that the outputs last collected stay untouched while
    all slots compute.
    """

    def __init__(self, openvino: ModuleType, compiled: Any, tables: Tables, slots: int) -> None:
        self._tensor = openvino.Tensor
        self._inputs = {port.get_any_name() for port in compiled.inputs} - set(tables)
        self._outputs = [port.get_any_name() for port in compiled.outputs]
        self._idle = deque(compiled.create_infer_request() for _ in range(slots + 1))
        self._tables = tables  # kept alive for as long as they are read
        for request in self._idle:
            for name, array in tables.items():
                request.set_tensor(name, self._tensor(array, shared_memory=True))
        self._flying: deque[tuple[Any, Tensors]] = deque()
        self._lent: tuple[Any, Tensors] | None = None
        self._slots = slots

    def submit(self, inputs: Tensors) -> None:
        """Start computing a tile."""
        if len(self._flying) == self._slots:
            raise EngineError(f"All {self._slots} slots of the session are in use.", "Collect a tile first.")
        if set(inputs) != self._inputs:
            raise EngineError(f"A tile needs the inputs {sorted(self._inputs)}, not {sorted(inputs)}.", REPORT)
        request = self._idle[0]
        try:
            for name, array in inputs.items():
                request.set_tensor(name, self._tensor(array, shared_memory=True))
            request.start_async()
        except (RuntimeError, ValueError) as error:
            raise EngineError(f"OpenVINO refuses the tile: {last_line(error)}.", REPORT) from error
        self._idle.popleft()
        self._flying.append((request, inputs))  # keeps the inputs alive for as long as they are read

    def collect(self) -> Tensors:
        """Wait for the oldest tile."""
        if not self._flying:
            raise EngineError("No tile of the session is in flight.", "Submit a tile first.")
        if self._lent is not None:
            self._idle.append(self._lent[0])
        self._lent = self._flying.popleft()
        request, _ = self._lent
        try:
            request.wait()
        except RuntimeError as error:
            raise EngineError(f"OpenVINO failed on a tile: {last_line(error)}.", REPORT) from error
        return {name: request.get_tensor(name).data for name in self._outputs}

    def close(self) -> None:
        """Give up the tiles in flight and release the session."""
        # The one last collected counts too: an interrupt may have ended the wait for it before its end.
        unfinished = [*self._flying] if self._lent is None else [self._lent, *self._flying]
        for request, _ in unfinished:
            request.cancel()
        for request, _ in unfinished:
            with contextlib.suppress(RuntimeError):  # how a cancelled request reports back
                request.wait()
        self._flying.clear()
        self._idle.clear()
        self._lent = None

    def __enter__(self) -> OpenVinoSession:
        """Return the session."""
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Close the session."""
        self.close()


def last_line(error: Exception) -> str:
    """Give the last line of an OpenVINO message: the ones before it name its source files."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return lines[-1].rstrip(".")[:300] if lines else type(error).__name__
