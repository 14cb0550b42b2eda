"""The portable third engine: ONNX Runtime on the CPU, in fp32; an optional extra.

Only fp32: of an int8 graph like ours, whose layers give floating point back, its CPU provider computes the convolutions
in fp32 between Q and DQ, which is slower than the fp32 graph and less exact (docs/engines.md).

It computes one tile at a time with all threads on it. Results are bit-identical from run to run with the same number of
threads; ONNX Runtime promises nothing between different numbers.
"""

from __future__ import annotations

import platform
from collections import deque
from types import ModuleType, TracebackType
from typing import Any

from rmr_sdk.bundle import Bundle
from rmr_sdk.engines.base import (
    REPORT,
    EngineInfo,
    EngineKind,
    EngineRequest,
    Offer,
    Tensors,
    check_signature,
    find_graph,
    graph_facts,
    import_library,
    self_test,
)
from rmr_sdk.engines.cache import EngineCache, cache_key
from rmr_sdk.engines.cores import cpu_identity, usable_cores
from rmr_sdk.errors import DeviceUnavailableError, EngineError, EngineMismatchError


def offer_onnxruntime(bundle: Bundle, request: EngineRequest) -> Offer:
    """Say what ONNX Runtime can do with a bundle; see `rmr_sdk.engines.base.EngineKind`."""
    library = _import_for(request)
    precisions = tuple(name for name in ("fp32",) if name in bundle.manifest.onnx_precisions)
    facts = {"onnxruntime": library.__version__, "cpu": cpu_identity()}
    return Offer("cpu", precisions, facts, "the only device of this engine")


def open_onnxruntime(bundle: Bundle, request: EngineRequest) -> OnnxRuntimeEngine:
    """Load a bundle's fp32 graph; the golden tile runs once for each entry of the cache.

    Raises:
        EngineMismatchError, DeviceUnavailableError, EngineError, ChecksumError: As `rmr_sdk.engines.open_engine` says.
    """
    library = _import_for(request)
    if request.precision != "fp32":
        raise EngineMismatchError(
            f"Engine onnxruntime computes in fp32 only, not in {request.precision}.",
            'Choose precision "fp32", or engine "openvino".',
            precision=request.precision,
        )
    find_graph(bundle, "fp32", ("fp32",))
    engine = _load(library, bundle, request.threads or usable_cores())
    _test_once(engine, bundle, EngineCache("onnxruntime", request.cache_dir))
    return engine


ONNXRUNTIME = EngineKind("onnxruntime", offer_onnxruntime, open_onnxruntime)


def _import_for(request: EngineRequest) -> ModuleType:
    library = import_library("onnxruntime", "rmr-sdk[onnxruntime]")
    if request.device not in ("auto", "cpu"):
        raise DeviceUnavailableError(
            f'Engine onnxruntime runs on the CPU only, not on "{request.device}".',
            'Choose device "cpu", or engine "openvino".',
            device=request.device,
        )
    return library


class OnnxRuntimeEngine:
    """A loaded network; see `rmr_sdk.engines.base.Engine`."""

    def __init__(self, inference: Any, info: EngineInfo, errors: tuple[type[Exception], ...]) -> None:
        self._inference = inference
        self._errors = errors
        self.info = info
        self.slots = 1
        self.warnings: tuple[str, ...] = ()

    def session(self) -> OnnxRuntimeSession:
        """Open a queue of tiles for the calling thread."""
        if self._inference is None:
            raise EngineError("The engine has been closed.", "Open the pipeline again.")
        return OnnxRuntimeSession(self._inference, self.slots, self._errors)

    def close(self) -> None:
        """Release the network."""
        self._inference = None


class OnnxRuntimeSession:
    """A queue of at most one tile, computed when it is collected; see `rmr_sdk.engines.base.Session`."""

    def __init__(self, inference: Any, slots: int, errors: tuple[type[Exception], ...]) -> None:
        self._inference = inference
        self._outputs = [port.name for port in inference.get_outputs()]
        self._waiting: deque[Tensors] = deque()
        self._slots = slots
        self._errors = errors

    def submit(self, inputs: Tensors) -> None:
        """Queue a tile."""
        if len(self._waiting) == self._slots:
            raise EngineError(f"All {self._slots} slots of the session are in use.", "Collect a tile first.")
        self._waiting.append(inputs)

    def collect(self) -> Tensors:
        """Compute the oldest tile."""
        if not self._waiting:
            raise EngineError("No tile of the session is in flight.", "Submit a tile first.")
        try:
            found = self._inference.run(self._outputs, dict(self._waiting.popleft()))
        except self._errors as error:
            raise EngineError(f"ONNX Runtime failed on a tile: {error}.", REPORT) from error
        return dict(zip(self._outputs, found, strict=True))

    def close(self) -> None:
        """Drop the tile in flight."""
        self._waiting.clear()

    def __enter__(self) -> OnnxRuntimeSession:
        """Return the session."""
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Close the session."""
        self.close()


def _load(library: ModuleType, bundle: Bundle, threads: int) -> OnnxRuntimeEngine:
    options = library.SessionOptions()
    options.intra_op_num_threads = threads
    options.inter_op_num_threads = 1
    options.log_severity_level = 3
    # Threads that spin between two tiles would take the cores from blending.
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    errors = _errors(library)
    data = bundle.graph("fp32")
    try:
        inference = library.InferenceSession(data, options, providers=["CPUExecutionProvider"])
    except errors as error:
        raise EngineError(
            f'ONNX Runtime cannot load the fp32 graph of bundle "{bundle.manifest.name}": {error}.', REPORT
        ) from error
    check_signature(bundle, _shapes(inference.get_inputs()), _shapes(inference.get_outputs()))
    info = EngineInfo(
        "onnxruntime", library.__version__, "cpu", platform.processor() or platform.machine(), "fp32", threads
    )
    return OnnxRuntimeEngine(inference, info, errors)


def _errors(library: ModuleType) -> tuple[type[Exception], ...]:
    """Collect the exceptions of ONNX Runtime, which share no base of their own."""
    state = vars(library.capi.onnxruntime_pybind11_state).values()
    own = (kind for kind in state if isinstance(kind, type) and issubclass(kind, Exception))
    return (*own, RuntimeError, ValueError)


def _shapes(ports: Any) -> dict[str, list[int]]:
    return {port.name: [n if isinstance(n, int) else -1 for n in port.shape] for port in ports}


def _test_once(engine: OnnxRuntimeEngine, bundle: Bundle, cache: EngineCache) -> None:
    facts = {"onnxruntime": engine.info.version, "threads": engine.info.threads, "cpu": cpu_identity()}
    key = cache_key(facts | graph_facts(bundle, "fp32", "fp32"))
    if cache.load(key) is None:
        self_test(engine, bundle.golden())
        warning = cache.store(key, b"reproduces the golden tile")
        engine.warnings = () if warning is None else (warning,)
