"""The NVIDIA engine on a real GPU, with each TensorRT that is installed and each way to the driver; `make test-gpu`."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import pytest
from run_tiles import compute, expected
from tiny_bundle import random_tile

from rmr_sdk.bundle import Bundle
from rmr_sdk.cuda import DeviceInfo, list_devices, open_device
from rmr_sdk.engines import Engine, open_engine, tensorrt
from rmr_sdk.engines.base import GOLDEN_LIMITS, DeviceEngine
from rmr_sdk.engines.tensorrt_library import Library, load_library
from rmr_sdk.errors import DeviceError, DeviceMemoryError, DeviceUnavailableError


def find_gpu() -> DeviceInfo | None:
    """Give the first GPU, or None."""
    try:
        return list_devices()[0]
    except DeviceError:
        return None


GPU = find_gpu()

pytestmark = [pytest.mark.gpu, pytest.mark.skipif(GPU is None, reason="no NVIDIA GPU and driver")]


@pytest.fixture(params=["pycuda", "driver"])
def way(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """Choose the way to the driver."""
    if request.param == "pycuda" and find_spec("pycuda") is None:
        pytest.skip("pycuda is not installed")
    monkeypatch.setenv("RMR_CUDA_LIBRARY", request.param)
    return str(request.param)


@pytest.fixture(params=["tensorrt", "tensorrt-rtx"])
def library(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Library:
    """Choose the runtime."""
    try:
        found = load_library(request.param)
    except DeviceUnavailableError as error:
        pytest.skip(str(error.problem))
    if GPU is not None and not found.fits(GPU.compute_capability):
        pytest.skip(f"{request.param} does not serve compute capability {GPU.compute_capability}")
    monkeypatch.setattr(tensorrt, "find_libraries", lambda: (found,))
    return found


@pytest.fixture(params=["fp32", "fp16", "int8"])
def engine(
    request: pytest.FixtureRequest, way: str, library: Library, bundle: Bundle, cache_dir: Path
) -> Iterator[Engine]:
    """Build the tiny bundle; opening it has run the golden tile."""
    opened, _ = open_engine(bundle, "tensorrt", precision=request.param, cache_dir=cache_dir)
    with contextlib.closing(opened):
        yield opened


def check(found: np.ndarray, reference: np.ndarray, precision: str) -> None:
    """Hold values to what the golden tile is held to."""
    limit, difference = GOLDEN_LIMITS[precision], found - reference
    assert np.abs(difference).max() <= limit.maximum
    assert np.sqrt(np.square(difference).mean()) <= limit.rms


def test_tiles_have_the_networks_values_recorded_or_not(engine: Engine) -> None:
    for seed, outputs in enumerate(compute(engine, range(9))):
        for name, array in outputs.items():
            check(array, expected(seed)[name], engine.info.precision)


def test_the_device_path_gives_the_same_bits(engine: Engine) -> None:
    assert isinstance(engine, DeviceEngine)
    (through_host,) = compute(engine, range(1))
    device, tile = engine.device, random_tile(0)
    with engine.device_session() as session:
        stream = device.stream()
        for name, array in session.inputs(0).items():
            tile[name] = tile[name].astype(array.dtype)
            device.upload(tile[name], array, stream)
        found = np.empty(session.outputs(0)["fused"].shape, session.outputs(0)["fused"].dtype)
        session.enqueue(0, stream)
        stream.synchronize()
        assert session.capturable(stream)
        with device.capture(stream) as graphs:
            session.enqueue(0, stream)
            device.download(session.outputs(0)["fused"], found, stream)
        graphs[0].launch(stream)
        stream.synchronize()
    np.testing.assert_array_equal(found.astype(np.float32), through_host["fused"])


def test_a_second_opening_builds_nothing(way: str, library: Library, bundle: Bundle, cache_dir: Path) -> None:
    details = []
    for _ in range(2):
        opened, _ = open_engine(bundle, "tensorrt", precision="fp16", cache_dir=cache_dir)
        details.append(opened.info.detail)
        opened.close()
    assert [detail.rpartition(", ")[2] for detail in details] == ["engine built here", "engine built here before"]


def test_openings_take_no_more_and_more_memory(way: str, library: Library, bundle: Bundle, cache_dir: Path) -> None:
    with open_device() as device:  # keeps the context, whose own memory comes and goes otherwise
        left = []
        for _ in range(12):
            opened, _ = open_engine(bundle, "tensorrt", precision="fp16", cache_dir=cache_dir)
            with contextlib.closing(opened):
                compute(opened, range(3))
            left.append(device.free_bytes())
        assert left[-1] >= left[2] - 2**21, "libraries keep what they take first"


def test_memory_that_is_not_there_leaves_the_gpu_usable(way: str) -> None:
    with open_device() as device:
        for _ in range(3):
            with pytest.raises(DeviceMemoryError):
                device.allocate((device.info.total_bytes * 2,), np.uint8)
        data, back = np.arange(10, dtype=np.float32), np.zeros(10, np.float32)
        array, stream = device.allocate((10,), np.float32), device.stream()
        device.upload(data, array, stream)
        device.download(array, back, stream)
        stream.synchronize()
        np.testing.assert_array_equal(back, data)
