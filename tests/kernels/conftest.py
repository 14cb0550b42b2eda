"""Fixtures of the kernel tests."""

from __future__ import annotations

from types import ModuleType

import numpy as np
import pytest
from emulated_kernels import load_emulated
from kernel_devices import Emulated, Gpu, Host

from rmr_sdk import _C


@pytest.fixture(params=["cpu", "emulated", pytest.param("cuda", marks=pytest.mark.gpu)])
def device(request: pytest.FixtureRequest) -> Host:
    """Give each device in turn; skips those that are not there."""
    if request.param == "cpu":
        return Host(_C)
    if request.param == "emulated":
        return Emulated(load_emulated())
    if _C.cuda_device_count() == 0:
        pytest.skip("no CUDA device, or built without CUDA")
    return Gpu(_C.cuda)


@pytest.fixture(scope="session")
def emulated() -> ModuleType:
    """Give the device launchers compiled for the host."""
    return load_emulated()


@pytest.fixture
def rng() -> np.random.Generator:
    """Give random numbers that are the same in every run."""
    return np.random.default_rng(20240601)
