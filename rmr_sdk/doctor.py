"""The examination of a machine: what the SDK finds here, and what would run.

Owns the facts that a person or a support engineer asks for first. It names no user: folders under the home folder
begin with "~". Engines are opened for real, so that "runs" means that a tile has been computed.
"""

from __future__ import annotations

import os
import platform
from collections.abc import Callable, Iterator
from importlib import metadata
from pathlib import Path
from types import ModuleType

import msgspec

from rmr_sdk import _C
from rmr_sdk._version import __version__
from rmr_sdk.bundle import list_bundles
from rmr_sdk.cuda import list_devices
from rmr_sdk.engines.base import import_library
from rmr_sdk.engines.cache import cache_limit_mib, default_cache_dir
from rmr_sdk.engines.cores import cpu_identity, usable_cores
from rmr_sdk.errors import DeviceUnavailableError, RmrError
from rmr_sdk.pipeline import DEFAULT_BUNDLE, Pipeline

_PACKAGES = ("numpy", "nibabel", "msgspec", "rich", "Jinja2", "Pillow")
_INSTRUCTIONS = ("avx2", "avx512f", "avx512_vnni", "avx512_bf16", "avx512_fp16", "amx_bf16", "amx_int8", "amx_fp16")
_ARM_INSTRUCTIONS = ("asimd", "asimddp", "i8mm", "bf16", "sve")
_CAPABILITIES = {"FP32": "fp32", "BF16": "bf16", "FP16": "fp16", "INT8": "int8"}


class DeviceCheck(msgspec.Struct, frozen=True, kw_only=True):
    """A device that an engine can compute on, and the precisions that the engine says it computes in there.

    `detail` is what else matters of a GPU: compute capability, multiprocessors, memory, driver; else null.
    """

    device: str
    name: str
    precisions: tuple[str, ...]
    detail: str | None = None


class EngineCheck(msgspec.Struct, frozen=True, kw_only=True):
    """An inference engine; `problem` says why it cannot be used, and is null where it can."""

    engine: str
    version: str | None = None
    devices: tuple[DeviceCheck, ...] = ()
    problem: str | None = None


class BundleCheck(msgspec.Struct, frozen=True, kw_only=True):
    """What a bundle gets here with every option left to itself; `problem` says why it does not run, else null."""

    bundle: str
    version: str | None = None
    engine: str | None = None
    device: str | None = None
    precision: str | None = None
    reason: str | None = None
    problem: str | None = None


class Cpu(msgspec.Struct, frozen=True, kw_only=True):
    """The CPU: its name, the cores that the SDK would use of all logical ones, and instructions that matter here."""

    name: str
    usable_cores: int
    logical_cores: int
    instructions: tuple[str, ...]


class Kernels(msgspec.Struct, frozen=True, kw_only=True):
    """The native kernels of the SDK."""

    built_with_cuda: bool
    cuda_devices: int


class Cache(msgspec.Struct, frozen=True, kw_only=True):
    """The user's cache of compiled networks; `limit_mib` is the most that it keeps."""

    folder: str
    writable: bool
    entries: int
    size_mib: float
    limit_mib: float


class Checkup(msgspec.Struct, frozen=True, kw_only=True):
    """What an examination found. `healthy`: the default pipeline has computed a tile here."""

    healthy: bool
    versions: dict[str, str]
    cpu: Cpu
    engines: tuple[EngineCheck, ...]
    kernels: Kernels
    cache: Cache
    bundles: tuple[BundleCheck, ...]

    def __str__(self) -> str:
        """Lay it out for a person."""
        return "\n".join(_lines(self))


def examine() -> Checkup:
    """Examine this machine; takes as long as opening each shipped bundle does."""
    bundles = tuple(_check_bundle(name) for name in sorted({DEFAULT_BUNDLE, *list_bundles()}))
    return Checkup(
        healthy=any(check.bundle == DEFAULT_BUNDLE and check.problem is None for check in bundles),
        versions=_versions(),
        cpu=_cpu(),
        engines=tuple(_check_engine(name, probe) for name, probe in _PROBES.items()),
        kernels=Kernels(built_with_cuda=_C.built_with_cuda, cuda_devices=_C.cuda_device_count()),
        cache=_cache(default_cache_dir()),
        bundles=bundles,
    )


def encode_checkup(checkup: Checkup) -> bytes:
    """Return an examination as indented JSON."""
    return msgspec.json.format(msgspec.json.encode(checkup), indent=2) + b"\n"


def _versions() -> dict[str, str]:
    packages = {name: _version(name) for name in _PACKAGES}
    return {"rmr-sdk": __version__, "python": platform.python_version(), "system": platform.platform(), **packages}


def _version(package: str) -> str:
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:  # frozen into an application, which keeps no metadata
        return "unknown"


def _cpu() -> Cpu:
    machine, flags = cpu_identity()
    known = set(flags.split())
    return Cpu(
        name=_cpu_name() or platform.processor() or machine,
        usable_cores=usable_cores(),
        logical_cores=os.cpu_count() or 1,
        instructions=tuple(name for name in (*_INSTRUCTIONS, *_ARM_INSTRUCTIONS) if name in known),
    )


def _cpu_name() -> str:
    try:
        with open("/proc/cpuinfo", encoding="utf-8", errors="replace") as file:
            return next((line.partition(":")[2].strip() for line in file if line.startswith("model name")), "")
    except OSError:
        return ""


def _check_engine(name: str, probe: Callable[[], EngineCheck]) -> EngineCheck:
    try:
        return probe()
    except DeviceUnavailableError as error:
        return EngineCheck(engine=name, problem=str(error))


def _probe_openvino() -> EngineCheck:
    from rmr_sdk.engines.openvino import import_openvino, openvino_core
    from rmr_sdk.engines.openvino_session import last_line

    openvino = import_openvino()
    try:
        core = openvino_core()
        devices = tuple(
            DeviceCheck(
                device=device.lower(),
                name=core.get_property(device, "FULL_DEVICE_NAME"),
                precisions=_precisions(core.get_property(device, "OPTIMIZATION_CAPABILITIES")),
            )
            for device in core.available_devices
        )
    except RuntimeError as error:  # a broken driver of one of its devices
        return EngineCheck(engine="openvino", version=openvino.get_version(), problem=last_line(error))
    return EngineCheck(engine="openvino", version=openvino.get_version(), devices=devices)


def _precisions(capabilities: list[str]) -> tuple[str, ...]:
    return tuple(name for capability, name in _CAPABILITIES.items() if capability in capabilities)


def _probe_onnxruntime() -> EngineCheck:
    library: ModuleType = import_library("onnxruntime", "rmr-sdk[onnxruntime]")
    device = DeviceCheck(device="cpu", name=_cpu_name() or platform.machine(), precisions=("fp32",))
    return EngineCheck(engine="onnxruntime", version=library.__version__, devices=(device,))


def _probe_tensorrt() -> EngineCheck:
    from rmr_sdk.engines.tensorrt_library import find_libraries

    gpus = list_devices()  # first: where there is no GPU, which TensorRT is installed does not matter
    libraries = find_libraries()
    devices = []
    for gpu in gpus:
        serving = [library.runtime for library in libraries if library.fits(gpu.compute_capability)]
        memory = "shared with the CPU" if gpu.integrated else "of its own"
        detail = (
            f"compute capability {gpu.compute_capability}, {gpu.sm_count} multiprocessors, "
            f"{gpu.total_bytes / 2**30:.1f} GiB {memory}, driver {gpu.driver}, "
            f"served by {' and '.join(serving) or 'no TensorRT that is installed'}"
        )
        precisions = ("fp32", "fp16", "int8") if serving else ()
        devices.append(DeviceCheck(device=gpu.device, name=gpu.name, precisions=precisions, detail=detail))
    versions = ", ".join(f"{library.runtime} {library.version}" for library in libraries)
    return EngineCheck(engine="tensorrt", version=versions, devices=tuple(devices))


_PROBES: dict[str, Callable[[], EngineCheck]] = {
    "openvino": _probe_openvino,
    "tensorrt": _probe_tensorrt,
    "onnxruntime": _probe_onnxruntime,
}


def _cache(folder: Path) -> Cache:
    existing = next(path for path in (folder, *folder.parents) if os.path.exists(path))
    sizes = [path.stat().st_size for path in folder.rglob("*.bin")]
    return Cache(
        folder=_without_home(folder),
        writable=existing.is_dir() and os.access(existing, os.W_OK | os.X_OK),
        entries=len(sizes),
        size_mib=round(sum(sizes) / 2**20, 1),
        limit_mib=cache_limit_mib(),
    )


def _without_home(folder: Path) -> str:
    home = Path(os.path.expanduser("~"))
    return str(Path("~") / folder.relative_to(home)) if folder.is_relative_to(home) else str(folder)


def _check_bundle(name: str) -> BundleCheck:
    try:
        with Pipeline.open(name) as pipeline:
            pipeline.warmup()
            info = pipeline.engine_info
            return BundleCheck(
                bundle=name,
                version=pipeline.manifest.version,
                engine=info.name,
                device=info.device,
                precision=info.precision,
                reason=pipeline.reason,
            )
    except RmrError as error:
        return BundleCheck(bundle=name, problem=f"{type(error).__name__}: {error}")


def _lines(checkup: Checkup) -> Iterator[str]:
    cpu, kernels, cache = checkup.cpu, checkup.kernels, checkup.cache
    yield "Versions: " + ", ".join(f"{name} {version}" for name, version in checkup.versions.items())
    yield f"CPU:      {cpu.name}, {cpu.usable_cores} usable of {cpu.logical_cores} logical cores"
    yield f"          {', '.join(cpu.instructions) or 'no known vector instructions'}"
    for engine in checkup.engines:
        yield f"Engine:   {engine.engine} {engine.version or ''}".rstrip() + (
            f": not available. {engine.problem}" if engine.problem else ""
        )
        for device in engine.devices:
            yield f"          {device.device}: {device.name} ({', '.join(device.precisions)})"
            if device.detail is not None:
                yield f"          {device.detail}"
    yield f"Kernels:  {f'CPU and CUDA, {kernels.cuda_devices} devices' if kernels.built_with_cuda else 'CPU only'}"
    yield (
        f"Cache:    {cache.folder}, {'writable' if cache.writable else 'NOT writable'}, "
        f"{cache.entries} networks, {cache.size_mib} MiB of at most {cache.limit_mib:g} MiB"
    )
    for bundle in checkup.bundles:
        if bundle.problem is None:
            yield f"Bundle:   {bundle.bundle} {bundle.version} runs: {bundle.reason}"
        else:
            yield f"Bundle:   {bundle.bundle} does not run. {bundle.problem}"
    yield "The default pipeline runs." if checkup.healthy else "The default pipeline does NOT run."
