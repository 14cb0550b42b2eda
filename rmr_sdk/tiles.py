r"""Tiles: which boxes of a volume the engine sees, and the share that each of them has in every voxel.

    volume      +---------------------------+        axis 0 is cut first, so tiles come in slabs (z order)
    foreground  |   +-------------------+   |
    tiles       |   [---0---]           |   |        consecutive tiles overlap by at least `overlap`
                |   |    [---1---]      |   |
                |   |          [---2---]|   |
    shares      |   |~~~~~\/~~~\/~~~~~~~|   |        add up to one at every voxel of the box

It owns tile positions, blending windows, the search for foreground and the cutting of tiles. It does not run networks
and does not blend (blend.py).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Protocol, TypeAlias

import numpy as np
import numpy.typing as npt

from rmr_sdk import _C
from rmr_sdk.errors import ConfigError

FloatArray: TypeAlias = npt.NDArray[np.float32]
AnyArray: TypeAlias = npt.NDArray[Any]
Corner: TypeAlias = tuple[int, int, int]

_MAX_OVERLAP = 0.9


class Intensity(Protocol):
    """What `extract_tile` needs of an intensity map: y = clip((x - offset) * scale, low, high)."""

    @property
    def scale(self) -> float:
        """Factor to normalised units."""

    @property
    def offset(self) -> float:
        """Raw intensity that becomes zero."""

    @property
    def low(self) -> float:
        """Smallest normalised value."""

    @property
    def high(self) -> float:
        """Greatest normalised value."""


@dataclass(frozen=True, slots=True, eq=False)
class Tile:
    """One box of the volume that goes through the engine.

    Attributes:
        origin: First voxel in the volume; may lie outside it, where the tile is padded with zeros.
        low: First voxel of the volume that the tile contributes to.
        high: One past the last.
        windows: The tile's share per axis, float32, each as long as the tile; a voxel's share is the product.
    """

    origin: Corner
    low: Corner
    high: Corner
    windows: tuple[FloatArray, FloatArray, FloatArray]


@dataclass(frozen=True, slots=True, eq=False)
class TilePlan:
    """The tiles that cover a box of a volume, in z order, then along axis 1, then along axis 2.

    Attributes:
        shape: The volume.
        tile_shape: One tile.
        tiles: What goes through the engine.
        skipped: How many tiles were left out because they hold no foreground.
    """

    shape: Corner
    tile_shape: Corner
    tiles: tuple[Tile, ...]
    skipped: int


def check_overlap(overlap: float) -> None:
    """Refuse an overlap that tiles cannot have.

    Raises:
        ConfigError: It is not a number from 0 to 0.9.
    """
    if not 0.0 <= overlap <= _MAX_OVERLAP:
        raise ConfigError(
            f"overlap {overlap} is out of range.", f"Give a number from 0 to {_MAX_OVERLAP}.", overlap=overlap
        )


def tile_starts(extent: int, size: int, overlap: float) -> list[int]:
    """Return the first voxel of each tile along one axis.

    Args:
        extent: Axis length in voxels.
        size: Tile length in voxels.
        overlap: Least part of a tile that it shares with the next, 0 to 0.9.

    Returns:
        Starts, ascending, as evenly spread as whole voxels allow; the first tile begins at 0 and the last one ends at
        `extent`. An axis shorter than a tile gets one centred tile with a start of zero or less.

    Raises:
        ConfigError: A length is not positive, or the overlap is out of range.
    """
    if extent < 1 or size < 1:
        raise ConfigError(
            f"a tile of {size} voxels on an axis of {extent} voxels makes no sense.",
            "Give positive lengths.",
            extent=extent,
            size=size,
        )
    check_overlap(overlap)
    room = extent - size
    if room <= 0:
        return [room // 2]
    step = max(1, math.floor(size * (1.0 - overlap) + 1e-9))
    count = -(-room // step)
    return [i * room // count for i in range(count + 1)]


def axis_windows(starts: Sequence[int], size: int, extent: int, sigma_scale: float = 0.125) -> list[FloatArray]:
    """Give each tile along one axis its share of every voxel it covers.

    The shares of all tiles at a voxel add up to one, so blending needs no count map: the weight of a 3-D tile is the
    product of its three shares.

    Args:
        starts: First voxel of each tile, ascending.
        size: Tile length in voxels.
        extent: Axis length in voxels; every voxel must be covered. Voxels of a tile beyond the axis have no share.
        sigma_scale: Standard deviation of the Gaussian as a fraction of `size`.

    Returns:
        One float32 array of length `size` per tile.

    Raises:
        ConfigError: A voxel is covered by no tile, or `sigma_scale` is not positive.

    Source: Gaussian importance as in nnU-Net, Isensee et al., Nat. Methods 18 (2021); the split per axis is ours.
    """
    if not 0.0 < sigma_scale < math.inf:
        raise ConfigError(f"sigma_scale {sigma_scale} is not a positive number.", "Give a fraction such as 0.125.")
    profile = -0.5 * ((np.arange(size) - (size - 1) / 2.0) / (sigma_scale * size)) ** 2
    exponents = np.full((len(starts), extent), -np.inf)
    for row, start in zip(exponents, starts, strict=True):
        low, high = max(start, 0), min(start + size, extent)
        row[low:high] = profile[low - start : high - start]
    peak = exponents.max(axis=0, initial=-np.inf)
    if not np.isfinite(peak).all():
        voxel = int(np.flatnonzero(~np.isfinite(peak))[0])
        raise ConfigError(
            f"voxel {voxel} of an axis of {extent} voxels is covered by no tile.",
            "Choose starts that leave no gap.",
            voxel=voxel,
        )
    shares = np.exp(exponents - peak)  # relative to the greatest, so that a narrow Gaussian cannot vanish everywhere
    shares /= shares.sum(axis=0)
    windows = []
    for row, start in zip(shares, starts, strict=True):
        window = np.zeros(size, np.float32)
        low, high = max(start, 0), min(start + size, extent)
        window[low - start : high - start] = row[low:high]
        windows.append(window)
    return windows


def plan_tiles(
    low: Corner,
    high: Corner,
    shape: Corner,
    tile_shape: Corner,
    overlap: float,
    foreground: Callable[[Corner, Corner], bool] | None = None,
    sigma_scale: float = 0.125,
) -> TilePlan:
    """Cover a box of a volume with tiles and leave out those without foreground.

    Where the box is shorter than a tile, the tile is moved into the volume as far as it fits, so that it sees real
    surroundings before it sees padding.

    Args:
        low: First voxel of the box; nothing outside the box is blended.
        high: One past the last.
        shape: The volume.
        tile_shape: One tile.
        overlap: Least part of a tile that it shares with the next, 0 to 0.9.
        foreground: Tells whether a box (low, high) of the volume holds foreground; None keeps every tile.
        sigma_scale: Standard deviation of the Gaussian window as a fraction of the tile.

    Raises:
        ConfigError: The box does not lie in the volume, a length is not positive, or the overlap is out of range.
    """
    if any(not 0 <= begin <= end <= extent for begin, end, extent in zip(low, high, shape, strict=True)):
        raise ConfigError(f"the box {low} to {high} does not lie in a volume of {shape}.", "Clip it to the volume.")
    if low[0] == high[0] or low[1] == high[1] or low[2] == high[2]:
        return TilePlan(shape, tile_shape, (), 0)
    axes = [_plan_axis(*axis, overlap, sigma_scale) for axis in zip(low, high, shape, tile_shape, strict=True)]
    candidates = [_join(d, h, w) for d in axes[0] for h in axes[1] for w in axes[2]]
    tiles = tuple(tile for tile in candidates if foreground is None or foreground(tile.low, tile.high))
    return TilePlan(shape, tile_shape, tiles, len(candidates) - len(tiles))


_AxisTile: TypeAlias = tuple[int, int, int, FloatArray]


def _plan_axis(low: int, high: int, extent: int, size: int, overlap: float, sigma_scale: float) -> list[_AxisTile]:
    """Return (origin, first voxel, end, window) of each tile along one axis."""
    starts = [low + start for start in tile_starts(high - low, size, overlap)]
    if high - low < size:
        starts = [min(max(starts[0], 0), extent - size) if extent >= size else (extent - size) // 2]
    windows = axis_windows([start - low for start in starts], size, high - low, sigma_scale)
    return [
        (start, max(start, low), min(start + size, high), window) for start, window in zip(starts, windows, strict=True)
    ]


def _join(d: _AxisTile, h: _AxisTile, w: _AxisTile) -> Tile:
    return Tile((d[0], h[0], w[0]), (d[1], h[1], w[1]), (d[2], h[2], w[2]), (d[3], h[3], w[3]))


def extract_tile(source: AnyArray, origin: Corner, out: FloatArray, intensity: Intensity, threads: int = 1) -> None:
    """Cut a tile out of a volume and normalise it into `out`; voxels outside the volume are zero.

    Args:
        source: (D, H, W) as `to_kernel_dtype` returns it, any strides.
        origin: First voxel of the tile; may lie outside the volume.
        out: C-contiguous float32, the tile's shape after leading axes of length one; an engine's input buffer.
        intensity: Raw to normalised units.
        threads: Threads to share the rows with; the result does not depend on them.
    """
    _C.extract(
        source,
        out.reshape(out.shape[-3:]),
        origin=origin,
        scale=intensity.scale,
        offset=intensity.offset,
        low=intensity.low,
        high=intensity.high,
        threads=threads,
    )
