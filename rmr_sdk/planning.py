"""What a run will take: its tiles, its memory, its time. Owns the sums; it computes no tile.

bytes while tiles run     copies on the common grid + outputs + blending + (slots + 1) tiles
bytes while results form  copies on the common grid + outputs + results on the reference's own grid
"""

from __future__ import annotations

import math
import threading
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from rmr_sdk.blend import Blender
from rmr_sdk.errors import DeviceMemoryError
from rmr_sdk.manifest import Manifest
from rmr_sdk.preprocess import Prepared
from rmr_sdk.study import Study
from rmr_sdk.tiles import TilePlan

MIB = 1024 * 1024


@dataclass(frozen=True, slots=True)
class RunPlan:
    """What `Pipeline.run` will do with a study, known before it does.

    Attributes:
        tiles: Tiles that go through the network.
        tiles_skipped: Tiles left out because they hold no foreground.
        slots: Tiles in flight at a time, as many as the engine takes and `max_memory_mib` allows.
        memory: What the memory is for -> bytes; the study's own voxels and the network are not counted.
        bytes: Most of it in use at a time.
        seconds: Expected wall-clock seconds of the run, reading and saving not included.
        basis: What `seconds` is estimated from.
    """

    tiles: int
    tiles_skipped: int
    slots: int
    memory: Mapping[str, int]
    bytes: int
    seconds: float
    basis: str


class MemoryPlan:
    """The memory of one run.

    Args:
        study: As the caller gave it.
        prepared: The same on the common grid.
        plan: Its tiles.
        blender: What takes their predictions.
        manifest: Of the bundle.
    """

    def __init__(self, study: Study, prepared: Prepared, plan: TilePlan, blender: Blender, manifest: Manifest) -> None:
        channels = len(manifest.contrasts) + 1 + len(manifest.classes or ())
        self.tile = 4 * math.prod(plan.tile_shape) * channels
        self.parts = {
            "copies": _copies(study, prepared),
            "outputs": blender.outputs.nbytes,
            "blend": blender.memory_bytes,
            "results": _results(study, prepared, manifest),
        }

    def affordable_slots(self, most: int, max_memory_mib: float | None) -> int:
        """Return how many tiles may be in flight.

        Raises:
            DeviceMemoryError: Even one is too many.
        """
        if max_memory_mib is None:
            return most
        fixed = self.parts["copies"] + self.parts["outputs"] + self.parts["blend"]
        # An engine keeps the outputs last collected beside the tiles in flight.
        slots = int((max_memory_mib * MIB - fixed) // self.tile) - 1
        if slots < 1 or self.peak(1) > max_memory_mib * MIB:
            needed = -(-self.peak(1) // MIB)
            raise DeviceMemoryError(
                f"this study needs {needed} MiB beside the network, and max_memory_mib is {max_memory_mib:g}.",
                "Raise max_memory_mib, or choose a bundle with smaller tiles.",
                needed_mib=needed,
                max_memory_mib=max_memory_mib,
            )
        return min(slots, most)

    def peak(self, slots: int) -> int:
        """Return the most bytes in use at a time with so many tiles in flight."""
        parts = self.parts
        held = parts["copies"] + parts["outputs"]
        return held + max(parts["blend"] + (slots + 1) * self.tile, parts["results"])

    def memory(self, slots: int) -> dict[str, int]:
        """Return the bytes by what they are for."""
        return {**self.parts, "tiles": (slots + 1) * self.tile}


def _copies(study: Study, prepared: Prepared) -> int:
    """Return the bytes of contrasts on the common grid that are no views of the study."""
    return sum(
        array.nbytes for name, array in prepared.arrays.items() if not np.may_share_memory(array, study[name].data)
    )


def _results(study: Study, prepared: Prepared, manifest: Manifest) -> int:
    """Return the bytes of what is resampled back onto the reference's own grid."""
    voxels = math.prod(prepared.axes.source.shape)
    resampled = prepared.resampled
    own = (4 + (manifest.classes is not None) + 4 * (manifest.lesion_class is not None)) if resampled else 0
    others = [name for name in prepared.arrays if name != prepared.reference]
    moved = [name for name in others if not np.may_share_memory(prepared.arrays[name], study[name].data)]
    return voxels * (own + sum(4 * resampled + study[name].data.itemsize for name in moved))


class Pace:
    """How fast a pipeline has been so far; shared by its threads."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._tile_s: float | None = None
        self._voxel_s: float | None = None

    @property
    def tile_s(self) -> float | None:
        """Return the wall-clock seconds a tile, with all slots busy; None before anything has run."""
        return self._tile_s

    def note_tiles(self, seconds: float, tiles: int) -> None:
        """Note what tiles took."""
        if tiles:
            with self._lock:
                self._tile_s = seconds / tiles

    def note_run(self, seconds: Mapping[str, float], tiles: int, voxels: int) -> None:
        """Note what the stages of a run took."""
        self.note_tiles(sum(seconds.get(stage, 0.0) for stage in ("extract", "network", "blend")), tiles)
        with self._lock:
            self._voxel_s = (seconds["measure"] + seconds["check"]) / voxels

    def estimate(self, prepare_s: float, tiles: int, voxels: int) -> tuple[float, str]:
        """Return the seconds that a run will take, and what they are estimated from."""
        network = (self._tile_s or 0.0) * tiles
        if self._voxel_s is None:
            return prepare_s + network, "preparing this study and a tile of zeros; measuring the result comes on top"
        return prepare_s + network + self._voxel_s * voxels, "preparing this study and the last run"
