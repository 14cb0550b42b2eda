"""The device pipeline on a real GPU, its kernels, copies, streams and memory; run by `make test-gpu`."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from bridge import BridgeEngine
from studies import STUDIES, expect_same
from tiny_bundle import CLASSES, TILE
from tiny_study import make_grid, make_study, make_tiny

from rmr_sdk import _C, Pipeline
from rmr_sdk.cuda import Device, open_device
from rmr_sdk.device_memory import DeviceView
from rmr_sdk.device_run import run_on_device
from rmr_sdk.errors import DeviceMemoryError, DeviceUnavailableError

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(_C.cuda_device_count() == 0, reason="no CUDA device, or built without CUDA"),
]


@pytest.fixture
def gpu() -> Iterator[Device]:
    """Give the first GPU."""
    with open_device() as device:
        yield device


def bridge(host: Pipeline, gpu: Device, dtype: Any = np.float32) -> Pipeline:
    """Return the tiny bundle with its voxels on the GPU."""
    shapes = dict.fromkeys((*host.manifest.input_names, "fused"), (1, 1, *TILE))
    shapes["probability"] = (1, len(CLASSES), *TILE)
    engine = BridgeEngine(host._engine, gpu, shapes, host.manifest.input_names, dtype)
    return Pipeline(host.bundle, engine, "a test")


@pytest.mark.parametrize("name", STUDIES)
def test_results_on_a_gpu_are_those_of_the_host(host: Pipeline, gpu: Device, name: str) -> None:
    study = STUDIES[name]()
    expect_same(bridge(host, gpu).run(study, overlap=0.5), host.run(study, overlap=0.5))


def test_half_precision_on_a_gpu(host: Pipeline, gpu: Device) -> None:
    found, expected = bridge(host, gpu, np.float16).run(make_study()), host.run(make_study())
    np.testing.assert_allclose(found.fused.data, expected.fused.data, rtol=2e-3, atol=0.2)
    assert (found.labels.data == expected.labels.data).mean() > 0.99


def test_many_runs_on_a_gpu_take_no_more_memory(host: Pipeline, gpu: Device) -> None:
    pipeline, study = bridge(host, gpu), make_study()
    pipeline.run(study)
    free = gpu.free_bytes()
    for _ in range(20):
        pipeline.run(study)
    assert gpu.free_bytes() >= free


def test_a_full_gpu_is_an_error_and_passes(host: Pipeline, gpu: Device) -> None:
    pipeline, hoard = bridge(host, gpu), []
    expected = pipeline.run(make_study())
    for size in (2**28, 2**24, 2**20, 2**16):
        with contextlib.suppress(DeviceMemoryError):
            while True:
                hoard.append(gpu.allocate((size,), np.uint8))
    with pytest.raises(DeviceMemoryError):
        pipeline.run(make_study(make_grid(shape=(96, 96, 96))))
    for array in hoard:
        array.free()
    expect_same(pipeline.run(make_study()), expected)


def test_arrays_on_a_gpu_stay_there(host: Pipeline, gpu: Device) -> None:
    study = make_study(dtype=np.int16)
    expected = host.run(study)
    stream = gpu.stream()
    arrays = {name: gpu.allocate(volume.data.shape, np.int16) for name, volume in study.items()}
    for name, array in arrays.items():
        gpu.upload(np.ascontiguousarray(study[name].data), array, stream)
    stream.synchronize()
    backwards = {name: DeviceView.of(array).transpose((2, 1, 0)) for name, array in arrays.items()}
    swap = np.eye(4)[[2, 1, 0, 3]]
    with run_on_device(bridge(host, gpu), backwards, affine=study["FLAIR"].affine @ swap) as found:
        fused = np.empty(found.fused.shape, np.float32)
        gpu.download(found.fused, fused, stream)
        stream.synchronize()
    np.testing.assert_array_equal(np.sort(fused, None), np.sort(expected.fused.data, None))


def test_host_memory_and_null_are_refused_on_a_gpu(gpu: Device) -> None:
    class Shown:
        def __init__(self, address: int) -> None:
            self.__cuda_array_interface__ = {"shape": (4, 4, 4), "typestr": "<f4", "data": (address, False)}

    out, host = gpu.allocate((4, 4, 4), np.float32), np.zeros((4, 4, 4), np.float32)
    facts = {"origin": (0, 0, 0), "scale": 1.0, "offset": 0.0, "low": 0.0, "high": 1.0}
    with gpu.activate():
        with pytest.raises(ValueError, match="source must be memory of the device"):
            _C.cuda.extract(Shown(host.ctypes.data), out, **facts)
        with pytest.raises(ValueError, match="source must not be null"):
            _C.cuda.extract(Shown(0), out, **facts)


@pytest.mark.parametrize("precision", ["fp32", "fp16"])
def test_tensorrt_and_the_device_pipeline_agree_with_the_host(host: Pipeline, tmp_path: Path, precision: str) -> None:
    make_tiny(tmp_path / "tiny.zip", precisions=("fp32", "fp16"))
    try:
        opened = Pipeline.open(
            tmp_path / "tiny.zip", engine="tensorrt", device="cuda", precision=precision, cache_dir=tmp_path
        )
    except DeviceUnavailableError as error:
        pytest.skip(f"TensorRT cannot be used here: {error}")
    study = make_study()
    with opened as pipeline:
        found, again = pipeline.run(study), pipeline.run(study)
    expect_same(again, found)
    expected = host.run(study)
    np.testing.assert_allclose(found.fused.data, expected.fused.data, rtol=1e-2, atol=0.5)
    assert (found.labels.data == expected.labels.data).mean() > 0.99
