"""What the tables of measurements are made with: the newest result of a kind, and Markdown."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from machine import RESULTS


def newest(kind: str) -> dict[str, Any]:
    """Return the newest result of a kind, such as "pipeline", whatever device it was measured on."""
    files = sorted(RESULTS.glob(f"*-{kind}.json"), key=_date_then_name)
    return json.loads(files[-1].read_text()) if files else {}


def _date_then_name(file: Path) -> tuple[str, str]:
    """Return what result files are ordered by; one without a date in its name is the oldest."""
    found = re.search(r"\d{4}-\d{2}-\d{2}", file.name)
    return found.group() if found else "", file.name


def table(header: Iterable[str], rows: Iterable[Iterable[object]]) -> str:
    """Return a Markdown table."""
    head = list(header)
    lines = [head, ["---"] * len(head), *([str(cell) for cell in row] for row in rows)]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)
