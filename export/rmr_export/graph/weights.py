"""What a Swin block is made of, whoever wrote it: the one place that knows how others name its parts."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from torch import Tensor, nn


@dataclass(frozen=True, slots=True, eq=False)
class BlockWeights:
    """The parts of one block.

    Attributes:
        window: Nominal window side in tokens.
        shifted: Whether its windows are shifted.
        heads: Attention heads.
        norm1: Before the attention.
        qkv: Rows of the weight in the order q, k, v, and heads within each.
        proj: Behind the attention.
        bias_table: (relative positions, heads).
        bias_index: int64 (window^3, window^3), rows of the table.
        norm2: Before the MLP.
        linear1: First layer of the MLP; an exact GELU follows.
        linear2: Second layer of the MLP.
    """

    window: int
    shifted: bool
    heads: int
    norm1: nn.LayerNorm
    qkv: nn.Linear
    proj: nn.Linear
    bias_table: Tensor
    bias_index: Tensor
    norm2: nn.LayerNorm
    linear1: nn.Linear
    linear2: nn.Linear

    @classmethod
    def of(cls, block: nn.Module) -> BlockWeights:
        """Take a block apart: one of `rmr_training`, or of MONAI's Swin transformer."""
        found: Any = block
        attention = found.attn
        monai = hasattr(found, "window_size")
        return cls(
            window=found.window_size[0] if monai else found.window,
            shifted=any(found.shift_size) if monai else found.shifted,
            heads=attention.num_heads if monai else attention.heads,
            norm1=found.norm1,
            qkv=attention.qkv,
            proj=attention.proj,
            bias_table=attention.relative_position_bias_table,
            bias_index=attention.relative_position_index,
            norm2=found.norm2,
            linear1=found.mlp.linear1,
            linear2=found.mlp.linear2,
        )

    def position_bias(self, places: int) -> Tensor:
        """Return the bias of each pair of places in a window, (1, heads, places, places)."""
        return self.bias_table.detach()[self.bias_index[:places, :places]].permute(2, 0, 1)[None]
