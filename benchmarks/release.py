"""From the checkpoints under `models/` to the shipped bundle: checks, figures, gates, export, proof.

    python benchmarks/release.py                       all of it; nothing changes unless everything holds
    python benchmarks/release.py --accuracy FILE       with figures that were measured before, of the same checkpoints

1. The folds were trained by the recipe of the released weights, each without the study that it reports.
2. `bench_accuracy.py` measures every fold on its study; every gate of `models/NAME.toml` has a figure, and the figures
   hold the gates, or the plan says why they are released all the same.
3. The released weights are exported, which proves the graph against torch, with the figures in the manifest; the
   other precisions of the plan are made and measured against fp32, and one that is out of tolerance ends the release.
4. Every engine at hand reproduces the golden tile. Only then the bundle replaces the shipped one.

The released weights are reported on no study that they have seen. Torch computes the golden tile on one thread, so
that the same checkpoint, card and figures give the same bundle, byte for byte, on the same kind of processor.
"""

from __future__ import annotations

import argparse
import json
import logging
import os
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

import bench_accuracy
import torch
from machine import result_path
from msgspec.structs import replace
from release_plan import ROOT, Plan, broken_folds, broken_gates, foreign_figures, missing_figures, read_plan

from rmr_export import export_bundle, load_own, read_accuracy, read_card
from rmr_export.precision.report import describe
from rmr_export.verify import verify_bundle
from rmr_sdk import Bundle, RmrError

BUNDLES = ROOT / "rmr_sdk" / "bundles"


def refuse(problems: Sequence[str]) -> None:
    """Stop where anything is wrong.

    Raises:
        SystemExit: There is a problem; all of them are printed.
    """
    if problems:
        raise SystemExit("\n".join(["not released:", *(f"  {problem}" for problem in problems)]))


def export(plan: Plan, figures: Path, target: Path) -> Bundle:
    """Write the bundle with its figures."""
    card = replace(read_card(ROOT / plan.card), accuracy=read_accuracy(figures))
    torch.set_num_threads(1)
    wanted = plan.precisions
    return export_bundle(
        load_own(plan.path),
        target,
        name=plan.name,
        version=plan.version,
        card=card,
        precisions=("fp32", *(wanted.names if wanted else ())),
        recipe=wanted.recipe(data_folder()) if wanted else None,
        told=lambda made: print("\n".join(describe(made)), flush=True),
    )


def data_folder() -> Path:
    """Return the folder of the studies and label maps."""
    return Path(os.environ.get("RMR_DATA", ROOT.parent / "shared" / "data"))


def broken_engines(bundle: Bundle) -> list[str]:
    """Compute the golden tile everywhere; return what failed."""
    problems, passed = [], 0
    for verdict in verify_bundle(bundle):
        passed += verdict.deviation is not None
        if verdict.failed:
            problems.append(f"{verdict.engine} in {verdict.precision}: {verdict.problem}")
    return problems or ([] if passed else ["no engine could run the bundle"])


def release(plan: Plan, figures: Path | None, target: Path) -> None:
    """Make a release, or stop without changing the shipped bundle.

    Args:
        plan: What to release.
        figures: Result of `bench_accuracy.py`; None measures.
        target: The shipped bundle.

    Raises:
        SystemExit: A check, a gate or an engine failed.
        RmrError: A checkpoint is missing or cannot be exported.
    """
    refuse(broken_folds(plan))
    if figures is None:
        figures = result_path("accuracy")
        studies = [data_folder() / fold.study for fold in plan.fold]
        found = bench_accuracy.report(studies, "fp32", bench_accuracy.OVERLAP, plan.name, plan)
        figures.write_text(json.dumps(found, indent=2) + "\n")
    rows = json.loads(figures.read_text())["studies"]
    refuse([*foreign_figures(plan, rows), *missing_figures(plan, rows)])
    broken = broken_gates(plan, rows)
    if broken and plan.despite:
        print("\n".join(["released all the same:", *(f"  {problem}" for problem in broken)]), flush=True)
    else:
        refuse(broken)
    with tempfile.TemporaryDirectory(dir=target.parent) as folder:
        made = Path(folder) / target.name
        refuse(broken_engines(export(plan, figures, made)))
        made.replace(target)


def main(arguments: Sequence[str] | None = None) -> int:
    """Release, and say what came of it."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="ms-edge", help="plan under models/ (default %(default)s)")
    parser.add_argument("--accuracy", type=Path, metavar="JSON", help="take these figures instead of measuring")
    parser.add_argument("--out", type=Path, help="bundle to write (default: the shipped one)")
    options = parser.parse_args(arguments)
    logging.basicConfig(level=logging.WARNING, format="%(message)s")
    logging.getLogger("rmr_export").setLevel(logging.INFO)
    plan = read_plan(options.model)
    target = options.out or BUNDLES / f"{plan.name}.zip"
    try:
        release(plan, options.accuracy, target)
    except RmrError as error:
        print(f"not released: {error}", file=sys.stderr)
        return error.exit_code
    print(f"{plan.name} {plan.version}: {target.stat().st_size / 1e6:.1f} MB")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
