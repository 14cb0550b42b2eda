"""Whether a T1w and a FLAIR are what they are called, told from their voxels alone.

White matter is brighter than grey matter in a T1w, and darker in a FLAIR. So the ratio of the two, less its average
nearby, is high in white and low in grey matter; where they are swapped, it is the other way round. Both readings are
shown to the atlas: the right one looks more like a head.

    T1w, FLAIR -> blocks of 4 mm -> log ratio - its local mean -> white, grey -> atlas -> similarity
                                                               -> grey, white -> atlas -> similarity
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from rmr_sdk.atlas.fit import FloatArray, block_grid, block_sums, fit_blocks, make_blocks, smooth
from rmr_sdk.geometry import Grid

_FOREGROUND = 0.1  # of the brightest blocks
_TISSUE = (0.5, 1.6)  # of the median of the foreground: neither fluid nor fat
_LOCAL_STEPS = 24  # of smoothing: about 14 mm, wider than gyri and narrower than what coils add


def compare_orders(
    t1: npt.NDArray[np.generic], flair: npt.NDArray[np.generic], grid: Grid
) -> tuple[float, float] | None:
    """Return how much like a head two contrasts are as they are called, and with their names exchanged.

    Args:
        t1: The voxels that are called T1w, finite.
        flair: Those that are called FLAIR, on the same grid.
        grid: Where they lie.

    Returns:
        Two similarities to the atlas, 1 at best; None where the voxels hold too little to tell.
    """
    sides, affine = block_grid(grid)
    levels = [_relative(block_sums(np.maximum(voxels, 0), sides, np.float32)) for voxels in (t1, flair)]
    tissue = np.ones(levels[0].shape, bool)
    for level in levels:
        tissue &= (level > _TISSUE[0]) & (level < _TISSUE[1])
    if not tissue.any():
        return None
    ratio = np.zeros(tissue.shape, np.float32)
    ratio[tissue] = np.log(levels[0][tissue] / levels[1][tissue])
    ratio[tissue] -= (_blur(ratio) / np.maximum(_blur(tissue.astype(np.float32)), 0.05))[tissue]
    spread = 2 * float(ratio[tissue].std())
    if spread == 0:
        return None
    brighter = np.clip(0.5 + ratio / spread, 0, 1) * tissue
    darker = tissue - brighter
    found = [fit_blocks(make_blocks(np.stack(pair), affine)) for pair in ((brighter, darker), (darker, brighter))]
    if found[0] is None or found[1] is None:
        return None
    return found[0].similarity, found[1].similarity


def _relative(sums: FloatArray) -> FloatArray:
    """Return blocks relative to the median of the foreground; zeros where there is none."""
    foreground = sums[sums > _FOREGROUND * np.percentile(sums, 99.5)]
    relative: FloatArray = sums / np.median(foreground) if foreground.size else np.zeros_like(sums)
    return relative


def _blur(blocks: FloatArray) -> FloatArray:
    blurred = blocks[None]
    for _ in range(_LOCAL_STEPS):
        blurred = smooth(blurred)
    within: FloatArray = blurred[0]
    return within
