"""Pictures of the model card: three planes through a finding, with the contours of prediction and truth.

    whole slice with contours     axial | coronal | sagittal
    close-up, image alone
    close-up with contours

Owns how they look; `rmr_sdk.io.planes` owns where slices are cut and which way up they hang.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageChops, ImageDraw, ImageFilter, ImageFont

from rmr_sdk.geometry import reorient
from rmr_sdk.io.planes import AXES, PLANES, Index, Plane, View, build_view
from rmr_sdk.io.preview import INK, MARK, PAGE, Colour, draw_panels
from rmr_sdk.result import Result

Mask = NDArray[np.bool_]
Contours = Mapping[str, tuple[Mask, Colour]]

PREDICTION: Colour = (255, 106, 0)
TRUTH: Colour = (86, 180, 233)

COLUMN, GAP, TITLE = 290, 6, 30
CLOSE_UP_MM = 50.0
GREYS = 64
"""In the palette that PNGs are reduced to: the eye sees no difference, and files become half as large."""


def draw_finding(result: Result, finding: Mask, contours: Contours, title: str) -> Image.Image:
    """Draw the three planes that show most of a finding.

    Args:
        result: Its reference contrast is shown.
        finding: The voxels (D, H, W) to cut through, on the reference's grid.
        contours: Name -> mask on that grid and colour.
        title: One line above the pictures.
    """
    axes = reorient(result.fused.grid, AXES)
    focus = best_cut(axes.apply(finding))
    view = _around(build_view(result), focus)
    turned = {name: (axes.apply(mask), colour) for name, (mask, colour) in contours.items()}
    close = replace(view, box=_close_box(view))
    parts: list[tuple[View, Contours]] = [(view, turned), (close, {}), (close, turned)]
    rows = [[_panel(shown, plane, result.reference, marks) for plane in PLANES] for shown, marks in parts]
    heights = [max(panel.height for panel in row) for row in rows]
    page = Image.new("RGB", (3 * (COLUMN + GAP) - GAP, TITLE + sum(heights) + GAP * len(rows)), PAGE)
    _write_title(page, title, contours)
    top = TITLE
    for row, height in zip(rows, heights, strict=True):
        for column, panel in enumerate(row):
            page.paste(panel, (column * (COLUMN + GAP), top + (height - panel.height) // 2))
        top += height + GAP
    return page


def draw_fused(result: Result, width: int = 900) -> Image.Image:
    """Draw both contrasts and the fused image side by side, through the largest lesion."""
    panels = draw_panels(result, replace(build_view(result), labels=None))
    return panels.resize((width, round(panels.height * width / panels.width)), Image.Resampling.LANCZOS)


def save_small(picture: Image.Image, file: Path) -> None:
    """Write a PNG with a palette of greys and of the colours that are drawn with."""
    file.parent.mkdir(parents=True, exist_ok=True)
    greys = [(round(value), round(value), round(value)) for value in np.linspace(0, 255, GREYS)]
    colours = [PREDICTION, TRUTH, MARK, PAGE, INK]
    faint = [(c[0] // 2, c[1] // 2, c[2] // 2) for c in colours]
    palette = Image.new("P", (1, 1))
    palette.putpalette([part for colour in (*greys, *colours, *faint) for part in colour])
    picture.quantize(palette=palette, dither=Image.Dither.NONE).save(file, optimize=True)


def best_cut(mask: Mask) -> Index:
    """Return the voxel of a mask whose three planes show most of it."""
    voxels = np.argwhere(mask)
    shown = sum(np.bincount(voxels[:, axis])[voxels[:, axis]] for axis in range(3))
    x, y, z = voxels[int(np.argmax(shown))].tolist()
    return x, y, z


def _around(view: View, focus: Index) -> View:
    """Move a view to another point, and widen its box where the point lies outside."""
    low = tuple(min(a, b) for a, b in zip(view.box[0], focus, strict=True))
    high = tuple(max(a, b + 1) for a, b in zip(view.box[1], focus, strict=True))
    return replace(view, focus=focus, box=((low[0], low[1], low[2]), (high[0], high[1], high[2])))


def _close_box(view: View) -> tuple[Index, Index]:
    """Return the box of `CLOSE_UP_MM` around the focus, moved inside the grid."""
    low, high = [], []
    for at, size, spacing_mm in zip(view.focus, view.grid.shape, view.grid.spacing_mm, strict=True):
        extent = min(size, round(CLOSE_UP_MM / spacing_mm))
        first = min(max(0, at - extent // 2), size - extent)
        low.append(first)
        high.append(first + extent)
    return (low[0], low[1], low[2]), (high[0], high[1], high[2])


def _panel(view: View, plane: Plane, contrast: str, contours: Contours) -> Image.Image:
    """Draw one slice as wide as a column, with outlines."""
    sides = [mm for axis, mm in enumerate(view.size_mm()) if axis != plane.axis]
    size = (COLUMN, round(COLUMN * sides[1] / sides[0]))
    title = contrast.removesuffix("w")
    panel = Image.fromarray(view.grey(title, plane)).resize(size, Image.Resampling.BICUBIC).convert("RGB")
    for mask, colour in contours.values():
        panel.paste(colour, mask=_outline(view.cut(mask, plane), size))
    return panel


def _outline(mask: Mask, size: tuple[int, int]) -> Image.Image:
    """Return a line two pixels wide just around a mask that is scaled to a panel."""
    scaled = Image.fromarray(mask.astype(np.uint8) * 255).resize(size, Image.Resampling.BICUBIC)
    inside = scaled.point([255 * (value >= 128) for value in range(256)])
    return ImageChops.subtract(inside.filter(ImageFilter.MaxFilter(5)), inside)


def _write_title(page: Image.Image, title: str, contours: Contours) -> None:
    draw, font = ImageDraw.Draw(page), ImageFont.load_default(15)
    draw.text((8, TITLE / 2), title, INK, font, "lm")
    right = page.width - 8
    for name, (_, colour) in reversed(list(contours.items())):
        draw.text((right, TITLE / 2), name, colour, font, "rm")
        right -= round(draw.textlength(name, font)) + 16
