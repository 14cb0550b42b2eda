"""Which volume is the study's T1w and which its FLAIR: by the rules, or as the caller says.

Candidates are compared by what makes the better input, in a fixed order (`_rank`); what is equal in all of it is not
decided by chance but given back as an error that names the candidates.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from rmr_sdk.errors import StudyError
from rmr_sdk.io.dicom.headers import Frame
from rmr_sdk.io.dicom.roles import CONTRASTS, Role
from rmr_sdk.io.dicom.series import DicomVolume

_WHOLE_HEAD_MM = 100.0  # a stack that covers less does not show the whole brain
_SHOW = "Run `rmr study show` on it to see all series"
_OPTIONS = {"T1w": "--t1-series", "FLAIR": "--flair-series"}


@dataclass(frozen=True, slots=True, kw_only=True)
class Choice:
    """The volume taken for a contrast.

    Attributes:
        volume: The volume.
        role: What the rules say of it.
        by_hand: Whether the caller named it.
    """

    volume: DicomVolume
    role: Role
    by_hand: bool


def choose(listed: Sequence[tuple[DicomVolume, Role]], wanted: Mapping[str, str | int | None]) -> dict[str, Choice]:
    """Choose the volume of each contrast.

    Args:
        listed: All volumes of a study, and what they are.
        wanted: Contrast -> series number, key or UID; None to let the rules choose.

    Raises:
        StudyError: A contrast has no candidate, or several equal ones; a series that is named is not there, cannot
            be read, or is named for both; or the volumes are of several studies.
    """
    chosen = {
        contrast: _choose_one(listed, contrast) if key is None else _find(listed, contrast, str(key).strip())
        for contrast, key in wanted.items()
    }
    if len({id(choice.volume) for choice in chosen.values()}) < len(chosen):
        raise StudyError("the same series is to be T1w and FLAIR.", f"{_SHOW}, and name two.")
    if len({choice.volume.file.study for choice in chosen.values()}) > 1:
        raise StudyError("T1w and FLAIR are of different studies.", f"{_SHOW}, and name two series of one.")
    return chosen


def check_one_subject(frames: Sequence[Frame]) -> None:
    """Refuse images of several patients, without saying who they are.

    Raises:
        StudyError: An identifier, a name or a birth date differs where it is given.
    """
    for keyword in ("PatientID", "PatientName", "PatientBirthDate"):
        values = {_plain(frame.file.subject.get(keyword, "")) for frame in frames} - {""}
        if len(values) > 1:
            raise StudyError(
                f"the DICOM files are of {len(values)} patients ({keyword} differs).",
                "Pass the files of one patient alone.",
                patients=len(values),
            )


def check_one_study(listed: Sequence[tuple[DicomVolume, Role]]) -> None:
    """Refuse MR images of several studies, where it is left to the rules which to take.

    Raises:
        StudyError: There are several.
    """
    studies = {volume.file.study for volume, role in listed if role.usable}
    if len(studies) > 1:
        raise StudyError(
            f"the DICOM files hold MR images of {len(studies)} studies.",
            f"Pass one study alone, or name both series of one by UID. {_SHOW}.",
            studies=len(studies),
        )


def _plain(value: str) -> str:
    """Return an identifier, or family and given name, without what writers add or leave out: case and blanks."""
    return " ".join(part.strip() for part in value.split("=")[0].split("^")[:2]).strip().casefold()


def _choose_one(listed: Sequence[tuple[DicomVolume, Role]], contrast: str) -> Choice:
    candidates = sorted(
        ((_rank(volume, role), volume, role) for volume, role in listed if role.contrast == contrast),
        key=lambda candidate: (candidate[0], candidate[1].key),
    )
    if not candidates:
        raise StudyError(
            f"no series of the DICOM study is a {contrast} ({_summary(listed)}).",
            f"{_SHOW}, and name one with {_OPTIONS[contrast]}.",
            contrast=contrast,
        )
    equal = [volume.key for rank, volume, _ in candidates if rank == candidates[0][0]]
    if len(equal) > 1:
        raise StudyError(
            f"series {', '.join(equal)} of the DICOM study are equally good as {contrast}.",
            f"Name one with {_OPTIONS[contrast]}.",
            contrast=contrast,
            candidates=tuple(equal),
        )
    return Choice(volume=candidates[0][1], role=candidates[0][2], by_hand=False)


def covered_mm(volume: DicomVolume) -> float:
    """Return how far a volume reaches across its slices."""
    return _step_mm(volume) * len(volume.stack.frames)


def _rank(volume: DicomVolume, role: Role) -> tuple[float, ...]:
    """Return what to compare, the best first: docs/dicom.md names each entry."""
    pixel, step, types = volume.frame.pixel_mm or (0.0, 0.0), _step_mm(volume), volume.frame.image_type
    return (
        role.agent,
        covered_mm(volume) < _WHOLE_HEAD_MM,
        not role.measured,
        round(max(*pixel, step), 1),
        round(pixel[0] * pixel[1] * step, 2),
        -len(volume.stack.frames),
        "NORM" not in types,
        "ND" in types,
    )


def _step_mm(volume: DicomVolume) -> float:
    grid = volume.stack.grid
    return grid.spacing_mm[2] if grid is not None else volume.frame.step_mm or volume.frame.thickness_mm or 0.0


def _find(listed: Sequence[tuple[DicomVolume, Role]], contrast: str, key: str) -> Choice:
    """Find the volume that the caller names."""
    fitting = [entry for entry in listed if entry[0].key == key]
    fitting = fitting or [entry for entry in listed if key in (entry[0].file.series, str(entry[0].file.number))]
    if len(fitting) > 1:
        fitting = [entry for entry in fitting if entry[1].contrast == contrast] or fitting
    if len(fitting) != 1:
        names = [volume.key for volume, _ in fitting or listed]
        problem = f"series {key} stands for {len(fitting)} volumes" if fitting else f"there is no series {key}"
        raise StudyError(
            f"{problem} ({_OPTIONS[contrast]}).",
            f"Name one of {', '.join(names)}.",
            contrast=contrast,
            candidates=tuple(names),
        )
    volume, role = fitting[0]
    if not role.usable:
        raise StudyError(f"series {key} cannot be a {contrast}: {role.why}.", f"{_SHOW}.", contrast=contrast)
    return Choice(volume=volume, role=role, by_hand=True)


def choice_warnings(choice: Choice, contrast: str) -> list[str]:
    """Say what the reader of the result should know about a choice."""
    volume, role, warnings = choice.volume, choice.role, []
    if choice.by_hand and role.contrast != contrast:
        warnings.append(f"series {volume.key} was named by hand; the rules would not take it: {role.why}")
    if role.agent and not choice.by_hand:
        warnings.append(f"series {volume.key} was acquired after contrast agent; no native {contrast} was found")
    if not choice.by_hand and not role.measured:
        warnings.append(f"series {volume.key} was taken by its description, not by its sequence parameters")
    if covered_mm(volume) < _WHOLE_HEAD_MM:
        warnings.append(f"series {volume.key} covers only {covered_mm(volume):.0f} mm across its slices")
    return warnings


def _summary(listed: Sequence[tuple[DicomVolume, Role]]) -> str:
    """Say what there is instead: the number of volumes by reason."""
    reasons = [role.contrast or role.why.split(" (")[0] for _, role in listed]
    counted = sorted(
        {reason: reasons.count(reason) for reason in reasons}.items(), key=lambda item: (-item[1], item[0])
    )
    return "; ".join(f"{count} x {reason}" for reason, count in counted[:6])


__all__ = ["CONTRASTS", "Choice", "check_one_study", "check_one_subject", "choice_warnings", "choose", "covered_mm"]
