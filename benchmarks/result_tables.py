"""What the tables of measurements are made with: the newest result of a kind, and Markdown."""

from __future__ import annotations

import json
from collections.abc import Iterable
from typing import Any

from machine import RESULTS


def newest(kind: str) -> dict[str, Any]:
    """Return the newest result file of a kind, such as "pipeline"."""
    files = sorted(RESULTS.glob(f"*-{kind}.json"))
    return json.loads(files[-1].read_text()) if files else {}


def table(header: Iterable[str], rows: Iterable[Iterable[object]]) -> str:
    """Return a Markdown table."""
    head = list(header)
    lines = [head, ["---"] * len(head), *([str(cell) for cell in row] for row in rows)]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)
