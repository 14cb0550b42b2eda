"""The embedded default engine: OpenVINO, on CPUs and on Intel GPUs and NPUs.

Owns what OpenVINO is asked to do with a bundle's graph, and keeping the result in the user's cache. The tiles run in
`rmr_sdk.engines.openvino_session`.

On a CPU every tile is computed by one thread, and as many tiles as there are threads are computed side by side. That is
no slower than sharing each tile between the threads (docs/decisions/0002-one-thread-per-tile.md), and since no sum is
ever split between threads the results are bit-identical for any number of them.
"""

from __future__ import annotations

import io
import logging
import sys
import threading
from collections.abc import Mapping
from dataclasses import dataclass
from types import ModuleType
from typing import Any

from rmr_sdk.bundle import Bundle
from rmr_sdk.engines.base import (
    PRECISIONS,
    REPORT,
    EngineInfo,
    EngineKind,
    EngineRequest,
    Offer,
    check_signature,
    find_graph,
    graph_facts,
    import_library,
    self_test,
)
from rmr_sdk.engines.cache import EngineCache, cache_key
from rmr_sdk.engines.cores import cpu_identity, usable_cores
from rmr_sdk.engines.onnx_tables import split_tables
from rmr_sdk.engines.openvino_layers import LayerCount, count_layers
from rmr_sdk.engines.openvino_session import OpenVinoEngine, last_line
from rmr_sdk.engines.openvino_tables import Tables, unpack
from rmr_sdk.errors import BundleError, DeviceUnavailableError, EngineError

logger = logging.getLogger(__name__)

MAX_STREAMS = 16
"""Tiles computed side by side at most: each needs its own activations, and a study has few more tiles than this."""

_TELEMETRY = "openvino_telemetry"
_import_lock = threading.Lock()
_core_lock = threading.Lock()
_cores: dict[ModuleType, Any] = {}

# Graphs that serve a precision, the best first, and OpenVINO's names for it: the capability that a device needs and
# the hint that makes it compute so.
_GRAPHS = {"fp32": ("fp32",), "bf16": ("fp32",), "fp16": ("fp16", "fp32"), "int8": ("int8",)}
_CAPABILITIES = {"fp32": "FP32", "bf16": "BF16", "fp16": "FP16", "int8": "INT8"}
_HINTS = {"fp32": "f32", "bf16": "bf16", "fp16": "f16"}
_HINT_PRECISIONS = {hint: precision for precision, hint in _HINTS.items()}


def offer_openvino(bundle: Bundle, request: EngineRequest) -> Offer:
    """Say what OpenVINO can do with a bundle on a device; see `rmr_sdk.engines.base.EngineKind`."""
    openvino = import_openvino()
    core = openvino_core()
    device = _find_device(core, request.device)
    graphs, capabilities = bundle.manifest.onnx_precisions, _capabilities(core, device)
    precisions = tuple(
        name for name in PRECISIONS if name in capabilities and any(graph in graphs for graph in _GRAPHS[name])
    )
    return Offer(device.lower(), precisions, {"layout": 1} | _hardware(openvino, core, device))


def open_openvino(bundle: Bundle, request: EngineRequest) -> OpenVinoEngine:
    """Compile a bundle's graph, or take what an earlier opening left in the cache.

    Raises:
        EngineMismatchError, DeviceUnavailableError, EngineError, ChecksumError: As `rmr_sdk.engines.open_engine` says.
    """
    openvino = import_openvino()
    core = openvino_core()
    device, precision = _find_device(core, request.device), request.precision
    graph = find_graph(bundle, precision, _GRAPHS[precision])
    _check_capability(core, device, precision)
    target = _Target(openvino, core, device, precision, _configure(core, device, precision, request.threads))

    cache = EngineCache("openvino", request.cache_dir)
    key = cache_key(target.facts() | graph_facts(bundle, graph, precision))
    engine = _load(target, cache.load(key))
    if engine is None:
        engine = _compile(target, bundle, graph)
        self_test(engine, bundle.golden())
        warning = cache.store(key, engine.export())
        engine.warnings = () if warning is None else (warning,)
    return engine


OPENVINO = EngineKind("openvino", offer_openvino, open_openvino)


def import_openvino() -> ModuleType:
    """Import OpenVINO without its telemetry.

    Importing OpenVINO's Python package reports the import to a server and writes a client id into the home folder,
    unless the telemetry package is missing. It is made to look missing here, because a device in a clinic must not call
    anyone. Where the embedding process has imported OpenVINO before, that is its own choice and is left alone.

    Raises:
        DeviceUnavailableError: OpenVINO is not installed, or cannot be loaded.
    """
    with _import_lock:
        if "openvino" in sys.modules:
            return import_library("openvino", "openvino")
        known = sys.modules.pop(_TELEMETRY, None)
        sys.modules[_TELEMETRY] = None  # type: ignore[assignment]  # how Python spells "cannot be imported"
        try:
            return import_library("openvino", "openvino")
        finally:
            del sys.modules[_TELEMETRY]
            if known is not None:
                sys.modules[_TELEMETRY] = known


def openvino_core() -> Any:
    """Return the one core of this process, made when it is first asked for and kept to the end.

    OpenVINO's CPU plugin gives the thread that loads it another stack for signal handlers, and takes it away again with
    the core. Of two cores whose lives overlap, the later one puts back a stack that the earlier one has freed: the next
    signal then ends the process (seen with OpenVINO 2026.4). One core that stays takes nothing away.

    Raises:
        DeviceUnavailableError: OpenVINO is not installed, or cannot be loaded.
    """
    openvino = import_openvino()
    with _core_lock:
        if openvino not in _cores:
            _cores[openvino] = openvino.Core()
        return _cores[openvino]


@dataclass(frozen=True, slots=True)
class _Target:
    """What OpenVINO is to compile for."""

    openvino: Any
    core: Any
    device: str
    precision: str
    config: Mapping[str, Any]

    def facts(self) -> dict[str, object]:
        """Give what makes a compiled network invalid when it changes, its graph apart."""
        hardware = _hardware(self.openvino, self.core, self.device)
        return {"layout": 3, "precision": self.precision, "config": dict(self.config), **hardware}

    def wrap(self, compiled: Any, tables: Tables) -> OpenVinoEngine:
        """Make an engine of a compiled network and its tables, and read back what it does."""
        on_cpu = self.device == "CPU"
        computed = _HINT_PRECISIONS[compiled.get_property("INFERENCE_PRECISION_HINT").get_type_name()]
        in_int8 = self.precision == "int8"
        info = EngineInfo(
            name="openvino",
            version=self.openvino.get_version(),
            device=self.device.lower(),
            device_name=self.core.get_property(self.device, "FULL_DEVICE_NAME"),
            precision="int8" if in_int8 else computed,
            threads=compiled.get_property("INFERENCE_NUM_THREADS") if on_cpu else 0,
            detail=f"{_check_int8(compiled)}, the rest in {computed}" if in_int8 and on_cpu else "",
        )
        slots = compiled.get_property("NUM_STREAMS" if on_cpu else "OPTIMAL_NUMBER_OF_INFER_REQUESTS")
        return OpenVinoEngine(self.openvino, compiled, tables, info, int(slots))


def _hardware(openvino: Any, core: Any, device: str) -> dict[str, object]:
    """Give what OpenVINO's code and speed depend on here."""
    return {
        "openvino": openvino.get_version(),
        "device": [device, core.get_property(device, "FULL_DEVICE_NAME")],
        "capabilities": sorted(core.get_property(device, "OPTIMIZATION_CAPABILITIES")),
        "cpu": cpu_identity(),
    }


def _check_int8(compiled: Any) -> LayerCount:
    """Count what runs in int8.

    Raises:
        DeviceUnavailableError: Nothing does, so that the name int8 would be a lie.
    """
    count = count_layers(compiled)
    if count.int8 == 0:
        raise DeviceUnavailableError(
            f"OpenVINO runs nothing of the int8 graph in int8 on this CPU ({count}).",
            'Choose precision "fp32" or "bf16".',
            precision="int8",
        )
    return count


def _find_device(core: Any, asked: str) -> str:
    device = "CPU" if asked == "auto" else asked.upper()
    available = core.available_devices
    if not any(name.split(".")[0] == device for name in available):
        listing = ", ".join(name.lower() for name in available) or "(none)"
        raise DeviceUnavailableError(
            f'OpenVINO finds no device "{asked}" (it finds: {listing}).',
            "Choose one of those, or install the driver of the device.",
            device=asked,
            found=tuple(available),
        )
    return device


def _capabilities(core: Any, device: str) -> tuple[str, ...]:
    named = core.get_property(device, "OPTIMIZATION_CAPABILITIES")
    return tuple(name for name, capability in _CAPABILITIES.items() if capability in named)


def _check_capability(core: Any, device: str, precision: str) -> None:
    capabilities = _capabilities(core, device)
    if precision not in capabilities:
        raise DeviceUnavailableError(
            f"This {device} does not compute in {precision} (it computes in: {', '.join(capabilities)}).",
            "Choose one of those precisions.",
            device=device.lower(),
            precision=precision,
        )


def _configure(core: Any, device: str, precision: str, threads: int | None) -> dict[str, Any]:
    # With the rest in bf16 an int8 tile takes a sixth less time than in f32, at the same accuracy (docs/engines.md).
    rest = "bf16" if device == "CPU" and "bf16" in _capabilities(core, device) else "fp32"
    config: dict[str, Any] = {"INFERENCE_PRECISION_HINT": _HINTS[rest if precision == "int8" else precision]}
    if device == "CPU":
        streams = min(threads or usable_cores(), MAX_STREAMS)
        # Pinned threads of two processes would meet on the same first cores.
        config |= {"NUM_STREAMS": streams, "INFERENCE_NUM_THREADS": streams, "ENABLE_CPU_PINNING": False}
    return config


def _load(target: _Target, data: bytes | None) -> OpenVinoEngine | None:
    if data is None:
        return None
    try:
        tables, network = unpack(data)
        return target.wrap(target.core.import_model(io.BytesIO(network), target.device, target.config), tables)
    except (RuntimeError, ValueError) as error:
        logger.info("An entry of the engine cache is made again: %s", last_line(error))
        return None


def _compile(target: _Target, bundle: Bundle, graph: str) -> OpenVinoEngine:
    data = bundle.graph(graph)
    try:
        data, tables = split_tables(data)
        compiled = target.core.compile_model(target.core.read_model(data), target.device, target.config)
    except (RuntimeError, ValueError, BundleError) as error:
        raise EngineError(
            f'OpenVINO cannot compile the {graph} graph of bundle "{bundle.manifest.name}": {last_line(error)}.', REPORT
        ) from error
    inputs = {name: shape for name, shape in _shapes(compiled.inputs).items() if name not in tables}
    check_signature(bundle, inputs, _shapes(compiled.outputs))
    return target.wrap(compiled, {name: table.copy() for name, table in tables.items()})  # off the graph's bytes


def _shapes(ports: Any) -> dict[str, list[int]]:
    return {
        port.get_any_name(): [n.get_length() if n.is_static else -1 for n in port.get_partial_shape()] for port in ports
    }
