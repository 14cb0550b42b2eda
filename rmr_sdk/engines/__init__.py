"""Engines: the choice of one for a bundle, and its reason.

Owns the names that callers may ask for. Engines import their libraries when opened, never before.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np

from rmr_sdk.bundle import Bundle
from rmr_sdk.engines.base import PRECISIONS, Engine, EngineInfo, EngineRequest, Session, why
from rmr_sdk.errors import ConfigError

__all__ = ["DEVICES", "ENGINES", "Engine", "EngineInfo", "Session", "open_engine"]

ENGINES = ("openvino", "onnxruntime")
DEVICES = ("cpu", "gpu", "npu")
MOST_THREADS = 1024


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
        engine: "auto" or one of `ENGINES`. "auto" takes openvino, the engine of the default installation.
        device: "auto" or one of `DEVICES`. "auto" takes the CPU.
        precision: "auto", "fp32", "bf16", "fp16" or "int8". "auto" takes the most exact that the bundle has.
        threads: Threads to compute with; None for all cores.
        cache_dir: Where compiled networks are kept; None for the user's cache.

    Returns:
        The engine, and one line that says what was chosen and why.

    Raises:
        ConfigError: An option has a value that does not exist.
        EngineMismatchError: The bundle has no graph for the engine and the precision.
        DeviceUnavailableError: The engine, the device or its precision is not there.
        EngineError: The graph cannot be compiled, or the engine does not reproduce the golden tile.
        ChecksumError: The graph or the golden tile is not the one that the manifest describes.
    """
    _check_choice("engine", engine, ENGINES)
    _check_choice("device", device, DEVICES)
    _check_choice("precision", precision, PRECISIONS)
    _check_threads(threads)
    request = EngineRequest(device, precision, threads, None if cache_dir is None else Path(cache_dir))
    name = "openvino" if engine == "auto" else engine
    opened, reason = _opener(name)(bundle, request)
    return opened, f"{name} ({why(engine, 'the default engine')}), {reason}"


def _opener(name: str) -> Callable[[Bundle, EngineRequest], tuple[Engine, str]]:
    if name == "onnxruntime":
        from rmr_sdk.engines.onnxruntime import open_onnxruntime

        return open_onnxruntime
    from rmr_sdk.engines.openvino import open_openvino

    return open_openvino


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
