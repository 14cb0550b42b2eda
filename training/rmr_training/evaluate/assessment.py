"""The evaluation itself: every study under every condition, the network beside the baselines, rows of figures.

    study -> case -> damage -+-> network --+-> labels -> segmentation rows   (against the ground truth)
                             |             +-> image  -> fusion rows         (against the clean inputs)
                             +-> baselines --> images -> fusion rows

Owns the order of things; the figures are those of `segmentation` and `fusion_quality`, the files those of `report`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from rmr_sdk.errors import ConfigError, StudyError

from ..real import name_studies
from .baselines import BASELINES
from .cases import Case, load_case
from .conditions import CLEAN, check_conditions, damage_study
from .fusion_quality import FusionReference
from .segmentation import compare_masks, count_lesions
from .subjects import Subject

CONTRASTS = ("T1w", "FLAIR")
"""What is fused, in the order of the baselines' and the figures' arguments."""

NETWORK = "network"
"""The method name of the network's fused image among those of the baselines."""

FloatArray = NDArray[np.float32]
Row = dict[str, Any]
Told = Callable[[str, int, int], object]


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """What an evaluation does.

    Attributes:
        conditions: Names of `CONDITIONS`; "clean" always comes first.
        strengths: Out of 1, 2 and 3.
        damaged: Contrasts that are damaged; empty for all.
        baselines: Names of `BASELINES`.
        segmentation: None for figures where there is ground truth, True to demand it, False to leave them out.
        fusion: Whether to assess fused images.
        seed: Changes all random damage.
        threads: Fused images assessed at a time; no figure depends on it.
    """

    conditions: tuple[str, ...] = (CLEAN,)
    strengths: tuple[int, ...] = (1, 2, 3)
    damaged: tuple[str, ...] = ()
    baselines: tuple[str, ...] = tuple(BASELINES)
    segmentation: bool | None = None
    fusion: bool = True
    seed: int = 0
    threads: int = 1

    def __post_init__(self) -> None:
        """Check what the types cannot say.

        Raises:
            ConfigError: A condition, a strength or a baseline does not exist, nothing would be assessed, or there are
                no threads.
        """
        object.__setattr__(self, "conditions", check_conditions(self.conditions))
        _check("strength", self.strengths, (1, 2, 3))
        _check("baseline", self.baselines, tuple(BASELINES))
        if not self.fusion and self.segmentation is False:
            raise ConfigError("neither segmentation nor fusion is assessed.", "Ask for one of them.")
        if self.threads < 1:
            raise ConfigError(f"threads is {self.threads}.", "Pass 1 or more.")

    def levels(self) -> Iterator[tuple[str, int]]:
        """Give every condition and strength, in order; "clean" has strength 0."""
        for condition in self.conditions:
            for strength in (0,) if condition == CLEAN else sorted(set(self.strengths)):
                yield condition, strength


@dataclass(slots=True)
class Evaluation:
    """What came out.

    Attributes:
        model: What was evaluated.
        plan: How.
        studies: Per study its name, grid, known classes and notes.
        segmentation: A row per study, condition, strength and class.
        fusion: A row per study, condition, strength and method.
    """

    model: dict[str, Any]
    plan: Plan
    studies: list[Row] = field(default_factory=list)
    segmentation: list[Row] = field(default_factory=list)
    fusion: list[Row] = field(default_factory=list)


def assess(subject: Subject, folders: Sequence[Path], plan: Plan, tell: Told | None = None) -> Evaluation:
    """Evaluate a network on studies.

    Args:
        subject: The network.
        folders: One per study.
        plan: What to do.
        tell: Called with study, steps done and steps in all.

    Raises:
        ConfigError: A contrast to damage is not one of the network's, a study is given twice, or segmentation is
            demanded of a network without a head.
        StudyError: A study has no ground truth and segmentation is demanded.
        InputError: As `load_case`.
    """
    _check_subject(subject, plan)
    evaluation = Evaluation(dict(subject.facts), plan)
    levels = list(plan.levels())
    for number, (name, folder) in enumerate(zip(name_studies(folders), folders, strict=True)):
        case = _load(subject, plan, folder, name)
        evaluation.studies.append(_describe(case))
        reference = _reference(case) if plan.fusion else None
        for done, (condition, strength) in enumerate(levels, start=number * len(levels)):
            if tell is not None:
                tell(name, done, len(folders) * len(levels))
            _assess_level(subject, case, reference, condition, strength, evaluation)
    return evaluation


def _check_subject(subject: Subject, plan: Plan) -> None:
    """Refuse a network that cannot be assessed as planned."""
    if tuple(subject.manifest.contrasts) != CONTRASTS:
        raise ConfigError(
            f"the network fuses {', '.join(subject.manifest.contrasts)}.", f"Evaluate one of {' and '.join(CONTRASTS)}."
        )
    _check("contrast", plan.damaged, CONTRASTS)
    if plan.segmentation and subject.manifest.classes is None:
        raise ConfigError("the network has no segmentation head.", "Ask for fusion figures only.")


def _load(subject: Subject, plan: Plan, folder: Path, name: str) -> Case:
    """Load a case, with ground truth where the plan demands it."""
    case = load_case(folder, subject.manifest, name)
    if plan.segmentation and not case.truth:
        raise StudyError(
            f"study {name} has no ground truth that the network's classes can be compared with.",
            "Add it beside the contrasts, or ask for fusion figures only.",
            study=name,
        )
    return case


def _check(what: str, asked: Sequence[object], known: Sequence[object]) -> None:
    for each in asked:
        if each not in known:
            raise ConfigError(
                f"there is no {what} {each}.", f"Choose from: {', '.join(map(str, known))}.", option=what, value=each
            )


def _describe(case: Case) -> Row:
    grid = case.axes.grid
    return {
        "study": case.name,
        "shape": list(grid.shape),
        "spacing_mm": [round(length, 4) for length in grid.spacing_mm],
        "truth": list(case.truth),
        "notes": list(case.notes),
    }


def _reference(case: Case) -> FusionReference:
    """Return the clean inputs that every fused image of a study is compared with."""
    t1w, flair = (case.normalise(case.study[name].data, name) for name in CONTRASTS)
    return FusionReference(t1w, flair, case.head(), case.intensity[CONTRASTS[0]].high)


def _assess_level(
    subject: Subject,
    case: Case,
    reference: FusionReference | None,
    condition: str,
    strength: int,
    evaluation: Evaluation,
) -> None:
    """Add the rows of one study under one condition."""
    plan = evaluation.plan
    damaged = {name: case.intensity[name] for name in plan.damaged or CONTRASTS}
    study = damage_study(case.study, case.axes, damaged, condition, strength, f"{plan.seed}/{case.name}")
    outcome = subject.run(study)
    level: Row = {"study": case.name, "condition": condition, "strength": strength}
    if plan.segmentation is not False and outcome.labels is not None:
        evaluation.segmentation += [level | row for row in _segmentation_rows(subject, case, outcome.labels)]
    if reference is not None:
        fused = case.recover(outcome.fused.data, subject.manifest.reference)
        fed = [case.normalise(study[name].data, name) for name in CONTRASTS]
        evaluation.fusion += [level | row for row in _fusion_rows(reference, fused, fed, plan)]


def _segmentation_rows(subject: Subject, case: Case, labels: NDArray[np.uint8]) -> Iterator[Row]:
    """Give a row per class that the truth knows; what is counted one by one stands in the lesions' row alone."""
    classes, turned = subject.manifest.classes or (), case.turn(labels)
    for name, truth in case.truth.items():
        predicted, spacing = turned == classes.index(name), case.axes.grid.spacing_mm
        overall = compare_masks(predicted, truth, spacing)
        row: Row = {
            "class": name,
            "dice": overall.dice,
            "truth_ml": overall.truth_ml,
            "predicted_ml": overall.predicted_ml,
            "volume_error_ml": overall.volume_error_ml,
            "absolute_volume_error_ml": abs(overall.volume_error_ml),
            "hausdorff95_mm": overall.hausdorff95_mm,
            "surface_distance_mm": overall.surface_distance_mm,
        }
        if name == subject.manifest.lesion_class:
            row |= asdict(count_lesions(predicted, truth, spacing))
        yield row


def _fusion_rows(reference: FusionReference, fused: FloatArray, fed: Sequence[FloatArray], plan: Plan) -> Iterator[Row]:
    """Give a row for the network's image and one per baseline, which is fed what the network was fed."""
    images = {NETWORK: fused, **{name: BASELINES[name](*fed) for name in plan.baselines}}
    with ThreadPoolExecutor(plan.threads) as pool:
        figures = list(pool.map(reference.assess, images.values()))
    for name, found in zip(images, figures, strict=True):
        yield {"method": name, **found.to_row()}
