"""The device launchers compiled for the host, for every test that drives them."""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path
from types import ModuleType

import pytest


def load_emulated() -> ModuleType:
    """Load them, or skip."""
    found = sorted((Path(__file__).parent / "kernels").glob("_emulated*.so"))
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
