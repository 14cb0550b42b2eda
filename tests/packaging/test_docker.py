"""The Dockerfiles, which are built on other machines: linted, and what they copy exists and suffices."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
FILES = sorted((ROOT / "docker").glob("Dockerfile.*"))
TOOLS = Path(sys.executable).parent


def instructions(file: Path) -> list[tuple[str, str]]:
    """Give the instructions of a Dockerfile with what follows each; comments are left out, lines joined."""
    text = re.sub(r"^\s*#.*\n", "", file.read_text(), flags=re.M).replace("\\\n", "")
    return [(line.split(" ", 1)[0], line.split(" ", 1)[1]) for line in text.splitlines() if line.strip()]


def copied(file: Path) -> list[str]:
    """Give what a Dockerfile copies out of the tree."""
    words = [what.split()[:-1] for name, what in instructions(file) if name == "COPY" and "--from" not in what]
    return [word for line in words for word in line]


def test_there_is_one_for_each_kind_of_machine() -> None:
    assert [file.suffix for file in FILES] == [".jetson", ".workstation"]


@pytest.mark.parametrize("file", FILES, ids=lambda file: file.suffix)
def test_lint(file: Path) -> None:
    done = subprocess.run([TOOLS / "hadolint", file], capture_output=True, text=True)
    assert (done.returncode, done.stdout) == (0, "")


@pytest.mark.parametrize("file", FILES, ids=lambda file: file.suffix)
def test_what_the_build_reads_is_copied_and_not_ignored(file: Path) -> None:
    names = copied(file)
    assert all((ROOT / name).exists() for name in names)
    kept = {line[1:] for line in (ROOT / ".dockerignore").read_text().splitlines() if line.startswith("!")}
    assert set(names) == kept
    needed = {
        "pyproject.toml",
        "setup.py",
        "CMakeLists.txt",
        "LICENSE",
        "NOTICE",
        "README.md",
        "csrc",
        "include",
        "rmr_sdk",
    }
    assert needed <= set(names)


@pytest.mark.parametrize("file", FILES, ids=lambda file: file.suffix)
def test_the_image_runs_without_root_and_without_the_compiler(file: Path) -> None:
    steps = instructions(file)
    last = max(number for number, (name, _) in enumerate(steps) if name == "FROM")
    final = steps[last:]
    assert ("USER", "10001") in final
    assert final[-1] == ("CMD", '["rmr", "doctor"]')
    assert not any("apt-get" in what for _, what in final)


def test_the_jetson_image_keeps_the_tensorrt_of_its_base() -> None:
    text = (ROOT / "docker" / "Dockerfile.jetson").read_text()
    assert "--system-site-packages" in text
    assert "'.[tensorrt]'" in text
    project = (ROOT / "pyproject.toml").read_text()
    (extra,) = re.findall(r"^tensorrt = \[(.*)\]$", project, re.M)
    wheels = [item for item in re.findall(r'"([^"]+)"', extra) if item.startswith("tensorrt")]
    assert wheels
    assert all("platform_machine == 'x86_64'" in item for item in wheels)
