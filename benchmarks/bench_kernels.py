"""Extraction and blending against other libraries, a measured copy and the memory floor.

    python benchmarks/bench_kernels.py                  about two minutes on 2 cores

Blending: 182 x 218 x 182 voxels, 5 classes, overlap 0.5, to labels and one probability; see peers.py for the rules.
Repeats are interleaved and medians reported; memory is the peak beyond the outputs, each in a process of its own. Every
answer is checked before a ratio is written.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
from collections.abc import Callable
from datetime import date
from pathlib import Path
from time import perf_counter
from typing import Any

import numpy as np
from machine import copy_bandwidth, machine_facts, peak_bytes, reset_peak
from peers import PEERS, Answer, IdentityNetwork, Job, Peer

from rmr_sdk import _C
from rmr_sdk.blend import Blender, BlendOutputs
from rmr_sdk.tiles import plan_tiles, tile_starts

SHAPE = (182, 218, 182)
TILES = ((32, 128, 128), (96, 96, 96))
CLASSES, OVERLAP = 5, 0.5
OURS, BASE = "rmr_sdk", "MONAI sliding_window_inference"
MAP = {"scale": 1e-3, "offset": 0.0, "low": 0.0, "high": 1.5}


def make_job(shape: tuple[int, ...], tile_shape: tuple[int, int, int]) -> Job:
    """Return random probabilities that add up to one."""
    volume = np.random.default_rng(0).random((CLASSES, *shape), np.float32)
    volume /= volume.sum(0)
    return Job(volume, tile_shape, OVERLAP, os.cpu_count() or 1)


def check(job: Job, answer: Answer, tolerance: float) -> dict[str, float]:
    """Compare with the volume itself, which every exact blend of identity predictions gives back.

    Raises:
        RuntimeError: A label differs where the two best classes are apart, or a probability does.
    """
    labels, probability = answer
    best = np.partition(job.volume, -2, axis=0)
    clear = best[-1] - best[-2] > 4 * tolerance
    wrong = int((labels != job.volume.argmax(0))[clear].sum())
    error = float(np.abs(probability - job.volume[-1]).max())
    if wrong or error > tolerance:
        raise RuntimeError(f"{wrong} wrong labels, probability off by {error}: no figures without equal results")
    return {"wrong_labels": wrong, "greatest_probability_error": error}


def time_once(peer: Peer, job: Job) -> tuple[float, int, Answer]:
    """Return the seconds outside the network, the number of tiles, and the answer."""
    network = IdentityNetwork(job, peer.dtype)
    started = perf_counter()
    answer = peer.run(job, network)
    return perf_counter() - started - network.seconds, network.tiles, answer


def measure_memory(name: str, tile_shape: tuple[int, int, int]) -> float:
    """Return the peak MiB beyond the outputs, in a fresh process."""
    command = [sys.executable, __file__, "--memory-of", name, "--tile", *map(str, tile_shape)]
    done = subprocess.run(command, check=True, capture_output=True, text=True)
    return float(done.stdout.split()[-1])


def memory_of(name: str, tile_shape: tuple[int, int, int]) -> float:
    """Run one peer in this process and return its peak MiB beyond the outputs."""
    peer = PEERS[name]
    small = make_job((24, 24, 24), (16, 16, 16))
    peer.run(small, IdentityNetwork(small, peer.dtype))  # imports, thread pools
    job = make_job(SHAPE, tile_shape)
    network = IdentityNetwork(job, peer.dtype)
    before = reset_peak()
    labels, probability = peer.run(job, network)
    return (peak_bytes() - before - labels.nbytes - probability.nbytes) / 2**20


def bench_blend(tile_shape: tuple[int, int, int], repeats: int, bandwidth: float) -> dict[str, Any]:
    """Time every peer that is installed, interleaved."""
    job = make_job(SHAPE, tile_shape)
    peers = [peer for peer in PEERS.values() if not peer.missing]
    rows: dict[str, Any] = {}
    for peer in peers:
        _, tiles, answer = time_once(peer, job)  # also the warm-up
        half = np.dtype(peer.dtype) == np.float16
        rows[peer.name] = {"tiles": tiles, "check": check(job, answer, 5e-4 if half else 1e-5), "runs_s": []}
        del answer
    for _ in range(repeats):
        for peer in peers:
            rows[peer.name]["runs_s"].append(time_once(peer, job)[0])
    for row in rows.values():
        row["median_s"] = statistics.median(row["runs_s"])
    floor_s = floor_bytes(tile_shape) / bandwidth
    for name, row in rows.items():
        row["times_faster_than_monai"] = rows[BASE]["median_s"] / row["median_s"] if BASE in rows else None
        row["times_the_floor"] = row["median_s"] / floor_s
        row["extra_mib"] = measure_memory(name, tile_shape)
    return {"floor_bytes": floor_bytes(tile_shape), "floor_s": floor_s, "planned_mib": planned_mib(tile_shape), **rows}


def floor_bytes(tile_shape: tuple[int, int, int]) -> int:
    """Return what must move at least: each class but the first of each tile read, labels and probability written."""
    tiles = np.prod([len(tile_starts(n, t, OVERLAP)) for n, t in zip(SHAPE, tile_shape, strict=True)])
    return int(tiles * np.prod(tile_shape) * (CLASSES - 1) * 4 + np.prod(SHAPE) * 5)


def planned_mib(tile_shape: tuple[int, int, int]) -> float:
    """Return the memory that the Blender says it takes."""
    plan = plan_tiles((0, 0, 0), SHAPE, SHAPE, tile_shape, OVERLAP)
    outputs = BlendOutputs.allocate(SHAPE, fused=False)
    return Blender(plan, outputs, classes=CLASSES, chosen_class=CLASSES - 1).memory_bytes / 2**20


def extract_numpy(source: Any, origin: tuple[int, int, int], out: Any) -> None:
    """Cut and normalise with NumPy."""
    box = tuple(slice(a, a + n) for a, n in zip(origin, out.shape, strict=True))
    np.clip((source[box].astype(np.float32) - MAP["offset"]) * np.float32(MAP["scale"]), 0.0, MAP["high"], out=out)


def extract_ours(source: Any, origin: tuple[int, int, int], out: Any) -> None:
    """Cut and normalise with the kernel."""
    _C.extract(source, out, origin=origin, threads=os.cpu_count() or 1, **MAP)


def bench_extract(tile_shape: tuple[int, int, int], repeats: int, bandwidth: float) -> dict[str, Any]:
    """Time cutting and normalising all tiles of an int16 volume, as scanners and NIfTI files lay it out."""
    values = np.random.default_rng(1).integers(0, 2000, SHAPE).astype(np.int16)
    layouts = {"contiguous": values, "transposed (NIfTI)": np.asfortranarray(values)}
    methods: dict[str, Callable[..., None]] = {OURS: extract_ours, "NumPy": extract_numpy}
    origins = [tile.origin for tile in plan_tiles((0, 0, 0), SHAPE, SHAPE, tile_shape, OVERLAP).tiles]
    out, other = np.zeros(tile_shape, np.float32), np.zeros(tile_shape, np.float32)
    seconds: dict[str, list[float]] = {}
    for repeat in range(repeats + 1):
        for layout, source in layouts.items():
            extract_ours(source, origins[-1], out)
            extract_numpy(source, origins[-1], other)
            if not np.allclose(out, other, rtol=0, atol=1e-6):
                raise RuntimeError("extracted tiles differ")
            for name, method in methods.items():
                started = perf_counter()
                for origin in origins:
                    method(source, origin, out)
                if repeat > 0:
                    seconds.setdefault(f"{name}, {layout}", []).append(perf_counter() - started)
    floor_s = len(origins) * int(np.prod(tile_shape)) * (2 + 4) / bandwidth
    rows = {name: {"median_s": (median := statistics.median(runs)), "times_the_floor": median / floor_s}
            for name, runs in seconds.items()}  # fmt: skip
    return {"floor_s": floor_s, **rows}


def markdown(report: dict[str, Any]) -> str:
    """Return the README's table."""
    lines = [
        "| blend and arg-max, 5 classes, overlap 0.5 | tile | seconds | MONAI / this | times the memory floor "
        "| extra memory (MiB) |",
        "| --- | --- | --- | --- | --- | --- |",
    ]
    for tile, rows in report["blend"].items():
        for name in (name for name in PEERS if name in rows):
            row = rows[name]
            faster = f"{row['times_faster_than_monai']:.1f}" if row["times_faster_than_monai"] else "-"
            lines.append(
                f"| {name} | {tile} | {row['median_s']:.3f} | {faster} | {row['times_the_floor']:.1f} "
                f"| {row['extra_mib']:.0f} |"
            )
    machine = report["machine"]
    lines += [
        "",
        f"182 x 218 x 182 voxels, {machine['cpu']}, {machine['cores']} cores, copies move "
        f"{report['copy_gb_per_s']:.0f} GB/s, median of {report['repeats']} interleaved runs, {report['date']}. Time "
        "and memory are those beyond the network and the outputs; all answers are checked to be equal.",
    ]
    lines += [f"{name}: not installed." for name in report["unavailable"]]
    return "\n".join(lines)


def targets(report: dict[str, Any]) -> dict[str, bool]:
    """Say which targets of the project hold."""
    met = {}
    for tile, rows in report["blend"].items():
        ours, monai = rows[OURS], rows.get(BASE)
        met[f"{tile}: within 4 times the floor"] = ours["times_the_floor"] <= 4
        if monai:
            met[f"{tile}: at least 8 times as fast as MONAI"] = ours["times_faster_than_monai"] >= 8
            met[f"{tile}: at most 1/5 of MONAI's extra memory"] = ours["extra_mib"] <= monai["extra_mib"] / 5
    return met


def main() -> int:
    """Measure, print the table, write the JSON."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--repeats", type=int, default=9)
    parser.add_argument("--out", type=Path)
    parser.add_argument("--memory-of", choices=PEERS, help=argparse.SUPPRESS)
    parser.add_argument("--tile", type=int, nargs=3, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.memory_of:
        print(memory_of(options.memory_of, tuple(options.tile)))
        return 0

    machine = machine_facts()
    bandwidth = copy_bandwidth(os.cpu_count() or 1)
    names = {tile: "x".join(map(str, tile)) for tile in TILES}
    report: dict[str, Any] = {
        "benchmark": "kernels",
        "date": date.today().isoformat(),
        "machine": machine,
        "shape": SHAPE,
        "classes": CLASSES,
        "overlap": OVERLAP,
        "repeats": options.repeats,
        "copy_gb_per_s": bandwidth / 1e9,
        "unavailable": {peer.name: peer.missing for peer in PEERS.values() if peer.missing},
        "blend": {names[tile]: bench_blend(tile, options.repeats, bandwidth) for tile in TILES},
        "extract": {names[tile]: bench_extract(tile, options.repeats, bandwidth) for tile in TILES},
    }
    report["targets"] = targets(report)
    report["markdown"] = markdown(report)
    print(report["markdown"])
    print(json.dumps({"extract": report["extract"], "targets": report["targets"]}, indent=2))
    default = Path(__file__).parent / "results" / f"cpu-{os.cpu_count()}core-{report['date']}-kernels.json"
    (options.out or default).write_text(json.dumps(report, indent=2) + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
