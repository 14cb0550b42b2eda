"""The user's cache of compiled networks: what an engine made of a graph, kept for the next opening.

Owns where entries lie, how they are written at once and recognised when damaged. Does not know what is in them, nor
when they expire: an engine puts everything that makes an entry invalid into its key.

    <cache>/<engine>/<key>.bin    sha256 of the rest (32 bytes), then the engine's own bytes
"""

from __future__ import annotations

import hashlib
import json
import logging
import os
import secrets
from collections.abc import Mapping
from pathlib import Path

logger = logging.getLogger(__name__)

_DIGEST_BYTES = hashlib.sha256().digest_size


def default_cache_dir() -> Path:
    """Give the user's cache folder: `$XDG_CACHE_HOME/rmr-sdk`, else `~/.cache/rmr-sdk`."""
    configured = os.environ.get("XDG_CACHE_HOME", "")
    base = Path(configured) if os.path.isabs(configured) else Path(os.path.expanduser("~")) / ".cache"
    return base / "rmr-sdk"


def cache_key(facts: Mapping[str, object]) -> str:
    """Give one name for all that makes an entry invalid when it changes."""
    return hashlib.sha256(json.dumps(facts, sort_keys=True).encode()).hexdigest()[:32]


class EngineCache:
    """The entries of one engine.

    Args:
        engine: Its name.
        cache_dir: Folder of the cache; None for the user's.
    """

    def __init__(self, engine: str, cache_dir: Path | None) -> None:
        self._folder = (cache_dir or default_cache_dir()) / engine

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
        return data

    def store(self, key: str, data: bytes) -> str | None:
        """Write an entry as a whole or not at all.

        Returns:
            A warning for the user when it could not be written, else None.
        """
        temporary = self._folder / f".{key}.{secrets.token_hex(8)}"
        try:
            self._folder.mkdir(mode=0o700, parents=True, exist_ok=True)
            try:
                temporary.write_bytes(hashlib.sha256(data).digest() + data)
                temporary.replace(self._file(key))
            finally:
                temporary.unlink(missing_ok=True)
        except OSError as error:
            warning = (
                f"The engine cache cannot be written ({error.strerror}): the engine is made anew at each opening. "
                "Pass a cache folder that can be written."
            )
            logger.warning(warning)
            return warning
        return None

    def _file(self, key: str) -> Path:
        return self._folder / f"{key}.bin"
