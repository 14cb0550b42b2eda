"""A loaded TensorRT network: its inputs and outputs, what it needs of the GPU, and contexts that run it.

Activations lie in memory that the SDK gives, so that too little of it is known before the first tile. A context runs
one tile at a time; the network itself is shared by all of them.
"""

from __future__ import annotations

import math
import threading
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, cast

import numpy as np
from numpy.typing import NDArray

from rmr_sdk.cuda.base import Device, DeviceArray, Stream
from rmr_sdk.engines.tensorrt_api import (
    CudaEngine,
    ExecutionContext,
    RtxCudaEngine,
    RtxExecutionContext,
    RtxRuntime,
    Runtime,
)
from rmr_sdk.engines.tensorrt_library import Library, check_validity, explain
from rmr_sdk.errors import DeviceMemoryError, EngineError, EngineMismatchError

_MIB = 2**20


@dataclass(frozen=True, slots=True)
class Port:
    """An input or an output: name, shape and type."""

    name: str
    shape: tuple[int, ...]
    dtype: np.dtype[Any]
    is_input: bool

    @property
    def nbytes(self) -> int:
        """Return the bytes of its array."""
        return math.prod(self.shape) * self.dtype.itemsize


class Network:
    """An engine of TensorRT in the memory of a GPU.

    Args:
        library: The runtime.
        device: Where it computes; stays open as long as this.
        data: The engine's bytes.
        tables: Values of the inputs that are the same for every tile.
        jit: What `jit_cache` gave earlier, for TensorRT-RTX.

    Raises:
        EngineMismatchError: The engine is of another version or GPU, or lacks the value of an input.
        EngineError: The bytes cannot be loaded.
        DeviceMemoryError: The GPU has too little memory.
    """

    def __init__(
        self,
        library: Library,
        device: Device,
        data: bytes,
        tables: Mapping[str, NDArray[Any]],
        jit: bytes | None = None,
    ) -> None:
        self._library = library
        self._log = library.make_log()
        self._lock = threading.Lock()
        self._runtime: Runtime | None = None
        self.device = device
        free = device.free_bytes()
        if free < len(data):
            raise DeviceMemoryError(
                f"The GPU has too little memory: the engine needs {len(data) / _MIB:.0f} MiB for its weights, and "
                f"{free / _MIB:.0f} MiB are free.",
                "Close other programs that use the GPU.",
                needed=len(data),
                free=free,
            )
        with device.activate():
            self._engine: CudaEngine | None = self._load(data)
            self._config, self._jit = self._configure(jit)
            self.ports = tuple(self._port(index) for index in range(self._engine.num_io_tensors))
            self.scratch_bytes = int(self._engine.device_memory_size_v2)
        self._tables = self._upload(tables)

    @property
    def inputs(self) -> tuple[Port, ...]:
        """Return the inputs that change from tile to tile."""
        return tuple(port for port in self.ports if port.is_input and port.name not in self._tables)

    @property
    def outputs(self) -> tuple[Port, ...]:
        """Return the outputs."""
        return tuple(port for port in self.ports if not port.is_input)

    def execution(self) -> Execution:
        """Make a context of its own for a session.

        Raises:
            DeviceMemoryError: The GPU has too little memory for its activations.
            EngineError: TensorRT refuses.
        """
        scratch = self.device.allocate((max(1, self.scratch_bytes),), np.uint8)
        try:
            with self._lock, self.device.activate():
                context = cast(CudaEngine, self._engine).create_execution_context(self._config)
                if context is None:
                    raise explain(self._library, "cannot make an execution context", self._log)
                context.set_device_memory(scratch.pointer, max(1, self.scratch_bytes))
                for name, table in self._tables.items():
                    context.set_tensor_address(name, table.pointer)
        except BaseException:
            scratch.free()
            raise
        return Execution(self._library, self.device, context, scratch, self._log)

    def jit_cache(self) -> bytes | None:
        """Give the kernels that TensorRT-RTX has compiled here, for the next opening; None with TensorRT."""
        if self._jit is None:
            return None
        with self._lock, self.device.activate():
            return bytes(cast(Any, self._jit.serialize()))

    def close(self) -> None:
        """Release it; close its executions first."""
        for table in self._tables.values():
            table.free()
        if self._engine is not None:
            with self.device.activate():
                self._engine = self._config = self._jit = self._runtime = None

    def _load(self, data: bytes) -> CudaEngine:
        try:
            runtime = self._library.trt.Runtime(self._log)
        except (RuntimeError, TypeError) as error:
            raise explain(self._library, "cannot start", self._log) from error
        if runtime is None:
            raise explain(self._library, "cannot start", self._log)
        if hasattr(runtime, "get_engine_validity"):
            check_validity(self._library, cast(RtxRuntime, runtime), data, self._log)
        engine = runtime.deserialize_cuda_engine(data)
        if engine is None:
            raise explain(self._library, "cannot load the engine", self._log)
        self._runtime = runtime  # TensorRT wants it to outlive its engines
        return engine

    def _configure(self, jit: bytes | None) -> tuple[Any, Any]:
        """Say who gives contexts their memory; with TensorRT-RTX also where its compiled kernels are kept."""
        user = self._library.trt.ExecutionContextAllocationStrategy.USER_MANAGED
        if not self._library.targets:
            return user, None
        config = cast(RtxCudaEngine, self._engine).create_runtime_config()
        config.set_execution_context_allocation_strategy(user)
        cache = config.create_runtime_cache()
        if jit is not None:
            cache.deserialize(jit)  # one that does not fit is refused, and its kernels are compiled again
        config.set_runtime_cache(cache)
        return config, cache

    def _port(self, index: int) -> Port:
        engine, trt = cast(CudaEngine, self._engine), self._library.trt
        kinds = {
            trt.DataType.FLOAT: np.float32,
            trt.DataType.HALF: np.float16,
            trt.DataType.INT32: np.int32,
            trt.DataType.UINT8: np.uint8,
        }
        name = engine.get_tensor_name(index)
        kind = engine.get_tensor_dtype(name)
        if kind not in kinds:
            raise EngineMismatchError(
                f'"{name}" of the engine is of type {kind}, which the SDK does not exchange.',
                "Export the bundle again.",
                name=name,
            )
        shape = tuple(int(length) for length in engine.get_tensor_shape(name))
        return Port(name, shape, np.dtype(kinds[kind]), engine.get_tensor_mode(name) == trt.TensorIOMode.INPUT)

    def _upload(self, tables: Mapping[str, NDArray[Any]]) -> dict[str, DeviceArray]:
        """Put the tables where the network reads them; those that an engine has folded are not needed."""
        ports = {port.name: port for port in self.ports if port.is_input}
        wanted = {name: table for name, table in tables.items() if name in ports}
        uploaded: dict[str, DeviceArray] = {}
        stream = self.device.stream()
        for name, table in wanted.items():
            if (table.shape, table.dtype) != (ports[name].shape, ports[name].dtype):
                raise EngineMismatchError(
                    f'Table "{name}" of the engine is {ports[name].dtype} {ports[name].shape}, and of the graph '
                    f"{table.dtype} {table.shape}.",
                    "Build the engine again from this graph.",
                    name=name,
                )
            uploaded[name] = self.device.allocate(table.shape, table.dtype)
            self.device.upload(table, uploaded[name], stream)
            stream.synchronize()
        stream.close()
        return uploaded


class Execution:
    """One execution context with memory of its own; use it from one thread."""

    def __init__(
        self, library: Library, device: Device, context: ExecutionContext, scratch: DeviceArray, log: Any
    ) -> None:
        self._library = library
        self._device = device
        self._context: ExecutionContext | None = context
        self._scratch = scratch
        self._log = log

    def enqueue(self, arrays: Mapping[str, DeviceArray], stream: Stream) -> None:
        """Queue one tile.

        Args:
            arrays: Every input and output by name.
            stream: Where to.

        Raises:
            EngineError: The network refuses, or the session has been closed.
            DeviceError: The stream belongs to another device.
        """
        context = self._opened()
        self._device.check_stream(stream)
        with self._device.activate():
            for name, array in arrays.items():
                if not context.set_tensor_address(name, array.pointer):
                    raise explain(self._library, f'refuses the address of "{name}"', self._log)
            if not context.execute_async_v3(stream.handle):
                raise explain(self._library, "failed on a tile", self._log)

    def capturable(self, stream: Stream) -> bool:
        """Tell whether `enqueue` can be recorded into a graph, once it has run."""
        context = self._opened()
        if not self._library.targets:
            return True
        with self._device.activate():
            return cast(RtxExecutionContext, context).is_stream_capturable(stream.handle)

    def close(self) -> None:
        """Release the context and its memory."""
        if self._context is not None:
            with self._device.activate():
                self._context = None
            self._scratch.free()

    def _opened(self) -> ExecutionContext:
        if self._context is None:
            raise EngineError("The session has been closed.", "Open another one.")
        return self._context
