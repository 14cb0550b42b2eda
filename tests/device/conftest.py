"""Fixtures of the device pipeline: kernels compiled for the host in the place of the GPU's, and a pipeline on them."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from types import ModuleType
from typing import Any

import pytest
from emulated_kernels import load_emulated
from fake_gpu import FakeDevice, FakeEngine
from tiny_bundle import TILE
from tiny_study import make_tiny

from rmr_sdk import _C, Pipeline


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
