"""The levels below which lesions are dropped: of white matter around them, and of mean probability.

What hardly touches white matter is scalp, orbit or cortex, seldom a lesion. How seldom, label maps of real anatomies
with the lesions of their own patient tell: the highest level is taken at which hardly any of these is lost.

The level of mean probability is chosen on synthetic heads of held-out lesion donors. A network finds small bright
things that it is not sure of; most of them are no lesions. The level with the best lesion-wise F1 is taken, of equals
the least: what is dropped are whole lesions, and Dice, which goes by volume, hardly feels them (the threshold of a
voxel is chosen by Dice: `calibration`). F1 is averaged over the heads of a donor, then over donors. Whole heads are
needed for it: the border of a patch cuts lesions, and the runtime blends tiles.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray

from rmr_sdk.errors import ConfigError, StudyError
from rmr_sdk.geometry import Grid, reorient
from rmr_sdk.lesion_rule import LesionRule
from rmr_sdk.postprocess import components
from rmr_sdk.preprocess import prepare
from rmr_sdk.study import Study

from .checkpoint import NORMALISATION
from .data import LabelMap
from .evaluate.segmentation import count_lesions
from .evaluate.subjects import infer_network, network_manifest
from .models import RmrFusion
from .sampling import keyed_generator
from .synthesis import LESION, WHITE, Ranges, Sample, synthesise
from .validation import VALIDATION_SEED

SHARES = tuple(step / 20 for step in range(11))
"""Shares of white matter that are tried."""

LEVELS = (0.0, 0.5, 0.55, 0.6, 0.65, 0.7, 0.75, 0.8, 0.85, 0.9)
"""Mean probabilities that are tried; the arg-max of the classes is seldom a lesion below 0.5."""

SIDE = 192
"""Side of a synthetic head in voxels: a brain of ordinary size fits in."""

HEADS = Ranges(rotation=0.1, whole_head=0.0, new_lesions=0.3, no_lesions=0.0)
"""Heads upright as in a scanner, stripped, with the lesions of their donor."""

Labels = NDArray[np.uint8]
Probability = NDArray[np.float32]


@dataclass(frozen=True, slots=True)
class Level:
    """What was found.

    Attributes:
        least_lesion_probability: Mean probability from which on a lesion is kept.
        f1_before: Mean of the donors' lesion-wise F1 with all lesions.
        f1_after: The same with those that are kept.
        heads: Synthetic heads that were looked at.
    """

    least_lesion_probability: float
    f1_before: float
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
        dropped = sum(rule.apply(each.labels.copy(), np.ones(each.labels.shape, np.float32)) for each in maps)
        if dropped <= lost * lesions:
            best = (share, dropped)
    return WhiteMatter(best[0], lesions, best[1])


def choose_level(
    network: RmrFusion,
    maps: Sequence[LabelMap],
    per_map: int = 3,
    side: int = SIDE,
    least_white_matter: float = 0.0,
) -> Level:
    """Find the level with the best lesion-wise F1 on synthetic heads; the network stays as it is.

    Args:
        network: Calibrated: the level belongs to its threshold.
        maps: Label maps of held-out donors.
        per_map: Heads made of each label map.
        side: Side of a head in voxels.
        least_white_matter: Share of white matter around a lesion without which it is dropped at every level.

    Raises:
        StudyError: There is no label map, or no lesion on any head.
    """
    found: dict[str, list[list[float]]] = defaultdict(list)
    for number in range(per_map):
        for index, each in enumerate(maps):
            head = _make_head(each, keyed_generator(VALIDATION_SEED, number, index), side)
            truth = head.labels.numpy() == LESION
            if truth.any():
                found[each.donor].append(f1_of_levels(*segment(network, head), truth, least_white_matter))
    if not found:
        raise StudyError("there is no lesion on the synthetic heads.", "Hold out donors with lesions.")
    f1 = np.mean([np.mean(heads, axis=0) for heads in found.values()], axis=0)
    best = int(f1.argmax())
    return Level(LEVELS[best], float(f1[0]), float(f1[best]), sum(map(len, found.values())))


def f1_of_levels(
    labels: Labels, probability: Probability, truth: NDArray[np.bool_], least_white_matter: float = 0.0
) -> list[float]:
    """Return the lesion-wise F1 at each of `LEVELS`, of voxels of 1 mm.

    Args:
        labels: (D, H, W) C-contiguous, all lesions; left as they are.
        probability: Of a lesion, likewise.
        truth: Where lesions are; at least one voxel.
        least_white_matter: Of the rule at every level.
    """
    found = []
    for level in LEVELS:
        kept = labels.copy()
        LesionRule(LESION, WHITE, level, least_white_matter).apply(kept, probability)
        found.append(count_lesions(kept == LESION, truth, (1.0, 1.0, 1.0)).lesion_f1)
    return found


def segment(network: RmrFusion, head: Sample) -> tuple[Labels, Probability]:
    """Run a network over a head, tile by tile as the runtime does.

    Returns:
        Labels and lesion probability (D, H, W), no lesion dropped.
    """
    manifest = network_manifest(network.preset, NORMALISATION)
    images = {name: image[0].numpy() for name, image in zip(manifest.contrasts, (head.t1w, head.flair), strict=True)}
    depth, height, width = head.labels.shape
    grid = reorient(Grid((depth, height, width), np.eye(4)), manifest.orientation).grid
    prepared = prepare(Study.from_arrays(images, affine=grid.affine), manifest, align="header")
    outputs = infer_network(network, prepared, manifest)
    if outputs.labels is None or outputs.probability is None:
        raise ConfigError("the network has no segmentation head.", "Calibrate a checkpoint of the joint stage.")
    return outputs.labels, outputs.probability


def _make_head(source: LabelMap, generator: torch.Generator, side: int) -> Sample:
    brain = np.argwhere(source.labels)
    centre = torch.from_numpy((brain.min(0) + brain.max(0)) / 2).float()
    return synthesise(source.labels, source.lesions, side, generator, HEADS, centre)
