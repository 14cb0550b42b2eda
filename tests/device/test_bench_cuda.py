"""The GPU benchmark's logic, on the GPU made of host memory: jobs, checks, bytes and verdicts, not speed."""

from __future__ import annotations

import sys
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import numpy as np
import pytest
from fake_gpu import FakeArray, FakeDevice, FakeStream

from rmr_sdk import _C
from rmr_sdk.blend import schedule_rows
from rmr_sdk.device_memory import Workspace
from rmr_sdk.tiles import plan_tiles

BENCHMARKS = Path(__file__).parents[2] / "benchmarks"


@pytest.fixture(scope="module")
def bench() -> Any:
    """Give the benchmark's modules."""
    sys.path.insert(0, str(BENCHMARKS))
    import bench_cuda
    import cuda_kernels

    sys.path.remove(str(BENCHMARKS))
    return SimpleNamespace(cuda=bench_cuda, kernels=cuda_kernels)


def copy(source: FakeArray, target: FakeArray, stream: FakeStream) -> None:
    stream.do(lambda: np.copyto(target.host, source.host))


def test_every_kernel_is_measured_and_checked(bench: Any, emulated: ModuleType, capsys: Any) -> None:
    device = FakeDevice(emulated)
    rows = bench.cuda.bench_kernels(device, emulated, copy, [(20, 24, 27)], rounds=2, launches=2, spread=2**18)
    kinds = {row["kernel"].split()[0] for row in rows}
    assert kinds == {"extract", "sample", "blend", "occupancy", "resample"}
    for row in rows:
        assert row["us"] > 0
        assert row["of_copy"] > 0
        assert row["shape"] == [20, 24, 27]
    assert [row["kernel"] for row in rows if not row["memory_bound"]] == [
        "sample int16 to float16",
        *(f"resample int16, {mode}" for mode in ("nearest", "linear", "area")),
    ]
    assert capsys.readouterr().out.count("of a copy") == len(rows)
    assert not device.live


def test_a_wrong_result_gives_no_figure(bench: Any, emulated: ModuleType, monkeypatch: pytest.MonkeyPatch) -> None:
    extract = emulated.extract

    def shifted(source: Any, out: Any, **facts: Any) -> None:
        extract(source, out, **{**facts, "offset": facts["offset"] + 1})

    monkeypatch.setattr(emulated, "extract", shifted)
    device = FakeDevice(emulated)
    with pytest.raises(RuntimeError, match=r"extract int16 to float16: .* no figures without equal results"):
        bench.cuda.bench_kernels(device, emulated, copy, [(20, 24, 27)], rounds=1, launches=1, spread=1)
    assert not device.live


def test_bytes_of_a_blend_are_counted_by_hand(bench: Any) -> None:
    shape = (4, 6, 10)
    one = plan_tiles((0, 0, 0), shape, shape, shape, 0.0)
    voxels = 240
    # Five of six predictions, chosen class and fused image out, labels out; sums never leave the registers.
    assert bench.kernels.blend_bytes(one, 2) == voxels * (2 * 5 + 4 * 2 + 1)
    two = plan_tiles((0, 0, 0), shape, shape, (4, 6, 5), 0.0)
    assert len(two.tiles) == 2
    assert (schedule_rows(two).last == 1).all()
    # The first opens whole rows and writes five sums; the second reads and closes them.
    assert bench.kernels.blend_bytes(two, 4) == voxels * (4 * 5 + 4 * 5 + 4 * 5 + 4 * 2 + 1)


def test_sets_span_more_than_a_cache(bench: Any, emulated: ModuleType) -> None:
    with Workspace(FakeDevice(emulated)) as space:
        found = {job.name: len(job.sets) for job in bench.kernels.jobs(emulated, space, (20, 24, 27), 2**19)}
    assert found["extract int16 to float16"] == -(-(2**19) // (20 * 24 * 27 * 4))
    assert max(found.values()) <= bench.kernels.MOST_SETS


def test_runs_are_interleaved_and_the_first_round_does_not_count(bench: Any) -> None:
    order: list[str] = []
    seconds, answers = bench.cuda.interleave({name: lambda name=name: order.append(name) or name for name in "ab"}, 2)
    assert order == ["a", "b"] * 3
    assert {name: len(times) for name, times in seconds.items()} == {"a": 2, "b": 2}
    assert answers == {"a": "a", "b": "b"}


def test_verdicts_follow_the_figures(bench: Any) -> None:
    base = bench.cuda.BASE
    rows = bench.cuda.summarise({base: [4.0, 4.2, 4.1], "rmr_sdk, TensorRT fp16": [1.0, 2.0, 1.5]})
    assert rows["rmr_sdk, TensorRT fp16"] == {"median_s": 1.5, "times_faster": 2.73}
    rows["rmr_sdk, TensorRT fp16"]["outside_tiles"] = 0.2
    kernels = [{"of_copy": 0.9, "memory_bound": True}, {"of_copy": 0.2, "memory_bound": False}]
    reached = bench.cuda.conclude({"kernels": kernels, "study": {"rows": rows}})
    assert list(reached.values()) == [True, True, False]
    kernels[0]["of_copy"] = 0.84
    assert list(bench.cuda.conclude({"kernels": kernels}).values()) == [False]


def test_labels_that_differ_are_refused(bench: Any) -> None:
    labels = np.zeros((4, 4, 4), np.uint8)
    other = labels.copy()
    other[0] = 1
    rows: dict[str, Any] = {"a": {}, "b": {}}
    with pytest.raises(RuntimeError, match="b gives other labels"):
        bench.cuda._compare(rows, {"a": (None, labels), "b": (None, other)}, (), None, ...)
    assert rows["a"]["label_agreement"] == 1.0


@pytest.mark.skipif(_C.cuda_device_count() > 0, reason="there is a CUDA device")
def test_without_a_gpu_nothing_is_measured(bench: Any, capsys: Any, tmp_path: Path) -> None:
    assert bench.cuda.main(["--out", str(tmp_path / "out.json")]) == 5
    assert "Nothing was measured" in capsys.readouterr().err
    assert not list(tmp_path.iterdir())
