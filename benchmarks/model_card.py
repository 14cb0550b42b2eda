"""Make docs/model-card.md from what is known and what was measured.

    python benchmarks/model_card.py             rewrite the card
    python benchmarks/model_card.py --check     exit 1 when the card does not show the results

Measures nothing: figures come from the newest results, pictures were drawn by `bench_failures.py`.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import card_tables
import tables
from cost import measure_cost
from jinja2 import Environment, FileSystemLoader, StrictUndefined
from release_plan import ROOT, Plan, read_plan
from result_tables import newest

from rmr_export import read_card
from rmr_sdk import Bundle
from rmr_training.checkpoint import read_checkpoint
from rmr_training.models import Preset

DOCUMENT = ROOT / "docs" / "model-card.md"
TEMPLATES = Path(__file__).parent / "templates"
NO_FAILURES: dict[str, Any] = {"cases": [], "fused": None}

TABLES: dict[str, Callable[[], str]] = {
    **tables.TABLES,
    "stability": card_tables.stability_table,
    "heads": card_tables.heads_table,
    "sizes": card_tables.sizes_table,
    "confidence": card_tables.confidence_table,
    "claims": card_tables.claims_table,
}


def render(plan: Plan) -> str:
    """Return the card as Markdown."""
    looks = Environment(
        loader=FileSystemLoader(TEMPLATES),
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    failures = newest("failures") or NO_FAILURES
    preset = Preset.from_metadata(read_checkpoint(plan.path)["preset"])
    return looks.get_template("model-card.md.j2").render(
        plan=plan,
        manifest=Bundle.open(plan.name).manifest,
        card=read_card(ROOT / plan.card),
        preset=preset,
        cost=measure_cost(preset),
        # Without folds the weights are older than the recipes.
        recipes=list(recipe_files(plan.name)) if all(fold.path.exists() for fold in plan.fold) else [],
        gates=list(verdicts(plan)),
        table=lambda name: TABLES[name](),
        cases=failures["cases"],
        fused=failures["fused"],
    )


def verdicts(plan: Plan) -> Iterator[str]:
    """Yield each gate, and whether the figures hold it."""
    rows = {row["study"]: row for row in (newest("accuracy") or {"studies": []})["studies"]}
    for gate in plan.gate:
        row = rows.get(gate.study)
        yield f"{gate.wish}: {'not measured' if row is None else 'missed' if gate.problem(row) else 'reached'}"


def recipe_files(name: str) -> Iterator[tuple[str, str]]:
    """Yield each recipe file of a model and its first line, which says what it is."""
    for file in sorted((ROOT / "training" / "recipes" / name).glob("*.toml")):
        first = file.read_text(encoding="utf-8").splitlines()[0]
        yield file.name, first.removeprefix("#").strip()


def main(arguments: Sequence[str] | None = None) -> int:
    """Rewrite or check the card."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--check", action="store_true", help="exit 1 when the card does not show the results")
    parser.add_argument("--out", type=Path, default=DOCUMENT)
    options = parser.parse_args(arguments)
    made = render(read_plan())
    if options.check:
        return int(not options.out.exists() or options.out.read_text(encoding="utf-8") != made)
    options.out.write_text(made, encoding="utf-8")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
