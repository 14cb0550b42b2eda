"""Which groups of layers cost accuracy in int8, and which of them had better stay in float.

    every group alone in int8 ─> its strain ─> the worst back to float, one after another, until the tolerance holds

Strain is the error in units of what the tolerance allows: 1 is just allowed, and 0.5 half of that.
"""

from __future__ import annotations

import logging
import math
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass

import onnx

from rmr_export.parity import Run, Tensors
from rmr_sdk.manifest import Limit

from .compare import Comparison, compare_tiles
from .int8 import chosen_layers, quantise
from .layers import find_layers
from .runners import open_runner, openvino_runner

logger = logging.getLogger(__name__)

MARGIN = 0.7
"""Strain that the fall-back aims for: tiles are few, and the gate looks at studies that it has not seen."""

_PERFECT = {"label_agreement": 1.0, "lesion_dice_to_fp32": 1.0, "fused_ssim": 1.0}


@dataclass(frozen=True, slots=True)
class Cost:
    """What it costs to compute one group of layers in int8, and all others in fp32.

    Attributes:
        group: The group.
        layers: How many layers it has.
        strain: Error in units of what the tolerance allows.
        figures: What the strain was made of.
    """

    group: str
    layers: int
    strain: float
    figures: Mapping[str, float]


@dataclass(frozen=True, slots=True)
class FallBack:
    """Where the fall-back ended.

    Attributes:
        excluded: Groups that stay in float, the costliest first.
        steps: Strain with none, one, two, ... of them in float.
    """

    excluded: tuple[str, ...]
    steps: tuple[float, ...]


class Trial:
    """Tiles whose outputs in fp32 are known, to try graphs on.

    Args:
        model: The graph in fp32.
        tiles: Inputs of a few tiles; they are kept.
        tolerance: What is allowed.
        lesion: The class of lesions, or None.
        threads: Threads to compute with; None for all cores.
    """

    def __init__(
        self,
        model: onnx.ModelProto,
        tiles: Iterable[Tensors],
        tolerance: Sequence[Limit],
        lesion: int | None,
        threads: int | None = None,
    ) -> None:
        run = openvino_runner(model, threads=threads)
        self.tiles = [(inputs, run(inputs)) for inputs in tiles]
        self.tolerance, self.lesion, self.threads = tolerance, lesion, threads

    def figures(self, run: Run) -> dict[str, float]:
        """Compare a function that computes tiles with fp32."""
        comparison = Comparison()
        for inputs, reference in self.tiles:
            compare_tiles(comparison, inputs, reference, run(inputs), self.lesion)
        return comparison.figures()

    def strain(self, graph: onnx.ModelProto) -> tuple[float, dict[str, float]]:
        """Return the strain of a graph on OpenVINO, and its figures."""
        figures = self.figures(open_runner({"int8": graph}, "int8", self.threads))
        return strain(figures, self.tolerance), figures


def strain(figures: Mapping[str, float], tolerance: Sequence[Limit]) -> float:
    """Return the greatest error of all figures in units of what the tolerance allows; 0 where it limits none of them.

    Decibels become ratios of squared errors; any other figure is taken by its distance from the perfect one.
    """
    return max(
        (_strain_of(figures[limit.metric], limit) for limit in tolerance if limit.metric in figures), default=0.0
    )


def _strain_of(value: float, limit: Limit) -> float:
    decibels = limit.metric.endswith("_db")
    perfect = _PERFECT.get(limit.metric, 0.0)
    found = 0.0
    for bound, error in ((limit.minimum, perfect - value), (limit.maximum, value - perfect)):
        if bound is None:
            continue
        if decibels:
            found = max(found, float(10 ** ((bound - value) / 20)))
        elif error > 0:
            allowed = abs(bound - perfect)
            found = max(found, error / allowed if allowed else math.inf)
    return found


def groups_of(model: onnx.ModelProto) -> dict[str, int]:
    """Return the groups of layers that can run in int8, in the order of the graph, and how many layers each has."""
    found: dict[str, int] = {}
    for layer in find_layers(model):
        found[layer.group] = found.get(layer.group, 0) + 1
    return found


def analyse(
    model: onnx.ModelProto,
    ranges: Mapping[str, float],
    trial: Trial,
    exclude: Collection[str] = (),
    told: Callable[[Cost], object] | None = None,
) -> list[Cost]:
    """Try every group of layers alone in int8.

    Args:
        model: The graph in fp32.
        ranges: As `quantise` takes them.
        trial: What to try on.
        exclude: Layers and groups that stay in float anyhow.
        told: Called with each group's cost as soon as it is known.

    Returns:
        The costs, the greatest first.

    Raises:
        ExportError: No layer is left to quantise.
    """
    groups: dict[str, int] = {}
    for layer in chosen_layers(model, exclude):
        groups[layer.group] = groups.get(layer.group, 0) + 1
    costs = []
    for group, layers in groups.items():
        others = {*exclude, *(set(groups_of(model)) - {group})}
        found, figures = trial.strain(quantise(model, ranges, exclude=others))
        costs.append(Cost(group, layers, found, figures))
        logger.info("%s alone in int8: strain %.2f", group, found)
        if told is not None:
            told(costs[-1])
    return sorted(costs, key=lambda cost: -cost.strain)


def fall_back(
    model: onnx.ModelProto,
    ranges: Mapping[str, float],
    trial: Trial,
    costs: Sequence[Cost],
    exclude: Collection[str] = (),
    target: float = MARGIN,
) -> FallBack:
    """Put the costliest groups back to float until the strain is at most `target`.

    Args:
        model: The graph in fp32.
        ranges: As `quantise` takes them.
        trial: What to try on.
        costs: As `analyse` gives them.
        exclude: Layers and groups that stay in float anyhow.
        target: Strain to reach. Where it is not reached before one group is left, all the others are excluded.
    """
    excluded: list[str] = []
    steps: list[float] = []
    for cost in costs:
        found, _ = trial.strain(quantise(model, ranges, exclude={*exclude, *excluded}))
        steps.append(found)
        logger.info("int8 with %d groups in float: strain %.2f", len(excluded), found)
        if found <= target or len(excluded) == len(costs) - 1:
            break
        excluded.append(cost.group)
    return FallBack(tuple(excluded), tuple(steps))


def costs_table(costs: Sequence[Cost]) -> str:
    """Return the costs as a table to read."""
    width = max((len(cost.group) for cost in costs), default=5)
    lines = [f"{'group':{width}}  layers  strain  figures"]
    for cost in costs:
        figures = ", ".join(f"{name} {value:.4g}" for name, value in cost.figures.items())
        lines.append(f"{cost.group:{width}}  {cost.layers:6}  {cost.strain:6.2f}  {figures}")
    return "\n".join(lines)
