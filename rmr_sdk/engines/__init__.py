"""Engines: the choice of one for a bundle, and its reason.

Owns the names that callers may ask for. Engines import their libraries when opened, never before.
"""

from __future__ import annotations

import os
import re
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from rmr_sdk.bundle import Bundle
from rmr_sdk.engines.base import PRECISIONS, Engine, EngineInfo, EngineKind, EngineRequest, Session
from rmr_sdk.engines.choice import open_chosen
from rmr_sdk.errors import ConfigError

__all__ = ["DEVICES", "ENGINES", "Engine", "EngineInfo", "Session", "open_engine"]

ENGINES = ("openvino", "tensorrt", "onnxruntime")
DEVICES = ("cpu", "gpu", "npu", "cuda")
"""Where to compute: "gpu" and "npu" are Intel's, "cuda" is the first NVIDIA GPU, and "cuda:1" the second."""
MOST_THREADS = 1024

# What "auto" chooses from; a group only where none of the one before it is available. ONNX Runtime computes nothing
# that OpenVINO does not compute faster, and attention takes it gigabytes (docs/engines.md).
_AUTO = (("openvino", "tensorrt"), ("onnxruntime",))


def open_engine(
    bundle: Bundle,
    engine: str = "auto",
    device: str = "auto",
    precision: str = "auto",
    threads: int | None = None,
    cache_dir: str | os.PathLike[str] | None = None,
) -> tuple[Engine, str]:
    """Make a bundle's network ready on a device.

    Args:
        bundle: The bundle.
        engine: "auto" or one of `ENGINES`. "auto" takes onnxruntime only where no other engine is installed.
        device: "auto", one of `DEVICES`, or "cuda:" and the number of an NVIDIA GPU.
        precision: "auto", "fp32", "bf16", "fp16" or "int8". "auto" takes the fastest whose accuracy is within the
            bundle's tolerance, measured once per machine; the most exact of those within 10 % of it. Any other is
            computed in as asked, with a warning where the accuracy is out of tolerance or unknown.
        threads: Threads to compute with; None for all cores.
        cache_dir: Where compiled networks are kept; None for the user's cache.

    Returns:
        The engine, and one line that says what was chosen and why.

    Raises:
        ConfigError: An option has a value that does not exist.
        EngineMismatchError: The bundle has no graph for the engine and the precision, or none may be chosen unnamed.
        DeviceUnavailableError: The engine, the device or its precision is not there.
        EngineError: The graph cannot be compiled, or the engine does not reproduce the golden tile.
        ChecksumError: The graph or the golden tile is not the one that the manifest describes.
    """
    _check_choice("engine", engine, ENGINES)
    _check_choice("device", "cuda" if re.fullmatch(r"cuda:\d{1,3}", device) else device, DEVICES)
    _check_choice("precision", precision, PRECISIONS)
    _check_threads(threads)
    request = EngineRequest(device, precision, threads, None if cache_dir is None else Path(cache_dir))
    groups = (_AUTO if not device.startswith("cuda") else (("tensorrt",),)) if engine == "auto" else ((engine,),)
    return open_chosen(bundle, engine, request, [[_kind(name) for name in group] for group in groups])


def _kind(name: str) -> EngineKind:
    """Import the module of an engine; not the library behind it."""
    if name == "onnxruntime":
        from rmr_sdk.engines.onnxruntime import ONNXRUNTIME

        return ONNXRUNTIME
    if name == "tensorrt":
        from rmr_sdk.engines.tensorrt import TENSORRT

        return TENSORRT
    from rmr_sdk.engines.openvino import OPENVINO

    return OPENVINO


def _check_choice(option: str, value: str, valid: Sequence[str]) -> None:
    if value != "auto" and value not in valid:
        listing = ", ".join(f'"{name}"' for name in ("auto", *valid))
        raise ConfigError(f'There is no {option} "{value}".', f"Choose one of {listing}.", option=option, value=value)


def _check_threads(threads: int | None) -> None:
    whole = isinstance(threads, (int, np.integer)) and not isinstance(threads, bool)
    if threads is not None and not (whole and 1 <= threads <= MOST_THREADS):
        raise ConfigError(
            f"threads is {threads!r}.",
            f"Pass a whole number from 1 to {MOST_THREADS}, or None for all cores.",
            option="threads",
        )
