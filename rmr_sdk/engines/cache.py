"""The user's cache of compiled networks: what an engine made of a graph, kept for the next opening.

Owns where entries lie, how they are written at once and recognised when damaged, how two processes do not make the same
one twice, and how much of the disk they take. Does not know what is in them, nor when they expire: an engine puts
everything that makes an entry invalid into its key.

    <cache>/<engine>/<key>.bin     sha256 of the rest (32 bytes), then the engine's own bytes
    <cache>/<engine>/<key>.lock    while a process makes that entry
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import logging
import os
import secrets
import time
from collections.abc import Iterator, Mapping
from pathlib import Path

from rmr_sdk.engines.file_lock import FileLock
from rmr_sdk.errors import ConfigError

logger = logging.getLogger(__name__)

LIMIT_VARIABLE = "RMR_CACHE_LIMIT_MIB"
"""Environment variable: the most MiB that the cache keeps; 0 keeps nothing."""

DEFAULT_LIMIT_MIB = 4096
"""Some forty engines of the largest network, 95 MB each."""

BUILD_TIMEOUT_S = 900.0
"""How long one process waits for another that makes the same entry. A TensorRT build on a Jetson takes minutes."""

_DIGEST_BYTES = hashlib.sha256().digest_size
_ABANDONED_S = 3600.0


def default_cache_dir() -> Path:
    """Give the user's cache folder: `$XDG_CACHE_HOME/rmr-sdk`, else `~/.cache/rmr-sdk`."""
    configured = os.environ.get("XDG_CACHE_HOME", "")
    base = Path(configured) if os.path.isabs(configured) else Path(os.path.expanduser("~")) / ".cache"
    return base / "rmr-sdk"


def cache_limit_mib() -> float:
    """Give the most MiB that the cache keeps: `$RMR_CACHE_LIMIT_MIB`, else 4096.

    Raises:
        ConfigError: The variable holds no number from 0 on.
    """
    text = os.environ.get(LIMIT_VARIABLE, "")
    try:
        limit = float(text or DEFAULT_LIMIT_MIB)
    except ValueError:
        limit = -1.0
    if not 0 <= limit < float("inf"):
        raise ConfigError(f'{LIMIT_VARIABLE} is "{text}".', "Set it to a number of MiB from 0 on, or unset it.")
    return limit


def cache_key(facts: Mapping[str, object]) -> str:
    """Give one name for all that makes an entry invalid when it changes."""
    return hashlib.sha256(json.dumps(facts, sort_keys=True).encode()).hexdigest()[:32]


class EngineCache:
    """The entries of one engine.

    Args:
        engine: Its name.
        cache_dir: Folder of the cache; None for the user's.
        limit_mib: Most that all engines of the cache keep together; None for `cache_limit_mib`.

    Raises:
        ConfigError: `RMR_CACHE_LIMIT_MIB` holds no number.
    """

    def __init__(self, engine: str, cache_dir: Path | None, limit_mib: float | None = None) -> None:
        self._root = cache_dir or default_cache_dir()
        self._folder = self._root / engine
        self._limit = int((cache_limit_mib() if limit_mib is None else limit_mib) * 2**20)

    def load(self, key: str) -> bytes | None:
        """Read an entry; None when there is none, or it is damaged and has to be made again."""
        try:
            content = self._file(key).read_bytes()
        except OSError:
            return None
        data = content[_DIGEST_BYTES:]
        if hashlib.sha256(data).digest() != content[:_DIGEST_BYTES]:
            logger.info("A damaged entry of the engine cache is made again.")
            return None
        with contextlib.suppress(OSError):  # of a cache that may only be read
            os.utime(self._file(key))  # by which the least recently used is known
        return data

    def store(self, key: str, data: bytes) -> str | None:
        """Write an entry as a whole or not at all; the least recently used make room for it.

        Returns:
            A warning for the user when it could not be written, else None.
        """
        if _DIGEST_BYTES + len(data) > self._limit:
            return _warn(
                f"An engine of {len(data) / 2**20:.1f} MiB is larger than the engine cache may be "
                f"({self._limit / 2**20:g} MiB): it is made anew at each opening. Raise {LIMIT_VARIABLE}."
            )
        temporary = self._folder / f".{key}.{secrets.token_hex(8)}"
        try:
            self._folder.mkdir(mode=0o700, parents=True, exist_ok=True)
            self._make_room(_DIGEST_BYTES + len(data), self._file(key))
            try:
                temporary.write_bytes(hashlib.sha256(data).digest() + data)
                temporary.replace(self._file(key))
            finally:
                temporary.unlink(missing_ok=True)
        except OSError as error:
            return _warn(
                f"The engine cache cannot be written ({error.strerror}): the engine is made anew at each opening. "
                "Pass a cache folder that can be written."
            )
        return None

    @contextlib.contextmanager
    def making(self, key: str, timeout_s: float = BUILD_TIMEOUT_S) -> Iterator[bool]:
        """Keep other processes and threads from making the same entry meanwhile; look for it again inside.

        Args:
            key: The entry.
            timeout_s: How long to wait for another that makes it.

        Returns:
            Whether this is the only one: no, where the cache may only be read, or the other takes too long. Make the
            entry all the same; storing it twice does no harm.
        """
        with FileLock(self._folder / f"{key}.lock").held(timeout_s) as alone:
            yield alone

    def _make_room(self, nbytes: int, target: Path) -> None:
        """Remove the least recently used until `nbytes` more fit, and what killed processes left behind."""
        now, found = time.time(), []
        for path in self._root.glob("*/*"):
            with contextlib.suppress(OSError):  # another process was faster
                facts = path.stat()
                if path.suffix == ".bin" and path != target:
                    found.append((facts.st_mtime, facts.st_size, path))
                elif (path.name.startswith(".") or path.suffix == ".lock") and now - facts.st_mtime > _ABANDONED_S:
                    path.unlink()
        taken = sum(size for _, size, _ in found)
        for _, size, path in sorted(found):
            if taken + nbytes <= self._limit:
                return
            path.unlink(missing_ok=True)
            taken -= size
            logger.info("An entry of the engine cache made room for a newer one.")

    def _file(self, key: str) -> Path:
        return self._folder / f"{key}.bin"


def _warn(warning: str) -> str:
    logger.warning(warning)
    return warning
