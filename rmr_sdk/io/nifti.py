"""NIfTI-1 and NIfTI-2 files. Owns the choice between sform and qform and the checks of what a file may hold.

nibabel reads and writes the header; the voxels go straight between the (gzipped) file and the array, in the file's own
order (first axis fastest) and, where nothing scales them, in their own dtype. docs/coordinates.md has the rules.
"""

from __future__ import annotations

import gzip
import os
import zlib
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO, cast

import numpy as np
import numpy.typing as npt

from rmr_sdk.errors import FormatError, GeometryError
from rmr_sdk.geometry import Affine, Grid
from rmr_sdk.io.files import atomic_file
from rmr_sdk.volume import Volume, to_kernel_dtype

if TYPE_CHECKING:
    import nibabel

FORM_TOLERANCE_MM = 0.1
"""How far sform and qform may put a corner apart before it is worth a warning."""

_GZIP_LEVEL = 1  # on patient19 level 6 takes 1.6 times as long for a file that is 4 % smaller
_DEFLATE_LIMIT = 1032  # deflate cannot shrink more than this: https://zlib.net/zlib_tech.html
_QFORM_MM = 0.01  # quaternions cannot say shear, and in float32 blur tilts under 0.2 degrees of an LAS or LPS grid
_ALIGNED = 2  # NIFTI_XFORM_ALIGNED_ANAT: in the coordinates of another file
_UNIT_MM = {"meter": 1000.0, "micron": 0.001}
_MAGIC = {348: (344, b"n+1\0"), 540: (4, b"n+2\0")}  # size of the header -> (position, value) of its magic
_CONVERT = "Convert the study to NIfTI (.nii.gz), with dcm2niix for example."
_COPY = "Copy or convert the file again."


def read_volume(path: str | os.PathLike[str], *, label: str | None = None) -> tuple[Volume, list[str]]:
    """Read one 3-D volume.

    Args:
        path: A .nii or .nii.gz file; what counts is the content, not the name. A trailing axis of length 1 is dropped.
        label: How to call the file in messages; by default its path as given.

    Returns:
        The volume, and what is odd about the header. Voxels are uint8, int16 or uint16 as stored where slope and
        intercept are trivial, otherwise float32; the first axis is the fastest in memory. NaN and infinite voxels are
        kept: how to take them is a choice of the run.

    Raises:
        FormatError: No such file, not a file, not NIfTI, truncated or damaged, not 3-D, empty, complex or RGB.
        GeometryError: The affine of the header is not finite or is singular.
    """
    name = label or f'"{os.fspath(path)}"'
    file_path = Path(path)
    try:
        if not file_path.is_file():
            problem = "is a folder or a device, not a file" if file_path.exists() else "does not exist"
            raise FormatError(f"{name} {problem}.", "Pass the path of a .nii or .nii.gz file.")
        with open(file_path, "rb") as raw:
            gzipped = raw.peek(2)[:2] == b"\x1f\x8b"
            most = os.fstat(raw.fileno()).st_size * (_DEFLATE_LIMIT if gzipped else 1)
            file = cast(BinaryIO, gzip.GzipFile(fileobj=raw)) if gzipped else raw
            header = _read_header(file, name)
            warnings = form_warnings(header)
            affine = _affine(header, name)
            return Volume(_read_voxels(file, header, most, name), affine), warnings
    except (EOFError, gzip.BadGzipFile, zlib.error) as error:
        raise FormatError(f"{name} is truncated or damaged: {error}", _COPY) from error
    except OSError as error:
        raise FormatError(f"{name} cannot be read: {error.strerror or error}.", "Check its permissions.") from error


def write_volume(path: str | os.PathLike[str], volume: Volume, *, description: str = "") -> None:
    """Write a volume as NIfTI, complete or not at all.

    The affine goes into sform and, where a qform can say the same, into qform; units are mm. The same
    volume gives the same bytes.

    Args:
        path: Ends in .nii.gz or .nii; an existing file is replaced.
        volume: bool is written as uint8, float16 as float32, everything else as it is.
        description: Up to 79 ASCII characters for the header; never anything about the patient.

    Raises:
        OutputError: The file cannot be written.
    """
    with atomic_file(path) as file:
        write_stream(file, volume, gzipped=os.fspath(path).endswith(".gz"), description=description)


def write_stream(file: BinaryIO, volume: Volume, *, gzipped: bool, description: str = "") -> None:
    """Write a volume as `write_volume` does, to a file that is open already.

    Raises:
        OSError: The file cannot be written.
    """
    data = storable(volume.data)
    header = _header_for(data, volume.affine, description)
    if not gzipped:
        _write(file, header, data)
        return
    with gzip.GzipFile(filename="", mode="wb", compresslevel=_GZIP_LEVEL, fileobj=file, mtime=0) as packed:
        _write(cast(BinaryIO, packed), header, data)


def form_warnings(header: nibabel.Nifti1Header) -> list[str]:
    """Say where the two affines of a header disagree, where it has none, or where its unit is not the millimetre."""
    warnings = []
    unit = header.get_xyzt_units()[0]
    if unit in _UNIT_MM:
        warnings.append(f"the unit of the header is the {unit}; lengths were converted to mm")
    if not header["sform_code"] > 0 and not header["qform_code"] > 0:
        warnings.append("the header does not say where left and right are; its axes were taken to run to L, A and S")
    elif header["sform_code"] > 0 and header["qform_code"] > 0:
        apart = _forms_apart_mm(header)
        if apart is None:
            warnings.append("the qform of the header is invalid; its sform was used")
        elif apart > FORM_TOLERANCE_MM:
            warnings.append(f"sform and qform of the header disagree by up to {apart:.3g} mm; the sform was used")
    return warnings


def unit_mm(header: nibabel.Nifti1Header) -> float:
    """Return the length of the unit of a header's affine; the millimetre where it names none."""
    return _UNIT_MM.get(header.get_xyzt_units()[0], 1.0)


def _read_header(file: BinaryIO, name: str) -> nibabel.Nifti1Header:
    from nibabel import Nifti1Header, Nifti2Header

    block = file.read(348)
    size = next((n for n in _MAGIC for order in ("little", "big") if block[:4] == n.to_bytes(4, order)), 348)
    block += file.read(size - 348)
    position, magic = _MAGIC[size]
    if len(block) < size or block[position : position + 4] != magic:
        raise FormatError(f"{name} is not a NIfTI file.", _CONVERT)
    header = (Nifti1Header if size == 348 else Nifti2Header)(block, check=False)
    _check_header(header, name)
    return header


def _check_header(header: nibabel.Nifti1Header, name: str) -> None:
    from nibabel.spatialimages import HeaderDataError

    shape = _shape(header)
    if any(length < 1 for length in shape):
        raise FormatError(f"{name} holds no voxels: its shape is {shape}.", _COPY, shape=shape)
    if len(shape) != 3:
        raise FormatError(
            f"{name} is {len(shape)}-D with the shape {shape}.",
            "Pass one 3-D volume per contrast; split a series of volumes first.",
            shape=shape,
        )
    try:
        dtype = header.get_data_dtype()
    except (HeaderDataError, KeyError) as error:
        raise FormatError(f"{name} has an unknown data type.", _CONVERT) from error
    if dtype.kind not in "iuf":
        kind = "complex" if dtype.kind == "c" else "RGB"
        raise FormatError(f"{name} holds {kind} voxels.", "Pass one real value per voxel, such as the magnitude.")


def _shape(header: nibabel.Nifti1Header) -> tuple[int, ...]:
    """Return the lengths of the axes without trailing ones beyond the third."""
    lengths = [int(length) for length in header["dim"]]
    shape = lengths[1 : 1 + max(lengths[0], 0)]
    while len(shape) > 3 and shape[-1] == 1:
        shape.pop()
    return tuple(shape)


def _affine(header: nibabel.Nifti1Header, name: str) -> Affine:
    """Return the sform if its code is set, otherwise the qform if its code is set, otherwise the L, A, S default."""
    from nibabel.spatialimages import HeaderDataError

    try:
        affine = np.array(header.get_best_affine(), np.float64)
        affine[:3] *= unit_mm(header)
        shape = _shape(header)
        return Grid((shape[0], shape[1], shape[2]), affine).affine
    except (GeometryError, HeaderDataError, ValueError) as error:
        problem = error.problem if isinstance(error, GeometryError) else "the qform is invalid."
        raise GeometryError(f"{name}: {problem}", "Correct the header from the source of the study.") from error


def _forms_apart_mm(header: nibabel.Nifti1Header) -> float | None:
    """Return how far sform and qform put a corner of the volume apart, or None if the qform is invalid."""
    from nibabel.spatialimages import HeaderDataError

    i, j, k = _shape(header)
    try:
        qform, sform = Grid((i, j, k), header.get_qform()), Grid((i, j, k), header.get_sform())
    except (GeometryError, HeaderDataError, ValueError):
        return None
    apart = np.linalg.norm(qform.corners_mm() - sform.corners_mm(), axis=1).max()
    return float(apart) * unit_mm(header)


def _read_voxels(file: BinaryIO, header: nibabel.Nifti1Header, most: int, name: str) -> npt.NDArray[Any]:
    """Read the voxels behind the header straight into their array; `most` is all that the file can hold."""
    dtype, shape = header.get_data_dtype(), _shape(header)
    offset = float(header["vox_offset"])
    if not header.sizeof_hdr <= offset < 2**31:
        raise FormatError(f"{name} is damaged: its voxels begin at {offset}.", _COPY)
    size = int(np.prod(shape, dtype=object)) * dtype.itemsize
    if offset + size > most:
        raise FormatError(f"{name} is truncated: it cannot hold the {size} bytes that its header promises.", _COPY)
    data = np.empty(shape, dtype, order="F")
    file.read(int(offset) - header.sizeof_hdr)
    read = file.readinto(data.reshape(-1, order="F").view(np.uint8))  # type: ignore[attr-defined]
    if read < size:
        raise FormatError(f"{name} is truncated: {read} of {size} bytes of voxels are there.", _COPY)
    file.read(1)  # at its end gzip compares the checksum
    return _scaled(data, header, name)


def _scaled(data: npt.NDArray[Any], header: nibabel.Nifti1Header, name: str) -> npt.NDArray[Any]:
    from nibabel.spatialimages import HeaderDataError

    try:
        slope, intercept = header.get_slope_inter()
    except HeaderDataError as error:
        raise FormatError(f"{name} has an invalid slope or intercept.", _CONVERT) from error
    slope, intercept = (1.0 if slope is None else slope), (0.0 if intercept is None else intercept)
    if (slope, intercept) == (1.0, 0.0):
        return to_kernel_dtype(data)
    with np.errstate(over="ignore"):
        values = data.astype(np.float32)
        values *= np.float32(slope)
        values += np.float32(intercept)
    return values


def storable(data: npt.NDArray[Any]) -> npt.NDArray[Any]:
    """Return voxels of a type that NIfTI knows, in the byte order that the header will announce."""
    if data.dtype.name in ("bool", "float16"):
        return data.astype(np.uint8 if data.dtype.kind == "b" else np.float32)
    return data.astype(data.dtype.newbyteorder("="), copy=False)


def _header_for(data: npt.NDArray[Any], affine: Affine, description: str) -> nibabel.Nifti1Header:
    from nibabel import Nifti1Header, Nifti2Header

    header = Nifti1Header() if max(data.shape) < 2**15 else Nifti2Header()
    header.set_data_shape(data.shape)
    header.set_data_dtype(data.dtype)
    header.set_slope_inter(1.0, 0.0)
    header.set_xyzt_units("mm")
    header.set_qform(affine, _ALIGNED, strip_shears=True)
    header.set_sform(affine, _ALIGNED)
    apart = _forms_apart_mm(header)
    if apart is None or apart > _QFORM_MM:
        header["qform_code"] = 0
    header["vox_offset"] = header.sizeof_hdr + 4
    header["descrip"] = description.encode("ascii", "replace")[:79]
    return header


def _write(file: BinaryIO, header: nibabel.Nifti1Header, data: npt.NDArray[Any]) -> None:
    file.write(header.binaryblock + bytes(4))  # four zero bytes: no header extension follows
    for k in range(data.shape[2]):
        file.write(np.asfortranarray(data[:, :, k]).T.data)
