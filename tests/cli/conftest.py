"""Fixtures of the command line: the tiny bundle, a study on the disk, and the command itself."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from tiny_study import make_tiny, write_study

from rmr_sdk.cli import main


@pytest.fixture(scope="session")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Give the path of the tiny bundle."""
    path = tmp_path_factory.mktemp("bundles") / "tiny.zip"
    make_tiny(path)
    return path


@pytest.fixture(scope="session")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Give a folder with a study and the mask of its lesion."""
    return write_study(tmp_path_factory.mktemp("study"), mask=True)


@pytest.fixture(scope="session")
def rmr(bundle: Path, tmp_path_factory: pytest.TempPathFactory) -> Callable[..., int]:
    """Give a function that runs a command, `run` and `demo` with the tiny bundle and a cache of the tests' own."""
    cache = tmp_path_factory.mktemp("cache")

    def call(*arguments: object) -> int:
        words = [str(argument) for argument in arguments]
        if words[0] in ("run", "demo"):
            words = [words[0], "--bundle", str(bundle), "--cache-dir", str(cache), *words[1:]]
        return main(words)

    return call
