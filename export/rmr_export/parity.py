"""Proof that a graph computes what torch computes, on every engine that the bundle will meet on a CPU."""

from __future__ import annotations

import copy
import logging
import math
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import onnx
import torch
from numpy.typing import NDArray

from rmr_sdk.engines.openvino import openvino_core
from rmr_training.models import RmrFusion, probabilities

from .errors import ExportError

FloatArray = NDArray[np.float32]
Tensors = Mapping[str, FloatArray]
Run = Callable[[Tensors], dict[str, FloatArray]]

LIMIT = 1e-4
"""Largest difference between an engine in fp32 and torch, in units of the larger of 1 and the output's magnitude."""

ROUNDINGS = 10
"""How many times as far as torch's float32 is from its float64 an engine may be, where that is more than `LIMIT`.

Scores in the hundreds round by 1e-5 each; a network that has them is as far from itself in another order of additions.
"""

MAX_SCORES_BYTES = 256 * 2**20
"""ONNX Runtime keeps several copies of the attention scores of a block, which OpenVINO never stores."""

logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Difference:
    """How far an engine is from torch on one tile."""

    engine: str
    tile: str
    maximum: float


def torch_runner(network: RmrFusion) -> Run:
    """Give a function that computes a tile with the network as it was trained."""

    def run(inputs: Tensors) -> dict[str, FloatArray]:
        with torch.inference_mode():
            fused = network(torch.from_numpy(inputs["t1w"]), torch.from_numpy(inputs["flair"]))
        outputs = {"fused": fused.image}
        if fused.logits is not None:
            outputs["probability"] = probabilities(fused.logits)
        return {name: tensor.numpy() for name, tensor in outputs.items()}

    return run


def random_tile(tile: tuple[int, int, int]) -> dict[str, FloatArray]:
    """Give noise for both contrasts, the same each time."""
    generator = np.random.default_rng(0)
    return {name: generator.random((1, 1, *tile), np.float32) for name in ("t1w", "flair")}


def exact_runner(network: RmrFusion) -> Run:
    """Give a function that computes a tile with a copy of the network in float64."""
    exact = copy.deepcopy(network).double()

    def run(inputs: Tensors) -> dict[str, FloatArray]:
        doubled = {name: array.astype(np.float64) for name, array in inputs.items()}
        return torch_runner(exact)(doubled)  # type: ignore[arg-type]

    return run


def prove(
    model: onnx.ModelProto, tiles: Mapping[str, tuple[Tensors, Tensors]], network: RmrFusion | None = None
) -> list[Difference]:
    """Compare a graph with torch.

    Args:
        model: The graph.
        tiles: Name -> inputs, and what torch gives for them.
        network: What the graph was made from; where a difference is above `LIMIT`, it tells whether rounding alone
            explains it. None leaves `LIMIT` as it is.

    Returns:
        The largest difference on every engine and every tile, all within `LIMIT`, or within `ROUNDINGS` times torch's
        own rounding. ONNX Runtime is left out where its attention would take more than a workstation's memory.

    Raises:
        ExportError: A difference is larger, or not a number.
    """
    data = model.SerializeToString()
    found = []
    for engine, open_runner in _engines(model):
        run = open_runner(data)
        for name, (inputs, wanted) in tiles.items():
            difference = Difference(engine, name, _largest(run(inputs), wanted))
            logger.info("%s differs from torch by %.1e on the %s tile", engine, difference.maximum, name)
            limit = LIMIT
            if difference.maximum > LIMIT and network is not None:
                limit = max(LIMIT, ROUNDINGS * _largest(wanted, exact_runner(network)(inputs)))
                logger.info("rounding alone explains %.1e there", limit)
            if not difference.maximum <= limit:
                raise ExportError(
                    f"{engine} differs from torch by {difference.maximum:.2g} on the {name} tile (limit {limit:.0e}).",
                    "Nothing was written. Please report it with the checkpoint's preset and head.",
                    difference=difference,
                )
            found.append(difference)
        del run
    return found


def _engines(model: onnx.ModelProto) -> Iterator[tuple[str, Callable[[bytes], Run]]]:
    yield "openvino", _open_openvino
    if _scores_bytes(model) <= MAX_SCORES_BYTES:
        yield "onnxruntime", _open_onnxruntime
    else:
        logger.warning("ONNX Runtime is not compared: attention on this tile would take it several gigabytes")


def _open_openvino(data: bytes) -> Run:
    core = openvino_core()
    compiled = core.compile_model(core.read_model(data), "CPU", {"INFERENCE_PRECISION_HINT": "f32"})
    request = compiled.create_infer_request()

    def run(inputs: Tensors) -> dict[str, FloatArray]:
        outputs = request.infer(dict(inputs))
        return {port.get_any_name(): np.array(outputs[port]) for port in compiled.outputs}

    return run


def _open_onnxruntime(data: bytes) -> Run:
    import onnxruntime  # its import starts a thread pool

    options = onnxruntime.SessionOptions()
    # Region tables are inputs with a default on purpose; ONNX Runtime warns about each.
    options.log_severity_level = 3
    session = onnxruntime.InferenceSession(data, options, providers=["CPUExecutionProvider"])
    names = [port.name for port in session.get_outputs()]

    def run(inputs: Tensors) -> dict[str, FloatArray]:
        return dict(zip(names, session.run(names, dict(inputs)), strict=True))

    return run


def _largest(outputs: Tensors, wanted: Tensors) -> float:
    worst = 0.0
    for name, array in wanted.items():
        difference = float(np.abs(outputs[name] - array).max()) / max(1.0, float(np.abs(array).max()))
        worst = max(worst, difference if math.isfinite(difference) else math.inf)
    return worst


def _scores_bytes(model: onnx.ModelProto) -> int:
    shapes = {info.name: _shape(info) for info in model.graph.value_info}
    softmax = [node.output[0] for node in model.graph.node if node.op_type == "Softmax"]
    return max((4 * math.prod(shapes.get(name, (0,))) for name in softmax), default=0)


def _shape(info: Any) -> tuple[int, ...]:
    return tuple(dim.dim_value for dim in info.type.tensor_type.shape.dim)
