"""The NVIDIA engine over a driver and a TensorRT on host memory: real numbers through the whole way."""

from __future__ import annotations

import contextlib
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from fake_cuda import FakeCuda
from fake_tensorrt import FakeTensorRt
from run_tiles import compute, expected
from tiny_bundle import TILE, random_tile
from tiny_study import make_study, make_tiny

from rmr_sdk import Pipeline
from rmr_sdk.bundle import Bundle
from rmr_sdk.cuda import libcuda
from rmr_sdk.engines import decision, open_engine
from rmr_sdk.engines.base import DeviceEngine
from rmr_sdk.engines.tensorrt_session import TensorRtEngine
from rmr_sdk.errors import DeviceUnavailableError


@pytest.fixture
def opened(trt: FakeTensorRt, bundle: Bundle, cache_dir: Path) -> Any:
    """Give a function that opens the engine on the tiny bundle; what it opened is closed at the end."""
    engines: list[TensorRtEngine] = []

    def open_it(bundle: Bundle = bundle, precision: str = "fp32", **options: Any) -> TensorRtEngine:
        engine, _ = open_engine(bundle, "tensorrt", precision=precision, cache_dir=cache_dir, **options)
        assert isinstance(engine, TensorRtEngine)
        engines.append(engine)
        return engine

    yield open_it
    for engine in engines:
        engine.close()


@pytest.mark.parametrize("integrated", [False, True], ids=["discrete", "integrated"])
def test_tiles_come_back_in_order_with_the_networks_values(opened: Any, cuda: FakeCuda, integrated: bool) -> None:
    cuda.configure(integrated=integrated)
    engine = opened()
    for seed, outputs in enumerate(compute(engine, range(7))):
        for name, array in outputs.items():
            np.testing.assert_allclose(array, expected(seed)[name], atol=2e-6)
            assert array.dtype == np.float32


def test_the_device_path_gives_the_same_numbers(opened: Any) -> None:
    engine = opened()
    assert isinstance(engine, DeviceEngine)
    device = engine.device
    with engine.device_session() as session:
        stream = device.stream()
        assert session.slots == 2
        back = [
            {name: np.empty(array.shape, array.dtype) for name, array in session.outputs(slot).items()}
            for slot in (0, 1)
        ]
        tiles = [random_tile(slot) for slot in (0, 1)]
        for slot in (0, 1):
            for name, array in tiles[slot].items():
                device.upload(array, session.inputs(slot)[name], stream)
            session.enqueue(slot, stream)
            for name, host in back[slot].items():
                device.download(session.outputs(slot)[name], host, stream)
        stream.synchronize()
        for slot in (0, 1):
            np.testing.assert_allclose(back[slot]["probability"], expected(slot)["probability"], atol=2e-6)
        assert session.capturable(stream)


def test_the_device_path_can_be_recorded(opened: Any, trt: FakeTensorRt) -> None:
    engine = opened()
    device = engine.device
    with engine.device_session() as session:
        stream, tile = device.stream(), random_tile(5)
        host = np.zeros((1, 1, *TILE), np.float32)
        with device.capture(stream) as graphs:
            for name, array in tile.items():
                device.upload(array, session.inputs(0)[name], stream)
            session.enqueue(0, stream)
            device.download(session.outputs(0)["fused"], host, stream)
        executed = trt.executed
        graphs[0].launch(stream)
        stream.synchronize()
        np.testing.assert_allclose(host, expected(5)["fused"], atol=2e-6)
        assert trt.executed == executed, "the launch queued nothing kernel by kernel"


def test_host_tiles_run_as_one_recorded_graph_each(opened: Any, trt: FakeTensorRt) -> None:
    engine = opened()
    with engine.session() as session:
        queued = trt.executed
        for seed in range(9):
            session.submit(random_tile(seed))
            np.testing.assert_allclose(session.collect()["fused"], expected(seed)["fused"], atol=2e-6)
        places = engine.slots + 1
        assert trt.executed == queued + 2 * places, "each place once to run and once to be recorded"


def test_what_cannot_be_recorded_is_queued_kernel_by_kernel(opened: Any, trt: FakeTensorRt, cuda: FakeCuda) -> None:
    engine = opened()
    trt.capturable = False
    cuda.fail("cuGraphInstantiateWithFlags", 1)
    with engine.session() as session:
        queued = trt.executed
        for seed in range(8):
            session.submit(random_tile(seed))
            np.testing.assert_allclose(session.collect()["fused"], expected(seed)["fused"], atol=2e-6)
        assert trt.executed == queued + 8 + (0 if trt.is_rtx else 1), "recording is tried once"
    cuda.fail("", 0)


def test_outputs_stay_valid_until_the_next_collect(opened: Any) -> None:
    engine = opened()
    with engine.session() as session:
        session.submit(random_tile(0))
        first = session.collect()
        session.submit(random_tile(1))
        session.submit(random_tile(2))
        np.testing.assert_allclose(first["fused"], expected(0)["fused"], atol=2e-6)
        np.testing.assert_allclose(session.collect()["fused"], expected(1)["fused"], atol=2e-6)


def test_the_engine_says_what_it_is(opened: Any, trt: FakeTensorRt) -> None:
    info = opened(precision="fp16").info
    assert (info.name, info.version, info.device, info.device_name) == ("tensorrt", trt.version, "cuda:0", "Fake GPU")
    assert (info.precision, info.threads) == ("fp16", 0)
    assert info.detail == f"{trt.runtime}, engine built here"


def choose(bundle: Bundle, cache_dir: Path, **options: Any) -> tuple[str, str]:
    engine, reason = open_engine(bundle, cache_dir=cache_dir, **options)
    with contextlib.closing(engine):
        return engine.info.name, reason


@pytest.fixture
def fast_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let the stopwatch find the GPU faster, whatever the load of this machine."""

    def time_engines(engines: dict[str, Any], *_: Any, **__: Any) -> dict[str, float]:
        return {label: 0.01 if "tensorrt" in label else 1.0 for label in engines}

    monkeypatch.setattr(decision, "time_engines", time_engines)


@pytest.mark.usefixtures("fast_gpu", "trt")
def test_auto_takes_the_gpu_where_it_is_fastest_and_says_so(bundle: Bundle, cache_dir: Path) -> None:
    for when in ("now", "cached"):
        name, reason = choose(bundle, cache_dir)
        assert name == "tensorrt"
        assert "cuda:0 (the first NVIDIA GPU), fp32 (fastest of" in reason
        assert "openvino fp32 1 s" in reason
        assert "tensorrt fp32 0.01 s" in reason
        assert when in reason


@pytest.mark.usefixtures("fast_gpu")
def test_auto_leaves_out_a_gpu_whose_results_are_wrong_and_says_so(
    bundle: Bundle, cache_dir: Path, trt: FakeTensorRt
) -> None:
    trt.wrong = 0.1
    name, reason = choose(bundle, cache_dir)
    assert name == "openvino"
    assert "tensorrt fp32 does not run here" in reason


@pytest.mark.usefixtures("trt")
def test_a_device_named_cuda_is_no_other(bundle: Bundle, cache_dir: Path, cuda: FakeCuda) -> None:
    cuda.configure(gpus=2)
    name, reason = choose(bundle, cache_dir, device="cuda:1", precision="fp32")
    assert name == "tensorrt"
    assert "cuda:1 (asked for)" in reason


def test_without_a_driver_cuda_is_an_error_and_auto_the_cpu(
    bundle: Bundle, cache_dir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(libcuda, "_LIBRARY", "libthere-is-no-such-driver.so.1")
    assert choose(bundle, cache_dir)[0] == "openvino"
    for options in ({"device": "cuda"}, {"engine": "tensorrt"}):
        with pytest.raises(DeviceUnavailableError, match=r"There is no NVIDIA driver .* Install an NVIDIA driver"):
            open_engine(bundle, cache_dir=cache_dir, **options)  # type: ignore[arg-type]


@pytest.mark.usefixtures("trt")
def test_a_whole_study_runs_on_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("rmr_sdk.pipeline.runs_on_device", lambda engine: False)  # its kernels need a real GPU
    make_tiny(tmp_path / "tiny.zip")
    results = {}
    for engine in ("tensorrt", "openvino"):
        with Pipeline.open(
            tmp_path / "tiny.zip", engine=engine, precision="fp32", cache_dir=tmp_path / "c"
        ) as pipeline:
            results[engine] = pipeline.run(make_study())
    assert results["tensorrt"].provenance.engine != results["openvino"].provenance.engine
    np.testing.assert_array_equal(results["tensorrt"].labels.data, results["openvino"].labels.data)
    np.testing.assert_allclose(results["tensorrt"].fused.data, results["openvino"].fused.data, atol=1e-3)
