"""The kernels on device memory, typed. Owns the way to `rmr_sdk._C.cuda`, which only builds with nvcc have."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Protocol, cast

import numpy as np
import numpy.typing as npt

from rmr_sdk import _C
from rmr_sdk.errors import DeviceUnavailableError

Corner = tuple[int, int, int]


class DeviceBlendTarget(Protocol):
    """The arrays of a blend in device memory, as `rmr_sdk._C.BlendTarget`."""

    def blend(
        self,
        probability: Any,
        fused: Any,
        window_d: Any,
        window_h: Any,
        window_w: Any,
        *,
        tile: int,
        origin: Sequence[int],
        low: Sequence[int],
        high: Sequence[int],
        flaws: Any = None,
        stream: int = 0,
    ) -> None:
        """Queue the addition of one tile."""

    def clear(self, *, stream: int = 0) -> None:
        """Queue writing background where no tile comes."""


class DeviceKernels(Protocol):
    """What `rmr_sdk._C.cuda` has: arrays are objects with `__cuda_array_interface__`, work goes to `stream`.

    Raises:
        TypeError: An array has the wrong type, or is none in device memory.
        ValueError: An array has the wrong shape or layout, is read-only or null, or lies on another device.
        DeviceError: CUDA refused a launch.
    """

    BlendTarget: type[Any]

    def extract(
        self,
        source: Any,
        out: Any,
        *,
        origin: Sequence[int],
        scale: float,
        offset: float,
        low: float,
        high: float,
        matrix: npt.NDArray[np.float64] | None = None,
        grid: Sequence[int] | None = None,
        stream: int = 0,
    ) -> None:
        """Queue the cutting of one tile."""

    def occupancy(self, source: Any, bounds: Any, *, threshold: float, block: int, stream: int = 0) -> None:
        """Queue the search for foreground."""

    def resample(self, source: Any, out: Any, *, matrix: npt.NDArray[np.float64], mode: str, stream: int = 0) -> None:
        """Queue the interpolation of a volume."""


def kernels_built() -> bool:
    """Tell whether this installation has the kernels on device memory."""
    return hasattr(_C, "cuda")


def device_kernels() -> DeviceKernels:
    """Return them.

    Raises:
        DeviceUnavailableError: This installation was built without nvcc.
    """
    if not kernels_built():
        raise DeviceUnavailableError(
            "this installation of rmr_sdk has no CUDA kernels.",
            "Install it with RMR_CUDA=ON where nvcc is on the PATH; docs/cuda.md says how.",
        )
    return cast(DeviceKernels, _C.cuda)
