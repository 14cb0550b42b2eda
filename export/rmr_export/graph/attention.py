"""Window attention and blocks in the form that engines like: exact, static, and with nothing left to compute twice.

Three rewrites, each exact. The scale is folded into the weights of q. The bias of k is dropped: it adds the same
number to every score of a query, and softmax does not see that. The bias of v is moved behind the attention, into the
bias of `proj`: the probabilities of a query add up to one. What is left of a padded token is a zero row for k and v
and a score that is only its position bias, so a row of zeros may stand for padding.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from rmr_training.models.swin import MASKED

from .weights import BlockWeights
from .windows import IntArray, Windows


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


class Reorder(nn.Module):
    """Put rows into another order, or repeat them: one Gather.

    Args:
        source: int64, for each row of the result the row it comes from.
    """

    source: Tensor

    def __init__(self, source: IntArray) -> None:
        super().__init__()
        self.register_buffer("source", torch.from_numpy(source.copy()))

    def forward(self, rows: Tensor) -> Tensor:
        """Map (rows, width) to (rows of the result, width)."""
        return rows.index_select(0, self.source)


class RegionMasks:
    """The masks of shifted windows, made from small tables of region numbers that are inputs of the graph.

    An engine that sees the numbers as constants unfolds them into masks of up to hundreds of megabytes. TensorRT does
    not where they are an input, and its fused attention takes the mask as it is computed. Blocks of the same windows
    share a table and its mask.

    Attributes:
        tables: int32 (windows, places) each.
    """

    def __init__(self) -> None:
        self.tables: list[Tensor] = []
        self._inputs: tuple[Tensor, ...] = ()
        self._masks: dict[int, Tensor] = {}

    def register(self, windows: Windows) -> int | None:
        """Keep the table of a block's windows and return its number, or None where nothing is masked."""
        if not windows.masked:
            return None
        table = torch.from_numpy(windows.regions).to(torch.int32)
        for number, known in enumerate(self.tables):
            if torch.equal(known, table):
                return number
        self.tables.append(table)
        return len(self.tables) - 1

    def bind(self, tables: tuple[Tensor, ...]) -> None:
        """Make masks from these tensors, the inputs of a graph, until the next call."""
        self._inputs, self._masks = tables, {}

    def mask(self, number: int) -> Tensor:
        """Return what to add to scores: (windows, 1, places, places), 0 within a region and -100 across."""
        if number not in self._masks:
            table = self._inputs[number]
            same = table[:, None, :, None] == table[:, None, None, :]
            self._masks[number] = torch.where(same, torch.zeros(()), torch.full((), MASKED))
        return self._masks[number]


class StaticAttention(nn.Module):
    """Attention within the windows of one block.

    Args:
        weights: The block.
        windows: Its windows.
        masks: Where to register the regions.
    """

    def __init__(self, weights: BlockWeights, windows: Windows, masks: RegionMasks) -> None:
        super().__init__()
        self.heads = weights.heads
        self.windows, self.places = windows.slots.shape
        self.masks, self.regions = masks, masks.register(windows)
        width = weights.proj.in_features
        scale = torch.ones(3 * width)
        scale[:width] = (width // weights.heads) ** -0.5
        bias = torch.zeros(3 * width)
        bias[:width] = weights.qkv.bias.detach()[:width]
        self.qkv = Dense(weights.qkv.weight * scale[:, None], bias * scale)
        proj = weights.proj
        # In float64: the order of a float32 product is the processor's own, and graphs would differ in their last bits.
        folded = proj.bias.double() + proj.weight.double() @ weights.qkv.bias[2 * width :].double()
        self.proj = Dense(proj.weight, folded.float())
        self.position_bias = nn.Parameter(weights.position_bias(self.places).contiguous())

    def attend(self, qkv: Tensor) -> Tensor:
        """Map q, k, v of each place (windows * places, 3 * width) to (windows * places, width)."""
        width = qkv.shape[1] // 3
        # One Transpose and one Split along the heads: TensorRT does both in one kernel, and the bias in the product's.
        parts = qkv.reshape(self.windows, self.places, 3 * self.heads, width // self.heads).permute(0, 2, 1, 3)
        q, k, v = parts.split(self.heads, 1)
        scores = q @ k.transpose(2, 3) + self.position_bias
        if self.regions is not None:
            scores = scores + self.masks.mask(self.regions)
        return (scores.softmax(3) @ v).permute(0, 2, 1, 3).reshape(-1, width)

    def forward(self, rows: Tensor) -> Tensor:
        """Map tokens in the order of their places (windows * places, width) to the same shape."""
        return self.proj(self.attend(self.qkv(rows)))  # type: ignore[no-any-return]


class PaddedAttention(StaticAttention):
    """Attention within windows of which some places are padding; tokens come and go without it.

    Args:
        weights: The block.
        windows: Its windows.
        masks: Where to register the regions.
        places: For each place the row of its token, or the number of rows where it is padding.
        back: For each row its place.
    """

    padding: Tensor

    def __init__(
        self, weights: BlockWeights, windows: Windows, masks: RegionMasks, places: IntArray, back: IntArray
    ) -> None:
        super().__init__(weights, windows, masks)
        self.expand, self.collect = Reorder(places), Reorder(back)
        self.register_buffer("padding", torch.zeros(1, weights.proj.in_features))

    def forward(self, rows: Tensor) -> Tensor:
        """Map tokens (rows, width) to the same shape."""
        qkv = self.expand(self.qkv(torch.cat([rows, self.padding])))
        return self.proj(self.collect(self.attend(qkv)))  # type: ignore[no-any-return]


class StaticBlock(nn.Module):
    """A residual block of attention and MLP on rows of tokens.

    Args:
        weights: The block.
        attention: Its attention, rewritten.
    """

    def __init__(self, weights: BlockWeights, attention: StaticAttention) -> None:
        super().__init__()
        self.attention = attention
        self.norm1, self.norm2 = weights.norm1, weights.norm2
        self.linear1 = Dense(weights.linear1.weight, weights.linear1.bias)
        self.linear2 = Dense(weights.linear2.weight, weights.linear2.bias)

    def forward(self, rows: Tensor) -> Tensor:
        """Map tokens (rows, width) to the same shape."""
        rows = rows + self.attention(self.norm1(rows))
        return rows + self.linear2(nn.functional.gelu(self.linear1(self.norm2(rows))))  # type: ignore[no-any-return]
