"""From a folder or a .zip of DICOM files to volumes, and to a list of what is in it.

files -> headers -> series -> volumes -> roles -> choice -> voxels
"""

from __future__ import annotations

import logging
import os
from collections.abc import Mapping
from dataclasses import dataclass

from rmr_sdk.errors import FormatError, GeometryError
from rmr_sdk.io.dicom.choice import Choice, check_one_study, check_one_subject, choice_warnings, choose
from rmr_sdk.io.dicom.files import open_entries
from rmr_sdk.io.dicom.headers import Headers, read_headers
from rmr_sdk.io.dicom.pixels import read_voxels
from rmr_sdk.io.dicom.roles import Role, find_role
from rmr_sdk.io.dicom.series import DicomVolume, group_volumes
from rmr_sdk.io.dicom.source import DicomSource, series_source
from rmr_sdk.volume import Volume

logger = logging.getLogger(__name__)

Listed = list[tuple[DicomVolume, Role]]


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class DicomStudy:
    """What was read.

    Attributes:
        volumes: Contrast -> volume.
        warnings: What is odd about it.
        notes: Contrast by contrast, which series it is and why.
        source: What outputs refer to.
    """

    volumes: Mapping[str, Volume]
    warnings: tuple[str, ...]
    notes: tuple[str, ...]
    source: DicomSource


def list_study(path: str | os.PathLike[str]) -> tuple[Listed, list[str]]:
    """List all volumes of a study and say what each is; no voxel is read.

    Args:
        path: A folder, searched at any depth, or a .zip.

    Returns:
        The volumes in the order of their series, and what is odd about the files.

    Raises:
        As `read_study`, where it is not about voxels.
    """
    with open_entries(path) as entries:
        headers = read_headers(entries)
    _check_found(headers)
    return _roles(headers), _file_warnings(headers)


def read_study(path: str | os.PathLike[str], series: Mapping[str, str | int | None]) -> DicomStudy:
    """Read one volume per contrast.

    Args:
        path: A folder, searched at any depth, or a .zip.
        series: Contrast -> series number, key of `rmr study show`, or UID; None to let the rules choose.

    Raises:
        DeviceUnavailableError: pydicom, or the decoder of a compression, is not installed.
        FormatError: Nothing there is DICOM, or images are damaged.
        StudyError: The files are of several patients or studies, or a contrast cannot be chosen.
        GeometryError: The images of the chosen series are no volume: slices missing, irregular, sheared.
    """
    with open_entries(path) as entries:
        headers = read_headers(entries)
        _check_found(headers)
        check_one_subject(headers.frames)
        listed = _roles(headers)
        if None in series.values():
            check_one_study(listed)
        chosen = choose(listed, series)
        volumes, warnings = {}, _file_warnings(headers)
        for contrast, choice in chosen.items():
            volumes[contrast], odd = _read_volume(choice.volume, contrast)
            warnings += [f"{contrast}: {text}" for text in (*choice_warnings(choice, contrast), *odd)]
    source = DicomSource(
        subject=next(iter(chosen.values())).volume.file.subject,
        series={contrast: series_source(choice.volume) for contrast, choice in chosen.items()},
    )
    notes = tuple(_note(contrast, choice) for contrast, choice in chosen.items())
    for note in notes:
        logger.info("%s", note)
    return DicomStudy(volumes=volumes, warnings=tuple(warnings), notes=notes, source=source)


def _read_volume(volume: DicomVolume, contrast: str) -> tuple[Volume, list[str]]:
    grid = volume.stack.grid
    if grid is None:
        raise GeometryError(
            f'contrast "{contrast}": series {volume.key}: {volume.stack.problem.rstrip(".")}.',
            "Export the series again, or choose another one (see `rmr study show`).",
            contrast=contrast,
            series=volume.key,
        )
    voxels, notes = read_voxels(volume)
    return Volume(voxels, grid.affine), [f"series {volume.key}: {note}" for note in (*volume.stack.notes, *notes)]


def _roles(headers: Headers) -> Listed:
    return [(volume, find_role(volume)) for volume in group_volumes(headers.frames)]


def _check_found(headers: Headers) -> None:
    if headers.frames:
        return
    odd = "; ".join(_file_warnings(headers))
    raise FormatError(
        f"no DICOM image was found{f' ({odd})' if odd else ''}.",
        "Pass the folder or the .zip that holds one DICOM study.",
    )


def _file_warnings(headers: Headers) -> list[str]:
    """Say which files were left out."""
    warnings = []
    for count, what in (
        (headers.not_dicom, "named like DICOM but of another kind"),
        (headers.damaged, "damaged"),
    ):
        if count:
            warnings.append(f"{'1 file is' if count == 1 else f'{count} files are'} {what}: left out")
    return warnings


def _note(contrast: str, choice: Choice) -> str:
    how = "named by hand" if choice.by_hand else choice.role.why
    return f"{contrast}: DICOM series {choice.volume.key} ({how})"
