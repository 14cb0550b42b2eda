"""Lesions outside the brain, on scans whose heads were not stripped and that no training has seen.

    python benchmarks/bench_heads.py        patient12 and patient20 of RMR_DATA/open_ms_raw with ms-edge

There is no brain mask for these scans, so the labels make one: what is labelled grey or white matter or lesion, cut
where it is thinner than 4 mm, and of the pieces the largest. A lesion counts as outside when none of its voxels is
within 3 mm of it. The rule trusts the labels: where thick scalp is labelled as tissue and hangs together with the
brain, it sees nothing. How large the brain is by it, and how much tissue lies elsewhere, is therefore reported beside.
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
from bench_failures import lesion_mask
from machine import machine_facts, result_path
from numpy.typing import NDArray
from scipy import ndimage

from rmr_sdk import Pipeline, Result, Study
from rmr_training.whole_heads import CUT_MM, NEAR_MM, find_brain

TISSUE = ("grey_matter", "white_matter", "lesion")
UNTRAINED = ("patient12", "patient20")

Mask = NDArray[np.bool_]
Row = dict[str, Any]


def outside(lesions: Mask, brain: Mask, spacing_mm: Sequence[float]) -> tuple[Mask, int]:
    """Return the lesions that stay farther than `NEAR_MM` from the brain, and how many they are."""
    ids, count = ndimage.label(lesions, np.ones((3, 3, 3)))
    if not count:
        return lesions, 0
    distance_mm = ndimage.distance_transform_edt(~brain, spacing_mm) if brain.any() else np.full(brain.shape, np.inf)
    nearest = ndimage.minimum(distance_mm, ids, range(1, count + 1))
    far = [number for number, mm in enumerate(nearest, start=1) if mm > NEAR_MM]
    return np.isin(ids, far), len(far)


def assess_head(result: Result, name: str) -> Row:
    """Count the lesions of one scan, inside and outside."""
    assert result.labels is not None
    assert result.classes is not None
    grid = result.labels.grid
    tissue = np.isin(result.labels.data, [result.classes.index(name) for name in TISSUE])
    brain, lesions = find_brain(tissue, grid.spacing_mm), lesion_mask(result)
    far, count = outside(lesions, brain, grid.spacing_mm)
    return {
        "study": name,
        "voxels_mm": [round(mm, 2) for mm in grid.spacing_mm],
        "lesions": int(ndimage.label(lesions, np.ones((3, 3, 3)))[1]),
        "lesion_ml": round(float(lesions.sum()) * grid.voxel_ml, 2),
        "outside": count,
        "outside_ml": round(float(far.sum()) * grid.voxel_ml, 3),
        "brain_ml": round(float(brain.sum()) * grid.voxel_ml),
        "tissue_elsewhere_ml": round(float((tissue & ~brain).sum()) * grid.voxel_ml, 1),
        "tissue_ml": {key: round(value, 1) for key, value in (result.tissue_ml or {}).items()},
    }


def main(arguments: Sequence[str] | None = None) -> int:
    """Assess the scans and write the JSON."""
    data = Path(os.environ.get("RMR_DATA", "../shared/data"))
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("studies", type=Path, nargs="*", help="scans with their heads on")
    parser.add_argument("--bundle", default="ms-edge")
    parser.add_argument("--overlap", type=float, default=0.25)
    parser.add_argument("--precision", default="fp32")
    parser.add_argument("--out", type=Path)
    options = parser.parse_args(arguments)

    raw = data / "open_ms_raw"
    studies = options.studies or sorted(folder for name in UNTRAINED for folder in raw.glob(f"{name}_*"))
    rows = []
    with Pipeline.open(options.bundle, precision=options.precision) as pipeline:
        seen = sorted({study.name for study in studies} & set(pipeline.manifest.training.studies_seen))
        if seen:
            raise SystemExit(f"{pipeline.manifest.name} was trained on {', '.join(seen)}")
        for study in studies:
            rows.append(assess_head(pipeline.run(Study.from_folder(study), overlap=options.overlap), study.name))
            print(json.dumps(rows[-1]), flush=True)
        manifest = pipeline.manifest
    report = {
        "benchmark": "heads",
        "date": date.today().isoformat(),
        "machine": machine_facts(),
        "bundle": f"{manifest.name} {manifest.version}",
        "precision": options.precision,
        "overlap": options.overlap,
        "near_mm": NEAR_MM,
        "cut_mm": CUT_MM,
        "studies": rows,
    }
    out = options.out or result_path("heads")
    out.write_text(json.dumps(report, indent=2) + "\n")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
