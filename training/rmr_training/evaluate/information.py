"""What one image tells about another, in bits: entropy and mutual information of grey levels.

Owns histograms of voxels; which voxels is the caller's choice. Entropies of histograms come from SciPy.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.stats import entropy as histogram_entropy

LEVELS = 256
"""Grey levels, as in 8-bit images, for which these figures are published."""


@dataclass(frozen=True, slots=True)
class Shared:
    """What two images share.

    Attributes:
        bits: Mutual information.
        normalised: Twice the mutual information over the sum of both entropies, 0 to 1.
    """

    bits: float
    normalised: float


def quantise(image: NDArray[Any], data_range: float) -> NDArray[np.uint8]:
    """Map intensities from [0, data_range] to 256 grey levels of equal width, clipping what lies beyond."""
    levels = np.clip(np.asarray(image, np.float32) * np.float32(LEVELS / data_range), 0, LEVELS - 1)
    return levels.astype(np.uint8)


def entropy(levels: NDArray[np.uint8]) -> float:
    """Return the entropy of grey levels in bits, 0 to 8.

    Source: Shannon; as a figure of fusion Roberts et al., J. Appl. Remote Sens. 2, 023522 (2008).
    """
    return float(histogram_entropy(np.bincount(levels.ravel(), minlength=LEVELS), base=2))


def mutual_information(image: NDArray[np.uint8], other: NDArray[np.uint8]) -> Shared:
    """Return what two images of equal shape share; two constant images share nothing to normalise, so 0.

    Its bias, about (occupied cells of the joint histogram) / (2 ln 2 * voxels) bits, is not the same for every image:
    it grows with the grey levels in use, so of two images that tell as much the one with more levels comes out higher.

    Source: Qu, Zhang, Yan, Electron. Lett. 38 (2002) 313-315, who print the sum over both inputs; normalised as in
    Hossny, Nahavandi, Creighton, Electron. Lett. 44 (2008) 1066-1067.
    """
    cells = image.astype(np.int64) * LEVELS + other
    joint = np.bincount(cells.ravel(), minlength=LEVELS * LEVELS).reshape(LEVELS, LEVELS)
    total = float(histogram_entropy(joint.sum(1), base=2)) + float(histogram_entropy(joint.sum(0), base=2))
    bits = max(0.0, total - float(histogram_entropy(joint.ravel(), base=2)))
    return Shared(bits, 2 * bits / total if total else 0.0)
