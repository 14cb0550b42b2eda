"""Fixtures of the C interface: the library, its example and its parts, built once from the tree."""

from __future__ import annotations

import fcntl
import importlib.util
import os
import shutil
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from types import ModuleType

import pytest
from capi_tools import BUILD, ROOT, Tools, find_header, find_package_folder
from rmr_ctypes import Library
from tiny_study import make_tiny


@pytest.fixture(scope="session")
def tools() -> Tools:
    """Give what the build needs, or skip with what is missing."""
    path = os.pathsep.join([str(Path(sys.executable).parent), os.environ.get("PATH", "")])
    found = {name: shutil.which(name, path=path) for name in ("cmake", "c++", "ninja")}
    if missing := [name for name, tool in found.items() if tool is None]:
        pytest.skip(f"cannot build the C interface: {', '.join(missing)} is missing")
    if not Path("/usr/include/zlib.h").is_file():
        pytest.skip("cannot build the C interface: zlib.h is missing (zlib1g-dev)")
    options = {
        "CMAKE_MAKE_PROGRAM": found["ninja"],
        "OpenVINO_DIR": find_package_folder("openvino", "cmake"),
        "RMR_RAPIDJSON_INCLUDE_DIR": find_header("rapidjson/document.h"),
        "RMR_WERROR": "ON",
    }
    return Tools(
        str(found["cmake"]), str(found["c++"]), ("-G", "Ninja", *(f"-D{key}={value}" for key, value in options.items()))
    )


@pytest.fixture(scope="session")
def build(tools: Tools) -> Path:
    """Build the library, the example and the parts; later runs only build what changed."""
    BUILD.mkdir(parents=True, exist_ok=True)
    pybind11 = find_package_folder("pybind11", "share", "cmake", "pybind11")
    with open(BUILD / ".lock", "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        extra = (f"-DPython_EXECUTABLE={sys.executable}", f"-Dpybind11_DIR={pybind11}", "-DRMR_CAPI_PARTS=ON")
        tools.run("-S", ROOT / "csrc" / "capi", "-B", BUILD, *tools.options, *extra)
        tools.run("--build", BUILD)
    return BUILD


@pytest.fixture(scope="session")
def library(build: Path) -> Library:
    """Give the C interface through ctypes."""
    return Library(build / "librmr.so")


@pytest.fixture(scope="session")
def parts(build: Path) -> ModuleType:
    """Give the parts of the library as Python functions."""
    spec = importlib.util.spec_from_file_location("_capi_parts", next(build.glob("_capi_parts*.so")))
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="session")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Write the tiny bundle as a folder, with every precision's graph."""
    folder = tmp_path_factory.mktemp("capi") / "tiny"
    make_tiny(folder, precisions=("fp32", "fp16", "int8"))
    return folder


@pytest.fixture
def open_c(library: Library, bundle: Path) -> Iterator[Callable[..., object]]:
    """Give a function that opens the tiny bundle, or another, and closes it at the end."""
    opened = []

    def open_bundle(path: Path = bundle, **options: object) -> object:
        opened.append(library.open(path, **{"threads": 2, **options}))
        return opened[-1]

    yield open_bundle
    for pipeline in opened:
        pipeline.close()
