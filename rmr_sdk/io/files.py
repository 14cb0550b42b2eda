"""Files that are either complete or not there: one at a time, or all the files and folders of a run together.

Owns when the files of a run become visible; what is in them is the business of the modules that write them.
"""

from __future__ import annotations

import errno
import os
import re
import secrets
import shutil
import tempfile
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from types import MappingProxyType
from typing import BinaryIO

from rmr_sdk.errors import OutputError

Trees = Mapping[str, "re.Pattern[str]"]
"""Name of a folder -> what the files that a run writes into it are called, relative to it."""

_NO_TREES: Trees = MappingProxyType({})


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
def output_folder(folder: Path, names: Iterable[str], overwrite: bool, trees: Trees = _NO_TREES) -> Iterator[Path]:
    """Offer an empty staging folder whose files move into `folder` once the body has succeeded.

    With `overwrite`, every name of `names` that the body did not write is removed from `folder`, so that no file of
    an earlier run stays beside the new ones; the same with folders, unless they hold files of other origin. When the
    body or a rename fails, or is interrupted, `folder` is as it was before. Only where the disk then refuses to rename
    the earlier files back, they stay in a folder `.rmr-earlier-*` beside.

    Args:
        folder: Where the files go; made when missing, its parents too.
        names: All file names that the body may write.
        overwrite: Whether files of these names may be replaced.
        trees: All folders that the body may write.

    Raises:
        OutputError: As for `check_outputs` and `check_tree`, or when a file cannot be written.
    """
    names = tuple(names)
    check_outputs(folder, names, overwrite, trees)
    with _write_errors(folder):
        made = _make_folders(folder)
        try:
            staging = Path(tempfile.mkdtemp(prefix=".rmr-", dir=folder))
            try:
                yield staging
                for name in trees.keys() & {path.name for path in staging.iterdir()}:
                    check_tree(folder / name, trees[name])
                _publish(staging, folder, (*names, *_ours(folder, trees)))
            finally:
                shutil.rmtree(staging, ignore_errors=True)
        except BaseException:
            with suppress(OSError):  # someone else has put a file there: the folder stays
                for path in reversed(made):
                    path.rmdir()
            raise


def make_folder(folder: Path) -> None:
    """Make a folder and its missing parents.

    Raises:
        OutputError: They cannot be made.
    """
    with _write_errors(folder):
        folder.mkdir(parents=True, exist_ok=True)


def check_outputs(folder: Path, names: Iterable[str], overwrite: bool, trees: Trees = _NO_TREES) -> None:
    """Refuse a folder that could not take the files, before anything is computed.

    Raises:
        OutputError: `folder` or a parent is a file, it may not be written, or a file, or a folder of an earlier run,
            is there without `overwrite`.
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
        _check_absent(target, overwrite)
    for name in _ours(folder, trees):
        _check_absent(folder / name, overwrite)


def check_tree(folder: Path, names: re.Pattern[str]) -> None:
    """Refuse a folder in the place of one that will be written, unless an earlier run wrote all of it.

    Raises:
        OutputError: It is a file or a link, or holds a file of another origin: it is not ours to replace.
    """
    if os.path.lexists(folder) and not _is_ours(folder, names):
        raise OutputError(
            f"{folder} holds files that no earlier run wrote.", "Give another output folder.", path=str(folder)
        )


def _check_absent(target: Path, overwrite: bool) -> None:
    if os.path.lexists(target) and not overwrite:
        raise OutputError(
            f"{target} exists.", "Pass overwrite=True (--overwrite) or give another folder.", path=str(target)
        )


def _ours(folder: Path, trees: Trees) -> list[str]:
    """Return the folders that an earlier run wrote."""
    return [name for name, names in trees.items() if _is_ours(folder / name, names)]


def _is_ours(folder: Path, names: re.Pattern[str]) -> bool:
    if os.path.islink(folder) or not os.path.isdir(folder):
        return False
    files = [path for path in folder.rglob("*") if path.is_symlink() or not path.is_dir()]
    return all(names.fullmatch(path.relative_to(folder).as_posix()) for path in files)


def _publish(staging: Path, folder: Path, names: tuple[str, ...]) -> None:
    """Move what was written to its place; what is in the way steps aside first, and comes back on any failure."""
    written = sorted(path.name for path in staging.iterdir())
    for path in (*staging.rglob("*"), staging):
        _flush(path)
    aside = Path(tempfile.mkdtemp(prefix=".rmr-earlier-", dir=folder))
    earlier = sorted(name for name in {*names, *written} if os.path.lexists(folder / name))
    moves = [*((folder / name, aside / name) for name in earlier), *((staging / n, folder / n) for n in written)]
    done = []
    try:
        for source, target in moves:
            done.append((source, target))  # noted first: an interrupt may come just after the move
            source.replace(target)
        _flush(folder)
    except BaseException:
        for source, target in reversed(done):
            with suppress(OSError):
                target.replace(source)
        with suppress(OSError):  # not empty where the disk refused even this: then the earlier files stay in there
            aside.rmdir()
        raise
    shutil.rmtree(aside, ignore_errors=True)


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
        full = error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
        fix = "Free some space or give another folder." if full else "Check the folder and its permissions."
        raise OutputError(f"{path} cannot be written: {reason}.", fix, path=str(path)) from error
