"""Quantisation measured: clipping methods, single groups of layers, memory, and another quantiser on the same tiles.

    python benchmarks/bench_quantise.py                        methods, groups, time; 5 minutes on 2 quiet cores
    python benchmarks/bench_quantise.py --methods-only         methods and time alone
    python benchmarks/bench_quantise.py --memory paper         peak memory of calibrating the paper preset, one tile
    python benchmarks/bench_quantise.py --nncf                 NNCF beside ours; install it in an environment of its own

Tiles to calibrate on and to compare on come from the studies and label maps of `models/NAME.toml`, other tiles for
each; no study that results are reported on is touched here. The gate's figures are in the manifest of the bundle.
"""

from __future__ import annotations

import argparse
import json
import os
import time
from collections.abc import Sequence
from datetime import date
from itertools import chain
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from machine import machine_facts, peak_bytes, reset_peak, result_path
from release_plan import Precisions, read_plan

from rmr_export.graph import build_graph
from rmr_export.precision.calibration import Calibration, calibrate
from rmr_export.precision.equalise import equalise
from rmr_export.precision.fp16 import to_fp16
from rmr_export.precision.gate import TOLERANCE
from rmr_export.precision.int8 import quantise
from rmr_export.precision.ranges import METHODS
from rmr_export.precision.runners import openvino_runner
from rmr_export.precision.sensitivity import Trial, analyse, fall_back
from rmr_export.precision.tiles import StudyTiles, SyntheticTiles, Tile, find_all
from rmr_sdk.bundle import Bundle
from rmr_sdk.engines.openvino import openvino_core
from rmr_sdk.manifest import Manifest

REPEATS = 3
Row = dict[str, Any]


def tiles(
    manifest: Manifest, wanted: Precisions, data: Path, seed: int, each: int, synthetic: int
) -> list[tuple[str, Tile]]:
    """Cut tiles out of the studies of the plan, and synthesise others."""
    entries = find_all([data / name for name in wanted.calibration])
    parts: list[Any] = [StudyTiles(entries, manifest, each, set())]
    if wanted.label_maps is not None:
        parts.append(SyntheticTiles(data / wanted.label_maps, manifest, synthetic, wanted.leave_out, seed))
    return list(chain(*parts))


def seconds(graphs: dict[str, tuple[onnx.ModelProto, str]], tile: Tile) -> dict[str, float]:
    """Return the CPU seconds of a tile on one thread, the least of some interleaved runs."""
    runs = {name: openvino_runner(graph, hint, threads=1) for name, (graph, hint) in graphs.items()}
    found: dict[str, list[float]] = {name: [] for name in runs}
    for repeat in range(REPEATS + 1):
        for name, run in runs.items():
            started = time.process_time()
            run(tile)
            if repeat:
                found[name].append(time.process_time() - started)
    return {name: min(values) for name, values in found.items()}


def compare_methods(
    model: onnx.ModelProto, found: Calibration, even: onnx.ModelProto, evened: Calibration, trial: Trial
) -> list[Row]:
    """Quantise every layer by every method, with and without equalisation."""
    rows = []
    for equalised, graph, calibration in ((False, model, found), (True, even, evened)):
        for method in METHODS:
            strain, figures = trial.strain(quantise(graph, calibration.ranges(method)))
            rows.append({"method": method, "equalised": equalised, "strain": strain, **figures})
            print(rows[-1], flush=True)
    return rows


def with_nncf(model: onnx.ModelProto, calibration: Sequence[Tile], trial: Trial) -> Row:
    """Quantise with NNCF, whose activations are asymmetric where it wants, and compare on the same tiles.

    Raises:
        SystemExit: It is not installed.
    """
    try:
        import nncf
    except ImportError as error:
        raise SystemExit("NNCF is not installed: pip install nncf, in an environment of its own") from error
    core = openvino_core()
    reset_peak()
    started = time.process_time()
    made = nncf.quantize(
        core.read_model(model.SerializeToString()),
        nncf.Dataset(list(calibration)),
        preset=nncf.QuantizationPreset.MIXED,
        model_type=nncf.ModelType.TRANSFORMER,
        subset_size=len(calibration),
    )
    spent, peak = time.process_time() - started, peak_bytes()
    compiled = core.compile_model(made, "CPU", {"INFERENCE_PRECISION_HINT": "bf16", "INFERENCE_NUM_THREADS": 1})
    request = compiled.create_infer_request()

    def run(inputs: Any) -> dict[str, np.ndarray]:
        outputs = request.infer(dict(inputs))
        return {port.get_any_name(): np.array(outputs[port], np.float32) for port in compiled.outputs}

    times = []
    for _ in range(REPEATS + 1):
        before = time.process_time()
        run(calibration[0])
        times.append(time.process_time() - before)
    return {
        "version": nncf.__version__,
        "calibration_cpu_s": spent,
        "peak_gib": peak / 2**30,
        "tile_cpu_s": min(times[1:]),
        **trial.figures(run),
    }


def memory_of_paper(data: Path) -> Row:
    """Calibrate the paper preset, random weights, on one tile of its own shape, and return the peak memory."""
    import torch

    from rmr_training.models import RmrFusion, find_preset

    torch.manual_seed(0)
    preset = find_preset("paper")
    model = build_graph(RmrFusion(preset).eval(), preset.tile)
    generator = np.random.default_rng(0)
    before = reset_peak()
    tile = {name: generator.random((1, 1, *preset.tile), np.float32) for name in ("t1w", "flair")}
    started = time.process_time()
    found = calibrate(model, [("noise", tile)])
    return {
        "tile": list(preset.tile),
        "activations": len(found.statistics),
        "cpu_s": time.process_time() - started,
        "resident_before_gib": before / 2**30,
        "peak_gib": peak_bytes() / 2**30,
    }


def measure(options: argparse.Namespace, data: Path) -> Row:
    """Run what is asked for."""
    plan = read_plan(options.model)
    wanted = plan.precisions or Precisions()
    bundle = Bundle.open(options.bundle or plan.name)
    manifest, model = bundle.manifest, onnx.load_from_string(bundle.graph("fp32"))
    lesion = None if manifest.lesion_class is None else (manifest.classes or ()).index(manifest.lesion_class)
    seen = tiles(manifest, wanted, data, seed=0, each=2, synthetic=6)
    trial = Trial(
        model, [tile for _, tile in tiles(manifest, wanted, data, seed=77, each=1, synthetic=2)][-4:], TOLERANCE, lesion
    )
    report: Row = {"calibration_tiles": len(seen), "compared_tiles": len(trial.tiles)}
    if options.nncf:
        return report | {"nncf": with_nncf(model, [tile for _, tile in seen], trial)}
    reset_peak()
    found = calibrate(model, seen)
    even = equalise(model, found.statistics)
    evened = calibrate(even, seen)
    report["calibration_peak_gib"] = peak_bytes() / 2**30
    report["methods"] = compare_methods(model, found, even, evened, trial)
    chosen, ranges = (even, evened.ranges(wanted.method)) if wanted.equalise else (model, found.ranges(wanted.method))
    shipped = to_fp16(quantise(chosen, ranges, exclude=wanted.keep_float))
    strain, figures = trial.strain(shipped)
    report["released"] = {"kept_float": list(wanted.keep_float), "strain": strain, **figures}
    graphs = {"fp32": (model, "f32"), "bf16": (model, "bf16"), "int8, all layers": (quantise(chosen, ranges), "bf16")}
    graphs["int8, as released"] = (shipped, "bf16")
    if not options.methods_only:
        costs = analyse(chosen, ranges, trial, told=lambda cost: print(cost, flush=True))
        report["groups"] = [
            {"group": cost.group, "layers": cost.layers, "strain": cost.strain, **cost.figures} for cost in costs
        ]
        found_by_rule = fall_back(chosen, ranges, trial, costs)
        alone = to_fp16(quantise(chosen, ranges, exclude=found_by_rule.excluded))
        strain, figures = trial.strain(alone)
        report["fall_back"] = {"kept_float": list(found_by_rule.excluded), "strain": strain, **figures}
        graphs["int8, fallen back"] = (alone, "bf16")
    report["tile_cpu_s"] = seconds(graphs, trial.tiles[0][0])
    return report


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the benchmark and write its JSON."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="ms-edge", help="plan under models/ (default %(default)s)")
    parser.add_argument("--bundle", help="bundle whose fp32 graph is taken (default: the shipped one)")
    parser.add_argument("--methods-only", action="store_true", help="leave single groups out")
    parser.add_argument("--nncf", action="store_true", help="measure NNCF instead")
    parser.add_argument("--memory", choices=("paper",), help="measure the memory of calibrating a preset instead")
    parser.add_argument("--out", type=Path)
    options = parser.parse_args(arguments)
    data = Path(os.environ.get("RMR_DATA", "../shared/data"))
    kind = "calibration-peak" if options.memory else "quantise-nncf" if options.nncf else "quantise"
    found = {"memory": memory_of_paper(data)} if options.memory else measure(options, data)
    report = {"benchmark": kind, "date": date.today().isoformat(), "machine": machine_facts(), **found}
    (options.out or result_path(kind)).write_text(json.dumps(report, indent=2) + "\n")
    print(json.dumps(found, indent=2))
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
