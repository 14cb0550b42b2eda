"""The report as one HTML page that needs nothing but itself: pictures inside, no script, no address to ask.

Owns what is shown in which order and in which words; `templates/report.html.j2` owns the looks.
"""

from __future__ import annotations

import base64
import io
from collections.abc import Mapping, Sequence
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import jinja2
from PIL import Image

from rmr_sdk.io.preview import CONVENTION, Colour
from rmr_sdk.location import PERIVENTRICULAR
from rmr_sdk.page_template import load_template
from rmr_sdk.result import LEAST_DIAMETER_MM, Lesion, QualityCheck, describe_lesions, display_name, format_ml

if TYPE_CHECKING:
    from rmr_sdk.io.report import Report

SHOWN_LESIONS = 50
"""Lesions in the table; the others are folded away below it."""

_PNG_LEVEL = 6
_TINY = 0.001


class QualityRow(NamedTuple):
    """One kind of check: what was measured in which contrast, against which limit."""

    name: str
    values: tuple[tuple[str, str, bool], ...]
    limit: str
    sentences: tuple[str, ...]
    warns: bool


def render_html(
    report: Report, panels: Image.Image, projections: Image.Image | None, colours: Mapping[str, Colour]
) -> str:
    """Return the page.

    Args:
        report: What to say. Every string is escaped, wherever it came from.
        panels: The picture of the planes.
        projections: The picture of all lesions; None where there are none.
        colours: Class name -> its colour in the pictures.
    """
    items = () if report.lesions is None else report.lesions.items
    return _template().render(
        report=report,
        summary=describe_lesions(None if report.lesions is None else items),
        panels=_embed(panels),
        projections=None if projections is None else _embed(projections),
        colours={name: "#{:02x}{:02x}{:02x}".format(*colour) for name, colour in colours.items()},
        convention=CONVENTION,
        shown=items[:SHOWN_LESIONS],
        folded=items[SHOWN_LESIONS:],
        quality=quality_rows(report.quality),
        least_diameter_mm=LEAST_DIAMETER_MM,
    )


def quality_rows(checks: Sequence[QualityCheck]) -> list[QualityRow]:
    """Bring the checks of one kind together, in the order in which they were made."""
    rows = []
    for name in dict.fromkeys(check.name for check in checks):
        same = [check for check in checks if check.name == name]
        limits = {_limit(check): check.contrast for check in same}
        several = len(limits) > 1
        rows.append(
            QualityRow(
                name=name,
                values=tuple(
                    (check.contrast or "", _quantity(check.value, check.unit), check.status == "warn") for check in same
                ),
                limit="; ".join(f"{contrast} {limit}" if several else limit for limit, contrast in limits.items()),
                sentences=tuple(dict.fromkeys(_sentence(check) for check in same if check.status == "warn"))
                or (same[0].sentence,),
                warns=any(check.status == "warn" for check in same),
            )
        )
    return rows


def _sentence(check: QualityCheck) -> str:
    return f"{check.contrast}: {check.sentence}" if check.contrast else check.sentence


def _limit(check: QualityCheck) -> str:
    """Say what is fine: "at most 3 mm", in one piece that no line break divides."""
    least, most = check.least, check.most
    if least is not None and most is not None:
        words = f"{_number(least)} to {_quantity(most, check.unit)}"
    elif least is not None:
        words = f"at least {_quantity(least, check.unit)}"
    else:
        words = "none" if not most else f"at most {_quantity(most, check.unit)}"
    return words.replace(" ", "\N{NO-BREAK SPACE}")


def _quantity(value: float, unit: str) -> str:
    return f"{_number(value)} {unit}".rstrip()


def _number(value: float) -> str:
    """Return a number with about three digits."""
    if 0 < abs(value) < _TINY:
        return f"under {_TINY:g}"
    return f"{value:.0f}" if abs(value) >= 100 or value == int(value) else f"{value:.3g}"


def encode_png(image: Image.Image) -> bytes:
    """Return a picture as PNG bytes."""
    buffer = io.BytesIO()
    image.save(buffer, format="PNG", compress_level=_PNG_LEVEL)
    return buffer.getvalue()


def _embed(image: Image.Image) -> str:
    return "data:image/png;base64," + base64.b64encode(encode_png(image)).decode("ascii")


@lru_cache
def _template() -> jinja2.Template:
    return load_template(
        Path(__file__).parent / "templates" / "report.html.j2",
        ml=format_ml,
        name=display_name,
        place=_place,
        location=_location,
    )


def _place(point_mm: tuple[float, float, float]) -> str:
    """Return a RAS point as a scanner console does: "R 28, P 34, S 22"."""
    axes = zip(point_mm, ("LR", "PA", "IS"), strict=True)
    return ", ".join(f"{ends[int(value >= 0)]} {abs(value):.0f}" for value, ends in axes)


def _location(lesion: Lesion) -> str:
    """Return where a lesion is, and that it reaches the cortex where its location does not say so."""
    reaches = lesion.reaches_cortex and lesion.location == PERIVENTRICULAR
    return f"{lesion.location or ''}{', reaches the cortex' if reaches else ''}"
