"""What the device ops take for an array: the CUDA array interface, checked at the door."""

from __future__ import annotations

from types import ModuleType
from typing import Any

import numpy as np
import pytest

from rmr_sdk.errors import DeviceError, DeviceMemoryError

MAP = {"origin": (0, 0, 0), "scale": 1.0, "offset": 0.0, "low": 0.0, "high": 9.0}
CUBE = np.ones((4, 4, 4), np.float32)
ABSENT = object()


class Shown:
    """An array behind an interface that a test writes."""

    def __init__(self, array: Any, **facts: Any) -> None:
        self.array = array
        self.facts = {
            key: value for key, value in {**array.__array_interface__, **facts}.items() if value is not ABSENT
        }

    @property
    def __cuda_array_interface__(self) -> dict[str, Any]:
        return self.facts


@pytest.fixture(autouse=True)
def clean(emulated: ModuleType) -> Any:
    """Forget what a test said about memory."""
    yield
    emulated.forget()


def extract(ops: ModuleType, source: Any = None, out: Any = None, stream: int = 0) -> None:
    out = Shown(np.empty((2, 2, 2), np.float32)) if out is None else out
    ops.extract(Shown(CUBE) if source is None else source, out, **MAP, stream=stream)


def read_only() -> Any:
    return Shown(np.empty((2, 2, 2), np.float32), data=(CUBE.ctypes.data, True))


REFUSED: list[tuple[dict[str, Any], type[Exception], str]] = [
    ({"source": CUBE}, TypeError, "source must be an array in device memory"),
    ({"source": Shown(CUBE, typestr=ABSENT)}, TypeError, "source has an array interface without typestr"),
    ({"source": Shown(CUBE, shape=ABSENT)}, TypeError, "source has an array interface without shape"),
    ({"source": Shown(CUBE, data=ABSENT)}, TypeError, "source has an array interface without data"),
    ({"source": Shown(CUBE, mask=CUBE)}, TypeError, "source must not be masked"),
    ({"source": Shown(CUBE, data=(0, False))}, ValueError, "source must not be null"),
    ({"source": Shown(CUBE, stream=0)}, ValueError, "source names stream 0"),
    ({"source": Shown(CUBE, typestr="<f8")}, TypeError, "source must have the type uint8, int16, uint16 or float32"),
    ({"source": Shown(CUBE, strides=(64, 16, 3))}, ValueError, "source must be aligned to its elements"),
    ({"out": Shown(CUBE, shape=(8, 8))}, ValueError, r"out must have the shape \(any, any, any\), not \(8, 8\)"),
    ({"out": Shown(CUBE, strides=(4, 16, 64))}, ValueError, "out must be C-contiguous"),
    ({"out": Shown(CUBE, typestr="<i4")}, TypeError, "out must have the type float32 or float16, not <i4"),
    ({"out": read_only()}, ValueError, "out must be writable"),
]


@pytest.mark.parametrize(("arguments", "error", "message"), REFUSED)
def test_arrays_that_are_refused(
    emulated: ModuleType, arguments: dict[str, Any], error: type[Exception], message: str
) -> None:
    with pytest.raises(error, match=message):
        extract(emulated, **arguments)


def test_memory_elsewhere_is_refused(emulated: ModuleType) -> None:
    here, there, host = (Shown(np.ones((4, 4, 4), np.float32)) for _ in range(3))
    out = Shown(np.empty((2, 2, 2), np.float32))
    for shown, device in ((here, 0), (out, 0), (there, 1)):
        emulated.own(shown.array.ctypes.data, shown.array.nbytes, device)
    extract(emulated, here, out)
    with pytest.raises(ValueError, match=r"source is on cuda:1, and the current device is cuda:0"):
        extract(emulated, there, out)
    with pytest.raises(ValueError, match="source must be memory of the device, managed or page-locked memory"):
        extract(emulated, host, out)


def test_streams_that_arrays_name_are_followed(emulated: ModuleType) -> None:
    extract(emulated, Shown(CUBE, stream=5), Shown(np.empty((2, 2, 2), np.float32), stream=None), stream=7)
    extract(emulated, Shown(CUBE, stream=7), stream=7)
    assert emulated.followed() == [(7, 5)]


def test_a_blend_follows_its_own_arrays_once(emulated: ModuleType) -> None:
    rows = Shown(np.zeros((2, 2), np.int32), stream=5)
    fused = Shown(np.zeros((2, 2, 4), np.float32))
    facts = {"shape": (2, 2, 4), "classes": 0, "chosen_class": -1, "complement": False, "gain": 1.0, "bias": 0.0}
    target = emulated.BlendTarget(rows, rows, rows, None, None, None, fused, **facts)
    windows = [Shown(np.ones(length, np.float32)) for length in (2, 2, 4)]
    for tile in (0, 1):
        place = {"tile": tile, "origin": (0, 0, 0), "low": (0, 0, 0), "high": (2, 2, 4)}
        target.blend(None, fused, *windows, **place, stream=7)
    assert emulated.followed() == [(7, 5)] * 3


@pytest.mark.parametrize(("status", "kind"), [(2, DeviceMemoryError), (700, DeviceError), (999, DeviceError)])
def test_what_cuda_reports_is_a_device_error(emulated: ModuleType, status: int, kind: type[DeviceError]) -> None:
    with pytest.raises(DeviceError, match="The GPU failed in extract: as the test wants it") as caught:
        emulated.fail(status)
    assert type(caught.value) is kind
    assert caught.value.status == status
    assert caught.value.fix
