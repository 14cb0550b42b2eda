"""Every way in which a call of the C interface is refused: the status, the class of the error and what it says."""

from __future__ import annotations

import ctypes
import hashlib
import json
import time
import zipfile
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from ctypes import byref, c_uint32, c_void_p
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from rmr_ctypes import (
    COutputs,
    CPipeline,
    CStudy,
    ErrorInfo,
    Info,
    Library,
    OpenOptions,
    PlanInfo,
    RmrFailure,
    array_of,
    study_of,
)
from tiny_bundle import make_graph, make_manifest
from tiny_study import make_grid, make_study, make_tiny

from rmr_sdk.bundle import write_bundle
from rmr_sdk.volume import Volume

USAGE, INPUT, BUNDLE, ENGINE, CANCELLED = 2, 3, 4, 5, 130
Opener = Callable[..., CPipeline]


@contextmanager
def refuses(status: int, kind: str, words: str) -> Iterator[None]:
    """Expect a failure."""
    with pytest.raises(RmrFailure, match=words) as caught:
        yield
    assert (caught.value.status, caught.value.kind) == (status, kind)


# Bundles -------------------------------------------------------------------------------------------------------------


def rewrite(folder: Path, **changes: Any) -> Path:
    """Replace fields of the manifest; None removes one."""
    file = folder / "manifest.json"
    manifest = {**json.loads(file.read_bytes()), **changes}
    file.write_text(json.dumps({key: value for key, value in manifest.items() if value is not None}))
    return folder


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Write a tiny bundle to damage."""
    make_tiny(tmp_path / "bundle")
    return tmp_path / "bundle"


def test_no_bundle(library: Library, tmp_path: Path) -> None:
    with refuses(BUNDLE, "BundleError", "There is no bundle"):
        library.open(tmp_path / "nothing")
    with refuses(BUNDLE, "BundleError", "manifest.json is not at its top"):
        library.open(tmp_path)
    (tmp_path / "text.zip").write_text("no zip file, whatever its name")
    with refuses(BUNDLE, "BundleError", "it is not a zip file"):
        library.open(tmp_path / "text.zip")


def test_a_file_that_is_missing_changed_or_cut(library: Library, folder: Path) -> None:
    graph = folder / "model.fp32.onnx"
    whole = graph.read_bytes()
    graph.write_bytes(whole[:-1] + bytes([whole[-1] ^ 1]))
    with refuses(BUNDLE, "ChecksumError", "has sha256 .* not the file that the manifest describes"):
        library.open(folder)
    graph.write_bytes(whole[:-7])
    with refuses(BUNDLE, "ChecksumError", f"has {len(whole) - 7} bytes, not {len(whole)}"):
        library.open(folder)
    graph.unlink()
    with refuses(BUNDLE, "BundleError", 'lacks its file "model.fp32.onnx"'):
        library.open(folder)
    graph.mkdir()
    with refuses(BUNDLE, "BundleError", "not a regular file"):
        library.open(folder)


def test_zip_files_that_are_damaged(library: Library, tmp_path: Path) -> None:
    make_tiny(tmp_path / "tiny.zip")
    whole = (tmp_path / "tiny.zip").read_bytes()
    cut = tmp_path / "cut.zip"
    cut.write_bytes(whole[: len(whole) // 2])
    with refuses(BUNDLE, "BundleError", "it is not a zip file"):
        library.open(cut)
    cut.write_bytes(whole[len(whole) // 2 :])
    with refuses(BUNDLE, "BundleError", "cut short|damaged"):
        library.open(cut)
    changed = bytearray(whole)
    changed[whole.index(b"model.fp32.onnx") + 40] ^= 0xFF
    cut.write_bytes(changed)
    with refuses(BUNDLE, "BundleError", 'Cannot unpack "model.fp32.onnx"'):
        library.open(cut)


def test_a_zip_file_that_would_unpack_to_too_much(library: Library, tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "bomb.zip", "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("manifest.json", b" " * 2**21)
    with refuses(BUNDLE, "ChecksumError", "more than 200 times"):
        library.open(tmp_path / "bomb.zip")
    with zipfile.ZipFile(tmp_path / "other.zip", "w", zipfile.ZIP_LZMA) as archive:
        archive.writestr("manifest.json", b"{}")
    with refuses(BUNDLE, "BundleError", "neither stored nor deflated"):
        library.open(tmp_path / "other.zip")


BY_LOAD = {"small_ml": 5, "small": 0.9, "large_ml": 20, "large": 0.5}

BAD_FIELDS: Mapping[str, tuple[dict[str, Any], str]] = {
    "another schema": ({"schema_version": 2}, "schema version 2"),
    "missing": ({"tile_shape": None}, "the field tile_shape is missing"),
    "wrong type": ({"name": 7}, "at name: expected a string"),
    "wrong number": ({"tile_shape": [8, 16, 0]}, r"at tile_shape\[2\]: a number out of range: 0"),
    "no number": ({"spacing_tolerance": "0.1"}, "expected a number"),
    "too short": ({"spacing_mm": [1.0, 1.0]}, "at spacing_mm: a length of 2"),
    "outside": ({"golden": {"path": "../x", "sha256": "0" * 64, "size": 1}}, "at golden.path"),
    "hash": ({"golden": {"path": "x", "sha256": "0" * 63, "size": 1}}, "at golden.sha256"),
    "orientation": ({"orientation": "RRS"}, "at orientation"),
    "contrast twice": ({"contrasts": ["FLAIR", "flair"]}, "it is named twice"),
    "reference": ({"reference": "T2w"}, "none of the contrasts"),
    "classes": ({"classes": ["csf", "lesion"]}, 'must begin with "background"'),
    "class twice": ({"classes": ["background", "lesion", "lesion"]}, "named twice"),
    "least probability": ({"least_lesion_probability": 1.5}, "at least_lesion_probability: a number out of range"),
    "nothing to drop": ({"lesion_class": None, "least_lesion_probability": 0.5}, "there is no lesion_class"),
    "no white matter": (
        {"classes": ["background", "lesion"], "least_white_matter": 0.1},
        'there is no class "white_matter"',
    ),
    "no load": (
        {"lesion_threshold": {**BY_LOAD, "small_ml": 0}},
        "at lesion_threshold.small_ml: a number out of range",
    ),
    "no threshold": ({"lesion_threshold": {"small_ml": 5}}, "the field small is missing"),
    "loads": ({"lesion_threshold": {**BY_LOAD, "large_ml": 5}}, "large_ml must be above small_ml"),
    "nothing to trim": ({"lesion_class": None, "lesion_threshold": BY_LOAD}, "there is no lesion_class"),
    "lesion class": ({"lesion_class": "background"}, "no foreground class"),
    "normalisation": ({"normalisation": {"kind": "zscore"}}, "a normalisation that this version does not know"),
    "intended use": ({"intended_use": "Diagnosis."}, "not a medical device"),
    "no artifact": ({"artifacts": []}, "a length of 0"),
    "object": ({"golden": [1]}, "at golden: expected an object"),
}


@pytest.mark.parametrize("case", BAD_FIELDS)
def test_manifests_that_break_their_schema(library: Library, folder: Path, case: str) -> None:
    changes, words = BAD_FIELDS[case]
    with refuses(BUNDLE, "ManifestError", words):
        library.open(rewrite(folder, **changes))


@pytest.mark.parametrize(
    "data", [b"", b"{", b"[1]", b'{"schema_version": 1} x', b"\xff", b"[" * 100_000, b'{"schema_version": 1e400}']
)
def test_manifests_that_are_no_json_object(library: Library, folder: Path, data: bytes) -> None:
    (folder / "manifest.json").write_bytes(data)
    with refuses(BUNDLE, "ManifestError", "not readable JSON|expected an object"):
        library.open(folder)


def write_with(target: Path, **files: bytes) -> Path:
    """Write a tiny bundle with other files, their hashes right."""
    make_tiny(target)
    contents = {
        "model.fp32.onnx": make_graph().SerializeToString(),
        "golden.npz": (target / "golden.npz").read_bytes(),
        **files,
    }
    write_bundle(target, make_manifest(), contents, overwrite=True)
    return target


def test_graphs_that_do_not_fit(library: Library, tmp_path: Path) -> None:
    with refuses(ENGINE, "EngineError", "cannot compile the fp32 graph"):
        library.open(write_with(tmp_path / "a", **{"model.fp32.onnx": b"no graph"}))
    other_tile = make_graph(tile=(8, 16, 20)).SerializeToString()
    with refuses(BUNDLE, "EngineMismatchError", "are not those of its manifest"):
        library.open(write_with(tmp_path / "b", **{"model.fp32.onnx": other_tile}))
    fuses_only = make_graph(classes=None).SerializeToString()
    with refuses(BUNDLE, "EngineMismatchError", "are not those of its manifest"):
        library.open(write_with(tmp_path / "c", **{"model.fp32.onnx": fuses_only}))


def test_a_golden_tile_that_is_not_reproduced(library: Library, tmp_path: Path) -> None:
    graph = make_graph()
    weights = next(each for each in graph.graph.initializer if each.name == "fused.w")
    weights.raw_data = np.full(2, 0.51, np.float32).tobytes()
    with refuses(ENGINE, "EngineError", "does not reproduce the golden tile"):
        library.open(write_with(tmp_path / "a", **{"model.fp32.onnx": graph.SerializeToString()}))


def golden_with(folder: Path, **arrays: np.ndarray | None) -> bytes:
    """Replace arrays of the golden tile; None removes one."""
    with np.load(folder / "golden.npz") as file:
        kept = {**file, **arrays}
    np.savez_compressed(folder / "changed.npz", **{name: each for name, each in kept.items() if each is not None})
    return (folder / "changed.npz").read_bytes()


@pytest.mark.parametrize(
    ("arrays", "words"),
    [
        ({"voxels": None}, "has no voxels"),
        ({"output.fused": None}, "has no array output.fused"),
        ({"voxels": np.full(2048, 8 * 16 * 16, np.int32)}, "voxels outside the tile"),
        ({"output.fused": np.full((1, 2048), np.nan, np.float32)}, "not finite"),
        ({"output.fused": np.zeros((1, 2048), np.int32)}, "in another type or shape than <f4"),
        ({"output.fused": np.zeros((1, 7), np.float32)}, "in another size"),
    ],
)
def test_golden_tiles_that_do_not_fit(
    library: Library, tmp_path: Path, arrays: dict[str, np.ndarray], words: str
) -> None:
    make_tiny(tmp_path / "old")
    golden = golden_with(tmp_path / "old", **arrays)
    # Written as files, since write_bundle would refuse it.
    target = write_with(tmp_path / "new")
    (target / "golden.npz").write_bytes(golden)
    manifest = json.loads((target / "manifest.json").read_bytes())
    manifest["golden"] |= {"sha256": hashlib.sha256(golden).hexdigest(), "size": len(golden)}
    with refuses(BUNDLE, "BundleError", words):
        library.open(rewrite(target, golden=manifest["golden"]))


def test_precisions_that_are_not_there(library: Library, folder: Path) -> None:
    with refuses(BUNDLE, "EngineMismatchError", "cannot run in int8"):
        library.open(folder, precision="int8")
    with refuses(INPUT, "ConfigError", "There is no precision 9"):
        library.open(folder, precision=9)


@pytest.mark.parametrize("options", [{"threads": -1}, {"threads": 1025}, {"max_memory_mib": -1.0}], ids=str)
def test_options_of_opening(library: Library, folder: Path, options: dict[str, Any]) -> None:
    with refuses(INPUT, "ConfigError", f"{next(iter(options))} is -?[0-9]+"):
        library.open(folder, **options)


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


LEVELS = ("lesion_threshold", "least_lesion_probability", "least_white_matter")


@pytest.mark.parametrize("level", [-0.5, 1.01, float("nan"), float("inf")])
@pytest.mark.parametrize("name", LEVELS)
def test_levels_that_are_none(open_c: Opener, name: str, level: float) -> None:
    with refuses(INPUT, "ConfigError", f"{name} is .*RMR_KEEP_ALL"):
        open_c(**{name: level})


def test_white_matter_that_the_bundle_does_not_know(library: Library, tmp_path: Path) -> None:
    make_tiny(tmp_path / "other.zip", classes=("background", "csf", "grey_matter", "cortex", "lesion"))
    with refuses(INPUT, "ConfigError", 'has no class "white_matter"'):
        library.open(tmp_path / "other.zip", least_white_matter=0.1)
    library.open(tmp_path / "other.zip", least_white_matter=-1.0).close()


@pytest.mark.parametrize("name", LEVELS)
def test_levels_of_a_bundle_without_lesions(library: Library, tmp_path: Path, name: str) -> None:
    make_tiny(tmp_path / "none.zip", lesion_class=None)
    with refuses(INPUT, "ConfigError", "tiny has no lesion class"):
        library.open(tmp_path / "none.zip", **{name: 0.5})
    library.open(tmp_path / "none.zip", **{name: -1.0}).close()


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
