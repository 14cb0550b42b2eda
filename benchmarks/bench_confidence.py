"""What becomes of the lesion figures when only lesions are kept that the model is sure of.

    python benchmarks/bench_confidence.py        the studies of the folds in models/ms-edge.toml

Every lesion of a result has a mean probability. Whole lesions below a level are dropped, the others stay as they are;
what the runtime drops for touching too little white matter is dropped at every level.
The levels are a fixed grid and the one that the weights were calibrated to, which is what the runtime drops below; none
is chosen here. Each study is segmented by weights that have not seen it.
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
from rmr_training.evaluate import compare_lesions

LEVELS = (0.0, 0.6, 0.7, 0.8, 0.9)
"""Least mean probability of a lesion; 0 keeps all."""

Mask = NDArray[np.bool_]
Row = dict[str, Any]


def keep_sure(mask: Mask, probability: NDArray[np.float32], level: float) -> Mask:
    """Return a mask without the components (26 neighbours) whose mean probability is below a level.

    Args:
        mask: Lesions (D, H, W).
        probability: Of a lesion, at every voxel.
        level: Least mean probability.
    """
    kept = np.array(mask, np.uint8, order="C")
    LesionRule(1, least_probability=level).apply(kept, np.ascontiguousarray(probability))
    return kept > 0


def measure(studies: Sequence[Path], precision: str, overlap: float) -> tuple[list[Row], str]:
    """Return the figures of every study at every level, and which weights they are of."""
    plan, rows = read_plan(), []
    for folder in studies:
        with open_unseen(plan, plan.name, folder.name, precision, least_lesion_probability=0) as (pipeline, model):
            result = pipeline.run(Study.from_folder(folder), overlap=overlap)
        mask = lesion_mask(result)
        assert result.lesion_probability is not None
        probability = np.asarray(result.lesion_probability.data)
        truth, _ = read_volume(folder / "lesion.nii.gz")
        true = np.asarray(truth.data) > 0
        applied = pipeline.manifest.least_lesion_probability
        for level in sorted({*LEVELS, applied}):
            figures = compare_lesions(folder.name, keep_sure(mask, probability, level), true, truth.grid.spacing_mm)
            rows.append({"level": level, "applied": level == applied, "model": model, **asdict(figures)})
            print(f"{folder.name} from {level:g}: Dice {figures.dice:.3f}, false {figures.false_lesions}", flush=True)
    return rows, describe([row for row in rows if row["applied"]], plan.name)


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
