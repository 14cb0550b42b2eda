"""Blending on a device: the same schedule of rows as on the host, in memory of the device.

What a tile needs beside its predictions, its windows, goes up once for all tiles; see blend.py for how rows open and
close.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from rmr_sdk.blend import BlendOptions, BlendOutputs, ring_channels, schedule_rows
from rmr_sdk.cuda.base import DeviceArray
from rmr_sdk.device_kernels import DeviceBlendTarget, DeviceKernels
from rmr_sdk.device_memory import DeviceView, Workspace
from rmr_sdk.inference import not_finite
from rmr_sdk.manifest import Manifest
from rmr_sdk.tiles import Corner, FloatArray, TilePlan

_WORD = 4  # voxels that the kernels add up at a time where rows of the ring are padded to a multiple of it
_CHECKED = ("fused", "probability")  # in the order of the kernel's `flaws`


@dataclass(frozen=True, slots=True, eq=False)
class DeviceOutputs:
    """What blending fills in on a device; None where not wanted. Shapes and types as `rmr_sdk.blend.BlendOutputs`."""

    labels: DeviceArray | None
    probability: DeviceArray | None
    fused: DeviceArray | None


class DeviceBlender:
    """Adds predictions tile by tile, in the plan's order, into outputs on a device.

    Args:
        plan: The tiles.
        options: Classes and intensities.
        outputs: Written in full once the last tile is in.
        kernels: The kernels.
        space: Takes the memory and the work.

    Raises:
        DeviceMemoryError: There is not enough memory.
    """

    def __init__(
        self, plan: TilePlan, options: BlendOptions, outputs: DeviceOutputs, kernels: DeviceKernels, space: Workspace
    ) -> None:
        self._plan, self._space = plan, space
        schedule = schedule_rows(plan)
        rows = DeviceView.of(space.put(np.stack([schedule.slot, schedule.first, schedule.last])))
        channels = ring_channels(options.classes, options.chosen_class, options.complement)
        width = -(-(plan.shape[2] + _WORD - 1) // _WORD) * _WORD
        ring = space.take((max(schedule.slots, 1), channels, width), np.float32) if channels else None
        self._windows = _put_windows(plan, space)
        self._flaws = space.put(np.zeros((max(len(plan.tiles), 1), 2), np.int32))
        self._flaw_of = DeviceView.of(self._flaws).part
        self._target: DeviceBlendTarget = kernels.BlendTarget(
            *(rows.part(index) for index in range(3)),
            ring,
            outputs.labels,
            outputs.probability,
            outputs.fused,
            shape=plan.shape,
            classes=options.classes,
            chosen_class=-1 if options.chosen_class is None else options.chosen_class,
            complement=options.complement and options.classes > 0,
            gain=options.gain,
            bias=options.bias,
        )
        self._target.clear(stream=space.stream.handle)

    def add(self, index: int, predictions: Mapping[str, DeviceView]) -> None:
        """Queue the addition of one tile and the finishing of rows that no later tile covers.

        Args:
            index: Of the tile in the plan; tiles come in order, each once.
            predictions: "fused" (D, H, W) and, where there are classes, "probability" (classes, D, H, W).
        """
        tile = self._plan.tiles[index]
        self._target.blend(
            predictions.get("probability"),
            predictions["fused"],
            *self._windows[index],
            tile=index,
            origin=tile.origin,
            low=tile.low,
            high=tile.high,
            flaws=self._flaw_of(index),
            stream=self._space.stream.handle,
        )

    def check_finite(self) -> None:
        """Wait for all tiles, and refuse predictions that are not finite: see `rmr_sdk.inference.check_finite`.

        Raises:
            EngineError: One that was blended is not.
            DeviceError: The device failed on a tile.
        """
        found = np.empty(self._flaws.shape, np.int32)
        self._space.device.download(self._flaws, found, self._space.stream)
        self._space.stream.synchronize()
        for index, which in np.argwhere(found).tolist():
            raise not_finite(_CHECKED[which], index)


def allocate_outputs(space: Workspace, shape: Corner, manifest: Manifest) -> tuple[DeviceOutputs, BlendOutputs]:
    """Take what a manifest's network gives on a device, and where it goes on the host."""

    def take(kind: npt.DTypeLike, wanted: bool) -> tuple[DeviceArray, npt.NDArray[Any]] | tuple[None, None]:
        return space.take_for_host(shape, kind) if wanted else (None, None)

    labels = take(np.uint8, manifest.classes is not None)
    probability = take(np.float32, manifest.lesion_class is not None)
    fused = take(np.float32, True)
    return DeviceOutputs(labels[0], probability[0], fused[0]), BlendOutputs(labels[1], probability[1], fused[1])


def _put_windows(plan: TilePlan, space: Workspace) -> list[tuple[DeviceView, ...]]:
    """Bring the windows of all tiles to the device, those that tiles share once."""
    places: dict[int, int] = {}
    windows: list[FloatArray] = []
    length = 0
    for tile in plan.tiles:
        for window in tile.windows:
            if id(window) not in places:
                places[id(window)] = length
                windows.append(window)
                length += window.size
    if not windows:
        return []
    stored = DeviceView.of(space.put(np.concatenate(windows)))
    return [tuple(stored.stretch(places[id(each)], each.size) for each in tile.windows) for tile in plan.tiles]
