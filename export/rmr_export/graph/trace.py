"""From a network to a clean ONNX graph: trace, tidy up, check."""

from __future__ import annotations

import logging
import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager

import numpy as np
import onnx
import torch
from onnx import numpy_helper
from torch import Tensor, nn

from rmr_export.errors import ExportError
from rmr_training.models import RmrFusion
from rmr_training.models.swin import Triple

from .network import ExportNetwork
from .passes import tidy

OPSET = 20
"""The first with a Gelu, and the last that TensorRT 10.3 on JetPack 6 reads."""

CONTRASTS = ("t1w", "flair")


def build_graph(network: RmrFusion, tile: Triple) -> onnx.ModelProto:
    """Turn a network into a static-shape ONNX graph that engines run well.

    Args:
        network: The network; it is left unchanged.
        tile: (D, H, W) in voxels.

    Returns:
        The graph. Inputs `t1w` and `flair`, float32 (1, 1, D, H, W); outputs `fused` (1, 1, D, H, W) and, with a head,
        `probability` (1, K, D, H, W). Further inputs `regions_<n>` have an initializer of the same name.

    Raises:
        ExportError: The network cannot be computed on such a tile, or cannot be traced.
    """
    return trace_rewritten(ExportNetwork(network, tile), tile)


def trace_rewritten(network: ExportNetwork, tile: Triple) -> onnx.ModelProto:
    """Trace a network in its export form; see `build_graph`."""
    tables = {f"regions_{number}": table for number, table in enumerate(network.masks.tables)}
    traced = trace(network.eval(), tile, tables, network.network.head is not None)
    model = tidy(traced)
    _give_defaults(model, {name: table.numpy() for name, table in tables.items()})
    onnx.checker.check_model(model, full_check=True)
    return model


def trace(module: nn.Module, tile: Triple, tables: Mapping[str, Tensor], with_head: bool) -> onnx.ModelProto:
    """Trace a module as torch's exporter does, and change nothing.

    Args:
        module: Takes both contrasts and the tables, and gives the fused image and, with a head, probabilities.
        tile: (D, H, W) in voxels.
        tables: Name of each further input -> its value.
        with_head: Whether there are probabilities.

    Raises:
        ExportError: It cannot be computed on such a tile, or cannot be traced.
    """
    contrasts = [torch.zeros(1, 1, *tile) for _ in CONTRASTS]
    try:
        with torch.no_grad(), _quietly():
            program = torch.onnx.export(
                module,
                (*contrasts, *tables.values()),
                dynamo=True,
                verbose=False,
                opset_version=OPSET,
                input_names=[*CONTRASTS, *tables],
                output_names=["fused", "probability"] if with_head else ["fused"],
            )
    except (RuntimeError, ValueError) as error:
        raise ExportError(
            f"the network cannot be traced on a tile of {' x '.join(map(str, tile))} ({_cause(error)}).",
            "Choose a tile whose sides are multiples of what encoder and head need, such as 32.",
            tile=tile,
        ) from error
    model: onnx.ModelProto = program.model_proto  # type: ignore[union-attr]  # None only from the exporter of old
    return model


def _give_defaults(model: onnx.ModelProto, tables: dict[str, np.ndarray]) -> None:
    """Add an initializer for each input that is not a contrast, so that the file runs as it is."""
    model.graph.initializer.extend(numpy_helper.from_array(table, name) for name, table in tables.items())


def _cause(error: BaseException) -> str:
    while error.__cause__ is not None:
        error = error.__cause__
    return str(error).splitlines()[0].rstrip(".") if str(error) else type(error).__name__


@contextmanager
def _quietly() -> Iterator[None]:
    """Keep the exporter's notes about optional packages and its own deprecations off the screen."""
    logger = logging.getLogger("torch.onnx")
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logger.setLevel(level)
