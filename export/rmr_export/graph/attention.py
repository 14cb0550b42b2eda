"""Window attention and blocks in the form that engines like: exact, static, and with nothing left to compute twice.

Three rewrites, each exact. The scale is folded into the weights of q. The bias of k is dropped: it adds the same
number to every score of a query, and softmax does not see that. The bias of v is moved behind the attention, into the
bias of `proj`: the probabilities of a query add up to one. What is left of a padded token is a zero row for k and v
and a score that is only its position bias, so rows of zeros may stand for padding.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from rmr_training.models.swin import MASKED

from .windows import Windows


class Dense(nn.Module):
    """A linear layer that becomes one MatMul with a (K, N) constant, and one Add.

    Args:
        weight: (N, K), as `nn.Linear` keeps it.
        bias: (N,).
    """

    def __init__(self, weight: Tensor, bias: Tensor) -> None:
        super().__init__()
        self.weight = nn.Parameter(weight.detach().t().contiguous())
        self.bias = nn.Parameter(bias.detach().clone())

    def forward(self, x: Tensor) -> Tensor:
        """Map (rows, K) to (rows, N)."""
        return x @ self.weight + self.bias


class RegionMasks(nn.Module):
    """The masks of shifted windows, made from small tables of region numbers that are inputs of the graph.

    An engine that sees the numbers as constants unfolds them into a mask of hundreds of megabytes; TensorRT does not
    where they are an input, and its fused attention takes the mask as it is computed. Blocks of the same windows share
    a table and its mask.
    """

    def __init__(self) -> None:
        super().__init__()
        self.tables: list[Tensor] = []
        self._names: dict[bytes, int] = {}
        self._masks: dict[int, Tensor] = {}
        self._bound: tuple[Tensor, ...] = ()

    def register(self, windows: Windows) -> int | None:
        """Keep the table of a block's windows and return its number, or None where nothing is masked."""
        if not windows.masked:
            return None
        table = torch.from_numpy(windows.regions).to(torch.int32)
        key = bytes(str(table.shape), "ascii") + table.numpy().tobytes()
        if key not in self._names:
            self._names[key] = len(self.tables)
            self.tables.append(table)
        return self._names[key]

    def bind(self, tables: tuple[Tensor, ...]) -> None:
        """Use these tensors, graph inputs while tracing, in place of `tables` until the next call."""
        self._bound, self._masks = tables, {}

    def mask(self, number: int) -> Tensor:
        """Return what to add to scores: (windows, 1, places, places), 0 within a region and -100 across."""
        if number not in self._masks:
            table = self._bound[number]
            same = table[:, None, :, None] == table[:, None, None, :]
            self._masks[number] = torch.where(same, torch.zeros(()), torch.full((), MASKED))
        return self._masks[number]


class StaticAttention(nn.Module):
    """Attention within the windows of one block.

    Args:
        attention: What to take the weights from: `qkv`, `proj`, `relative_position_bias_table` and
            `relative_position_index` as METHOD's encoder and MONAI's Swin transformer name them.
        heads: Attention heads.
        windows: The windows.
        masks: Where to register the regions.
    """

    def __init__(self, attention: nn.Module, heads: int, windows: Windows, masks: RegionMasks) -> None:
        super().__init__()
        self.heads, self.shape, self._masks = heads, windows.slots.shape, (masks,)
        self.number = masks.register(windows)
        qkv, proj = attention.qkv, attention.proj
        width = proj.in_features
        scale = torch.ones(3 * width)
        scale[:width] = (width // heads) ** -0.5
        query_bias, _, value_bias = qkv.bias.detach().chunk(3)
        kept = torch.cat([query_bias, torch.zeros(2 * width)])
        self.qkv = Dense(qkv.weight * scale[:, None], kept * scale)
        self.proj = Dense(proj.weight, proj.bias + proj.weight @ value_bias)
        places = self.shape[1]
        index = attention.relative_position_index[:places, :places]
        table = attention.relative_position_bias_table.detach()
        self.position_bias = nn.Parameter(table[index].permute(2, 0, 1)[None].contiguous())

    def attend(self, qkv: Tensor) -> Tensor:
        """Map q, k, v of each place (windows * places, 3 * width) to (windows * places, width)."""
        windows, places = self.shape
        width = qkv.shape[1] // 3
        q, k, v = (
            rows.reshape(windows, places, self.heads, width // self.heads).permute(0, 2, 1, 3)
            for rows in qkv.split(width, 1)
        )
        scores = q @ k.transpose(2, 3) + self.position_bias
        if self.number is not None:
            scores = scores + self._masks[0].mask(self.number)
        return (scores.softmax(3) @ v).permute(0, 2, 1, 3).reshape(windows * places, width)

    def forward(self, rows: Tensor) -> Tensor:
        """Map tokens in the order of their places (windows * places, width) to the same shape."""
        return self.proj(self.attend(self.qkv(rows)))  # type: ignore[no-any-return]


class PaddedAttention(StaticAttention):
    """Attention within windows of which some places are padding; tokens come and go without it.

    Args:
        attention: See `StaticAttention`.
        heads: Attention heads.
        windows: The windows.
        masks: Where to register the regions.
        places: int64, for each place the row of its token, or the number of rows where it is padding.
        back: int64, for each row its place.
    """

    def __init__(
        self, attention: nn.Module, heads: int, windows: Windows, masks: RegionMasks, places: Tensor, back: Tensor
    ) -> None:
        super().__init__(attention, heads, windows, masks)
        self.register_buffer("places", places)
        self.register_buffer("back", back)
        self.register_buffer("padding", torch.zeros(1, self.proj.weight.shape[0]))

    def forward(self, rows: Tensor) -> Tensor:
        """Map tokens (rows, width) to the same shape."""
        qkv = self.qkv(torch.cat([rows, self.padding]))  # type: ignore[list-item]
        attended = self.attend(qkv.index_select(0, self.places))  # type: ignore[arg-type]
        return self.proj(attended.index_select(0, self.back))  # type: ignore[no-any-return, arg-type]


class StaticBlock(nn.Module):
    """A residual block of attention and MLP on rows of tokens.

    Args:
        block: What to take norms and MLP from: `norm1`, `norm2`, `mlp.linear1`, `mlp.linear2`.
        attention: Its attention, rewritten.
    """

    def __init__(self, block: nn.Module, attention: StaticAttention) -> None:
        super().__init__()
        self.attention = attention
        self.norm1, self.norm2 = block.norm1, block.norm2
        self.linear1 = Dense(block.mlp.linear1.weight, block.mlp.linear1.bias)
        self.linear2 = Dense(block.mlp.linear2.weight, block.mlp.linear2.bias)

    def forward(self, rows: Tensor) -> Tensor:
        """Map tokens (rows, width) to the same shape."""
        rows = rows + self.attention(self.norm1(rows))
        hidden = nn.functional.gelu(self.linear1(self.norm2(rows)))
        return rows + self.linear2(hidden)  # type: ignore[no-any-return]
