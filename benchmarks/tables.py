"""Make the tables of the README from the committed results, newest of each kind first.

    python benchmarks/tables.py README.md           rewrite what stands between the markers
    python benchmarks/tables.py README.md --check   exit 1 when the README does not show the results

A table stands between `<!-- table: NAME -->` and `<!-- end -->`.
"""

from __future__ import annotations

import re
import sys
from collections.abc import Callable
from pathlib import Path

from accuracy_tables import (
    accuracy_table,
    alignment_table,
    candidates_table,
    fusion_table,
    gains_table,
    looks_table,
    pareto_table,
    robustness_table,
    stretch_table,
)
from engine_tables import engines_table, groups_table, paper_table, plans_table, quantise_table, rewrites_table
from speed_tables import kernels_table, memory_table, peers_table, pipeline_table

TABLES: dict[str, Callable[[], str]] = {
    "quantise": quantise_table,
    "quantise_groups": groups_table,
    "pipeline": pipeline_table,
    "accuracy": accuracy_table,
    "kernels": kernels_table,
    "pareto": pareto_table,
    "robustness": robustness_table,
    "fusion": fusion_table,
    "gains": gains_table,
    "looks": looks_table,
    "candidates": candidates_table,
    "stretch": stretch_table,
    "alignment": alignment_table,
    "memory": memory_table,
    "engines": engines_table,
    "paper": paper_table,
    "peers": peers_table,
    "plans": plans_table,
    "rewrites": rewrites_table,
}


def render(text: str) -> str:
    """Return a document with every table made anew."""

    def fill(match: re.Match[str]) -> str:
        return f"{match[1]}\n{TABLES[match[2]]()}\n{match[3]}"

    return re.sub(r"(<!-- table: (\w+) -->).*?(<!-- end -->)", fill, text, flags=re.S)


def main(arguments: list[str]) -> int:
    """Rewrite or check a document."""
    document = Path(arguments[0])
    text = document.read_text()
    made = render(text)
    if "--check" in arguments:
        return int(made != text)
    document.write_text(made)
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
