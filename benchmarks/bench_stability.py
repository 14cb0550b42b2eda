"""How much the lesion figures of a run swing over its last checkpoints, on the study that it has not seen.

    python benchmarks/bench_stability.py runs/fold07 ../shared/data/open_ms/patient07 runs/fold19 .../patient19

Takes pairs of a run's folder and a study, evaluates every `model-STEP.pth` there through the product, and writes one
JSON. Which checkpoint is released does not follow from it: that is settled on synthetic patches.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Sequence
from datetime import date
from pathlib import Path
from typing import Any

from bench_accuracy import assess, refuse_seen
from exported import open_checkpoint
from machine import machine_facts, result_path

Row = dict[str, Any]

FIGURES = ("dice", "sensitivity", "false_lesions", "predicted_ml")


def checkpoints(folder: Path, last: int) -> list[Path]:
    """Return the kept checkpoints of a run, oldest first.

    Raises:
        SystemExit: There are fewer than two, so that nothing can be said.
    """
    found = sorted(folder.glob("model-*.pth"), key=step_of)[-last:]
    if len(found) < 2:
        raise SystemExit(f"{folder} holds {len(found)} checkpoints model-STEP.pth: train with --keep 10")
    return found


def step_of(checkpoint: Path) -> int:
    """Return the step that a kept checkpoint was written at."""
    return int(checkpoint.stem.split("-")[1])


def assess_run(folder: Path, study: Path, options: argparse.Namespace) -> Row:
    """Evaluate all kept checkpoints of a run on one study."""
    rows = []
    for checkpoint in checkpoints(folder, options.last):
        refuse_seen(checkpoint, study.name)
        with open_checkpoint(checkpoint, options.precision, options.threads) as pipeline:
            figures = assess(pipeline, study, options.overlap)
        rows.append({"step": step_of(checkpoint), **{name: round(getattr(figures, name), 4) for name in FIGURES}})
        print(f"{folder.name} on {study.name}: {rows[-1]}", flush=True)
    return {"run": folder.name, "study": study.name, **spread([row["dice"] for row in rows]), "checkpoints": rows}


def spread(dice: Sequence[float]) -> dict[str, float]:
    """Sum up the Dice of checkpoints: least, greatest, their difference, and the mean."""
    low, high = min(dice), max(dice)
    return {"lowest": low, "highest": high, "spread": round(high - low, 4), "mean": round(sum(dice) / len(dice), 4)}


def main(arguments: Sequence[str] | None = None) -> int:
    """Evaluate the runs and write the JSON."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("pairs", type=Path, nargs="+", metavar="FOLDER STUDY", help="a run and a study it has not seen")
    parser.add_argument("--last", type=int, default=10, help="checkpoints to look at (default %(default)s)")
    parser.add_argument("--overlap", type=float, default=0.25)
    parser.add_argument("--precision", default="fp32")
    parser.add_argument("--threads", type=int)
    parser.add_argument("--out", type=Path)
    options = parser.parse_args(arguments)
    if len(options.pairs) % 2:
        parser.error("give a study after each folder")

    pairs = zip(options.pairs[::2], options.pairs[1::2], strict=True)
    runs = [assess_run(folder, study, options) for folder, study in pairs]
    report = {
        "benchmark": "stability",
        "date": date.today().isoformat(),
        "machine": machine_facts(),
        "precision": options.precision,
        "overlap": options.overlap,
        "runs": runs,
    }
    out = options.out or result_path("stability")
    out.write_text(json.dumps(report, indent=2) + "\n")
    for run in runs:
        print(f"{run['study']}: Dice {run['lowest']:.3f} to {run['highest']:.3f}, spread {run['spread']:.3f}")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
