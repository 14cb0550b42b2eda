"""`rmr study show`: what a folder or a .zip holds, which volumes a run would take, and why not the others."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import msgspec

from rmr_sdk.cli.terminal import say
from rmr_sdk.errors import RmrError
from rmr_sdk.io.dicom import list_study
from rmr_sdk.io.dicom.choice import Choice, check_one_study, check_one_subject, choose
from rmr_sdk.io.dicom.reader import Listed
from rmr_sdk.io.dicom.roles import CONTRASTS, Role
from rmr_sdk.io.dicom.series import DicomVolume
from rmr_sdk.study import Study, is_dicom_study

_COLUMNS = ("series", "take", "is", "images", "size", "spacing mm", "TR", "TE", "TI", "description")


def add_parser(
    commands: argparse._SubParsersAction[argparse.ArgumentParser], everywhere: argparse.ArgumentParser
) -> None:
    """Add the command to the grammar."""
    about = "Say what a study holds, which volumes a run would take, and why."
    parser = commands.add_parser("study", help=about, description=about, parents=[everywhere], allow_abbrev=False)
    actions = parser.add_subparsers(metavar="ACTION", required=True)
    does = "list all DICOM series of a folder or .zip, or the NIfTI files that would be taken"
    show = actions.add_parser("show", help=does, description=does, parents=[everywhere], allow_abbrev=False)
    show.add_argument("study", type=Path, metavar="STUDY_DIR", help="folder, or .zip of one DICOM study")
    show.add_argument("--json", action="store_true", help="print the same as JSON, with UIDs")
    show.set_defaults(command=_show)


def _show(options: argparse.Namespace) -> int:
    found = _dicom(options.study) if is_dicom_study(options.study) else _nifti(options.study)
    if options.json:
        say(msgspec.json.format(msgspec.json.encode(found), indent=2).decode())
    else:
        say("\n".join(_describe(found)))
    return 0


def _nifti(folder: Path) -> dict[str, Any]:
    study = Study.from_folder(folder)
    volumes = [
        {"take": name, "size": volume.grid.shape, "spacing_mm": volume.grid.spacing_mm, "why": "by its name"}
        for name, volume in study.items()
    ]
    return {"format": "NIfTI", "volumes": volumes, "warnings": study.warnings}


def _dicom(path: Path) -> dict[str, Any]:
    listed, warnings = list_study(path)
    taken: dict[int, str] = {}
    for contrast in CONTRASTS:
        choice, problem = _try_choice(listed, contrast)
        if choice is not None:
            taken[id(choice.volume)] = contrast
        elif problem not in warnings:
            warnings.append(problem)
    volumes = [_facts(volume, role, taken.get(id(volume), "")) for volume, role in listed]
    return {"format": "DICOM", "volumes": volumes, "warnings": warnings}


def _try_choice(listed: Listed, contrast: str) -> tuple[Choice | None, str]:
    """Return what a run would take, or why it would take nothing."""
    try:
        check_one_subject([frame for volume, _ in listed for frame in volume.stack.frames])
        check_one_study(listed)
        return choose(listed, {contrast: None})[contrast], ""
    except RmrError as error:
        return None, str(error)


def _facts(volume: DicomVolume, role: Role, take: str) -> dict[str, Any]:
    grid, parameters, frame = volume.stack.grid, volume.parameters, volume.frame
    height, width = frame.file.shape
    notes = [*volume.stack.notes, *(["Philips' private scale factors are not applied"] * frame.file.private_scaling)]
    return {
        "series": volume.key,
        "take": take,
        "is": role.contrast,
        "why": role.why,
        "problem": volume.stack.problem,
        "notes": notes,
        "images": volume.images,
        "size": grid.shape if grid else (width, height, len(volume.stack.frames)),
        "spacing_mm": grid.spacing_mm if grid else None,
        "repetition_ms": parameters.repetition_ms,
        "echo_ms": parameters.echo_ms,
        "inversion_ms": parameters.inversion_ms,
        "description": frame.file.description,
        "series_uid": frame.file.series,
    }


def _describe(found: dict[str, Any]) -> list[str]:
    if found["format"] == "NIfTI":
        lines = [
            f"{one['take']}: {_times(one['size'])} voxels, {_times(one['spacing_mm'])} mm" for one in found["volumes"]
        ]
    else:
        rows = [_row(one) for one in found["volumes"]]
        widths = [max(map(len, column)) for column in zip(_COLUMNS, *rows, strict=True)]
        lines = []
        for cells, one in zip((_COLUMNS, *rows), (None, *found["volumes"]), strict=True):
            lines.append("  ".join(cell.ljust(width) for cell, width in zip(cells, widths, strict=True)).rstrip())
            if one is not None:
                lines += [f"    {text}" for text in (one["why"], one["problem"], *one["notes"]) if text]
    return [*lines, *(f"Warning: {warning}" for warning in found["warnings"])]


def _row(one: dict[str, Any]) -> tuple[str, ...]:
    times = [one[key] for key in ("repetition_ms", "echo_ms", "inversion_ms")]
    return (
        one["series"],
        one["take"] or "-",
        one["is"] or "-",
        str(one["images"]),
        _times(one["size"]),
        "-" if one["spacing_mm"] is None else _times(one["spacing_mm"]),
        *("-" if value is None else f"{value:.4g}" for value in times),
        _printable(one["description"]),
    )


def _printable(text: str) -> str:
    """Return a text from a header without what could steer a terminal."""
    return "".join(letter if letter.isprintable() else "?" for letter in text)


def _times(lengths: Sequence[float]) -> str:
    return " x ".join(f"{length:.3g}" for length in lengths)
