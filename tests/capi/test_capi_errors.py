"""Every way in which a call on an open pipeline is refused: the status, the class of the error and what it says."""

from __future__ import annotations

import ctypes
import time
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from ctypes import byref, c_uint32, c_void_p
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from rmr_ctypes import (
    BUNDLE,
    CANCELLED,
    ENGINE,
    INPUT,
    USAGE,
    COutputs,
    CPipeline,
    CStudy,
    ErrorInfo,
    Info,
    Library,
    Opener,
    OpenOptions,
    PlanInfo,
    RmrFailure,
    array_of,
    refuses,
    study_of,
)
from tiny_study import make_grid, make_study, make_tiny

from rmr_sdk.volume import Volume

# Studies -------------------------------------------------------------------------------------------------------------


def changed(change: Callable[[Any], None], **fields: Any) -> CStudy:
    """Describe a good study and change its FLAIR."""
    study = study_of(make_study(**fields))
    change(study.volumes[1])
    return study


def put(**fields: Any) -> Callable[[Any], None]:
    """Return a change that sets fields; a tuple goes into an array from its start."""

    def change(volume: Any) -> None:
        for name, value in fields.items():
            if isinstance(value, tuple):
                for index, each in enumerate(value):
                    getattr(volume, name)[index] = each
            else:
                setattr(volume, name, value)

    return change


def put_affine(row: int, column: int, value: float) -> Callable[[Any], None]:
    def change(volume: Any) -> None:
        volume.affine[row][column] = value

    return change


BAD_VOLUMES: Mapping[str, tuple[Callable[[Any], None], str, str]] = {
    "dtype": (put(dtype=9), "StudyError", 'contrast "FLAIR": its dtype is 9'),
    "shape": (put(shape=(0,)), "GeometryError", "three axes of at least one voxel"),
    "huge": (put(shape=(2**40,)), "GeometryError", "three axes of at least one voxel"),
    "too few bytes": (put(bytes=100), "StudyError", "and it has 100"),
    "stride": (put(strides=(4 * 24 * 22, 4 * 22, 3)), "StudyError", "its stride 3 is no multiple"),
    "wide stride": (put(strides=(2**41, 4, 4)), "StudyError", "is no multiple"),
    "long stride": (put(strides=(4 * 24 * 22, 4 * 22, 8)), "StudyError", "its shape and strides span"),
    "not a number": (put_affine(0, 0, float("nan")), "GeometryError", "NaN or infinite numbers"),
    "last row": (put_affine(3, 3, 2.0), "GeometryError", "last row of the affine"),
    "singular": (put_affine(2, 2, 0.0), "GeometryError", "the affine is singular"),
    "metres": (put_affine(0, 0, 1e-3), "GeometryError", "no scan of a head has"),
    "another grid": (put_affine(0, 3, 50.0), "GeometryError", "it is on another grid"),
    "missing": (put(contrast=b"T2w"), "StudyError", r'contrast "FLAIR" is missing \(found: "T1w", "T2w"\)'),
}


@pytest.mark.parametrize("case", BAD_VOLUMES)
@pytest.mark.parametrize("call", ["plan", "run"])
def test_volumes_that_cannot_be_used(open_c: Opener, case: str, call: str) -> None:
    change, kind, words = BAD_VOLUMES[case]
    arguments = {"shape": (20, 24, 22)} if call == "run" else {}
    if case == "another grid":
        words = 'contrast "T1w": it is on another grid'
    with refuses(INPUT, kind, words):
        getattr(open_c(), call)(changed(change), **arguments)


def test_data_that_are_not_aligned(open_c: Opener) -> None:
    study = study_of(make_study())
    study.volumes[1].data += 1
    with refuses(INPUT, "StudyError", "not aligned"):
        open_c().plan(study)


def test_volumes_without_data_or_contrast(open_c: Opener) -> None:
    for fields in ({"data": None}, {"contrast": None}):
        with refuses(USAGE, "UsageError", "of a volume are NULL|has no contrast"):
            open_c().plan(changed(put(**fields)))


def test_voxels_that_make_no_study(open_c: Opener) -> None:
    good = make_study()
    shape, affine = good["FLAIR"].data.shape, good["FLAIR"].affine

    def with_flair(values: np.ndarray) -> dict[str, Volume]:
        return {"T1w": good["T1w"], "FLAIR": Volume(values, affine)}

    hole = good["FLAIR"].data.copy()
    hole[3, 4, 5] = np.nan
    with refuses(INPUT, "StudyError", r'contrast "FLAIR": it holds NaN or infinite voxels \(1 of 10560\)'):
        open_c().run(with_flair(hole))
    with refuses(INPUT, "StudyError", "every voxel is 3"):
        open_c().run(with_flair(np.full(shape, 3, np.float32)))
    with refuses(INPUT, "StudyError", "no two voxels above zero differ"):
        open_c().run(with_flair(np.random.default_rng(0).uniform(-2, -1, shape).astype(np.float32)))


def test_contrasts_that_lie_apart(open_c: Opener) -> None:
    far = changed(put_affine(0, 3, 500.0))
    with refuses(INPUT, "GeometryError", "does not overlap the reference"):
        open_c().run(far, shape=(20, 24, 22), align="header")


def test_an_empty_study(open_c: Opener) -> None:
    with refuses(INPUT, "StudyError", "holds no contrast"):
        open_c().plan(CStudy(count=0))


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"overlap": 0.95}, "overlap 0.95 is out of range"),
        ({"overlap": float("nan")}, "out of range"),
        ({"align": 7}, "There is no align 7"),
        ({"non_finite": 7}, "There is no non_finite 7"),
        ({"reference": "T2w"}, 'reference is "T2w"'),
        ({"deadline_s": -1.0}, "deadline_s is -1"),
    ],
    ids=str,
)
def test_options_of_a_run(open_c: Opener, options: dict[str, Any], words: str) -> None:
    with refuses(INPUT, "ConfigError", words):
        open_c().run(make_study(), **options)


def test_too_little_memory_says_how_much_is_needed(open_c: Opener) -> None:
    study = make_study(make_grid("LAS", (90, 80, 70)))
    narrow = open_c(max_memory_mib=1.5)
    for call in (narrow.run, narrow.plan):
        with pytest.raises(RmrFailure, match=r"this study needs ([0-9]+) MiB") as caught:
            call(study)
        assert (caught.value.status, caught.value.kind) == (ENGINE, "DeviceMemoryError")
    needed = int(caught.value.message.split("needs ")[1].split()[0])
    assert open_c(max_memory_mib=needed).run(study).raw.tiles > 0


# Outputs -------------------------------------------------------------------------------------------------------------


def run_with(pipeline: CPipeline, study: CStudy, **outputs: Any) -> None:
    wanted = COutputs(**outputs)
    pipeline.library.check(pipeline.library.dll.rmr_run(pipeline.handle, byref(study), None, byref(wanted)))


def test_output_arrays_that_cannot_be_filled(open_c: Opener, library: Library, tmp_path: Path) -> None:
    study = make_study()
    given, shape = study_of(study), study["FLAIR"].data.shape
    small = np.empty((20, 24, 21), np.float32)
    with refuses(INPUT, "StudyError", 'the output "fused": its shape and strides span'):
        array = array_of(small)
        array.strides[:] = (0, 0, 0)
        run_with(open_c(), given, fused=array)
    with refuses(INPUT, "StudyError", "several voxels in one place"):
        array = array_of(np.empty(shape, np.float32))
        array.strides[:] = (4 * 22, 4 * 22, 4)
        run_with(open_c(), given, fused=array)
    with refuses(USAGE, "UsageError", "shares memory with an input"):
        run_with(open_c(), given, fused=array_of(study["T1w"].data))
    both = array_of(np.empty(shape, np.float32))
    with refuses(USAGE, "UsageError", "shares memory"):
        run_with(open_c(), given, fused=both, probability=both)

    make_tiny(tmp_path / "fuses", classes=None)
    fuses = library.open(tmp_path / "fuses")
    for name, dtype in (("labels", np.uint8), ("probability", np.float32)):
        with refuses(INPUT, "ConfigError", f"Pass NULL for {name}"):
            run_with(fuses, given, **{name: array_of(np.empty(shape, dtype))})
    fuses.close()


def test_nothing_has_to_be_wanted(open_c: Opener) -> None:
    study = make_study()
    run_with(open_c(), study_of(study))


# Stopping ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("stop", [("prepare", 0), ("infer", 0), ("infer", 1), ("infer", 4), ("measure", 0)])
def test_a_cancelled_run_leaves_the_pipeline_ready(open_c: Opener, stop: tuple[str, int]) -> None:
    pipeline, seen = open_c(), []

    def report(told: tuple[str, int, int]) -> int:
        seen.append(told)
        return int(told[:2] == stop)

    with refuses(CANCELLED, "Cancelled", f"cancelled during '{stop[0]}' .{stop[1]} of"):
        pipeline.run(make_study(make_grid("LAS", (40, 36, 30))), progress=report)
    assert seen[-1][:2] == stop
    assert pipeline.run(make_study()).raw.lesion_count == 1


def test_a_deadline_that_passes(open_c: Opener) -> None:
    pipeline = open_c()
    with refuses(CANCELLED, "DeadlineExceeded", "the deadline passed"):
        pipeline.run(make_study(), deadline_s=1e-6)
    with refuses(CANCELLED, "DeadlineExceeded", "the deadline passed"):
        pipeline.run(make_study(), deadline_s=0.2, progress=lambda told: time.sleep(0.3 * (told[1] == 1)) or 0)
    assert pipeline.run(make_study(), deadline_s=60.0).raw.lesion_count == 1


# The caller's own mistakes -------------------------------------------------------------------------------------------


def test_a_closed_pipeline(open_c: Opener) -> None:
    pipeline = open_c()
    pipeline.close()
    pipeline.close()
    for call in (
        pipeline.describe,
        lambda: pipeline.plan(make_study()),
        lambda: run_with(pipeline, study_of(make_study())),
    ):
        with refuses(USAGE, "UsageError", "the pipeline is closed, or was never opened"):
            call()
    assert pipeline.names("class") == ()


def test_pointers_that_are_missing(library: Library, open_c: Opener, bundle: Path) -> None:
    dll, pipeline, handle = library.dll, open_c(), c_void_p()
    study = study_of(make_study())
    assert dll.rmr_close(None) == 0
    assert dll.rmr_last_error(None) is not None
    for status in (
        dll.rmr_open(str(bundle).encode(), None, None),
        dll.rmr_open(None, None, byref(handle)),
        dll.rmr_describe(pipeline.handle, None),
        dll.rmr_plan(pipeline.handle, None, None, byref(PlanInfo())),
        dll.rmr_plan(pipeline.handle, byref(study), None, None),
        dll.rmr_run(pipeline.handle, byref(study), None, None),
    ):
        assert status == USAGE
        with refuses(USAGE, "UsageError", "is NULL"):
            library.check(status)


def test_structs_of_other_versions(library: Library, open_c: Opener, bundle: Path) -> None:
    class NewerOptions(ctypes.Structure):
        _fields_ = [("known", OpenOptions), ("unknown", c_uint32 * 2)]

    handle = c_void_p()
    newer = NewerOptions(known=OpenOptions(threads=1))
    newer.known.struct_size = ctypes.sizeof(newer)
    library.check(library.dll.rmr_open(str(bundle).encode(), byref(newer), byref(handle)))
    library.check(library.dll.rmr_close(byref(handle)))
    newer.unknown[1] = 1
    with refuses(USAGE, "UsageError", "has fields that this version"):
        library.check(library.dll.rmr_open(str(bundle).encode(), byref(newer), byref(handle)))
    assert not handle

    info = Info()
    info.struct_size = 8
    with refuses(USAGE, "UsageError", "info has the struct_size 8"):
        library.check(library.dll.rmr_describe(open_c().handle, byref(info)))

    class NewerInfo(ctypes.Structure):
        _fields_ = [("known", Info), ("unknown", c_uint32 * 2)]

    wide = NewerInfo()
    wide.known.struct_size = ctypes.sizeof(wide)
    library.check(library.dll.rmr_describe(open_c().handle, byref(wide)))
    assert wide.known.struct_size == ctypes.sizeof(wide)
    assert list(wide.unknown) == [0, 0]


def test_errors_belong_to_their_thread(library: Library, tmp_path: Path) -> None:
    with refuses(BUNDLE, "BundleError", "There is no bundle"):
        library.open(tmp_path / "nothing")

    def status_elsewhere() -> int:
        error = ErrorInfo()
        library.dll.rmr_last_error(byref(error))
        return int(error.status)

    with ThreadPoolExecutor(1) as pool:
        assert pool.submit(status_elsewhere).result() == 0
    assert status_elsewhere() == BUNDLE


def test_long_messages_are_cut(library: Library, tmp_path: Path) -> None:
    with pytest.raises(RmrFailure) as caught:
        library.open("x" * 4000)
    assert len(caught.value.message) == 1023
