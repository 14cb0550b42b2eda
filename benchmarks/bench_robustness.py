"""What damage costs on labelled real studies, and the fused images beside simple baselines; all run by the product.

    python benchmarks/bench_robustness.py                       the studies of RMR_DATA/open_ms, by the folds of ms-edge
    python benchmarks/bench_robustness.py --bundle B DIR...     a bundle, on studies of yours
    python benchmarks/bench_robustness.py --figure FILE.png     and the picture

Every condition of `rmr-train evaluate` at its three strengths. A study is reported by weights that have not seen it, as
`bench_accuracy.py` chooses them. The figures are the same from run to run.
"""

from __future__ import annotations

import argparse
import json
import os
from collections.abc import Sequence
from datetime import date
from pathlib import Path
from typing import Any

from bench_accuracy import describe, open_unseen
from machine import machine_facts, result_path
from release_plan import Plan as Release
from release_plan import read_plan

from rmr_sdk import Bundle
from rmr_sdk.engines.cores import usable_cores
from rmr_sdk.manifest import Manifest
from rmr_training.evaluate import (
    CONDITIONS,
    RESOLUTION,
    BundleSubject,
    Evaluation,
    Plan,
    assess,
    damaged_truth,
    load_case,
    to_document,
)
from rmr_training.evaluate.figure import draw
from rmr_training.evaluate.report import to_json


def measure(
    studies: Sequence[Path], plan: Plan, bundle: str, precision: str, release: Release | None
) -> dict[str, Any]:
    """Return the document of an evaluation of all studies, each by weights that have not seen it."""
    manifest = Bundle.open(bundle).manifest
    together = Evaluation({"name": f"{manifest.name} {manifest.version}", "precision": precision}, plan)
    models, limits = [], []
    for folder in studies:
        with open_unseen(release, bundle, folder.name, precision) as (pipeline, model):
            found = assess(BundleSubject(pipeline), [folder], plan, _tell)
        models.append({"study": folder.name, "model": model})
        limits += limits_of(folder, plan, manifest)
        together.studies += found.studies
        together.segmentation += found.segmentation
        together.fusion += found.fusion
    return {**to_document(together), "weights": models, "limits": limits, "note": describe(models, manifest.name)}


def limits_of(folder: Path, plan: Plan, manifest: Manifest) -> list[dict[str, Any]]:
    """Return what each loss of resolution leaves of a study's own lesions."""
    case = load_case(folder, manifest)
    truth = case.truth[manifest.lesion_class or ""]
    return [
        {
            "study": case.name,
            "condition": condition,
            "strength": strength,
            "dice": round(damaged_truth(truth, case.axes.grid, condition, strength), 4),
        }
        for condition, strength in plan.levels()
        if condition in RESOLUTION and truth.any()
    ]


def _tell(study: str, done: int, total: int) -> None:
    print(f"{study}: {done} of {total}", flush=True)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the benchmark and write its JSON."""
    data = Path(os.environ.get("RMR_DATA", "../shared/data"))
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("studies", type=Path, nargs="*", help="labelled studies (default: those of RMR_DATA/open_ms)")
    parser.add_argument("--bundle", default="ms-edge", help="shipped name, folder or .zip (default %(default)s)")
    parser.add_argument("--precision", default="fp32")
    parser.add_argument("--conditions", nargs="+", default=list(CONDITIONS), metavar="NAME")
    parser.add_argument("--strengths", type=int, nargs="+", default=[1, 2, 3])
    parser.add_argument("--threads", type=int, default=usable_cores(), help="fused images assessed at a time")
    parser.add_argument("--figure", type=Path, help="where the picture goes")
    parser.add_argument("--out", type=Path)
    options = parser.parse_args(arguments)

    studies = options.studies or sorted((data / "open_ms").glob("patient*"))
    plan = Plan(
        conditions=tuple(options.conditions),
        strengths=tuple(options.strengths),
        segmentation=True,
        threads=options.threads,
    )
    release = read_plan() if options.bundle == "ms-edge" else None
    document = measure(studies, plan, options.bundle, options.precision, release)
    report = {
        "benchmark": "robustness",
        "date": date.today().isoformat(),
        "machine": machine_facts(),
        **document,
    }
    out = options.out or result_path("robustness")
    out.write_text(to_json(report) + "\n")
    if options.figure:
        options.figure.write_bytes(draw(json.loads(to_json(document))))
    for row in document["summary"]:
        if row["figure"] == "dice":
            print(f"{row['condition']} {row['strength']}: Dice {row['mean']:.3f}, n = {row['n']}")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
