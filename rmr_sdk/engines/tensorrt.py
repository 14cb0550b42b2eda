"""The NVIDIA engine: TensorRT on Jetsons and data-centre GPUs, TensorRT-RTX on RTX workstations.

Owns which engine file is used: the bundle's own where it fits this machine, else what an earlier opening left in the
cache, else one that is built here from the bundle's graph. An engine from anywhere has reproduced the golden tile on
this machine before it is used. The tiles run in `rmr_sdk.engines.tensorrt_session`.

    prebuilt in the bundle -> cache -> build -> golden tile -> cache
"""

from __future__ import annotations

import hashlib
import logging
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from rmr_sdk.bundle import Bundle
from rmr_sdk.cuda import Device, open_device
from rmr_sdk.engines.base import (
    EngineInfo,
    EngineKind,
    EngineRequest,
    Offer,
    check_signature,
    find_graph,
    graph_facts,
    self_test,
)
from rmr_sdk.engines.cache import EngineCache, cache_key
from rmr_sdk.engines.onnx_tables import split_tables
from rmr_sdk.engines.tensorrt_build import build_engine
from rmr_sdk.engines.tensorrt_library import Library, find_libraries
from rmr_sdk.engines.tensorrt_network import Network
from rmr_sdk.engines.tensorrt_session import TensorRtEngine
from rmr_sdk.engines.tensorrt_target import choose_library, computes, find_gpu, find_prebuilt, hardware_facts
from rmr_sdk.errors import DeviceMemoryError, DeviceUnavailableError, EngineError, EngineMismatchError

logger = logging.getLogger(__name__)

PRECISIONS = ("fp32", "fp16", "int8")
"""Precisions that graphs are written in; TensorRT has no transposed 3-D convolution in bf16."""

_LAYOUT = 1  # of what is cached: raised when the same facts shall give another engine


def offer_tensorrt(bundle: Bundle, request: EngineRequest) -> Offer:
    """Say what TensorRT can do with a bundle on a GPU; see `rmr_sdk.engines.base.EngineKind`."""
    gpu = find_gpu(request.device)
    library = choose_library(find_libraries(), bundle, gpu)
    graphs = bundle.manifest.onnx_precisions
    precisions = tuple(name for name in PRECISIONS if name in graphs and computes(library, gpu, name))
    return Offer(gpu.device, precisions, hardware_facts(library, gpu), "the first NVIDIA GPU")


def open_tensorrt(bundle: Bundle, request: EngineRequest) -> TensorRtEngine:
    """Load an engine that fits the GPU, or build one.

    Raises:
        EngineMismatchError, DeviceUnavailableError, EngineError, ChecksumError: As `rmr_sdk.engines.open_engine` says.
        DeviceMemoryError: The GPU has too little memory.
    """
    gpu = find_gpu(request.device)
    library = choose_library(find_libraries(), bundle, gpu)
    graph = find_graph(bundle, request.precision, (request.precision,) if request.precision in PRECISIONS else ())
    if not computes(library, gpu, request.precision):
        raise DeviceUnavailableError(
            f"{library.runtime} does not compute in {request.precision} on {gpu.name} "
            f"(compute capability {gpu.compute_capability}).",
            'Choose precision "fp16".',
            precision=request.precision,
        )
    device = open_device(gpu.index)
    try:
        opening = _Opening(bundle, library, device, graph, request)
        return opening.from_bundle() or opening.from_cache_or_build()
    except BaseException:
        device.close()
        raise


TENSORRT = EngineKind("tensorrt", offer_tensorrt, open_tensorrt)


@dataclass(frozen=True, slots=True)
class _Made:
    """An engine file: its bytes, where it comes from, and what the user should know about that."""

    data: bytes
    origin: str
    warnings: tuple[str, ...] = ()


class _Opening:
    """One opening: what is opened for which GPU."""

    def __init__(self, bundle: Bundle, library: Library, device: Device, graph: str, request: EngineRequest) -> None:
        self._bundle, self._library, self._device, self._graph = bundle, library, device, graph
        self._model, self._tables = split_tables(bundle.graph(graph))
        self._facts = {"layout": _LAYOUT, **hardware_facts(library, device.info), **graph_facts(bundle, graph, graph)}
        self._cache = EngineCache("tensorrt", request.cache_dir)
        self._jit = EngineCache("tensorrt-jit", request.cache_dir)
        self._refused: tuple[str, ...] = ()

    def from_bundle(self) -> TensorRtEngine | None:
        """Load the bundle's own engine; None where it has none for this machine, or TensorRT refuses it.

        Raises:
            EngineError: It does not reproduce the golden tile: then nothing of this bundle is to be trusted here.
        """
        artifact = find_prebuilt(self._bundle, self._library, self._device.info, self._graph)
        if artifact is None:
            return None
        made = _Made(self._bundle.read(artifact.path), "engine of the bundle")
        try:
            network = self._load(made.data)
        except (EngineError, EngineMismatchError) as error:
            self._refused = (f"The engine in the bundle cannot be used here, and one is built instead. {error}",)
            logger.warning(self._refused[0])
            return None
        key = cache_key({**self._facts, "engine": artifact.sha256})
        tested = self._cache.load(key) is not None
        engine = self._wrap(network, made, tested)
        if not tested:
            warning = self._cache.store(key, b"reproduces the golden tile")
            engine.warnings += () if warning is None else (warning,)
        return engine

    def from_cache_or_build(self) -> TensorRtEngine:
        """Load what an earlier opening built, or build; two processes at once build once."""
        key = cache_key(self._facts)
        found = self._from_cache(key)
        if found is not None:
            return found
        with self._cache.making(key) as alone:
            found = self._from_cache(key)
            if found is not None:
                return found
            if not alone:
                logger.info("The engine cache cannot be locked: the engine is built in memory.")
            made = self._build()
            engine = self._wrap(self._load(made.data), made, tested=False)
            warning = self._cache.store(key, made.data)
            engine.warnings += () if warning is None else (warning,)
            return engine

    def _from_cache(self, key: str) -> TensorRtEngine | None:
        data = self._cache.load(key)
        if data is None:
            return None
        try:
            network = self._load(data)
        except (EngineError, EngineMismatchError) as error:
            logger.info("An entry of the engine cache is made again: %s", str(error))
            return None
        return self._wrap(network, _Made(data, "engine built here before"), tested=True)

    def _build(self) -> _Made:
        device, library = self._device, self._library
        free = device.free_bytes()
        if free < len(self._model):
            raise DeviceMemoryError(
                f"The GPU has too little memory to build an engine: the weights alone take "
                f"{len(self._model) / 2**20:.0f} MiB, and {free / 2**20:.0f} MiB are free.",
                "Close other programs that use the GPU.",
                needed=len(self._model),
                free=free,
            )
        logger.info("building an engine for %s; this takes seconds to minutes, once", device.info.name)
        targets = (device.info.compute_capability,) if library.targets else ()
        workspace = free // 2 if device.info.integrated else free  # a Jetson's memory is the CPU's too
        with device.activate():
            return _Made(build_engine(library, self._model, targets, workspace), "engine built here")

    def _load(self, data: bytes) -> Network:
        """Load an engine and check that it is what the manifest promises."""
        network = Network(self._library, self._device, data, self._tables, self._jit.load(self._jit_key(data)))
        try:
            inputs = {port.name: port.shape for port in network.inputs}
            check_signature(self._bundle, inputs, {port.name: port.shape for port in network.outputs})
            _check_types({port.name: port.dtype for port in (*network.inputs, *network.outputs)})
        except BaseException:
            network.close()
            raise
        return network

    def _wrap(self, network: Network, made: _Made, tested: bool) -> TensorRtEngine:
        """Make an engine of a network, and test it unless it has been tested on this machine."""
        library, gpu = self._library, self._device.info
        detail = f"{library.runtime}, {made.origin}"
        info = EngineInfo("tensorrt", library.version, gpu.device, gpu.name, self._graph, 0, detail)
        keeper = _JitKeeper(self._jit, self._jit_key(made.data))
        engine = TensorRtEngine(network, info, keeper.keep)
        engine.warnings = (*self._refused, *made.warnings)
        try:
            if not tested:
                self_test(engine, self._bundle.golden())
                keeper.keep(network)
        except BaseException:
            network.close()
            raise
        return engine

    def _jit_key(self, data: bytes) -> str:
        return cache_key({**self._facts, "jit": hashlib.sha256(data).hexdigest()})


class _JitKeeper:
    """Keeps what TensorRT-RTX compiles on the GPU, so that the next process need not; a failure costs time only."""

    def __init__(self, cache: EngineCache, key: str) -> None:
        self._cache, self._key = cache, key

    def keep(self, network: Network) -> None:
        """Store it where it has changed."""
        compiled = network.jit_cache()
        if compiled is not None and compiled != self._cache.load(self._key):
            self._cache.store(self._key, compiled)


def _check_types(types: Mapping[str, np.dtype[Any]]) -> None:
    for name, dtype in types.items():
        if dtype not in (np.float32, np.float16):
            raise EngineMismatchError(
                f'"{name}" of the engine is {dtype}, not float32 or float16.', "Export the bundle again.", name=name
            )
