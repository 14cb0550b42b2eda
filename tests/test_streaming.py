"""Studies that are still being acquired: the result of a run, from slices in any order, and no thread left over."""

from __future__ import annotations

import re
import threading
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tiny_study import make_grid, make_study, make_tiny

from rmr_sdk import Pipeline, Progress, Result, Study
from rmr_sdk.errors import Cancelled, ConfigError, DeadlineExceeded, EngineError, GeometryError, RmrError, StudyError
from rmr_sdk.streaming import StudyStream

VOLUMES = ("fused", "labels", "lesion_probability")


@pytest.fixture(scope="module")
def pipeline(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Pipeline]:
    """Give one open pipeline on the tiny bundle."""
    folder = tmp_path_factory.mktemp("tiny")
    make_tiny(folder / "tiny.zip")
    with Pipeline.open(folder / "tiny.zip", cache_dir=folder) as opened:
        yield opened


def begin(pipeline: Pipeline, study: Study, arriving: tuple[str, ...] = ("FLAIR",), **options: Any) -> StudyStream:
    """Begin a stream of a study, of which some contrasts are still to come."""
    known = {name: volume for name, volume in study.items() if name not in arriving}
    grids = {name: study[name].grid for name in arriving}
    return pipeline.stream(grids, known, **{"dtype": np.float32, **options})


def feed(stream: StudyStream, study: Study, contrast: str = "FLAIR", axis: int = 2, backwards: bool = False) -> None:
    """Add every slice of a contrast."""
    planes = np.moveaxis(study[contrast].data, axis, 0)
    for index in sorted(range(len(planes)), reverse=backwards):
        stream.add(contrast, index, planes[index])


def close_to(found: Result, expected: Result) -> bool:
    """Tell whether two results agree but for how their tiles were laid: at its border a tile sees zeros."""
    same_labels = np.mean(found.labels.data == expected.labels.data) > 0.98
    fused = np.allclose(found.fused.data, expected.fused.data, rtol=1e-4, atol=1e-3)
    return bool(same_labels and fused and len(found.lesions) == len(expected.lesions))


def same(found: Result, expected: Result) -> bool:
    """Tell whether two results are the same to the last bit."""
    volumes = all(np.array_equal(getattr(found, name).data, getattr(expected, name).data) for name in VOLUMES)
    return volumes and found.lesions == expected.lesions


@pytest.mark.parametrize("codes", ["LAS", "RPI", "SAR", "AIL"])
@pytest.mark.parametrize("axis", [0, 1, 2])
def test_streamed_slices_give_what_a_run_gives(pipeline: Pipeline, codes: str, axis: int) -> None:
    study = make_study(make_grid(codes))
    expected = pipeline.run(study, overlap=0.5)
    for backwards in (False, True):
        with begin(pipeline, study, slice_axis=axis, overlap=0.5, settle=1.0) as stream:
            feed(stream, study, axis=axis, backwards=backwards)
            found = stream.finish()
        assert same(found, expected)
        assert any(
            action.startswith("streamed: intensities from the first 100%") for action in found.provenance.geometry
        )
        assert np.array_equal(found.fused.affine, expected.fused.affine)


def test_both_contrasts_may_arrive_in_turns(pipeline: Pipeline) -> None:
    study = make_study()
    with begin(pipeline, study, ("T1w", "FLAIR")) as stream:
        for index in range(study["FLAIR"].data.shape[2]):
            for contrast in ("T1w", "FLAIR"):
                stream.add(contrast, index, study[contrast].data[:, :, index])
        found = stream.finish()
    assert close_to(found, pipeline.run(study))


def stream_long(
    pipeline: Pipeline, study: Study, last: Callable[[StudyStream], object] = lambda _: None, **options: Any
) -> tuple[Result, int]:
    """Stream a long study, the last slices once tiles have been computed; also return how many these were.

    `last` is called before `finish`, when the stream's own thread has ended.
    """
    computed, early = threading.Event(), 0
    planes = np.moveaxis(study["FLAIR"].data, 2, 0)

    report = options.pop("progress", lambda _: None)

    def note(step: Progress) -> object:
        nonlocal early
        if step.stage == "infer" and step.done and not computed.is_set():
            early = step.done
            computed.set()
        return report(step)

    with begin(pipeline, study, progress=note, **options) as stream:
        for index in range(40):
            stream.add("FLAIR", index, planes[index])
        assert computed.wait(60)
        assert stream.missing == 20
        for index in range(40, 60):
            stream.add("FLAIR", index, planes[index])
        stream._worker.join(60)
        last(stream)
        return stream.finish(), early


def test_tiles_are_computed_before_the_last_slice(pipeline: Pipeline) -> None:
    study = make_study(make_grid(shape=(20, 24, 60)))
    found, early = stream_long(pipeline, study, settle=0.5, tolerance=1.0)
    assert early >= 1
    assert close_to(found, pipeline.run(study, align="header"))
    stated = re.match(r"streamed: intensities from the first (\d+)% of the slices", found.provenance.geometry[-1])
    assert stated is not None
    assert 50 <= int(stated[1]) <= 67


def test_intensities_out_of_tolerance_give_the_very_bits_of_a_run(pipeline: Pipeline) -> None:
    study = make_late()
    expected = pipeline.run(study, align="header")
    found, _ = stream_long(pipeline, study, settle=0.5, tolerance=0.01)
    assert same(found, expected)
    assert any("all tiles were computed again after the last slice: intensities" in each for each in found.warnings)


def make_late() -> Study:
    """Return a long study that is brightest where its last slices are."""
    study = make_study(make_grid(shape=(20, 24, 60)))
    study["FLAIR"].data[5:15, 6:18, 40:46] = 400.0
    return study


def test_tiles_that_are_computed_again_can_be_cancelled(pipeline: Pipeline) -> None:
    again: list[Progress] = []
    ended = threading.Event()

    def refuse(step: Progress) -> bool:
        if ended.is_set():
            again.append(step)
        return not again or step.stage != "infer"

    with pytest.raises(Cancelled):
        stream_long(pipeline, make_late(), lambda _: ended.set(), settle=0.5, tolerance=0, progress=refuse)
    assert [step.stage for step in again] == ["prepare", "infer"]


def test_tiles_that_are_computed_again_keep_the_deadline(pipeline: Pipeline) -> None:
    def pass_an_hour(stream: StudyStream) -> None:
        stream._watch._started -= 3600

    with pytest.raises(DeadlineExceeded):
        stream_long(pipeline, make_late(), pass_an_hour, settle=0.5, tolerance=0, deadline_s=3600)


def test_slices_of_air_that_come_first_are_waited_out(pipeline: Pipeline) -> None:
    """The head begins with slice 2."""
    study = make_study()
    planes = np.moveaxis(study["FLAIR"].data, 2, 0)
    assert not planes[:2].any()
    with begin(pipeline, study, settle=0.01, tolerance=1.0) as stream:
        for index in range(2):
            stream.add("FLAIR", index, planes[index])
        stream._worker.join(0.2)
        for index in range(2, 22):
            stream.add("FLAIR", index, planes[index])
        assert stream.finish().lesions


def test_a_contrast_that_is_all_air_is_refused_as_in_a_run(pipeline: Pipeline) -> None:
    study = make_study()
    study["FLAIR"].data[:] = 0

    def run_through() -> None:
        with begin(pipeline, study, settle=0.01) as stream:
            feed(stream, study)
            stream.finish()

    expect(StudyError, "every voxel is 0.0", run_through)


def test_foreground_where_none_was_expected_gives_the_very_bits_of_a_run(pipeline: Pipeline) -> None:
    study = make_study(make_grid(shape=(60, 24, 60)))
    study["FLAIR"].data[2:5, 10:14, 45:50] = 100.0
    expected = pipeline.run(study, align="header")
    found, _ = stream_long(pipeline, study, settle=0.5, tolerance=1.0)
    assert same(found, expected)
    assert any("foreground where none was expected" in each for each in found.warnings)


@settings(max_examples=8, deadline=None)
@given(order=st.permutations(range(22)), settle=st.floats(0.1, 1.0))
def test_any_order_of_slices_gives_the_same(pipeline: Pipeline, order: list[int], settle: float) -> None:
    study = make_study()
    with begin(pipeline, study, settle=settle, tolerance=1.0) as stream:
        for index in order:
            stream.add("FLAIR", index, study["FLAIR"].data[:, :, index])
        found = stream.finish()
    assert found.labels.data.shape == study["FLAIR"].data.shape
    assert len(found.lesions) == 1


def test_closing_early_leaves_no_thread_and_the_pipeline_usable(pipeline: Pipeline) -> None:
    study = make_study()
    before = threading.active_count()
    with begin(pipeline, study) as stream:
        stream.add("FLAIR", 0, study["FLAIR"].data[:, :, 0])
    stream.close()
    assert threading.active_count() == before
    assert pipeline.run(study).lesions


def expect(kind: type[RmrError], words: str, act: Callable[[], object]) -> None:
    """Run the action; its error must be of this very type and say these words."""
    with pytest.raises(RmrError, match=re.escape(words)) as caught:
        act()
    assert type(caught.value) is kind


@pytest.mark.parametrize(
    ("options", "kind", "words"),
    [
        ({"slice_axis": 3}, ConfigError, "slice_axis is 3. Pass 0, 1 or 2"),
        ({"dtype": np.float64}, ConfigError, "slices cannot be float64. Use one of uint8, int16"),
        ({"settle": 0}, ConfigError, "settle is 0. Pass a part of the slices"),
        ({"tolerance": -1}, ConfigError, "tolerance is -1. Pass a relative difference"),
        ({"overlap": 2}, ConfigError, "overlap 2 is out of range."),
        ({"deadline_s": 0}, ConfigError, "deadline_s is 0. Pass a positive number of seconds"),
        ({"arriving": ()}, StudyError, "and at least one arriving (arriving: none; known: T1w, FLAIR)"),
    ],
)
def test_what_a_stream_refuses(pipeline: Pipeline, options: dict[str, Any], kind: type[RmrError], words: str) -> None:
    expect(kind, words, lambda: begin(pipeline, make_study(), **options))


def test_grids_that_would_need_resampling(pipeline: Pipeline) -> None:
    thick = make_study(make_grid(spacing_mm=2.6))
    expect(GeometryError, "its slices would have to be resampled from", lambda: begin(pipeline, thick))


@pytest.mark.parametrize(
    ("contrast", "index", "plane", "words"),
    [
        ("T1w", 0, np.zeros((20, 24), np.int16), 'contrast "T1w" is not arriving. Add slices of FLAIR.'),
        ("FLAIR", 22, np.zeros((20, 24), np.int16), "there is no slice 22. Count slices from 0 to 21."),
        ("FLAIR", 3, np.zeros((20, 24), np.int16), 'slice 3 of "FLAIR" is there already.'),
        ("FLAIR", 1, np.zeros((20, 23), np.int16), "slice 1 is int16 of shape (20, 23), and real numbers of (20, 24)"),
        ("FLAIR", 1, np.full((20, 24), 4e4), "slice 1 holds values that are not finite or that int16 cannot hold."),
        ("FLAIR", 1, np.full((20, 24), np.nan), "slice 1 holds values that are not finite"),
    ],
)
def test_slices_that_are_refused(pipeline: Pipeline, contrast: str, index: int, plane: Any, words: str) -> None:
    with begin(pipeline, make_study(), dtype=np.int16) as stream:
        stream.add("FLAIR", 3, np.zeros((20, 24), np.int16))
        expect(StudyError, words, lambda: stream.add(contrast, index, plane))


def test_missing_slices_can_still_be_added(pipeline: Pipeline) -> None:
    study = make_study()
    planes = np.moveaxis(study["FLAIR"].data, 2, 0)
    with begin(pipeline, study) as stream:
        for index in range(5, 22):
            stream.add("FLAIR", index, planes[index])
        expect(StudyError, '5 slices of "FLAIR" are missing, the first of them slice 0.', stream.finish)
        for index in range(5):
            stream.add("FLAIR", index, planes[index])
        assert stream.finish().lesions
        expect(StudyError, "the stream has been closed.", stream.finish)


@pytest.mark.parametrize(
    ("options", "kind"), [({"progress": lambda _: False}, Cancelled), ({"deadline_s": 1e-6}, DeadlineExceeded)]
)
def test_a_stream_ends_early(pipeline: Pipeline, options: dict[str, Any], kind: type[RmrError]) -> None:
    study = make_study()

    def run_through() -> None:
        with begin(pipeline, study, **options) as stream:
            feed(stream, study)
            stream.finish()

    with pytest.raises(kind):
        run_through()
    assert pipeline.run(study).lesions


@pytest.mark.parametrize("error", [EngineError("the engine broke."), ZeroDivisionError("a fault of ours")])
def test_an_error_of_the_computation_reaches_the_next_add(
    pipeline: Pipeline, monkeypatch: pytest.MonkeyPatch, error: Exception
) -> None:
    study, failed = make_study(), threading.Event()

    def fail(*_: Any) -> None:
        failed.set()
        raise error

    monkeypatch.setattr(pipeline, "_infer", fail)
    with begin(pipeline, study, settle=0.5) as stream:
        planes = np.moveaxis(study["FLAIR"].data, 2, 0)
        for index in range(11):
            stream.add("FLAIR", index, planes[index])
        assert failed.wait(30)
        stream._worker.join(30)
        with pytest.raises(type(error), match=str(error)):
            stream.add("FLAIR", 11, planes[11])
