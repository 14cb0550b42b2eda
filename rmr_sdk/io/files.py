"""Files that are either complete or not there: one at a time, or all the files of a folder together.

Owns when the files of a run become visible; what is in them is the business of the modules that write them.
"""

from __future__ import annotations

import errno
import os
import secrets
import shutil
import tempfile
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import BinaryIO

from rmr_sdk.errors import OutputError


@contextmanager
def atomic_file(path: str | os.PathLike[str]) -> Iterator[BinaryIO]:
    """Open a file for writing that appears under its name only when all of it is on the disk.

    The bytes go to a temporary file in the same folder, which is flushed and renamed at the end, over an existing
    file if there is one; it is removed when anything fails.

    Args:
        path: The file to write; its folder must exist.

    Yields:
        The temporary file, open for binary writing.

    Raises:
        OutputError: The file cannot be created, written or renamed.
    """
    target = Path(path)
    temporary = target.with_name(f".rmr-{secrets.token_hex(8)}.part")
    with _write_errors(target):
        try:
            with open(temporary, "xb") as file:
                yield file
                file.flush()
                os.fsync(file.fileno())
            temporary.replace(target)
        finally:
            with suppress(OSError):
                temporary.unlink()


@contextmanager
def output_folder(folder: Path, names: Iterable[str], overwrite: bool) -> Iterator[Path]:
    """Offer an empty staging folder whose files move into `folder` once the body has succeeded.

    With `overwrite`, every name of `names` that the body did not write is removed from `folder`, so that no file of
    an earlier run stays beside the new ones. When the body fails, `folder` is as it was before; when a rename fails,
    none of the new files stays.

    Args:
        folder: Where the files go; made when missing, its parents too.
        names: All file names that the body may write.
        overwrite: Whether files of these names may be replaced.

    Raises:
        OutputError: As for `check_outputs`, or when a file cannot be written.
    """
    names = tuple(names)
    check_outputs(folder, names, overwrite)
    with _write_errors(folder):
        made = _make_folders(folder)
        try:
            staging = Path(tempfile.mkdtemp(prefix=".rmr-", dir=folder))
            try:
                yield staging
                _publish(staging, folder, names)
            finally:
                shutil.rmtree(staging, ignore_errors=True)
        except BaseException:
            with suppress(OSError):  # someone else has put a file there: the folder stays
                for path in reversed(made):
                    path.rmdir()
            raise


def check_outputs(folder: Path, names: Iterable[str], overwrite: bool) -> None:
    """Refuse a folder that could not take the files, before anything is computed.

    Raises:
        OutputError: `folder` or a parent is a file, it may not be written, or a file is there without `overwrite`.
    """
    existing = folder
    while not os.path.lexists(existing) and existing != existing.parent:
        existing = existing.parent
    if not os.path.isdir(existing):
        raise OutputError(f"{existing} is not a folder.", "Give another output folder.", path=str(folder))
    if not os.access(existing, os.W_OK | os.X_OK):
        raise OutputError(
            f"Folder {existing} may not be written.", "Change its permissions or give another one.", path=str(folder)
        )
    for name in names:
        target = folder / name
        if os.path.isdir(target):
            raise OutputError(f"{target} is a folder.", "Remove it or give another output folder.", path=str(target))
        if os.path.lexists(target) and not overwrite:
            raise OutputError(
                f"{target} exists.", "Pass overwrite=True (--overwrite) or give another folder.", path=str(target)
            )


def _publish(staging: Path, folder: Path, names: tuple[str, ...]) -> None:
    written = sorted(path.name for path in staging.iterdir())
    for name in written:
        _flush(staging / name)
    placed = []
    try:
        for name in written:
            (staging / name).replace(folder / name)
            placed.append(folder / name)
    except OSError:
        for path in placed:
            path.unlink(missing_ok=True)
        raise
    for name in set(names) - set(written):
        (folder / name).unlink(missing_ok=True)
    _flush(folder)


def _make_folders(folder: Path) -> list[Path]:
    """Make `folder` and its missing parents; return those made, outermost first."""
    missing = [path for path in (folder, *folder.parents) if not path.exists()]
    folder.mkdir(parents=True, exist_ok=True)
    return missing[::-1]


def _flush(path: Path) -> None:
    """Force what was written under `path` (a file, or a folder's names) to the disk."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


@contextmanager
def _write_errors(path: Path) -> Iterator[None]:
    """Turn the operating system's refusals into an `OutputError` that says what to do."""
    try:
        yield
    except OSError as error:
        reason = error.strerror or str(error)
        full = error.errno in (errno.ENOSPC, errno.EDQUOT)
        fix = "Free some space or give another folder." if full else "Check the folder and its permissions."
        raise OutputError(f"{path} cannot be written: {reason}.", fix, path=str(path)) from error
