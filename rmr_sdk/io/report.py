"""The report of a result: `report.json` for programs, `report.html` for people, `preview.png` for a first look.

Owns what a report says and which files it is; `page` owns the HTML, `planes` and `preview` the pictures. docs/report.md
explains the fields; docs/schemas/report.schema.json is generated:

    python -c "from rmr_sdk.io.report import json_schema; print(json_schema())" > docs/schemas/report.schema.json
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Literal

import msgspec

from rmr_sdk.align import Alignment
from rmr_sdk.errors import FormatError
from rmr_sdk.io import page
from rmr_sdk.io.planes import build_view
from rmr_sdk.io.preview import class_colours, draw_panels, draw_projections, frame_panels
from rmr_sdk.json_schema import schema_text
from rmr_sdk.location import LOCATIONS, RULE
from rmr_sdk.manifest import INTENDED_USE
from rmr_sdk.result import LEAST_DIAMETER_MM, REPORT_FILES, Lesion, Provenance, QualityCheck, Result

SCHEMA_VERSION: Literal[1] = 1


class GridReport(msgspec.Struct, frozen=True, kw_only=True):
    """The grid that all volumes are on: the reference contrast's own."""

    shape: tuple[int, int, int]
    spacing_mm: tuple[float, float, float]
    orientation: str
    affine: list[list[float]]


class IntensityReport(msgspec.Struct, frozen=True, kw_only=True):
    """How voxels of `fused` relate to the network's values: network = (fused - offset) * scale.

    Input intensities were clipped to `low` and `high` in the network's units; null means without a limit.
    """

    contrast: str
    scale: float
    offset: float
    low: float | None
    high: float | None


class LocationReport(msgspec.Struct, frozen=True, kw_only=True):
    """The lesions of one location; `of_3_mm` of them have a largest diameter of 3 mm or more."""

    location: str
    count: int
    of_3_mm: int
    total_ml: float


class LesionReport(msgspec.Struct, frozen=True, kw_only=True):
    """The lesions, largest first; `by_location` and `location_rule` are null where no location could be given."""

    count: int
    of_3_mm: int
    total_ml: float
    by_location: tuple[LocationReport, ...] | None
    location_rule: str | None
    items: tuple[Lesion, ...]


class AlignmentReport(msgspec.Struct, frozen=True, kw_only=True):
    """How one contrast came to lie where it lies; the matrix takes its header's RAS mm to the reference's."""

    contrast: str
    reference: str
    method: str
    reason: str
    matrix: list[list[float]]
    similarity_before: float | None
    similarity_after: float | None
    shift_mm: float
    rotation_deg: float


class Report(msgspec.Struct, frozen=True, kw_only=True):
    """All of a result but its voxels. It names no patient, date or path.

    `lesions`, `tissue_ml` and `classes` are null when the bundle only fuses; `lesions.count` is 0 when none was found.
    """

    schema_version: Literal[1] = SCHEMA_VERSION
    intended_use: str = INTENDED_USE
    notice: str
    reference: str
    grid: GridReport
    intensity: IntensityReport | None
    classes: tuple[str, ...] | None
    lesions: LesionReport | None
    tissue_ml: Mapping[str, float] | None
    quality: tuple[QualityCheck, ...]
    alignments: tuple[AlignmentReport, ...]
    warnings: tuple[str, ...]
    timings_s: Mapping[str, float]
    provenance: Provenance


def build_report(result: Result) -> Report:
    """Collect what a result says, without its voxels."""
    grid = result.fused.grid
    return Report(
        notice=result.notice,
        reference=result.reference,
        grid=GridReport(
            shape=grid.shape,
            spacing_mm=grid.spacing_mm,
            orientation=grid.orientation,
            affine=grid.affine.tolist(),
        ),
        intensity=_intensity_report(result),
        classes=result.classes,
        lesions=None if result.lesions is None else _lesion_report(result.lesions),
        tissue_ml=result.tissue_ml,
        quality=result.quality,
        alignments=tuple(_alignment_report(alignment) for alignment in result.alignments),
        warnings=result.warnings,
        timings_s=result.timings,
        provenance=result.provenance,
    )


def _intensity_report(result: Result) -> IntensityReport | None:
    scale = result.intensity
    if scale is None:
        return None
    low, high = (limit if math.isfinite(limit) else None for limit in (scale.low, scale.high))
    return IntensityReport(contrast=result.reference, scale=1 / scale.gain, offset=scale.zero, low=low, high=high)


def _lesion_report(lesions: tuple[Lesion, ...]) -> LesionReport:
    located = any(lesion.location for lesion in lesions)
    return LesionReport(
        count=len(lesions),
        of_3_mm=_count_large(lesions),
        total_ml=sum(lesion.volume_ml for lesion in lesions),
        by_location=tuple(_by_location(lesions)) if located else None,
        location_rule=RULE if located else None,
        items=lesions,
    )


def _by_location(lesions: tuple[Lesion, ...]) -> Iterable[LocationReport]:
    for location in LOCATIONS:
        there = [lesion for lesion in lesions if lesion.location == location]
        yield LocationReport(
            location=location,
            count=len(there),
            of_3_mm=_count_large(there),
            total_ml=sum(lesion.volume_ml for lesion in there),
        )


def _count_large(lesions: Iterable[Lesion]) -> int:
    return sum(lesion.diameter_mm >= LEAST_DIAMETER_MM for lesion in lesions)


def _alignment_report(alignment: Alignment) -> AlignmentReport:
    return AlignmentReport(
        contrast=alignment.contrast,
        reference=alignment.reference,
        method=alignment.method,
        reason=alignment.reason,
        matrix=alignment.matrix.tolist(),
        similarity_before=alignment.similarity_before,
        similarity_after=alignment.similarity_after,
        shift_mm=float(alignment.shift_mm),
        rotation_deg=float(alignment.rotation_deg),
    )


def write_report(folder: Path, result: Result, names: Mapping[str, str] = REPORT_FILES) -> None:
    """Write the JSON, the page and the preview into a folder that exists.

    Args:
        folder: Where.
        result: What to report.
        names: What to call the three files: "json", "html" and "preview".

    Raises:
        OSError: A file cannot be written.
    """
    report, view = build_report(result), build_view(result)
    panels = draw_panels(result, view)
    projections = draw_projections(result, view) if result.lesions else None
    (folder / names["json"]).write_bytes(encode_report(report))
    html = page.render_html(report, panels, projections, class_colours(result))
    (folder / names["html"]).write_text(html, encoding="utf-8")
    (folder / names["preview"]).write_bytes(page.encode_png(frame_panels(panels, result)))


def encode_report(report: Report) -> bytes:
    """Return the report as indented JSON."""
    return msgspec.json.format(msgspec.json.encode(report), indent=2) + b"\n"


def decode_report(data: bytes) -> Report:
    """Read a report back.

    Raises:
        FormatError: It is not JSON, or breaks the schema.
    """
    try:
        return msgspec.json.decode(data, type=Report)
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise FormatError(f"The report breaks its schema: {error}.", "Read it with the SDK that wrote it.") from error


def json_schema() -> str:
    """Return the JSON Schema of `report.json`."""
    return schema_text(Report)
