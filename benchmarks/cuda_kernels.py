"""Each CUDA kernel's memory traffic in time, beside a plain copy of the same number of bytes in the same run.

A kernel's bytes are those that must move: what it reads and writes once, worked out from the job, not measured. Jobs
and copies go round several sets of arrays, so that what one launch leaves in the cache is not there for the next. Every
result is compared with the CPU's to the bit before a figure is reported.
"""

from __future__ import annotations

import statistics
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from rmr_sdk import _C
from rmr_sdk.blend import ring_channels, schedule_rows
from rmr_sdk.cuda import Device, DeviceArray, Graph, Stream
from rmr_sdk.device_kernels import DeviceKernels
from rmr_sdk.device_memory import DeviceView, Workspace
from rmr_sdk.tiles import TilePlan, plan_tiles

Array = npt.NDArray[Any]
Copy = Callable[[DeviceArray, DeviceArray, Stream], None]
"""Queues a copy between two arrays of a device."""

CLASSES, CHOSEN = 5, 4
MAP = {"scale": 1e-3, "offset": 10.0, "low": 0.0, "high": 1.5}
MATRIX = np.array([[0.96, 0.05, -0.03, 2.0], [-0.05, 0.97, 0.02, 3.0], [0.03, -0.02, 0.98, 1.0]])
BOX = {"block": 8, "threshold": 900.0}
MOST_SETS = 16


@dataclass(frozen=True)
class Job:
    """A kernel on one volume.

    Attributes:
        name: What it does.
        bytes: That must move.
        sets: One launch each, on arrays of its own.
        check: Raises RuntimeError where the first set's result is not the CPU's.
        bound: Whether memory traffic alone bounds it, so that the target holds for it.
    """

    name: str
    bytes: int
    sets: Sequence[Callable[[int], None]]
    check: Callable[[], None]
    bound: bool = True


def measure(device: Device, job: Job, copy: Copy, rounds: int, launches: int) -> dict[str, Any]:
    """Time a job and a copy of as many bytes in turns; return seconds and the ratio of their bandwidths.

    Launches are recorded into a graph beforehand: what is timed is the GPU, not Python.
    """
    with device.activate(), Workspace(device) as space:
        job.sets[0](space.stream.handle)
        space.stream.synchronize()
        job.check()
        half = max(job.bytes // 2 // 16 * 16, 16)
        pairs = [(space.take((half,), np.uint8), space.take((half,), np.uint8)) for _ in job.sets]
        launches = max(launches, len(job.sets))
        graphs = {
            "kernel": _record(space, lambda index: job.sets[index % len(job.sets)](space.stream.handle), launches),
            "copy": _record(space, lambda index: copy(*pairs[index % len(pairs)], space.stream), launches),
        }
        seconds: dict[str, list[float]] = {name: [] for name in graphs}
        for _ in range(rounds + 1):  # the first round warms up
            for name, graph in graphs.items():
                seconds[name].append(_time(device, space, graph) / launches)
        job.check()
    kernel, copied = (statistics.median(times[1:]) for times in seconds.values())
    return {
        "kernel": job.name,
        "mib": round(job.bytes / 2**20, 1),
        "us": round(1e6 * kernel, 2),
        "gb_s": round(job.bytes / kernel / 1e9, 1),
        "copy_gb_s": round(2 * half / copied / 1e9, 1),
        "of_copy": round((job.bytes / kernel) / (2 * half / copied), 3),
        "memory_bound": job.bound,
    }


def _record(space: Workspace, call: Callable[[int], None], launches: int) -> Graph:
    with space.device.capture(space.stream) as recorded:
        for index in range(launches):
            call(index)
    space.keep_until_done(recorded[0].close)
    return recorded[0]


def _time(device: Device, space: Workspace, graph: Graph) -> float:
    begin, end = device.event(timing=True), device.event(timing=True)
    try:
        begin.record(space.stream)
        graph.launch(space.stream)
        end.record(space.stream)
        end.synchronize()
        return end.milliseconds_since(begin) / 1e3
    finally:
        begin.close()
        end.close()


def jobs(kernels: DeviceKernels, space: Workspace, shape: tuple[int, int, int], spread: int) -> Iterator[Job]:
    """Make every kernel's job for one volume; `spread` is how many bytes the sets of a job span."""
    rng = np.random.default_rng(0)
    voxels = rng.integers(0, 1500, shape).astype(np.int16)
    for name, source in _sources(voxels).items():
        for out in (np.float16, np.float32):
            yield _extract(kernels, space, source, out, f"extract {name} to {np.dtype(out).name}", spread)
    yield _extract(kernels, space, voxels, np.float16, "sample int16 to float16", spread, MATRIX)
    for kind in (np.float16, np.float32):
        yield _blend(kernels, space, shape, kind, rng)
    yield _occupancy(kernels, space, voxels, spread)
    for mode in ("nearest", "linear", "area"):
        yield _resample(kernels, space, voxels, mode, spread)


def _sources(voxels: Array) -> dict[str, Array]:
    return {
        "int16": voxels,
        "uint8": (voxels >> 3).astype(np.uint8),
        "float32": voxels.astype(np.float32),
        "int16 Fortran": np.asfortranarray(voxels),
        "int16 flipped": np.ascontiguousarray(voxels[:, :, ::-1])[:, :, ::-1],
    }


def _sets(count_for: int, spread: int) -> range:
    return range(max(1, min(MOST_SETS, -(-spread // count_for))))


def _extract(
    kernels: DeviceKernels,
    space: Workspace,
    source: Array,
    out: npt.DTypeLike,
    name: str,
    spread: int,
    matrix: npt.NDArray[np.float64] | None = None,
) -> Job:
    expected = np.empty(source.shape, out)
    extra: dict[str, Any] = {} if matrix is None else {"matrix": matrix, "grid": source.shape}
    _C.extract(source, expected, origin=(0, 0, 0), **MAP, **extra)
    moved = source.nbytes + expected.nbytes
    pairs = [(space.put_view(source), space.take(source.shape, out)) for _ in _sets(moved, spread)]

    def launch(pair: tuple[DeviceView, DeviceArray]) -> Callable[[int], None]:
        return lambda stream: kernels.extract(*pair, origin=(0, 0, 0), **MAP, **extra, stream=stream)

    return Job(name, moved, [launch(pair) for pair in pairs], _check(space, name, pairs[0][1], expected), not extra)


def _resample(kernels: DeviceKernels, space: Workspace, source: Array, mode: Any, spread: int) -> Job:
    expected = np.empty(source.shape, source.dtype if mode == "nearest" else np.float32)
    _C.resample(source, expected, matrix=MATRIX, mode=mode)
    moved = source.nbytes + expected.nbytes
    pairs = [(space.put_view(source), space.take(source.shape, expected.dtype)) for _ in _sets(moved, spread)]

    def launch(pair: tuple[DeviceView, DeviceArray]) -> Callable[[int], None]:
        return lambda stream: kernels.resample(*pair, matrix=MATRIX, mode=mode, stream=stream)

    name = f"resample int16, {mode}"
    return Job(name, moved, [launch(pair) for pair in pairs], _check(space, name, pairs[0][1], expected), False)


def _occupancy(kernels: DeviceKernels, space: Workspace, source: Array, spread: int) -> Job:
    expected = np.empty([-(-extent // 8) for extent in source.shape] + [6], np.int32)
    _C.occupancy(source, expected, **BOX)
    pairs = [(space.put_view(source), space.take(expected.shape, np.int32)) for _ in _sets(source.nbytes, spread)]

    def launch(pair: tuple[DeviceView, DeviceArray]) -> Callable[[int], None]:
        return lambda stream: kernels.occupancy(*pair, **BOX, stream=stream)

    check = _check(space, "occupancy", pairs[0][1], expected)
    return Job("occupancy int16", source.nbytes + expected.nbytes, [launch(pair) for pair in pairs], check)


def blend_bytes(plan: TilePlan, itemsize: int) -> int:
    """Return what blending a plan must move: predictions in; sums in where a row is open, out where it stays so.

    The chosen class and the fused image are written either way, labels where a row closes.
    """
    schedule, channels = schedule_rows(plan), ring_channels(CLASSES, CHOSEN, True)
    total = 0
    for index, tile in enumerate(plan.tiles):
        rows = (slice(tile.low[0], tile.high[0]), slice(tile.low[1], tile.high[1]))
        opens, closes = schedule.first[rows] == index, schedule.last[rows] == index
        covered = tile.high[2] - tile.low[2]
        wide = np.where(opens | closes, plan.shape[2], covered)
        total += itemsize * (CLASSES - 1 + 1) * opens.size * covered
        total += 4 * (channels + 2) * int(wide[~opens].sum())  # sums read
        total += 4 * channels * int(wide[~closes].sum()) + 4 * 2 * int(wide.sum())  # sums written
        total += int(wide[closes].sum())  # labels
    return total


def _blend(kernels: DeviceKernels, space: Workspace, shape: tuple[int, int, int], kind: npt.DTypeLike, rng: Any) -> Job:
    """All tiles of a volume, one after the other, with predictions of a few tiles over and over."""
    size = (min(32, shape[0]), min(128, shape[1]), min(128, shape[2]))
    plan = plan_tiles((0, 0, 0), shape, shape, size, 0.5)
    schedule, channels = schedule_rows(plan), ring_channels(CLASSES, CHOSEN, True)
    probability = [rng.random((CLASSES, *size), np.float32).astype(kind) for _ in range(4)]
    fused = [rng.random(size, np.float32).astype(kind) for _ in range(4)]
    rows = [schedule.slot, schedule.first, schedule.last]
    facts: dict[str, Any] = {"shape": shape, "classes": CLASSES, "chosen_class": CHOSEN, "complement": True}
    facts |= {"gain": 700.0, "bias": 3.0}
    expected = [np.empty(shape, dtype) for dtype in (np.uint8, np.float32, np.float32)]
    ring = np.empty((schedule.slots, channels, shape[2]), np.float32)
    _run_plan(
        _C.BlendTarget(*rows, ring, *expected, **facts), plan, probability, fused, [t.windows for t in plan.tiles]
    )

    put: Callable[[Array], DeviceArray] = space.put
    found = [space.take(shape, each.dtype) for each in expected]
    wide = space.take((schedule.slots, channels, (shape[2] + 6) // 4 * 4), np.float32)
    target = kernels.BlendTarget(*map(put, rows), wide, *found, **facts)
    predicted = [put(each) for each in probability], [put(each) for each in fused]
    known: dict[int, DeviceArray] = {}
    for tile in plan.tiles:
        for window in tile.windows:
            if id(window) not in known:
                known[id(window)] = put(window)
    windows = [tuple(known[id(window)] for window in tile.windows) for tile in plan.tiles]

    def launch(stream: int) -> None:
        _run_plan(target, plan, *predicted, windows, stream=stream)

    def check() -> None:
        for name, each, exact in zip(("labels", "probability", "fused"), found, expected, strict=True):
            _check(space, f"blend, {name}", each, exact)()

    name = f"blend {np.dtype(kind).name}, {len(plan.tiles)} tiles"
    return Job(name, blend_bytes(plan, np.dtype(kind).itemsize), [launch], check)


def _run_plan(target: Any, plan: TilePlan, probability: Any, fused: Any, windows: Any, **where: int) -> None:
    for index, tile in enumerate(plan.tiles):
        place = {"tile": index, "origin": tile.origin, "low": tile.low, "high": tile.high}
        of = index % len(fused)
        target.blend(probability[of], fused[of], *windows[index], **place, **where)


def _check(space: Workspace, name: str, found: DeviceArray, expected: Array) -> Callable[[], None]:
    def check() -> None:
        answer = np.empty(found.shape, found.dtype)
        space.device.download(found, answer, space.stream)
        space.stream.synchronize()
        if not np.array_equal(answer, expected, equal_nan=answer.dtype.kind == "f"):
            wrong = int((answer != expected).sum())
            raise RuntimeError(f"{name}: {wrong} values differ from the CPU's: no figures without equal results")

    return check
