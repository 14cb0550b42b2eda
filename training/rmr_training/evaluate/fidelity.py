"""How close the fused image is to its inputs: structural similarity, visual information fidelity, correlations.

SSIM is scikit-image's; VIF and SCD are ours, since no library that is kept up takes volumes.
"""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage
from skimage.metrics import structural_similarity

FloatArray = NDArray[np.float32]
Mask = NDArray[np.bool_]

SCALES = 4
NOISE = 2.0
"""Variance of the noise of the visual channel, for intensities from 0 to 255."""

_TINY = 1e-10
_SSIM_SIDE = 11  # of the Gaussian window of deviation 1.5


def mean_ssim(image: FloatArray, fused: FloatArray, mask: Mask, data_range: float) -> float:
    """Return the structural similarity of two volumes (D, H, W), averaged over a mask.

    Args:
        image: One input.
        fused: The fused image.
        mask: Voxels that count; the windows around them may reach beyond it.
        data_range: Difference between the greatest and the least possible intensity.

    Source: Wang, Bovik, Sheikh, Simoncelli, IEEE Trans. Image Process. 13 (2004) 600-612, whose Gaussian window
    (deviation 1.5) is taken in 3-D.
    """
    # scikit-image wants the window to fit; it would mirror the image at its border just so.
    missing = [(0, max(0, _SSIM_SIDE - length)) for length in image.shape]
    wide = [np.pad(each, missing, mode="symmetric") for each in (image, fused)]
    _, similarity = structural_similarity(
        *wide, data_range=data_range, gaussian_weights=True, sigma=1.5, use_sample_covariance=False, full=True
    )
    return float(similarity[tuple(slice(length) for length in image.shape)][mask].mean(dtype=np.float64))


def visual_information_fidelity(reference: FloatArray, fused: FloatArray, data_range: float) -> float:
    """Return VIFp: the share of the reference's visual information that the fused image conveys.

    It is taken in slices, as published, and both of its sums run over all slices of the box that is passed in; flat air
    adds nothing to them. In 3-D the finest scale would count twice as much beside the others.

    Args:
        reference: One input (D, H, W), H and W spanning a slice.
        fused: The fused image.
        data_range: Greatest possible intensity, mapped to 255.

    Returns:
        1 for equal images, less for a blurred or noisy one, more for one of enhanced contrast; NaN where the reference
        is flat or its slices smaller than the smallest window. Scales whose window is larger than a slice are left out.

    Source: Sheikh, Bovik, IEEE Trans. Image Process. 15 (2006) 430-444; in the pixel domain over four scales, with the
    constants of their code.
    """
    x, y = (np.asarray(image * (255.0 / data_range), np.float32) for image in (reference, fused))
    conveyed = present = 0.0
    for scale in range(1, SCALES + 1):
        length = 2 ** (SCALES - scale + 1) + 1
        window = _gaussian(length, length / 5)
        if scale > 1:
            if min(x.shape[1:]) < length:
                continue
            x, y = (_smooth(image, window)[:, ::2, ::2] for image in (x, y))
        if min(x.shape[1:]) >= length:
            at_scale = _information(x, y, window)
            conveyed, present = conveyed + at_scale[0], present + at_scale[1]
    return conveyed / present if present else math.nan


def _information(x: FloatArray, y: FloatArray, window: FloatArray) -> tuple[float, float]:
    """Return the information that y conveys of x, and that x holds, summed over all windows of one scale."""
    mean_x, mean_y = _smooth(x, window), _smooth(y, window)
    variance_x = np.maximum(_smooth(x * x, window) - mean_x * mean_x, 0)
    variance_y = np.maximum(_smooth(y * y, window) - mean_y * mean_y, 0)
    covariance = _smooth(x * y, window) - mean_x * mean_y
    gain = covariance / (variance_x + _TINY)
    left = variance_y - gain * covariance
    flat_x, flat_y = variance_x < _TINY, variance_y < _TINY
    gain[flat_x | flat_y] = 0
    left[flat_x] = variance_y[flat_x]
    variance_x[flat_x] = 0
    left[flat_y] = 0
    inverted = gain < 0
    left[inverted] = variance_y[inverted]
    gain[inverted] = 0
    conveyed = np.log1p(gain * gain * variance_x / (np.maximum(left, _TINY) + NOISE))
    return float(conveyed.sum(dtype=np.float64)), float(np.log1p(variance_x / NOISE).sum(dtype=np.float64))


def _gaussian(length: int, deviation: float) -> FloatArray:
    places = np.arange(length) - (length - 1) / 2
    window = np.exp(-0.5 * (places / deviation) ** 2)
    return (window / window.sum()).astype(np.float32)


def _smooth(image: FloatArray, window: FloatArray) -> FloatArray:
    """Filter the slices (D, H, W), keeping only where the window lies within them."""
    half = len(window) // 2
    image = ndimage.correlate1d(image, window, 1, mode="nearest")[:, half:-half]
    return ndimage.correlate1d(image, window, 2, mode="nearest")[:, :, half:-half]


def sum_of_difference_correlations(first: FloatArray, second: FloatArray, fused: FloatArray, mask: Mask) -> float:
    """Return SCD: what the fused image has beyond one input, correlated with the other input, both ways added.

    Returns:
        -2 to 2; a difference or an input without variation within the mask counts as uncorrelated.

    Source: Aslantas, Bendes, AEU - Int. J. Electron. Commun. 69 (2015) 1890-1896.
    """
    a, b, f = first[mask], second[mask], fused[mask]
    return _correlation(f - b, a) + _correlation(f - a, b)


def _correlation(x: FloatArray, y: FloatArray) -> float:
    x, y = x - x.mean(dtype=np.float64), y - y.mean(dtype=np.float64)
    scale = math.sqrt(float((x * x).sum()) * float((y * y).sum()))
    return float((x * y).sum()) / scale if scale else 0.0
