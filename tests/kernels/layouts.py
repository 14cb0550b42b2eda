"""Memory layouts in which a scan may reach the kernels; each takes a C-contiguous array and returns an equal one."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[Any]


def permuted(array: Array) -> Array:
    """Contiguous along axis 1."""
    return np.ascontiguousarray(array.transpose(0, 2, 1)).transpose(0, 2, 1)


def flipped(array: Array) -> Array:
    """All axes backwards in memory."""
    return np.ascontiguousarray(array[::-1, ::-1, ::-1])[::-1, ::-1, ::-1]


def flipped_fortran(array: Array) -> Array:
    """Contiguous along axis 0, backwards."""
    return np.asfortranarray(array[::-1, :, ::-1])[::-1, :, ::-1]


def spaced(array: Array) -> Array:
    """Every other voxel of a larger array: contiguous along no axis."""
    larger = np.zeros([2 * extent for extent in array.shape], array.dtype)
    larger[::2, ::2, ::2] = array
    return larger[::2, ::2, ::2]


LAYOUTS: dict[str, Callable[[Array], Array]] = {
    "c": np.ascontiguousarray,
    "fortran": np.asfortranarray,
    "permuted": permuted,
    "flipped": flipped,
    "flipped-fortran": flipped_fortran,
    "spaced": spaced,
}
