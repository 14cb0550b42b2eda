"""Every refusal of the kernels and of the modules around them: its type and its words."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from rmr_sdk import _C
from rmr_sdk.blend import Blender, BlendOutputs
from rmr_sdk.errors import ConfigError, DeviceError
from rmr_sdk.tiles import axis_windows, plan_tiles, tile_starts

CUBE = np.zeros((4, 4, 4), np.float32)
MAP = {"scale": 1.0, "offset": 0.0, "low": 0.0, "high": 1.0}


def extract(source: Any = CUBE, out: Any = None, **changes: Any) -> None:
    out = np.empty((2, 2, 2), np.float32) if out is None else out
    _C.extract(source, out, **{"origin": (0, 0, 0), **MAP, **changes})


def resample(source: Any = CUBE, out: Any = None, matrix: Any = None, mode: str = "linear", **changes: Any) -> None:
    out = np.empty((2, 2, 2), np.float32) if out is None else out
    _C.resample(source, out, matrix=np.eye(3, 4) if matrix is None else matrix, mode=mode, **changes)


def make_target(**changes: Any) -> Any:
    rows = np.zeros((4, 4), np.int32)
    arrays = {
        "slot": rows,
        "first": rows,
        "last": rows,
        "ring": np.empty((1, 1, 4), np.float32),
        "labels": np.empty((4, 4, 4), np.uint8),
        "chosen": np.empty((4, 4, 4), np.float32),
        "fused": np.empty((4, 4, 4), np.float32),
    }
    facts = {"shape": (4, 4, 4), "classes": 3, "chosen_class": 2, "complement": True, "gain": 1.0, "bias": 0.0}
    return _C.BlendTarget(**{**arrays, **facts, **changes})


def blend(**changes: Any) -> None:
    window = np.ones(4, np.float32)
    arguments: dict[str, Any] = {
        "probability": np.zeros((3, 4, 4, 4), np.float32),
        "fused": CUBE,
        "window_d": window,
        "window_h": window,
        "window_w": window,
        "tile": 0,
        "origin": (0, 0, 0),
        "low": (0, 0, 0),
        "high": (4, 4, 4),
    }
    make_target().blend(**{**arguments, **changes})


def occupancy(**changes: Any) -> None:
    arguments = {"source": CUBE, "bounds": np.empty((1, 1, 1, 6), np.int32), "threshold": 0.0, "block": 8}
    _C.occupancy(**{**arguments, **changes})


def misaligned() -> Any:
    return np.zeros((2, 2, 2), np.dtype([("pad", np.uint8), ("value", np.float32)]))["value"]


def read_only() -> Any:
    array = np.zeros((2, 2, 2), np.float32)
    array.setflags(write=False)
    return array


def skip_a_tile() -> None:
    plan = plan_tiles((0, 0, 0), (8, 8, 8), (8, 8, 8), (4, 4, 4), 0.0)
    outputs = BlendOutputs.allocate(plan.shape, labels=False, probability=False)
    Blender(plan, outputs).add(1, np.zeros((4, 4, 4), np.float32))


def finish_early() -> None:
    plan = plan_tiles((0, 0, 0), (8, 8, 8), (8, 8, 8), (4, 4, 4), 0.0)
    Blender(plan, BlendOutputs.allocate(plan.shape, labels=False, probability=False)).finish()


CONFIG_ERRORS: list[tuple[Callable[[], Any], str]] = [
    (lambda: tile_starts(10, 0, 0.5), "tile of 0 voxels"),
    (lambda: tile_starts(0, 4, 0.5), "axis of 0 voxels"),
    (lambda: tile_starts(10, 4, -0.1), r"overlap -0\.1 is out of range\. Give a number from 0 to 0\.9"),
    (lambda: tile_starts(10, 4, 1.0), r"overlap 1\.0"),
    (lambda: tile_starts(10, 4, float("nan")), "overlap nan"),
    (lambda: axis_windows([0, 6], 4, 10), "voxel 4 of an axis of 10 voxels is covered by no tile"),
    (lambda: axis_windows([], 4, 10), "voxel 0"),
    (lambda: axis_windows([0], 4, 4, 0.0), r"sigma_scale 0\.0 is not a positive number"),
    (lambda: plan_tiles((0, 0, 0), (9, 4, 4), (8, 8, 8), (4, 4, 4), 0.5), "does not lie in a volume"),
    (lambda: plan_tiles((0, 3, 0), (4, 2, 4), (8, 8, 8), (4, 4, 4), 0.5), "does not lie in a volume"),
    (skip_a_tile, "tile 1 was added where tile 0 of 8 is due"),
    (finish_early, "only 0 of 8 tiles were added"),
]

VALUE_ERRORS: list[tuple[Callable[[], Any], str]] = [
    (lambda: extract(threads=0), "threads must be 1 to 256"),
    (lambda: extract(out=np.empty((2, 2, 2), np.float32)[:, ::-1]), "out must be C-contiguous"),
    (lambda: extract(out=read_only()), "out must be writable"),
    (lambda: extract(out=np.empty((2, 2), np.float32)), r"out must have the shape \(any, any, any\), not \(2, 2\)"),
    (lambda: extract(source=CUBE[0]), "source must have the shape"),
    (lambda: extract(source=misaligned()), "source must be aligned"),
    (lambda: resample(mode="cubic"), "mode must be nearest, linear or area, not cubic"),
    (lambda: resample(matrix=np.eye(4)), r"matrix must have the shape \(3, 4\)"),
    (lambda: resample(matrix=np.full((3, 4), np.nan)), "matrix must be finite"),
    (lambda: resample(matrix=99 * np.eye(3, 4), mode="area"), "must not shrink an axis more than 64 times"),
    (lambda: resample(source=CUBE[:0]), "source must not be empty"),
    (lambda: occupancy(block=0), "block must be positive"),
    (lambda: occupancy(bounds=np.empty((2, 1, 1, 6), np.int32)), "bounds must have the shape"),
    (lambda: _C.any_above(CUBE, threshold=0.0, low=(0, 0, 0), high=(5, 1, 1)), "low and high must lie in the source"),
    (lambda: _C.components(CUBE[::-1].astype(np.uint8)[:, ::-1], value=1), "labels must be C-contiguous"),
    (lambda: make_target(classes=300), "classes must be 0 to 256"),
    (lambda: make_target(labels=None), "labels must be given exactly when there are classes"),
    (lambda: make_target(chosen=None), "chosen must be given exactly when chosen_class is not -1"),
    (lambda: make_target(chosen_class=0), "chosen_class must be -1 or a class that is added up"),
    (lambda: make_target(chosen_class=3), "chosen_class must be -1 or a class that is added up"),
    (lambda: extract(matrix=np.eye(3, 4)), "matrix and grid must be given together"),
    (lambda: extract(grid=(4, 4, 4)), "matrix and grid must be given together"),
    (lambda: extract(matrix=np.full((3, 4), np.nan), grid=(4, 4, 4)), "matrix must be finite"),
    (lambda: extract(np.zeros((0, 2, 2), np.int16), matrix=np.eye(3, 4), grid=(4, 4, 4)), "source must not be empty"),
    (lambda: blend(flaws=np.zeros(3, np.int32)), r"flaws must have the shape \(2\), not \(3\)"),
    (lambda: make_target(ring=None), "ring must be given exactly when a class needs it"),
    (lambda: make_target(ring=np.empty((1, 2, 4), np.float32)), r"ring must have the shape \(any, 1, any\)"),
    (
        lambda: make_target(ring=np.empty((1, 1, 5), np.float32)),
        "ring must be as wide as the volume, or a multiple of 4",
    ),
    (lambda: make_target(slot=np.ones((4, 4), np.int32)), "slot must lie in the ring"),
    (lambda: make_target(slot=np.full((4, 4), -1, np.int32)), "slot must lie in the ring"),
    (lambda: blend(probability=None), "probability must be given exactly when there are classes"),
    (lambda: blend(fused=None), "fused must be given exactly when there is a fused output"),
    (lambda: blend(high=(5, 4, 4)), "low and high must bound voxels that lie in the tile and in the volume"),
    (lambda: blend(fused=CUBE[..., ::-1]), "fused must be contiguous along its last axis"),
    (lambda: blend(probability=np.zeros((2, 4, 4, 4), np.float32)), r"probability must have the shape \(3, 4, 4, 4\)"),
]

TYPE_ERRORS: list[tuple[Callable[[], Any], str]] = [
    (lambda: extract(source=CUBE.astype(np.float64)), "source must have the type uint8, int16, uint16 or float32"),
    (lambda: extract(source=CUBE.astype(">i2")), "not >i2"),
    (lambda: extract(out=np.empty((2, 2, 2))), "out must have the type float32 or float16, not <f8"),
    (lambda: extract(source=CUBE.tolist()), "source"),
    (lambda: extract(source=np.empty((4, 4, 4), "V0")), "source must have elements of a numeric type"),
    (lambda: resample(mode="nearest", source=CUBE.astype(np.int16)), "out must have the type <i2"),
    (lambda: blend(fused=CUBE.astype(np.float16)), "fused must have the type <f4, not <f2"),
]


@pytest.mark.parametrize(("act", "words"), CONFIG_ERRORS)
def test_config_errors(act: Callable[[], Any], words: str) -> None:
    with pytest.raises(ConfigError, match=words) as caught:
        act()
    assert caught.value.fix


@pytest.mark.parametrize(("act", "words"), VALUE_ERRORS)
def test_value_errors_name_the_argument(act: Callable[[], Any], words: str) -> None:
    with pytest.raises(ValueError, match=words):
        act()


@pytest.mark.parametrize(("act", "words"), TYPE_ERRORS)
def test_type_errors_name_the_argument(act: Callable[[], Any], words: str) -> None:
    with pytest.raises(TypeError, match=words):
        act()


def test_errors_keep_their_facts() -> None:
    with pytest.raises(ConfigError) as caught:
        tile_starts(10, 4, 2.0)
    assert caught.value.overlap == 2.0


class NoArray:
    """Looks like device memory on a machine that has none."""

    __cuda_array_interface__ = {"shape": (2, 2, 2), "typestr": "<f4", "data": (4096, False), "version": 3}  # noqa: RUF012


@pytest.mark.skipif(not _C.built_with_cuda, reason="built without CUDA")
@pytest.mark.skipif(_C.cuda_device_count() > 0, reason="there is a CUDA device")
def test_a_launch_without_a_driver_is_an_error() -> None:
    with pytest.raises(DeviceError, match="The GPU failed in asking for the device: ") as caught:
        _C.cuda.extract(NoArray(), NoArray(), origin=(0, 0, 0), **MAP)
    assert caught.value.status != 0
