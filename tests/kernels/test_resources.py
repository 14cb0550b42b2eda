"""What the compiled CUDA kernels take and hold, from the module itself: needs nvcc's work and cuobjdump, no GPU."""

from __future__ import annotations

import importlib.util
import json
import re
import sys
from pathlib import Path
from typing import Any

import pytest

from rmr_sdk import _C

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def resources() -> Any:
    """Give benchmarks/kernel_resources.py."""
    spec = importlib.util.spec_from_file_location("kernel_resources", ROOT / "benchmarks" / "kernel_resources.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules["kernel_resources"] = module
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="module")
def compiled(resources: Any) -> Path:
    """Give the compiled module, or skip."""
    if not _C.built_with_cuda:
        pytest.skip("built without CUDA: nvcc was not there")
    if resources.find_cuobjdump() is None:
        pytest.skip("cuobjdump is not installed")
    return resources.installed_module()


@pytest.fixture(scope="module")
def ptx(resources: Any, compiled: Path) -> dict[str, str]:
    """Give the PTX of each kernel."""
    return resources.read_ptx(compiled)


def test_kernels_stay_within_their_ceilings_and_never_spill(resources: Any, compiled: Path) -> None:
    found = resources.read_resources(compiled)
    assert len(found) == 51
    assert not resources.complaints(found, json.loads(resources.CEILINGS.read_text()))


def test_no_kernel_has_an_atomic_operation(ptx: dict[str, str]) -> None:
    assert len(ptx) == 51
    assert not [name for name, text in ptx.items() if re.search(r"\b(atom|red)\.", text)]


def test_no_kernel_contracts_a_product_and_a_sum(ptx: dict[str, str]) -> None:
    assert not [name for name, text in ptx.items() if re.search(r"\bfma\.rn\.f(32|64)", text)]
    assert all(re.search(r"\bmul\.(rn\.)?f32", ptx[name]) for name in ("Blend<float>", "Extract<short, Half>"))


@pytest.mark.parametrize("name", ["Blend<float>", "Blend<Half>", "Extract<short, Half>", "Extract<float, float>"])
def test_what_memory_bounds_moves_sixteen_bytes_at_a_time(ptx: dict[str, str], name: str) -> None:
    for way in ("ld", "st"):
        assert re.search(rf"\b{way}\.global\.(v4\.[ubf]32|v2\.[ubf]64)", ptx[name]), f"{name} has no 16-byte {way}"


def test_the_table_of_the_docs_is_that_of_the_file(resources: Any) -> None:
    text = resources.DOC.read_text()
    table = resources.table(json.loads(resources.CEILINGS.read_text()))
    assert table in text, "run: make kernel-resources"


def test_complaints_name_what_is_odd(resources: Any) -> None:
    each = {"registers": 33, "stack": 0, "local": 0, "shared": 0}
    allowed = resources.ceilings({"Op<float>": {"90": each}})
    assert allowed == {"Op<float>": {"shared": 0, "registers": {"90": 40}}}
    assert not resources.complaints({"Op<float>": {"90": {**each, "registers": 40}}}, allowed)
    odd = {"Op<float>": {"90": {**each, "registers": 41, "stack": 8, "shared": 4}, "75": each}, "New": {"90": each}}
    assert resources.complaints(odd, {**allowed, "Gone": allowed["Op<float>"]}) == [
        "Gone: in resources.json, but not compiled",
        "New: not in resources.json",
        "Op<float>, sm_75: no ceiling",
        "Op<float>, sm_90: 4 bytes of shared memory, ceiling 0",
        "Op<float>, sm_90: 41 registers, ceiling 40",
        "Op<float>, sm_90: 8 bytes of stack",
    ]
