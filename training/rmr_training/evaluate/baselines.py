"""The simple ways to fuse two images, for comparison: no training, no network, a few lines each.

All take and give network intensities (D, H, W). Transforms use the whole volume that they are given.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pywt
from numpy.typing import NDArray
from scipy import ndimage

FloatArray = NDArray[np.float32]

LEVELS = 3
WAVELET = "sym4"
_KERNEL = np.array([1, 4, 6, 4, 1], np.float32) / 16


def average(t1w: FloatArray, flair: FloatArray) -> FloatArray:
    """Return the mean of both."""
    return (t1w + flair) / np.float32(2)


def maximum(t1w: FloatArray, flair: FloatArray) -> FloatArray:
    """Return the brighter of both at each voxel."""
    return np.maximum(t1w, flair)


def wavelet(t1w: FloatArray, flair: FloatArray) -> FloatArray:
    """Mix in the wavelet domain: the mean of the approximations, of each detail the one of larger magnitude.

    Three levels of the 3-D symlet 4, fewer where the volume is too small for three.

    Source: Li, Manjunath, Mitra, Graph. Models Image Process. 57 (1995) 235-245; the transform is PyWavelets'.
    """
    levels = min(LEVELS, pywt.dwtn_max_level(t1w.shape, WAVELET))
    first, second = (pywt.wavedecn(image, WAVELET, level=levels) for image in (t1w, flair))
    mixed: list[Any] = [average(first[0], second[0])]
    for a, b in zip(first[1:], second[1:], strict=True):
        mixed.append({name: _stronger(a[name], b[name]) for name in a})
    whole = pywt.waverecn(mixed, WAVELET)
    return np.ascontiguousarray(whole[tuple(slice(n) for n in t1w.shape)], np.float32)


def laplacian(t1w: FloatArray, flair: FloatArray) -> FloatArray:
    """Mix Laplacian pyramids of three levels in the same way.

    Source: Burt, Adelson, IEEE Trans. Commun. 31 (1983) 532-540; one more axis.
    """
    details = []
    for _ in range(LEVELS):
        if min(t1w.shape) < 2 * len(_KERNEL):
            break
        coarse = [_reduce(image) for image in (t1w, flair)]
        first, second = (i - _expand(c, i.shape) for i, c in zip((t1w, flair), coarse, strict=True))
        details.append(_stronger(first, second))
        t1w, flair = coarse
    fused = average(t1w, flair)
    for detail in reversed(details):
        fused = _expand(fused, detail.shape) + detail
    return fused


def _stronger(a: FloatArray, b: FloatArray) -> FloatArray:
    return np.where(np.abs(a) >= np.abs(b), a, b)


def _reduce(image: FloatArray) -> FloatArray:
    for axis in range(3):
        image = ndimage.correlate1d(image, _KERNEL, axis, mode="mirror")
    return image[::2, ::2, ::2]


def _expand(image: FloatArray, shape: tuple[int, ...]) -> FloatArray:
    wide = np.zeros(shape, np.float32)
    wide[::2, ::2, ::2] = image
    for axis in range(3):
        wide = ndimage.correlate1d(wide, 2 * _KERNEL, axis, mode="mirror")
    return wide


BASELINES: dict[str, Callable[[FloatArray, FloatArray], FloatArray]] = {
    "average": average,
    "maximum": maximum,
    "wavelet": wavelet,
    "laplacian": laplacian,
}
"""Name -> fusion of a T1 and a FLAIR."""
