# ruff: noqa: N999
"""Native kernels. Arrays are NumPy arrays, outputs are written in place, the GIL is released while an op runs.

A source volume is uint8, int16, uint16 or float32 with any strides; outputs are C-contiguous. `extract` writes float32
or float16; with a `matrix` (3, 4) from indices of a `grid` to those of the source it interpolates linearly on the way.
The ring of a blend is as wide as the volume or, on a GPU for speed, 3 wider at least and a multiple of 4; `flaws` (2,)
is set to one where the fused image, where a probability is not finite. Wrong arguments raise
TypeError (type of an array) or ValueError (shape, layout, range) and name the argument.
"""

from collections.abc import Sequence
from types import ModuleType
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

built_with_cuda: bool
# The same ops on device memory: extract, BlendTarget, occupancy and resample take any object that has
# __cuda_array_interface__ (version 3: a stream that it names is followed), and `stream` (a cudaStream_t as an integer)
# in the place of `threads`. They allocate nothing and wait for nothing; what CUDA reports is raised as
# rmr_sdk.errors.DeviceError. Only there when built_with_cuda; typed in rmr_sdk.device_kernels.
cuda: ModuleType

def cuda_device_count() -> int: ...
def extract(
    source: npt.NDArray[Any],
    out: npt.NDArray[Any],
    *,
    origin: Sequence[int],
    scale: float,
    offset: float,
    low: float,
    high: float,
    matrix: npt.NDArray[np.float64] | None = None,
    grid: Sequence[int] | None = None,
    threads: int = 1,
) -> None: ...

class BlendTarget:
    """The arrays of a blend: (D, H) int32 slot, first, last; ring (slots, channels, W) float32; outputs (D, H, W)."""

    def __init__(
        self,
        slot: npt.NDArray[np.int32],
        first: npt.NDArray[np.int32],
        last: npt.NDArray[np.int32],
        ring: npt.NDArray[np.float32] | None,
        labels: npt.NDArray[np.uint8] | None,
        chosen: npt.NDArray[np.float32] | None,
        fused: npt.NDArray[np.float32] | None,
        *,
        shape: Sequence[int],
        classes: int,
        chosen_class: int,
        complement: bool,
        gain: float,
        bias: float,
    ) -> None: ...
    def blend(
        self,
        probability: npt.NDArray[Any] | None,
        fused: npt.NDArray[Any] | None,
        window_d: npt.NDArray[np.float32],
        window_h: npt.NDArray[np.float32],
        window_w: npt.NDArray[np.float32],
        *,
        tile: int,
        origin: Sequence[int],
        low: Sequence[int],
        high: Sequence[int],
        flaws: npt.NDArray[np.int32] | None = None,
        threads: int = 1,
    ) -> None: ...
    def clear(self, *, threads: int = 1) -> None: ...

def occupancy(
    source: npt.NDArray[Any],
    bounds: npt.NDArray[np.int32],
    *,
    threshold: float,
    block: int,
    threads: int = 1,
) -> None: ...
def any_above(source: npt.NDArray[Any], *, threshold: float, low: Sequence[int], high: Sequence[int]) -> bool: ...
def resample(
    source: npt.NDArray[Any],
    out: npt.NDArray[Any],
    *,
    matrix: npt.NDArray[np.float64],
    mode: Literal["nearest", "linear", "area"],
    threads: int = 1,
) -> None: ...
def components(
    labels: npt.NDArray[np.uint8],
    probability: npt.NDArray[np.float32] | None = None,
    ids: npt.NDArray[np.int32] | None = None,
    *,
    value: int,
) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.float64], npt.NDArray[np.float64]]: ...
def drop_components(
    labels: npt.NDArray[np.uint8],
    probability: npt.NDArray[np.float32],
    *,
    value: int,
    least: float,
    around: int = 0,
    least_around: float = 0.0,
    least_voxel: float = 0.0,
    least_voxels: int = 0,
    least_piece: float = 0.0,
) -> tuple[int, int]: ...
