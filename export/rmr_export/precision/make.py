"""The precisions of a bundle: graphs made, held to the golden tile, measured, and refused if out of tolerance.

fp32 graph ─┬─> to_fp16 ───────────────────────────────┐
            └─> calibrate ─> fall back ─> int8 graph ──┴─> golden tile ─> gate ─> Made
"""

from __future__ import annotations

import logging
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import chain
from pathlib import Path

import onnx
from msgspec.structs import replace

from rmr_export.errors import ToleranceError
from rmr_sdk.cohort.find import CohortStudy
from rmr_sdk.engines.base import GOLDEN_LIMITS
from rmr_sdk.errors import ConfigError
from rmr_sdk.golden import GoldenTile
from rmr_sdk.manifest import Accuracy, Limit, Manifest

from .bias import correct_biases
from .calibration import METHOD, Calibration, calibrate, check_method
from .compare import Comparison, compare_tiles
from .equalise import equalise
from .fp16 import to_fp16
from .gate import TOLERANCE, accuracy_entries, measure, open_if_able
from .int8 import quantise
from .lanes import Measured
from .overflow import make_fp16
from .runners import open_runner
from .sensitivity import MARGIN, Cost, FallBack, Trial, analyse, fall_back
from .tiles import StudyTiles, SyntheticTiles, Tile, check_count, find_all

logger = logging.getLogger(__name__)

GRAPHED = ("fp16", "int8")
"""Precisions with a graph of their own; bf16 is computed from the fp32 graph, and only measured."""

TRIAL_TILES = 4
"""Tiles that the fall-back is decided on: one of each study, or made from label maps with another seed."""

GOLDEN_SET = "golden tile"


@dataclass(frozen=True, slots=True)
class Recipe:
    """How precisions are made and measured.

    Attributes:
        calibration: Studies and cohorts to calibrate int8 on.
        label_maps: Folder of label maps to synthesise further tiles from.
        leave_out: Lesion donors whose maps are not used.
        tiles: Tiles of each study.
        synthetic_tiles: Tiles from the label maps, in all.
        method: How activations are clipped.
        keep_float: Layers and groups that stay in float whatever they cost.
        equalise: Whether channels are equalised first.
        correct_bias: Whether biases take up the mean error of rounded weights.
        fall_back: Whether the costliest groups go back to float until the tolerance holds.
        check: Studies and cohorts to measure on; without, the last study found is kept out of calibration for it.
        check_tiles: Tiles of each of them; None for whole studies.
        force: Precisions that are shipped although they are out of tolerance.
        threads: Threads to compute with; None for all cores.
    """

    calibration: tuple[Path, ...] = ()
    label_maps: Path | None = None
    leave_out: tuple[str, ...] = ()
    tiles: int = 4
    synthetic_tiles: int = 12
    method: str = METHOD
    keep_float: tuple[str, ...] = ()
    equalise: bool = False
    correct_bias: bool = False
    fall_back: bool = True
    check: tuple[Path, ...] = ()
    check_tiles: int | None = None
    force: tuple[str, ...] = ()
    threads: int | None = None


@dataclass(slots=True)
class Made:
    """What came of it.

    Attributes:
        graphs: Precision -> graph, without fp32.
        measured: Every precision on every study.
        tolerance: What they were held to.
        problems: Precision -> how it breaks the tolerance; only forced ones are left here.
        calibration: What int8 was calibrated on, or None.
        costs: Sensitivity of the groups of layers, the greatest first.
        fallen: Where the fall-back ended, or None where nothing had to fall back.
    """

    graphs: dict[str, onnx.ModelProto] = field(default_factory=dict)
    measured: list[Measured] = field(default_factory=list)
    tolerance: tuple[Limit, ...] = ()
    problems: dict[str, tuple[str, ...]] = field(default_factory=dict)
    calibration: Calibration | None = None
    costs: list[Cost] = field(default_factory=list)
    fallen: FallBack | None = None

    @property
    def accuracy(self) -> tuple[Accuracy, ...]:
        """Return the figures as a manifest states them."""
        return accuracy_entries(self.measured)


def make_precisions(
    model: onnx.ModelProto, manifest: Manifest, golden: GoldenTile, precisions: Sequence[str], recipe: Recipe
) -> Made:
    """Make and measure precisions.

    Args:
        model: The graph in fp32.
        manifest: Of the bundle; its tolerance counts, or `TOLERANCE` where it has none.
        golden: The golden tile of the bundle.
        precisions: Some of "bf16", "fp16" and "int8"; "fp32" is there already.
        recipe: How.

    Raises:
        ConfigError: int8 without anything to calibrate on or to check on, or an option out of range.
        InputError: A study cannot be used; it is named.
        ExportError: The network has no layer that can run in int8.
        PrecisionError: fp16 does not hold what the network computes on the golden tile or on those to check on.
        ToleranceError: A precision breaks the golden tile's limit or the tolerance, and is not forced.
    """
    wanted = [name for name in dict.fromkeys(precisions) if name != "fp32"]
    made = Made(tolerance=manifest.tolerance or TOLERANCE)
    if not wanted:
        return made
    calibration, check = _studies(wanted, recipe)
    fingerprints: set[str] = set()
    if "fp16" in wanted:
        tiles = chain([golden.network_inputs()], (tile for _, tile in StudyTiles(check, manifest, 1, set())))
        made.graphs["fp16"] = make_fp16(model, tiles, threads=recipe.threads)
    if "int8" in wanted:
        # What stays in float is fp16 in the file: that is what TensorRT fuses, and a CPU widens it again.
        made.graphs["int8"] = to_fp16(_make_int8(model, manifest, calibration, fingerprints, recipe, made))
    graphs = {"fp32": model, **made.graphs}
    lesion = None if manifest.lesion_class is None else (manifest.classes or ()).index(manifest.lesion_class)
    on_golden = [_on_golden(graphs, name, golden, recipe, lesion) for name in wanted]
    made.measured = [found for found in on_golden if found is not None]
    if check:
        made.measured += measure(graphs, manifest, wanted, check, fingerprints, recipe.check_tiles, recipe.threads)
    _hold_to_tolerance(made, manifest, wanted, recipe)
    return made


def _studies(wanted: Sequence[str], recipe: Recipe) -> tuple[list[CohortStudy], list[CohortStudy]]:
    """Return the studies to calibrate on and those to check on."""
    check_method(recipe.method)
    check_count(recipe.tiles, "tiles of a study")
    check_count(recipe.synthetic_tiles, "synthetic tiles")
    calibration, check = find_all(recipe.calibration), find_all(recipe.check)
    if "int8" not in wanted:
        return [], check
    if not calibration and recipe.label_maps is None:
        raise ConfigError(
            "int8 needs tiles to calibrate on.", "Name studies with --calibration, or label maps with --label-maps."
        )
    if check:
        return calibration, check
    if len(calibration) + (recipe.label_maps is not None) < 2 or not calibration:
        raise ConfigError(
            "nothing is left to check int8 on: a study that was calibrated on flatters it.",
            "Name other studies with --check.",
        )
    logger.info('study "%s" is kept out of calibration, to check on', calibration[-1].name)
    return calibration[:-1], calibration[-1:]


def _make_int8(
    model: onnx.ModelProto,
    manifest: Manifest,
    entries: Sequence[CohortStudy],
    fingerprints: set[str],
    recipe: Recipe,
    made: Made,
) -> onnx.ModelProto:
    def tiles(per_study: int, synthetic: int, seed: int) -> chain[tuple[str, Tile]]:
        parts = [iter(StudyTiles(entries, manifest, per_study, fingerprints))]
        if recipe.label_maps is not None:
            parts.append(iter(SyntheticTiles(recipe.label_maps, manifest, synthetic, recipe.leave_out, seed)))
        return chain(*parts)

    found = calibrate(model, tiles(recipe.tiles, recipe.synthetic_tiles, 0), recipe.threads)
    changed = model
    if recipe.equalise:
        changed = equalise(model, found.statistics)
        found = calibrate(changed, tiles(recipe.tiles, recipe.synthetic_tiles, 0), recipe.threads)
    if recipe.correct_bias:
        changed = correct_biases(changed, found.statistics, recipe.keep_float)
    made.calibration, ranges = found, found.ranges(recipe.method)
    if not recipe.fall_back:
        return quantise(changed, ranges, exclude=recipe.keep_float)
    lesion = None if manifest.lesion_class is None else (manifest.classes or ()).index(manifest.lesion_class)
    trial = Trial(model, thin(tiles(1, TRIAL_TILES, 1), TRIAL_TILES), made.tolerance, lesion, recipe.threads)
    return _fall_back(changed, ranges, trial, recipe, made)


def _fall_back(
    model: onnx.ModelProto, ranges: Mapping[str, float], trial: Trial, recipe: Recipe, made: Made
) -> onnx.ModelProto:
    """Quantise as many groups as the trial tiles allow; look at single groups only if all of them are too many."""
    graph = quantise(model, ranges, exclude=recipe.keep_float)
    found, _ = trial.strain(graph)
    if found <= MARGIN:
        made.fallen = FallBack((), (found,))
        return graph
    made.costs = analyse(model, ranges, trial, recipe.keep_float)
    made.fallen = fall_back(model, ranges, trial, made.costs, recipe.keep_float)
    return quantise(model, ranges, exclude={*recipe.keep_float, *made.fallen.excluded})


def thin(tiles: Iterable[tuple[str, Tile]], count: int) -> list[Tile]:
    """Keep `count` tiles of a stream, evenly spread over it."""
    kept = [tile for _, tile in tiles]
    return [kept[number * len(kept) // count] for number in range(min(count, len(kept)))]


def _on_golden(
    graphs: Mapping[str, onnx.ModelProto], precision: str, golden: GoldenTile, recipe: Recipe, lesion: int | None
) -> Measured | None:
    """Hold a precision to the golden tile, and compare it with fp32 there.

    Raises:
        ToleranceError: It is further from the golden outputs than an engine may be.
    """
    inputs = golden.network_inputs()
    run = open_if_able(graphs, precision, recipe.threads)
    if run is None:
        return None
    outputs = run(inputs)
    deviation, limit = golden.deviation(outputs), GOLDEN_LIMITS[precision]
    if deviation.rms > limit.rms or deviation.maximum > limit.maximum:
        raise ToleranceError(
            f"{precision} does not reproduce the golden tile (root mean square {deviation.rms:.2g}, limit "
            f"{limit.rms:.2g}): no engine would open it.",
            "Calibrate on more studies, or keep more layers in float.",
            precision=precision,
            deviation=deviation,
        )
    comparison = Comparison()
    compare_tiles(comparison, inputs, open_runner(graphs, "fp32", recipe.threads)(inputs), outputs, lesion)
    return Measured(precision, GOLDEN_SET, 1, whole=False, figures=comparison.figures())


def _hold_to_tolerance(made: Made, manifest: Manifest, wanted: Sequence[str], recipe: Recipe) -> None:
    """Find what breaks the tolerance.

    Raises:
        ToleranceError: A precision does, and is not forced; `problems` has all of them.
    """
    held = replace(manifest, accuracy=made.accuracy, tolerance=made.tolerance)
    problems = {name: held.tolerance_problems(name) for name in wanted}
    made.problems = {name: found for name, found in problems.items() if found}
    refused = [name for name in made.problems if name not in recipe.force]
    for name in made.problems:
        logger.warning("%s is out of tolerance: %s", name, "; ".join(made.problems[name]))
    if refused:
        raise ToleranceError(
            f"{refused[0]} is out of tolerance: {made.problems[refused[0]][0]}.",
            f"Nothing was written. Keep more layers in float, or ship it nevertheless with --force {refused[0]}.",
            problems=made.problems,
            made=made,
        )
