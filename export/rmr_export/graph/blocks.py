"""Blocks in a row on one stream of tokens that is kept in the order of the windows.

A block whose windows hold no padding wants the tokens window by window. The stream is brought into that order and left
in it: norms, linear layers and residuals do not care, so one Gather between two blocks of different windows replaces
the pad, roll and partition before each and their inverses behind each. A block with padding leaves the order alone and
gathers around its attention only.

    rows (grid order) -> Reorder -> block -> Reorder -> block ... -> Reorder -> rows (grid order)
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor, nn

from rmr_training.models.swin import Triple

from .attention import PaddedAttention, RegionMasks, StaticAttention, StaticBlock
from .windows import PADDING, IntArray, Windows, plan_windows


class Reorder(nn.Module):
    """Put rows into another order.

    Args:
        source: int64, for each row of the result the row it comes from.
    """

    def __init__(self, source: IntArray) -> None:
        super().__init__()
        self.register_buffer("source", torch.from_numpy(source.copy()))

    def forward(self, rows: Tensor) -> Tensor:
        """Map (rows, width) to the same shape."""
        return rows.index_select(0, self.source)  # type: ignore[arg-type]


def static_blocks(blocks: Sequence[nn.Module], grid: Triple, masks: RegionMasks) -> nn.Sequential:
    """Rewrite Swin blocks for a static grid.

    Args:
        blocks: Ours (`window`, `shifted`) or MONAI's (`window_size`, `shift_size`), in the order of computation.
        grid: Tokens along (D, H, W).
        masks: Where blocks register their regions.

    Returns:
        A module on rows (D * H * W, width), in and out in the order of the grid.
    """
    natural = np.arange(int(np.prod(grid)))
    steps: list[nn.Module] = []
    order = natural
    for block in blocks:
        windows = plan_windows(grid, *_window_of(block))
        wanted = order if windows.padded else windows.slots.reshape(-1)
        steps += _reorder(order, wanted)
        order = wanted
        steps.append(StaticBlock(block, _attention(block, windows, order, masks)))
    return nn.Sequential(*steps, *_reorder(order, natural))


def _window_of(block: nn.Module) -> tuple[int, bool]:
    if hasattr(block, "window_size"):
        return int(block.window_size[0]), any(block.shift_size)
    return block.window, block.shifted  # type: ignore[return-value]


def _reorder(order: IntArray, wanted: IntArray) -> list[nn.Module]:
    if np.array_equal(order, wanted):
        return []
    return [Reorder(_row_of_token(order)[wanted])]


def _attention(block: nn.Module, windows: Windows, order: IntArray, masks: RegionMasks) -> StaticAttention:
    attention: nn.Module = block.attn  # type: ignore[assignment]
    heads = attention.num_heads if hasattr(attention, "num_heads") else attention.heads
    if not windows.padded:
        return StaticAttention(attention, int(heads), windows, masks)  # type: ignore[arg-type]
    slots = windows.slots.reshape(-1)
    real = slots != PADDING
    places = np.full(slots.shape, order.size)
    places[real] = _row_of_token(order)[slots[real]]
    back = np.empty_like(order)
    back[places[real]] = np.flatnonzero(real)
    tables = torch.from_numpy(places), torch.from_numpy(back)
    return PaddedAttention(attention, int(heads), windows, masks, *tables)  # type: ignore[arg-type]


def _row_of_token(order: IntArray) -> IntArray:
    rows = np.empty_like(order)
    rows[order] = np.arange(order.size)
    return rows
