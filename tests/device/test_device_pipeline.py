"""The device pipeline on a GPU made of host memory: the same bits as on the CPU, and nothing left behind."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from fake_gpu import FakeArray, FakeEngine, RecordableSession
from studies import STUDIES, expect_same
from tiny_study import lesion_mask, make_doubtful, make_grid, make_study, make_tiny

from rmr_sdk import _C, Pipeline, Progress, Study, Volume
from rmr_sdk.device_kernels import device_kernels
from rmr_sdk.device_run import run_on_device
from rmr_sdk.errors import (
    Cancelled,
    ConfigError,
    DeadlineExceeded,
    DeviceError,
    DeviceMemoryError,
    DeviceUnavailableError,
    EngineError,
    StudyError,
)
from rmr_sdk.manifest import LesionThreshold

Open = Callable[..., tuple[Pipeline, FakeEngine]]


@pytest.mark.parametrize("integrated", [False, True], ids=["discrete", "integrated"])
@pytest.mark.parametrize("name", STUDIES)
def test_results_are_those_of_the_host(host: Pipeline, open_device: Open, name: str, integrated: bool) -> None:
    study = STUDIES[name]()
    pipeline, engine = open_device(integrated=integrated)
    expect_same(pipeline.run(study, overlap=0.5), host.run(study, overlap=0.5))
    assert not engine.device.live
    assert engine.device.active == 0


@pytest.mark.parametrize("overlap", [0.0, 0.3, 0.7])
def test_any_overlap(host: Pipeline, open_device: Open, overlap: float) -> None:
    pipeline, _ = open_device()
    expect_same(pipeline.run(make_study(), overlap=overlap), host.run(make_study(), overlap=overlap))


def test_a_brain_mask_counts(host: Pipeline, open_device: Open) -> None:
    pipeline, _ = open_device()
    mask = lesion_mask(make_grid())
    mask.data[4:] = 1
    expect_same(*(each.run(make_study(), brain_mask=mask) for each in (pipeline, host)))


def test_bundles_without_classes(host: Pipeline, open_device: Open, tmp_path: Path) -> None:
    make_tiny(tmp_path / "fuses.zip", classes=None)
    with Pipeline.open(tmp_path / "fuses.zip", threads=1, cache_dir=tmp_path) as plain:
        pipeline, _ = open_device(plain)
        found = pipeline.run(make_study())
        np.testing.assert_array_equal(found.fused.data, plain.run(make_study()).fused.data)
        assert found.labels is None


def test_every_voxel_goes_up_and_comes_down_once(open_device: Open) -> None:
    pipeline, engine = open_device()
    pipeline.run(make_study(), overlap=0.6)
    assert engine.enqueued > 8
    # Both contrasts, the schedule of rows, the windows, the flags; the flags, three volumes.
    assert engine.device.counts["upload"] == 5
    assert engine.device.counts["download"] == 4
    assert engine.device.counts["synchronize"] == 2


def test_nothing_is_allocated_per_tile(open_device: Open) -> None:
    allocated = []
    for overlap in (0.0, 0.7):
        pipeline, engine = open_device()
        pipeline.run(make_study(), overlap=overlap)
        allocated.append((engine.computed, engine.device.counts["allocate"]))
    assert allocated[1][0] >= 2 * allocated[0][0]
    assert allocated[1][1] == allocated[0][1]


def test_an_integrated_device_copies_no_output(open_device: Open) -> None:
    pipeline, engine = open_device(integrated=True)
    pipeline.run(make_study())
    assert engine.device.counts["upload"] == 0
    assert engine.device.counts["download"] == 1  # the flags


def test_the_network_is_recorded_once_a_slot(host: Pipeline, open_device: Open) -> None:
    pipeline, engine = open_device(session=RecordableSession)
    expect_same(pipeline.run(make_study(), overlap=0.5), host.run(make_study(), overlap=0.5))
    tiles = engine.computed
    assert engine.device.counts["capture"] == engine.slots
    assert engine.device.counts["launch"] == tiles - engine.slots
    assert engine.enqueued == 2 * engine.slots
    assert not engine.device.live


def test_work_that_cannot_be_recorded_is_queued(
    host: Pipeline,
    open_device: Open,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    pipeline, engine = open_device(session=RecordableSession)

    def refuse(stream: Any) -> Any:
        raise DeviceError("no.")

    monkeypatch.setattr(engine.device, "capture", refuse)
    with caplog.at_level(logging.INFO):
        expect_same(pipeline.run(make_study()), host.run(make_study()))
    assert "kernel by kernel" in caplog.text


class RoundingSession:
    """A host session of a network with binary16 inputs and outputs."""

    def __init__(self, session: Any) -> None:
        self.session = session

    def submit(self, inputs: Mapping[str, Any]) -> None:
        self.session.submit({name: half(array) for name, array in inputs.items()})

    def collect(self) -> dict[str, Any]:
        return {name: half(array) for name, array in self.session.collect().items()}

    def __enter__(self) -> RoundingSession:
        self.session.__enter__()
        return self

    def __exit__(self, *error: Any) -> None:
        self.session.__exit__(*error)


def half(array: Any) -> Any:
    """Round to binary16 and back."""
    return array.astype(np.float16).astype(np.float32)


def test_half_precision_engines(host: Pipeline, open_device: Open, monkeypatch: pytest.MonkeyPatch) -> None:
    pipeline, engine = open_device(dtype=np.float16)
    found = pipeline.run(make_study(dtype=np.int16), overlap=0.5)
    exact = host.run(make_study(dtype=np.int16), overlap=0.5)
    assert not np.array_equal(found.fused.data, exact.fused.data)
    session = type(host._engine).session
    monkeypatch.setattr(type(host._engine), "session", lambda self: RoundingSession(session(self)))
    expect_same(found, host.run(make_study(dtype=np.int16), overlap=0.5))
    assert engine.computed >= 8


def test_progress_goes_through_every_tile(open_device: Open) -> None:
    pipeline, engine = open_device()
    seen: list[Progress] = []
    pipeline.run(make_study(), progress=seen.append)
    steps = [each for each in seen if each.stage == "infer"]
    assert [each.done for each in steps] == list(range(engine.computed + 1))


@pytest.mark.parametrize("at", [0, 1, 5])
def test_a_cancelled_run_leaves_nothing(open_device: Open, at: int) -> None:
    pipeline, engine = open_device()
    with pytest.raises(Cancelled):
        pipeline.run(make_study(), overlap=0.5, progress=lambda each: each.stage != "infer" or each.done < at)
    assert engine.computed <= at + 2
    assert not engine.device.live
    assert pipeline.run(make_study()).lesions


def test_a_deadline_stops_between_tiles(open_device: Open) -> None:
    pipeline, engine = open_device()
    with pytest.raises(DeadlineExceeded):
        pipeline.run(make_study(), deadline_s=1e-6)
    assert not engine.device.live


def allocations(open_device: Open, integrated: bool = False) -> int:
    pipeline, engine = open_device(integrated=integrated)
    pipeline.run(make_study())
    return engine.device.counts["allocate"] + engine.device.counts["pinned"]


@pytest.mark.parametrize("integrated", [False, True], ids=["discrete", "integrated"])
def test_memory_can_run_out_anywhere(open_device: Open, host: Pipeline, integrated: bool) -> None:
    expected = host.run(make_study())
    for affordable in range(allocations(open_device, integrated)):
        pipeline, engine = open_device(integrated=integrated)
        engine.device.memory_for = affordable
        with pytest.raises(DeviceMemoryError):
            pipeline.run(make_study())
        assert not engine.device.live
        engine.device.memory_for = 10**9
        expect_same(pipeline.run(make_study()), expected)


@pytest.mark.parametrize("integrated", [False, True], ids=["discrete", "integrated"])
def test_a_run_takes_no_more_than_it_may(open_device: Open, host: Pipeline, integrated: bool) -> None:
    study = make_study()
    expected, refusals = host.run(study), []
    limits = [float(limit) for limit in np.geomspace(0.001, 100, 60)]
    for limit in limits:
        pipeline, engine = open_device(integrated=integrated)
        pipeline._max_memory_mib = limit
        try:
            expect_same(pipeline.run(study), expected)
        except DeviceMemoryError as error:
            refusals.append((limit, str(error), len(engine.device.live)))
    assert [limit for limit, _, _ in refusals] == limits[: len(refusals)], "more memory never hurts"
    assert 0 < len(refusals) < len(limits)
    assert all(f"max_memory_mib is {limit:g}" in problem and not live for limit, problem, live in refusals)


def test_a_run_on_arrays_of_the_device_takes_no_more_than_it_may(open_device: Open) -> None:
    study = make_study()
    pipeline, engine = open_device()
    arrays = put(engine, study)
    left = len(engine.device.live)
    pipeline._max_memory_mib = 0.01
    with pytest.raises(DeviceMemoryError, match="or more on the GPU beside the network"):
        run_on_device(pipeline, arrays, affine=affines(study))
    assert len(engine.device.live) == left
    pipeline._max_memory_mib = 100.0
    run_on_device(pipeline, arrays, affine=affines(study)).close()


def test_a_lost_device_is_an_error_and_leaves_nothing(open_device: Open) -> None:
    pipeline, engine = open_device()
    engine.lost_at = 3
    with pytest.raises(DeviceError, match="fallen off the bus"):
        pipeline.run(make_study(), overlap=0.5)
    assert not engine.device.live


def test_two_hundred_runs_leak_nothing(open_device: Open) -> None:
    pipeline, engine = open_device(session=RecordableSession)
    study = make_study(make_grid(shape=(9, 16, 16)))
    for repeat in range(200):
        engine.device.memory_for = 10**9 if repeat % 3 else repeat % 13
        engine.lost_at = engine.computed + 1 if repeat % 7 == 3 else -1
        try:
            run_once(pipeline, study)
        except DeviceError:
            assert repeat % 3 == 0 or repeat % 7 == 3
        engine.device.lost = False
        assert not engine.device.live


def run_once(pipeline: Pipeline, study: Study) -> None:
    """Run as far as the device is used."""
    with pytest.raises(Cancelled):
        pipeline.run(study, overlap=0.0, progress=lambda each: each.stage != "measure")


@pytest.mark.parametrize("output", ["fused", "probability"])
@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_values_that_are_not_finite_never_become_an_image(open_device: Open, output: str, value: float) -> None:
    pipeline, engine = open_device()

    def spoil(name: str, values: Any) -> Any:
        if name == output and engine.computed == 2:
            values = values.copy()
            values[0, -1, 3, 8, 7] = value
        return values

    engine.spoil = spoil
    with pytest.raises(EngineError, match=f'"{output}" of tile 1 that are not finite'):
        pipeline.run(make_study(make_grid(shape=(20, 32, 32))), overlap=0.0)
    assert not engine.device.live


def test_without_kernels_the_host_cuts_and_blends(
    host: Pipeline,
    open_device: Open,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    pipeline, engine = open_device()
    engine.slots = host._engine.slots
    monkeypatch.delattr(_C, "cuda")
    expect_same(pipeline.run(make_study()), host.run(make_study()))
    assert engine.enqueued == 0
    assert "no CUDA kernels" in caplog.text
    with pytest.raises(DeviceUnavailableError, match="RMR_CUDA=ON"):
        device_kernels()


# Voxels that are on the device already


def put(engine: FakeEngine, study: Study) -> dict[str, Any]:
    """Put a study on the device with the strides it has."""
    return {name: foreign(engine, volume.data) for name, volume in study.items()}


def foreign(engine: FakeEngine, array: Any, stream: int | None = None) -> Any:
    """Return what another library would hold: the array's strides in device memory."""

    class Foreign:
        memory = array if array.base is None else array.base
        __cuda_array_interface__ = {**array.__array_interface__, "version": 3, "stream": stream}  # noqa: RUF012

    engine.device.kernels.own(Foreign.memory.ctypes.data, Foreign.memory.nbytes, 0)
    return Foreign()


def affines(study: Study) -> Mapping[str, Any]:
    return {name: volume.affine for name, volume in study.items()}


@pytest.mark.parametrize("name", [name for name in STUDIES if name != "doubles"])
def test_arrays_on_the_device_stay_there(host: Pipeline, open_device: Open, name: str) -> None:
    study = STUDIES[name]()
    pipeline, engine = open_device()
    expected = host.run(study, overlap=0.4)
    with run_on_device(pipeline, put(engine, study), affine=affines(study), overlap=0.4) as found:
        assert [type(each) for each in (found.labels, found.probability, found.fused)] == [FakeArray] * 3
        codes = host.manifest.orientation
        assert found.grid.orientation == codes
        turned_back = Volume(found.labels.host, found.grid.affine)
        assert np.count_nonzero(turned_back.data) == np.count_nonzero(expected.labels.data)
        assert sorted(engine.device.live) == sorted(id(each) for each in (found.labels, found.probability, found.fused))
        np.testing.assert_array_equal(np.sort(found.fused.host, None), np.sort(expected.fused.data, None))
        assert engine.device.counts["upload"] <= 4
    assert not engine.device.live


@pytest.mark.parametrize("whole", [True, False], ids=["lesions", "voxels"])
def test_unsure_lesions_are_dropped(host: Pipeline, open_device: Open, tmp_path: Path, whole: bool) -> None:
    study = make_doubtful()
    means = [lesion.mean_probability for lesion in host.run(study).lesions or ()]
    level = sum(means) / 2
    voxels = LesionThreshold(small_ml=1, small=level, large_ml=2, large=level)
    make_tiny(tmp_path / "sure.zip", **({"least_lesion_probability": level} if whole else {"lesion_threshold": voxels}))
    with Pipeline.open(tmp_path / "sure.zip", threads=1, cache_dir=tmp_path) as like:
        expected = like.run(study)
        pipeline, engine = open_device(like)
        assert expected.provenance.lesions_dropped == 1 or not whole
        assert np.count_nonzero(expected.labels.data == 4) < np.count_nonzero(host.run(study).labels.data == 4)
        expect_same(pipeline.run(study), expected)
        with run_on_device(pipeline, put(engine, study), affine=affines(study)) as found:
            mask = expected.labels.data == 4
            assert np.count_nonzero(found.labels.host == 4) == np.count_nonzero(mask) > 0
    assert not engine.device.live


def test_a_named_stream_is_followed(open_device: Open, emulated: Any) -> None:
    study = make_study()
    pipeline, engine = open_device()
    arrays = {name: foreign(engine, volume.data, stream=99) for name, volume in study.items()}
    run_on_device(pipeline, arrays, affine=affines(study)).close()
    assert set(emulated.followed()) == {(7, 99)}


def test_nan_on_the_device_can_be_background(host: Pipeline, open_device: Open) -> None:
    study = make_study()
    study["T1w"].data[5, 5, 5] = np.nan
    pipeline, engine = open_device()
    with pytest.raises(StudyError, match="NaN"):
        run_on_device(pipeline, put(engine, study), affine=affines(study))
    assert not engine.device.live
    with run_on_device(pipeline, put(engine, study), affine=affines(study), non_finite="zero") as found:
        expected = host.run(study, non_finite="zero")
        np.testing.assert_array_equal(np.sort(found.fused.host, None), np.sort(expected.fused.data, None))


def test_device_arrays_that_cannot_be_used(host: Pipeline, open_device: Open) -> None:
    study = make_study(dtype=np.float64)
    pipeline, engine = open_device()
    with pytest.raises(StudyError, match='contrast "T1w": the device array is float64'):
        run_on_device(pipeline, put(engine, study), affine=affines(study))
    with pytest.raises(DeviceError, match="a ndarray is no array in device memory"):
        run_on_device(pipeline, {"T1w": study["T1w"].data}, affine=np.eye(4))
    with pytest.raises(ConfigError, match="openvino on cpu, which takes no device arrays"):
        run_on_device(host, put(engine, make_study()), affine=np.eye(4))


def test_memory_can_run_out_with_arrays_on_the_device(open_device: Open) -> None:
    study = make_study()
    pipeline, engine = open_device()
    arrays = put(engine, study)
    run_on_device(pipeline, arrays, affine=affines(study)).close()
    for affordable in range(engine.device.counts["allocate"]):
        engine.device.memory_for = affordable
        with pytest.raises(DeviceMemoryError):
            run_on_device(pipeline, arrays, affine=affines(study))
        assert not engine.device.live
