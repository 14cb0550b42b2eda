"""The preview shows what it says: the right side, the right place, the right size, the right colour."""

from __future__ import annotations

import itertools
from functools import lru_cache

import numpy as np
import pytest
from PIL import Image, ImageDraw, ImageFont
from sample_results import make_fused_only, make_grid, make_result

from rmr_sdk.geometry import Grid
from rmr_sdk.io.planes import PLANES, View, build_view
from rmr_sdk.io.preview import (
    COLUMN,
    GAP,
    GUTTER,
    INK,
    LESION_COLOUR,
    LESION_OPACITY,
    TITLE_ROW,
    class_colours,
    draw_panel,
    draw_panels,
    draw_preview,
)
from rmr_sdk.result import Result
from rmr_sdk.volume import Volume

ORIENTATIONS = [
    "".join(codes) for ends in itertools.product("LR", "PA", "IS") for codes in itertools.permutations(ends)
]


def crop(panels: Image.Image, view: View, plane: str, column: int) -> np.ndarray:
    """Return the pixels of one slice, without its gutter, as (rows, columns, 3)."""
    x, y, z = view.size_mm()
    scale = (COLUMN - 2 * GUTTER) / max(x, y)
    sizes = {"axial": (x, y), "coronal": (x, z), "sagittal": (y, z)}
    top = TITLE_ROW + GUTTER
    for name, (width_mm, height_mm) in sizes.items():
        width, height = round(width_mm * scale), round(height_mm * scale)
        if name == plane:
            break
        top += height + 2 * GUTTER + GAP
    left = column * (COLUMN + GAP) + (COLUMN - width) // 2
    return np.asarray(panels)[top : top + height, left : left + width].astype(int)


def is_lesion_colour(pixels: np.ndarray) -> np.ndarray:
    """Tell the pixels of the lesion's outline."""
    return np.abs(pixels - LESION_COLOUR).sum(axis=-1) < 30


def drawn(result: Result, plane: str, column: int = 3) -> np.ndarray:
    view = build_view(result)
    return crop(draw_panels(result, view), view, plane, column)


def test_overlay_blends_lesion_colour_over_flair_at_the_lesion() -> None:
    result = make_result()
    view = build_view(result)
    panels = draw_panels(result, view)
    flair, overlay = (crop(panels, view, "axial", column) for column in (1, 3))
    x, y = view.focus_fraction(PLANES[0])
    row, column = int(y * flair.shape[0]), int(x * flair.shape[1])
    grey = flair[row, column]
    assert grey[0] == grey[1] == grey[2]
    np.testing.assert_allclose(
        overlay[row, column], grey * (1 - LESION_OPACITY) + np.array(LESION_COLOUR) * LESION_OPACITY, atol=2
    )


@pytest.mark.parametrize("codes", ORIENTATIONS)
def test_picture_is_the_same_however_the_array_is_stored(codes: str) -> None:
    found = make_result(make_grid(codes))
    assert found.fused.grid.orientation == codes
    difference = np.asarray(draw_panels(found, build_view(found))).astype(int) - expected_panels()
    assert np.abs(difference).max() <= 1


@lru_cache
def expected_panels() -> np.ndarray:
    result = make_result()
    return np.asarray(draw_panels(result, build_view(result)))


@pytest.mark.parametrize("plane", ["axial", "coronal", "sagittal"])
def test_lesion_lies_where_its_world_coordinates_say(plane: str) -> None:
    """The lesion is right, front, top: left of the middle in axial and coronal, and in the upper half everywhere."""
    overlay = drawn(make_result(), plane)
    rows, columns = np.nonzero(is_lesion_colour(overlay))
    assert columns.mean() < overlay.shape[1] / 2 - 20
    assert rows.mean() < overlay.shape[0] / 2 - 20


@pytest.mark.parametrize("codes", ["LAS", "RAS", "SPR"])
@pytest.mark.parametrize(("row", "mark"), [(0, "R"), (1, "R"), (2, "A")])
def test_mark_at_the_left_edge(codes: str, row: int, mark: str) -> None:
    """The letter is really drawn there, and not the opposite one."""
    result = make_result(make_grid(codes))
    view = build_view(result)
    panels = draw_panels(result, view)
    scale = (COLUMN - 2 * GUTTER) / max(view.size_mm()[:2])
    heights = [round(view.size_mm()[axis] * scale) + 2 * GUTTER for axis in (1, 2, 2)]
    top = TITLE_ROW + sum(heights[:row]) + GAP * row
    # Column 1, as column 0 also carries the scale bar; ticks may touch the first 9 pixels.
    found = np.asarray(panels.crop((COLUMN + GAP, top, COLUMN + GAP + 22, top + heights[row])).convert("L")).astype(int)
    letters = {letter: letter_at_left_edge(letter, heights[row]) for letter in "RLAP"}
    differences = {letter: np.abs(found[:, 10:] - image[:, 10:]).sum() for letter, image in letters.items()}
    assert min(differences, key=lambda letter: differences[letter]) == mark


def letter_at_left_edge(letter: str, height: int) -> np.ndarray:
    image = Image.new("RGB", (22, height))
    font = ImageFont.load_default(18)
    ImageDraw.Draw(image).text((8, height / 2), letter, fill=INK, font=font, anchor="lm")
    return np.asarray(image.convert("L")).astype(int)


def test_thick_slices_keep_their_proportions() -> None:
    """A sphere stays round when its slices are three times as thick as its pixels."""
    grid = Grid((60, 72, 18), np.array([[1, 0, 0, -29.5], [0, 1, 0, -35.5], [0, 0, 3, -25.5], [0, 0, 0, 1.0]]))
    outline = is_lesion_colour(drawn(make_result(grid, spheres=[((0.0, 0.0, 0.0), 12.0)]), "coronal"))
    rows, columns = np.nonzero(outline)
    assert np.ptp(rows) / np.ptp(columns) == pytest.approx(1.0, abs=0.15)


def test_planes_go_through_the_largest_lesion() -> None:
    result = make_result(spheres=[((-12.0, -10.0, -6.0), 5.0), ((10.0, 13.0, 8.0), 3.0)])
    view = build_view(result)
    assert np.linalg.norm(view.grid.world(view.focus) - (-12.0, -10.0, -6.0)) <= 2
    assert [view.place(plane) for plane in PLANES] == ["I 6 mm", "P 10 mm", "L 12 mm"]


def test_planes_go_through_the_lesion_even_where_its_centroid_is_outside() -> None:
    """A ring has its centre of mass in its hole."""
    grid = make_grid()
    points = grid.world(np.moveaxis(np.indices(grid.shape), 0, -1))
    ring = np.abs(np.hypot(points[..., 0], points[..., 1]) - 10) + np.abs(points[..., 2]) < 3
    labels = np.where(ring, 4, 3).astype(np.uint8)
    result = make_result(grid, spheres=[((0.0, 0.0, 0.0), 8.0)], labels=Volume(labels, grid.affine))
    view = build_view(result)
    assert view.labels is not None
    assert view.labels[view.focus] == 4


def test_without_lesions_the_planes_cut_the_middle() -> None:
    result = make_result(spheres=[])
    view = build_view(result)
    assert np.abs(view.grid.world(view.focus)).max() <= 1
    assert not is_lesion_colour(drawn(result, "axial")).any()


def test_without_segmentation_there_is_no_label_column() -> None:
    fused_only, segmented = make_fused_only(), make_result()
    widths = [draw_panels(result, build_view(result)).width for result in (fused_only, segmented)]
    assert widths == [3 * COLUMN + 2 * GAP, 4 * COLUMN + 3 * GAP]


def test_scale_bar_is_fifty_millimetres() -> None:
    result = make_result()
    view = build_view(result)
    panels = np.asarray(draw_panels(result, view)).astype(int)
    scale = (COLUMN - 2 * GUTTER) / max(view.size_mm()[:2])
    bottom = TITLE_ROW + round(view.size_mm()[1] * scale) + 2 * GUTTER
    bar = panels[bottom - 12, :COLUMN].sum(axis=-1) > 500
    assert np.flatnonzero(bar)[[0, -1]].tolist() == [10, 10 + round(50 * scale)]


def test_bright_outliers_do_not_darken_the_picture() -> None:
    result = make_result()
    view = build_view(result)
    spoiled = result.inputs["FLAIR"].data.copy()
    spoiled[:2, :2, :2] = 1e6
    spoiled[-1, -1, -1] = np.nan
    spoiled_view = build_view(make_result(inputs={"FLAIR": Volume(spoiled, result.fused.affine)}))
    assert spoiled_view.windows["FLAIR"][1] == pytest.approx(view.windows["FLAIR"][1], rel=0.1)


@pytest.mark.parametrize("value", [0.0, -3.0, 7.0])
def test_constant_volumes_are_drawn(value: float) -> None:
    grid = make_grid()
    constant = Volume(np.full(grid.shape, value, np.float32), grid.affine)
    result = make_fused_only(fused=constant, inputs={"FLAIR": constant})
    view = build_view(result)
    assert draw_panel(view, PLANES[0], "FLAIR").size[0] == COLUMN


def test_every_class_has_its_own_colour() -> None:
    names = ("background", "csf", "grey_matter", "white_matter", "vessel", "tumour", "lesion")
    colours = class_colours(make_result(classes=names))
    assert list(colours) == list(names[1:])
    assert len(set(colours.values())) == len(colours)
    assert colours["lesion"] == LESION_COLOUR


def test_header_carries_the_notice() -> None:
    plain, noted = draw_preview(make_result()), draw_preview(make_result(notice="simulated"))
    assert noted.height > plain.height


def test_names_of_several_lines_and_scripts_are_drawn() -> None:
    names = ("background", "csf\n\u6db2", "grey\tmatter", "white_matter", "lesion")
    result = make_result(classes=names, tissue_ml={names[1]: 1.0}, notice="one\ntwo")
    assert draw_preview(result).size == draw_preview(make_result(notice="one two")).size
