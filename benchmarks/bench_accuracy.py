"""Lesion figures on labelled real studies, run through the product itself, each by weights that have not seen it.

    python benchmarks/bench_accuracy.py                     the studies of RMR_DATA/open_ms, by the folds of ms-edge
    python benchmarks/bench_accuracy.py --plan NAME DIR...  the same by the folds of models/NAME.toml
    python benchmarks/bench_accuracy.py --bundle B DIR...   a bundle, on studies of yours

The folds are trained by the recipe of the released weights, each without one study (`models/NAME.toml`). A study that
has no fold is reported by the bundle itself, unless its manifest says that it was trained on it. `checkpoint_sha256` of
a row is the digest of the fold's file, null where the bundle itself reports.
"""

from __future__ import annotations

import argparse
import json
import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict
from datetime import date
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
from exported import open_checkpoint
from machine import machine_facts, result_path
from numpy.typing import NDArray
from release_plan import Fold, Plan, read_plan, studies_seen

from rmr_sdk import Bundle, Pipeline, Study
from rmr_sdk.io.nifti import read_volume
from rmr_sdk.manifest import Accuracy
from rmr_training.evaluate import LesionFigures, compare_lesions, count_by_size

Row = dict[str, Any]
Mask = NDArray[np.bool_]

OVERLAP = 0.25
"""Of neighbouring tiles, unless asked otherwise."""

METRICS = {
    "lesion_dice": "dice",
    "lesion_sensitivity": "sensitivity",
    "false_lesions": "false_lesions",
}
"""Names of the figures in a manifest, and in a row."""


def lesion_masks(pipeline: Pipeline, folder: Path, overlap: float) -> tuple[Mask, Mask, tuple[float, float, float]]:
    """Segment one study; return its lesions and those of `lesion.nii.gz`, on the study's own grid, and its spacing."""
    result = pipeline.run(Study.from_folder(folder), overlap=overlap)
    truth, _ = read_volume(folder / "lesion.nii.gz")
    assert result.labels is not None
    assert result.classes is not None
    assert result.lesion_class is not None
    predicted = result.labels.data == result.classes.index(result.lesion_class)
    return predicted, np.asarray(truth.data) > 0, truth.grid.spacing_mm


def assess(pipeline: Pipeline, folder: Path, overlap: float) -> LesionFigures:
    """Segment one study and compare its lesions with `lesion.nii.gz`."""
    return compare_lesions(folder.name, *lesion_masks(pipeline, folder, overlap))


def refuse_seen(checkpoint: Path, study: str) -> None:
    """Stop before weights are reported on what they were trained on.

    Raises:
        SystemExit: The checkpoint says that it has seen the study.
    """
    if study in studies_seen(checkpoint):
        raise SystemExit(f"{checkpoint.name} was trained on {study}: it cannot be reported on it")


def find_fold(plan: Plan | None, study: str) -> Fold | None:
    """Return the fold of a plan that reports a study, None where there is none or its file is not there."""
    folds = [fold for fold in plan.fold if fold.held_out == study and fold.path.exists()] if plan else []
    return folds[0] if folds else None


@contextmanager
def open_unseen(
    plan: Plan | None, bundle: str, study: str, precision: str, **options: Any
) -> Iterator[tuple[Pipeline, str]]:
    """Open weights that have not seen a study, its fold or else the bundle; give their name too.

    Further options are those of `Pipeline.open`.

    Raises:
        SystemExit: Both have seen it.
    """
    if fold := find_fold(plan, study):
        refuse_seen(fold.path, study)
        with open_checkpoint(fold.path, precision, **options) as pipeline:
            yield pipeline, fold.path.stem
        return
    manifest = Bundle.open(bundle).manifest
    if study in manifest.training.studies_seen:
        raise SystemExit(f"{manifest.name} was trained on {study}, and no fold is without it")
    with Pipeline.open(bundle, precision=precision, **options) as pipeline:
        yield pipeline, manifest.name


def measure(studies: Sequence[Path], precision: str, overlap: float, bundle: str, plan: Plan | None) -> list[Row]:
    """Return the figures of every study, and which weights they are of."""
    rows = []
    for folder in studies:
        with open_unseen(plan, bundle, folder.name, precision) as (pipeline, model):
            masks = lesion_masks(pipeline, folder, overlap)
        figures = compare_lesions(folder.name, *masks)
        by_size = [asdict(counts) for counts in count_by_size(*masks)]
        fold = find_fold(plan, folder.name)
        origin = {"model": model, "checkpoint_sha256": fold.checkpoint_sha256 if fold else None}
        rows.append({**asdict(figures), "by_size": by_size, **origin, "precision": precision})
        print(
            f"{folder.name} by {model}: Dice {figures.dice:.3f}, sensitivity {figures.sensitivity:.2f}, "
            f"false {figures.false_lesions}",
            flush=True,
        )
    return rows


def describe(rows: Sequence[Row], released: str) -> str:
    """Say which weights are behind the figures."""
    folds = [f"{row['study']} by {row['model']}" for row in rows if row["model"] != released]
    others = [row["study"] for row in rows if row["model"] == released]
    parts = []
    if folds:
        parts.append(
            f"each segmented by weights of the released recipe that were trained without it ({', '.join(folds)})"
        )
    if others:
        parts.append(f"the released weights were not trained on {', '.join(others)}")
    # What else a study influenced, no program can know: the manifest's recipe says it.
    return "; ".join([*parts, "what else they influenced is in the recipe of the manifest"])


def manifest_entries(rows: Sequence[Row], released: str, overlap: float) -> list[Accuracy]:
    """Return the figures as a manifest states them, with the number of studies and the weights behind each."""
    entries = []
    for row in rows:
        origin = f"by {row['model']}, same recipe, trained without it" if row["model"] != released else "not trained on"
        note = f"Open MS data, {row['truth_ml']:.1f} ml of lesion, {origin}; overlap {overlap:g}"
        entries += [
            Accuracy(
                precision=row["precision"],
                study_set=row["study"],
                studies=1,
                metric=metric,
                value=round(float(row[key]), 3),
                note=note,
            )
            for metric, key in METRICS.items()
        ]
    return entries


def report(studies: Sequence[Path], precision: str, overlap: float, bundle: str, plan: Plan | None) -> Row:
    """Measure every study by the folds of a plan, or by the bundle; return what the benchmark's JSON holds."""
    rows = measure(studies, precision, overlap, bundle, plan)
    about = plan or Bundle.open(bundle).manifest
    return {
        "benchmark": "accuracy",
        "date": date.today().isoformat(),
        "machine": machine_facts(),
        "bundle": f"{about.name} {about.version}",
        "precision": precision,
        "overlap": overlap,
        "note": describe(rows, about.name),
        "studies": rows,
        "accuracy": msgspec.to_builtins(manifest_entries(rows, about.name, overlap)),
    }


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the benchmark and write its JSON."""
    data = Path(os.environ.get("RMR_DATA", "../shared/data"))
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("studies", type=Path, nargs="*", help="labelled studies (default: those of RMR_DATA/open_ms)")
    weights = parser.add_mutually_exclusive_group()
    weights.add_argument("--bundle", default="ms-edge", help="shipped name, folder or .zip (default %(default)s)")
    weights.add_argument("--plan", metavar="NAME", help="folds of models/NAME.toml, and the shipped bundle NAME")
    parser.add_argument("--overlap", type=float, default=OVERLAP)
    parser.add_argument("--precision", default="fp32")
    parser.add_argument("--out", type=Path)
    options = parser.parse_args(arguments)

    studies = options.studies or sorted((data / "open_ms").glob("patient*"))
    name = options.plan or ("ms-edge" if options.bundle == "ms-edge" else None)
    plan = read_plan(name) if name else None
    bundle = plan.name if plan else options.bundle
    found = report(studies, options.precision, options.overlap, bundle, plan)
    out = options.out or result_path("accuracy")
    out.write_text(json.dumps(found, indent=2) + "\n")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
