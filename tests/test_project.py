"""Facts that stand in two places agree, and the project speaks of itself alone."""

from __future__ import annotations

import re
import subprocess
from pathlib import Path

import rmr_sdk

ROOT = Path(__file__).parent.parent


def tracked_files() -> list[Path]:
    listing = subprocess.run(["git", "ls-files"], cwd=ROOT, capture_output=True, text=True, check=True)
    return [ROOT / line for line in listing.stdout.splitlines()]


def test_version_is_the_one_of_the_project() -> None:
    found = re.search(r'^version = "(.+)"$', (ROOT / "pyproject.toml").read_text(), flags=re.M)
    assert found is not None
    assert found[1] == rmr_sdk.__version__


def test_shipped_data_stays_small() -> None:
    sizes = {path: path.stat().st_size for path in tracked_files() if path.exists()}
    demo = sum(size for path, size in sizes.items() if path.is_relative_to(ROOT / "rmr_sdk" / "demo"))
    bundles = sum(size for path, size in sizes.items() if path.is_relative_to(ROOT / "rmr_sdk" / "bundles"))
    assert demo <= 4 * 2**20
    assert 0 < bundles <= 12 * 2**20
