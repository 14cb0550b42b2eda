"""The files beside the wheels of a delivery: pinned requirements, the target, README, scripts, docs, checksums."""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from hashlib import sha256
from pathlib import Path
from string import Template

from compiled_in import has_cuda
from wheel_file import Target, WheelFile

_SCRIPTS = ("packaging/offline/install.sh", "packaging/offline/verify.sh", "packaging/jetson_report.py")
_BUILT_THERE = (
    "`install.sh` builds the SDK here: it needs g++ and Python's headers, and adds CUDA kernels where nvcc is."
)
_PAPERS = ("LICENSE", "NOTICE", "CHANGELOG.md")


def write_requirements(path: Path, wheels: Sequence[WheelFile]) -> None:
    """Pin every wheel by version and SHA-256, as `pip install --require-hashes` reads it."""
    lines = [f"{wheel.name}=={wheel.version} --hash=sha256:{_sha256(wheel.path)}\n" for wheel in wheels]
    path.write_text("".join(lines), encoding="utf-8")


def write_target(path: Path, target: Target) -> None:
    """Write the target as install.sh reads it."""
    text = f"RMR_PYTHON={target.python}\nRMR_MACHINE={target.machine}\nRMR_GLIBC={target.glibc}\n"
    path.write_text(text, encoding="utf-8")


def write_readme(path: Path, own: WheelFile, target: Target, extras: Sequence[str]) -> None:
    """Write README.md of the folder from its template."""
    built = own.path.suffix == ".whl"
    kernels = "with CUDA kernels; it needs no NVIDIA driver to run on the CPU" if has_cuda(own) else "for the CPU"
    packages = f"its packages, also for {', '.join(extras)}" if extras else "its packages"
    text = Template((Path(__file__).parent / "offline" / "README.md").read_text(encoding="utf-8"))
    filled = text.substitute(
        version=own.version,
        target=target.name,
        python=target.python,
        machine=target.machine,
        glibc=target.glibc,
        wheels=f"the SDK {kernels}; and {packages}" if built else f"{packages}; `build-wheels/`: what its build needs",
        note="" if built else _BUILT_THERE,
    )
    path.write_text(filled.rstrip() + "\n", encoding="utf-8")


def copy_files(tree: Path, folder: Path) -> None:
    """Copy bundles, scripts, docs and the project's own licence into a delivery."""
    for source, into in (
        *((path, "bundles") for path in sorted((tree / "rmr_sdk" / "bundles").glob("*.zip"))),
        *((tree / name, "") for name in (*_SCRIPTS, *_PAPERS)),
        *((path, "docs") for path in sorted((tree / "docs").glob("*.md"))),
    ):
        (folder / into).mkdir(parents=True, exist_ok=True)
        shutil.copy(source, folder / into / source.name)


def write_sums(folder: Path) -> str:
    """Write SHA256SUMS over all files of a folder, in the form that `sha256sum --check` reads.

    Returns:
        The digest of SHA256SUMS itself: who gets it another way can tell whether the folder is the one that was made.
    """
    files = sorted(path for path in folder.rglob("*") if path.is_file() and path.name != "SHA256SUMS")
    lines = [f"{_sha256(path)}  {path.relative_to(folder).as_posix()}\n" for path in files]
    (folder / "SHA256SUMS").write_text("".join(lines), encoding="utf-8")
    return _sha256(folder / "SHA256SUMS")


def _sha256(path: Path) -> str:
    return sha256(path.read_bytes()).hexdigest()
