"""Make the folder that takes the SDK to a machine without a network.

    python packaging/wheelhouse.py [--out DIR] [--extras dicom align] [--cuda AUTO|ON|OFF]
    python packaging/wheelhouse.py --machine aarch64 --python 3.10 --glibc 35 [--out DIR]

The first form builds the SDK's wheel for the Python that runs it. The second makes the folder for a machine of another
kind: dependency wheels for it, and the source with all that its build needs, so that the wheel is built over there.
docs/offline.md tells the rest.
"""

from __future__ import annotations

import argparse
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

from building import Index, build_packages, build_sdist, build_wheel, clean_copy, fetch, this_glibc, this_target
from compiled_in import bundle_notice, compiled_in, sdist_notice
from licences import Notice, check_notices, wheel_notice, write_notices
from packaging.requirements import Requirement
from papers import copy_files, write_readme, write_requirements, write_sums, write_target
from sbom import write_sbom
from wheel_file import Target, WheelFile, WheelhouseError

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

ROOT = Path(__file__).parent.parent
JETPACK_6_GLIBC = 35
"""Ubuntu 22.04; also the oldest glibc that OpenVINO's wheels for aarch64 take."""


@dataclass(frozen=True, slots=True)
class Wish:
    """What a delivery is to be.

    Attributes:
        out: The folder to make; one that an earlier run made is replaced.
        extras: Extras of the SDK whose packages come along.
        build: Packages to bring as well that the index has as source alone: wheels of them are built.
        cuda: "AUTO", "ON" or "OFF": whether the SDK's wheel has CUDA kernels.
        target: A machine of another kind; None for this kind, with a wheel of the SDK.
        index: Where dependency wheels come from.
        accepted: Packages whose missing licence a person has looked up.
    """

    out: Path
    extras: tuple[str, ...] = ()
    build: tuple[str, ...] = ()
    cuda: str = "AUTO"
    target: Target | None = None
    index: Index = field(default_factory=Index)
    accepted: tuple[str, ...] = ()


def make_wheelhouse(wish: Wish, tree: Path = ROOT) -> Path:
    """Make the folder: build, fetch, collect licences, list the parts, sum up.

    Returns:
        The folder.

    Raises:
        WheelhouseError: A tool failed, a wheel or a licence is missing, or the folder holds something else.
    """
    _check_replaceable(wish.out)
    epoch = source_time(tree)
    with tempfile.TemporaryDirectory() as work:
        folder = Path(work) / "folder"
        clean = clean_copy(tree, Path(work) / "tree")
        sdist = build_sdist(clean, folder / "sdist", epoch)
        own, target = _own(wish, sdist, Path(work) / "own", epoch)
        built = build_packages(wish.build, folder / "wheels", wish.index)
        roots = [*own.requirements(target, wish.extras), *built]
        needed = fetch(roots, target, folder / "wheels", wish.index)
        tools = [] if wish.target is None else _build_tools(clean, folder / "build-wheels", target, wish.index)
        if wish.target is None:
            shutil.copy(own.path, folder / "wheels")
        write_requirements(folder / "requirements.txt", needed)
        copy_files(clean, folder)
        write_target(folder / "target.env", target)
        write_readme(folder / "README.md", own, target, wish.extras)
        product = wheel_notice(own) if wish.target is None else sdist_notice(own, clean)
        _list_parts(folder, clean, product, own, [*tools, *needed], target, wish.accepted, epoch)
        write_sums(folder)
        _move(folder, wish.out)
    return wish.out


def _list_parts(
    folder: Path,
    tree: Path,
    product: Notice,
    own: WheelFile,
    others: Sequence[WheelFile],
    target: Target,
    accepted: Sequence[str],
    epoch: int,
) -> None:
    """Write licences and bill of materials of the SDK, the other wheels, what is compiled in, and the bundles."""
    bundles = sorted((folder / "bundles").glob("*.zip"))
    wheels = list({wheel.name: wheel for wheel in others}.values())
    parts = [*map(wheel_notice, wheels), *compiled_in(own), *(bundle_notice(path, tree / "NOTICE") for path in bundles)]
    check_notices([product, *parts], accepted)
    write_notices([product, *parts], folder / "THIRD_PARTY_LICENSES")
    files = {wheel.name: wheel.path for wheel in (own, *wheels)} | {path.stem: path for path in bundles}
    when = datetime.fromtimestamp(epoch, timezone.utc)
    write_sbom(folder / "sbom.cdx.json", product, parts, files, wheels, target, when)


def fetch_dependencies(out: Path, index: Index, tree: Path = ROOT) -> list[WheelFile]:
    """Bring the wheels of the SDK's own dependencies, without extras, into a folder that holds nothing else."""
    if out.exists():
        shutil.rmtree(out)
    out.mkdir(parents=True)
    asked = _project(tree)["project"]["dependencies"]
    return fetch([Requirement(line) for line in asked], this_target(this_glibc()), out, index)


def source_time(tree: Path) -> int:
    """Return the seconds since 1970 that archives are given: SOURCE_DATE_EPOCH, else those of the last commit."""
    if "SOURCE_DATE_EPOCH" in os.environ:
        return int(os.environ["SOURCE_DATE_EPOCH"])
    log = ["git", "-C", str(tree), "log", "-1", "--format=%ct"]
    try:
        return int(subprocess.run(log, capture_output=True, text=True, check=True).stdout)
    except (OSError, ValueError, subprocess.CalledProcessError):
        return int((tree / "pyproject.toml").stat().st_mtime)


def _own(wish: Wish, sdist: Path, out: Path, epoch: int) -> tuple[WheelFile, Target]:
    """Build the SDK's wheel, which decides the target; for another kind of machine its source stands in."""
    if wish.target is not None:
        return WheelFile.of_sdist(sdist), wish.target
    own = WheelFile.read(build_wheel(sdist, out, wish.cuda, epoch))
    return own, this_target(own.glibc)


def _build_tools(tree: Path, out: Path, target: Target, index: Index) -> list[WheelFile]:
    """Bring what pyproject.toml asks for to build the wheel, for the machine that will."""
    asked = _project(tree)["build-system"]["requires"]
    return fetch([Requirement(line) for line in asked], target, out, index)


def _project(tree: Path) -> dict[str, Any]:
    return tomllib.loads((tree / "pyproject.toml").read_text(encoding="utf-8"))


def _check_replaceable(folder: Path) -> None:
    if folder.exists() and any(folder.iterdir()) and not (folder / "SHA256SUMS").exists():
        raise WheelhouseError(f"{folder} holds something that is no delivery. Name another folder with --out.")


def _move(folder: Path, out: Path) -> None:
    if out.exists():
        shutil.rmtree(out)
    out.parent.mkdir(parents=True, exist_ok=True)
    shutil.move(folder, out)


def main(arguments: Sequence[str] | None = None) -> int:
    """Make the folder and say what it holds; return 0, or 1 where it cannot be made."""
    options = _parser().parse_args(arguments)
    try:
        if options.dependencies is not None:
            found = fetch_dependencies(options.dependencies, Index(options.wheels, options.constraints))
            print(f"{options.dependencies}: {len(found)} wheels")
            return 0
        folder = make_wheelhouse(_wish(options))
    except WheelhouseError as error:
        print(f"wheelhouse: {error}", file=sys.stderr)
        return 1
    files = [path for path in folder.rglob("*") if path.is_file()]
    size = sum(path.stat().st_size for path in files) / 2**20
    print(f"{folder}: {len(files)} files, {size:.0f} MiB")
    for path in sorted(folder.glob("*wheels/*.whl")):
        print(f"  {path.relative_to(folder)}")
    print(f"Digest of SHA256SUMS, to be told another way: {write_sums(folder)}")
    return 0


def _wish(options: argparse.Namespace) -> Wish:
    here = this_target(JETPACK_6_GLIBC)
    asked = Target(options.python or here.python, options.machine or here.machine, options.glibc)
    other = (asked.python, asked.machine) != (here.python, here.machine)
    if other and asked.machine == here.machine:
        raise WheelhouseError(
            f"The wheel for Python {asked.python} is built by Python {asked.python}: "
            f"make wheelhouse PYTHON=python{asked.python} VENV=.venv-{asked.python}"
        )
    if other and options.build:
        raise WheelhouseError(f"--build makes wheels for this machine, not for {asked.machine}. Build them over there.")
    return Wish(
        out=options.out,
        extras=tuple(options.extras),
        build=tuple(options.build),
        cuda=options.cuda,
        target=asked if other else None,
        index=Index(options.wheels, options.constraints),
        accepted=tuple(options.accept_licence),
    )


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description="Make the folder that takes the SDK to a machine without a network.")
    add = parser.add_argument
    add("--out", type=Path, default=ROOT / "dist" / "wheelhouse", help="the folder; an earlier one is replaced")
    add("--extras", nargs="*", default=[], metavar="EXTRA", help="extras to bring, such as dicom and align")
    add("--build", nargs="*", default=[], metavar="NAME", help="bring packages that come as source alone, too")
    add("--cuda", choices=("AUTO", "ON", "OFF"), default="AUTO", help="CUDA kernels in the wheel; AUTO: where nvcc is")
    add("--machine", choices=("x86_64", "aarch64"), help="the machine to deliver to (default: one like this)")
    add("--python", metavar="X.Y", help="its Python, where the machine is of another kind")
    add("--glibc", type=int, default=JETPACK_6_GLIBC, metavar="N", help="its glibc is 2.N or newer (default: 35)")
    add("--wheels", type=Path, metavar="DIR", help="take dependency wheels from here, not from the index")
    add("--constraints", type=Path, metavar="FILE", help="pin versions, such as those of an earlier requirements.txt")
    add("--dependencies", type=Path, metavar="DIR", help="only bring the dependency wheels for this Python into DIR")
    add("--accept-licence", nargs="*", default=[], metavar="NAME", help="packages whose licence you looked up yourself")
    return parser


if __name__ == "__main__":
    sys.exit(main())
