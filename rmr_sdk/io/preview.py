"""The preview picture: three planes of every contrast, of the fused volume and of the labels, drawn with Pillow.

    preview  =  header  (what was found)
             +  panels  (rows: axial, coronal, sagittal; columns: T1, FLAIR, fused, labels on the reference contrast)
             +  footer  (colours, how to read it)

All panels share one scale in millimetres, so that lengths compare. Colours are those of Okabe and Ito, which readers
with any colour vision tell apart: https://jfly.uni-koeln.de/color.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageChops, ImageDraw, ImageFilter, ImageFont

from rmr_sdk.io.planes import PLANES, Plane, View, build_view, column_title
from rmr_sdk.result import Result, describe_lesions, display_name, format_ml

DISCLAIMER = "Research software, not a medical device"
CONVENTION = "Radiological display: the patient's right is on the left of the picture"

Colour = tuple[int, int, int]
PAGE: Colour = (16, 18, 22)
INK: Colour = (226, 230, 235)
MUTED: Colour = (150, 158, 168)
MARK: Colour = (120, 196, 236)
AMBER: Colour = (240, 190, 80)

LESION_COLOUR: Colour = (255, 106, 0)
CLASS_COLOURS: dict[str, Colour] = {"csf": (86, 180, 233), "grey_matter": (0, 158, 115), "white_matter": (240, 228, 66)}
OTHER_COLOURS: tuple[Colour, ...] = ((204, 121, 167), (0, 114, 178), (230, 159, 0))
TISSUE_OPACITY = 0.20
LESION_OPACITY = 0.25
FAINT = 0.5
THIN: Colour = (196, 70, 0)
THICK: Colour = (255, 226, 178)
THICK_MM = 14.0

COLUMN = 384
GAP = 8
GUTTER = 22
BORDER = 24
TITLE_ROW = 30
SCALE_MM = (10, 50)


def draw_preview(result: Result) -> Image.Image:
    """Draw the whole picture; the result's `inputs` are the columns before the fused volume."""
    return frame_panels(draw_panels(result, build_view(result)), result)


def frame_panels(panels: Image.Image, result: Result) -> Image.Image:
    """Put a header and a footer around panels drawn before."""
    header, footer = _draw_header(result, panels.width), _draw_footer(result, panels.width)
    page = Image.new("RGB", (panels.width + 2 * BORDER, header.height + panels.height + footer.height), PAGE)
    top = 0
    for part in (header, panels, footer):
        page.paste(part, (BORDER, top))
        top += part.height
    return page


def draw_panels(result: Result, view: View) -> Image.Image:
    """Draw the planes alone, with their titles and marks."""
    base = column_title(result.reference) if column_title(result.reference) in view.images else "Fused"
    titles = [*view.images, *([f"Labels on {base}"] if view.labels is not None else [])]
    heights = [_slice_size(view, plane)[1] + 2 * GUTTER for plane in PLANES]
    page = Image.new("RGB", (len(titles) * (COLUMN + GAP) - GAP, TITLE_ROW + sum(heights) + GAP * len(PLANES)), PAGE)
    top = TITLE_ROW
    for plane, height in zip(PLANES, heights, strict=True):
        for column, title in enumerate(titles):
            left = column * (COLUMN + GAP)
            _text(page, (left + COLUMN / 2, TITLE_ROW / 2 - 2), title, 19, INK, "mm")
            overlaid = title not in view.images
            panel = draw_panel(view, plane, base if overlaid else title)
            if overlaid:
                panel = _overlay(panel, view, plane, result)
            _mark(panel, view, plane, named=column == 0)
            page.paste(panel, (left, top))
        top += height + GAP
    return page


def draw_projections(result: Result, view: View) -> Image.Image:
    """Draw where lesions are in the whole brain: their greatest probability along three axes, on a faint brain."""
    base = column_title(result.reference) if column_title(result.reference) in view.images else "Fused"
    tallest = max(_slice_size(view, plane)[1] for plane in PLANES) + 2 * GUTTER
    page = Image.new("RGB", (len(PLANES) * (COLUMN + GAP) - GAP, tallest), PAGE)
    for column, plane in enumerate(PLANES):
        size = _slice_size(view, plane)
        panel = Image.new("RGB", (COLUMN, tallest), (0, 0, 0))
        corner = ((COLUMN - size[0]) // 2, (tallest - size[1]) // 2)
        faint = Image.fromarray(view.project(base, plane)).resize(size, Image.Resampling.BICUBIC)
        panel.paste(faint.point([round(value * FAINT) for value in range(256)]).convert("RGB"), corner)
        lesions, opacity = _projected_lesions(view, plane, size)
        panel.paste(lesions, corner, opacity)
        _mark(panel, view, plane, named=False, ticks=False)
        _text(panel, (10, 8), plane.name, 17, INK, "lt")
        if column == 0:
            _draw_scale_bar(panel, _scale(view))
        page.paste(panel, (column * (COLUMN + GAP), 0))
    return page


def _projected_lesions(view: View, plane: Plane, size: tuple[int, int]) -> tuple[Image.Image, Image.Image]:
    """Return lesions in colours from thin to thick along the line of sight, and their probability as opacity."""
    greatest, thickness_mm = view.project_lesions(plane)
    share = 1 - np.exp(-thickness_mm / THICK_MM)
    shade = Image.fromarray((share * 255).astype(np.uint8)).resize(size, Image.Resampling.BICUBIC)
    lesions = Image.merge("RGB", [shade.point(_ramp(low, high)) for low, high in zip(THIN, THICK, strict=True)])
    return lesions, Image.fromarray(greatest).resize(size, Image.Resampling.BICUBIC)


def _ramp(low: int, high: int) -> list[int]:
    return [round(low + (high - low) * step / 255) for step in range(256)]


def draw_panel(view: View, plane: Plane, title: str) -> Image.Image:
    """Draw one slice in grey, centred in its column, with a gutter around it for the marks."""
    width, height = _slice_size(view, plane)
    panel = Image.new("RGB", (COLUMN, height + 2 * GUTTER), (0, 0, 0))
    grey = Image.fromarray(view.grey(title, plane)).resize((width, height), Image.Resampling.BICUBIC)
    panel.paste(grey.convert("RGB"), ((COLUMN - width) // 2, GUTTER))
    return panel


def class_colours(result: Result) -> dict[str, Colour]:
    """Return the colour of every class but the background, in label order."""
    other = iter(OTHER_COLOURS * (1 + len(result.classes or ()) // len(OTHER_COLOURS)))
    colours = {}
    for name in (result.classes or ())[1:]:
        known = LESION_COLOUR if name == result.lesion_class else CLASS_COLOURS.get(name)
        colours[name] = known or next(other)
    return colours


def _overlay(panel: Image.Image, view: View, plane: Plane, result: Result) -> Image.Image:
    """Tint the tissues faintly; fill lesions lightly and outline them, so that what lies beneath stays visible."""
    if view.labels is None:
        return panel
    labels = view.cut(view.labels, plane)
    for index, (name, colour) in enumerate(class_colours(result).items(), start=1):
        mask = _smooth_mask(labels == index, view, plane, panel.size)
        lesion = name == result.lesion_class
        opacity = LESION_OPACITY if lesion else TISSUE_OPACITY
        panel.paste(colour, mask=mask.point([round(value * opacity) for value in range(256)]))
        if lesion:
            panel.paste(colour, mask=_outline(mask))
    return panel


def _smooth_mask(inside: NDArray[np.bool_], view: View, plane: Plane, size: tuple[int, int]) -> Image.Image:
    """Scale a mask to its panel and make its staircase edge a smooth one."""
    width, height = _slice_size(view, plane)
    scaled = Image.fromarray(inside.astype(np.uint8) * 255).resize((width, height), Image.Resampling.BICUBIC)
    mask = Image.new("L", size)
    mask.paste(scaled.point([255 * (value >= 128) for value in range(256)]), ((size[0] - width) // 2, GUTTER))
    return mask


def _outline(mask: Image.Image) -> Image.Image:
    """Return a line two pixels wide just around a mask."""
    return ImageChops.subtract(mask.filter(ImageFilter.MaxFilter(5)), mask)


def _mark(panel: Image.Image, view: View, plane: Plane, named: bool, ticks: bool = True) -> None:
    """Mark the anatomical ends and, with ticks, where the other planes cut; name the plane and its scale once a row."""
    width, height = panel.size
    edges = [
        ((8, height / 2), "lm"),
        ((width - 8, height / 2), "rm"),
        ((width / 2, 6), "mt"),
        ((width / 2, height - 6), "mb"),
    ]
    for mark, (position, anchor) in zip(plane.marks, edges, strict=True):
        _text(panel, position, mark, 18, INK, anchor)
    if ticks:
        _draw_ticks(panel, view, plane)
    if named:
        _text(panel, (10, 8), plane.name, 17, INK, "lt")
        _text(panel, (10, 30), view.place(plane), 16, MUTED, "lt")
        _draw_scale_bar(panel, _scale(view))


def _draw_ticks(panel: Image.Image, view: View, plane: Plane) -> None:
    width, height = panel.size
    drawn_width, drawn_height = _slice_size(view, plane)
    x, y = view.focus_fraction(plane)
    x, y = (width - drawn_width) / 2 + x * drawn_width, GUTTER + y * drawn_height
    draw = ImageDraw.Draw(panel)
    for line in ((x, 0, x, 9), (x, height - 10, x, height), (0, y, 9, y), (width - 10, y, width, y)):
        draw.line(line, fill=MARK, width=2)


def _draw_header(result: Result, width: int) -> Image.Image:
    header = Image.new("RGB", (width, 92 if result.notice else 64), PAGE)
    made = result.provenance
    _text(header, (0, 18), describe_lesions(result.lesions), 24, INK, "lt")
    _text(header, (width, 22), f"{made.bundle} {made.bundle_version}, {made.engine} {made.precision}", 16, MUTED, "rt")
    if result.notice:
        _text(header, (0, 56), result.notice, 19, AMBER, "lt")
    return header


def _draw_footer(result: Result, width: int) -> Image.Image:
    footer = Image.new("RGB", (width, 104), PAGE)
    draw = ImageDraw.Draw(footer)
    left = 0.0
    for name, volume_ml in _legend(result):
        colour = class_colours(result)[name]
        draw.rectangle(
            (left, 14, left + 18, 32), outline=colour, width=2, fill=_blend(colour, name == result.lesion_class)
        )
        text = f"{display_name(name)} {format_ml(volume_ml)}"
        _text(footer, (left + 28, 23), text, 18, INK, "lm")
        left += 28 + _font(18).getlength(text) + 32
    _text(footer, (0, 52), f"{CONVENTION}. Blue ticks: where the other two planes cut.", 16, MUTED, "lt")
    _text(footer, (0, 76), DISCLAIMER, 18, AMBER, "lt")
    return footer


def _legend(result: Result) -> Sequence[tuple[str, float]]:
    """Return (class, ml), lesions first."""
    volumes = dict(result.tissue_ml or {})
    if result.lesion_class and result.lesion_ml is not None:
        volumes = {result.lesion_class: result.lesion_ml} | volumes
    return [(name, volume) for name, volume in volumes.items() if name in class_colours(result)]


def _draw_scale_bar(panel: Image.Image, scale: float) -> None:
    """Draw a bar of 50 mm whose first 10 mm are filled, in the gutter below the slice."""
    draw = ImageDraw.Draw(panel)
    left, top = 10, panel.height - 12
    short, long = (left + round(mm * scale) for mm in SCALE_MM)
    draw.rectangle((left, top, long, top + 5), outline=INK)
    draw.rectangle((left, top, short, top + 5), fill=INK)
    _text(panel, (short, top - 4), f"{SCALE_MM[0]}", 15, MUTED, "mb")
    _text(panel, (long, top - 4), f"{SCALE_MM[1]} mm", 15, MUTED, "mb")


def _blend(colour: Colour, lesion: bool) -> Colour:
    """Return the colour as it looks over mid-grey in the overlay."""
    opacity = LESION_OPACITY if lesion else TISSUE_OPACITY
    red, green, blue = (round(110 * (1 - opacity) + channel * opacity) for channel in colour)
    return red, green, blue


def _scale(view: View) -> float:
    """Return pixels per millimetre: the widest plane fills a column."""
    x, y, _ = view.size_mm()
    return (COLUMN - 2 * GUTTER) / max(x, y)


def _slice_size(view: View, plane: Plane) -> tuple[int, int]:
    """Return width and height of a plane in pixels."""
    width_mm, height_mm = (mm for axis, mm in enumerate(view.size_mm()) if axis != plane.axis)
    return max(1, round(width_mm * _scale(view))), max(1, round(height_mm * _scale(view)))


@lru_cache
def _font(size: int) -> ImageFont.FreeTypeFont | ImageFont.ImageFont:
    return ImageFont.load_default(size)


def _text(image: Image.Image, position: tuple[float, float], text: str, size: int, colour: Colour, anchor: str) -> None:
    """Write one line with a thin black edge, which keeps it legible over bright tissue."""
    ImageDraw.Draw(image).text(
        position,
        " ".join(text.split()),
        fill=colour,
        font=_font(size),
        anchor=anchor,
        stroke_width=1,
        stroke_fill=(0, 0, 0),
    )
