"""What the C interface is built with: where things lie, and cmake."""

from __future__ import annotations

import importlib.util
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
BUILD = ROOT / "build" / "capi-tests"


@dataclass(frozen=True, slots=True)
class Tools:
    """What the build needs."""

    cmake: str
    compiler: str
    options: tuple[str, ...]

    def run(self, *arguments: str | Path) -> None:
        """Run cmake; its output is the message of the failure."""
        done = subprocess.run([self.cmake, *map(str, arguments)], capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stdout[-6000:] + done.stderr[-2000:]


def find_package_folder(name: str, *inside: str) -> Path:
    """Return a folder of an installed package, without importing it; skip where it is not installed."""
    spec = importlib.util.find_spec(name)
    if spec is None or not spec.submodule_search_locations:
        pytest.skip(f"{name} is not installed")
    return Path(spec.submodule_search_locations[0], *inside)


def find_header(relative: str) -> Path:
    """Return the folder that holds a header, of the package cmeel-cereal or of the system; skip where there is none."""
    cereal = Path("cmeel.prefix", "include", "cereal", "external")
    folders = [*(Path(entry) / cereal for entry in sys.path), Path("/usr/include")]
    found = [folder for folder in folders if (folder / relative).is_file()]
    if not found:
        pytest.skip(f"{relative} is not installed: rapidjson-dev, or pip install cmeel-cereal")
    return found[0]
