"""What an evaluation leaves behind: JSON, CSV tables and a figure, all of them or none; and a few lines for a terminal.

The same studies, network and plan give the same bytes: no date, no duration and no path stands in them.
"""

from __future__ import annotations

import csv
import io
import json
import math
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from rmr_sdk.io.files import check_outputs, output_folder

from .assessment import Evaluation, Row
from .conditions import CLEAN, CONDITIONS

FILES = ("evaluation.json", "segmentation.csv", "fusion.csv", "summary.csv", "evaluation.png")
"""All files that `write_report` may write."""

REGION = (
    "mask: voxels of the clean study where T1w or FLAIR is foreground; histograms, SSIM and SCD over the mask, edges "
    "and local features over the mask without its outermost voxels, VIF over the box around it"
)

KEYS = ("condition", "strength", "class", "method")
"""What the rows of a mean share."""

_NOT_FIGURES = {*KEYS, "study"}


def to_document(evaluation: Evaluation) -> dict[str, Any]:
    """Return an evaluation as plain values; figures that are not defined are None."""
    plan = evaluation.plan
    return {
        "model": evaluation.model,
        "n": len(evaluation.studies),
        "studies": evaluation.studies,
        "conditions": [
            {"condition": condition, "strength": strength, "about": _about(condition, strength)}
            for condition, strength in plan.levels()
        ],
        "damaged_contrasts": list(plan.damaged) or ["T1w", "FLAIR"],
        "seed": plan.seed,
        "region": REGION,
        "segmentation": [_plain(row) for row in evaluation.segmentation],
        "fusion": [_plain(row) for row in evaluation.fusion],
        "summary": [_plain(row) for row in summarise(evaluation)],
    }


def summarise(evaluation: Evaluation) -> list[Row]:
    """Return the mean, the range and the drop of every figure over studies.

    A row has the condition, the strength, the class or the method, the figure, `mean`, `lowest`, `highest`, `drop` (how
    far the mean lies below that of the same studies when clean) and `n`, the studies in which the figure is defined.
    """
    return [*_summarise(evaluation.segmentation, "class"), *_summarise(evaluation.fusion, "method")]


def _summarise(rows: Sequence[Row], kind: str) -> list[Row]:
    groups: dict[tuple[str, int, str], list[Row]] = {}
    for row in rows:
        groups.setdefault((row["condition"], row["strength"], row[kind]), []).append(row)
    clean = {(row["study"], row[kind]): row for row in rows if row["condition"] == CLEAN}
    out = []
    for (condition, strength, name), members in groups.items():
        for figure in (key for key in members[0] if key not in _NOT_FIGURES):
            defined = [row for row in members if not math.isnan(row[figure])]
            values = [row[figure] for row in defined]
            drops = [clean[row["study"], name][figure] - row[figure] for row in defined]
            out.append(
                {
                    "condition": condition,
                    "strength": strength,
                    kind: name,
                    "figure": figure,
                    "mean": _mean(values),
                    "lowest": min(values, default=math.nan),
                    "highest": max(values, default=math.nan),
                    "drop": _mean([drop for drop in drops if not math.isnan(drop)]),
                    "n": len(values),
                }
            )
    return out


def check_report(folder: Path, overwrite: bool = False) -> None:
    """Raise before hours of work what `write_report` would raise after them.

    Raises:
        OutputError: A file exists without `overwrite`, or the folder cannot be written.
    """
    check_outputs(folder, FILES, overwrite)


def write_report(evaluation: Evaluation, folder: Path, overwrite: bool = False) -> None:
    """Write `evaluation.json`, `segmentation.csv`, `fusion.csv`, `summary.csv` and `evaluation.png`.

    A table without rows is not written. All files appear together, or none does.

    Raises:
        OutputError: As for `check_report`.
    """
    from .figure import draw  # Matplotlib takes a second to import

    document = to_document(evaluation)
    with output_folder(folder, FILES, overwrite) as staging:
        (staging / "evaluation.json").write_text(to_json(document) + "\n", encoding="utf-8")
        for table in ("segmentation", "fusion", "summary"):
            if document[table]:
                (staging / f"{table}.csv").write_text(to_csv(document[table]), encoding="utf-8")
        (staging / "evaluation.png").write_bytes(draw(document))


def to_json(document: dict[str, Any]) -> str:
    """Return a document as pretty JSON, figures to six digits."""
    return json.dumps(_rounded(document), indent=2, allow_nan=False)


def to_csv(rows: Sequence[Row]) -> str:
    """Return rows as CSV with a header; what a row lacks or what is not defined stays empty."""
    columns = list(dict.fromkeys(key for row in rows for key in row))
    text = io.StringIO()
    writer = csv.DictWriter(text, columns, restval="", lineterminator="\n")
    writer.writeheader()
    writer.writerows(_rounded(list(rows)))
    return text.getvalue()


def to_text(evaluation: Evaluation) -> str:
    """Return the most telling means for a terminal.

    Each line ends in the number of studies that its means are over; where figures of a line differ, each has its own.
    """
    found = {
        (row["condition"], row["strength"], row.get("class") or row.get("method"), row["figure"]): row
        for row in summarise(evaluation)
    }
    lines = [f"{evaluation.model['name']}, {len(evaluation.studies)} studies"]
    lines += [f"{study['study']}: {note}" for study in evaluation.studies for note in study["notes"]]
    classes = dict.fromkeys(row["class"] for row in evaluation.segmentation)
    methods = dict.fromkeys(row["method"] for row in evaluation.fusion)
    for names, figures in (
        (classes, ("dice", "sensitivity", "false_lesions", "volume_error_ml", "hausdorff95_mm")),
        (methods, ("ssim", "nmi", "fmi", "qabf", "vif", "scd")),
    ):
        for condition, strength in evaluation.plan.levels():
            for name in names:
                rows = [found.get((condition, strength, name, figure)) for figure in figures]
                level = condition if condition == CLEAN else f"{condition} {strength}"
                lines.append(f"{level:<11}{name:<14}" + _means([row for row in rows if row and row["n"]]))
    return "\n".join(lines)


def _means(rows: Sequence[Row]) -> str:
    """Return the means of one line and how many studies they are over."""
    counts = {row["n"] for row in rows}
    parts = [f"{row['figure']} {row['mean']:.3f}" for row in rows]
    if len(counts) > 1:
        return "  ".join(f"{part} (n = {row['n']})" for part, row in zip(parts, rows, strict=True))
    return "  ".join([*parts, f"n = {max(counts, default=0)}"])


def _about(condition: str, strength: int) -> str:
    return "as it is" if condition == CLEAN else CONDITIONS[condition].describe(strength)


def _mean(values: Iterable[float]) -> float:
    numbers = list(values)
    return math.fsum(numbers) / len(numbers) if numbers else math.nan


def _plain(row: Row) -> Row:
    return {key: None if isinstance(value, float) and math.isnan(value) else value for key, value in row.items()}


def _rounded(value: Any) -> Any:
    if isinstance(value, float):
        return float(f"{value:.6g}")
    if isinstance(value, dict):
        return {key: _rounded(each) for key, each in value.items()}
    return [_rounded(each) for each in value] if isinstance(value, list) else value
