"""Bring the atlas onto a study: an affine map found from white and grey matter alone.

    labels -> shares of white and grey matter per block of 4 mm -> smoothed, at 8 mm and at 4 mm
    start: centre and size of the white matter, head upright, bowed or thrown back
    then:  Gauss-Newton steps on the squared difference, 12 parameters, first at 8 mm, then at 4 mm

Tissue that a face of the field of view cuts off is not held against the map.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import Any

import numpy as np
import numpy.typing as npt

from rmr_sdk.atlas import Placement, load_atlas
from rmr_sdk.geometry import Affine, Grid

FloatArray = npt.NDArray[np.float32]

LEAST_WHITE_ML = 120.0
"""Least white matter of a head worth fitting; adults have 350 to 650 ml."""

SIZE_RANGE = (0.6, 1.5)
"""Size of a head relative to the template, along any direction; seen: 0.72 to 1.09."""

_BLOCK_MM = 4.0
_PITCH_DEGREES = (0.0, -22.0, 22.0)
_STEPS_START, _STEPS_COARSE, _STEPS_FINE = 5, 8, 4
_STRIDE_FINE = 4  # of the points at 4 mm: neighbours say the same
_DAMPING = 1e-3
_TINY = 1e-9
_LEAST_BLOCKS = 4  # along each axis
_SAMPLES_PER_SIDE = 4  # voxels that a block is made of, along each axis: 64 in all are enough
_CUT_SHARE = 0.08  # of a face of the field of view that is brain: the brain goes on beyond it
_SHOWN = 0.02


@dataclass(frozen=True, slots=True, eq=False)
class Blocks:
    """White and grey matter of a study on a coarse grid: (2, d, h, w) shares, their affine, and what lies beyond."""

    tissue: FloatArray
    affine: Affine
    open_low: npt.NDArray[np.bool_]
    open_high: npt.NDArray[np.bool_]


def fit_atlas(labels: npt.NDArray[np.uint8], grid: Grid, white: Sequence[int], grey: Sequence[int]) -> Placement | None:
    """Find the atlas in a study.

    Args:
        labels: (D, H, W), C-contiguous.
        grid: Where they lie.
        white: Labels of white matter, lesions included.
        grey: Labels of grey matter.

    Returns:
        The best place found, whether it `fits` or not; None where there is hardly any white matter, or hardly a slice.
    """
    return fit_blocks(_label_blocks(labels, grid, (white, grey)))


def fit_blocks(fine: Blocks) -> Placement | None:
    """Find the atlas in shares of white and grey matter per block, as `fit_atlas` does."""
    block_ml = abs(np.linalg.det(fine.affine[:3, :3])) / 1000
    if fine.tissue[0].sum() * block_ml < LEAST_WHITE_ML or min(fine.tissue.shape[1:]) < _LEAST_BLOCKS:
        return None
    coarse = _halved(fine)
    fine, coarse = (replace(blocks, tissue=smooth(blocks.tissue)) for blocks in (fine, coarse))
    points, values = _template(2, 1)
    tries = [_descend(coarse, points, values, start, _STEPS_START) for start in _starts(coarse, block_ml * 8)]
    best = max(tries, key=lambda found: _similarity(coarse, points, values, found))
    best = _descend(coarse, points, values, best, _STEPS_COARSE)
    points, values = _template(1, _STRIDE_FINE)
    best = _descend(fine, points, values, best, _STEPS_FINE)
    return Placement(best, _similarity(fine, points, values, best))


def _label_blocks(labels: npt.NDArray[np.uint8], grid: Grid, groups: Sequence[Sequence[int]]) -> Blocks:
    """Return the share of each group of labels in blocks of about 4 mm, of small voxels every n-th."""
    sides, _ = block_grid(grid)
    strides = [max(1, side // _SAMPLES_PER_SIDE) for side in sides]
    affine = grid.affine.copy()
    affine[:3, :3] *= strides
    seen = labels[tuple(slice(None, None, stride) for stride in strides)]
    sides, affine = block_grid(Grid((seen.shape[0], seen.shape[1], seen.shape[2]), affine))
    shares = []
    for group in groups:
        table = np.zeros(256, np.uint8)
        table[list(group)] = 1
        shares.append(block_sums(table[seen], sides, np.uint16).astype(np.float32) / np.prod(sides))
    return make_blocks(np.stack(shares), affine)


def block_grid(grid: Grid) -> tuple[list[int], Affine]:
    """Return the sides in voxels of blocks of about 4 mm, and the affine of the blocks."""
    sides = [max(1, round(_BLOCK_MM / spacing)) for spacing in grid.spacing_mm]
    affine = grid.affine.copy()
    affine[:3, :3] *= sides
    affine[:3, 3] = grid.world((np.asarray(sides) - 1) / 2)
    return sides, affine


def block_sums(voxels: npt.NDArray[Any], sides: Sequence[int], dtype: npt.DTypeLike) -> npt.NDArray[Any]:
    """Return the sums over blocks; those at the far ends may be of fewer voxels."""
    sums = voxels
    for axis, side in enumerate(sides):
        along = np.moveaxis(sums, axis, 0)
        added = np.zeros((-(-len(along) // side), *along.shape[1:]), dtype)
        for offset in range(min(side, len(along))):  # whole layers at once: many times as fast as np.add.reduceat
            part = along[offset::side]
            added[: len(part)] += part
        sums = np.moveaxis(added, 0, axis)
    return sums


def make_blocks(tissue: FloatArray, affine: Affine) -> Blocks:
    """Put shares of white and grey matter, (2, d, h, w), in their place, and see where the brain goes on beyond."""
    brain = tissue.sum(axis=0) > 0.5
    ends = [(brain.take(0, axis).mean(), brain.take(-1, axis).mean()) for axis in range(3)]
    return Blocks(tissue, affine, *(np.array([end[side] > _CUT_SHARE for end in ends]) for side in (0, 1)))


def _halved(blocks: Blocks) -> Blocks:
    """Return blocks of twice the size."""
    affine = blocks.affine.copy()
    affine[:3, :3] *= 2
    affine[:3, 3] += blocks.affine[:3, :3] @ np.full(3, 0.5)
    return replace(blocks, tissue=_halve(blocks.tissue), affine=affine)


def _halve(tissue: FloatArray) -> FloatArray:
    padded = np.pad(tissue, [(0, 0), *((0, length % 2) for length in tissue.shape[1:])])
    d, h, w = (length // 2 for length in padded.shape[1:])
    halved: FloatArray = padded.reshape(-1, d, 2, h, 2, w, 2).mean(axis=(2, 4, 6))
    return halved


def smooth(tissue: FloatArray) -> FloatArray:
    """Return shares smoothed by 1/4, 1/2, 1/4 along each axis."""
    for axis in (1, 2, 3):
        pad = [(1, 1) if axis == each else (0, 0) for each in range(4)]
        padded = np.pad(tissue, pad, mode="edge")
        low, high = (np.delete(padded, ends, axis) for ends in ([-2, -1], [0, 1]))
        tissue = ((low + 2 * tissue + high) / 4).astype(np.float32)
    return tissue


@lru_cache(maxsize=2)
def _template(shrink: int, stride: int) -> tuple[npt.NDArray[np.float64], FloatArray]:
    """Return points of the atlas, (n, 3) mm, in the brain and just around it, and their tissue, (2, n)."""
    atlas = load_atlas()
    affine = atlas.tissue_grid.affine.copy()
    tissue = atlas.tissue
    if shrink == 2:
        tissue = _halve(tissue)
        affine[:3, 3] += affine[:3, :3] @ np.full(3, 0.5)
        affine[:3, :3] *= 2
    tissue = smooth(tissue)
    index = np.argwhere(smooth(smooth(tissue)).sum(axis=0) > _SHOWN)[::stride]
    return index @ affine[:3, :3].T + affine[:3, 3], tissue[:, index[:, 0], index[:, 1], index[:, 2]]


def _starts(blocks: Blocks, block_ml: float) -> list[Affine]:
    """Return maps that put the template's white matter on the study's, pitched by several angles."""
    index = np.argwhere(blocks.tissue[0] > _SHOWN)
    weights = blocks.tissue[0][tuple(index.T)].astype(np.float64)
    centre = blocks.affine[:3, :3] @ (weights @ index / weights.sum()) + blocks.affine[:3, 3]
    points, values = _template(2, 1)
    template_centre = values[0].astype(np.float64) @ points / values[0].sum()
    template_ml = float(values[0].sum()) * 8**3 / 1000
    size = float(np.clip((weights.sum() * block_ml / template_ml) ** (1 / 3), 0.8, 1.25))
    starts = []
    for degrees in _PITCH_DEGREES:
        cosine, sine = np.cos(np.radians(degrees)), np.sin(np.radians(degrees))
        start = np.eye(4)
        start[:3, :3] = size * np.array([[1, 0, 0], [0, cosine, -sine], [0, sine, cosine]])
        start[:3, 3] = centre - start[:3, :3] @ template_centre
        starts.append(start)
    return starts


def _descend(blocks: Blocks, points: npt.NDArray[np.float64], values: FloatArray, start: Affine, steps: int) -> Affine:
    """Improve a map by damped Gauss-Newton steps."""
    slopes = np.stack([np.gradient(blocks.tissue, axis=axis) for axis in (1, 2, 3)], axis=1)
    slopes = slopes.reshape(-1, *blocks.tissue.shape[1:])
    everything = np.concatenate([blocks.tissue, slopes])
    back = np.linalg.inv(blocks.affine[:3, :3])
    arms = np.concatenate([points / 100, np.ones((len(points), 1))], axis=1)  # per 100 mm: all of one magnitude
    affine = start
    for _ in range(steps):
        found, seen = _look_up(everything, blocks, points @ affine[:3, :3].T + affine[:3, 3])
        residual = (values - found[:2]) * seen
        slope = found[2:].reshape(2, 3, -1).transpose(0, 2, 1) @ back * seen[:, None]
        jacobian = (slope[..., :, None] * arms[:, None, :]).reshape(-1, 12)
        normal = jacobian.T @ jacobian
        normal[np.diag_indices(12)] += _DAMPING * np.trace(normal) / 12 + _TINY
        step = np.linalg.solve(normal, jacobian.T @ residual.ravel()).reshape(3, 4)
        moved = affine.copy()
        moved[:3, :3] += step[:, :3] / 100
        moved[:3, 3] += step[:, 3]
        if not _plausible(moved):
            break
        affine = moved
    return affine


def _plausible(affine: Affine) -> bool:
    """Tell whether a map neither mirrors nor stretches a head beyond belief."""
    sizes = np.linalg.svd(affine[:3, :3], compute_uv=False)
    return bool(SIZE_RANGE[0] <= sizes.min() and sizes.max() <= SIZE_RANGE[1] and np.linalg.det(affine[:3, :3]) > 0)


def _similarity(blocks: Blocks, points: npt.NDArray[np.float64], values: FloatArray, affine: Affine) -> float:
    """Return the mean correlation of white and of grey matter where the study can be seen."""
    found, seen = _look_up(blocks.tissue, blocks, points @ affine[:3, :3].T + affine[:3, 3])
    if not (seen.any() and np.ptp(found[:, seen], axis=1).all()):
        return 0.0
    return float(np.mean([np.corrcoef(a, b)[0, 1] for a, b in zip(found[:, seen], values[:, seen], strict=True)]))


def _look_up(
    channels: FloatArray, blocks: Blocks, world: npt.NDArray[np.float64]
) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.bool_]]:
    """Interpolate channels at points, 0 outside; tell where the study can be seen at all."""
    index = np.linalg.solve(blocks.affine[:3, :3], (world - blocks.affine[:3, 3]).T).T
    last = np.asarray(channels.shape[1:]) - 1
    below, above = index < 0, index > last
    seen: npt.NDArray[np.bool_] = ~np.any((below & blocks.open_low) | (above & blocks.open_high), axis=1)
    inside = ~(below | above).any(axis=1)
    corner = np.clip(np.floor(index), 0, np.maximum(last - 1, 0)).astype(np.intp)
    share = np.clip(index - corner, 0, 1)
    flat = channels.reshape(len(channels), -1)
    strides = np.array([channels.shape[2] * channels.shape[3], channels.shape[3], 1])
    base = corner @ strides
    found = np.zeros((len(channels), len(world)))
    shares = np.stack([1 - share, share]).transpose(2, 0, 1)  # axis, low or high, point
    for steps in np.ndindex(2, 2, 2):
        weight = shares[0, steps[0]] * shares[1, steps[1]] * shares[2, steps[2]] * inside
        found += flat[:, base + np.minimum(steps, last) @ strides] * weight
    return found, seen
