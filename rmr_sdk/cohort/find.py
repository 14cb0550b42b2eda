"""Finding the studies of a cohort: in a BIDS data set, in a table, or one folder each. Nothing is opened here."""

from __future__ import annotations

import csv
import os
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from rmr_sdk.cohort.summary import SUMMARY_FILES
from rmr_sdk.errors import FormatError, StudyError
from rmr_sdk.study import Study, read_files

Kind = Literal["bids", "csv", "folders"]

_CONTRASTS = {"t1": "T1w", "flair": "FLAIR"}
_BIDS_CONTRAST = re.compile(r".*_(T1w|FLAIR)\.nii(\.gz)?", re.IGNORECASE)
_NAME = re.compile(r"[^\x00-\x1f/\\.][^\x00-\x1f/\\]{0,199}")
_COLUMNS = "study,t1,flair or study,folder"


@dataclass(frozen=True, slots=True, kw_only=True)
class CohortStudy:
    """One study and where it is.

    Attributes:
        name: Tells it from the others, and names its results.
        entities: The BIDS subject and, where there are sessions, the session.
        folder: The folder or .zip of the study.
        files: Contrast -> file, in the place of a folder.
    """

    name: str
    entities: tuple[str, ...] = ()
    folder: Path | None = None
    files: Mapping[str, Path] | None = None

    def __repr__(self) -> str:
        return f"CohortStudy({self.name!r})"

    def load(self) -> Study:
        """Read it.

        Raises:
            RmrError: As `Study.from_folder` and `Study.from_files`; of the files, messages name the contrast alone.
        """
        if self.files is not None:
            return read_files(self.files, {contrast: f"the {contrast} file" for contrast in self.files})
        return Study.from_folder(self.folder or "")

    def inputs(self) -> Iterator[Path]:
        """Give every file that the study may be read from, in order."""
        if self.files is not None:
            yield from self.files.values()
        elif self.folder is not None and os.path.isdir(self.folder):
            top = self.folder / "anat" if self.entities else self.folder
            yield from sorted(path for path in top.rglob("*") if path.is_file())
        elif self.folder is not None:
            yield self.folder


@dataclass(frozen=True, slots=True)
class Cohort:
    """Studies that belong together.

    Attributes:
        kind: How they were found.
        root: The data set, the folder, or the folder of the table.
        studies: In the order of their names, or of the table.
    """

    kind: Kind
    root: Path
    studies: tuple[CohortStudy, ...]

    def __repr__(self) -> str:
        return f"Cohort({self.kind!r}, {len(self.studies)} studies)"


def find_studies(path: str | os.PathLike[str], leave_out: str | os.PathLike[str] | None = None) -> Cohort:
    """Find the studies of a cohort.

    Args:
        path: A BIDS data set (`sub-*/[ses-*/]anat/*_T1w.nii.gz` and `*_FLAIR.nii.gz`); a .csv with the columns
            study,t1,flair or study,folder, whose paths may be relative to it; or a folder with one folder or .zip per
            study, NIfTI or DICOM.
        leave_out: A folder that is no study, such as that of the results.

    Raises:
        StudyError: There is no such place, no study in it, or a study is called like the summary.
        FormatError: The table has no such columns, an empty cell, a name twice, or a cell that cannot name a file.
    """
    root = Path(path)
    try:
        if root.suffix.lower() == ".csv" and root.is_file():
            return Cohort("csv", root.parent, tuple(_from_table(root)))
        if not os.path.isdir(root):
            raise StudyError(
                f'"{os.fspath(path)}" is not a folder and not a .csv file.',
                "Pass a BIDS data set, a table or a folder.",
            )
        subjects = tuple(_from_bids(root))
        cohort = Cohort("bids", root, subjects) if subjects else Cohort("folders", root, _from_folders(root, leave_out))
    except OSError as error:
        raise StudyError(
            f'"{os.fspath(path)}" cannot be read: {error.strerror or error}.', "Check its permissions."
        ) from error
    if not cohort.studies:
        raise StudyError(
            f'"{os.fspath(path)}" holds no study.',
            "Pass a BIDS data set, a table, or a folder with one folder per study; one study alone is for `rmr run`.",
        )
    return cohort


def _from_bids(root: Path) -> Iterator[CohortStudy]:
    for subject in sorted(root.glob("sub-*")):
        sessions = sorted(path for path in subject.glob("ses-*") if path.is_dir())
        for folder in sessions or [subject]:
            anat = folder / "anat"
            if anat.is_dir() and any(_BIDS_CONTRAST.fullmatch(path.name) for path in anat.iterdir()):
                entities = tuple(printable(part) for part in folder.relative_to(root).parts)
                yield CohortStudy(name="_".join(entities), entities=entities, folder=folder)


def _from_folders(root: Path, leave_out: str | os.PathLike[str] | None) -> tuple[CohortStudy, ...]:
    results = None if leave_out is None else Path(leave_out).resolve()
    found = [
        path
        for path in sorted(root.iterdir())
        if not path.name.startswith(".")
        and (path.is_dir() or path.suffix.lower() == ".zip")
        and path.resolve() != results
    ]
    if taken := [path.name for path in found if _is_taken(path.name)]:
        raise StudyError(f'a study is called "{taken[0]}", like the summary.', "Rename its folder, or use a table.")
    return tuple(CohortStudy(name=printable(path.name), folder=path) for path in found)


def printable(text: str) -> str:
    """Return a text that UTF-8 can write: each byte in it that the system could not decode becomes an escape."""
    return text.encode("utf-8", "surrogateescape").decode("utf-8", "backslashreplace")


def _is_taken(name: str) -> bool:
    """Tell whether a study cannot be called so beside the summary, on any file system."""
    return name.casefold() in SUMMARY_FILES


def _from_table(table: Path) -> Iterator[CohortStudy]:
    try:
        with open(table, newline="", encoding="utf-8-sig") as file:
            rows = list(csv.DictReader(file))
    except (UnicodeDecodeError, csv.Error) as error:
        raise FormatError(f"The table cannot be read: {error}.", "Save it as CSV in UTF-8.") from error
    names: set[str] = set()
    for number, row in enumerate(rows, start=2):
        cells = {(key or "").strip().lower(): (value or "").strip() for key, value in row.items() if key}
        study = _from_row(cells, table.parent, number)
        if study.name in names:
            raise FormatError(
                f'Line {number} of the table names "{study.name}" again.', "Give each study its own name."
            )
        names.add(study.name)
        yield study
    if not names:
        raise FormatError("The table holds no study.", f"Write one line per study below the columns {_COLUMNS}.")


def _from_row(cells: Mapping[str, str], root: Path, number: int) -> CohortStudy:
    wanted = ("study", "folder") if "folder" in cells else ("study", *_CONTRASTS)
    if missing := [name for name in wanted if not cells.get(name)]:
        raise FormatError(
            f'Line {number} of the table says nothing under "{missing[0]}".', f"Fill in the columns {_COLUMNS}."
        )
    name = cells["study"]
    if not _NAME.fullmatch(name):
        raise FormatError(
            f"Line {number} of the table has a study name that cannot name a folder.",
            "Use letters and digits; no slash, and no dot in front.",
        )
    if _is_taken(name):
        raise FormatError(
            f'Line {number} of the table calls a study "{name}", like the summary.', "Give the study another name."
        )
    if spoilt := [column for column in wanted if "\0" in cells[column]]:
        raise FormatError(
            f'Line {number} of the table has a NUL under "{spoilt[0]}".', "Write the path again, in plain text."
        )
    if "folder" in cells:
        return CohortStudy(name=name, folder=root / cells["folder"])
    return CohortStudy(name=name, files={contrast: root / cells[key] for key, contrast in _CONTRASTS.items()})
