"""TensorRT and TensorRT-RTX on the driver of `fake_cuda`: the same API, computed by OpenVINO.

An engine is a header of 64 bytes and the graph it was built from. It reads and writes at the addresses it is given when
the stream gets there, so that an address that is bound too late, or read too early, gives wrong numbers here too.
"""

from __future__ import annotations

import ctypes
import enum
import functools
import importlib.machinery
import json
import sys
import types
from collections.abc import Callable
from typing import Any

import numpy as np
import onnx
import pytest
from fake_cuda import FakeCuda
from onnx import TensorProto

from rmr_sdk.engines.openvino import openvino_core

HEADER = 64
SCRATCH = 4096
NO_BYTES = b"\0"


class FakeTensorRt:
    """The module, and what a test says to it.

    Attributes:
        module: To be found as `tensorrt` or `tensorrt_rtx`.
        built: How many engines were built.
        executed: How many tiles were queued or recorded.
        capability: Of the GPU.
        refuses: Step that fails -> the message that it logs: "build", "load", "context", "address", "execute".
        wrong: Added to every output.
        capturable: What TensorRT-RTX says about graphs.
        validity: Reasons of TensorRT-RTX for an engine that does not fit.
        on_build: Called while an engine is built.
        operators: Operators that the parser refuses.
        jit: How many kernels were compiled; none where the runtime cache held them.
    """

    def __init__(self, cuda: FakeCuda, runtime: str, version: str) -> None:
        self.cuda, self.runtime, self.version = cuda, runtime, version
        self.built = self.executed = self.jit = 0
        self.capability = 86
        self.refuses: dict[str, str] = {}
        self.wrong = 0.0
        self.capturable = True
        self.validity: tuple[str, ...] = ()
        self.operators: set[str] = set()
        self.on_build: Callable[[], None] = lambda: None
        self.flags: set[str] = set()
        self.module = self._make_module()

    @property
    def is_rtx(self) -> bool:
        """Whether it plays TensorRT-RTX."""
        return self.runtime == "tensorrt-rtx"

    def install(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """Let it be imported, and no other TensorRT."""
        for name in ("tensorrt", "tensorrt_rtx"):
            monkeypatch.setitem(sys.modules, name, None)
        own = self.runtime.replace("-", "_")
        monkeypatch.setitem(sys.modules, own, self.module)

    def fails(self, step: str, log: Any) -> bool:
        """Say whether a step fails, and log why."""
        if step in self.refuses:
            log.log(self.module.ILogger.ERROR, self.refuses[step])
        return step in self.refuses

    def header(self) -> bytes:
        """Begin an engine."""
        facts = {"runtime": self.runtime, "version": self.version, "capability": self.capability}
        return json.dumps(facts).encode().ljust(HEADER)[:HEADER]

    def _make_module(self) -> Any:
        module: Any = types.ModuleType(self.runtime.replace("-", "_"))
        module.__spec__ = importlib.machinery.ModuleSpec(module.__name__, None)
        module.__version__ = self.version
        module.ILogger = ILogger
        module.DataType = enum.Enum("DataType", "FLOAT HALF INT32 UINT8 INT64")
        module.TensorIOMode = enum.Enum("TensorIOMode", "NONE INPUT OUTPUT")
        module.MemoryPoolType = enum.Enum("MemoryPoolType", "WORKSPACE")
        module.NetworkDefinitionCreationFlag = enum.IntEnum("Flag", "STRONGLY_TYPED", start=1)
        module.ExecutionContextAllocationStrategy = enum.Enum("Strategy", "STATIC USER_MANAGED")
        module.BuilderFlag = enum.Enum("BuilderFlag", "TF32 REQUIRE_USER_ALLOCATION" if self.is_rtx else "TF32")
        module.Builder = lambda log: None if self.fails("start", log) else Builder(self, log)
        module.OnnxParser = lambda network, log: OnnxParser(self, network, log)
        module.Runtime = lambda log: None if self.fails("runtime", log) else Runtime(self, log)
        if self.is_rtx:
            module.ComputeCapability = type(
                "ComputeCapability", (), {"CURRENT": 0, "SM75": 75, "SM86": 86, "SM120": 120}
            )
            module.EngineValidity = enum.Enum("EngineValidity", "VALID SUBOPTIMAL INVALID")
            module.EngineInvalidityDiagnostics = Diagnostics
        return module


class ILogger:
    """Severities and the base of loggers."""

    INTERNAL_ERROR, ERROR, WARNING, INFO, VERBOSE = range(5)


class Diagnostics(enum.IntFlag):
    """Why TensorRT-RTX refuses an engine."""

    VERSION_MISMATCH = 1
    UNSUPPORTED_CC = 2
    OLD_CUDA_DRIVER = 4
    INSUFFICIENT_GPU_MEMORY = 16
    MALFORMED_ENGINE = 32


class Network:
    """A parsed graph."""

    def __init__(self) -> None:
        self.model = b""


class Builder:
    """Builds by copying the graph."""

    def __init__(self, fake: FakeTensorRt, log: Any) -> None:
        self.fake, self.log = fake, log

    def create_network(self, flags: int = 0) -> Network:
        assert flags == 1 << 1, "every network is strongly typed"
        return Network()

    def create_builder_config(self) -> Any:
        config = types.SimpleNamespace(limits={}, targets={}, flags=self.fake.flags)
        config.clear_flag = lambda flag: config.flags.discard(flag.name)
        config.set_flag = lambda flag: config.flags.add(flag.name)
        config.set_memory_pool_limit = lambda pool, size: config.limits.update({pool.name: size})
        config.set_compute_capability = lambda target, index: config.targets.update({index: target})
        return config

    def build_serialized_network(self, network: Network, config: Any) -> bytes | None:
        self.fake.on_build()
        if self.fake.fails("build", self.log):
            return None
        if not self.fake.is_rtx:
            assert self.fake.cuda.depth, "TensorRT builds on the GPU that is current"
        self.fake.built += 1
        return self.fake.header() + network.model


class OnnxParser:
    """Parses as the real ones do: an input with an initializer is a constant."""

    def __init__(self, fake: FakeTensorRt, network: Network, log: Any) -> None:
        self.fake, self.network, self.log, self.errors = fake, network, log, []

    def parse(self, model: bytes, path: str | None = None) -> bool:
        if self.fake.fails("parse", self.log):
            return False
        graph = onnx.load_from_string(model).graph
        self.errors = [node for node in graph.node if node.op_type in self.fake.operators]
        self.network.model = model
        return not self.errors

    @property
    def num_errors(self) -> int:
        return len(self.errors)

    def get_error(self, index: int) -> Any:
        node = self.errors[index]
        return types.SimpleNamespace(
            desc=lambda: "no importer registered", node_name=lambda: node.name, node_operator=lambda: node.op_type
        )


class Runtime:
    """Loads engines of its own version and GPU."""

    def __init__(self, fake: FakeTensorRt, log: Any) -> None:
        self.fake, self.log = fake, log
        if fake.is_rtx:
            self.get_engine_validity = self._get_engine_validity

    def deserialize_cuda_engine(self, serialized_engine: bytes) -> CudaEngine | None:
        assert self.fake.cuda.depth
        if self.fake.fails("load", self.log):
            return None
        if serialized_engine[:HEADER] != self.fake.header():
            self.log.log(ILogger.ERROR, "Serialization assertion failed: version tag does not match.")
            return None
        try:
            return CudaEngine(self.fake, onnx.load_from_string(serialized_engine[HEADER:]), self.log)
        except Exception:
            self.log.log(ILogger.ERROR, "Serialization (unexpected end of the buffer).")
            return None

    def _get_engine_validity(self, buffer: bytes) -> tuple[Any, int]:
        assert len(buffer) <= HEADER
        bits = sum(Diagnostics[name] for name in self.fake.validity)
        bits |= 0 if buffer == self.fake.header() else Diagnostics.MALFORMED_ENGINE
        kinds = self.fake.module.EngineValidity
        return (kinds.INVALID if bits else kinds.VALID), bits


class CudaEngine:
    """A loaded engine."""

    def __init__(self, fake: FakeTensorRt, model: onnx.ModelProto, log: Any) -> None:
        self.fake, self.model, self.log = fake, model, log
        graph = model.graph
        folded = {tensor.name for tensor in graph.initializer}
        self.ports = {port.name: port for port in (*graph.input, *graph.output) if port.name not in folded}
        self.outputs = [port.name for port in graph.output]
        self.num_io_tensors = len(self.ports)
        self.device_memory_size_v2 = SCRATCH
        if fake.is_rtx:
            self.create_runtime_config = lambda: RuntimeConfig(fake)

    def get_tensor_name(self, index: int) -> str:
        return list(self.ports)[index]

    def get_tensor_mode(self, name: str) -> Any:
        modes = self.fake.module.TensorIOMode
        return modes.OUTPUT if name in self.outputs else modes.INPUT

    def get_tensor_shape(self, name: str) -> list[int]:
        return [dim.dim_value for dim in self.ports[name].type.tensor_type.shape.dim]

    def get_tensor_dtype(self, name: str) -> Any:
        kinds = self.fake.module.DataType
        return {
            TensorProto.FLOAT: kinds.FLOAT,
            TensorProto.FLOAT16: kinds.HALF,
            TensorProto.INT32: kinds.INT32,
            TensorProto.UINT8: kinds.UINT8,
            TensorProto.INT64: kinds.INT64,
        }[self.ports[name].type.tensor_type.elem_type]

    def create_execution_context(self, strategy: Any) -> ExecutionContext | None:
        if self.fake.fails("context", self.log):
            return None
        if self.fake.is_rtx:
            assert strategy.strategy == self.fake.module.ExecutionContextAllocationStrategy.USER_MANAGED
            strategy.cache.compile()
        else:
            assert strategy == self.fake.module.ExecutionContextAllocationStrategy.USER_MANAGED
        return ExecutionContext(self)


class RuntimeConfig:
    """How contexts of TensorRT-RTX are made."""

    def __init__(self, fake: FakeTensorRt) -> None:
        self.fake, self.strategy, self.cache = fake, None, None

    def set_execution_context_allocation_strategy(self, strategy: Any) -> None:
        self.strategy = strategy

    def create_runtime_cache(self) -> RuntimeCache:
        return RuntimeCache(self.fake)

    def set_runtime_cache(self, cache: RuntimeCache) -> bool:
        self.cache = cache
        return True


class RuntimeCache:
    """Compiled kernels."""

    def __init__(self, fake: FakeTensorRt) -> None:
        self.fake, self.content = fake, b""

    def compile(self) -> None:
        if not self.content:
            self.fake.jit += 1
            self.content = b"kernels"

    def serialize(self) -> bytes:
        return self.content

    def deserialize(self, blob: bytes) -> bool:
        self.content = blob if blob == b"kernels" else b""
        return bool(self.content)


@functools.cache
def compiled(model: bytes) -> Any:
    """Compile a graph, once for all tests."""
    core = openvino_core()
    return core.compile_model(core.read_model(model), "CPU", {"INFERENCE_PRECISION_HINT": "f32"})


class ExecutionContext:
    """Runs the graph at the addresses that are bound."""

    def __init__(self, engine: CudaEngine) -> None:
        self.engine, self.fake = engine, engine.fake
        self.addresses: dict[str, int] = {}
        self.scratch = (0, 0)
        self.compiled = compiled(engine.model.SerializeToString())
        if self.fake.is_rtx:
            self.is_stream_capturable = lambda stream: self.fake.capturable

    def set_device_memory(self, memory: int, size: int) -> None:
        assert memory % 256 == 0
        assert size >= SCRATCH
        self.scratch = (memory, size)

    def set_tensor_address(self, name: str, memory: int) -> bool:
        if self.fake.fails("address", self.engine.log):
            return False
        self.addresses[name] = memory
        return True

    def execute_async_v3(self, stream_handle: int) -> bool:
        assert stream_handle > 2, "not on a default stream"
        assert self.fake.cuda.depth
        if self.fake.fails("execute", self.engine.log):
            return False
        assert set(self.addresses) == set(self.engine.ports), "every input and output is bound"
        bound = dict(self.addresses)
        self.fake.executed += 1
        self.fake.cuda.enqueue(stream_handle, lambda: self._compute(bound))
        return True

    def _compute(self, bound: dict[str, int]) -> None:
        ctypes.memset(self.scratch[0], 0xFF, self.scratch[1])
        arrays = {name: self._array(name, address) for name, address in bound.items()}
        inputs = {name: array.copy() for name, array in arrays.items() if name not in self.engine.outputs}
        for port, values in self.compiled(inputs).items():
            arrays[port.get_any_name()][...] = values + np.asarray(self.fake.wrong, values.dtype)

    def _array(self, name: str, address: int) -> np.ndarray:
        shape = self.engine.get_tensor_shape(name)
        dtype = onnx.helper.tensor_dtype_to_np_dtype(self.engine.ports[name].type.tensor_type.elem_type)
        size = int(np.prod(shape)) * dtype.itemsize
        return np.frombuffer(memoryview((ctypes.c_byte * size).from_address(address)), dtype).reshape(shape)
