"""From voxels on a device to an engine's input: where each contrast lies there, and how tiles are cut out of it.

    on the common grid already      the volume as it lies in memory, any strides ─┐
    on another grid, interpolated   the volume as acquired, and a matrix ─────────┴─> tile, normalised, fp32 or fp16

Voxels are not resampled beforehand: the same kernel interpolates, normalises and converts, to the bit what the CPU does
in three steps. Where a contrast is averaged over larger voxels, or masked, its array on the common grid goes up.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from rmr_sdk.device_kernels import DeviceKernels
from rmr_sdk.device_memory import DeviceView, Workspace
from rmr_sdk.foreground import Foreground
from rmr_sdk.geometry import index_map
from rmr_sdk.intensity import IntensityMap
from rmr_sdk.preprocess import Prepared
from rmr_sdk.resample import image_mode
from rmr_sdk.tiles import Corner


@dataclass(frozen=True, slots=True, eq=False)
class DeviceSource:
    """One contrast on a device.

    Attributes:
        voxels: (D, H, W), of a kernel dtype.
        intensity: From its intensities to the network's.
        matrix: (3, 4) from an index on the common grid to one of `voxels`; None where they are on it.
        grid: Shape of the common grid.
    """

    voxels: Any
    intensity: IntensityMap
    matrix: npt.NDArray[np.float64] | None
    grid: Corner

    def cut(self, kernels: DeviceKernels, origin: Corner, out: Any, stream: int) -> None:
        """Queue the cutting of the tile at `origin` into `out`, (D, H, W)."""
        kernels.extract(
            self.voxels,
            out,
            origin=origin,
            scale=self.intensity.scale,
            offset=self.intensity.offset,
            low=self.intensity.low,
            high=self.intensity.high,
            matrix=self.matrix,
            grid=None if self.matrix is None else self.grid,
            stream=stream,
        )


def place_sources(
    prepared: Prepared, space: Workspace, present: Mapping[str, DeviceView] | None = None
) -> dict[str, DeviceSource]:
    """Bring the contrasts of a study to a device, as they were acquired where that is enough.

    Args:
        prepared: The study.
        space: Takes the memory.
        present: Contrasts that are on the device already, as they were acquired, in the voxel type of the study.

    Returns:
        Contrast -> where it lies.

    Raises:
        DeviceMemoryError: There is not enough memory.
    """
    return {contrast: _place(prepared, contrast, space, (present or {}).get(contrast)) for contrast in prepared.arrays}


def _place(prepared: Prepared, contrast: str, space: Workspace, present: DeviceView | None) -> DeviceSource:
    array, scan = prepared.arrays[contrast], prepared.scans[contrast]
    matrix, as_acquired = None, np.may_share_memory(array, scan.voxels)
    if not as_acquired and prepared.brain is None and image_mode(scan.grid, prepared.grid) == "linear":
        as_acquired, array, matrix = True, scan.array, index_map(scan.grid, prepared.grid)
    turned: Any = present  # a view on a device turns as an array does
    voxels = scan.axes.apply(turned) if present is not None and as_acquired else space.put_view(array)
    return DeviceSource(voxels, prepared.intensity[contrast], matrix, _corner(prepared.grid.shape))


class DeviceForeground(Foreground):
    """Where contrasts are above their thresholds, searched for on the device where they lie there on the common grid.

    Args:
        sources: Where each contrast lies.
        prepared: The same contrasts on the host, in which the few voxels at the borders of tiles are looked up.
        kernels: The kernels.
        space: Takes the memory and the work; waited for.
    """

    def __init__(
        self, sources: Mapping[str, DeviceSource], prepared: Prepared, kernels: DeviceKernels, space: Workspace
    ) -> None:
        self._kernels, self._space = kernels, space
        self._on_device = [sources[name].voxels if sources[name].matrix is None else None for name in prepared.arrays]
        floors = [prepared.intensity[name].floor for name in prepared.arrays]
        super().__init__(list(prepared.arrays.values()), floors, prepared.threads)

    def _search(self, source: npt.NDArray[Any], threshold: float, threads: int) -> npt.NDArray[np.int32]:
        voxels = self._on_device.pop(0)
        if voxels is None:
            return super()._search(source, threshold, threads)
        space = self._space
        bounds, found = space.take_for_host(self._bounds_shape(source.shape), np.int32)
        self._kernels.occupancy(voxels, bounds, threshold=threshold, block=self.block, stream=space.stream.handle)
        space.fetch(bounds, found)
        space.stream.synchronize()
        return found


def _corner(shape: Sequence[int]) -> Corner:
    return int(shape[0]), int(shape[1]), int(shape[2])
