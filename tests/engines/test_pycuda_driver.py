"""pycuda as the adapter: the same values, the same errors, and nothing left behind."""

from __future__ import annotations

import gc
import re
import sys
import threading
import types
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from fake_cuda import FakeCuda
from fake_pycuda import make_module

from rmr_sdk.cuda import driver, open_device
from rmr_sdk.errors import DeviceError, DeviceMemoryError, DeviceUnavailableError, RmrError


@pytest.fixture
def pycuda(cuda: FakeCuda, monkeypatch: pytest.MonkeyPatch) -> FakeCuda:
    """Let pycuda be imported."""
    package: Any = types.ModuleType("pycuda")
    package.__path__ = []
    package.driver = make_module(cuda.library)
    monkeypatch.setitem(sys.modules, "pycuda", package)
    monkeypatch.setitem(sys.modules, "pycuda.driver", package.driver)
    monkeypatch.setenv("RMR_CUDA_LIBRARY", "pycuda")
    return cuda


def expect(error: type[RmrError], words: str, act: Callable[[], object]) -> None:
    with pytest.raises(RmrError, match=re.escape(words)) as caught:
        act()
    assert type(caught.value) is error


def test_the_whole_way_runs_two_hundred_times_and_leaves_nothing(pycuda: FakeCuda) -> None:
    data = np.arange(12, dtype=np.float32).reshape(3, 4)
    for _ in range(200):
        with open_device() as device:
            array, stream, back = device.allocate(data.shape, "f4"), device.stream(), device.pinned(data.shape, "f4")
            device.upload(data, array, stream)
            with device.capture(stream) as graphs:
                device.download(array, back, stream)
            graphs[0].launch(stream)
            device.foreign_stream(stream.handle).synchronize()
            stream.synchronize()
            np.testing.assert_array_equal(back, data)
        del back
    gc.collect()
    assert pycuda.live() == dict.fromkeys(pycuda.live(), 0)
    assert pycuda.depth == 0, "pycuda's way to leave a context is mended"


def test_a_stream_that_pycuda_does_not_own_is_waited_for(pycuda: FakeCuda, monkeypatch: pytest.MonkeyPatch) -> None:
    with open_device() as device:
        monkeypatch.setenv("RMR_CUDA_LIBRARY", "driver")
        with open_device() as other:
            theirs, done = other.stream(), []
            pycuda.enqueue(theirs.handle, lambda: done.append(1))
            device.foreign_stream(theirs.handle).synchronize()
            assert done == [1]


def test_any_thread_may_use_it(pycuda: FakeCuda) -> None:
    with open_device() as device:
        thread = threading.Thread(target=lambda: device.allocate((8,), np.float32).free())
        thread.start()
        thread.join()


def test_its_errors_become_those_of_the_sdk(pycuda: FakeCuda) -> None:
    with open_device() as device:
        stream = device.stream()
        pycuda.fail("cuStreamSynchronize", 719)
        expect(DeviceError, "The GPU was lost: launch failure (719) while waiting for it", stream.synchronize)
        pycuda.fail("cuStreamCreate", 777)
        expect(DeviceError, "The GPU refused: invalid value (1) while opening a stream", device.stream)
        pycuda.fail("", 0)
        pycuda.configure(mib=1)
        expect(
            DeviceMemoryError, "an array needs 4.0 MiB, and 1.0 MiB are free", lambda: device.allocate((2**20,), "f4")
        )


def test_it_is_preferred_where_it_is_installed(pycuda: FakeCuda, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("RMR_CUDA_LIBRARY")
    monkeypatch.setattr(driver, "find_spec", lambda name: name == "pycuda")
    assert driver.find_driver().name == "pycuda"
    monkeypatch.setattr(driver, "find_spec", lambda name: None)
    assert driver.find_driver().name == "driver"


def test_a_broken_pycuda_is_named(cuda: FakeCuda, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RMR_CUDA_LIBRARY", "pycuda")
    monkeypatch.setitem(sys.modules, "pycuda.driver", None)
    monkeypatch.setitem(sys.modules, "pycuda", None)
    expect(DeviceUnavailableError, "pycuda cannot be loaded", open_device)
