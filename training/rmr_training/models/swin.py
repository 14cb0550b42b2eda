"""Window attention blocks on 3-D token grids: the transformer part of the encoder.

Owns the arithmetic that the published checkpoints were trained with: normalise, zero-pad the far ends to whole windows,
roll, partition, attend, and all of it back. Padded tokens carry only the bias of `qkv` and take part unmasked, unless
`mask_padding` keeps them apart.

Source: Hatamizadeh et al., Swin UNETR (2022), as used by Zhang et al., AAAI 38(7):7087-7095 (2024).
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache

import torch
import torch.nn.functional as F
from torch import Tensor, nn

MASKED = -100.0
"""Added to the score of two tokens of different regions."""

Triple = tuple[int, int, int]


def window_and_shift(grid: Sequence[int], window: int, shifted: bool) -> tuple[Triple, Triple]:
    """Fit window and shift to a token grid.

    Where an axis is not longer than the window, the window is the whole axis and is not shifted.

    Args:
        grid: Tokens along (D, H, W).
        window: Nominal window side in tokens.
        shifted: Whether the block is a shifted one.

    Returns:
        Window sides and shifts along (D, H, W).
    """
    sides = tuple(min(window, length) for length in grid)
    shifts = tuple(window // 2 if shifted and length > window else 0 for length in grid)
    return (sides[0], sides[1], sides[2]), (shifts[0], shifts[1], shifts[2])


def padded_grid(grid: Sequence[int], sides: Triple) -> Triple:
    """Round each axis of a token grid up to whole windows."""
    d, h, w = (-(-length // side) * side for length, side in zip(grid, sides, strict=True))
    return d, h, w


PADDING = -1
"""Region of padded tokens where they are kept apart."""


@lru_cache(maxsize=32)
def region_ids(padded: Triple, sides: Triple, shifts: Triple, grid: Triple | None = None) -> Tensor:
    """Number the regions that a cyclic shift brings together in one window.

    Args:
        padded: Token grid (D, H, W) in whole windows.
        sides: Window sides.
        shifts: Shifts; an axis with shift 0 is one region.
        grid: Token grid without padding; what is beyond is a region of its own. None where it takes part as it is.

    Returns:
        int64 (windows, tokens per window); tokens attend to each other where their numbers agree.
    """
    ids = torch.zeros(padded, dtype=torch.int64)
    for axis, (length, side, shift) in enumerate(zip(padded, sides, shifts, strict=True)):
        if shift:
            along = torch.zeros(length, dtype=torch.int64)
            along[length - side : length - shift] = 1
            along[length - shift :] = 2
            shape = [1, 1, 1]
            shape[axis] = length
            ids = ids * 3 + along.view(shape)
    if grid is not None:
        inside = torch.zeros(padded, dtype=torch.bool)
        inside[: grid[0], : grid[1], : grid[2]] = True
        ids[~torch.roll(inside, [-s for s in shifts], (0, 1, 2))] = PADDING
    return partition(ids[None, ..., None], sides)[..., 0]


def partition(x: Tensor, sides: Triple) -> Tensor:
    """Cut (N, D, H, W, C) into windows (N * windows, tokens per window, C)."""
    n, d, h, w, c = x.shape
    sd, sh, sw = sides
    x = x.view(n, d // sd, sd, h // sh, sh, w // sw, sw, c)
    return x.permute(0, 1, 3, 5, 2, 4, 6, 7).reshape(-1, sd * sh * sw, c)


def departition(windows: Tensor, sides: Triple, shape: Sequence[int]) -> Tensor:
    """Put windows back together to (N, D, H, W, C); the inverse of `partition`."""
    n, d, h, w = shape[:4]
    sd, sh, sw = sides
    x = windows.view(n, d // sd, h // sh, w // sw, sd, sh, sw, -1)
    return x.permute(0, 1, 4, 2, 5, 3, 6, 7).reshape(n, d, h, w, -1)


def relative_position_index(window: int) -> Tensor:
    """Map each pair of tokens of a full window to its row of the bias table.

    Returns:
        int64 (window^3, window^3); depth varies slowest, both among tokens and among table rows.
    """
    axes = torch.meshgrid(*[torch.arange(window)] * 3, indexing="ij")
    tokens = torch.stack(axes).flatten(1)
    offset = tokens[:, :, None] - tokens[:, None, :] + window - 1
    span = 2 * window - 1
    return offset[0] * span * span + offset[1] * span + offset[2]


class WindowAttention(nn.Module):
    """Multi-head self-attention within windows, with a learned bias per relative position.

    Args:
        width: Channels of a token.
        heads: Attention heads; `width` must be a multiple.
        window: Nominal window side in tokens.
    """

    relative_position_index: Tensor

    def __init__(self, width: int, heads: int, window: int) -> None:
        super().__init__()
        self.heads = heads
        self.scale = (width // heads) ** -0.5
        self.relative_position_bias_table = nn.Parameter(torch.zeros((2 * window - 1) ** 3, heads))
        nn.init.trunc_normal_(self.relative_position_bias_table, std=0.02)
        self.register_buffer("relative_position_index", relative_position_index(window))
        self.qkv = nn.Linear(width, 3 * width)
        self.proj = nn.Linear(width, width)

    def position_bias(self, tokens: int) -> Tensor:
        """Return the bias (heads, tokens, tokens) for windows of that many tokens."""
        index = self.relative_position_index[:tokens, :tokens]
        return self.relative_position_bias_table[index].permute(2, 0, 1)

    def forward(self, windows: Tensor, regions: Tensor | None) -> Tensor:
        """Attend within each window.

        Args:
            windows: (N * windows, tokens, width).
            regions: Region numbers (windows, tokens), or None where all tokens attend to each other.

        Returns:
            Tensor of the shape of `windows`.
        """
        b, n, c = windows.shape
        q, k, v = self.qkv(windows).view(b, n, 3, self.heads, c // self.heads).permute(2, 0, 3, 1, 4)
        bias = self.position_bias(n)[None]
        if regions is not None:
            apart = regions[:, None, :, None] != regions[:, None, None, :]
            bias = bias + apart.to(bias.dtype) * MASKED
            bias = bias.repeat(b // regions.shape[0], 1, 1, 1)
        out = F.scaled_dot_product_attention(q, k, v, attn_mask=bias.to(q.dtype), scale=self.scale)
        return self.proj(out.transpose(1, 2).reshape(b, n, c))  # type: ignore[no-any-return]


class Mlp(nn.Module):
    """Two linear layers with an exact GELU between them."""

    def __init__(self, width: int, ratio: float) -> None:
        super().__init__()
        self.linear1 = nn.Linear(width, int(width * ratio))
        self.linear2 = nn.Linear(int(width * ratio), width)

    def forward(self, x: Tensor) -> Tensor:
        """Map (..., width) to (..., width)."""
        return self.linear2(F.gelu(self.linear1(x)))  # type: ignore[no-any-return]


class SwinBlock(nn.Module):
    """One residual block of window attention and MLP."""

    def __init__(
        self, width: int, heads: int, window: int, shifted: bool, mlp_ratio: float, mask_padding: bool = False
    ) -> None:
        super().__init__()
        self.window, self.shifted, self.mask_padding = window, shifted, mask_padding
        self.norm1 = nn.LayerNorm(width)
        self.attn = WindowAttention(width, heads, window)
        self.norm2 = nn.LayerNorm(width)
        self.mlp = Mlp(width, mlp_ratio)

    def attend(self, x: Tensor) -> Tensor:
        """Normalise, window, attend and put back together tokens (N, D, H, W, C)."""
        n, *grid, c = x.shape
        sides, shifts = window_and_shift(grid, self.window, self.shifted)
        padded = padded_grid(grid, sides)
        x = self.norm1(x)
        if list(padded) != grid:
            far = [padded[axis] - grid[axis] for axis in (2, 1, 0)]
            x = F.pad(x, (0, 0, 0, far[0], 0, far[1], 0, far[2]))
        apart = (grid[0], grid[1], grid[2]) if self.mask_padding and list(padded) != grid else None
        regions = None
        if any(shifts):
            x = torch.roll(x, [-s for s in shifts], (1, 2, 3))
        if any(shifts) or apart:
            regions = region_ids(padded, sides, shifts, apart).to(x.device)
        x = departition(self.attn(partition(x, sides), regions), sides, (n, *padded, c))
        if any(shifts):
            x = torch.roll(x, shifts, (1, 2, 3))
        return x[:, : grid[0], : grid[1], : grid[2]]

    def forward(self, x: Tensor) -> Tensor:
        """Map tokens (N, D, H, W, C) to tokens of the same shape."""
        x = x + self.attend(x)
        return x + self.mlp(self.norm2(x))


class SwinLayer(nn.Module):
    """Blocks in turn unshifted and shifted, at one width and resolution."""

    def __init__(
        self, width: int, depth: int, heads: int, window: int, mlp_ratio: float, mask_padding: bool = False
    ) -> None:
        super().__init__()
        self.blocks = nn.ModuleList(
            SwinBlock(width, heads, window, i % 2 == 1, mlp_ratio, mask_padding) for i in range(depth)
        )

    def forward(self, x: Tensor) -> Tensor:
        """Map tokens (N, D, H, W, C) to tokens of the same shape."""
        for block in self.blocks:
            x = block(x)
        return x


class PatchEmbed(nn.Module):
    """Strided convolution from voxels to tokens."""

    def __init__(self, channels: int, width: int, stride: int) -> None:
        super().__init__()
        self.proj = nn.Conv3d(channels, width, stride, stride)

    def forward(self, x: Tensor) -> Tensor:
        """Map (N, C, D, H, W) to (N, width, D / stride, H / stride, W / stride)."""
        return self.proj(x)  # type: ignore[no-any-return]


class SwinTransformer(nn.Module):
    """Patch embedding, two layers of blocks, and a parameter-free norm over channels.

    Args:
        channels: Channels of the input.
        width: Channels of a token, the same throughout.
        stride: Side of a token in voxels of the input.
        depths: Blocks of each layer.
        heads: Attention heads.
        window: Window side in tokens.
        mlp_ratio: Hidden width of the MLP as a multiple of `width`.
        mask_padding: Keep the padded tokens of incomplete windows out of attention.
    """

    def __init__(
        self,
        channels: int,
        width: int,
        stride: int,
        depths: tuple[int, int],
        heads: int,
        window: int,
        mlp_ratio: float,
        mask_padding: bool = False,
    ) -> None:
        super().__init__()
        self.width = width
        self.patch_embed = PatchEmbed(channels, width, stride)
        self.layers1 = nn.ModuleList([SwinLayer(width, depths[0], heads, window, mlp_ratio, mask_padding)])
        self.layers2 = nn.ModuleList([SwinLayer(width, depths[1], heads, window, mlp_ratio, mask_padding)])

    def forward(self, x: Tensor) -> Tensor:
        """Map (N, C, D, H, W) to (N, width, D / stride, H / stride, W / stride)."""
        x = self.patch_embed(x).permute(0, 2, 3, 4, 1)
        x = self.layers2[0](self.layers1[0](x))
        return F.layer_norm(x, (self.width,)).permute(0, 4, 1, 2, 3)
