"""Alignment of raw studies against published transforms: what was done, how far apart, how long, how much memory.

python benchmarks/bench_alignment.py        the studies of RMR_DATA/open_ms_raw, with their t1_to_flair.txt
"""

from __future__ import annotations

import argparse
import json
import os
import sys
from collections.abc import Sequence
from datetime import date
from pathlib import Path
from time import perf_counter

import numpy as np
from machine import machine_facts, peak_bytes, reset_peak, result_path

from rmr_sdk import Study
from rmr_sdk.align import AlignmentTask, align_contrast
from rmr_sdk.displacement import mean_shift_mm
from rmr_sdk.geometry import Affine, reorient
from rmr_sdk.similarity import Reduced, Similarity, reduce_volume

LPS = np.diag([-1.0, -1.0, 1.0, 1.0])


def published(file: Path) -> Affine:
    """Read an ITK transform, from FLAIR points to T1 points in LPS; return what moves the T1, in RAS."""
    lines = [line.split(":")[1].split() for line in file.read_text().splitlines() if "arameters:" in line]
    numbers, centre = (np.array(line, float) for line in lines)
    matrix = np.eye(4)
    matrix[:3, :3] = numbers[:9].reshape(3, 3)
    matrix[:3, 3] = numbers[9:] + centre - matrix[:3, :3] @ centre
    return np.linalg.inv(LPS @ matrix @ LPS)


def reduce_contrast(study: Study, contrast: str) -> Reduced:
    """Reduce a contrast as `prepare` does before it compares."""
    volume = study[contrast]
    axes = reorient(volume.grid, "SAR")
    return reduce_volume(axes.apply(volume.data), axes.grid)


def measure(folder: Path) -> dict[str, object]:
    """Align one study and compare with its published transform; distances are means over the head."""
    study = Study.from_folder(folder)
    before = reset_peak()
    started = perf_counter()
    flair, t1 = (reduce_contrast(study, contrast) for contrast in ("FLAIR", "T1w"))
    alignment, warnings = align_contrast(AlignmentTask(contrast="T1w", reference="FLAIR"), flair, t1)
    seconds = perf_counter() - started
    memory = (peak_bytes() - before) / 2**20
    similarity = Similarity(flair, t1, 2.9, np.eye(4))
    theirs = published(folder / "t1_to_flair.txt")
    points = similarity.head_points
    return {
        "study": folder.name,
        "method": alignment.method,
        "moved_mm": round(alignment.shift_mm, 2),
        "turned_deg": round(alignment.rotation_deg, 2),
        "header_to_published_mm": round(float(mean_shift_mm(np.linalg.inv(theirs), points)), 2),
        "ours_to_published_mm": round(float(mean_shift_mm(np.linalg.inv(theirs) @ alignment.matrix, points)), 2),
        "similarity": {
            "header": round(float(similarity(np.eye(4))), 4),
            "published": round(float(similarity(theirs)), 4),
            "ours": round(float(similarity(alignment.matrix)), 4),
        },
        "seconds": round(seconds, 2),
        "memory_mib": round(memory),
        "warnings": warnings,
    }


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure all studies and write the result."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=result_path("alignment"))
    options = parser.parse_args(arguments)
    folders = sorted(Path(os.environ.get("RMR_DATA", "../shared/data"), "open_ms_raw").glob("patient*"))
    rows = [measure(folder) for folder in folders]
    for row in rows:
        print(row)
    facts = {"benchmark": "alignment", "date": date.today().isoformat(), "machine": machine_facts(), "studies": rows}
    options.out.write_text(json.dumps(facts, indent=1) + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
