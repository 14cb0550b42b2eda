"""Files that are either complete or not there."""

from __future__ import annotations

import contextlib
import os
import secrets
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

from rmr_sdk.errors import OutputError


@contextlib.contextmanager
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
    try:
        with open(temporary, "xb") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, target)
    except OSError as error:
        raise OutputError(
            f'"{target}" cannot be written: {error.strerror or error}.',
            "Choose an existing folder that you may write to and that has room.",
            path=str(target),
        ) from error
    finally:
        with contextlib.suppress(OSError):
            temporary.unlink()
