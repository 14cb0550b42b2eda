"""The main job end to end, against the same weights in torch eager through MONAI's sliding window.

Times arrays in, arrays out, per stage; reading and writing files apart; in processes of their own the peak memory of
either side, and the time from a process' start to its first tile; and checks that both sides give the same labels
before it prints a ratio.

    python benchmarks/bench_pipeline.py --study ../shared/data/open_ms/patient19
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from datetime import date
from pathlib import Path
from typing import Any

import numpy as np
from machine import machine_facts
from peers_study import gaussian_window

from rmr_sdk import Pipeline, Study

ROOT = Path(__file__).parent.parent
OVERLAP = 0.25
PRECISIONS = ("fp32", "bf16", "int8")
LEAST_AGREEMENT = {"fp32": 0.999, "bf16": 0.995, "int8": 0.995}
PEER = "torch eager + MONAI (fp32)"
STARTS = 5
KEEP_ALL = dict.fromkeys(
    ("least_lesion_probability", "least_white_matter", "lesion_threshold", "least_lesion_mm3"), 0.0
)
"""As the peer does, which drops no lesion that it is not sure of."""


def data_folder() -> Path:
    """Return where the real studies are."""
    return Path(os.environ.get("RMR_DATA", "../shared/data"))


def timed(run: Callable[[], Any]) -> tuple[float, Any]:
    """Return the seconds that a call takes, and what it gives."""
    started = time.perf_counter()
    value = run()
    return time.perf_counter() - started, value


def median(runs: list[dict[str, float]]) -> dict[str, float]:
    """Return the median of each entry."""
    return {key: round(statistics.median(run[key] for run in runs), 4) for key in runs[0]}


class Peer:
    """The same weights in torch eager, tiled and blended by MONAI over the whole volume."""

    def __init__(self, checkpoint: Path, study: Study) -> None:
        import torch

        from rmr_sdk.bundle import Bundle
        from rmr_sdk.preprocess import prepare
        from rmr_training.checkpoint import load_network

        self.torch = torch
        self.network = load_network(checkpoint).eval()
        self.manifest = Bundle.open("ms-edge").manifest
        self.prepared = prepare(study, self.manifest)

    def inputs(self) -> Any:
        """Return both contrasts, normalised, (1, 2, D, H, W)."""
        arrays = [self.prepared.intensity[name].apply(array) for name, array in self.prepared.arrays.items()]
        return self.torch.from_numpy(np.ascontiguousarray(np.stack(arrays))[None])

    def run(self, inputs: Any, weight_map: Any = None) -> tuple[np.ndarray, np.ndarray]:
        """Return fused image and labels, (D, H, W) each."""
        from monai.inferers import sliding_window_inference

        def network(both: Any) -> tuple[Any, Any]:
            fused = self.network(both[:, :1], both[:, 1:])
            return fused.image, fused.logits.softmax(1)

        with self.torch.inference_mode():
            fused, probability = sliding_window_inference(
                inputs,
                self.manifest.tile_shape,
                1,
                network,
                OVERLAP,
                mode="gaussian" if weight_map is None else "constant",
                roi_weight_map=weight_map,
            )
        return fused[0, 0].numpy(), probability[0].argmax(0).to(self.torch.uint8).numpy()


def run_ours(study: Study, precision: str, **options: float) -> tuple[dict[str, float], Any]:
    """Run the pipeline once, opened before; return seconds by stage and the result."""
    with Pipeline.open("ms-edge", precision=precision, **options) as pipeline:
        pipeline.warmup()
        total, result = timed(lambda: pipeline.run(study, overlap=OVERLAP))
    return {**result.timings, "total": total}, result


def last_number(code: str) -> float:
    """Run code in a fresh interpreter and return the number that it prints last."""
    done = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True)
    return float(done.stdout.strip().splitlines()[-1])


# Not ru_maxrss: a child inherits that of the process it was forked from.
RSS = "import re; print(int(re.search(r'VmHWM:\\s+(\\d+)', open('/proc/self/status').read())[1]) / 1024)"


def measure_memory(folder: Path, checkpoint: Path) -> dict[str, float]:
    """Return peak memory in MiB of each side: reading, running, nothing saved."""
    ours = (
        "from rmr_sdk import Pipeline, Study\n"
        f"study = Study.from_folder({str(folder)!r})\n"
        "with Pipeline.open('ms-edge', precision={precision!r}) as pipeline:\n"
        f"    pipeline.run(study, overlap={OVERLAP})\n"
    )
    peer = (
        f"import sys; sys.path.insert(0, {str(Path(__file__).parent)!r})\n"
        "from pathlib import Path\nfrom bench_pipeline import Peer\nfrom rmr_sdk import Study\n"
        f"peer = Peer(Path({str(checkpoint)!r}), Study.from_folder({str(folder)!r}))\n"
        "peer.run(peer.inputs())\n"
    )
    found = {precision: ours.format(precision=precision) for precision in PRECISIONS} | {PEER: peer}
    return {name: round(last_number(code + RSS)) for name, code in found.items()}


def measure_starts() -> dict[str, float]:
    """Return the median seconds from the start of a process to its first tile, the compiled network in the cache."""
    code = "from rmr_sdk import Pipeline\nPipeline.open('ms-edge', precision={!r}).warmup()"
    seconds: dict[str, list[float]] = {precision: [] for precision in PRECISIONS}
    for _ in range(STARTS):
        for precision, runs in seconds.items():
            command = [sys.executable, "-c", code.format(precision)]
            runs.append(timed(lambda command=command: subprocess.run(command, check=True))[0])  # type: ignore[misc]
    return {precision: round(statistics.median(runs), 3) for precision, runs in seconds.items()}


def agreement(study: Study, peer: Peer, result: Any) -> dict[str, float]:
    """Compare labels with the peer's on the foreground box, the peer blending with our window."""
    from rmr_sdk.geometry import reorient
    from rmr_sdk.inference import plan_study

    plan = plan_study(peer.prepared, peer.manifest, OVERLAP, 1)
    low = np.min([tile.low for tile in plan.tiles], 0)
    high = np.max([tile.high for tile in plan.tiles], 0)
    box = tuple(slice(a, b) for a, b in zip(low, high, strict=True))
    inputs = peer.inputs()[(slice(None), slice(None), *box)]
    window = gaussian_window(peer.manifest.tile_shape, peer.manifest.window.sigma_scale)
    _, theirs = peer.run(inputs, peer.torch.from_numpy(window))
    axes = reorient(study[peer.prepared.reference].grid, peer.manifest.orientation)
    ours = axes.apply(result.labels.data)[box]
    either = (ours > 0) | (theirs > 0)
    return {
        "label_agreement": float((ours == theirs)[either].mean()),
        "voxels_compared": int(either.sum()),
        "tiles": len(plan.tiles),
        "tiles_skipped": plan.skipped,
    }


def main() -> int:
    """Run the benchmark and write its JSON."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--study", type=Path, default=data_folder() / "open_ms" / "patient19")
    parser.add_argument(
        "--checkpoint",
        type=Path,
        default=ROOT / "models" / "ms-edge.pth",
        help="the weights behind ms-edge, for the peer",
    )
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--out", type=Path)
    options = parser.parse_args()

    read_s, study = timed(lambda: Study.from_folder(options.study))
    peer = Peer(options.checkpoint, study)
    inputs = peer.inputs()
    peer.run(inputs[..., :96, :112, :96])  # first use
    ours: dict[str, list[dict[str, float]]] = {name: [] for name in PRECISIONS}
    theirs: list[dict[str, float]] = []
    results: dict[str, Any] = {}
    for _ in range(options.repeats):
        for precision in PRECISIONS:
            seconds, results[precision] = run_ours(study, precision)
            ours[precision].append(seconds)
        theirs.append({"total": timed(lambda: peer.run(inputs))[0]})
    with tempfile.TemporaryDirectory() as folder:
        write_s, _ = timed(lambda: results["fp32"].save(folder))

    medians = {name: median(runs) for name, runs in ours.items()}
    peer_s = median(theirs)["total"]
    fp32 = medians["fp32"]
    report: dict[str, Any] = {
        "benchmark": "pipeline",
        "date": date.today().isoformat(),
        "machine": machine_facts(),
        "study": options.study.name,
        "shape": list(study["FLAIR"].data.shape),
        "overlap": OVERLAP,
        "repeats": options.repeats,
        "seconds": {**medians, PEER: {"total": peer_s}},
        "ratio_to_peer": {name: round(peer_s / values["total"], 2) for name, values in medians.items()},
        "non_network_share": round(1 - fp32["network"] / fp32["total"], 4),
        "read_s": round(read_s, 3),
        "save_s": round(write_s, 3),
        "check": {name: agreement(study, peer, run_ours(study, name, **KEEP_ALL)[1]) for name in PRECISIONS},
        "peak_mib": measure_memory(options.study, options.checkpoint),
        "start_s": measure_starts(),
    }
    checks = report["check"]
    if any(checks[name]["label_agreement"] < least for name, least in LEAST_AGREEMENT.items()):
        print(json.dumps(checks, indent=2))
        print("the labels of both sides differ: no ratio is reported", file=sys.stderr)
        return 1
    out = options.out or Path(__file__).parent / "results" / f"cpu-2core-{report['date']}-pipeline.json"
    out.write_text(json.dumps(report, indent=2) + "\n")
    print(
        json.dumps({key: report[key] for key in ("seconds", "ratio_to_peer", "check", "peak_mib", "start_s")}, indent=2)
    )
    return 0


if __name__ == "__main__":
    sys.exit(main())
