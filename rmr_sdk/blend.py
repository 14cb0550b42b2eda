"""Blending: tiles in, finished labels, probability and fused image out, with memory for the rows in flight only.

A row is one (axis 0, axis 1) line of the volume. It opens with the first tile that covers it and closes with the last
one: then the class with the greatest score becomes its label and its memory goes to the next row that opens.

             axis 1 ->
    axis 0   closed   closed   closed   |        tile t covers these rows: adds its share,
      |      closed   closed   [ tile t ]        closes those that no later tile covers
      v      closed   open     [        ]
             open     open     [        ]
                      not yet opened

The fused image and the probability of one chosen class add up in the outputs themselves, and class 0 need not be
added up at all (`complement`), so of five classes only three take memory here. The arithmetic is native
(csrc/ops/blend.h, close.h); this module owns the schedule and checks the order of tiles.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt

from rmr_sdk import _C
from rmr_sdk.errors import ConfigError
from rmr_sdk.tiles import Corner, FloatArray, TilePlan

LabelArray: TypeAlias = npt.NDArray[np.uint8]
PredictionArray: TypeAlias = npt.NDArray[np.float32] | npt.NDArray[np.float16]
_RowArray: TypeAlias = npt.NDArray[np.int32]


@dataclass(frozen=True, slots=True, eq=False)
class BlendOutputs:
    """What blending fills in: C-contiguous arrays of the volume's shape, None where not wanted.

    Attributes:
        labels: The class with the greatest score.
        probability: The probability of the chosen class.
        fused: The fused image in the reference's units.
    """

    labels: LabelArray | None
    probability: FloatArray | None
    fused: FloatArray | None

    @classmethod
    def allocate(cls, shape: Corner, labels: bool = True, probability: bool = True, fused: bool = True) -> BlendOutputs:
        """Return outputs with undefined content; a Blender writes every voxel."""
        return cls(
            np.empty(shape, np.uint8) if labels else None,
            np.empty(shape, np.float32) if probability else None,
            np.empty(shape, np.float32) if fused else None,
        )

    @property
    def nbytes(self) -> int:
        """Return the bytes of all arrays."""
        return sum(array.nbytes for array in (self.labels, self.probability, self.fused) if array is not None)


@dataclass(frozen=True, slots=True)
class BlendOptions:
    """What is blended; see `Blender` for each."""

    classes: int = 0
    chosen_class: int | None = None
    complement: bool = True
    gain: float = 1.0
    bias: float = 0.0


@dataclass(frozen=True, slots=True, eq=False)
class RowSchedule:
    """Which tile opens and closes each row, and where in the ring the row adds up in between.

    Attributes:
        slot: (D, H) place in the ring, -1 for rows that no tile covers.
        first: (D, H) tile that opens the row, -1 for none.
        last: (D, H) tile that closes it, -1 for none.
        slots: Length of the ring: the greatest number of rows that are open at once.
    """

    slot: _RowArray
    first: _RowArray
    last: _RowArray
    slots: int


def schedule_rows(plan: TilePlan) -> RowSchedule:
    """Give every row the tiles that open and close it and a place in the ring, reusing places as rows close."""
    first, last, slot = (np.full(plan.shape[:2], -1, np.int32) for _ in range(3))
    areas = [(slice(tile.low[0], tile.high[0]), slice(tile.low[1], tile.high[1])) for tile in plan.tiles]
    for index, area in enumerate(areas):
        last[area] = index
    for index, area in reversed(list(enumerate(areas))):
        first[area] = index

    free = np.empty(0, np.int32)  # places of closed rows
    slots = 0
    for index, area in enumerate(areas):
        opening = first[area] == index
        count = int(opening.sum())
        fresh = np.arange(slots, slots + max(0, count - free.size), dtype=np.int32)
        slots += fresh.size
        reused = free[: count - fresh.size]
        free = free[reused.size :]
        slot[area][opening] = np.concatenate([reused, fresh])
        free = np.sort(np.concatenate([free, slot[area][last[area] == index]]))
    return RowSchedule(slot, first, last, slots)


class Blender:
    """Adds predictions tile by tile, in the plan's order, into outputs that the caller owns.

    Every voxel of the outputs is written. Voxels that no tile covers are class 0 with probability 0 and fused value
    `bias`; where tiles were skipped, their share counts as certain class 0 when `complement` is set.

    Args:
        plan: The tiles.
        outputs: What to fill in; labels are wanted exactly when there are classes, probability exactly when there is a
            chosen class.
        classes: Number of classes predicted, 0 for a fused image only.
        chosen_class: The class whose probability is wanted, or None.
        complement: Predictions are probabilities: class 0 is what the other classes leave of one and is not read.
            Otherwise class 0 adds up like the others, and predictions may be any scores.
        gain: The fused output is prediction * gain + bias.
        bias: See `gain`.
        threads: Threads to share the rows with; the result does not depend on them.
    """

    def __init__(
        self,
        plan: TilePlan,
        outputs: BlendOutputs,
        *,
        classes: int = 0,
        chosen_class: int | None = None,
        complement: bool = True,
        gain: float = 1.0,
        bias: float = 0.0,
        threads: int = 1,
    ) -> None:
        self.outputs = outputs
        self._plan = plan
        self._threads = threads
        self._classes = classes
        self._due = 0
        schedule = schedule_rows(plan)
        channels = ring_channels(classes, chosen_class, complement)
        ring = np.empty((schedule.slots, channels, plan.shape[2]), np.float32) if channels > 0 else None
        self.memory_bytes = blend_memory_bytes(schedule, plan.shape, channels)
        self._target = _C.BlendTarget(
            schedule.slot,
            schedule.first,
            schedule.last,
            ring,
            outputs.labels,
            outputs.probability,
            outputs.fused,
            shape=plan.shape,
            classes=classes,
            chosen_class=-1 if chosen_class is None else chosen_class,
            complement=complement and classes > 0,
            gain=gain,
            bias=bias,
        )
        self._plane_last = np.maximum.accumulate(schedule.last.max(axis=1))
        _fill_uncovered(outputs, schedule.first < 0, bias)

    def add(
        self, index: int, fused: npt.NDArray[Any] | None = None, probability: npt.NDArray[Any] | None = None
    ) -> None:
        """Add the predictions of one tile, and finish the rows that no later tile covers.

        Args:
            index: Of the tile in the plan; tiles come in order, each once.
            fused: (..., D, H, W), the tile's shape after leading axes of length one; float32 or float16, contiguous
                along W. Given exactly when a fused output is wanted.
            probability: (..., classes, D, H, W), of the same type. Given exactly when there are classes.

        Raises:
            ConfigError: Another tile is due.
        """
        if index != self._due or index >= len(self._plan.tiles):
            raise ConfigError(
                f"tile {index} was added where tile {self._due} of {len(self._plan.tiles)} is due.",
                "Add the tiles of the plan in order, each once.",
                due=self._due,
            )
        tile = self._plan.tiles[index]
        self._target.blend(
            None if probability is None else probability.reshape(probability.shape[-4:]),
            None if fused is None else fused.reshape(fused.shape[-3:]),
            *tile.windows,
            tile=index,
            origin=tile.origin,
            low=tile.low,
            high=tile.high,
            threads=self._threads,
        )
        self._due += 1

    def background(self) -> dict[str, FloatArray]:
        """Return predictions of a tile that went through no engine: fused value `bias`, certain class 0."""
        predictions: dict[str, FloatArray] = {"fused": np.zeros(self._plan.tile_shape, np.float32)}
        if self._classes:
            predictions["probability"] = np.zeros((self._classes, *self._plan.tile_shape), np.float32)
            predictions["probability"][0] = 1.0
        return predictions

    @property
    def finished_planes(self) -> int:
        """Return how many leading planes of the outputs are final."""
        return int(np.searchsorted(self._plane_last, self._due, side="left"))

    def finish(self) -> BlendOutputs:
        """Return the outputs, all voxels final.

        Raises:
            ConfigError: Tiles are missing.
        """
        if self._due != len(self._plan.tiles):
            raise ConfigError(
                f"only {self._due} of {len(self._plan.tiles)} tiles were added.", "Add every tile of the plan first."
            )
        return self.outputs


def ring_channels(classes: int, chosen_class: int | None, complement: bool) -> int:
    """Return how many classes add up in the ring: not the chosen one, nor class 0 under `complement`."""
    return max(0, classes - int(complement) - int(chosen_class is not None))


def blend_memory_bytes(schedule: RowSchedule, shape: Corner, channels: int) -> int:
    """Return the bytes that blending takes beyond its outputs: the ring and the schedule."""
    return 4 * (schedule.slots * channels * shape[2] + 3 * shape[0] * shape[1])


def _fill_uncovered(outputs: BlendOutputs, rows: npt.NDArray[np.bool_], bias: float) -> None:
    if not rows.any():
        return
    for array, value in ((outputs.labels, 0), (outputs.probability, 0.0), (outputs.fused, bias)):
        if array is not None:
            array[rows] = value
