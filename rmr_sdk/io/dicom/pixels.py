"""The voxels of a stack: decoded image by image into one array, then brought to real values.

pydicom decodes; compressed images need a decoder that it finds installed (the extra `dicom` brings them). Integers
stay as stored where nothing scales them; the first axis of the array, along a row of an image, is the fastest.
"""

from __future__ import annotations

import io
from collections import defaultdict
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from rmr_sdk.errors import DeviceUnavailableError, FormatError, StudyError
from rmr_sdk.io.dicom.extra import EXTRA, damage_errors, load_library, quiet
from rmr_sdk.io.dicom.files import Entry
from rmr_sdk.io.dicom.headers import Frame
from rmr_sdk.io.dicom.series import DicomVolume

_COPY = "Copy or export the series again."
Voxels = npt.NDArray[Any]


def read_voxels(volume: DicomVolume) -> tuple[Voxels, list[str]]:
    """Read the voxels of a volume.

    Args:
        volume: Its stack must have a grid.

    Returns:
        (column, row, slice) voxels: as stored where slope and intercept are trivial, otherwise float32; and what is
        odd about them.

    Raises:
        DeviceUnavailableError: They are compressed, and no decoder for it is installed.
        FormatError: They are damaged or not there.
        StudyError: Two images at one position differ.
    """
    stack = volume.stack
    _check_decoders(volume)
    pixels = _decode(volume, stack.frames)
    with quiet():
        first = next(pixels)
        slices = np.empty((len(stack.frames), *first.shape), first.dtype)
        slices[0] = first
        for number, image in enumerate(pixels, start=1):
            if image.shape != first.shape or image.dtype != first.dtype:
                raise FormatError(f"series {volume.key}: its images differ in size or type.", _COPY)
            slices[number] = image
    notes = _check_copies(volume, slices)
    values = _to_values(slices, stack.frames)
    if volume.file.inverted:
        values = values.max() + values.min() - values
        notes.append("its grey scale is inverted (MONOCHROME1) and was turned round")
    if volume.file.lossy:
        notes.append("its images went through lossy compression")
    return values.transpose(2, 1, 0), notes


def _decode(volume: DicomVolume, frames: Sequence[Frame]) -> Iterator[Voxels]:
    """Give the stored values (row, column) of images in their order; each file is read once.

    Raises:
        FormatError: An image is damaged or has no pixels.
    """
    wanted: defaultdict[Entry, list[Frame]] = defaultdict(list)
    for frame in frames:
        wanted[frame.file.entry].append(frame)
    if len(wanted) in (1, len(frames)):  # one multi-frame file, or one image a file: the usual
        for inside in wanted.values():
            yield from _decode_file(volume, inside)
        return
    decoded = {
        frame: image
        for inside in wanted.values()
        for frame, image in zip(inside, _decode_file(volume, inside), strict=True)
    }
    for frame in frames:
        yield decoded[frame]


def _decode_file(volume: DicomVolume, frames: list[Frame]) -> Iterator[Voxels]:
    """Give images of one file."""
    entry = frames[0].file.entry
    pydicom = load_library("pydicom")
    from pydicom.pixels import iter_pixels

    try:
        with entry.open() as file:
            dataset = pydicom.dcmread(io.BytesIO(file.read()) if entry.archive else file, force=True)
        if "TransferSyntaxUID" not in dataset.file_meta:
            dataset.file_meta.TransferSyntaxUID = pydicom.uid.ImplicitVRLittleEndian
        yield from iter_pixels(dataset, indices=[frame.index for frame in frames])
    except damage_errors() as error:
        raise FormatError(
            f"series {volume.key}: the pixels of image {frames[0].name} are missing, truncated or damaged.",
            _COPY,
        ) from error


def _check_decoders(volume: DicomVolume) -> None:
    """Refuse a compression that cannot be decoded here, by its name."""
    load_library("pydicom")
    from pydicom.uid import UID

    for uid in sorted({frame.file.transfer_syntax for frame in volume.stack.frames}):
        if missing := _missing_decoder(uid):
            raise DeviceUnavailableError(
                f"series {volume.key} is compressed as {UID(uid).name}, for which no decoder is installed ({missing}).",
                EXTRA,
                transfer_syntax=uid,
            )


def _missing_decoder(uid: str) -> str:
    """Return what a transfer syntax needs and is not installed; empty where nothing is missing."""
    from pydicom.pixels import get_decoder
    from pydicom.uid import UID

    syntax = UID(uid)
    if not uid or not syntax.is_transfer_syntax or not syntax.is_compressed or syntax.is_deflated:
        return ""
    try:
        decoder = get_decoder(syntax)
    except NotImplementedError:
        return "pydicom has no decoder for it"
    return "" if decoder.is_available else "; ".join(decoder.missing_dependencies)


def _check_copies(volume: DicomVolume, slices: Voxels) -> list[str]:
    """Drop further images at a position that has one, where their pixels are the same.

    Raises:
        StudyError: They are not.
    """
    copies = volume.stack.copies
    if not copies:
        return []
    with quiet():
        for (place, frame), image in zip(copies, _decode(volume, [frame for _, frame in copies]), strict=True):
            if not np.array_equal(image, slices[place]):
                raise StudyError(
                    f"series {volume.key} has two different images at the position of image {frame.name},"
                    " and its headers do not say what tells them apart.",
                    "Export the series again, or choose another one (see `rmr study show`).",
                )
    return [f"{len(copies)} duplicate image{'s were' if len(copies) > 1 else ' was'} left out"]


def _to_values(slices: Voxels, frames: Sequence[Frame]) -> Voxels:
    """Apply slope and intercept, which may change from image to image."""
    if all((frame.slope, frame.intercept) == (1.0, 0.0) for frame in frames):
        return slices
    values = slices.astype(np.float32)
    for image, frame in zip(values, frames, strict=True):
        image *= np.float32(frame.slope)
        image += np.float32(frame.intercept)
    return values
