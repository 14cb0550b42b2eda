"""One picture of an evaluation: what each kind of damage costs, and the network's fused image beside the baselines'."""

from __future__ import annotations

import io
from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

from matplotlib.figure import Figure

from .assessment import NETWORK
from .conditions import CLEAN

if TYPE_CHECKING:
    from matplotlib.axes import Axes

Document = dict[str, Any]
Means = dict[tuple[str, int, str], Document]
"""(condition, strength, class or method) -> row of the summary."""

FUSION = {
    "ssim": "SSIM",
    "nmi": "normalised MI",
    "fmi": "FMI",
    "qabf": "Q$^{AB/F}$",
    "vif": "VIF",
    "scd": "SCD",
}
"""Figures of fusion that the picture shows, and what it calls them; higher is better for all."""

STRENGTHS = ("clean", "mild", "middling", "strong")

# Distinct without colour vision: Okabe and Ito, Color Universal Design (2008).
_COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00")
_OURS, _OTHER = "#56B4E9", "#c4c4c4"
_BESIDE = "average"


def draw(document: Document) -> bytes:
    """Return a PNG of the document that `report.to_document` gives.

    Above, figures over the strength of damage, or for clean studies alone the Dice of each class; below, the fused
    images of the clean studies. What was not assessed is left out. `n` is the number of studies that a mean is over.
    """
    panels, fusion = _panels(document), bool(document["fusion"])
    heights = [3.4] * bool(panels) + [2.5] * fusion
    figure = Figure(figsize=(11, sum(heights) + 0.4), layout="constrained")
    figure.suptitle(f"{document['model']['name']}, {document['n']} studies", fontsize=11)
    parts = figure.subfigures(len(heights), 1, squeeze=False, height_ratios=heights)[:, 0]
    if panels:
        for axes, (kind, name, label) in zip(parts[0].subplots(1, len(panels), squeeze=False)[0], panels, strict=True):
            _draw_damage(axes, _means(document, kind, name), _shown(document) if kind == "class" else NETWORK, label)
    if fusion:
        for axes, (name, label) in zip(parts[-1].subplots(1, len(FUSION)), FUSION.items(), strict=True):
            _bars(axes, _means(document, "method", name), label)
    stream = io.BytesIO()
    figure.savefig(stream, dpi=110, metadata={"Software": None})
    return stream.getvalue()


def _panels(document: Document) -> list[tuple[str, str, str]]:
    """Return (kind of row, figure, label) of the upper panels that the evaluation has rows for."""
    damaged = len(document["conditions"]) > 1
    panels = [("class", "dice", "Dice")] if document["segmentation"] else []
    if document["fusion"] and damaged:
        panels += [("method", "ssim", "SSIM to the clean inputs"), ("method", "qabf", "Q$^{AB/F}$ of the clean inputs")]
    return panels


def _means(document: Document, kind: str, figure: str) -> Means:
    return {
        (row["condition"], row["strength"], row[kind]): row
        for row in document["summary"]
        if kind in row and row["figure"] == figure and row["mean"] is not None
    }


def _shown(document: Document) -> str:
    """Return the class whose line is drawn: lesions where there are any."""
    classes = [str(row["class"]) for row in document["segmentation"]]
    return "lesion" if "lesion" in classes else classes[0]


def _draw_damage(axes: Axes, means: Means, subject: str, label: str) -> None:
    """Draw a figure over the strength of damage, a line per condition; from clean alone, a bar per class."""
    conditions = list(dict.fromkeys(name for name, _, _ in means if name != CLEAN))
    if not conditions:
        _bars(axes, means, label)
        return
    drawn = [row for (_, _, name), row in means.items() if name in (subject, _BESIDE)]
    title = label if subject == NETWORK else f"{label}, {subject.replace('_', ' ')}"
    axes.set_title(f"{title}, {_studies(drawn)}", fontsize=9)
    for condition, colour in zip(conditions, _COLOURS, strict=False):
        _lines(axes, means, condition, subject, colour)
    axes.set_xticks(range(len(STRENGTHS)), STRENGTHS)
    axes.set_ylim(0, 1)
    axes.tick_params(labelsize=8)
    axes.grid(axis="y", color="#e4e4e4", linewidth=0.6)
    if any(name == _BESIDE for _, _, name in means):
        axes.plot([], [], color="#808080", linestyle=":", label="average instead")
    axes.legend(fontsize=7, frameon=False, loc="lower left")


def _lines(axes: Axes, means: Means, condition: str, subject: str, colour: str) -> None:
    """Draw the line of one condition with its range over studies, and dotted that of the average of both inputs."""
    levels = [(CLEAN, 0), *((condition, strength) for strength in (1, 2, 3))]
    for name, style in ((subject, "-"), (_BESIDE, ":")):
        rows = {strength: means[key, strength, name] for key, strength in levels if (key, strength, name) in means}
        if not rows:
            continue
        values = [row["mean"] for row in rows.values()]
        label = condition if name == subject else None
        axes.plot(
            list(rows), values, color=colour, linestyle=style, marker="o", markersize=3, linewidth=1.3, label=label
        )
        if label:
            low, high = ([row[end] for row in rows.values()] for end in ("lowest", "highest"))
            axes.fill_between(list(rows), low, high, color=colour, alpha=0.07)


def _bars(axes: Axes, means: Means, label: str) -> None:
    """Draw one figure of the clean studies as horizontal bars with the range over studies, the first on top."""
    rows = {name: row for (condition, _, name), row in means.items() if condition == CLEAN}
    values = [row["mean"] for row in rows.values()]
    reach = [
        [row["mean"] - row["lowest"] for row in rows.values()],
        [row["highest"] - row["mean"] for row in rows.values()],
    ]
    colours = [_OURS if name in (NETWORK, "lesion") else _OTHER for name in rows]
    axes.barh(range(len(rows)), values, xerr=reach, color=colours, error_kw={"linewidth": 0.8}, height=0.66)
    for place, value in enumerate(values):
        axes.annotate(f"{value:.2f}", (0, place), (3, 0), textcoords="offset points", va="center", fontsize=7)
    differ = len({row["n"] for row in rows.values()}) > 1
    names = [name.replace("_", " ") + (f", n = {row['n']}" if differ else "") for name, row in rows.items()]
    axes.set_yticks(range(len(rows)), names, fontsize=8)
    axes.set_ylim(max(len(rows), 3) - 0.5, -0.5)
    axes.tick_params(axis="x", labelsize=7)
    axes.set_title(label if differ or not rows else f"{label}, {_studies(rows.values())}", fontsize=9)


def _studies(rows: Iterable[Document]) -> str:
    """Return how many studies the means of rows are over: one number, or the least and the greatest."""
    counts = sorted({row["n"] for row in rows} or {0})
    return f"n = {counts[0]}" + (f" to {counts[-1]}" if len(counts) > 1 else "")
