"""From images to a stack: sorted by where they are, checked to fill a regular grid, and never by their numbers.

                    n = row x column direction
    image 1  ----   ^    the distance of an image is its position along n; sorted by it,
    image 2  ----   |    neighbours must be one step apart, without a shift to the side
    image 3  ----   |

What does not fit is told as a problem, in words that name images by the scanner's own numbers. A stack keeps the
problem instead of raising it, so that a list of series can show it; `pixels` and `reader` refuse it.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from rmr_sdk.errors import GeometryError
from rmr_sdk.geometry import Grid
from rmr_sdk.io.dicom.headers import Frame
from rmr_sdk.io.dicom.world import swap_lps_ras

SAME_DIRECTION = 0.01
"""How far direction cosines of one stack may differ: 0.6 degrees."""

_SAME_PLACE_MM = 0.01
_ORTHONORMAL = 0.01  # of the length of the cosines, and of their product
_IRREGULAR = 0.05  # of the step: how far a slice may lie from its place
_SHIFT = 0.5  # of a pixel: how far a slice may lie to the side of its place
_NOT_WHOLE = 0.1  # of the step: gaps this close to a whole number of steps are missing slices
_WIDE_GAP = 1.5  # times the slice thickness: a larger step is worth a word

_Vectors = npt.NDArray[np.float64]


@dataclass(frozen=True, slots=True, kw_only=True, repr=False, eq=False)
class Stack:
    """Images of one orientation and size, one a position.

    Attributes:
        frames: Along the normal, one a slice.
        copies: Further images at the place of a slice: (slice, image).
        grid: Where the voxels (column, row, slice) are, RAS; None where there is a problem.
        problem: Why the images are no volume; empty where they are.
        notes: What is odd about them.
    """

    frames: tuple[Frame, ...]
    copies: tuple[tuple[int, Frame], ...] = ()
    grid: Grid | None = None
    problem: str = ""
    notes: tuple[str, ...] = ()


def build_stack(frames: Sequence[Frame]) -> Stack:
    """Sort images along their normal and find the grid that they fill.

    Args:
        frames: At least one, of one orientation and size.
    """
    try:
        rows, columns = _directions(frames)
        distances = _positions(frames) @ np.cross(rows, columns)
        order = sorted(range(len(frames)), key=lambda n: (distances[n], _number(frames[n]), n))
        slices, copies = _one_a_position([frames[n] for n in order], distances[order])
    except GeometryError as error:
        return Stack(frames=tuple(frames), problem=error.problem)
    try:
        grid, notes = _find_grid(slices, rows, columns)
    except GeometryError as error:
        return Stack(frames=tuple(slices), copies=tuple(copies), problem=error.problem)
    return Stack(frames=tuple(slices), copies=tuple(copies), grid=grid, notes=tuple(notes))


def _directions(frames: Sequence[Frame]) -> tuple[_Vectors, _Vectors]:
    """Return the directions of a row and of a column, made exactly orthonormal."""
    for name, there in (
        ("ImagePositionPatient", [frame.position for frame in frames]),
        ("ImageOrientationPatient", [frame.cosines for frame in frames]),
        ("PixelSpacing", [frame.pixel_mm for frame in frames]),
        ("Rows and Columns", [min(frame.file.shape) > 0 or None for frame in frames]),
    ):
        if missing := sum(value is None for value in there):
            raise GeometryError(f"{missing} of {len(frames)} images have no valid {name}")
    if len({frame.file.frame_of_reference for frame in frames}) > 1:
        raise GeometryError("its images are of several frames of reference")
    mean = np.array([frame.cosines for frame in frames], np.float64).mean(axis=0)
    rows, columns = mean[:3], mean[3:]
    lengths = np.linalg.norm([rows, columns], axis=1)
    if np.abs(lengths - 1).max() > _ORTHONORMAL or abs(rows @ columns) > _ORTHONORMAL:
        raise GeometryError(
            "its direction cosines (ImageOrientationPatient) are not at right angles or not of length 1"
        )
    rows = rows / lengths[0]
    columns = columns - (columns @ rows) * rows
    return rows, columns / np.linalg.norm(columns)


def _positions(frames: Sequence[Frame]) -> _Vectors:
    return np.array([frame.position for frame in frames], np.float64)


def _one_a_position(frames: list[Frame], distances: _Vectors) -> tuple[list[Frame], list[tuple[int, Frame]]]:
    """Take the first image at every distance; the others there are copies of it, or should be."""
    slices, copies, last = [frames[0]], [], distances[0]
    for frame, distance in zip(frames[1:], distances[1:], strict=True):
        if distance - last < _SAME_PLACE_MM:
            copies.append((len(slices) - 1, frame))
        else:
            slices.append(frame)
            last = distance
    return slices, copies


def _find_grid(frames: list[Frame], rows: _Vectors, columns: _Vectors) -> tuple[Grid, list[str]]:
    """Fit the grid, in LPS, and turn it into RAS.

    Raises:
        GeometryError: The images do not fill one.
    """
    normal, positions = np.cross(rows, columns), _positions(frames)
    row_mm, column_mm = frames[0].pixel_mm or (0.0, 0.0)
    if min(row_mm, column_mm) <= 0:
        raise GeometryError("its PixelSpacing is not positive")
    if len(frames) == 1:
        step, notes = _single_step(frames[0]) * normal, []
    else:
        distances = positions @ normal
        _check_regular(frames, distances)
        step = (positions[-1] - positions[0]) / (len(frames) - 1)
        _check_straight(frames, positions, step, normal, min(row_mm, column_mm))
        notes = _spacing_notes(frames[0], float(step @ normal))
    # PixelSpacing is the distance between rows, then between columns: a column index walks along a row.
    lps = np.column_stack([rows * column_mm, columns * row_mm, step, positions[0]])
    affine = np.eye(4)
    affine[:3] = swap_lps_ras(lps.T).T
    height, width = frames[0].file.shape
    return Grid((width, height, len(frames)), affine), notes


def _single_step(frame: Frame) -> float:
    step = frame.step_mm or frame.thickness_mm
    if step is None or step <= 0:
        raise GeometryError("it is a single slice without a thickness")
    return step


def _check_regular(frames: list[Frame], distances: _Vectors) -> None:
    """Find missing and irregular slices.

    The step is the median of all, so a few missing slices do not hide themselves.
    """
    gaps = np.diff(distances)
    step = float(np.median(gaps))
    for place, gap in enumerate(gaps):
        missing = round(gap / step) - 1
        if missing >= 1 and abs(gap / step - missing - 1) < _NOT_WHOLE:
            raise GeometryError(
                f"{_slices(missing)} missing between images {frames[place].name} and {frames[place + 1].name}"
                f" ({gap:.4g} mm apart, the others {step:.4g} mm)"
            )
    even = np.linspace(distances[0], distances[-1], len(distances))
    if np.abs(distances - even).max() > _IRREGULAR * step:
        raise GeometryError(f"its slices are {gaps.min():.4g} to {gaps.max():.4g} mm apart: not one spacing")


def _check_straight(frames: list[Frame], positions: _Vectors, step: _Vectors, normal: _Vectors, pixel: float) -> None:
    """Find stacks that lean to one side, as with a tilted gantry, and slices shifted out of their row."""
    lean = step - (step @ normal) * normal
    if np.linalg.norm(lean) * (len(frames) - 1) > _SHIFT * pixel:
        degrees = math.degrees(math.atan2(float(np.linalg.norm(lean)), float(step @ normal)))
        raise GeometryError(f"its slices lean by {degrees:.1f} degrees (a sheared stack, as from a tilted gantry)")
    strayed = np.linalg.norm(positions - positions[0] - np.arange(len(frames))[:, None] * step, axis=1)
    if strayed.max() > _SHIFT * pixel + _IRREGULAR * float(step @ normal):
        raise GeometryError(f"image {frames[int(strayed.argmax())].name} is shifted sideways against the others")


def _spacing_notes(frame: Frame, step: float) -> list[str]:
    """Say where slices leave wide gaps, and where the positions contradict the distance that the header gives."""
    notes = []
    if frame.thickness_mm and step > _WIDE_GAP * frame.thickness_mm:
        notes.append(
            f"slices are {frame.thickness_mm:.3g} mm thick and {step:.3g} mm apart: tissue between is not seen"
        )
    stated = abs(frame.step_mm or 0.0)
    if stated and round(step / stated) >= 2 and abs(step / stated - round(step / stated)) < _NOT_WHOLE:
        notes.append(f"slices are {step:.3g} mm apart where the header says {stated:.3g} mm: some may be missing")
    return notes


def _slices(count: int) -> str:
    return "1 slice is" if count == 1 else f"{count} slices are"


def _number(frame: Frame) -> int:
    return 0 if frame.instance is None else frame.instance
