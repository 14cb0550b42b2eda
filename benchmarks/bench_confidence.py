"""What becomes of the lesion figures when only what the model is sure of is kept.

    python benchmarks/bench_confidence.py        the studies of the folds in models/ms-edge.toml

The first row of a study is what the runtime keeps by the levels that the weights were calibrated to. Then all lesions,
then voxels from a probability on, whatever the load, then whole lesions from a mean probability on, then from a volume
on: fixed grids, none is chosen here. What touches too little white matter is dropped in every row. Each study is
segmented by weights that have not seen it.
"""

from __future__ import annotations

import argparse
import json
import os
from collections.abc import Sequence
from dataclasses import asdict
from datetime import date
from pathlib import Path
from typing import Any

import numpy as np
from bench_accuracy import describe, open_unseen
from bench_failures import lesion_mask
from machine import machine_facts, result_path
from numpy.typing import NDArray
from release_plan import ROOT, read_plan

from rmr_sdk import Study
from rmr_sdk.io.nifti import read_volume
from rmr_sdk.lesion_rule import LesionRule
from rmr_sdk.manifest import LesionThreshold
from rmr_training.evaluate import compare_lesions

LEVELS = (0.6, 0.7, 0.8, 0.9)
"""Least probabilities, of a voxel and as the mean of a lesion."""

SIZES_MM3 = (5.0, 15.0, 30.0)
"""Least volumes of a lesion."""

GRID = (
    ("all", 0.0),
    *((kind, level) for kind in ("voxel", "lesion") for level in LEVELS),
    *(("size", size) for size in SIZES_MM3),
)

Mask = NDArray[np.bool_]
Row = dict[str, Any]


def keep_sure(mask: Mask, probability: NDArray[np.float32], kind: str, level: float, voxel_ml: float = 0.001) -> Mask:
    """Return what is left of a mask.

    Args:
        mask: Lesions (D, H, W).
        probability: Of a lesion, at every voxel.
        kind: "voxel" drops voxels below the level, "lesion" components (26 neighbours) of a mean below it, "size" those
            of a volume below it; everything else drops nothing.
        level: Least probability, or volume in mm3.
        voxel_ml: Volume of a voxel in millilitres.
    """
    kept = np.array(mask, np.uint8, order="C")
    fixed = LesionThreshold(small_ml=1, small=level, large_ml=2, large=level)
    rules = {
        "voxel": LesionRule(1, threshold=fixed),
        "lesion": LesionRule(1, least_probability=level),
        "size": LesionRule(1, least_mm3=level),
    }
    rules.get(kind, LesionRule(1)).apply(kept, np.ascontiguousarray(probability), voxel_ml)
    return kept > 0


def measure(studies: Sequence[Path], precision: str, overlap: float) -> tuple[list[Row], str]:
    """Return the figures of every study at every level, and which weights they are of."""
    plan, rows = read_plan(), []
    for folder in studies:
        study = Study.from_folder(folder)
        none = dict.fromkeys(("least_lesion_probability", "lesion_threshold", "least_lesion_mm3"), 0.0)
        with open_unseen(plan, plan.name, folder.name, precision) as (pipeline, model):
            released = pipeline.run(study, overlap=overlap)
        with open_unseen(plan, plan.name, folder.name, precision, **none) as (pipeline, model):
            whole = pipeline.run(study, overlap=overlap)
        assert whole.lesion_probability is not None
        probability = np.asarray(whole.lesion_probability.data)
        truth, _ = read_volume(folder / "lesion.nii.gz")
        kept = {
            ("released", released.provenance.lesion_threshold): lesion_mask(released),
            **{
                (kind, level): keep_sure(lesion_mask(whole), probability, kind, level, truth.grid.voxel_ml)
                for kind, level in GRID
            },
        }
        for (kind, level), mask in kept.items():
            figures = compare_lesions(folder.name, mask, np.asarray(truth.data) > 0, truth.grid.spacing_mm)
            rows.append({"kind": kind, "level": level, "model": model, **asdict(figures)})
            if kind == "released":
                least = released.provenance.least_lesion_probability, released.provenance.least_lesion_mm3
                rows[-1] |= {"least_lesion": least[0], "least_mm3": least[1]}
            print(f"{folder.name} {kind} {level:g}: Dice {figures.dice:.3f}, false {figures.false_lesions}", flush=True)
    return rows, describe([row for row in rows if row["kind"] == "released"], plan.name)


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure the folds' studies and write the JSON."""
    data = Path(os.environ.get("RMR_DATA", ROOT.parent / "shared" / "data"))
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--precision", default="fp32")
    parser.add_argument("--overlap", type=float, default=0.25)
    parser.add_argument("--out", type=Path)
    options = parser.parse_args(arguments)
    rows, note = measure([data / fold.study for fold in read_plan().fold], options.precision, options.overlap)
    report = {
        "benchmark": "confidence",
        "date": date.today().isoformat(),
        "machine": machine_facts(),
        "precision": options.precision,
        "overlap": options.overlap,
        "note": note,
        "rows": rows,
    }
    (options.out or result_path("confidence")).write_text(json.dumps(report, indent=2) + "\n")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
