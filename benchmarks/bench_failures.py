"""Where the model fails: the largest false and the largest missed lesion of each study, and pictures of both.

    python benchmarks/bench_failures.py        the studies of the folds in models/ms-edge.toml

The rule picks them, nobody's taste: of the predicted lesions that touch no lesion of the consensus, and of those of the
consensus that no predicted voxel touches, the one with most voxels. Each study is segmented by weights that have not
seen it. Also draws the fused image beside T1 and FLAIR, through the largest lesion found in the last of the studies.
"""

from __future__ import annotations

import argparse
import json
import os
from collections.abc import Sequence
from datetime import date
from pathlib import Path
from typing import Any

import numpy as np
from bench_accuracy import open_unseen
from machine import machine_facts, result_path
from numpy.typing import NDArray
from pictures import PREDICTION, TRUTH, draw_finding, draw_fused, save_small
from release_plan import ROOT, read_plan

from rmr_sdk import Result, Study
from rmr_sdk.io.nifti import read_volume
from rmr_sdk.postprocess import components
from rmr_training.evaluate import SMALLEST_LESION_MM3

Mask = NDArray[np.bool_]
Row = dict[str, Any]

ABOUT = {"false": "largest false lesion", "missed": "largest missed lesion"}


def untouched(mask: Mask, other: Mask, smallest: int = 1) -> list[Mask]:
    """Return the components (26 neighbours) of a mask that share no voxel with another, largest first.

    Args:
        mask: Its components are looked at.
        other: What they must not touch.
        smallest: Components of fewer voxels are left out.
    """
    ids = np.zeros(mask.shape, np.int32)
    found = components(np.ascontiguousarray(mask), ids=ids)
    touched = set(np.unique(ids[other]).tolist())
    return [ids == part.id for part in found if part.id not in touched and part.voxels >= smallest]


def lesion_mask(result: Result) -> Mask:
    """Return the voxels labelled as lesion."""
    assert result.labels is not None
    assert result.classes is not None
    assert result.lesion_class is not None
    mask: Mask = result.labels.data == result.classes.index(result.lesion_class)
    return mask


def failures(result: Result, truth: Mask, study: str, images: Path) -> list[Row]:
    """Find and draw the failures of one study."""
    predicted, grid = lesion_mask(result), result.fused.grid
    smallest = int(np.ceil(SMALLEST_LESION_MM3 / (1000 * grid.voxel_ml)))
    contours = {"prediction": (predicted, PREDICTION), "consensus": (truth, TRUTH)}
    rows = []
    for kind, cases in {"false": untouched(predicted, truth, smallest), "missed": untouched(truth, predicted)}.items():
        row: Row = {"study": study, "kind": kind, "count": len(cases), "picture": None}
        if cases:
            volume_ml = float(cases[0].sum()) * grid.voxel_ml
            centre = grid.world(np.argwhere(cases[0]).mean(0)).tolist()
            file = images / f"failure-{study}-{kind}.png"
            save_small(draw_finding(result, cases[0], contours, f"{study}, {ABOUT[kind]}: {volume_ml:.2f} ml"), file)
            row |= {
                "picture": file.name,
                "volume_ml": round(volume_ml, 3),
                "centre_mm": [round(mm, 1) for mm in centre],
                "mean_flair": _relative_intensity(result, cases[0]),
            }
        rows.append(row)
    return rows


def _relative_intensity(result: Result, mask: Mask) -> float | None:
    """Return how bright a place is on FLAIR, as a multiple of the predicted white matter; None where there is none."""
    assert result.labels is not None
    assert result.classes is not None
    flair, white = result.inputs[result.reference].data, result.labels.data == result.classes.index("white_matter")
    return round(float(flair[mask].mean() / flair[white].mean()), 2) if white.any() else None


def main(arguments: Sequence[str] | None = None) -> int:
    """Find and draw the failures, and write the JSON."""
    data = Path(os.environ.get("RMR_DATA", "../shared/data"))
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--bundle", default="ms-edge", help="for studies without a fold")
    parser.add_argument("--overlap", type=float, default=0.25)
    parser.add_argument("--precision", default="fp32")
    parser.add_argument("--images", type=Path, default=ROOT / "docs" / "images", help="folder of the pictures")
    parser.add_argument("--out", type=Path)
    options = parser.parse_args(arguments)

    plan, rows, models = read_plan(), [], {}
    for fold in plan.fold:
        folder = data / fold.study
        with open_unseen(plan, options.bundle, fold.held_out, options.precision) as (pipeline, model):
            result = pipeline.run(Study.from_folder(folder), overlap=options.overlap)
        truth = np.asarray(read_volume(folder / "lesion.nii.gz")[0].data) > 0
        models[fold.held_out] = model
        rows += failures(result, truth, fold.held_out, options.images)
    save_small(draw_fused(result), options.images / "fused.png")
    report = {
        "benchmark": "failures",
        "date": date.today().isoformat(),
        "machine": machine_facts(),
        "models": models,
        "fused": {"study": plan.fold[-1].held_out, "picture": "fused.png"},
        "cases": rows,
    }
    out = options.out or result_path("failures")
    out.write_text(json.dumps(report, indent=2) + "\n")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
