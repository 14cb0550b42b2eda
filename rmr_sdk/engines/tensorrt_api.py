"""The part of TensorRT's Python bindings that the SDK uses, as protocols.

Everything the SDK touches stands here, so that mypy checks the code against this file, and a test checks this file
against the bindings of every supported version. The bindings themselves carry no types.

Classes named Rtx, and `RTX_ONLY`, are of TensorRT-RTX alone; the code asks for them by what it finds.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Protocol


class Dims(Protocol):
    """A shape: iterates over lengths."""

    def __iter__(self) -> Any:
        """Iterate over the lengths."""


class HostMemory(Protocol):
    """IHostMemory: bytes that a builder made; a buffer."""

    nbytes: int


class Tensor(Protocol):
    """ITensor: an input of a network."""

    name: str
    shape: Dims


class NetworkDefinition(Protocol):
    """INetworkDefinition."""

    num_inputs: int

    def get_input(self, index: int) -> Tensor:
        """Return an input."""


class BuilderConfig(Protocol):
    """IBuilderConfig."""

    def set_flag(self, flag: Any) -> None:
        """Switch a BuilderFlag on."""

    def clear_flag(self, flag: Any) -> None:
        """Switch a BuilderFlag off."""

    def set_memory_pool_limit(self, pool: Any, pool_size: int) -> None:
        """Limit the bytes of a memory pool."""


class RtxBuilderConfig(BuilderConfig, Protocol):
    """IBuilderConfig of TensorRT-RTX, which builds for GPUs that are not there."""

    num_compute_capabilities: int

    def set_compute_capability(self, compute_capability: Any, index: int) -> bool:
        """Set one of the targets."""


class Builder(Protocol):
    """Builder."""

    def create_network(self, flags: int = 0) -> NetworkDefinition:
        """Return an empty network."""

    def create_builder_config(self) -> BuilderConfig:
        """Return a configuration."""

    def build_serialized_network(self, network: NetworkDefinition, config: BuilderConfig) -> HostMemory | None:
        """Build an engine; None where it failed."""


class ParserError(Protocol):
    """ParserError: why a node was refused."""

    def desc(self) -> str:
        """Return the message."""

    def node_name(self) -> str:
        """Return the node's name."""

    def node_operator(self) -> str:
        """Return the node's operator."""


class OnnxParser(Protocol):
    """OnnxParser."""

    num_errors: int

    def parse(self, model: bytes, path: str | None = None) -> bool:
        """Read a graph into the network that the parser was made for."""

    def get_error(self, index: int) -> ParserError:
        """Return one of the errors."""


class RuntimeConfig(Protocol):
    """IRuntimeConfig, from TensorRT 10.13 on; the SDK uses it with TensorRT-RTX only."""

    def set_execution_context_allocation_strategy(self, strategy: Any) -> None:
        """Say who gives an execution context its memory."""


class RuntimeCache(Protocol):
    """IRuntimeCache of TensorRT-RTX: kernels compiled for the GPU at hand."""

    def serialize(self) -> HostMemory:
        """Return it as bytes."""

    def deserialize(self, blob: bytes) -> bool:
        """Take it from bytes; False where they do not fit."""


class RtxRuntimeConfig(RuntimeConfig, Protocol):
    """IRuntimeConfig of TensorRT-RTX."""

    def create_runtime_cache(self) -> RuntimeCache:
        """Return an empty cache."""

    def set_runtime_cache(self, cache: RuntimeCache) -> bool:
        """Use a cache."""


class ExecutionContext(Protocol):
    """IExecutionContext."""

    def set_device_memory(self, memory: int, size: int) -> None:
        """Give it memory for what it computes in between."""

    def set_tensor_address(self, name: str, memory: int) -> bool:
        """Say where an input or output lies."""

    def execute_async_v3(self, stream_handle: int) -> bool:
        """Queue one inference."""


class RtxExecutionContext(ExecutionContext, Protocol):
    """IExecutionContext of TensorRT-RTX."""

    def is_stream_capturable(self, stream: int) -> bool:
        """Tell whether an inference can be recorded into a graph."""


class CudaEngine(Protocol):
    """ICudaEngine."""

    num_io_tensors: int
    device_memory_size_v2: int

    def get_tensor_name(self, index: int) -> str:
        """Return the name of an input or output."""

    def get_tensor_mode(self, name: str) -> Any:
        """Return its TensorIOMode."""

    def get_tensor_shape(self, name: str) -> Dims:
        """Return its shape."""

    def get_tensor_dtype(self, name: str) -> Any:
        """Return its DataType."""

    def create_execution_context(self, strategy: Any) -> ExecutionContext | None:
        """Return a context; None where it failed. TensorRT-RTX also takes a runtime configuration."""


class RtxCudaEngine(CudaEngine, Protocol):
    """ICudaEngine of TensorRT-RTX."""

    def create_runtime_config(self) -> RtxRuntimeConfig:
        """Return a configuration for contexts."""


class Runtime(Protocol):
    """Runtime."""

    def deserialize_cuda_engine(self, serialized_engine: bytes) -> CudaEngine | None:
        """Return the engine; None where it cannot be used."""


class RtxRuntime(Runtime, Protocol):
    """Runtime of TensorRT-RTX."""

    def get_engine_validity(self, buffer: bytes) -> tuple[Any, int]:
        """Return an EngineValidity and the bits of EngineInvalidityDiagnostics, from an engine's first bytes."""


class NetworkDefinitionCreationFlag(Protocol):
    """NetworkDefinitionCreationFlag."""

    STRONGLY_TYPED: Any


class BuilderFlag(Protocol):
    """BuilderFlag; see also `RTX_ONLY`."""

    TF32: Any


class MemoryPoolType(Protocol):
    """MemoryPoolType."""

    WORKSPACE: Any


class TensorIOMode(Protocol):
    """TensorIOMode."""

    INPUT: Any


class DataType(Protocol):
    """DataType: what the inputs and outputs of our graphs may be."""

    FLOAT: Any
    HALF: Any
    INT32: Any
    UINT8: Any


class ExecutionContextAllocationStrategy(Protocol):
    """ExecutionContextAllocationStrategy."""

    USER_MANAGED: Any


class ILogger(Protocol):
    """ILogger: the severities of messages, and the base of loggers."""

    INTERNAL_ERROR: Any
    ERROR: Any
    WARNING: Any
    INFO: Any


class TensorRt(Protocol):
    """The module `tensorrt` or `tensorrt_rtx`."""

    __version__: str
    ILogger: Any
    Builder: Callable[[Any], Builder | None]
    OnnxParser: Callable[[NetworkDefinition, Any], OnnxParser]
    Runtime: Callable[[Any], Runtime | None]
    NetworkDefinitionCreationFlag: NetworkDefinitionCreationFlag
    BuilderFlag: BuilderFlag
    MemoryPoolType: MemoryPoolType
    TensorIOMode: TensorIOMode
    DataType: DataType
    ExecutionContextAllocationStrategy: ExecutionContextAllocationStrategy


RTX_ONLY = (
    ("BuilderFlag", "REQUIRE_USER_ALLOCATION"),
    ("ComputeCapability", "SM86"),
    ("EngineValidity", "INVALID"),
    ("EngineInvalidityDiagnostics", "VERSION_MISMATCH"),
)
"""Names of TensorRT-RTX beside its protocols here: class and member. The code asks for them with `hasattr`."""
