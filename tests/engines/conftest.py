"""Fixtures of the engine tests: the tiny bundle in three precisions, and a cache of its own for each test."""

from __future__ import annotations

import gc
from collections.abc import Iterator
from pathlib import Path

import pytest
from fake_cuda import FakeCuda, build, compiler
from fake_tensorrt import FakeTensorRt
from tiny_bundle import make_bundle

from rmr_sdk.bundle import Bundle
from rmr_sdk.cuda import libcuda


@pytest.fixture(scope="session")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    """Give the tiny bundle with an fp32, an fp16 and an int8 graph."""
    return make_bundle(tmp_path_factory.mktemp("bundles") / "tiny.zip", ("fp32", "fp16", "int8"))


@pytest.fixture
def cache_dir(tmp_path: Path) -> Path:
    """Give an empty cache."""
    return tmp_path / "cache"


@pytest.fixture(scope="session")
def cuda_library(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Compile the driver on host memory."""
    if compiler() is None:
        pytest.skip("there is no C compiler for the driver on host memory")
    return build(tmp_path_factory.mktemp("cuda"))


@pytest.fixture
def cuda(cuda_library: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[FakeCuda]:
    """Put the driver on host memory in the place of NVIDIA's, and see that nothing is left alive."""
    monkeypatch.setattr(libcuda, "_LIBRARY", str(cuda_library))
    monkeypatch.setenv("RMR_CUDA_LIBRARY", "driver")
    fake = FakeCuda(cuda_library)
    yield fake
    fake.library.fake_reset()
    if any(fake.live().values()):
        gc.collect()  # what a traceback still holds; not after every test, since it takes a third of a second
    assert fake.live() == dict.fromkeys(fake.live(), 0)
    assert fake.depth == 0


@pytest.fixture(params=["tensorrt", "tensorrt-rtx"])
def trt(request: pytest.FixtureRequest, cuda: FakeCuda, monkeypatch: pytest.MonkeyPatch) -> FakeTensorRt:
    """Put a TensorRT on host memory in the place of NVIDIA's, each of the two in turn."""
    fake = FakeTensorRt(cuda, request.param, "10.3.0" if request.param == "tensorrt" else "1.7.1.116")
    fake.install(monkeypatch)
    return fake
