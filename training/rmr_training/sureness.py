"""What of the lesions is kept: by white matter, by the probability of a voxel and of a lesion, and by its size.

What hardly touches white matter is scalp, orbit or cortex, seldom a lesion. How seldom, label maps of real anatomies
with the lesions of their own patient tell: the highest level is taken at which hardly any of these is lost.

The others are chosen on synthetic heads of held-out lesion donors. A network finds things that it is not sure of,
about as many in every head: where there is much lesion most of them are lesion too, where there is little most are
none. So every donor is seen with all of its lesions and with few of them, both count alike, and the threshold of a
voxel may differ between loads; the pair with the best Dice is taken. Where scans may be damaged, all heads of a map but
the first can be damaged too, in one way each, as `rmr-train evaluate` damages studies: that makes a network less sure,
and a threshold that suits clean heads alone drops what it still finds. Then the mean probability from which on a
connected lesion is kept, by lesion-wise F1: what is dropped are whole lesions, which Dice hardly feels. Then, likewise,
how large the other pieces must be beside the largest where the threshold of a voxel parts a lesion, and the least
volume of what all of that leaves. Of equals the least are taken. Figures are averaged over the heads of a
donor at a load, then over these. Whole heads are needed: the border of a patch cuts lesions, and the runtime blends
tiles.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import product
from typing import TypeVar

import msgspec
import numpy as np
import torch
from numpy.typing import NDArray
from scipy import ndimage

from rmr_sdk.errors import ConfigError, StudyError
from rmr_sdk.geometry import Grid, reorient
from rmr_sdk.lesion_rule import LesionRule
from rmr_sdk.manifest import LesionThreshold, Manifest
from rmr_sdk.postprocess import bounding_box, components
from rmr_sdk.preprocess import Prepared, prepare
from rmr_sdk.study import Study

from .checkpoint import NORMALISATION
from .data import LabelMap
from .evaluate.conditions import CLEAN, CONDITIONS, damage_study
from .evaluate.segmentation import count_lesions
from .evaluate.subjects import infer_network, network_manifest
from .models import RmrFusion
from .sampling import keyed_generator
from .synthesis import LARGEST_OF_FEW, LESION, WHITE, Ranges, Sample, synthesise
from .validation import VALIDATION_SEED

SHARES = tuple(step / 20 for step in range(11))
"""Shares of white matter that are tried."""

THRESHOLDS = (0.0, *(step / 20 for step in range(10, 20)))
"""Probabilities of a voxel that are tried; the arg-max of the classes is seldom a lesion below 0.5."""

LEVELS = (0.0, 0.5, 0.6, 0.7, 0.8, 0.9)
"""Mean probabilities of a lesion that are tried."""

PIECES = (0.0, 0.05, 0.1, 0.15, 0.2, 0.25)
"""Shares of the largest piece of a lesion that are tried. What is larger may be a lesion of its own, which hangs
together with another by voxels that the network is not sure of."""

SIZES_MM3 = (0.0, 3.0, 5.0, 8.0, 10.0, 15.0, 20.0, 30.0)
"""Volumes of a lesion that are tried; a ball of 3 mm across, the least lesion that criteria count, has 14."""

FOUND_ML = (5.0, 20.0)
"""Up to the first volume found a load is small, from the second on it is large."""

FEW_ML = 1.0
"""Lesion that is left of a donor's for a small load: a quarter of the 30 donors have 0.3 to 2.4 ml."""

MOST_MEDIAN = 0.8
"""A contrast whose median is above this is flat and is stretched; `benchmarks/bench_stretch.py` settled it."""

SIDE = 192
"""Side of a synthetic head in voxels: a brain of ordinary size fits in."""

DAMAGES = tuple((name, strength) for strength in (1, 2, 3) for name in CONDITIONS)
"""Kinds of damage and their strengths, in the order in which heads get them."""

HEADS = Ranges(rotation=0.1, whole_head=0.0, new_lesions=0.3, no_lesions=0.0, look_alikes=1.0)
"""Heads upright as in a scanner, stripped, with the lesions of their donor and all that looks like one."""

Labels = NDArray[np.uint8]
Probability = NDArray[np.float32]
Mask = NDArray[np.bool_]

_Choice = TypeVar("_Choice")


@dataclass(frozen=True, slots=True, eq=False)
class Segmented:
    """A synthetic head as a network sees it, all arrays (D, H, W) of 1 mm.

    Attributes:
        labels: No lesion dropped.
        probability: Of a lesion.
        truth: Where lesions are.
    """

    labels: Labels
    probability: Probability
    truth: Mask


@dataclass(frozen=True, slots=True)
class Levels:
    """What was found on synthetic heads.

    Attributes:
        lesion_threshold: Probability from which on a voxel of a lesion is kept, and its least piece; None where all
            are.
        head_dice_before: Mean lesion Dice with all voxels.
        head_dice_after: The same with those that are kept.
        least_lesion_probability: Mean probability from which on a lesion is kept.
        least_lesion_mm3: Volume from which on what is left of a lesion is kept.
        f1_before: Mean lesion-wise F1 with all lesions that the threshold leaves.
        f1_by_probability: The same with those that are probable enough.
        f1_by_piece: The same without small pieces of lesions.
        f1_after: The same with those that are large enough too.
        heads: Synthetic heads that were looked at.
    """

    lesion_threshold: LesionThreshold | None
    head_dice_before: float
    head_dice_after: float
    least_lesion_probability: float
    least_lesion_mm3: float
    f1_before: float
    f1_by_probability: float
    f1_by_piece: float
    f1_after: float
    heads: int


@dataclass(frozen=True, slots=True)
class WhiteMatter:
    """What was found.

    Attributes:
        least_white_matter: Least share of white matter around a lesion that is kept.
        true_lesions: Lesions of the label maps.
        true_lesions_dropped: Those of them that would be dropped.
    """

    least_white_matter: float
    true_lesions: int
    true_lesions_dropped: int


def choose_white_matter(maps: Sequence[LabelMap], lost: float = 0.02) -> WhiteMatter:
    """Find the highest share of white matter that costs hardly any lesion of label maps.

    Args:
        maps: Label maps of real anatomies, with the lesions of their own patients.
        lost: Largest share of these lesions that may be dropped.

    Raises:
        StudyError: There is no lesion on the maps.
    """
    lesions = sum(len(components(each.labels, LESION)) for each in maps)
    if not lesions:
        raise StudyError("there is no lesion on the label maps of real anatomies.", "Name other maps.")
    best = (0.0, 0)
    for share in SHARES:
        rule = LesionRule(LESION, WHITE, least_white_matter=share)
        dropped = sum(rule.apply(each.labels.copy(), np.ones(each.labels.shape, np.float32)).lesions for each in maps)
        if dropped <= lost * lesions:
            best = (share, dropped)
    return WhiteMatter(best[0], lesions, best[1])


def choose_levels(
    network: RmrFusion,
    maps: Sequence[LabelMap],
    per_map: int = 3,
    side: int = SIDE,
    least_white_matter: float = 0.0,
    damaged: bool = False,
    most_median: float = MOST_MEDIAN,
) -> Levels:
    """Find threshold and level on synthetic heads; the network stays as it is.

    Args:
        network: Calibrated: what is found belongs to its offset.
        maps: Label maps of held-out donors.
        per_map: Heads made of each label map at each load.
        side: Side of a head in voxels.
        least_white_matter: Share of white matter around a lesion without which it is dropped in any case.
        damaged: Damage the second and further heads of each map.
        most_median: As the runtime will stretch flat contrasts.

    Raises:
        StudyError: There is no label map, or no lesion on any head.
    """
    groups: dict[str, list[Segmented]] = {}
    for name, head, damage in draw_heads(maps, per_map, side, damaged):
        if bool((head.labels == LESION).any()):
            groups.setdefault(name, []).append(segment(network, head, *damage, most_median=most_median))
    if not groups:
        raise StudyError("there is no lesion on the synthetic heads.", "Hold out donors with lesions.")
    rule = LesionRule(LESION, WHITE, least_white_matter=least_white_matter)
    threshold, dice = _choose_threshold(groups, rule)
    trimmed = replace(rule, threshold=threshold)
    by_level = [replace(trimmed, least_probability=level) for level in LEVELS]
    probable, f1 = _best(by_level, groups, lambda head: f1_of_rules(head, by_level))
    by_piece = [probable]
    if threshold is not None:
        pieces = [msgspec.structs.replace(threshold, least_piece=share) for share in PIECES]
        by_piece = [replace(probable, threshold=each) for each in pieces]
    whole, (_, f1_by_piece) = _best(by_piece, groups, lambda head: f1_of_rules(head, by_piece))
    by_size = [replace(whole, least_mm3=size) for size in SIZES_MM3]
    chosen, (_, f1_after) = _best(by_size, groups, lambda head: f1_of_rules(head, by_size))
    heads = sum(map(len, groups.values()))
    return Levels(
        chosen.threshold, *dice, chosen.least_probability, chosen.least_mm3, *f1, f1_by_piece, f1_after, heads
    )


def draw_heads(
    maps: Sequence[LabelMap], per_map: int, side: int, damaged: bool
) -> Iterator[tuple[str, Sample, tuple[str, int]]]:
    """Make heads of every map with all of its lesions and with few; name donor and load, and the damage to be done."""
    for number in range(per_map):
        for index, each in enumerate(maps):
            generator = keyed_generator(VALIDATION_SEED, number, index)
            damage = DAMAGES[((number - 1) * len(maps) + index) % len(DAMAGES)] if damaged and number else (CLEAN, 0)
            yield each.donor, make_head(each, generator, side), damage
            yield f"{each.donor}, few", make_head(keep_few(each, generator), generator, side), damage


def keep_few(source: LabelMap, generator: torch.Generator) -> LabelMap:
    """Return a label map with a small load: lesions taken at random, none of them large, until there is `FEW_ML`."""
    found, count = ndimage.label(source.labels == LESION, np.ones((3, 3, 3)))
    sizes = np.bincount(found.ravel(), minlength=count + 1)
    order = 1 + torch.randperm(count, generator=generator).numpy()
    order = order[sizes[order] <= LARGEST_OF_FEW]
    kept = order[np.cumsum(sizes[order]) - sizes[order] < FEW_ML * 1000]
    labels = np.where((found > 0) & ~np.isin(found, kept), WHITE, source.labels).astype(np.uint8)
    return LabelMap(source.name, source.donor, source.weight, labels, np.argwhere(labels == LESION))


def _best(
    choices: Sequence[_Choice], groups: dict[str, list[Segmented]], figures: Callable[[Segmented], Sequence[float]]
) -> tuple[_Choice, tuple[float, float]]:
    """Return the choice with the best mean of figures, and this mean with the first choice and with the best."""
    means = np.mean([np.mean([figures(head) for head in heads], axis=0) for heads in groups.values()], axis=0)
    best = int(means.argmax())
    return choices[best], (float(means[0]), float(means[best]))


def _choose_threshold(
    groups: dict[str, list[Segmented]], rule: LesionRule
) -> tuple[LesionThreshold | None, tuple[float, float]]:
    pairs = [pair for pair in product(THRESHOLDS, repeat=2) if pair[0] >= pair[1]]
    small_ml, large_ml = FOUND_ML
    choices = [LesionThreshold(small_ml=small_ml, small=a, large_ml=large_ml, large=b) for a, b in pairs]
    best, dice = _best(choices, groups, lambda head: dice_of_thresholds(head, rule, choices))
    return (best if best.small > 0 else None), dice


def dice_of_thresholds(head: Segmented, rule: LesionRule, thresholds: Sequence[LesionThreshold]) -> list[float]:
    """Return the lesion Dice of a head at each threshold, lesions that do not keep a rule left out."""
    found_ml = np.count_nonzero(head.labels == LESION) / 1000
    kept = head.labels.copy()
    rule.apply(kept, head.probability)
    lesion = kept == LESION
    right = np.sort(head.probability[lesion & head.truth])
    wrong = np.sort(head.probability[lesion & ~head.truth])
    total = int(head.truth.sum())
    dice = []
    for each in thresholds:
        least = each.at(found_ml)
        hits, misses = (len(values) - int(np.searchsorted(values, least)) for values in (right, wrong))
        dice.append(2 * hits / (hits + misses + total))
    return dice


def f1_of_rules(head: Segmented, rules: Sequence[LesionRule]) -> list[float]:
    """Return the lesion-wise F1 of a head by each rule; nothing is changed."""
    found = []
    for rule in rules:
        kept = head.labels.copy()
        rule.apply(kept, head.probability)
        found.append(count_lesions(kept == LESION, head.truth, (1.0, 1.0, 1.0)).lesion_f1)
    return found


def segment(
    network: RmrFusion, head: Sample, condition: str = CLEAN, strength: int = 0, most_median: float = MOST_MEDIAN
) -> Segmented:
    """Run a network over a head, tile by tile as the runtime does; what is returned is cut to what is no background.

    Args:
        network: With a segmentation head.
        head: Stays as it is.
        condition: What is done to both contrasts first, a name of `evaluate.CONDITIONS` or "clean".
        strength: 1, 2 or 3.
        most_median: Above it a contrast is stretched.

    Raises:
        ConfigError: The network has no segmentation head.
    """
    manifest = network_manifest(network.preset, NORMALISATION | {"most_median": most_median})
    return segment_prepared(network, prepare_head(head, manifest, condition, strength), manifest, head)


def prepare_head(head: Sample, manifest: Manifest, condition: str = CLEAN, strength: int = 0) -> Prepared:
    """Bring a head to what the runtime makes of a study for a manifest, damaged first as for `segment`."""
    images = {name: image[0].numpy() for name, image in zip(manifest.contrasts, (head.t1w, head.flair), strict=True)}
    depth, height, width = head.labels.shape
    grid = reorient(Grid((depth, height, width), np.eye(4)), manifest.orientation).grid
    study = Study.from_arrays(images, affine=grid.affine)
    prepared = prepare(study, manifest, align="header")
    if condition != CLEAN:
        axes = reorient(grid, manifest.orientation)
        damaged = damage_study(study, axes, prepared.intensity, condition, strength, str(VALIDATION_SEED))
        prepared = prepare(damaged, manifest, align="header")
    return prepared


def segment_prepared(network: RmrFusion, prepared: Prepared, manifest: Manifest, head: Sample) -> Segmented:
    """Run a network over what `prepare_head` made of a head, as `segment` does."""
    outputs = infer_network(network, prepared, manifest)
    if outputs.labels is None or outputs.probability is None:
        raise ConfigError("the network has no segmentation head.", "Calibrate a checkpoint of the joint stage.")
    truth = head.labels.numpy() == LESION
    sides = bounding_box((outputs.labels > 0) | truth) or ()
    box = tuple(slice(max(0, each.start - 1), each.stop + 1) for each in sides)  # what lies beyond is background
    return Segmented(*(np.ascontiguousarray(array[box]) for array in (outputs.labels, outputs.probability, truth)))


def make_head(source: LabelMap, generator: torch.Generator, side: int = SIDE, ranges: Ranges = HEADS) -> Sample:
    """Make a whole head of a label map, in the middle of a cube of that many voxels."""
    brain = np.argwhere(source.labels)
    centre = torch.from_numpy((brain.min(0) + brain.max(0)) / 2).float()
    return synthesise(source.labels, source.lesions, side, generator, ranges, centre)
