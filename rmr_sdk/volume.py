"""Volumes: voxels with a place in the world. Owns what a volume may hold; reading and writing files is io's."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from rmr_sdk.errors import StudyError
from rmr_sdk.geometry import Affine, Grid

if TYPE_CHECKING:
    import nibabel

KERNEL_DTYPES = ("uint8", "int16", "uint16", "float32")
"""Voxel types that the kernels read, and so are kept as they are; everything else becomes float32."""


@dataclass(frozen=True, slots=True, eq=False)
class Volume:
    """A 3-D array of real numbers and the affine that puts it in the world.

    Args:
        data: (i, j, k) in any memory order and of any real dtype; trailing axes of length 1 are dropped. It is not
            copied: whoever passes it keeps it as it is for as long as the volume lives.
        affine: (4, 4), voxel index -> RAS mm.

    Raises:
        StudyError: The voxels are not real numbers, complex or RGB for example.
        GeometryError: The array has not three axes of at least one voxel, or the affine makes no sense.
    """

    data: npt.NDArray[Any]
    affine: Affine

    def __post_init__(self) -> None:
        data = np.asarray(self.data)  # of a masked array what lies beneath the mask, which the kernels read too
        while data.ndim > 3 and data.shape[-1] == 1:
            data = data[..., 0]
        if data.dtype.kind not in "biuf":
            raise StudyError(
                f"the voxels are {_dtype_name(data.dtype)}, not real numbers.",
                "Pass one real value per voxel, such as the magnitude.",
                dtype=_dtype_name(data.dtype),
            )
        object.__setattr__(self, "data", data)
        object.__setattr__(self, "affine", Grid(data.shape, self.affine).affine)

    def __repr__(self) -> str:
        return f"Volume({self.grid}, {self.data.dtype})"

    @property
    def grid(self) -> Grid:
        """Return where the voxels lie."""
        return Grid(self.data.shape, self.affine)

    @classmethod
    def from_nibabel(cls, image: nibabel.spatialimages.SpatialImage) -> Volume:
        """Take over a nibabel image; uint8, int16 and uint16 stay what they are where nothing scales them.

        An affine in metres or micrometres is converted to millimetres, as for files.

        Raises:
            StudyError: As for Volume.
            GeometryError: As for Volume, or the image has no affine.
        """
        from nibabel import Nifti1Header

        from rmr_sdk.io.nifti import unit_mm

        affine = image.affine
        if isinstance(image.header, Nifti1Header) and affine is not None:
            affine = np.diag([*[unit_mm(image.header)] * 3, 1.0]) @ affine
        proxy = image.dataobj
        scaled = (getattr(proxy, "slope", 1.0), getattr(proxy, "inter", 0.0)) != (1.0, 0.0)
        data = np.asanyarray(proxy) if scaled or not hasattr(proxy, "get_unscaled") else proxy.get_unscaled()
        return cls(to_kernel_dtype(data) if data.dtype.kind in "biuf" else data, affine)

    def to_nibabel(self) -> nibabel.Nifti1Image:
        """Return a NIfTI image in memory that shares the voxels where NIfTI knows their type; see `write_volume`."""
        import nibabel

        from rmr_sdk.io.nifti import storable

        data = storable(self.data)
        image = nibabel.Nifti1Image(data, self.affine, dtype=data.dtype)
        image.header.set_xyzt_units("mm")
        return image


def to_kernel_dtype(array: npt.NDArray[Any]) -> npt.NDArray[Any]:
    """Return uint8, int16, uint16 and float32 arrays, of any strides, as they are, and all others as float32.

    Where the bytes are swapped or the items not aligned, a copy puts that right. Values beyond the range of float32
    become infinite, which the check of the study then refuses.
    """
    native = array.dtype.newbyteorder("=")
    if native.name not in KERNEL_DTYPES:
        native = np.dtype(np.float32)
    in_line = array.flags.aligned and all(stride % array.itemsize == 0 for stride in array.strides)
    with np.errstate(over="ignore"):
        return array.astype(native, copy=not in_line)


def _dtype_name(dtype: np.dtype[Any]) -> str:
    return "RGB" if dtype.names else dtype.name
