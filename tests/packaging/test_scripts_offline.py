"""verify.sh and install.sh on a folder of the same form as a delivery: what was changed is named, and what to do."""

from __future__ import annotations

import platform
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from papers import write_sums, write_target
from wheel_file import Target

ROOT = Path(__file__).parents[2]
HERE = f"{sys.version_info.major}.{sys.version_info.minor}"
MACHINE = platform.machine()


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Give a small folder with the scripts, a target that fits this machine, and its checksums."""
    folder = tmp_path / "a delivery"
    (folder / "wheels").mkdir(parents=True)
    (folder / "wheels" / "thing.whl").write_bytes(b"wheel")
    (folder / "name with spaces.txt").write_text("text")
    for name in ("install.sh", "verify.sh"):
        shutil.copy(ROOT / "packaging" / "offline" / name, folder)
    write_target(folder / "target.env", Target(HERE, MACHINE, 17))
    write_sums(folder)
    return folder


def sh(script: Path, *arguments: str) -> tuple[int, str]:
    done = subprocess.run(["sh", str(script), *arguments], capture_output=True, text=True, cwd="/", timeout=60)
    return done.returncode, done.stdout + done.stderr


def test_folder_as_it_was_made(folder: Path) -> None:
    code, said = sh(folder / "verify.sh")
    assert (code, said) == (0, "verify: 5 files are as they were made.\n")


def test_plain_sha256sum_reads_the_file(folder: Path) -> None:
    subprocess.run(["sha256sum", "--check", "--strict", "--quiet", "SHA256SUMS"], cwd=folder, check=True)
    (folder / "wheels" / "thing.whl").write_bytes(b"wheeL")
    done = subprocess.run(["sha256sum", "--check", "--quiet", "SHA256SUMS"], cwd=folder, capture_output=True, text=True)
    assert done.returncode == 1
    assert "wheels/thing.whl: FAILED" in done.stdout


@pytest.mark.parametrize("script", ["verify.sh", "install.sh"])
def test_changed_file_stops_both_scripts(folder: Path, script: str) -> None:
    (folder / "wheels" / "thing.whl").write_bytes(b"wheeL")
    code, said = sh(folder / script)
    assert code == 1
    assert "wheels/thing.whl: FAILED" in said
    assert "Do not install this folder" in said


def test_missing_and_added_files_are_named(folder: Path) -> None:
    added = folder / "wheels" / "added.whl"
    added.write_bytes(b"")
    assert sh(folder / "verify.sh") == (
        1,
        "verify: not listed: wheels/added.whl\n"
        "verify: files were added (named above). Remove them, or copy the folder again.\n",
    )
    added.unlink()
    (folder / "link").symlink_to("/etc/passwd")
    assert "symbolic links" in sh(folder / "verify.sh")[1]
    (folder / "link").unlink()
    (folder / "name with spaces.txt").unlink()
    code, said = sh(folder / "verify.sh")
    assert code == 1
    assert "name with spaces.txt" in said
    (folder / "SHA256SUMS").unlink()
    assert sh(folder / "verify.sh") == (
        1,
        "verify: SHA256SUMS is missing. This folder is not complete: copy it again.\n",
    )


def test_digest_given_another_way_finds_a_folder_that_was_made_anew(folder: Path) -> None:
    digest = write_sums(folder)
    assert sh(folder / "verify.sh", digest)[0] == 0
    (folder / "wheels" / "thing.whl").write_bytes(b"other")
    write_sums(folder)
    assert sh(folder / "verify.sh")[0] == 0, "who changes a file can write its checksum, too"
    code, said = sh(folder / "verify.sh", digest)
    assert code == 1
    assert "not the one given" in said


@pytest.mark.parametrize(
    ("target", "message"),
    [
        (Target("3.9", MACHINE, 17), f"this folder is for Python 3.9, and PYTHON is {HERE}. Pass --python, or ask"),
        (Target(HERE, "riscv64", 17), f"this folder is for riscv64, and this machine is {MACHINE}. Ask for a folder"),
        (Target(HERE, MACHINE, 99), "this folder needs glibc 2.99, and this system has 2."),
    ],
)
def test_wrong_machine_is_told_what_to_ask_for(folder: Path, target: Target, message: str) -> None:
    write_target(folder / "target.env", target)
    write_sums(folder)
    code, said = sh(folder / "install.sh", "--python", sys.executable)
    assert code == 1
    assert message in said.replace(sys.executable, "PYTHON")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("--pyton", "python3"), "unknown option --pyton"),
        (("--venv",), "--venv needs a value."),
        (("--python", "python3.99"), f"python3.99 is not here. Install Python {HERE}, or pass --python PYTHON."),
        (("--python", sys.executable, "--venv", "/dev/null/venv"), "no environment could be made in /dev/null/venv"),
    ],
)
def test_options_that_cannot_be(folder: Path, arguments: tuple[str, ...], message: str) -> None:
    code, said = sh(folder / "install.sh", *arguments)
    assert code == 1
    assert message in said
