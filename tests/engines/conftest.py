"""Fixtures of the engine tests: the tiny bundle in three precisions, and a cache of its own for each test."""

from __future__ import annotations

from pathlib import Path

import pytest
from tiny_bundle import make_bundle

from rmr_sdk.bundle import Bundle


@pytest.fixture(scope="session")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    """Give the tiny bundle with an fp32, an fp16 and an int8 graph."""
    return make_bundle(tmp_path_factory.mktemp("bundles") / "tiny.zip", ("fp32", "fp16", "int8"))


@pytest.fixture
def cache_dir(tmp_path: Path) -> Path:
    """Give an empty cache."""
    return tmp_path / "cache"
