"""Peak memory of a whole run, reading and saving included, as the volume grows.

Each volume is the demo study brought onto a larger grid, stored as a scanner would (uint16), read from files, aligned,
fused, segmented and saved by one fresh process, whose peak resident memory is read from the kernel after each stage.

    python benchmarks/bench_memory.py
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
from datetime import date
from pathlib import Path
from typing import Any

import numpy as np
from machine import machine_facts, result_path

from rmr_sdk.demo import demo_study_folder
from rmr_sdk.geometry import Grid
from rmr_sdk.io.nifti import write_volume
from rmr_sdk.resample import image_mode, resample
from rmr_sdk.study import Study
from rmr_sdk.volume import Volume

CASES: tuple[tuple[tuple[int, int, int], tuple[float, float, float]], ...] = (
    ((182, 218, 182), (1.0, 1.0, 1.0)),
    ((256, 256, 256), (1.0, 1.0, 1.0)),
    ((512, 512, 192), (0.5, 0.5, 1.0)),
)

# Not ru_maxrss: a child inherits that of the process it was forked from.
CHILD = """
import json, re, sys, time
from rmr_sdk import Pipeline, Study

def peak():
    return round(int(re.search(r"VmHWM:\\s+(\\d+)", open("/proc/self/status").read())[1]) / 1024)

started, mib = time.perf_counter(), {}
study = Study.from_folder(sys.argv[1])
mib["read"] = peak()
with Pipeline.open("ms-edge", precision="fp32", threads=int(sys.argv[3])) as pipeline:
    mib["opened"] = peak()
    result = pipeline.run(study)
    mib["ran"] = peak()
result.save(sys.argv[2])
mib["saved"] = peak()
seconds = time.perf_counter() - started
assert result.fused.data.shape == study["FLAIR"].data.shape and result.lesions
print(json.dumps({"peak_mib": mib, "seconds": round(seconds, 1)}))
"""


def write_case(folder: Path, shape: tuple[int, int, int], spacing_mm: tuple[float, float, float]) -> None:
    """Write the demo study on a grid of this shape around its centre."""
    affine = np.diag([*spacing_mm, 1.0])
    for contrast, volume in Study.from_folder(demo_study_folder()).items():
        centre = volume.grid.world((np.asarray(volume.data.shape) - 1) / 2)
        affine[:3, 3] = centre - affine[:3, :3] @ ((np.asarray(shape) - 1) / 2)
        grid = Grid(shape, affine)
        voxels = resample(np.ascontiguousarray(volume.data), volume.grid, grid, image_mode(volume.grid, grid))
        write_volume(folder / f"sub-demo_{contrast}.nii.gz", Volume((voxels * 10).astype(np.uint16), affine))


def measure(folder: Path, threads: int) -> dict[str, Any]:
    """Run one study in a process of its own."""
    command = [sys.executable, "-c", CHILD, str(folder / "study"), str(folder / "out"), str(threads)]
    done = subprocess.run(command, check=True, capture_output=True, text=True)
    facts: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return facts


def main() -> int:
    """Run the benchmark and write its JSON."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--out", type=Path)
    options = parser.parse_args()
    runs = []
    for shape, spacing_mm in CASES:
        with tempfile.TemporaryDirectory() as place:
            (Path(place) / "study").mkdir()
            write_case(Path(place) / "study", shape, spacing_mm)
            runs.append({"shape": shape, "spacing_mm": spacing_mm, **measure(Path(place), options.threads)})
        print(runs[-1], flush=True)
    found = {"benchmark": "memory", "date": date.today().isoformat(), "machine": machine_facts(), "runs": runs}
    (options.out or result_path("memory")).write_text(json.dumps(found, indent=1) + "\n", encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
