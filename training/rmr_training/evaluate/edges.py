"""Edges: how well those of the inputs survive in the fused image, and how strong its own are.

Gradients are those of the 3 x 3 x 3 Sobel operator of SciPy, in voxels of the grid.
"""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

FloatArray = NDArray[np.float32]
Mask = NDArray[np.bool_]

# Strength and orientation: limit, slope and centre of a sigmoid. Xydeas and Petrovic (2000).
_STRENGTH = (0.9994, -15.0, 0.5)
_ORIENTATION = (0.9879, -22.0, 0.8)


def sobel(image: FloatArray) -> FloatArray:
    """Return the gradient (3, D, H, W) of a volume (D, H, W)."""
    return np.stack([ndimage.sobel(image, axis, mode="nearest") for axis in range(3)])


def edge_preservation(first: FloatArray, second: FloatArray, fused: FloatArray, mask: Mask) -> float:
    """Return Q^AB/F: how much of the strength and the orientation of both inputs' edges the fused image keeps.

    Args:
        first: One input (D, H, W).
        second: The other.
        fused: The fused image.
        mask: Voxels that count, each by the strength of the inputs' edges there.

    Returns:
        0 to 0.975, which is what the sigmoids give to edges kept exactly; NaN where the inputs have no edge.

    Source: Xydeas, Petrovic, Electron. Lett. 36 (2000) 308-309, with L = 1. In 3-D, ours: the angle between two edges
    is that between the lines along their gradients, so that, as in the original, an inverted edge is a kept one.
    """
    after = sobel(fused)[:, mask]
    kept, weight = 0.0, 0.0
    for image in (first, second):
        before = sobel(image)[:, mask]
        strength = np.linalg.norm(before, axis=0)
        kept += float((edge_kept(before, after) * strength).sum(dtype=np.float64))
        weight += float(strength.sum(dtype=np.float64))
    return kept / weight if weight else math.nan


def edge_kept(before: FloatArray, after: FloatArray) -> FloatArray:
    """Return per voxel how well a gradient `after` (3, n) keeps a gradient `before`: strength times orientation."""
    g, h = np.linalg.norm(before, axis=0), np.linalg.norm(after, axis=0)
    stronger = np.maximum(g, h)
    strength = np.divide(np.minimum(g, h), stronger, out=np.zeros_like(g), where=stronger > 0)
    product = g * h
    cosine = np.divide(np.abs((before * after).sum(0)), product, out=np.zeros_like(g), where=product > 0)
    orientation = 1 - np.arccos(np.clip(cosine, 0, 1)) * (2 / np.pi)
    return _sigmoid(strength, *_STRENGTH) * _sigmoid(orientation, *_ORIENTATION)


def _sigmoid(x: FloatArray, limit: float, slope: float, centre: float) -> FloatArray:
    return (limit / (1 + np.exp(slope * (x - centre)))).astype(np.float32)


def spatial_frequency(image: FloatArray, mask: Mask) -> float:
    """Return the root of the summed mean squares of the differences between neighbours along the three axes.

    Both neighbours have to lie in the mask; NaN where along some axis no two do.

    Source: Eskicioglu, Fisher, IEEE Trans. Commun. 43 (1995) 2959-2965, there along rows and columns.
    """
    squares = 0.0
    for axis in range(3):
        inside = _both(mask, axis)
        if not inside.any():
            return math.nan
        squares += float(np.square(np.diff(image, axis=axis)[inside], dtype=np.float64).mean())
    return math.sqrt(squares)


def average_gradient(image: FloatArray, mask: Mask) -> float:
    """Return the mean over the mask of the root mean square, over the axes, of the forward differences.

    A voxel counts where it and its three forward neighbours lie in the mask; NaN where none does.

    Source: Cui, Feng, Xu, Li, Chen, Opt. Commun. 341 (2015) 199-209, there along two axes.
    """
    core = (slice(-1),) * 3
    steps = [np.diff(image, axis=axis)[_trim(axis)] for axis in range(3)]
    inside = mask[core].copy()
    for axis in range(3):
        inside &= np.roll(mask, -1, axis)[core]
    if not inside.any():
        return math.nan
    squares = sum(np.square(step[inside], dtype=np.float64) for step in steps)
    return float(np.sqrt(squares / 3).mean())


def _both(mask: Mask, axis: int) -> Mask:
    """Return, per pair of neighbours along an axis, whether both lie in the mask."""
    ahead = [slice(None)] * 3
    behind = [slice(None)] * 3
    ahead[axis], behind[axis] = slice(1, None), slice(-1)
    return mask[tuple(ahead)] & mask[tuple(behind)]


def _trim(axis: int) -> tuple[slice, ...]:
    """Return what cuts the differences along one axis to the voxels that have all three forward neighbours."""
    return tuple(slice(None) if other == axis else slice(-1) for other in range(3))
