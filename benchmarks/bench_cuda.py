"""On an NVIDIA GPU: each kernel against a copy, and the device pipeline against torch.compile and MONAI.

    make bench-gpu                                                  a few minutes; most of it is torch compiling
    python benchmarks/bench_cuda.py --kernels                       the kernels alone, without torch
    python benchmarks/bench_cuda.py --study ../shared/data/open_ms/patient19 --rounds 7

Kernels: bytes that must move, per second, over the bytes per second of a copy of as many in the same run. Pipeline:
ours from the study's arrays to the result with its lesions and checks, the peers from normalised arrays, cut to the
box around the head, to fused image and labels, in interleaved runs; torch's network inside our pipeline shows what
everything around the network costs. Answers are checked before a figure is written to benchmarks/results. Without a GPU
it says so and measures nothing.
"""

from __future__ import annotations

import argparse
import json
import re
import statistics
import sys
import time
from collections.abc import Callable
from contextlib import ExitStack
from datetime import date
from pathlib import Path
from typing import Any

import numpy as np
from cuda_kernels import Copy, jobs, measure
from machine import RESULTS, machine_facts
from peers_study import STUDY_PEERS, Setting, load_module
from torch_engine import TorchEngine

from rmr_sdk import _C, Pipeline, Study
from rmr_sdk.bundle import Bundle
from rmr_sdk.cuda import Device, DeviceArray, Stream, list_devices, open_device
from rmr_sdk.demo import demo_study_folder
from rmr_sdk.device_kernels import DeviceKernels, device_kernels
from rmr_sdk.device_memory import Workspace
from rmr_sdk.errors import DeviceError, RmrError
from rmr_sdk.inference import plan_study
from rmr_sdk.preprocess import prepare

ROOT = Path(__file__).parent.parent
SHAPES = ((182, 218, 182), (256, 256, 256), (320, 320, 320))
TARGET_BANDWIDTH, TARGET_SHARE, TARGET_FASTER, LEAST_AGREEMENT = 0.85, 0.10, 2.0, 0.995
PEERS = ("torch autocast + MONAI", "torch.compile + autocast + MONAI", "Torch-TensorRT + MONAI, fp16")
BASE = "torch.compile + autocast + MONAI"


def device_copy(device: Device) -> Copy:
    """Return the driver's own copy between two arrays of a device."""
    import ctypes

    driver = ctypes.CDLL("libcuda.so.1")

    def copy(source: DeviceArray, target: DeviceArray, stream: Stream) -> None:
        addresses = ctypes.c_uint64(target.pointer), ctypes.c_uint64(source.pointer)
        status = driver.cuMemcpyDtoDAsync_v2(*addresses, ctypes.c_size_t(source.nbytes), ctypes.c_void_p(stream.handle))
        if status != 0:
            raise RuntimeError(f"cuMemcpyDtoDAsync failed with {status}")

    return copy


def bench_kernels(
    device: Device, kernels: DeviceKernels, copy: Copy, shapes: Any, rounds: int, launches: int, spread: int
) -> list[dict[str, Any]]:
    """Measure every kernel on every shape."""
    rows = []
    for shape in shapes:
        with device.activate(), Workspace(device) as space:
            for job in jobs(kernels, space, shape, spread):
                rows.append({"shape": list(shape), **measure(device, job, copy, rounds, launches)})
                print("{shape} {kernel}: {us} us, {gb_s} GB/s, {of_copy:.0%} of a copy".format(**rows[-1]))
    return rows


def interleave(runs: dict[str, Callable[[], Any]], rounds: int) -> tuple[dict[str, list[float]], dict[str, Any]]:
    """Run all of them in turn, a first round uncounted; return their seconds and what each gave last."""
    seconds: dict[str, list[float]] = {name: [] for name in runs}
    answers = {}
    for _ in range(rounds + 1):
        for name, run in runs.items():
            started = time.perf_counter()
            answers[name] = run()
            seconds[name].append(time.perf_counter() - started)
    return {name: times[1:] for name, times in seconds.items()}, answers


def summarise(seconds: dict[str, list[float]]) -> dict[str, dict[str, float]]:
    """Return the median of each, and how many times as fast as `BASE` it is."""
    rows = {name: {"median_s": round(statistics.median(times), 4)} for name, times in seconds.items()}
    if BASE in rows:
        for row in rows.values():
            row["times_faster"] = round(rows[BASE]["median_s"] / row["median_s"], 2)
    return rows


def bench_study(device: Device, study: Study, bundle: str, checkpoint: Path, overlap: float, rounds: int) -> Any:
    """Run the study through our pipelines and through the peers."""
    manifest = Bundle.open(bundle).manifest
    classes, sigma = len(manifest.classes or ()), manifest.window.sigma_scale
    setting = Setting(str(checkpoint), bundle, manifest.tile_shape, overlap, 4, "cuda", classes, sigma)
    prepared = prepare(study, manifest)
    plan = plan_study(prepared, manifest, overlap, 4)
    low, high = np.min([tile.low for tile in plan.tiles], 0), np.max([tile.high for tile in plan.tiles], 0)
    box = tuple(slice(int(a), int(b)) for a, b in zip(low, high, strict=True))
    inputs = np.stack([prepared.intensity[name].apply(array)[box] for name, array in prepared.arrays.items()])[None]
    missing: dict[str, str] = {}
    with ExitStack() as stack:
        ours = _our_pipelines(stack, device, bundle, setting, missing)
        runs: dict[str, Callable[[], Any]] = {
            name: lambda pipeline=pipeline: pipeline.run(study, overlap=overlap) for name, pipeline in ours.items()
        }
        for name in PEERS:
            reason = STUDY_PEERS[name].why_not("cuda")
            if reason:
                missing[name] = reason
                continue
            peer = STUDY_PEERS[name].open(setting)
            runs[name] = lambda peer=peer: peer(np.ascontiguousarray(inputs))
        seconds, answers = interleave(runs, rounds)
        rows: dict[str, dict[str, Any]] = {name: dict(row) for name, row in summarise(seconds).items()}
        for name in ours:
            rows[name] |= _shares(answers[name].timings)
        _compare(rows, answers, ours, prepared.axes, box)
    return {
        "rows": rows,
        "unavailable": missing,
        "tiles": len(plan.tiles),
        "box": [side.stop - side.start for side in box],
    }


def _our_pipelines(
    stack: ExitStack, device: Device, bundle: str, setting: Setting, missing: dict[str, str]
) -> dict[str, Pipeline]:
    found: dict[str, Pipeline] = {}
    for precision in ("fp16", "int8"):
        name = f"rmr_sdk, TensorRT {precision}"
        try:
            opened = Pipeline.open(bundle, engine="tensorrt", device="cuda", precision=precision)
        except RmrError as error:
            missing[name] = str(error)
            continue
        found[name] = stack.enter_context(opened)
    import torch

    module = torch.compile(load_module(setting), dynamic=False)

    def network(both: Any) -> Any:
        with torch.autocast("cuda", dtype=torch.float16):
            return module(both)

    opened_bundle = Bundle.open(bundle)
    engine = TorchEngine(network, device, opened_bundle.manifest, "fp16")
    found["rmr_sdk, torch.compile + autocast"] = Pipeline(opened_bundle, engine, "this benchmark")
    return found


def _shares(timings: Any) -> dict[str, Any]:
    total, network = sum(timings.values()), timings["network"]
    stages = {stage: round(seconds, 4) for stage, seconds in timings.items()}
    return {"stages_s": stages, "outside_tiles": round(1 - network / total, 3)}


def _compare(rows: dict[str, Any], answers: dict[str, Any], ours: Any, axes: Any, box: Any) -> None:
    """Say how many labels each shares with the first; refuse answers that are of something else."""
    labels = {}
    for name, answer in answers.items():
        labels[name] = axes.apply(answer.labels.data)[box] if name in ours else answer[1]
    first = next(iter(labels.values()))
    for name, each in labels.items():
        rows[name]["label_agreement"] = round(float((each == first).mean()), 5)
        if rows[name]["label_agreement"] < LEAST_AGREEMENT:
            raise RuntimeError(f"{name} gives other labels: no figures without equal results")


def conclude(report: dict[str, Any]) -> dict[str, bool]:
    """Hold the figures against the targets."""
    reached = {}
    bound = [row["of_copy"] for row in report["kernels"] if row["memory_bound"]]
    if bound:
        reached[f"each kernel at least {TARGET_BANDWIDTH:.0%} of a copy"] = min(bound) >= TARGET_BANDWIDTH
    rows = report.get("study", {}).get("rows", {})
    ours = {name: row for name, row in rows.items() if name.startswith("rmr_sdk")}
    if ours and BASE in rows:
        best = max(row["times_faster"] for row in ours.values())
        reached[f"at least {TARGET_FASTER:g} times as fast as {BASE}"] = best >= TARGET_FASTER
        share = min(row["outside_tiles"] for row in ours.values())
        reached[f"outside the tiles at most {TARGET_SHARE:.0%} of a study"] = share <= TARGET_SHARE
    return reached


def find_gpu() -> str | None:
    """Say why nothing can be measured here; None where it can."""
    if not _C.built_with_cuda:
        return "rmr_sdk was built without CUDA kernels (RMR_CUDA=ON where nvcc is on the PATH)"
    try:
        list_devices()
    except DeviceError as error:
        return str(error)
    return None


def main(arguments: list[str] | None = None) -> int:
    """Measure, check, write the JSON, print what was reached."""
    options = _parse(arguments)
    reason = find_gpu()
    if reason is not None:
        print(f"Nothing was measured: {reason}", file=sys.stderr)
        return 5
    with open_device(options.device) as device:
        report: dict[str, Any] = {
            "benchmark": "cuda",
            "date": date.today().isoformat(),
            "machine": machine_facts(),
            "gpu": {name: getattr(device.info, name) for name in device.info.__dataclass_fields__},
            "rounds": options.rounds,
        }
        report["kernels"] = bench_kernels(
            device, device_kernels(), device_copy(device), SHAPES, options.rounds, options.launches, 2**30
        )
        if not options.kernels:
            study = Study.from_folder(options.study or demo_study_folder())
            report["study"] = bench_study(
                device, study, options.bundle, options.checkpoint, options.overlap, options.rounds
            )
            report["study"]["name"] = "demo" if options.study is None else options.study.name
        report["targets"] = conclude(report)
    out = options.out or RESULTS / f"{_slug(report['gpu']['name'])}-{report['date']}-cuda.json"
    out.write_text(json.dumps(report, indent=1) + "\n", encoding="utf-8")
    print(json.dumps(report["targets"], indent=1))
    return 0


def _slug(name: str) -> str:
    return re.sub(r"[^a-z0-9]+", "-", name.lower()).strip("-")


def _parse(arguments: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--device", type=int, default=0, help="number of the GPU")
    parser.add_argument("--kernels", action="store_true", help="leave the study out")
    parser.add_argument("--study", type=Path, help="a folder; by default the study that comes with the package")
    parser.add_argument("--checkpoint", type=Path, default=ROOT / "models" / "ms-edge.pth")
    parser.add_argument("--bundle", default="ms-edge", help="must hold the weights of --checkpoint")
    parser.add_argument("--overlap", type=float, default=0.25)
    parser.add_argument("--rounds", type=int, default=7, help="interleaved repeats; medians are reported")
    parser.add_argument("--launches", type=int, default=50, help="of a kernel in a round")
    parser.add_argument("--out", type=Path)
    return parser.parse_args(arguments)


if __name__ == "__main__":
    sys.exit(main())
