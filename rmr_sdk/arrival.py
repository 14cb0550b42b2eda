"""Slices as they come: which are there, and which tiles they complete.

One thread adds slices, another waits for them; nothing here computes.
"""

from __future__ import annotations

import operator
import threading
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import numpy.typing as npt

from rmr_sdk import _C
from rmr_sdk.errors import Cancelled, StudyError
from rmr_sdk.preprocess import Prepared
from rmr_sdk.tiles import Tile, TilePlan


class Slices:
    """The slices of some volumes, filled in as they come.

    Args:
        volumes: Contrast -> the array that its slices go into.
        axis: Array axis along which slices come.
    """

    def __init__(self, volumes: Mapping[str, npt.NDArray[Any]], axis: int) -> None:
        self._planes = {name: np.moveaxis(volume, axis, 0) for name, volume in volumes.items()}
        self._there = {name: np.zeros(len(planes), np.bool_) for name, planes in self._planes.items()}
        self._dark = set(volumes)
        self._changed = threading.Condition()
        self.abandoned = False

    def add(self, contrast: str, index: int, plane: npt.ArrayLike) -> None:
        """Take one slice.

        Raises:
            StudyError: As `rmr_sdk.streaming.StudyStream.add`.
        """
        planes = self._planes.get(contrast)
        if planes is None:
            raise StudyError(f'contrast "{contrast}" is not arriving.', f"Add slices of {', '.join(self._planes)}.")
        number = operator.index(index)
        if not 0 <= number < len(planes):
            raise StudyError(f"there is no slice {number}.", f"Count slices from 0 to {len(planes) - 1}.", slice=number)
        if self._there[contrast][number]:
            raise StudyError(f'slice {number} of "{contrast}" is there already.', "Add each slice once.", slice=number)
        planes[number] = _checked(np.asarray(plane), planes[number], number)
        with self._changed:
            self._there[contrast][number] = True
            if contrast in self._dark and bool((planes[number] > 0).any()):
                self._dark.remove(contrast)
            self._changed.notify_all()

    @property
    def missing(self) -> int:
        """Return how many slices have not come yet."""
        return sum(int(there.size - there.sum()) for there in self._there.values())

    def require_all(self) -> None:
        """Refuse to end before the last slice.

        Raises:
            StudyError: Slices are missing.
        """
        for contrast, there in self._there.items():
            if not there.all():
                raise StudyError(
                    f'{there.size - int(there.sum())} slices of "{contrast}" are missing, the first of them '
                    f"slice {int(np.argmin(there))}.",
                    "Add them before finish.",
                    contrast=contrast,
                )

    def abandon(self) -> None:
        """Wake whoever waits, for nobody wants the result any more."""
        with self._changed:
            self.abandoned = True
            self._changed.notify_all()

    def wait_settled(self, part: float) -> float:
        """Wait for a part of each contrast's slices, and for a voxel above 0 or the last slice of each.

        Returns:
            The part that is there.

        Raises:
            Cancelled: The stream was abandoned.
        """
        self._wait(lambda: self._part >= part and all(self._there[name].all() for name in self._dark))
        return self._part

    @property
    def _part(self) -> float:
        return min(float(there.mean()) for there in self._there.values())

    @property
    def ascending(self) -> bool:
        """Tell whether the slices with low numbers came first."""
        centres = [float(np.flatnonzero(there).mean()) / there.size for there in self._there.values() if there.any()]
        return not centres or float(np.mean(centres)) <= 0.5

    def follow(self, prepared: Prepared, plan: TilePlan, axis: int) -> Following:
        """Return when each tile of a plan can be computed."""
        common = prepared.axes.order.index(axis)
        return Following(self, prepared, plan, common, prepared.axes.flips[common])

    def have(self, low: int, high: int) -> bool:
        """Tell whether slices `low` to `high` (exclusive) of every contrast are there."""
        return all(bool(there[low:high].all()) for there in self._there.values())

    def wait_for(self, low: int, high: int) -> None:
        """Return once they are.

        Raises:
            Cancelled: The stream was abandoned.
        """
        self._wait(lambda: self.have(low, high))

    def _wait(self, condition: Any) -> None:
        with self._changed:
            self._changed.wait_for(lambda: self.abandoned or condition())
        if self.abandoned:
            raise Cancelled("the stream was closed before its last slice.")


@dataclass(slots=True, eq=False)
class Following:
    """The tiles of a plan, as their slices come; see `rmr_sdk.inference.Arrival`."""

    slices: Slices
    prepared: Prepared
    plan: TilePlan
    axis: int
    flipped: bool
    empty: int = 0

    def ready(self, index: int) -> bool:
        """Tell whether all slices of a tile are there."""
        return self.slices.have(*self._needs(index))

    def wait(self, index: int) -> None:
        """Return once they are."""
        self.slices.wait_for(*self._needs(index))

    def holds(self, index: int) -> bool:
        """Tell whether a tile holds foreground, and count those that do not."""
        tile, prepared = self.plan.tiles[index], self.prepared
        found = any(
            _C.any_above(array, threshold=prepared.intensity[name].floor, low=tile.low, high=tile.high)
            for name, array in prepared.arrays.items()
        )
        self.empty += not found
        return found

    def computed_plan(self) -> TilePlan:
        """Return the plan without the tiles that held no foreground, as far as they were counted."""
        return replace(self.plan, tiles=self.plan.tiles[self.empty :], skipped=self.plan.skipped + self.empty)

    def _needs(self, index: int) -> tuple[int, int]:
        """Return the first slice that a tile is cut from, and the end, counted as they come."""
        length = self.plan.shape[self.axis]
        origin = self.plan.tiles[index].origin[self.axis]
        low, high = max(origin, 0), min(origin + self.plan.tile_shape[self.axis], length)
        return (length - high, length - low) if self.flipped else (low, high)


def order_by_arrival(plan: TilePlan, axis: int, ascending: bool) -> tuple[Tile, ...]:
    """Return a plan's tiles in the order in which slices along an axis of the volume complete them."""
    size = plan.tile_shape[axis]
    return tuple(sorted(plan.tiles, key=lambda tile: tile.origin[axis] + size if ascending else -tile.origin[axis]))


def _checked(plane: npt.NDArray[Any], into: npt.NDArray[Any], number: int) -> npt.NDArray[Any]:
    """Return the voxels of a slice in the volume's type.

    Raises:
        StudyError: They do not fit.
    """
    if plane.shape != into.shape or plane.dtype.kind not in "biuf":
        raise StudyError(
            f"slice {number} is {plane.dtype} of shape {plane.shape}, and real numbers of {into.shape} are expected.",
            "Pass the voxels of one slice, without its axis.",
            slice=number,
        )
    with np.errstate(invalid="ignore", over="ignore"):
        stored = plane.astype(into.dtype)
        faithful = bool((stored == plane).all()) if into.dtype.kind in "iu" else bool(np.isfinite(stored).all())
    if not faithful:
        raise StudyError(
            f"slice {number} holds values that are not finite or that {into.dtype} cannot hold.",
            "Pass another dtype to Pipeline.stream, or correct the slice.",
            slice=number,
        )
    return stored
