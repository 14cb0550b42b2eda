"""Foreground: which voxels are worth the engine's time. Owns the search; what counts is set by intensity maps."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from rmr_sdk import _C
from rmr_sdk.tiles import AnyArray, Corner
from rmr_sdk.volume import to_kernel_dtype


class Foreground:
    """Where any of some volumes on one grid is above its threshold.

    One pass over each volume notes, per block of 8 x 8 x 8 voxels, the bounding box of the voxels above the threshold;
    the box and the test for a tile are answered from these, and voxels are looked at again only where a tile's border
    cuts a block.

    Args:
        sources: Volumes of equal shape, any strides and real type.
        thresholds: One per volume, in its own units; a voxel counts when it is above. NaN never is.
        threads: Threads to search with; the answer does not depend on them.
    """

    block = 8

    def __init__(self, sources: Sequence[AnyArray], thresholds: Sequence[float], threads: int = 1) -> None:
        self._sources = [to_kernel_dtype(source) for source in sources]
        self._thresholds = list(thresholds)
        bounds = [
            self._search(source, bar, threads) for source, bar in zip(self._sources, self._thresholds, strict=True)
        ]
        self._occupied = np.logical_or.reduce([each[..., 3] > 0 for each in bounds])
        found = np.concatenate([each[each[..., 3] > 0] for each in bounds])
        empty = found.size == 0
        self.low: Corner = _corner(np.zeros(3) if empty else found[:, :3].min(axis=0))
        self.high: Corner = _corner(np.zeros(3) if empty else found[:, 3:].max(axis=0))

    def _bounds_shape(self, shape: Sequence[int]) -> tuple[int, ...]:
        return (*(-(-extent // self.block) for extent in shape), 6)

    def _search(self, source: AnyArray, threshold: float, threads: int) -> npt.NDArray[np.int32]:
        bounds = np.empty(self._bounds_shape(source.shape), np.int32)
        _C.occupancy(source, bounds, threshold=threshold, block=self.block, threads=threads)
        return bounds

    @property
    def empty(self) -> bool:
        """Tell whether no voxel is foreground; `low` and `high` are zero then."""
        return self.high[0] == 0

    def holds(self, low: Corner, high: Corner) -> bool:
        """Tell whether the box from `low` to `high` (exclusive), within the volume, holds a foreground voxel."""
        touched = tuple(slice(a // self.block, -(-b // self.block)) for a, b in zip(low, high, strict=True))
        if not self._occupied[touched].any():
            return False
        within = tuple(slice(-(-a // self.block), max(b // self.block, 0)) for a, b in zip(low, high, strict=True))
        if self._occupied[within].any():
            return True
        return any(
            _C.any_above(source, threshold=bar, low=low, high=high)
            for source, bar in zip(self._sources, self._thresholds, strict=True)
        )


def _corner(values: npt.NDArray[Any]) -> Corner:
    return int(values[0]), int(values[1]), int(values[2])
