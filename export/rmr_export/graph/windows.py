"""Where the tokens of a grid go: the windows of a block as constant tables.

Owns the index arithmetic of shifted windows. On a static grid zero padding, cyclic roll and partition together only
move tokens, so one table per block says it all:

    slots[window, place] = number of the token there along (D, H, W), or PADDING
    regions[window, place] = which side of the wrap-around it lies on; tokens attend to others of their own number
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from rmr_training.models.swin import Triple, padded_grid, window_and_shift

IntArray = NDArray[np.int64]

PADDING = -1
"""Stands in `Windows.slots` where no token is: the zero padding at the far end of a grid."""


@dataclass(frozen=True, slots=True, eq=False)
class Windows:
    """The windows of one block on a static token grid.

    Attributes:
        slots: int64 (windows, places), tokens by number; `PADDING` where a place holds none.
        regions: int64 (windows, places), equal within a window exactly where two tokens may attend to each other.
    """

    slots: IntArray
    regions: IntArray

    @property
    def padded(self) -> bool:
        """Whether some place holds padding."""
        return bool((self.slots == PADDING).any())

    @property
    def masked(self) -> bool:
        """Whether some window holds more than one region."""
        return bool((self.regions != self.regions[:, :1]).any())


@lru_cache(maxsize=64)
def plan_windows(grid: Triple, window: int, shifted: bool) -> Windows:
    """Lay out the windows of a block.

    Args:
        grid: Tokens along (D, H, W).
        window: Nominal window side. An axis that is not longer is one window, and is not shifted.
        shifted: Whether the block is a shifted one.

    Returns:
        The tables; windows and the places inside them with depth varying slowest.
    """
    sides, shifts = window_and_shift(grid, window, shifted)
    padded = padded_grid(grid, sides)
    slots = np.full(padded, PADDING)
    slots[tuple(slice(length) for length in grid)] = np.arange(np.prod(grid)).reshape(grid)
    slots = np.roll(slots, [-shift for shift in shifts], (0, 1, 2))
    # Regions also part at length - window, but that is the border between two windows. What is left is the border
    # at length - shift, behind which lies what came round from the near end: one bit an axis.
    bits = [
        (np.arange(length) >= length - shift) << axis
        for axis, (length, shift) in enumerate(zip(padded, shifts, strict=True))
    ]
    regions = bits[0][:, None, None] | bits[1][:, None] | bits[2]
    return Windows(_cut(slots, sides), _cut(regions, sides))


def _cut(grid: IntArray, sides: Triple) -> IntArray:
    """Cut (D, H, W) into (windows, places), both with depth varying slowest."""
    d, h, w = (length // side for length, side in zip(grid.shape, sides, strict=True))
    blocks = grid.reshape(d, sides[0], h, sides[1], w, sides[2])
    return blocks.transpose(0, 2, 4, 1, 3, 5).reshape(d * h * w, -1)
