"""What takes minutes or the package index: run by `make test-wheelhouse` alone."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
import zipfile
from collections.abc import Callable
from hashlib import sha256
from pathlib import Path

import pytest
from building import Index, build_packages, build_sdist, build_wheel, clean_copy, this_glibc, this_target
from compiled_in import compiled_in, has_cuda
from wheel_file import Target, WheelFile
from wheelhouse import Wish, make_wheelhouse

ROOT = Path(__file__).parents[2]

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif("RMR_TEST_WHEELHOUSE" not in os.environ, reason="minutes, and network: make test-wheelhouse"),
]

MakeWheel = Callable[..., Path]


@pytest.fixture(scope="module")
def tree(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Give a copy of this tree as git would have it."""
    return clean_copy(ROOT, tmp_path_factory.mktemp("source") / "tree")


def contents(wheel: Path) -> dict[str, str]:
    """Give the digest of every file of a wheel; RECORD repeats them and is left out."""
    with zipfile.ZipFile(wheel) as archive:
        names = [name for name in archive.namelist() if not name.endswith(("/", "/RECORD"))]
        return {name: sha256(archive.read(name)).hexdigest() for name in names}


def test_wheel_of_the_archive_is_the_wheel_of_the_tree(tree: Path, tmp_path: Path) -> None:
    archive = build_sdist(tree, tmp_path / "sdist", 10**9)
    from_archive = build_wheel(archive, tmp_path / "one", "OFF", 10**9)
    from_tree = build_wheel(tree, tmp_path / "two", "OFF", 10**9)
    assert from_archive.name == from_tree.name
    assert contents(from_archive) == contents(from_tree)


@pytest.mark.skipif(shutil.which("nvcc") is None, reason="nvcc is not installed")
def test_wheel_with_cuda_kernels_says_what_is_in_it(
    tree: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("RMR_CUDA_ARCHITECTURES", "86-real")  # all of them take minutes
    wheel = WheelFile.read(build_wheel(tree, tmp_path, "ON", 10**9))
    assert has_cuda(wheel)
    parts = {part.name: part for part in compiled_in(wheel)}
    assert re.fullmatch(r"\d+\.\d+\.\d+", parts["nvidia-cuda-runtime"].version)
    assert "TERMS.txt" in parts["nvidia-cuda-runtime"].texts


@pytest.mark.parametrize(
    "target", [Target("3.10", "aarch64", 35), Target("3.12", "aarch64", 39)], ids=lambda it: it.name
)
def test_jetson_folder_resolves(tree: Path, tmp_path: Path, target: Target) -> None:
    folder = make_wheelhouse(
        Wish(tmp_path / "out", extras=("dicom", "align"), target=target, accepted=("pyjpegls",)), tree
    )
    wheels = [WheelFile.read(path) for path in folder.glob("*wheels/*.whl")]
    assert {"numpy", "openvino", "msgspec", "simpleitk", "cmake", "pybind11"} <= {wheel.name for wheel in wheels}
    assert all(target.takes(wheel.tags) for wheel in wheels)
    assert not any(wheel.name.startswith(("rmr-sdk", "tensorrt", "torch")) for wheel in wheels)
    assert len(list((folder / "sdist").iterdir())) == 1
    assert "builds the SDK here" in (folder / "README.md").read_text()
    names = {part["name"] for part in json.loads((folder / "sbom.cdx.json").read_text())["components"]}
    assert {wheel.name for wheel in wheels} <= names


def test_folder_for_another_machine_builds_the_sdk_where_it_is_installed(tree: Path, tmp_path: Path) -> None:
    target = this_target(this_glibc())
    folder = make_wheelhouse(Wish(tmp_path / "out", target=target), tree)
    assert not list((folder / "wheels").glob("rmr_sdk*"))
    command = ["sh", str(folder / "install.sh"), "--python", sys.executable, "--venv", str(tmp_path / "venv")]
    done = subprocess.run(
        command, env={**os.environ, "RMR_CUDA": "OFF", "PYTHONPATH": ""}, cwd=tmp_path, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    assert "The default pipeline runs." in done.stdout


def test_package_without_a_wheel_is_built(tmp_path: Path) -> None:
    source = tmp_path / "source"
    source.mkdir()
    (source / "pyproject.toml").write_text(
        '[build-system]\nrequires = ["setuptools"]\nbuild-backend = "setuptools.build_meta"\n'
        '[project]\nname = "quick"\nversion = "1.0"\n'
        '[tool.setuptools]\next-modules = [{name = "quick", sources = ["q.c"]}]\n'
    )
    (source / "q.c").write_text(
        '#include <Python.h>\nstatic struct PyModuleDef m = {PyModuleDef_HEAD_INIT, "quick", 0, -1, 0};\n'
        "PyMODINIT_FUNC PyInit_quick(void) { return PyModule_Create(&m); }\n"
    )
    (asked,) = build_packages([str(source)], tmp_path / "out", Index())
    assert str(asked) == "quick==1.0"
    (wheel,) = (tmp_path / "out").glob("*.whl")
    assert this_target(40).takes(WheelFile.read(wheel).tags)
