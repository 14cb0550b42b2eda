"""Three planes through a study as a radiologist hangs them. Owns where to cut, which way up, and how bright.

Arrays are first viewed with axes that run to the patient's left, back and feet ("LPI"); each plane is then one
transposed slice, with rows running down and columns to the right:

    axial              coronal            sagittal
        A                  S                  S
      R + L              R + L              A + P
        P                  I                  I

Oblique grids are cut along their own axes, the ones closest to these. It draws nothing: `rmr_sdk.io.preview` does.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from rmr_sdk.geometry import AxisMap, Grid, reorient
from rmr_sdk.location import OUTSIDE
from rmr_sdk.result import Result

AXES = "LPI"
MARGIN_MM = 4.0
FOREGROUND_FRACTION = 0.05
"""A voxel brighter than this fraction of the 99th percentile of the positive ones is worth showing."""

WINDOW_PERCENTILES = (0.5, 99.8)
"""Of the foreground: wide enough at the top that small bright lesions are not clipped."""

TISSUE_PERCENTILE, ABOVE_TISSUE = 95.0, 1.3
"""No white beyond 1.3 times the 95th percentile of grey matter, white matter and lesions; lesions are below that."""

_SAMPLES = 400_000
_LEAST_TISSUE = 1000

Array = NDArray[Any]
Index = tuple[int, int, int]


@dataclass(frozen=True, slots=True)
class Plane:
    """One way to cut: the LPI axis across it, and what is at its left, right, top and bottom edge."""

    name: str
    axis: int
    marks: tuple[str, str, str, str]


PLANES = (
    Plane("axial", 2, ("R", "L", "A", "P")),
    Plane("coronal", 1, ("R", "L", "S", "I")),
    Plane("sagittal", 0, ("A", "P", "S", "I")),
)


@dataclass(frozen=True, slots=True, eq=False)
class View:
    """Volumes on one LPI grid with the point and the box to show.

    Attributes:
        grid: The LPI grid.
        images: Title -> array on it, in the order of the columns.
        windows: Title -> values shown black and white.
        labels: Class of each voxel; None without a segmentation.
        lesion: Lesion probability, 1 to 255, of the voxels labelled lesion, 0 elsewhere; None without a segmentation.
        focus: Voxel that all three planes go through.
        box: First and one-past-last voxel per axis of what is worth showing.
    """

    grid: Grid
    images: Mapping[str, Array]
    windows: Mapping[str, tuple[float, float]]
    labels: Array | None
    lesion: NDArray[np.uint8] | None
    focus: Index
    box: tuple[Index, Index]

    def size_mm(self) -> tuple[float, float, float]:
        """Return the extent of the box along each axis."""
        low, high = self.box
        x, y, z = (float((b - a) * mm) for a, b, mm in zip(low, high, self.grid.spacing_mm, strict=True))
        return x, y, z

    def cut(self, array: Array, plane: Plane) -> Array:
        """Return the slice of `array` in `plane`, rows down and columns to the right, cropped to the box."""
        low, high = self.box
        index: list[slice | int] = [slice(a, b) for a, b in zip(low, high, strict=True)]
        index[plane.axis] = self.focus[plane.axis]
        cut: Array = array[tuple(index)].T
        return cut

    def grey(self, title: str, plane: Plane) -> NDArray[np.uint8]:
        """Return the slice of an image as grey values 0 to 255."""
        low, high = self.windows[title]
        shown = (self.cut(self.images[title], plane).astype(np.float32) - low) * (255 / (high - low))
        grey: NDArray[np.uint8] = np.nan_to_num(shown).clip(0, 255).astype(np.uint8)
        return grey

    def project(self, title: str, plane: Plane) -> NDArray[np.uint8]:
        """Return the mean of an image along a plane's normal as grey values, 255 the greatest."""
        low, high = self.windows[title]
        inside = self.images[title][self._inside()].clip(low, high)
        if inside.dtype.kind == "f":
            np.nan_to_num(inside, copy=False, nan=low)
        shown = inside.mean(axis=plane.axis, dtype=np.float32).T - low
        grey: NDArray[np.uint8] = (shown * (255 / max(float(shown.max()), 1e-9))).clip(0, 255).astype(np.uint8)
        return grey

    def project_lesions(self, plane: Plane) -> tuple[NDArray[np.uint8], NDArray[np.float32]]:
        """Look through the lesions along a plane's normal.

        Returns:
            Their greatest probability, 0 to 255, and their thickness in mm.
        """
        lesion = np.zeros(self.grid.shape, np.uint8) if self.lesion is None else self.lesion
        inside = lesion[self._inside()]
        greatest: NDArray[np.uint8] = inside.max(axis=plane.axis).T
        thickness = np.count_nonzero(inside, axis=plane.axis).T * self.grid.spacing_mm[plane.axis]
        return greatest, thickness.astype(np.float32)

    def _inside(self) -> tuple[slice, ...]:
        return tuple(slice(a, b) for a, b in zip(*self.box, strict=True))

    def focus_fraction(self, plane: Plane) -> tuple[float, float]:
        """Return where the focus is in a plane: fractions of its width and height."""
        low, high = self.box
        column, row = (axis for axis in range(3) if axis != plane.axis)
        x, y = ((self.focus[axis] + 0.5 - low[axis]) / (high[axis] - low[axis]) for axis in (column, row))
        return x, y

    def place(self, plane: Plane) -> str:
        """Name the world coordinate of a plane as a scanner console does, such as "S 24 mm"."""
        value = float(self.grid.world(self.focus)[plane.axis])
        return f"{('LR', 'PA', 'IS')[plane.axis][int(value >= 0)]} {abs(value):.0f} mm"


def build_view(result: Result) -> View:
    """Choose what to show of a result: through its largest lesion, otherwise through the middle of the brain."""
    axes = reorient(result.fused.grid, AXES)
    volumes = {column_title(name): volume for name, volume in result.inputs.items()} | {"Fused": result.fused}
    images = {title: axes.apply(volume.data) for title, volume in volumes.items()}
    labels = None if result.labels is None else axes.apply(result.labels.data)
    lesion = _lesion_probability(result, axes, labels)
    low, high = _foreground_box(images.get(column_title(result.reference), images["Fused"]), axes.grid)
    focus = _lesion_focus(result, labels, axes.grid) or _middle(low, high)
    box = (_combine(min, low, focus), _combine(max, high, (focus[0] + 1, focus[1] + 1, focus[2] + 1)))
    tissue = _tissue(result, labels)
    windows = {title: _window(image, tissue) for title, image in images.items()}
    return View(axes.grid, images, windows, labels, lesion, focus, box)


def column_title(contrast: str) -> str:
    """Return the contrast's name as radiologists say it: "T1w" is T1."""
    return contrast.removesuffix("w")


def _lesion_probability(result: Result, axes: AxisMap, labels: Array | None) -> NDArray[np.uint8] | None:
    if labels is None or result.lesion_probability is None or not result.classes or result.lesion_class is None:
        return None
    probability, mask = axes.apply(result.lesion_probability.data), labels == result.classes.index(result.lesion_class)
    seen: NDArray[np.uint8] = np.zeros(labels.shape, np.uint8)
    seen[mask] = np.maximum(probability[mask] * 255, 1).astype(np.uint8)
    return seen


def _lesion_focus(result: Result, labels: Array | None, grid: Grid) -> Index | None:
    """Find the voxel of the largest lesion in the brain whose three planes show most of it."""
    if labels is None or not result.lesions or not result.classes or result.lesion_class not in result.classes:
        return None
    inside = [lesion for lesion in result.lesions if lesion.location != OUTSIDE] or result.lesions
    largest = max(inside, key=lambda lesion: lesion.volume_ml)
    voxels = np.argwhere(labels == result.classes.index(result.lesion_class))
    if not len(voxels):
        return None
    distance_mm = np.linalg.norm((voxels - grid.index(largest.centroid_mm)) * grid.spacing_mm, axis=1)
    radius_mm = (largest.volume_ml * 1000 * 3 / (4 * np.pi)) ** (1 / 3)
    near = voxels[distance_mm <= max(1.5 * radius_mm, distance_mm.min())]
    shown = sum(np.bincount(near[:, axis])[near[:, axis]] for axis in range(3))
    x, y, z = near[int(np.argmax(shown))].tolist()
    return x, y, z


def _foreground_box(image: Array, grid: Grid) -> tuple[Index, Index]:
    """Return the box of what is brighter than the background, with a margin; everything when nothing is."""
    sample = _sample(image)
    positive = sample[sample > 0]
    shape = image.shape
    if not positive.size:
        return (0, 0, 0), (shape[0], shape[1], shape[2])
    bright = image > FOREGROUND_FRACTION * np.percentile(positive, 99)
    low, high = [], []
    for axis, spacing_mm in enumerate(grid.spacing_mm):
        found = np.flatnonzero(bright.any(axis=tuple({0, 1, 2} - {axis})))
        margin = round(MARGIN_MM / spacing_mm)
        low.append(max(int(found[0]) - margin, 0))
        high.append(min(int(found[-1]) + 1 + margin, shape[axis]))
    return (low[0], low[1], low[2]), (high[0], high[1], high[2])


def _tissue(result: Result, labels: Array | None) -> Array | None:
    """Return where grey matter, white matter or a lesion is, sparsely as `_sample` takes voxels."""
    if labels is None or not result.classes:
        return None
    shown = [name == result.lesion_class or name.endswith("_matter") for name in result.classes]
    table = np.zeros(256, bool)
    table[: len(shown)] = shown
    tissue: Array = table[labels[_sparse(labels)]].ravel()
    return tissue if np.count_nonzero(tissue) >= _LEAST_TISSUE else None


def _window(image: Array, tissue: Array | None) -> tuple[float, float]:
    """Return the values to show black and white, robust against a few bright voxels.

    Tissue, where it is known, bounds white: the fat of a head that was not stripped outshines its brain in T1.
    """
    sample = image[_sparse(image)].astype(np.float32).ravel()
    finite = np.isfinite(sample)
    positive = sample[finite & (sample > 0)]
    if not positive.size:
        return 0.0, 1.0
    foreground = positive[positive > FOREGROUND_FRACTION * np.percentile(positive, 99)]
    low, high = np.percentile(foreground, WINDOW_PERCENTILES)
    if tissue is not None and (tissue & finite).any():
        high = min(high, ABOVE_TISSUE * np.percentile(sample[tissue & finite], TISSUE_PERCENTILE))
    return (float(low), float(high)) if high > low else (0.0, max(float(high), 1e-6))


def _sample(image: Array) -> Array:
    """Return every n-th voxel as float32: enough of them for percentiles."""
    sample: Array = image[_sparse(image)].astype(np.float32).ravel()
    return sample[np.isfinite(sample)]


def _sparse(image: Array) -> tuple[slice, slice, slice]:
    step = slice(None, None, max(1, round((image.size / _SAMPLES) ** (1 / 3))))
    return step, step, step


def _middle(low: Index, high: Index) -> Index:
    x, y, z = ((a + b) // 2 for a, b in zip(low, high, strict=True))
    return x, y, z


def _combine(choose: Callable[[int, int], int], first: Index, second: Index) -> Index:
    x, y, z = (choose(a, b) for a, b in zip(first, second, strict=True))
    return x, y, z
