"""Where the tokens of a grid go: window slots, padding and shift regions as constant tables.

Owns the index arithmetic of shifted windows. Because the grid is static, zero padding, the cyclic roll and the
partition into windows are one permutation, known at export:

    row of a token  --(slots)-->  slot (window, place in it)  --(its inverse)-->  row of the token
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray
from rmr_training.models.swin import Triple, padded_grid, window_and_shift

IntArray = NDArray[np.int64]
BoolArray = NDArray[np.bool_]

PADDING = -1
"""Stands in `Windows.slots` for a token that only the zero padding brings."""


@dataclass(frozen=True, slots=True, eq=False)
class Windows:
    """The windows of one block on a static token grid.

    Attributes:
        count: Number of windows.
        slots: int64 (count, tokens): the token, numbered along (D, H, W), that each slot of each window holds, or
            `PADDING`.
        sides: bool (count, tokens, shifted axes): on which side of the wrap-around a slot lies, along each shifted
            axis. Tokens attend to each other where all sides agree.
    """

    slots: IntArray
    sides: BoolArray

    @property
    def count(self) -> int:
        """Number of windows."""
        return self.slots.shape[0]

    @property
    def tokens(self) -> int:
        """Slots of a window."""
        return self.slots.shape[1]

    @property
    def padded(self) -> bool:
        """Whether a slot holds padding."""
        return bool((self.slots == PADDING).any())

    @property
    def masked(self) -> bool:
        """Whether a window holds more than one region."""
        return bool((self.sides != self.sides[:, :1]).any())


@lru_cache(maxsize=64)
def plan_windows(grid: Triple, window: int, shifted: bool) -> Windows:
    """Lay out the windows of a block.

    Args:
        grid: Tokens along (D, H, W).
        window: Nominal window side.
        shifted: Whether the block is a shifted one.

    Returns:
        Slots and sides. An axis not longer than the window is one unshifted window.
    """
    sides, shifts = window_and_shift(grid, window, shifted)
    padded = padded_grid(grid, sides)
    slots = np.full(padded, PADDING, np.int64)
    slots[: grid[0], : grid[1], : grid[2]] = np.arange(np.prod(grid)).reshape(grid)
    slots = np.roll(slots, [-shift for shift in shifts], (0, 1, 2))
    moved = [axis for axis in range(3) if shifts[axis]]
    beyond = [_beyond_wrap(padded, axis, shifts[axis]) for axis in moved]
    flags = np.stack([_cut(flag, sides) for flag in beyond], -1) if beyond else np.zeros((*_cut(slots, sides).shape, 0), bool)
    return Windows(_cut(slots, sides), flags)


def _beyond_wrap(padded: Triple, axis: int, shift: int) -> BoolArray:
    # After the roll the far `shift` positions hold what came round from the near end. Regions also part at
    # L - window, but that is a border between windows.
    along = np.zeros(padded[axis], bool)
    along[-shift:] = True
    shape = [1, 1, 1]
    shape[axis] = padded[axis]
    return np.broadcast_to(along.reshape(shape), padded)


def _cut(grid: NDArray[np.generic], sides: Triple) -> NDArray[np.generic]:
    """Cut (D, H, W) into (windows, tokens per window), both with depth varying slowest."""
    d, h, w = (length // side for length, side in zip(grid.shape, sides, strict=True))
    blocks = grid.reshape(d, sides[0], h, sides[1], w, sides[2])
    return blocks.transpose(0, 2, 4, 1, 3, 5).reshape(d * h * w, -1)
