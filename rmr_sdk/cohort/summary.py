"""The summary of a cohort: one row per study, as CSV for people and as JSON for programs, and the records behind it.

docs/schemas/cohort.schema.json is generated:

    python -c "from rmr_sdk.cohort.summary import json_schema; print(json_schema())" > docs/schemas/cohort.schema.json
"""

from __future__ import annotations

import csv
import hashlib
import io
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

import msgspec

from rmr_sdk.errors import FormatError
from rmr_sdk.io.files import atomic_file
from rmr_sdk.json_schema import schema_text
from rmr_sdk.location import LOCATIONS
from rmr_sdk.manifest import INTENDED_USE
from rmr_sdk.result import LEAST_DIAMETER_MM, Result

SUMMARY_FILES = ("summary.csv", "summary.json")
RECORDS = ".rmr-batch"
"""Folder of the records: what a later run needs to know that a study is finished."""

_DIGITS = 4


class StudyRow(msgspec.Struct, frozen=True, kw_only=True):
    """What came out of one study.

    Lesion fields are null where lesions were not segmented or the study failed; `lesions_by_location` also where no
    location could be given. `resumed` tells that an earlier run did it. `report` is the page, relative to the summary.
    """

    study: str
    status: Literal["done", "failed"]
    seconds: float
    lesions: int | None = None
    lesions_of_3_mm: int | None = None
    lesion_ml: float | None = None
    lesions_by_location: Mapping[str, int] | None = None
    tissue_ml: Mapping[str, float] | None = None
    warnings: tuple[str, ...] = ()
    error: str | None = None
    report: str | None = None
    resumed: bool = False


class Summary(msgspec.Struct, frozen=True, kw_only=True):
    """All studies of a cohort that a run has come to, in the order of the cohort; `total` counts the others too."""

    schema_version: Literal[1] = 1
    intended_use: str = INTENDED_USE
    bundle: str
    bundle_version: str
    bundle_hash: str
    total: int
    done: int
    failed: int
    studies: tuple[StudyRow, ...]


class Record(msgspec.Struct, frozen=True, kw_only=True):
    """What is known about a study that was begun: from what, and, once it is finished, with what result.

    `files` lie there, of this run or, until it is done, of an earlier one. `ours` tells that nothing but files of a run
    is in the place of the results: a later run may replace them.
    """

    fingerprint: str
    row: StudyRow | None = None
    files: tuple[str, ...] = ()
    ours: bool = False


def make_row(study: str, result: Result, seconds: float, report: str) -> StudyRow:
    """Sum up a study that is done."""
    lesions = result.lesions
    located = lesions is not None and all(lesion.location is not None for lesion in lesions)
    return StudyRow(
        study=study,
        status="done",
        seconds=round(seconds, 2),
        lesions=None if lesions is None else len(lesions),
        lesions_of_3_mm=None if lesions is None else sum(each.diameter_mm >= LEAST_DIAMETER_MM for each in lesions),
        lesion_ml=None if result.lesion_ml is None else round(result.lesion_ml, _DIGITS),
        lesions_by_location={place: sum(each.location == place for each in lesions or ()) for place in LOCATIONS}
        if located
        else None,
        tissue_ml=None
        if result.tissue_ml is None
        else {name: round(volume, _DIGITS) for name, volume in result.tissue_ml.items()},
        warnings=result.warnings,
        report=report,
    )


def write_summary(out: Path, summary: Summary) -> None:
    """Replace the summary, each of its two files in one step.

    Raises:
        OutputError: It cannot be written.
    """
    for name, content in zip(SUMMARY_FILES, (_as_csv(summary.studies), _as_json(summary)), strict=True):
        with atomic_file(out / name) as file:
            file.write(content)


def _as_json(summary: Summary) -> bytes:
    return msgspec.json.format(msgspec.json.encode(summary), indent=2) + b"\n"


def _as_csv(rows: Sequence[StudyRow]) -> bytes:
    """Return one line per study; the columns of locations and tissues are those that any study has."""
    tissues = dict.fromkeys(name for row in rows for name in row.tissue_ml or {})
    located = any(row.lesions_by_location for row in rows)
    buffer = io.StringIO()
    lines = [_cells(row, tuple(tissues), LOCATIONS if located else ()) for row in rows]
    writer = csv.DictWriter(buffer, list(lines[0]) if lines else ["study", "status"], lineterminator="\n")
    writer.writeheader()
    writer.writerows(lines)
    return buffer.getvalue().encode()


def _cells(row: StudyRow, tissues: Sequence[str], places: Sequence[str]) -> dict[str, Any]:
    return {
        "study": row.study,
        "status": row.status,
        "seconds": row.seconds,
        "lesions": row.lesions,
        "lesions_of_3_mm": row.lesions_of_3_mm,
        "lesion_ml": row.lesion_ml,
        **{place.replace(" ", "_"): (row.lesions_by_location or {}).get(place) for place in places},
        **{f"{name}_ml": (row.tissue_ml or {}).get(name) for name in tissues},
        "warnings": "; ".join(row.warnings),
        "error": row.error,
        "report": row.report,
    }


def decode_summary(data: bytes) -> Summary:
    """Read a summary back.

    Raises:
        FormatError: It is not JSON, or breaks the schema.
    """
    try:
        return msgspec.json.decode(data, type=Summary)
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise FormatError(f"The summary breaks its schema: {error}.", "Read it with the SDK that wrote it.") from error


def json_schema() -> str:
    """Return the JSON Schema of `summary.json`."""
    return schema_text(Summary)


def read_record(out: Path, study: str) -> Record | None:
    """Return what an earlier run noted about a study; None where there is nothing that can be read."""
    try:
        return msgspec.json.decode(_record(out, study).read_bytes(), type=Record)
    except (OSError, msgspec.DecodeError, UnicodeDecodeError):
        return None


def write_record(out: Path, study: str, record: Record) -> None:
    """Note what is known about a study.

    Raises:
        OutputError: It cannot be written.
    """
    with atomic_file(_record(out, study)) as file:
        file.write(msgspec.json.encode(record))


def _record(out: Path, study: str) -> Path:
    # A digest fits every file system, whatever the study is called.
    return out / RECORDS / f"{hashlib.sha256(study.encode('utf-8', 'surrogateescape')).hexdigest()[:32]}.json"
