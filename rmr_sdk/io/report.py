"""The report of a result: `report.json` for programs, `report.html` for people, `preview.png` for a first look.

Owns what a report says; `planes` and `preview` own the picture, `templates/report.html.j2` the looks. The HTML holds
everything inside it and asks the network for nothing. docs/report.md explains the fields; docs/report.schema.json is
generated:

    python -c "from rmr_sdk.io.report import json_schema; print(json_schema())" > docs/report.schema.json
"""

from __future__ import annotations

import base64
import io
import math
from collections.abc import Mapping
from functools import lru_cache
from pathlib import Path
from typing import Literal

import jinja2
import msgspec
from PIL import Image

from rmr_sdk.errors import FormatError
from rmr_sdk.io.planes import build_view
from rmr_sdk.io.preview import CONVENTION, Colour, class_colours, draw_panels, frame_panels
from rmr_sdk.manifest import INTENDED_USE
from rmr_sdk.result import Lesion, Provenance, Result, describe_lesions, display_name, format_ml

SCHEMA_VERSION: Literal[1] = 1

_PNG_LEVEL = 6


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


class LesionReport(msgspec.Struct, frozen=True, kw_only=True):
    """The lesions, largest first."""

    count: int
    total_ml: float
    items: tuple[Lesion, ...]


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
        lesions=_lesion_report(result),
        tissue_ml=result.tissue_ml,
        warnings=result.warnings,
        timings_s=result.timings,
        provenance=result.provenance,
    )


def _intensity_report(result: Result) -> IntensityReport | None:
    scale = result.intensity
    if scale is None:
        return None
    low, high = (limit if math.isfinite(limit) else None for limit in (scale.low, scale.high))
    return IntensityReport(contrast=result.reference, scale=scale.scale, offset=scale.offset, low=low, high=high)


def _lesion_report(result: Result) -> LesionReport | None:
    if result.lesions is None:
        return None
    return LesionReport(count=len(result.lesions), total_ml=result.lesion_ml or 0.0, items=result.lesions)


def write_report(folder: Path, result: Result) -> None:
    """Write `report.json`, `report.html` and `preview.png` into a folder that exists.

    Raises:
        OSError: A file cannot be written.
    """
    report, panels = build_report(result), draw_panels(result, build_view(result))
    (folder / "report.json").write_bytes(encode_report(report))
    (folder / "report.html").write_text(render_html(report, panels, class_colours(result)), encoding="utf-8")
    (folder / "preview.png").write_bytes(encode_png(frame_panels(panels, result)))


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
    return msgspec.json.format(msgspec.json.encode(msgspec.json.schema(Report)), indent=2).decode()


def render_html(report: Report, panels: Image.Image, colours: Mapping[str, Colour]) -> str:
    """Return the report as one page that needs nothing but itself.

    Args:
        report: What to say. Every string is escaped, wherever it came from.
        panels: The picture to show.
        colours: Class name -> its colour in the picture.
    """
    return _template().render(
        report=report,
        summary=describe_lesions(None if report.lesions is None else report.lesions.items),
        picture="data:image/png;base64," + base64.b64encode(encode_png(panels)).decode("ascii"),
        colours={name: "#{:02x}{:02x}{:02x}".format(*colour) for name, colour in colours.items()},
        convention=CONVENTION,
    )


def encode_png(image: Image.Image) -> bytes:
    """Return a picture as PNG bytes."""
    buffer = io.BytesIO()
    image.save(buffer, format="PNG", compress_level=_PNG_LEVEL)
    return buffer.getvalue()


@lru_cache
def _template() -> jinja2.Template:
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(Path(__file__).parent / "templates"),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= {"ml": format_ml, "name": display_name, "place": _place, "diameter_mm": _diameter_mm}
    return environment.get_template("report.html.j2")


def _place(point_mm: tuple[float, float, float]) -> str:
    """Return a RAS point as a scanner console does: "R 28, P 34, S 22"."""
    axes = zip(point_mm, ("LR", "PA", "IS"), strict=True)
    return ", ".join(f"{ends[int(value >= 0)]} {abs(value):.0f}" for value, ends in axes)


def _diameter_mm(volume_ml: float) -> float:
    """Return the diameter of the sphere of this volume."""
    return float((6000 * volume_ml / math.pi) ** (1 / 3))
