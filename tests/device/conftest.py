"""Fixtures of the device pipeline: kernels compiled for the host in the place of the GPU's, and a pipeline on them."""

from __future__ import annotations

import importlib.util
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
from fake_gpu import FakeDevice, FakeEngine
from tiny_bundle import TILE
from tiny_study import make_tiny

from rmr_sdk import _C, Pipeline


def load_emulated() -> ModuleType:
    """Load the device launchers compiled for the host, or skip."""
    found = sorted((Path(__file__).parents[1] / "kernels").glob("_emulated*.so"))
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


@pytest.fixture
def emulated(monkeypatch: pytest.MonkeyPatch) -> Iterator[ModuleType]:
    """Give the launchers, and put them in the place of the GPU's."""
    module = load_emulated()
    monkeypatch.setattr(_C, "cuda", module, raising=False)
    yield module
    module.forget()


@pytest.fixture(scope="module")
def host(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Pipeline]:
    """Give the tiny bundle on the CPU, all the way."""
    folder = tmp_path_factory.mktemp("bundle")
    make_tiny(folder / "tiny.zip")
    with Pipeline.open(folder / "tiny.zip", threads=1, cache_dir=folder) as pipeline:
        yield pipeline


@pytest.fixture
def open_device(emulated: ModuleType, host: Pipeline) -> Callable[..., tuple[Pipeline, FakeEngine]]:
    """Give a function that opens a pipeline of the same network on a fake GPU."""

    def open_it(like: Pipeline = host, *, integrated: bool = False, **engine: Any) -> tuple[Pipeline, FakeEngine]:
        classes = len(like.manifest.classes or ())
        shapes = dict.fromkeys((*like.manifest.input_names, "fused"), (1, 1, *TILE))
        if classes:
            shapes["probability"] = (1, classes, *TILE)
        fake = FakeEngine(like._engine, FakeDevice(emulated, integrated), shapes, like.manifest.input_names, **engine)
        return Pipeline(like.bundle, fake, "a test"), fake

    return open_it
