"""Fixtures of the kernel tests."""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
from kernel_devices import Emulated, Gpu, Host

from rmr_sdk import _C


def _load_emulated() -> ModuleType:
    """Load the device launchers compiled for the host, or skip."""
    found = sorted(Path(__file__).parent.glob("_emulated*.so"))
    if not found:
        pytest.skip("tests/kernels/_emulated is not built: build with RMR_EMULATE=ON")
    if "_emulated" not in sys.modules:
        spec = importlib.util.spec_from_file_location("_emulated", found[0])
        assert spec is not None
        assert spec.loader is not None
        module = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(module)
        sys.modules["_emulated"] = module
    return sys.modules["_emulated"]


@pytest.fixture(params=["cpu", "emulated", pytest.param("cuda", marks=pytest.mark.gpu)])
def device(request: pytest.FixtureRequest) -> Host:
    """Give each device in turn; skips those that are not there."""
    if request.param == "cpu":
        return Host(_C)
    if request.param == "emulated":
        return Emulated(_load_emulated())
    if _C.cuda_device_count() == 0:
        pytest.skip("no CUDA device, or built without CUDA")
    return Gpu(_C.cuda)


@pytest.fixture(scope="session")
def emulated() -> ModuleType:
    """Give the device launchers compiled for the host."""
    return _load_emulated()


@pytest.fixture
def rng() -> np.random.Generator:
    """Give random numbers that are the same in every run."""
    return np.random.default_rng(20240601)
