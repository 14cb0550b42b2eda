"""Which GPU and which of the two runtimes an opening means, and what of both an engine depends on."""

from __future__ import annotations

import re
from collections.abc import Sequence

from rmr_sdk.bundle import Bundle
from rmr_sdk.cuda import DeviceInfo, list_devices
from rmr_sdk.engines.tensorrt_build import HALF_ONLY
from rmr_sdk.engines.tensorrt_library import Library
from rmr_sdk.errors import DeviceUnavailableError
from rmr_sdk.manifest import Artifact


def find_gpu(asked: str) -> DeviceInfo:
    """Find the GPU that the caller means: "auto" and "cuda" are the first.

    Raises:
        DeviceUnavailableError: There is none, or no such one, or another kind of device was asked for.
    """
    named = re.fullmatch(r"cuda(?::(\d{1,3}))?", "cuda" if asked == "auto" else asked)
    if named is None:
        raise DeviceUnavailableError(
            f'Engine tensorrt runs on NVIDIA GPUs only, not on "{asked}".',
            'Choose device "cuda", or engine "openvino".',
            device=asked,
        )
    gpus, index = list_devices(), int(named[1] or 0)
    if index >= len(gpus):
        raise DeviceUnavailableError(
            f'There is no device "{asked}" (found: {", ".join(gpu.device for gpu in gpus)}).',
            "Choose one of those, or see CUDA_VISIBLE_DEVICES.",
            device=asked,
            found=tuple(gpu.device for gpu in gpus),
        )
    return gpus[index]


def choose_library(libraries: Sequence[Library], bundle: Bundle, gpu: DeviceInfo) -> Library:
    """Take the runtime that the bundle has an engine for, else the first that serves the GPU.

    Raises:
        DeviceUnavailableError: None of them serves it.
    """
    serving = [library for library in libraries if library.fits(gpu.compute_capability)]
    if not serving:
        listing = ", ".join(f"{library.runtime} for {', '.join(map(str, library.targets))}" for library in libraries)
        raise DeviceUnavailableError(
            f"No installed TensorRT serves {gpu.name}, compute capability {gpu.compute_capability} ({listing}).",
            "Install TensorRT itself on a Jetson or a data-centre GPU, or choose another engine.",
            capability=gpu.compute_capability,
        )
    with_engine = (
        library
        for library in serving
        if any(find_prebuilt(bundle, library, gpu, precision) for precision in bundle.manifest.onnx_precisions)
    )
    return next(with_engine, serving[0])


def find_prebuilt(bundle: Bundle, library: Library, gpu: DeviceInfo, precision: str) -> Artifact | None:
    """Find the bundle's engine for a runtime, its full version, a GPU and a precision."""
    for artifact in bundle.manifest.artifacts:
        made_for = (artifact.kind, artifact.runtime, artifact.version, artifact.precision)
        fits = gpu.compute_capability in (artifact.compute_capabilities or ())
        if fits and made_for == ("engine", library.runtime, library.version, precision):
            return artifact
    return None


def computes(library: Library, gpu: DeviceInfo, precision: str) -> bool:
    """Tell whether a runtime computes in a precision on a GPU."""
    return precision == "fp16" or not (library.targets and gpu.compute_capability == HALF_ONLY)


def hardware_facts(library: Library, gpu: DeviceInfo) -> dict[str, object]:
    """Give what an engine, and its speed, depend on here."""
    return {
        "runtime": [library.runtime, library.version],
        "gpu": [gpu.name, gpu.compute_capability, gpu.sm_count],
        "driver": gpu.driver,
    }
