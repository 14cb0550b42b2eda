"""Calibration: tiles through the fp32 graph, one at a time, and what is learnt about every activation.

(study, tile) ─> Observer (OpenVINO, f32) ─> Statistics of each activation ─> ranges(method) ─> int8.quantise
"""

from __future__ import annotations

import logging
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

import numpy as np
import onnx

from rmr_export.errors import ExportError, PrecisionError
from rmr_sdk.errors import ConfigError

from .int8 import chosen_layers
from .observe import Observer, Tensors
from .ranges import METHODS, Statistics

logger = logging.getLogger(__name__)

METHOD = "percentile"
"""What `benchmarks/bench_quantise.py` found best for `ms-edge`; docs/quantisation.md has the table."""


@dataclass(frozen=True, slots=True)
class Calibration:
    """What tiles have shown about the activations of a graph.

    Attributes:
        statistics: Activation -> what is known of it.
        inputs: The activations that are inputs of the graph.
        tiles: How many tiles were seen.
        sources: The studies and label maps that they were of, in order.
    """

    statistics: Mapping[str, Statistics]
    inputs: frozenset[str]
    tiles: int
    sources: tuple[str, ...]

    def ranges(self, method: str = METHOD) -> dict[str, float]:
        """Return the magnitude that becomes 127, for every activation.

        Inputs of the graph are never clipped: their normalisation has clipped them already.

        Args:
            method: One of `METHODS`.

        Raises:
            ConfigError: There is no such method.
        """
        check_method(method)
        return {name: found.clip("max" if name in self.inputs else method) for name, found in self.statistics.items()}


def calibrate(model: onnx.ModelProto, tiles: Iterable[tuple[str, Tensors]], threads: int | None = None) -> Calibration:
    """Watch the input of every layer that can run in int8.

    Args:
        model: The graph in fp32.
        tiles: The source and the inputs of one tile after another; each is let go before the next is taken.
        threads: Threads to compute with; None for all cores.

    Raises:
        ExportError: The graph has no such layer.
        PrecisionError: A tile makes an activation that is not finite; its source is named.
        ConfigError: There is no tile, or the tile is too large to watch.
    """
    axes = {layer.activation: 1 if layer.op == "Conv" else -1 for layer in chosen_layers(model)}
    statistics = {name: Statistics() for name in axes}
    observer = Observer(model, axes, threads=threads)
    count, sources = 0, dict[str, None]()
    for source, inputs in tiles:
        for name, values in observer.run(inputs):
            if not np.isfinite(values).all():
                raise PrecisionError(
                    f'study "{source}" makes values in "{name}" that are not finite.',
                    "Leave the study out, or repair its voxels.",
                    study=source,
                    tensor=name,
                )
            statistics[name].add(values, axes[name])
        count, sources = count + 1, {**sources, source: None}
        logger.info("calibrated on tile %d", count)
    if not count:
        raise ConfigError("there is no tile to calibrate on.", "Name studies with --calibration.")
    return Calibration(statistics, frozenset(observer.given), count, tuple(sources))


def check_method(method: str) -> str:
    """Refuse a method that does not exist.

    Raises:
        ConfigError: It is none of `METHODS`.
    """
    if method not in METHODS:
        raise ConfigError(
            f'there is no calibration method "{method}".', f"Choose one of {', '.join(METHODS)}.", method=method
        )
    return method


def describe_sources(found: Calibration) -> str:
    """Say what was calibrated on, for a report."""
    return f"{found.tiles} tiles of {len(found.sources)} studies or label maps"


__all__ = ["METHOD", "Calibration", "ExportError", "calibrate", "check_method", "describe_sources"]
