"""Blocks in a row on one stream of tokens that is kept in the order of the windows.

A block whose windows hold no padding wants the tokens window by window. The stream is brought into that order and left
in it: norms, linear layers and residuals do not care, so one Gather between two blocks of different windows replaces
the pad, roll and partition before each and their inverses behind each. A block with padding leaves the order alone and
gathers around its attention only.

    rows (grid order) -> Reorder -> block -> Reorder -> block ... -> Reorder -> rows (grid order)
"""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np
from torch import nn

from rmr_training.models.swin import Triple

from .attention import PaddedAttention, RegionMasks, Reorder, StaticAttention, StaticBlock
from .weights import BlockWeights
from .windows import PADDING, IntArray, Windows, plan_windows


def static_blocks(blocks: Iterable[BlockWeights], grid: Triple, masks: RegionMasks) -> nn.Sequential:
    """Rewrite Swin blocks for a static grid.

    Args:
        blocks: In the order of computation.
        grid: Tokens along (D, H, W).
        masks: Where blocks register their regions.

    Returns:
        A module on rows (D * H * W, width), in and out in the order of the grid.
    """
    natural = np.arange(int(np.prod(grid)))
    steps: list[nn.Module] = []
    order = natural  # the number of the token in each row
    for block in blocks:
        windows = plan_windows(grid, block.window, block.shifted)
        wanted = order if windows.padded else windows.slots.reshape(-1)
        steps += _reorder(order, wanted)
        order = wanted
        steps.append(StaticBlock(block, _attention(block, windows, order, masks)))
    return nn.Sequential(*steps, *_reorder(order, natural))


def _reorder(order: IntArray, wanted: IntArray) -> list[nn.Module]:
    return [] if np.array_equal(order, wanted) else [Reorder(_row_of_token(order)[wanted])]


def _attention(block: BlockWeights, windows: Windows, order: IntArray, masks: RegionMasks) -> StaticAttention:
    if not windows.padded:
        return StaticAttention(block, windows, masks)
    slots = windows.slots.reshape(-1)
    real = slots != PADDING
    places = np.full(slots.shape, order.size)
    places[real] = _row_of_token(order)[slots[real]]
    back = np.empty_like(order)
    back[places[real]] = np.flatnonzero(real)
    return PaddedAttention(block, windows, masks, places, back)


def _row_of_token(order: IntArray) -> IntArray:
    rows = np.empty_like(order)
    rows[order] = np.arange(order.size)
    return rows
