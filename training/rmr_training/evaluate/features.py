"""FMI: how much of the inputs' local features the fused image carries.

Each window of an image is read as a distribution over its pixels. From two such marginals a joint distribution is
built whose dependence is the correlation of the windows; its mutual information, normalised, is averaged over windows.

Source: Haghighat, Aghagolzadeh, Seyedarabi, Comput. Electr. Eng. 37 (2011) 744-756, with gradient features and windows
of 3 x 3 in slices. Ours: the gradient is its magnitude; the weight of the extreme joint distribution is kept within
[0, 1], without which the mixture is no distribution; slices are sampled.
"""

from __future__ import annotations

import numpy as np
from numpy.lib.stride_tricks import sliding_window_view
from numpy.typing import NDArray

FloatArray = NDArray[np.float32]

SIDE = 3
CELLS = SIDE * SIDE
EVERY = 8
"""One slice of this many is looked at: each takes 81 cells a pixel, and neighbours are alike. On a whole brain this
moves the mean by less than 0.01."""

_FLAT = 1e-5  # a window that varies by less holds the rounding of float32, not a feature
_CHUNK = 16_384  # windows at a time: their joint distributions fit the cache


def feature_mutual_information(
    image: FloatArray, fused: FloatArray, mask: NDArray[np.bool_], every: int = EVERY
) -> float:
    """Return the mean normalised mutual information of the windows of two images, 0 to 1.

    Args:
        image: One input (D, H, W).
        fused: The fused image, likewise.
        mask: Windows with their centre in it count.
        every: Look at every n-th of the slices that the mask touches.

    Returns:
        The mean; NaN where no window counts. Equal images give 1.
    """
    total, count = 0.0, 0
    for index in np.flatnonzero(mask.any((1, 2)))[::every]:
        centres = mask[index, 1:-1, 1:-1]
        first, second = (_windows(gradient_magnitude(volume[index]), centres) for volume in (image, fused))
        for start in range(0, len(first), _CHUNK):
            total += float(_shared(first[start : start + _CHUNK], second[start : start + _CHUNK]).sum(dtype=np.float64))
        count += len(first)
    return total / count if count else float("nan")


def gradient_magnitude(plane: FloatArray) -> FloatArray:
    """Return the length of the gradient (H, W) by central differences."""
    along_h, along_w = np.gradient(plane)
    return np.hypot(along_h, along_w).astype(np.float32)


def _windows(plane: FloatArray, centres: NDArray[np.bool_]) -> FloatArray:
    """Return the windows (n, 9) of a plane around chosen pixels, row by row."""
    chosen: FloatArray = sliding_window_view(plane, (SIDE, SIDE))[centres].reshape(-1, CELLS)
    return chosen


def _distributions(windows: FloatArray) -> FloatArray:
    """Stretch each window to [0, 1] and scale it to a sum of 1; a flat window becomes uniform."""
    low, high = windows.min(1, keepdims=True), windows.max(1, keepdims=True)
    varies = high - low > _FLAT
    stretched = np.where(varies, (windows - low) / np.where(varies, high - low, 1), 1)
    return (stretched / stretched.sum(1, keepdims=True)).astype(np.float32)


def _shared(first: FloatArray, second: FloatArray) -> FloatArray:
    """Return the normalised mutual information (n,) of pairs of windows (n, 9)."""
    p, q = _distributions(first), _distributions(second)
    correlation = _correlation(p, q)
    upper, lower = _extreme_joints(p, q)
    product = p[:, :, None] * q[:, None, :]
    bound = np.where((correlation >= 0)[:, None, None], upper, lower)
    weight = _weight(correlation, p, q, bound, product)[:, None, None]
    together = _entropy((weight * bound + (1 - weight) * product).reshape(len(p), -1))
    alone = _entropy(p) + _entropy(q)
    # A single peak has no entropy: two of them share all where they are one, and else nothing.
    shared = np.divide(2 * (alone - together), alone, out=np.zeros_like(alone), where=alone > 0)
    return np.where((p == q).all(1), np.float32(1), shared)


def _correlation(p: FloatArray, q: FloatArray) -> FloatArray:
    a, b = p - p.mean(1, keepdims=True), q - q.mean(1, keepdims=True)
    scale = np.sqrt((a * a).sum(1) * (b * b).sum(1))
    return np.divide((a * b).sum(1), scale, out=np.zeros_like(scale), where=scale > 0)


def _extreme_joints(p: FloatArray, q: FloatArray) -> tuple[FloatArray, FloatArray]:
    """Return the joint distributions (n, 9, 9) of greatest and of least dependence (Frechet, Hoeffding)."""
    # The running sums end at 1 exactly, so that the bounds have the marginals p and q.
    below = [np.minimum(np.cumsum(each, 1, dtype=np.float64), 1) for each in (p, q)]
    for each in below:
        each[:, -1] = 1
    a, b = below[0][:, :, None], below[1][:, None, :]
    return _mass(np.minimum(a, b)), _mass(np.maximum(a + b - 1, 0))


def _mass(cumulative: NDArray[np.float64]) -> FloatArray:
    """Turn cumulative joint distributions (n, 9, 9) into the mass of each cell."""
    cells = np.diff(np.diff(cumulative, axis=1, prepend=0), axis=2, prepend=0)
    return np.maximum(cells, 0).astype(np.float32)


def _weight(
    correlation: FloatArray, p: FloatArray, q: FloatArray, bound: FloatArray, product: FloatArray
) -> FloatArray:
    """Return the share (n,) of the extreme distribution that gives the correlation wanted, within [0, 1]."""
    places = np.arange(1, CELLS + 1, dtype=np.float32)
    spreads = [np.sqrt(np.maximum((each * places**2).sum(1) - (each * places).sum(1) ** 2, 0)) for each in (p, q)]
    covariance = ((bound - product) * places[:, None] * places).sum((1, 2))
    extreme = np.where(covariance == 0, 1, covariance)
    return np.clip(np.where(covariance == 0, 0, correlation * spreads[0] * spreads[1] / extreme), 0, 1)


def _entropy(probability: FloatArray) -> FloatArray:
    """Return the entropy in bits of each row; empty cells count as nothing."""
    logs = np.log2(probability, out=np.zeros_like(probability), where=probability > 0)
    return -(probability * logs).sum(1)
