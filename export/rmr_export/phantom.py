"""A head made of formulas: the input of the golden tile.

It looks enough like two contrasts to drive a network where real studies do (smooth tissue, sharp borders, lesions, and
half of the tile background), it is free of anyone's data, and it packs to a few kilobytes.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

FloatArray = NDArray[np.float32]

STEPS = 32
"""Intensities are multiples of 1 / STEPS: exact in float16, and few enough to pack well."""

# Outer radius of each shell as a fraction of the head's, and its intensity in T1 and FLAIR: scalp, CSF, grey matter,
# white matter, ventricle.
_SHELLS = (
    (1.00, 0.80, 0.70),
    (0.90, 0.20, 0.15),
    (0.84, 0.60, 0.75),
    (0.68, 0.90, 0.60),
    (0.26, 0.20, 0.15),
)
_LESION = (0.62, 1.10)
_LESIONS = ((0.10, 0.35, 0.25), (-0.15, -0.40, 0.20), (0.05, 0.15, -0.45))
_LESION_RADIUS = 0.11


def phantom(tile: tuple[int, int, int]) -> dict[str, FloatArray]:
    """Draw the tile.

    Args:
        tile: (D, H, W) in voxels.

    Returns:
        `t1w` and `flair`, each (1, 1, D, H, W), 0 outside the head and up to about 1.2.
    """
    # The centre lies off the tile's, so that the head leaves the tile on one side and ends inside it on the other.
    axes = [np.linspace(-1, 1, length, dtype=np.float64) for length in tile]
    d, h, w = np.meshgrid(*axes, indexing="ij", sparse=True)
    d, h, w = d / 0.95, (h + 0.15) / 0.95, (w + 0.25) / 0.90
    folds = 0.03 * np.sin(9 * d) * np.sin(11 * h) * np.sin(10 * w)
    radius = np.sqrt(d**2 + h**2 + w**2) + folds
    shade = 1 + 0.12 * d - 0.08 * h + 0.10 * w
    t1w, flair = np.zeros(tile), np.zeros(tile)
    for outer, in_t1w, in_flair in _SHELLS:
        inside = radius < outer
        t1w[inside], flair[inside] = in_t1w, in_flair
    for at_d, at_h, at_w in _LESIONS:
        inside = (d - at_d) ** 2 + (h - at_h) ** 2 + (w - at_w) ** 2 < _LESION_RADIUS**2
        t1w[inside], flair[inside] = _LESION
    return {"t1w": _quantise(t1w * shade), "flair": _quantise(flair * (2 - shade))}


def _quantise(image: NDArray[np.float64]) -> FloatArray:
    return (np.round(image * STEPS) / STEPS).astype(np.float32)[None, None]
