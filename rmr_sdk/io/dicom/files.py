"""Where the files of a DICOM study are: in a folder at any depth, or in a .zip that is read in place.

Owns what counts as a DICOM file, by content and not by name. Nothing is unpacked to the disk, and no name is kept.
"""

from __future__ import annotations

import os
import re
import zipfile
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import BinaryIO, cast

from rmr_sdk.errors import FormatError, StudyError

_MAGIC = slice(128, 132)
_HEAD = 132
_GROUPS = (b"\x02\x00", b"\x08\x00")  # a file without preamble begins with one of these, little endian
_NAMED_LIKE_DICOM = re.compile(r"\.(dcm|dicom|ima|\d+)$|^[^.]+$", re.IGNORECASE)
_INDEX_FILES = ("DICOMDIR",)
_COPY = "Copy or export the study again."


@dataclass(frozen=True, slots=True, repr=False)
class Entry:
    """A file of a folder or of an archive.

    Attributes:
        path: The file, or the archive.
        member: Name within the archive.
        archive: The open archive; None for a file of its own.
    """

    path: Path
    member: str = ""
    archive: zipfile.ZipFile | None = None

    def open(self) -> BinaryIO:
        """Open the file for reading; an archive's is decompressed as it is read."""
        if self.archive is None:
            return open(self.path, "rb")
        return cast(BinaryIO, self.archive.open(self.member))

    @property
    def named_like_dicom(self) -> bool:
        """Tell whether the name says DICOM, or says nothing."""
        return bool(_NAMED_LIKE_DICOM.search(PurePosixPath(self.member or self.path.name).name))

    @property
    def looks_like_dicom(self) -> bool:
        """Tell whether the content begins as DICOM does.

        Raises:
            OSError, zlib.error, zipfile.BadZipFile: It cannot be read.
        """
        with self.open() as file:
            head = file.read(_HEAD)
        return head[_MAGIC] == b"DICM" or (head[:2] in _GROUPS and head[3:4] == b"\x00" and len(head) == _HEAD)


@contextmanager
def open_entries(path: str | os.PathLike[str]) -> Iterator[list[Entry]]:
    """Give the files of a folder and the folders in it, or of a .zip, in the order of their names.

    Hidden files and DICOMDIR, the index of a medium, are left out; links to folders are not followed.

    Raises:
        StudyError: There is no such folder or archive, or the archive is encrypted.
        FormatError: The file is no archive.
    """
    root, shown = Path(path), os.fspath(path)
    if os.path.isdir(root):
        yield [Entry(file) for file in _walk(root)]
        return
    if not os.path.isfile(root):
        raise StudyError(f'"{shown}" does not exist.', "Pass the folder or the .zip that holds one DICOM study.")
    try:
        with zipfile.ZipFile(root) as archive:
            members = [info for info in archive.infolist() if not info.is_dir() and _is_wanted(info.filename)]
            if any(info.flag_bits & 1 for info in members):
                raise StudyError("the archive is encrypted.", "Unpack it and pass the folder.")
            yield [Entry(root, name, archive) for name in sorted(info.filename for info in members)]
    except (zipfile.BadZipFile, zlib.error) as error:
        raise FormatError(f'"{shown}" is no .zip archive, or is damaged.', _COPY) from error
    except OSError as error:
        raise FormatError(f'"{shown}" cannot be read: {error.strerror or error}.', "Check its permissions.") from error


def holds_dicom(folder: Path) -> bool:
    """Tell whether a folder holds at least one DICOM file, at any depth. Needs no library."""
    return any(_begins_as_dicom(Entry(file)) for file in _walk(folder))


def _begins_as_dicom(entry: Entry) -> bool:
    try:
        return entry.looks_like_dicom
    except OSError:
        return False


def _walk(root: Path) -> Iterator[Path]:
    for folder, folders, names in os.walk(root):
        folders[:] = sorted(name for name in folders if _is_wanted(name))
        for name in sorted(filter(_is_wanted, names)):
            if os.path.isfile(file := Path(folder, name)):
                yield file


def _is_wanted(name: str) -> bool:
    parts = PurePosixPath(name).parts
    return not any(part.startswith((".", "__MACOSX")) for part in parts) and parts[-1].upper() not in _INDEX_FILES
