"""What TensorRT-RTX makes of the networks: the plans of its engines, built without a GPU.

    python benchmarks/bench_plans.py                 all, some minutes
    python benchmarks/bench_plans.py --no-rewrites   engines alone

Plans, not milliseconds. Weights are those of the shipped bundle, or random: plans do not depend on them. Every engine
is checked before it is written down: all attentions fused where it is fp16, and the same kernels from the same
graph.
"""

from __future__ import annotations

import argparse
import json
import logging
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import asdict
from datetime import date
from pathlib import Path
from typing import Any

import onnx
from machine import machine_facts, result_path

from rmr_export.engine import BuildOptions, build_engine, engine_graph
from rmr_export.graph import build_graph
from rmr_export.graph.device import for_device
from rmr_export.precision.fp16 import to_fp16
from rmr_export.precision.int8 import chosen_layers, quantise
from rmr_export.rewrites import measure_rewrites, open_network
from rmr_sdk.bundle import Bundle
from rmr_sdk.engines.tensorrt_library import load_library

TARGETS = ((75,), (86,), (89,), (120,), (86, 89, 120))
PRECISIONS = ("fp32", "fp16", "int8")


def make_graph(model: onnx.ModelProto, precision: str) -> onnx.ModelProto:
    """Give the graph of a precision that an engine is built from; int8 in every layer, since a plan needs no ranges."""
    if precision == "int8":
        layers = chosen_layers(model, ())
        model = quantise(model, {layer.activation: 1.0 for layer in layers})
    device = for_device(model)
    return device if precision == "fp32" else to_fp16(device)


def graphs(bundle: Bundle) -> Iterator[tuple[str, str, onnx.ModelProto]]:
    """Give model, precision and graph: the shipped bundle's own graphs where it has them, and the paper preset's."""
    shipped = onnx.load_model_from_string(bundle.graph("fp32"))
    for precision in PRECISIONS:
        own = precision in bundle.manifest.onnx_precisions
        yield (
            bundle.manifest.name,
            precision,
            engine_graph(bundle, precision) if own else make_graph(shipped, precision),
        )
    network = open_network("paper", with_head=False)
    paper = build_graph(network, network.preset.tile)
    for precision in PRECISIONS:
        yield "paper", precision, make_graph(paper, precision)


def measure(model: onnx.ModelProto, precision: str, targets: tuple[int, ...]) -> dict[str, Any]:
    """Build an engine twice and describe it.

    Raises:
        SystemExit: The two differ, or an attention that should be one kernel is none.
    """
    library, options = load_library("tensorrt-rtx"), BuildOptions(targets=targets)
    built, again = (build_engine(model, library, options) for _ in range(2))
    plan = built.plan
    if plan.kernels != again.plan.kernels or len(built.engine) != len(again.engine):
        raise SystemExit("two builds of one graph differ")
    if precision == "fp16" and plan.fused_attentions != len(plan.attentions):
        raise SystemExit(f"{plan.fused_attentions} of {len(plan.attentions)} attentions are fused in {precision}")
    return {
        "targets": list(targets),
        "kernels": len(plan.kernels),
        "fused_attentions": plan.fused_attentions,
        "attentions": len(plan.attentions),
        "lone_prelus": len(plan.lone_prelus),
        "convolutions": Counter(plan.convolutions.values()),
        "products": Counter(plan.precisions("MatMul", "Gemm").values()),
        "traffic": plan.traffic,
        "engine_bytes": len(built.engine),
        "build_s": round(min(built.seconds, again.seconds), 1),
    }


def main(arguments: Sequence[str] | None = None) -> None:
    """Measure, check, write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--bundle", default="ms-edge", help="shipped name, folder or .zip")
    parser.add_argument("--no-rewrites", action="store_true", help="leave the table of the rewrites out")
    parser.add_argument("--out", type=Path, default=None, help="JSON to write (default: benchmarks/results)")
    options = parser.parse_args(arguments)
    logging.getLogger("onnxscript").setLevel(logging.WARNING)
    rows = []
    for name, precision, model in graphs(Bundle.open(options.bundle)):
        for targets in TARGETS:
            if targets == (75,) and precision != "fp16":
                continue  # Turing: TensorRT-RTX builds nothing else there
            rows.append({"model": name, "precision": precision, **measure(model, precision, targets)})
            print(json.dumps(rows[-1]), flush=True)
    found: dict[str, Any] = {
        "benchmark": "plans",
        "date": date.today().isoformat(),
        "machine": machine_facts(),
        "runtime": f"TensorRT-RTX {load_library('tensorrt-rtx').version}",
        "engines": rows,
    }
    if not options.no_rewrites:
        found["rewrites"] = {}
        for preset in ("paper", "edge"):
            network = open_network(preset, with_head=preset == "edge")
            found["rewrites"][preset] = [asdict(worth) for worth in measure_rewrites(network, None, 86)]
            print(json.dumps(found["rewrites"][preset]), flush=True)
    target = options.out or result_path("plans")
    target.write_text(json.dumps(found, indent=2) + "\n")


if __name__ == "__main__":
    main()
