"""Functions that compute a tile in a precision, on this machine, as the gate and the sensitivity analysis need them.

fp32, bf16    the fp32 graph on OpenVINO
int8          the int8 graph on OpenVINO: true int8 where the processor has it
fp16          the fp16 graph with every tensor rounded to float16 where it is made, as a GPU stores it; a CPU would
              compute it in fp32 and flatter it
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import onnx

from rmr_export.parity import Run, Tensors
from rmr_sdk.engines.onnx_tables import split_tables
from rmr_sdk.engines.openvino import openvino_core
from rmr_sdk.errors import DeviceUnavailableError

from .rounding import rounding_runner

EMULATED = ("fp16",)
"""Precisions that are computed on a CPU several times slower than they will be: on fewer tiles therefore."""

_GRAPHS = {"fp32": "fp32", "bf16": "fp32", "int8": "int8", "fp16": "fp16"}


def open_runner(graphs: Mapping[str, onnx.ModelProto], precision: str, threads: int | None = None) -> Run:
    """Give a function from the inputs of a tile to its outputs, freshly allocated float32.

    Args:
        graphs: Precision -> graph; bf16 is computed from that of fp32.
        precision: What to compute in.
        threads: Threads to compute with; None for all cores.

    Raises:
        DeviceUnavailableError: This processor does not compute in bf16.
    """
    graph = graphs[_GRAPHS[precision]]
    if precision in EMULATED:
        return rounding_runner(graph)
    in_bf16 = precision == "bf16" or (precision == "int8" and computes_bf16())
    return openvino_runner(graph, "bf16" if in_bf16 else "f32", threads)


def computes_bf16() -> bool:
    """Tell whether this processor computes in bf16."""
    return "BF16" in openvino_core().get_property("CPU", "OPTIMIZATION_CAPABILITIES")


def openvino_runner(graph: onnx.ModelProto, hint: str = "f32", threads: int | None = None) -> Run:
    """Give a function that computes tiles on OpenVINO.

    Raises:
        DeviceUnavailableError: This processor does not compute in the precision of the hint.
    """
    if hint == "bf16" and not computes_bf16():
        raise DeviceUnavailableError(
            "this processor does not compute in bf16.",
            "Measure it on one that has AVX-512 BF16 or AMX.",
            precision=hint,
        )
    core = openvino_core()
    config = {"INFERENCE_PRECISION_HINT": hint} | ({"INFERENCE_NUM_THREADS": threads} if threads else {})
    data, tables = split_tables(graph.SerializeToString())
    compiled = core.compile_model(core.read_model(data), "CPU", config)
    request = compiled.create_infer_request()

    def run(inputs: Tensors) -> dict[str, np.ndarray]:
        outputs = request.infer({**inputs, **tables})
        return {port.get_any_name(): np.array(outputs[port], np.float32) for port in compiled.outputs}

    return run
