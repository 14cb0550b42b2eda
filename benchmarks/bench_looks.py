"""How lesions look: on labelled real studies, and on heads synthesised with the ranges of a recipe.

    python benchmarks/bench_looks.py                                        the defaults of the synthesis
    python benchmarks/bench_looks.py --config training/recipes/NAME.toml    the ranges of a recipe

Of every connected lesion of at least 5 mm3: how much brighter it is than the brighter of grey and white matter on
FLAIR, in units of the network, and how dark it is on T1, where white matter is 0 and fluid is 1. Tissue is found by
three classes of T1, in both alike. A range that lesions are drawn from should cover what the labelled patient of a
fold shows, and follow from no other.
"""

from __future__ import annotations

import argparse
import json
import os
from collections.abc import Sequence
from dataclasses import replace
from datetime import date
from pathlib import Path
from typing import Any

import numpy as np
import torch
from machine import machine_facts, result_path
from numpy.typing import NDArray
from release_plan import ROOT, read_plan
from scipy import ndimage

from rmr_training.config import HELD_OUT, make_ranges, read_config
from rmr_training.data import load_label_maps, split_by_donor
from rmr_training.implants import Tissue, find_tissue
from rmr_training.real import load_real_study
from rmr_training.sampling import keyed_generator
from rmr_training.sureness import HEADS, make_head
from rmr_training.synthesis import LESION, Ranges

SIZES = ((5, 15), (15, 60), (60, None))
"""Voxels of 1 mm3 from which and up to which lesions are taken together."""

QUANTILES = (0.05, 0.25, 0.5, 0.75, 0.95)

SEED = 77

Row = dict[str, Any]
Lesion = tuple[int, float, float]
"""Voxels of a lesion, its brightness on FLAIR and its darkness on T1."""


def look_at(images: NDArray[np.float32], mask: NDArray[np.bool_], tissue: Tissue) -> list[Lesion]:
    """Measure every connected lesion of a mask (D, H, W) on T1 and FLAIR (2, D, H, W)."""
    (fluid, white), (_, brightest) = tissue.t1w, tissue.flair
    found, _ = ndimage.label(mask, np.ones((3, 3, 3)))
    lesions = []
    for number, place in enumerate(ndimage.find_objects(found), 1):
        inside = found[place] == number
        t1w, flair = (float(image[place][inside].mean()) for image in images)
        lesions.append((int(inside.sum()), flair - brightest, (white - t1w) / (white - fluid)))
    return lesions


def rows_of(source: str, lesions: Sequence[Lesion]) -> list[Row]:
    """Sum up lesions by their size."""
    rows = []
    for low, high in SIZES:
        group = [each for each in lesions if low <= each[0] and (high is None or each[0] < high)]
        if not group:
            continue
        brightness, darkness = (np.quantile([each[i] for each in group], QUANTILES).round(3).tolist() for i in (1, 2))
        sizes = {"from_mm3": low, "to_mm3": high, "lesions": len(group)}
        rows.append({"source": source, **sizes, "brightness": brightness, "darkness": darkness})
    return rows


def real_lesions(folder: Path) -> list[Lesion]:
    """Measure the lesions of a labelled real study."""
    study = load_real_study(folder, labelled=True)
    assert study.labels is not None
    assert study.tissue is not None
    return look_at(study.images.numpy(), study.labels.numpy() == LESION, study.tissue)


def synthetic_lesions(label_maps: Path, ranges: Ranges, per_map: int) -> list[Lesion]:
    """Measure the lesions of synthetic heads of real anatomies that training sees."""
    maps, _ = split_by_donor(load_label_maps(label_maps), HELD_OUT)
    lesions = []
    for number in range(per_map):
        for index, each in enumerate(each for each in maps if each.name.startswith("patient")):
            head = make_head(each, keyed_generator(SEED, number, index), ranges=ranges)
            images, mask = torch.cat([head.t1w, head.flair]).numpy(), head.labels.numpy() == LESION
            lesions += look_at(images, mask, find_tissue(images, mask))
    return lesions


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure the studies of the folds and synthetic heads; write the JSON."""
    data = Path(os.environ.get("RMR_DATA", ROOT.parent / "shared" / "data"))
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--config", type=Path, help="recipe whose [ranges] lesions are drawn from")
    parser.add_argument("--heads", type=int, default=3, help="synthetic heads of each label map (default %(default)s)")
    parser.add_argument("--out", type=Path)
    options = parser.parse_args(arguments)
    ranges = make_ranges(read_config(options.config)) if options.config else Ranges()
    names = ("lesion_contrast", "lesion_darkness", "rim_contrast", "rim_darkness")
    drawn = {name: getattr(ranges, name) for name in names}
    rows: list[Row] = []
    for fold in read_plan().fold:
        rows += rows_of(fold.held_out, real_lesions(data / fold.study))
    clean = replace(HEADS, thick_slices=0.0, low_contrast=0.0, look_alikes=0.0, **drawn)
    rows += rows_of("synthetic", synthetic_lesions(data / "labelmaps", clean, options.heads))
    for row in rows:
        print(json.dumps(row), flush=True)
    report = {
        "benchmark": "looks",
        "date": date.today().isoformat(),
        "machine": machine_facts(),
        "quantiles": QUANTILES,
        "ranges": drawn,
        "rows": rows,
    }
    (options.out or result_path("looks")).write_text(json.dumps(report, indent=2) + "\n")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
