"""The parts of a delivery that are no wheels of their own: libraries inside the SDK's native module, and the bundles.

Owns how they are recognised and where their licence texts come from.
"""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import zipfile
from importlib.metadata import distribution
from pathlib import Path

from licences import Notice
from wheel_file import WheelFile

_CUDA_TERMS = "https://docs.nvidia.com/cuda/eula/"
_CUDA_POINTER = f"The CUDA runtime library is linked statically under NVIDIA's terms, Attachment A: {_CUDA_TERMS}\n"


def compiled_in(wheel: WheelFile) -> list[Notice]:
    """Name what the SDK's wheel has compiled in: pybind11, and CUDA's runtime where the kernels are there.

    A source archive has nothing compiled in; what its build will add is said in its place for pybind11 alone.
    """
    parts = [_pybind11()]
    return [*parts, _cuda_runtime()] if has_cuda(wheel) else parts


def has_cuda(wheel: WheelFile) -> bool:
    """Tell whether a wheel's native module has CUDA kernels: the runtime that is linked in names the driver."""
    if wheel.path.suffix != ".whl":
        return False
    return any(b"libcuda.so.1" in module for module in wheel.texts(r"/_C\.[^/]*\.so$").values())


def bundle_notice(path: Path, notice: Path) -> Notice:
    """Read the licence of a bundle from its manifest, which also cites its training data."""
    with zipfile.ZipFile(path) as archive:
        text = archive.read("manifest.json")
    manifest = json.loads(text)
    texts = {"manifest.json": text, "NOTICE": notice.read_bytes(), "LICENSE": (notice.parent / "LICENSE").read_bytes()}
    return Notice(path.stem, manifest["version"], manifest["licence"], "", texts, "bundle")


def sdist_notice(source: WheelFile, tree: Path) -> Notice:
    """Give the licence of the SDK where only its source is delivered."""
    texts = {name: (tree / name).read_bytes() for name in ("LICENSE", "NOTICE")}
    return Notice(source.name, source.version, str(source.metadata["License-Expression"]), "", texts)


def _pybind11() -> Notice:
    found = distribution("pybind11")
    files = [file for file in found.files or () if re.search(r"\.dist-info/.*LICENSE", str(file))]
    texts = {Path(file).name: file.read_binary() for file in files}
    return Notice("pybind11", found.version, "BSD-3-Clause", "https://github.com/pybind/pybind11", texts, "compiled in")


def _cuda_runtime() -> Notice:
    nvcc = Path(shutil.which("nvcc") or "/usr/local/cuda/bin/nvcc").resolve()
    root = Path(shutil.which("nvcc") or "/usr/local/cuda/bin/nvcc")
    said = subprocess.run([nvcc, "--version"], capture_output=True, text=True).stdout if nvcc.exists() else ""
    release = re.search(r"V(\d+\.\d+\.\d+)", said)
    texts = {"TERMS.txt": _CUDA_POINTER.encode()}
    for file in (root.parents[1] / "EULA.txt", *root.parents[1].glob("dist-info/nvidia_cuda_runtime*/licenses/*")):
        if file.is_file():
            texts[file.name] = file.read_bytes()
    terms = "NVIDIA CUDA Toolkit EULA"
    return Notice("nvidia-cuda-runtime", release[1] if release else "unknown", terms, _CUDA_TERMS, texts, "compiled in")
