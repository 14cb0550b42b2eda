"""Rules of the house that a test can hold: public names, which package imports which, what an import costs."""

from __future__ import annotations

import ast
import importlib.util
import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

import rmr_sdk

PUBLIC = {
    "Bundle",
    "Grid",
    "Lesion",
    "Pipeline",
    "Progress",
    "Result",
    "RmrError",
    "Study",
    "Volume",
    "__version__",
    "list_bundles",
}

BUILD_SIDE = {
    "torch",
    "monai",
    "onnx",
    "onnx_graphsurgeon",
    "scipy",
    "matplotlib",
    "nilearn",
    "torchio",
    "skimage",
    "pywt",
}
"""What the runtime must never import: it belongs to training and export."""

FORBIDDEN = {
    "rmr_sdk": {"rmr_training", "rmr_export", *BUILD_SIDE},
    "rmr_training": {"rmr_export"},
    "rmr_export": set(),
}

DICOM = ("pydicom", "highdicom", "gdcm")
NVIDIA = ("tensorrt", "tensorrt_rtx", "pycuda", "cuda")
LAZY = (
    "openvino",
    "onnxruntime",
    "nibabel",
    "PIL",
    "jinja2",
    "rich",
    "SimpleITK",
    "argparse",
    *DICOM,
    *NVIDIA,
    *BUILD_SIDE,
)
"""What `import rmr_sdk` must not load: each is imported where it is first needed."""


def sources(package: str) -> Iterator[Path]:
    """Give the files of a package, or skip when it is not installed."""
    spec = importlib.util.find_spec(package)
    if spec is None or spec.origin is None:
        pytest.skip(f"{package} is not installed")
    yield from sorted(Path(spec.origin).parent.rglob("*.py"))


def imported(file: Path) -> Iterator[str]:
    """Give the top-level package of every absolute import in a file, also of those inside functions."""
    for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            yield from (alias.name.split(".")[0] for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.level == 0 and node.module:
            yield node.module.split(".")[0]


def test_public_names() -> None:
    assert set(rmr_sdk.__all__) == PUBLIC
    assert all(getattr(rmr_sdk, name).__doc__ for name in PUBLIC - {"__version__"})


@pytest.mark.parametrize("package", FORBIDDEN)
def test_imports_run_one_way(package: str) -> None:
    for file in sources(package):
        assert not FORBIDDEN[package] & set(imported(file)), file.name


def test_importing_loads_nothing_heavy() -> None:
    script = "import json, sys, rmr_sdk; print(json.dumps(sorted(sys.modules)))"
    printed = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True, timeout=120)
    assert printed.stderr == ""
    assert not set(LAZY) & set(json.loads(printed.stdout))


def test_only_the_command_line_prints() -> None:
    for file in sources("rmr_sdk"):
        calls = (
            node.func for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))) if isinstance(node, ast.Call)
        )
        prints = any(isinstance(function, ast.Name) and function.id == "print" for function in calls)
        assert not prints or file.parent.name == "cli", file.name


@pytest.mark.parametrize("package", FORBIDDEN)
def test_every_module_says_what_it_owns_and_is_no_attic(package: str) -> None:
    for file in sources(package):
        assert ast.get_docstring(ast.parse(file.read_text(encoding="utf-8"))) or file.name == "_version.py", file.name
        assert file.stem not in {"utils", "util", "helpers", "common", "misc"}, file.name
