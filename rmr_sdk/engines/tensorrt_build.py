"""From a graph to an engine, with TensorRT 10.3 to 11 and TensorRT-RTX alike.

The precision stands in the graph: the network is strongly typed, and no precision flag is set, since TensorRT 11 and
TensorRT-RTX have none. The caller has made the GPU's context current where there is one.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Sequence
from typing import Any, cast

from rmr_sdk.engines.tensorrt_api import BuilderConfig, NetworkDefinition, RtxBuilderConfig
from rmr_sdk.engines.tensorrt_library import Library, explain
from rmr_sdk.errors import EngineError, EngineMismatchError

logger = logging.getLogger(__name__)

HALF_ONLY = 75
"""TensorRT-RTX rejects fp32 and bf16 convolutions for Turing."""


def build_engine(
    library: Library,
    model: bytes,
    targets: Sequence[int] = (),
    workspace_bytes: int | None = None,
    *,
    log: Any = None,
    adjust: Callable[[Any], None] | None = None,
) -> bytes:
    """Build an engine.

    Args:
        library: What builds it.
        model: A serialised ONNX model with explicit types and static shapes, its tables made inputs by
            `rmr_sdk.engines.onnx_tables.split_tables`.
        targets: Compute capabilities for TensorRT-RTX; TensorRT builds for the GPU whose context is current.
        workspace_bytes: Most memory of the GPU that a kernel may use beside its tensors; None for all.
        log: An `ILogger` with a list `errors`, in place of one of `library.make_log`.
        adjust: Is given the configuration last, to add what does not change the engine's arithmetic.

    Returns:
        The engine's bytes; the same for the same arguments with TensorRT-RTX.

    Raises:
        EngineMismatchError: The runtime does not build for one of the targets.
        EngineError: The parser refuses a node, or the builder the network.
        DeviceMemoryError: The GPU has too little memory.
        DeviceUnavailableError: TensorRT needs a GPU to build, and finds none.
    """
    trt, log = library.trt, log or library.make_log()
    check_targets(library, targets)
    try:
        builder = trt.Builder(log)
    except (RuntimeError, TypeError) as error:  # TypeError: how the bindings show that the library gave nothing
        raise explain(library, "cannot start a build", log) from error
    if builder is None:
        raise explain(library, "cannot start a build", log)
    network = builder.create_network(1 << int(trt.NetworkDefinitionCreationFlag.STRONGLY_TYPED))
    _parse(library, network, log, model)
    config = _configure(library, builder.create_builder_config(), targets, workspace_bytes)
    if adjust is not None:
        adjust(config)
    started = time.perf_counter()
    engine = builder.build_serialized_network(network, config)
    if engine is None:
        raise explain(library, "builds no engine from the graph", log)
    logger.info("%s %s built an engine in %.0f s", library.runtime, library.version, time.perf_counter() - started)
    return bytes(cast(Any, engine))


def check_targets(library: Library, targets: Sequence[int]) -> None:
    """Refuse GPUs that TensorRT-RTX does not build for.

    Raises:
        EngineMismatchError: One of them is none of its own.
    """
    unknown = [target for target in targets if target not in library.targets]
    if unknown:
        listing = ", ".join(map(str, library.targets)) or "the GPU at hand only"
        raise EngineMismatchError(
            f"{library.runtime} {library.version} does not build for compute capability "
            f"{', '.join(map(str, unknown))} (it does for {listing}).",
            "Use TensorRT itself on a Jetson or a data-centre GPU, or choose another engine.",
            unknown=unknown,
            known=library.targets,
        )


def _parse(library: Library, network: NetworkDefinition, log: Any, model: bytes) -> None:
    parser = library.trt.OnnxParser(network, log)
    if parser.parse(model):
        return
    if not parser.num_errors:
        raise explain(library, "cannot read the graph", log)
    error = parser.get_error(0)
    raise EngineError(
        f"{library.runtime} {library.version} refuses operator {error.node_operator() or '(unknown)'} of node "
        f'"{error.node_name()}": {" ".join(error.desc().split()).rstrip(".")[:300]}.',
        'Choose engine "openvino", or export the bundle without that operator.',
        operator=error.node_operator(),
        node=error.node_name(),
        problems=parser.num_errors,
    )


def _configure(
    library: Library, config: BuilderConfig, targets: Sequence[int], workspace_bytes: int | None
) -> BuilderConfig:
    trt = library.trt
    # An fp32 graph means float32, not the ten bits of TF32.
    config.clear_flag(trt.BuilderFlag.TF32)
    if workspace_bytes is not None:
        config.set_memory_pool_limit(trt.MemoryPoolType.WORKSPACE, workspace_bytes)
    if hasattr(trt.BuilderFlag, "REQUIRE_USER_ALLOCATION"):
        # Without it TensorRT-RTX may take memory while it computes, which cannot be recorded into a graph.
        config.set_flag(trt.BuilderFlag.REQUIRE_USER_ALLOCATION)
    if targets:
        capabilities = cast(Any, trt).ComputeCapability
        several = cast(RtxBuilderConfig, config)
        several.num_compute_capabilities = len(targets)
        for place, target in enumerate(targets):
            several.set_compute_capability(getattr(capabilities, f"SM{target}"), place)
    return config
