"""What making precisions came to, as JSON and as lines to read."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import msgspec

from .calibration import describe_sources
from .make import Made
from .sensitivity import costs_table

SHOWN = ("label_agreement", "lesion_dice_to_fp32", "lesion_dice_difference", "fused_psnr_db", "fused_ssim")


def report(made: Made) -> dict[str, Any]:
    """Return everything that was measured, in types that JSON has."""
    found: dict[str, Any] = {
        "precisions": sorted({each.precision for each in made.measured}),
        "tolerance": msgspec.to_builtins(made.tolerance),
        "measured": msgspec.to_builtins(made.measured),
        "out_of_tolerance": {name: list(problems) for name, problems in made.problems.items()},
    }
    if made.calibration is not None:
        found["calibration"] = {"tiles": made.calibration.tiles, "sources": list(made.calibration.sources)}
    if made.fallen is not None:
        found["fall_back"] = msgspec.to_builtins(made.fallen)
    if made.costs:
        found["sensitivity"] = msgspec.to_builtins(made.costs)
    return found


def describe(made: Made) -> Iterator[str]:
    """Give the lines that a person wants to see."""
    if made.calibration is not None:
        yield f"calibrated on {describe_sources(made.calibration)}"
    if made.costs:
        yield from costs_table(made.costs).splitlines()
    if made.fallen is not None and made.fallen.excluded:
        yield f"kept in float: {', '.join(made.fallen.excluded)}"
    for each in made.measured:
        figures = ", ".join(f"{name} {each.figures[name]:.4f}" for name in SHOWN if name in each.figures)
        extent = "whole" if each.whole else f"{each.tiles} tiles"
        yield f"{each.precision:5} {each.study} ({extent}): {figures or 'nothing to compare'}"
    for precision, problems in made.problems.items():
        yield f"{precision:5} OUT OF TOLERANCE, shipped because it was forced: {'; '.join(problems)}"
