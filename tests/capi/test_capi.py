"""The C interface gives what the Python pipeline gives, bit for bit, and describes itself."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from ctypes import byref, c_void_p
from pathlib import Path

import numpy as np
import pytest
from rmr_ctypes import COutcome, CPipeline, Library, Opener, OpenOptions
from tiny_study import TOUCHING_MM, make_doubtful, make_grid, make_study, make_tiny

import rmr_sdk
from rmr_sdk import Pipeline, Study
from rmr_sdk.bundle import Bundle
from rmr_sdk.demo import demo_study_folder
from rmr_sdk.errors import RmrError
from rmr_sdk.geometry import Grid
from rmr_sdk.manifest import LesionThreshold, Robust
from rmr_sdk.result import Result
from rmr_sdk.volume import Volume

MIB = 2**20


def assert_same(found: COutcome, expected: Result) -> None:
    """Compare arrays bit for bit, and the table of lesions to rounding."""
    assert np.array_equal(found.fused, expected.fused.data)
    assert found.raw.tiles == expected.provenance.tiles
    assert found.raw.tiles_skipped == expected.provenance.tiles_skipped
    if expected.labels is None:
        return
    assert np.array_equal(found.labels, expected.labels.data)
    if expected.lesion_probability is None:
        return
    assert np.array_equal(found.probability, expected.lesion_probability.data)
    assert found.raw.lesion_count == len(expected.lesions)
    assert found.raw.lesion_threshold == expected.provenance.lesion_threshold
    assert found.raw.lesions_dropped == expected.provenance.lesions_dropped
    for lesion, twin in zip(found.lesions, expected.lesions, strict=False):
        assert (lesion.id, lesion.voxels) == (twin.id, twin.voxels)
        assert lesion.volume_ml == pytest.approx(twin.volume_ml)
        assert list(lesion.centroid_mm) == pytest.approx(twin.centroid_mm)
        assert lesion.mean_probability == pytest.approx(twin.mean_probability)


@pytest.fixture(scope="module")
def twin(bundle: Path, tmp_path_factory: pytest.TempPathFactory) -> Callable[..., Pipeline]:
    """Give a function that opens the tiny bundle in Python, once per precision."""
    opened: dict[str, Pipeline] = {}

    def open_twin(precision: str = "fp32") -> Pipeline:
        if precision not in opened:
            cache = tmp_path_factory.mktemp("cache")
            opened[precision] = Pipeline.open(
                bundle, engine="openvino", precision=precision, threads=2, cache_dir=cache
            )
        return opened[precision]

    return open_twin


@pytest.mark.parametrize("codes", ["LAS", "RPI", "SAR", "PIL", "ASL"])
@pytest.mark.parametrize("order", ["C", "F"])
def test_any_orientation_and_memory_order(
    open_c: Opener, twin: Callable[..., Pipeline], codes: str, order: str
) -> None:
    study = make_study(make_grid(codes))
    laid = {name: Volume(np.asarray(each.data, order=order), each.affine) for name, each in study.items()}
    assert_same(open_c().run(laid, order=order), twin().run(study, align="none"))


@pytest.mark.parametrize("dtype", [np.uint8, np.int16, np.uint16, np.float32])
@pytest.mark.parametrize("overlap", [0.0, 0.5])
def test_voxel_types_and_overlaps(
    open_c: Opener, twin: Callable[..., Pipeline], dtype: type[np.generic], overlap: float
) -> None:
    study = make_study(make_grid("LAS", (30, 27, 22)), dtype)
    assert_same(open_c().run(study, overlap=overlap), twin().run(study, overlap=overlap, align="none"))


def test_strided_and_flipped_arrays_are_read_where_they_lie(open_c: Opener, twin: Callable[..., Pipeline]) -> None:
    study = make_study()
    wide = {name: np.full([2 * n for n in each.data.shape], 7e4, np.float32) for name, each in study.items()}
    views = {}
    for name, each in study.items():
        view = wide[name][::2, ::-2, 1::2]
        view[...] = each.data
        views[name] = Volume(view, each.affine)
    assert_same(open_c().run(views), twin().run(study, align="none"))


@pytest.mark.parametrize("precision", ["fp32", "bf16", "fp16", "int8"])
def test_precisions(open_c: Opener, twin: Callable[..., Pipeline], precision: str) -> None:
    try:
        expected = twin(precision).run(make_study(), align="none")
    except RmrError as refused:
        pytest.skip(f"this CPU does not run {precision}: {refused}")
    pipeline = open_c(precision=precision)
    assert_same(pipeline.run(make_study()), expected)
    names = {1: "fp32", 2: "bf16", 3: "fp16", 4: "int8"}
    assert names[pipeline.describe().precision] == expected.provenance.precision


OTHER_GRIDS: Mapping[str, tuple[Grid, Grid]] = {
    "shifted": (make_grid("RAS", (24, 26, 25)), make_grid("LAS")),
    "coarse": (make_grid("LAS", (12, 14, 13), 2.0), make_grid("LAS", (12, 14, 13), 2.0)),
    "fine": (make_grid("LAS", (40, 44, 42), 0.5), make_grid("LAS", (40, 44, 42), 0.5)),
    "fine on coarse": (make_grid("LAS", (40, 44, 42), 0.5), make_grid("PIR", (20, 18, 22), 1.2)),
}


@pytest.mark.parametrize("case", OTHER_GRIDS)
def test_other_grids_are_resampled_as_headers_say(open_c: Opener, twin: Callable[..., Pipeline], case: str) -> None:
    t1w, flair = OTHER_GRIDS[case]
    study = make_study({"T1w": t1w, "FLAIR": flair})
    assert_same(open_c().run(study, align="header"), twin().run(study, align="header"))


def test_an_oblique_grid_of_thick_slices(open_c: Opener, twin: Callable[..., Pipeline]) -> None:
    cosine, sine = np.cos(np.radians(17)), np.sin(np.radians(17))
    affine = np.eye(4)
    affine[:3, :3] = np.array([[-1, 0, 0], [0, cosine, -sine], [0, sine, cosine]]) @ np.diag([1.0, 1.0, 3.0])
    affine[:3, 3] = -affine[:3, :3] @ ((np.array([22, 26, 9]) - 1) / 2)
    study = make_study({"T1w": make_grid(), "FLAIR": Grid((22, 26, 9), affine)})
    found, expected = open_c().run(study, align="header"), twin().run(study, align="header")
    assert_same(found, expected)
    covers = [line for line in expected.warnings if "covers" in line]
    assert [line for line in found.warnings if "covers" in line] == covers


def test_another_reference_and_voxels_that_are_not_finite(open_c: Opener, twin: Callable[..., Pipeline]) -> None:
    study = make_study()
    masked = {name: Volume(np.where(v.data == 0, np.nan, v.data), v.affine) for name, v in study.items()}
    found = open_c().run(masked, non_finite=1, reference="T1w")
    assert_same(found, twin().run(Study(masked), non_finite="zero", reference="T1w", align="none"))
    assert any(line.startswith("FLAIR: ") and "NaN" in line for line in found.warnings)


@pytest.mark.parametrize("changes", [{"classes": None}, {"lesion_class": None}], ids=str)
def test_bundles_without_classes_or_lesions(library: Library, tmp_path: Path, changes: dict[str, None]) -> None:
    make_tiny(tmp_path / "other.zip", **changes)
    pipeline = library.open(tmp_path / "other.zip", threads=1)
    with Pipeline.open(tmp_path / "other.zip", engine="openvino", cache_dir=tmp_path) as twin:
        assert_same(pipeline.run(make_study()), twin.run(make_study(), align="none"))
    pipeline.close()


@pytest.mark.parametrize("codes", ["SAR", "LAS"])
def test_unsure_lesions_are_dropped_as_in_python(
    library: Library, tmp_path: Path, reoriented: Callable[[Study, str], Study], codes: str
) -> None:
    turned = reoriented(make_doubtful(), codes)
    make_tiny(tmp_path / "all.zip")
    with Pipeline.open(tmp_path / "all.zip", engine="openvino", cache_dir=tmp_path) as every:
        lesions = every.run(turned).lesions or ()
    means, load = [lesion.mean_probability for lesion in lesions], sum(lesion.volume_ml for lesion in lesions)
    assert len(means) == 2
    loads = {"small_ml": load / 2, "large_ml": load * 3}
    for name, levels in {
        "sure": {"least_lesion_probability": sum(means) / 2},
        "white": {"least_white_matter": 0.1, "classes": ("background", "csf", "white_matter", "grey_matter", "lesion")},
        "load": {"lesion_threshold": LesionThreshold(**loads, small=1.0, large=0.5)},
        "size": {"least_lesion_mm3": sum(1000 * lesion.volume_ml for lesion in lesions) / 2},
    }.items():
        make_tiny(tmp_path / f"{name}.zip", **levels)
        pipeline = library.open(tmp_path / f"{name}.zip", threads=1)
        with Pipeline.open(tmp_path / f"{name}.zip", engine="openvino", cache_dir=tmp_path) as twin:
            expected = twin.run(turned, align="none")
        assert expected.provenance.lesions_dropped > 0
        assert_same(pipeline.run(turned), expected)
        pipeline.close()


def test_flat_contrasts_are_stretched_as_in_python(library: Library, tmp_path: Path) -> None:
    study = make_study()
    flat = Study({name: Volume(each.data.clip(0) ** 0.7, each.affine) for name, each in study.items()})
    bundle = tmp_path / "stretching.zip"
    make_tiny(bundle, normalisation=Robust(percentile=95.0, most_median=0.6))
    pipeline = library.open(bundle, threads=1)
    with Pipeline.open(bundle, engine="openvino", cache_dir=tmp_path) as twin:
        expected = twin.run(flat, align="none")
    assert expected.intensity.stretch > 0
    assert_same(pipeline.run(flat), expected)
    pipeline.close()


def test_pieces_of_lesions_are_dropped_as_in_python(library: Library, tmp_path: Path) -> None:
    study, lesions = make_doubtful(TOUCHING_MM), {}
    for share in (0.0, 0.1):
        bundle = tmp_path / f"{share}.zip"
        by_load = LesionThreshold(small_ml=1, small=0.5, large_ml=2, large=0.5, least_piece=share)
        make_tiny(bundle, lesion_threshold=by_load)
        for own in (0.0, 0.6):
            pipeline = library.open(bundle, threads=1, lesion_threshold=own)
            levels = {"lesion_threshold": own} if own else {}
            with Pipeline.open(bundle, engine="openvino", cache_dir=tmp_path, **levels) as twin:
                expected = twin.run(study, align="none")
            assert_same(pipeline.run(study), expected)
            lesions[share, own] = len(expected.lesions or ())
            pipeline.close()
    assert lesions == {(0.0, 0.0): 2, (0.0, 0.6): 2, (0.1, 0.0): 1, (0.1, 0.6): 1}


WHITE_CLASSES = ("background", "csf", "white_matter", "grey_matter", "lesion")
KEEP_ALL = -1.0
LEVELS = ("lesion_threshold", "least_lesion_probability", "least_white_matter", "least_lesion_mm3")
OWN_LEVELS: Mapping[str, tuple[dict[str, float], dict[str, float]]] = {  # of librmr, of Python
    "the bundle's": ({}, {}),
    "all": (
        dict.fromkeys(LEVELS, KEEP_ALL),
        dict.fromkeys(LEVELS, 0.0),
    ),
    **{
        f"{name} {level}": ({name: level}, {name: level})
        for name, level in (
            ("lesion_threshold", 0.6),
            ("least_lesion_probability", 0.9),
            ("least_lesion_probability", 0.4),
            ("least_white_matter", 1.0),
            ("least_lesion_mm3", 2.0),
            ("least_lesion_mm3", 1000.0),
        )
    },
}


@pytest.fixture(scope="module")
def strict(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Write a bundle that drops unsure lesions, and those that touch no white matter."""
    path = tmp_path_factory.mktemp("strict") / "strict.zip"
    by_load = LesionThreshold(small_ml=0.001, small=0.9, large_ml=1000, large=0.7)
    make_tiny(
        path,
        classes=WHITE_CLASSES,
        lesion_threshold=by_load,
        least_lesion_probability=0.7,
        least_white_matter=0.05,
        least_lesion_mm3=4.0,
    )
    return path


@pytest.mark.parametrize("case", OWN_LEVELS)
def test_levels_of_the_caller_take_the_place_of_the_bundles(
    library: Library, strict: Path, tmp_path: Path, case: str
) -> None:
    ours, theirs = OWN_LEVELS[case]
    study = make_doubtful()
    pipeline = library.open(strict, threads=1, **ours)
    with Pipeline.open(strict, engine="openvino", cache_dir=tmp_path, **theirs) as twin:
        expected = twin.run(study, align="none")
    found = pipeline.run(study)
    pipeline.close()
    assert_same(found, expected)
    assert (found.raw.lesion_count == 2) == (case == "all")


def test_options_of_an_older_header_leave_the_levels_to_the_bundle(library: Library, strict: Path) -> None:
    study = make_doubtful()
    options, handle = OpenOptions(threads=1, lesion_threshold=KEEP_ALL), c_void_p()
    options.struct_size = OpenOptions.lesion_threshold.offset
    library.check(library.dll.rmr_open(str(strict).encode(), byref(options), byref(handle)))
    older, newer = CPipeline(library, handle), library.open(strict, threads=1)
    assert older.run(study).raw.lesion_count == newer.run(study).raw.lesion_count
    np.testing.assert_array_equal(older.run(study).labels, newer.run(study).labels)
    older.close()
    newer.close()


def test_the_middle_of_the_demo_study(library: Library) -> None:
    bundle = Path(rmr_sdk.__file__).parent / "bundles" / "ms-edge.zip"
    middle = (slice(30, 150), slice(40, 180), slice(40, 136))  # four tiles, not eight
    whole = Study.from_folder(demo_study_folder())
    study = Study({name: Volume(each.data[middle], each.affine) for name, each in whole.items()})
    pipeline = library.open(bundle)
    found = pipeline.run(study, overlap=0.0, order="F")
    pipeline.close()
    with Pipeline.open("ms-edge", engine="openvino", precision="fp32") as twin:
        expected = twin.run(study, overlap=0.0, align="none")
    assert_same(found, expected)
    tissue = dict(zip(expected.classes, found.class_ml, strict=True))
    for name, volume_ml in expected.tissue_ml.items():
        assert tissue[name] == pytest.approx(volume_ml)


def test_it_describes_itself(library: Library, open_c: Opener, bundle: Path) -> None:
    pipeline, manifest = open_c(), Bundle.open(bundle).manifest
    info = pipeline.describe()
    assert library.dll.rmr_version().decode() == rmr_sdk.__version__
    assert library.dll.rmr_abi_version() == 1
    assert info.bundle.decode() == manifest.name
    assert info.bundle_version.decode() == manifest.version
    assert info.bundle_sha256.decode() == Bundle.open(bundle).hash
    assert pipeline.names("contrast") == manifest.contrasts
    assert pipeline.names("class") == manifest.classes
    assert info.lesion_class == manifest.classes.index("lesion")
    assert info.orientation.decode() == manifest.orientation
    assert tuple(info.tile_shape) == manifest.tile_shape
    assert 1 <= info.tiles_at_once <= 2
    assert info.engine_version
    assert info.warning == b""


def test_a_plan_says_what_a_run_does(open_c: Opener) -> None:
    study = make_study(make_grid("LAS", (40, 36, 30)))
    pipeline = open_c()
    plan, found = pipeline.plan(study, overlap=0.5), pipeline.run(study, overlap=0.5)
    assert (plan.tiles, plan.tiles_skipped) == (found.raw.tiles, found.raw.tiles_skipped)
    assert tuple(plan.output_shape) == (40, 36, 30)
    assert tuple(plan.common_shape) == (30, 36, 40)
    assert plan.resampled == 0
    assert 9 * 40 * 36 * 30 < plan.least_bytes <= plan.bytes


def test_the_memory_a_plan_asks_for_is_enough(open_c: Opener) -> None:
    study = make_study(make_grid("LAS", (60, 50, 40)))
    least = open_c().plan(study).least_bytes / MIB
    narrow = open_c(max_memory_mib=least)
    assert narrow.plan(study).tiles_at_once == 1
    assert np.array_equal(narrow.run(study).labels, open_c().run(study).labels)


def test_progress_goes_through_every_step_once(open_c: Opener) -> None:
    seen: list[tuple[str, int, int]] = []
    found = open_c().run(make_study(), progress=lambda told: seen.append(told) or 0)
    tiles = found.raw.tiles
    assert seen == [("prepare", 0, 1), *(("infer", done, tiles) for done in range(tiles + 1)), ("measure", 0, 1)]


def test_lesions_beyond_the_room_are_counted(open_c: Opener) -> None:
    found = open_c().run(make_study(), lesions=0)
    assert found.lesions == []
    assert found.raw.lesion_count == 1


def test_threads_share_a_pipeline_and_their_number_changes_nothing(open_c: Opener) -> None:
    studies = [make_study(make_grid(codes)) for codes in ("LAS", "RPI")] * 2
    pipeline = open_c()
    expected = [open_c(threads=1).run(study) for study in studies[:2]]
    barrier = threading.Barrier(2)

    def run(study: Study) -> COutcome:
        barrier.wait(10)
        return pipeline.run(study)

    with ThreadPoolExecutor(2) as pool:
        results = list(pool.map(run, studies))
    for index, found in enumerate(results):
        assert np.array_equal(found.fused, expected[index % 2].fused)
        assert np.array_equal(found.labels, expected[index % 2].labels)


def test_a_second_opening_uses_the_cache(open_c: Opener, tmp_path: Path) -> None:
    first = open_c(cache_dir=tmp_path).run(make_study())
    (entry,) = (tmp_path / "openvino-c").iterdir()
    before = entry.stat().st_mtime_ns
    second = open_c(cache_dir=tmp_path).run(make_study())
    assert entry.stat().st_mtime_ns == before
    assert np.array_equal(first.labels, second.labels)
    entry.write_bytes(entry.read_bytes()[:-1])  # a damaged entry is made again
    assert np.array_equal(open_c(cache_dir=tmp_path).run(make_study()).labels, first.labels)
    assert entry.stat().st_mtime_ns != before


def test_a_cache_that_cannot_be_written_is_a_warning(open_c: Opener, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the way")
    pipeline = open_c(cache_dir=tmp_path / "file")
    assert b"cannot be written" in pipeline.describe().warning
    assert "cannot be written" in pipeline.run(make_study()).warnings[0]


def resident_bytes() -> int:
    """Return the memory of this process that is in use, as Linux tells."""
    return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")


def test_memory_does_not_grow(open_c: Opener) -> None:
    study, pipeline = make_study(), open_c()
    taken = []
    for repeat in range(60):
        pipeline.run(study)
        if repeat % 10 == 9:
            open_c(precision="fp32").close()
            taken.append(resident_bytes())
    assert taken[-1] - taken[0] < 8 * MIB, [each // MIB for each in taken]
