"""The roofline: how fast this machine moves memory and multiplies matrices, and how near the pipeline comes.

    GFLOP/s ^        ________  roof of a precision: a large matrix product
            |      /    o network
            |    /
            |  / o blend       the slope: a large copy
            +------------> operations per byte

Source: Williams, Waterman and Patterson, Commun. ACM 52 (2009).
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np

from rmr_sdk.bench.graph_cost import GraphCost, count_cost
from rmr_sdk.bench.results import Configuration, Point, Roof, Roofline
from rmr_sdk.bundle import Bundle
from rmr_sdk.engines.cores import usable_cores
from rmr_sdk.engines.openvino import import_openvino, openvino_core
from rmr_sdk.manifest import Manifest
from rmr_sdk.study import Study

COPY_BYTES = 2**28
"""Size of the copied array: far more than any cache holds."""
SIDE = 2048
"""Side of the multiplied matrices."""
TRIES = 8

# Operations for each value: extraction subtracts, multiplies and clips twice; blending multiplies and adds.
_EXTRACT_OPERATIONS = 4
_BLEND_OPERATIONS = 2
_VALUE_BYTES = {"fp32": 4, "bf16": 2, "fp16": 2, "int8": 1}
_HINTS = {"fp32": "f32", "bf16": "bf16", "fp16": "f16", "int8": "f32"}


def measure_roofline(bundle: Bundle, configurations: Sequence[Configuration], study: Study) -> Roofline | None:
    """Measure the roofs, and place every configuration under them.

    Args:
        bundle: The network.
        configurations: What has been measured; those on a CPU count.
        study: For the voxel types that extraction reads.

    Returns:
        None where nothing ran on a CPU: the roofs of other devices are not measured.

    Raises:
        ChecksumError: The graph is not the one that the manifest describes.
    """
    here = [each for each in configurations if each.device == "cpu"]
    if not here:
        return None
    threads = max(each.threads or usable_cores() for each in here)
    cost = count_cost(bundle)
    left_out = [f"{each.label}: roofs are measured on the CPU only" for each in configurations if each.device != "cpu"]
    if cost is None:
        left_out.append(
            "the network: its operations are counted by OpenVINO, which is not there or finds no fixed shape"
        )
    points = [point for each in here for point in _points(each, bundle.manifest, study, cost)]
    return Roofline(
        copy_gb_per_s=round(measure_copy(threads) / 1e9, 3),
        roofs=tuple(_roofs(here, threads)),
        points=tuple(points),
        left_out=tuple(left_out),
    )


def measure_copy(threads: int) -> float:
    """Return the bytes per second, read plus written, of the fastest of some copies on all threads."""
    source = np.ones(COPY_BYTES // 4, np.float32)
    target = np.zeros_like(source)
    pieces = list(zip(np.array_split(target, threads), np.array_split(source, threads), strict=True))
    with ThreadPoolExecutor(threads) as pool:
        best = _fastest(lambda: list(pool.map(lambda pair: np.copyto(*pair), pieces)))
    return 2 * source.nbytes / best


def _roofs(configurations: Sequence[Configuration], threads: int) -> Iterator[Roof]:
    """Measure one roof for each precision, with the engine that computed in it where that can multiply matrices."""
    for precision in dict.fromkeys(each.precision for each in configurations):
        engines = {each.engine for each in configurations if each.precision == precision}
        if "openvino" in engines:
            multiply, how = _openvino_product(precision, threads, SIDE), "OpenVINO"
        elif precision == "fp32":
            multiply, how = _numpy_product(SIDE), "NumPy"
        else:
            continue
        gflop = 2 * SIDE**3 / 1e9
        yield Roof(
            precision=precision,
            gflop_per_s=round(gflop / _fastest(multiply), 3),
            how=f"{how}, product of two matrices of {SIDE} x {SIDE}",
        )


def _numpy_product(side: int) -> Callable[[], object]:
    matrix = np.full((side, side), 0.5, np.float32)
    out = np.empty_like(matrix)
    return lambda: np.matmul(matrix, matrix, out=out)


def _openvino_product(precision: str, threads: int, side: int) -> Callable[[], object]:
    """Compile a matrix product as the network is compiled: the same hint, or the same kind of quantisation."""
    openvino = import_openvino()
    from openvino import opset13 as ops

    source = ops.parameter([side, side], np.float32)
    left, right = source, ops.constant(np.full((side, side), 0.5, np.float32))
    if precision == "int8":
        left, right = _quantised(ops, left, 255), _quantised(ops, right, 254)
    model = openvino.Model([ops.matmul(left, right, False, False)], [source], "product")
    options = {
        "INFERENCE_PRECISION_HINT": _HINTS[precision],
        "PERFORMANCE_HINT": "LATENCY",
        "INFERENCE_NUM_THREADS": threads,
    }
    request = openvino_core().compile_model(model, "CPU", options).create_infer_request()
    request.set_input_tensor(openvino.Tensor(np.full((side, side), 0.5, np.float32)))
    infer: Callable[[], object] = request.infer
    return infer


def _quantised(ops: Any, values: Any, steps: int) -> Any:
    ends = (np.float32(-1), np.float32(1))
    return ops.fake_quantize(values, *ends, *ends, steps + 1)


def _fastest(work: Callable[[], object]) -> float:
    """Return the seconds of the fastest of some tries, the first one apart."""
    work()
    best = float("inf")
    for _ in range(TRIES):
        began = time.perf_counter()
        work()
        best = min(best, time.perf_counter() - began)
    return best


def _points(each: Configuration, manifest: Manifest, study: Study, cost: GraphCost | None) -> Iterator[Point]:
    voxels = each.tiles * int(np.prod(manifest.tile_shape))
    if voxels == 0:  # an empty head: no tile was computed
        return
    contrasts = [study[name].data.dtype.itemsize for name in manifest.contrasts]
    if cost is not None:
        yield Point(
            name=f"network, {each.label}",
            precision=each.precision,
            gflop=2 * cost.macs * each.tiles / 1e9,
            gigabytes=cost.values * each.tiles * _VALUE_BYTES[each.precision] / 1e9,
            seconds=sum(each.stages_s[stage].p50_s for stage in ("extract", "network", "blend")),
            how="convolutions and matrix products of the graph, each of them reading and writing memory by itself; "
            "seconds of the whole loop over tiles",
        )
    yield Point(
        name=f"extract, {each.label}",
        precision="fp32",
        gflop=_EXTRACT_OPERATIONS * len(contrasts) * voxels / 1e9,
        gigabytes=voxels * sum(size + 4 for size in contrasts) / 1e9,
        seconds=each.stages_s["extract"].p50_s,
        how="each voxel of each tile read once and written once, while the network runs beside it",
    )
    predicted = max(0, len(manifest.classes or ()) - 1) + 1
    written = 4 + (1 if manifest.classes else 0) + (4 if manifest.lesion_class else 0)
    volume = int(np.prod(study[manifest.reference].data.shape))
    yield Point(
        name=f"blend, {each.label}",
        precision="fp32",
        gflop=_BLEND_OPERATIONS * predicted * voxels / 1e9,
        gigabytes=(4 * predicted * voxels + written * volume) / 1e9,
        seconds=each.stages_s["blend"].p50_s,
        how="each prediction read once and each output written once, while the network runs beside it",
    )
