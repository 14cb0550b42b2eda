"""Memory, streams, events and graphs of a GPU, over a driver on host memory: values, checks, nothing left behind."""

from __future__ import annotations

import gc
import re
import subprocess
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from fake_cuda import FakeCuda

from rmr_sdk.cuda import Device, libcuda, list_devices, open_device
from rmr_sdk.errors import ConfigError, DeviceError, DeviceMemoryError, DeviceUnavailableError, RmrError


def expect(error: type[RmrError], words: str, act: Callable[[], object]) -> RmrError:
    with pytest.raises(RmrError, match=re.escape(words)) as caught:
        act()
    assert type(caught.value) is error
    assert caught.value.fix, "an error says what to do"
    return caught.value


def test_a_gpu_says_what_it_is(cuda: FakeCuda) -> None:
    cuda.configure(gpus=2, version=12060, integrated=True, mib=1000)
    first, second = list_devices()
    assert (first.device, second.device) == ("cuda:0", "cuda:1")
    assert first.name == "Fake GPU"
    assert (first.compute_capability, first.sm_count, first.integrated) == (86, 48, True)
    assert first.total_bytes == 1000 * 2**20
    assert first.driver.startswith("12.6")


@pytest.mark.parametrize(
    ("line", "driver"),
    [
        (
            "NVRM version: NVIDIA UNIX x86_64 Kernel Module  535.129.03  Thu Oct 19 18:56:32 UTC 2023\n",
            "13.0 (535.129.03)",
        ),
        ("NVRM version: NVIDIA UNIX Open Kernel Module for x86_64  580.65.06  Release Build\n", "13.0 (580.65.06)"),
        ("something else", "13.0"),
    ],
)
def test_a_driver_says_its_version(
    cuda: FakeCuda, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, line: str, driver: str
) -> None:
    (tmp_path / "version").write_text(line)
    monkeypatch.setattr("rmr_sdk.cuda.gpus._VERSION_FILE", tmp_path / "version")
    assert list_devices()[0].driver == driver


def test_what_goes_up_comes_down(cuda: FakeCuda) -> None:
    data = np.arange(24, dtype=np.float32).reshape(2, 3, 4)
    with open_device() as device:
        array, stream, back = device.allocate(data.shape, np.float32), device.stream(), np.zeros_like(data)
        device.upload(data, array, stream)
        device.download(array, back, stream)
        assert not back.any(), "a stream computes when it is waited for"
        stream.synchronize()
        np.testing.assert_array_equal(back, data)
        assert (array.shape, array.dtype, array.nbytes) == ((2, 3, 4), np.float32, 96)
        facts = array.__cuda_array_interface__
        assert facts["data"] == (array.pointer, False)
        assert (facts["shape"], facts["typestr"], facts["version"]) == ((2, 3, 4), "<f4", 3)


def test_page_locked_memory_outlives_its_device(cuda: FakeCuda) -> None:
    device = open_device()
    host = device.pinned((4, 5), np.float16)
    assert host.flags.writeable
    assert host.flags.c_contiguous
    host[:] = 3
    part = host[1:]
    device.close()
    del host
    assert cuda.live() | {"host": 1, "retained": 1} == cuda.live()
    assert part.sum() == 45
    del part
    assert cuda.live()["host"] == 0


def test_an_integrated_gpu_maps_instead_of_copying(cuda: FakeCuda) -> None:
    cuda.configure(integrated=True)
    with open_device() as device:
        host = device.pinned((3,), np.float32)
        mapped = device.mapped(host)
        address = host.ctypes.data
        del host
        gc.collect()
        assert mapped.pointer == address
        assert cuda.live()["host"] == 1, "the mapping keeps the memory alive"
        mapped.free()
        assert cuda.live()["host"] == 0


class Foreign:
    """An array of another library."""

    def __init__(self, array: Any, **changes: Any) -> None:
        self.__cuda_array_interface__ = {**array.__cuda_array_interface__, **changes}


def test_arrays_of_other_libraries_are_taken_without_a_copy(cuda: FakeCuda) -> None:
    with open_device() as device:
        array, stream = device.allocate((2, 3), np.int16), device.stream()
        data = np.arange(6, dtype=np.int16).reshape(2, 3)
        device.upload(data, array, stream)
        seen = device.view(Foreign(array, stream=stream.handle, strides=(6, 2)))
        assert seen.pointer == array.pointer
        back = np.zeros_like(data)
        device.download(seen, back, device.stream())
        device.close()
        np.testing.assert_array_equal(back, data)
        assert cuda.live()["memory"] == 0


def test_events_mark_a_stream_and_measure(cuda: FakeCuda) -> None:
    with open_device() as device:
        stream, start, end = device.stream(), device.event(timing=True), device.event(timing=True)
        done = []
        start.record(stream)
        cuda.enqueue(stream.handle, lambda: done.append(1))
        end.record(stream)
        cuda.enqueue(stream.handle, lambda: done.append(2))
        end.synchronize()
        assert done == [1]
        assert end.milliseconds_since(start) == 1.5
        stream.close()
        assert done == [1, 2], "closing a stream waits for its work"


def test_a_recording_runs_when_it_is_launched(cuda: FakeCuda) -> None:
    data, back = np.arange(4, dtype=np.float32), np.zeros(4, np.float32)
    with open_device() as device:
        stream, array = device.stream(), device.allocate((4,), np.float32)
        with device.capture(stream) as graphs:
            device.upload(data, array, stream)
            device.download(array, back, stream)
        assert len(graphs) == 1
        stream.synchronize()
        assert not back.any()
        for factor in (1, 2):
            data *= factor
            graphs[0].launch(stream)
            stream.synchronize()
            np.testing.assert_array_equal(back, data)


def test_streams_of_other_libraries_stay_open(cuda: FakeCuda) -> None:
    with open_device() as device, open_device() as other:
        theirs = other.stream()
        mine = device.foreign_stream(theirs.handle)
        assert mine.handle == theirs.handle
        mine.close()
        assert cuda.live()["streams"] == 1


def test_any_thread_may_use_a_device(cuda: FakeCuda) -> None:
    with open_device() as device:
        made: list[Any] = []
        thread = threading.Thread(target=lambda: made.append(device.allocate((8,), np.float32)))
        thread.start()
        thread.join()
        assert made[0].pointer
        with device.activate(), device.activate():
            assert cuda.depth == 2
        assert cuda.depth == 0


def test_two_hundred_openings_leave_nothing(cuda: FakeCuda) -> None:
    data = np.zeros((16, 16), np.float32)
    for round_ in range(200):
        with open_device() as device:
            arrays = [device.allocate(data.shape, np.float32) for _ in range(3)]
            stream, event = device.stream(), device.event()
            host = device.pinned(data.shape, np.float32)
            device.upload(data, arrays[0], stream)
            with device.capture(stream) as graphs:
                device.download(arrays[0], host, stream)
            graphs[0].launch(stream)
            event.record(stream)
            if round_ % 2:
                arrays[1].free()
                arrays[1].free()
                event.close()
        device.close()
        del host
    gc.collect()
    assert cuda.live() == dict.fromkeys(cuda.live(), 0)


def test_two_hundred_failures_leave_nothing(cuda: FakeCuda) -> None:
    cuda.configure(mib=1)
    for _ in range(200):
        with open_device() as device:
            kept = device.allocate((1000,), np.float32)
            with pytest.raises(DeviceMemoryError):
                device.allocate((2**20,), np.float32)
            assert kept.pointer
            assert device.free_bytes() == 2**20 - 4000, "the device is usable after it"
    assert cuda.used == 0


# What goes wrong


def test_too_little_memory_says_how_much(cuda: FakeCuda) -> None:
    cuda.configure(mib=2)
    with open_device() as device:
        error = expect(
            DeviceMemoryError,
            "an array needs 3.0 MiB, and 2.0 MiB are free",
            lambda: device.allocate((3 * 2**20,), "u1"),
        )
        assert (error.needed, error.free) == (3 * 2**20, 2 * 2**20)


def test_there_is_no_driver(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(libcuda, "_LIBRARY", "libthere-is-no-such-driver.so.1")
    expect(DeviceUnavailableError, "There is no NVIDIA driver", open_device)
    expect(DeviceUnavailableError, "Install an NVIDIA driver for CUDA 12.0 or newer", list_devices)


def test_the_driver_is_too_old(cuda: FakeCuda) -> None:
    cuda.configure(version=11040)
    expect(DeviceUnavailableError, "The NVIDIA driver is too old: it supports CUDA up to 11.4", open_device)


def test_the_driver_lacks_a_function(cuda: FakeCuda) -> None:
    driver = libcuda.load_libcuda()
    expect(
        DeviceUnavailableError, "too old: it has no cuFromTheFuture", lambda: driver.call("testing", "cuFromTheFuture")
    )


def test_the_driver_finds_no_gpu(cuda: FakeCuda) -> None:
    cuda.configure(gpus=0)
    expect(DeviceUnavailableError, "No NVIDIA GPU can be used: no device (100)", list_devices)


def test_the_driver_counts_no_gpu(cuda: FakeCuda, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(libcuda.LibCuda, "count", lambda self: 0)
    expect(DeviceUnavailableError, "The NVIDIA driver finds no GPU", list_devices)


def test_there_is_no_such_gpu(cuda: FakeCuda) -> None:
    cuda.configure(gpus=2)
    expect(DeviceUnavailableError, "There is no GPU cuda:2 (found: cuda:0, cuda:1)", lambda: open_device(2))


def test_the_adapter_has_a_name(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RMR_CUDA_LIBRARY", "opencl")
    expect(ConfigError, 'RMR_CUDA_LIBRARY is "opencl"', open_device)


def test_a_lost_gpu_says_so_and_closes_without_a_word(cuda: FakeCuda) -> None:
    device = open_device()
    stream, array = device.stream(), device.allocate((4,), np.float32)
    cuda.fail("cuStreamSynchronize", 700)
    error = expect(DeviceError, "The GPU was lost: illegal address (700)", stream.synchronize)
    assert error.lost is True
    array.free()
    device.close()  # what it refuses to give back is its own by now


def test_a_call_that_is_refused_is_told_as_such(cuda: FakeCuda) -> None:
    with open_device() as device:
        cuda.fail("cuStreamCreate", 1)
        assert (
            expect(DeviceError, "The GPU refused: invalid value (1) while opening a stream", device.stream).lost
            is False
        )
        cuda.fail("", 0)


def test_a_device_and_what_it_gave_are_closed(cuda: FakeCuda) -> None:
    device = open_device()
    array, stream = device.allocate((2,), np.float32), device.stream()
    device.close()
    expect(DeviceError, "cuda:0 has been closed", lambda: device.allocate((2,), np.float32))
    expect(DeviceError, "The device array has been freed", lambda: array.pointer)
    expect(DeviceError, "The stream has been closed", lambda: stream.handle)


def test_copies_are_checked(cuda: FakeCuda) -> None:
    cuda.configure(gpus=2)
    with open_device() as device, open_device(1) as other:
        array, stream = device.allocate((2, 3), np.float32), device.stream()
        host = np.zeros((2, 3), np.float32)

        def check(words: str, *copy: Any) -> None:
            expect(DeviceError, words, lambda: device.upload(*copy))

        check("The array belongs to another device than cuda:0", host, other.allocate((2, 3), "f4"), stream)
        check("The stream belongs to another context than cuda:0", host, array, other.stream())
        check("float64 (2, 3) cannot be copied", host.astype(np.float64), array, stream)
        check("float32 (3, 2) cannot be copied", host.reshape(3, 2), array, stream)
        check("is not C-contiguous (strides (4, 8))", np.zeros((3, 2), np.float32).T, array, stream)


def test_foreign_arrays_and_streams_are_checked(cuda: FakeCuda) -> None:
    cuda.configure(gpus=2)
    with open_device() as device, open_device(1) as other:
        array = device.allocate((2, 3), np.float32)
        theirs = other.allocate((2, 3), np.float32)

        def view(words: str, seen: Any) -> None:
            expect(DeviceError, words, lambda: device.view(seen))

        view("The array lies on cuda:1, not on cuda:0", theirs)
        view("A ndarray is no device array", np.zeros(3))
        view("of shape (2, 3) is not C-contiguous (strides (4, 8))", Foreign(array, strides=(4, 8)))
        view("is no memory of a GPU", Foreign(array, data=(64, False)))
        stream = other.stream()
        expect(DeviceError, "The stream belongs to another context", lambda: device.foreign_stream(stream.handle))
        events = device.event(timing=True), other.event(timing=True)
        expect(DeviceError, "The events belong to two devices", lambda: events[0].milliseconds_since(events[1]))


def test_mapping_is_checked(cuda: FakeCuda) -> None:
    with open_device() as device:
        host = device.pinned((4,), np.float32)
        expect(DeviceError, "Fake GPU is not integrated", lambda: device.mapped(host))
    cuda.configure(integrated=True)
    with open_device() as device:
        expect(DeviceError, "The array is none of this device's `pinned`", lambda: device.mapped(np.zeros(3)))


def test_a_recording_that_fails_ends_the_recording(cuda: FakeCuda) -> None:
    with open_device() as device:
        stream = device.stream()
        with pytest.raises(ZeroDivisionError), device.capture(stream):
            raise ZeroDivisionError
        stream.synchronize()


def test_importing_touches_no_driver() -> None:
    script = "import sys, rmr_sdk.cuda, rmr_sdk.engines.base; print('pycuda' in sys.modules, 'torch' in sys.modules)"
    printed = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True, timeout=60)
    assert printed.stdout.split() == ["False", "False"]


def test_a_device_is_what_the_protocol_says(cuda: FakeCuda) -> None:
    with open_device() as device:
        promised = {name for name in vars(Device) if not name.startswith("_")} | {"info"}
        assert promised <= set(dir(device))
