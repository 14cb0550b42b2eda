"""Alignment: whether a contrast stays where its header puts it, or is moved rigidly to where it matches the reference.

    headers -> where does it match best, nearby? -> there already: header
                                                 -> elsewhere:     rigid (SimpleITK), if that is plausible
                                                 -> nowhere:       refused, it is another head

Only the affine of the contrast changes; its voxels are interpolated once, onto the common grid. docs/alignment.md has
the rules and what was measured. The search is agreement.py's, the registration rigid.py's.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, TypeAlias

import numpy as np

from rmr_sdk import rigid
from rmr_sdk.agreement import Fit, fit_nearby, shows_detail
from rmr_sdk.displacement import mean_shift_mm, rotation_degrees
from rmr_sdk.errors import ConfigError, GeometryError, StudyError
from rmr_sdk.geometry import Affine
from rmr_sdk.similarity import Reduced, Similarity

Align: TypeAlias = Literal["auto", "header", "rigid", "none"]
Method: TypeAlias = Literal["header", "rigid", "none"]

MOST_SHIFT_MM, MOST_ROTATION_DEG = 30.0, 25.0
"""Farther a head does not move between two series of one session."""

TOLERANCE_MM = 0.5
"""Where a contrast is resampled anyway, a mean displacement that is left alone: half a voxel of the network."""

TOLERANCE_SAME_GRID_MM = 1.0
"""The same for a contrast that would otherwise not be resampled: interpolation costs something too."""

_JUDGE_MM = 2.3  # between the points of the lattice that decides; that of the search is coarser
_LARGE_SHIFT_MM, _LARGE_ROTATION_DEG = 10.0, 10.0  # worth the reader's look
_INSTALL = 'pip install "rmr-sdk[align]"'


@dataclass(frozen=True, slots=True, eq=False, kw_only=True)
class Alignment:
    """How a contrast came to lie where it lies.

    Attributes:
        contrast: The contrast.
        reference: The contrast that stayed where it is.
        method: "header": where its header puts it; "rigid": moved; "none": it had to be on the reference's grid.
        reason: Why, in one sentence.
        matrix: (4, 4) float64, where the header puts a point -> where it belongs, in RAS mm; the identity unless moved.
        similarity_before: Normalised mutual information at the header's position; None where it was not measured.
        similarity_after: The same after moving; None where it was not moved.
        shift_mm: Distance that points of the head were moved, on average.
        rotation_deg: Angle by which it was turned.
    """

    contrast: str
    reference: str
    method: Method
    reason: str
    matrix: Affine
    similarity_before: float | None = None
    similarity_after: float | None = None
    shift_mm: float = 0.0
    rotation_deg: float = 0.0

    @property
    def action(self) -> str:
        """Say what was done, to go before what else was done to the geometry; empty where nothing was."""
        if self.method != "rigid":
            return ""
        return f"moved by {self.shift_mm:.1f} mm and {self.rotation_deg:.1f} degrees to match the {self.reference}, "


@dataclass(frozen=True, slots=True, kw_only=True)
class AlignmentTask:
    """A contrast to align.

    Attributes:
        contrast: Its name.
        reference: The name of the contrast that stays.
        align: What the caller asked for.
        frames_differ: Whether both come from different frames of reference, so that their headers say nothing.
        same_grid: Whether it lies on the common grid already.
        threads: Threads that search; the answer does not depend on them.
    """

    contrast: str
    reference: str
    align: Align = "auto"
    frames_differ: bool = False
    same_grid: bool = False
    threads: int = 1

    def stay(self, method: Method, reason: str, similarity: float | None = None) -> Alignment:
        """Leave the contrast where its header puts it."""
        return Alignment(
            contrast=self.contrast,
            reference=self.reference,
            method=method,
            reason=reason,
            matrix=np.eye(4),
            similarity_before=similarity,
        )


def check_extra(align: str) -> None:
    """Make sure that SimpleITK is there where it cannot be done without.

    Raises:
        ConfigError: It is not.
    """
    if align == "rigid" and not rigid.is_available():
        raise ConfigError(
            "rigid alignment needs the extra `align`, which is not installed.",
            f'Install it with {_INSTALL}, or use align="header".',
            option="align",
            value=align,
        )


def align_contrast(task: AlignmentTask, reference: Reduced, moving: Reduced) -> tuple[Alignment, list[str]]:
    """Decide where a contrast belongs.

    Args:
        task: What is asked.
        reference: The reference.
        moving: The contrast, where its header puts it.

    Returns:
        The alignment, and what the reader of the result should know.

    Raises:
        StudyError: The contrast cannot be of the head that the reference shows.
        GeometryError: It matches too far away to be plausible; or it must be registered and cannot be.
    """
    fit = _best_fit(task, reference, moving) if reference.head.any() and moving.head.any() else None
    if fit is None:
        return _too_little(task)
    warnings = _check_same_head(task, fit, reference, moving)
    reason = _reason_to_move(task, fit)
    if reason is None:
        return _stay(task, fit, warnings)
    if not rigid.is_available():
        reason = f"{reason}, but rigid alignment needs the extra `align`"
        hint = f"{reason} ({_INSTALL}); its header was taken at its word"
        return task.stay("header", reason, fit.before), [*warnings, hint]
    _check_plausible(task, fit)
    return _move(task, fit, reason, reference, moving, warnings)


def _best_fit(task: AlignmentTask, reference: Reduced, moving: Reduced) -> Fit | None:
    """Look near the header's position and, where that is no good, near where both heads have one centre."""
    fit = fit_nearby(reference, moving, np.zeros(3), task.threads)
    trusted = fit is not None and not (fit.by_chance or fit.faint or fit.loose)
    if trusted and not task.frames_differ:
        return fit
    centred = fit_nearby(reference, moving, reference.centre_mm - moving.centre_mm, task.threads)
    if centred is None or (fit is not None and fit.after >= centred.after):
        return fit
    return centred if fit is None or trusted or not centred.loose else fit


def _too_little(task: AlignmentTask) -> tuple[Alignment, list[str]]:
    problem = f"it shows too little of the head that the {task.reference} shows"
    if task.align == "rigid":
        raise GeometryError(
            f"{problem} to be aligned rigidly.", 'Use align="header", which takes the headers at their word.'
        )
    warning = [f"{_frames(task)}, and {problem} to check their positions"] if task.frames_differ else []
    return task.stay("header", f"{problem} to check its header"), warning


def _check_same_head(task: AlignmentTask, fit: Fit, reference: Reduced, moving: Reduced) -> list[str]:
    """Refuse what cannot be one head; return what speaks against it where the contrasts show too little to refuse."""
    facts = {"similarity": fit.after, "drop": fit.drop, "drop_share": fit.drop_share}
    fix = 'Check that both are of one head; align="header" takes their headers at their word.'
    if fit.by_chance:
        raise StudyError(
            f"it has no more in common with the {task.reference} than chance (a similarity of {fit.after:.4f}).",
            fix,
            **facts,
        )
    if fit.faint:
        faint = f"shares so little with the {task.reference} (a similarity of {fit.after:.4f}) that its position"
        return [f"{faint} could hardly be checked"]
    warnings = [_mirrored(task)] if fit.mirrored else []
    if not fit.loose:
        return warnings
    evidence = (
        f"where it matches the {task.reference} best, {fit.shift_mm:.0f} mm and {fit.rotation_deg:.0f} degrees from"
        f" its header's position, 3 mm aside only {fit.drop:.1%} of the match is lost; of one head that is more than 5%"
    )
    if fit.of_other_heads and all(shows_detail(each, task.threads) for each in (reference, moving)):
        raise StudyError(f"it cannot be of the head that the {task.reference} shows: {evidence}.", fix, **facts)
    return [*warnings, f"matches the {task.reference} loosely: {evidence}, unless there is much noise, blur or shading"]


def _reason_to_move(task: AlignmentTask, fit: Fit) -> str | None:
    off = f"it matches the {task.reference} best {fit.shift_mm:.1f} mm and {fit.rotation_deg:.1f} degrees away"
    if task.align == "rigid":
        return f"as asked: {off} from its header's position"
    if fit.faint or fit.loose:
        return None
    if task.frames_differ:
        return f"{_frames(task)}: {off} from its header's position"
    tolerance = TOLERANCE_SAME_GRID_MM if task.same_grid else TOLERANCE_MM
    return f"{off} from its header's position" if fit.shift_mm > tolerance and fit.clearly_better else None


def _stay(task: AlignmentTask, fit: Fit, warnings: list[str]) -> tuple[Alignment, list[str]]:
    if not (fit.faint or fit.loose):
        reason = f"its header's position matches the {task.reference} as well as any nearby"
        return task.stay("header", reason, fit.before), warnings
    reason = f"it matches the {task.reference} too loosely to correct its header"
    if task.frames_differ:
        warnings = [*warnings, f"{_frames(task)}, and {reason}"]
    return task.stay("header", reason, fit.before), warnings


def _frames(task: AlignmentTask) -> str:
    return f"it and the {task.reference} come from different frames of reference"


def _mirrored(task: AlignmentTask) -> str:
    return f"matches the {task.reference} better with left and right exchanged; check the orientation in both headers"


def _check_plausible(task: AlignmentTask, fit: Fit) -> None:
    too_far = fit.centre_shift_mm > MOST_SHIFT_MM and not task.frames_differ
    if too_far or fit.rotation_deg > MOST_ROTATION_DEG:
        raise GeometryError(
            f"it matches the {task.reference} only {fit.centre_shift_mm:.0f} mm and {fit.rotation_deg:.0f} degrees from"
            f" where its header puts it; beyond {MOST_SHIFT_MM:.0f} mm and {MOST_ROTATION_DEG:.0f} degrees that is no"
            " movement of a patient but a wrong header.",
            'Correct the headers; align="header" takes them at their word.',
            shift_mm=fit.centre_shift_mm,
            rotation_deg=fit.rotation_deg,
        )


def _move(
    task: AlignmentTask, fit: Fit, reason: str, reference: Reduced, moving: Reduced, warnings: list[str]
) -> tuple[Alignment, list[str]]:
    """Register, starting where the search ended, and keep the best of header, search and registration.

    They are compared on a lattice that none of them was fitted to.
    """
    judge = Similarity(reference, moving, _JUDGE_MM, fit.matrix, task.threads)
    candidates = [np.eye(4), fit.matrix, rigid.refine(reference, moving, fit.matrix, fit.centre_mm)]
    before, *after = (judge(matrix) for matrix in candidates)
    if max(after) <= before:
        reason = f"no rigid displacement matches the {task.reference} better than its header's position"
        return task.stay("header", reason, before), warnings
    matrix, similarity = max(zip(candidates[1:], after, strict=True), key=lambda pair: pair[1])
    shift_mm, rotation_deg = mean_shift_mm(matrix, fit.head_points), rotation_degrees(matrix)
    if shift_mm > _LARGE_SHIFT_MM or rotation_deg > _LARGE_ROTATION_DEG:
        warnings = [
            *warnings,
            f"was moved by {shift_mm:.1f} mm and {rotation_deg:.1f} degrees to match the {task.reference}; look at it",
        ]
    moved = Alignment(
        contrast=task.contrast,
        reference=task.reference,
        method="rigid",
        reason=reason,
        matrix=matrix,
        similarity_before=before,
        similarity_after=similarity,
        shift_mm=shift_mm,
        rotation_deg=rotation_deg,
    )
    return moved, warnings
