"""Hostile NIfTI files, made by code: what a broken disk, a wrong converter or a wrong click gives the reader."""

from __future__ import annotations

import gzip
import os
import struct
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import nibabel
import numpy as np

SHAPE = (6, 7, 8)


def image_bytes(array: np.ndarray | None = None, **header: Any) -> bytes:
    """Return a small uncompressed NIfTI-1 file; header fields are overwritten as they are."""
    array = np.arange(np.prod(SHAPE), dtype=np.int16).reshape(SHAPE) if array is None else array
    data = nibabel.Nifti1Image(array, np.diag([-1.0, 1.0, 1.0, 1.0])).to_bytes()
    block = nibabel.Nifti1Header(data[:348], check=False)
    for name, value in header.items():
        block[name] = value
    return bytes(block.binaryblock) + data[348:]


def png_bytes() -> bytes:
    """Return a grey PNG of one pixel."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    ihdr = struct.pack(">IIBBBBB", 1, 1, 8, 0, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", ihdr) + chunk(b"IDAT", zlib.compress(b"\0\0")) + chunk(b"IEND", b"")


def flipped_bit(data: bytes, position: int) -> bytes:
    """Return the bytes with one bit turned over."""
    return data[:position] + bytes([data[position] ^ 16]) + data[position + 1 :]


def rgb_image() -> bytes:
    """Return an image of red, green and blue bytes."""
    return image_bytes(np.zeros(SHAPE, [("R", "u1"), ("G", "u1"), ("B", "u1")]))


def bad_affine(**rows: tuple[float, float, float, float]) -> bytes:
    """Return an image whose sform has other rows."""
    return image_bytes(**{f"srow_{name}": row for name, row in rows.items()})


# How it goes wrong -> (content, part of the message)
CONTENT: dict[str, tuple[Callable[[], bytes], str]] = {
    "empty file": (lambda: b"", "is not a NIfTI file. Convert the study"),
    "text": (lambda: b"subject,age\n" * 100, "is not a NIfTI file"),
    "png": (png_bytes, "is not a NIfTI file"),
    "gzipped png": (lambda: gzip.compress(png_bytes()), "is not a NIfTI file"),
    "analyze 7.5": (lambda: image_bytes(magic=b""), "is not a NIfTI file"),
    "hdr/img pair": (lambda: image_bytes(magic=b"ni1"), "is not a NIfTI file"),
    "header alone": (lambda: image_bytes()[:340], "is not a NIfTI file"),
    "truncated": (lambda: image_bytes()[:-1], "is truncated: it cannot hold the 672 bytes"),
    "truncated gzip": (lambda: gzip.compress(image_bytes())[:-30], "is truncated or damaged"),
    "truncated inside gzip": (lambda: gzip.compress(image_bytes()[:-1]), "is truncated: 671 of 672 bytes"),
    "gzip header alone": (lambda: b"\x1f\x8b", "is truncated or damaged"),
    "bad gzip method": (lambda: b"\x1f\x8b\x63" + bytes(50), "is truncated or damaged"),
    "bad deflate stream": (lambda: flipped_bit(gzip.compress(image_bytes()), 10), "is truncated or damaged"),
    "bad checksum": (lambda: flipped_bit(gzip.compress(image_bytes(), 0), 900), "is truncated or damaged: CRC check"),
    "petabytes promised": (lambda: image_bytes(dim=[3, 32767, 32767, 32767, 1, 1, 1, 1]), "is truncated: it cannot"),
    "petabytes in gzip": (
        lambda: gzip.compress(image_bytes(dim=[3, 32767, 32767, 32767, 1, 1, 1, 1])),
        "is truncated: it cannot hold the 70362301923326 bytes",
    ),
    "voxels inside the header": (lambda: image_bytes(vox_offset=100), "is damaged: its voxels begin at 100"),
    "voxels at NaN": (lambda: image_bytes(vox_offset=np.nan), "is damaged: its voxels begin at nan"),
    "2-D": (lambda: image_bytes(np.ones((6, 7), np.int16)), "is 2-D with the shape (6, 7). Pass one 3-D volume"),
    "4-D": (lambda: image_bytes(np.ones((6, 7, 8, 2), np.int16)), "is 4-D with the shape (6, 7, 8, 2)"),
    "no axes": (lambda: image_bytes(dim=[0] * 8), "is 0-D"),
    "zero size": (lambda: image_bytes(dim=[3, 6, 0, 8, 1, 1, 1, 1]), "holds no voxels: its shape is (6, 0, 8)"),
    "negative size": (lambda: image_bytes(dim=[3, 6, -7, 8, 1, 1, 1, 1]), "holds no voxels: its shape is (6, -7, 8)"),
    "complex": (lambda: image_bytes(np.ones(SHAPE, np.complex64)), "holds complex voxels. Pass one real value"),
    "rgb": (rgb_image, "holds RGB voxels"),
    "unknown data type": (lambda: image_bytes(datatype=3), "has an unknown data type"),
    "infinite intercept": (lambda: image_bytes(scl_slope=2, scl_inter=np.inf), "has an invalid slope or intercept"),
}

AFFINES: dict[str, tuple[Callable[[], bytes], str]] = {
    "singular": (lambda: bad_affine(z=(-1, 0, 0, 0)), "the affine is singular"),
    "all zero": (lambda: bad_affine(x=(0,) * 4, y=(0,) * 4, z=(0,) * 4), "the affine is singular"),
    "NaN": (lambda: bad_affine(x=(np.nan, 0, 0, 0)), "the affine holds NaN"),
    "qform without spacing": (
        lambda: image_bytes(sform_code=0, qform_code=1, pixdim=[1, 0, 1, 1, 1, 1, 1, 1]),
        "the affine is singular",
    ),
    "qform with negative spacing": (
        lambda: image_bytes(sform_code=0, qform_code=1, pixdim=[1, -1, 1, 1, 1, 1, 1, 1]),
        "the qform is invalid",
    ),
    "qform that is no rotation": (
        lambda: image_bytes(sform_code=0, qform_code=1, quatern_b=1.0, quatern_c=1.0),
        "the qform is invalid",
    ),
}


def folder_in_its_place(path: Path) -> None:
    """Make a folder where a file should be."""
    path.mkdir()


def pipe_in_its_place(path: Path) -> None:
    """Make a named pipe, which a naive reader waits on for ever."""
    os.mkfifo(path)


PLACES: dict[str, tuple[Callable[[Path], None], str]] = {
    "missing": (lambda path: None, "does not exist. Pass the path of a .nii"),
    "folder": (folder_in_its_place, "is a folder or a device, not a file"),
    "pipe": (pipe_in_its_place, "is a folder or a device, not a file"),
}
