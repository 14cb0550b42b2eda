"""Whether float16 holds what a network computes: every tensor of the graph, on tiles that are like what it will see."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import TensorProto

from rmr_export.errors import PrecisionError
from rmr_export.graph.device import for_device

from .fp16 import ISLANDS, LARGEST, Io, to_fp16
from .observe import Observer

Tensors = Mapping[str, NDArray[np.float32]]


def make_fp16(
    model: onnx.ModelProto,
    tiles: Iterable[Tensors],
    *,
    keep: Collection[str] = ISLANDS,
    io: Io = "fp32",
    threads: int | None = None,
) -> onnx.ModelProto:
    """Make the fp16 graph of a network: range checked, rewritten for GPUs, typed.

    Args:
        model: The graph in fp32, as `build_graph` gives it.
        tiles: Inputs to check the range on.
        keep: Nodes or operators that stay in fp32, see `to_fp16`.
        io: Type of inputs and outputs.
        threads: Threads for the check; None for all cores.

    Raises:
        PrecisionError: A tensor leaves the range of float16, or a weight does not fit.
        ConfigError: `keep` names what is not in the graph.
    """
    check_range(model, tiles, keep=keep, threads=threads)
    return to_fp16(for_device(model), keep=keep, io=io)


def check_range(
    model: onnx.ModelProto, tiles: Iterable[Tensors], *, keep: Collection[str] = ISLANDS, threads: int | None = None
) -> dict[str, float]:
    """Find the largest magnitude of every tensor that float16 would have to hold.

    Args:
        model: The graph in fp32.
        tiles: Name -> float32 inputs, one mapping a tile.
        keep: Nodes or operators whose outputs stay in fp32.
        threads: Threads to compute with; None for all cores.

    Returns:
        Name of each tensor -> its largest magnitude on any tile.

    Raises:
        PrecisionError: One of them is larger than float16 can hold, or not a number; it names the node.
    """
    floats = _floats(model)
    makers = {name: node for node in model.graph.node for name in node.output if name in floats}
    watched = [name for name, node in makers.items() if not {node.name, node.op_type} & set(keep)]
    observer = Observer(model, watched, threads=threads)
    largest = dict.fromkeys(watched, 0.0)
    for tile in tiles:
        for name, values in observer.run(tile):
            found = float(np.abs(values).max(initial=0))
            if not found <= LARGEST:
                raise _overflow(makers[name], found)
            largest[name] = max(largest[name], found)
    return largest


def _floats(model: onnx.ModelProto) -> set[str]:
    infos = (*model.graph.value_info, *model.graph.output)
    return {info.name for info in infos if info.type.tensor_type.elem_type == TensorProto.FLOAT}


def _overflow(node: onnx.NodeProto, found: float) -> PrecisionError:
    return PrecisionError(
        f'node "{node.name}" ({node.op_type}) gives values up to {found:.3g}, and float16 ends at {LARGEST:.0f}.',
        f'Keep it in fp32: keep=["{node.name}"].',
        node=node.name,
        operator=node.op_type,
        largest=found,
    )
