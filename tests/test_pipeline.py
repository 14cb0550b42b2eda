"""Whole runs: a tiny but real bundle, small heads, and what must hold whatever the network is."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tiny_study import LESION_MM, lesion_mask, make_grid, make_study, make_tiny

from rmr_sdk import Pipeline, Progress, Result, Study, Volume
from rmr_sdk.engines import openvino as openvino_engine
from rmr_sdk.errors import Cancelled, DeviceMemoryError, EngineError
from rmr_sdk.geometry import Grid, reorient
from rmr_sdk.inference import check_finite
from rmr_sdk.io.report import build_report, decode_report, encode_report
from rmr_sdk.manifest import Robust

ORIENTATIONS = [
    "".join(codes) for axes in itertools.permutations(("LR", "PA", "IS")) for codes in itertools.product(*axes)
]
VOLUMES = ("fused", "labels", "lesion_probability")


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Give the path of the tiny bundle."""
    path = tmp_path_factory.mktemp("bundles") / "tiny.zip"
    make_tiny(path)
    return path


@pytest.fixture(scope="module")
def open_pipeline(bundle: Path, tmp_path_factory: pytest.TempPathFactory) -> Callable[..., Pipeline]:
    """Give a function that opens the tiny bundle with one cache for all tests."""
    cache = tmp_path_factory.mktemp("cache")
    return lambda **options: Pipeline.open(bundle, **{"cache_dir": cache, **options})


@pytest.fixture(scope="module")
def pipeline(open_pipeline: Callable[..., Pipeline]) -> Iterator[Pipeline]:
    """Give one open pipeline: it serves any number of studies."""
    with open_pipeline() as opened:
        yield opened


def same(a: Result, b: Result) -> bool:
    """Tell whether two results are the same to the last bit."""
    volumes = all(np.array_equal(getattr(a, name).data, getattr(b, name).data) for name in VOLUMES)
    return volumes and a.lesions == b.lesions and a.tissue_ml == b.tissue_ml


def fused_by_hand(result: Result) -> np.ndarray:
    """Fuse as the tiny network does, the mean of both normalised contrasts, on the FLAIR's intensity scale."""
    scale = result.intensity.scale

    def network(volume: Volume) -> np.ndarray:
        scale = 1.0 / np.percentile(volume.data[volume.data > 2.0], 95.0)
        return np.clip(volume.data * scale, 0.0, 1.5)

    return (network(result.inputs["T1w"]) + network(result.inputs["FLAIR"])) / 2 / scale


def test_a_run_finds_the_lesion(pipeline: Pipeline) -> None:
    result = pipeline.run(make_study())
    assert len(result.lesions) == 1
    lesion = result.lesions[0]
    assert np.linalg.norm(LESION_MM - lesion.centroid_mm) < 0.5
    found = result.labels.data == 4
    assert found[lesion_mask(make_grid()).data > 0].all()
    assert lesion.voxels == np.count_nonzero(found)
    assert result.lesion_ml == lesion.volume_ml == pytest.approx(lesion.voxels / 1000)
    assert 0.5 < lesion.mean_probability <= 1
    assert set(result.tissue_ml) == {"csf", "grey_matter", "white_matter"}
    assert [getattr(result, name).data.dtype for name in VOLUMES] == [np.float32, np.uint8, np.float32]
    assert list(result.timings) == ["prepare", "extract", "network", "blend", "measure", "check"]
    assert [warning.partition(" ml")[0] for warning in result.warnings] == [
        "Grey and white matter add up to 3",  # the head is a toy
        "Grey and white matter do not lie as they do in a head (agreement 0.00): the segmentation may have failed, and "
        "lesions are given no location",
    ]


def test_provenance_says_what_computed_it(pipeline: Pipeline) -> None:
    made = pipeline.run(make_study(), overlap=0.5).provenance
    assert (made.bundle, made.bundle_hash) == ("tiny", pipeline.bundle.hash)
    assert (made.engine, made.precision, made.overlap) == ("openvino", "fp32", 0.5)
    assert made.engine_reason == pipeline.reason
    assert made.tiles > 0
    assert {"rmr-sdk", "openvino", "numpy", "python"} == set(made.versions)


def test_an_overlap_of_numpy_can_be_reported(pipeline: Pipeline) -> None:
    report = build_report(pipeline.run(make_study(), overlap=np.float32(0.5)))
    assert decode_report(encode_report(report)).provenance.overlap == 0.5


@pytest.mark.parametrize("overlap", [0.0, 0.25, 0.5, 0.75])
@pytest.mark.parametrize("shape", [(20, 24, 22), (5, 6, 7), (3, 40, 9)])
def test_blending_is_exact_for_any_overlap_and_size(
    pipeline: Pipeline, overlap: float, shape: tuple[int, int, int]
) -> None:
    result = pipeline.run(make_study(make_grid(shape=shape)), overlap=overlap)
    assert np.allclose(result.fused.data, fused_by_hand(result), rtol=1e-5, atol=1e-4)
    assert np.array_equal(result.fused.affine, result.inputs["FLAIR"].affine)


@settings(max_examples=12)
@given(codes=st.sampled_from(ORIENTATIONS))
def test_a_turned_input_gives_the_same_result_in_the_world(pipeline: Pipeline, codes: str) -> None:
    upright, turned = make_study(make_grid("LAS")), make_study(make_grid(codes))
    expected, found = pipeline.run(upright), pipeline.run(turned)
    for name in VOLUMES:
        volume = getattr(found, name)
        assert np.array_equal(volume.affine, turned["FLAIR"].affine)
        back = reorient(volume.grid, "LAS")
        assert back.grid.matches(getattr(expected, name).grid)
        assert np.array_equal(back.apply(volume.data), getattr(expected, name).data)
    assert found.tissue_ml == expected.tissue_ml
    for lesion, twin in zip(found.lesions, expected.lesions, strict=True):
        assert (lesion.id, lesion.voxels) == (twin.id, twin.voxels)
        assert np.allclose(lesion.centroid_mm, twin.centroid_mm, atol=1e-9)
        assert lesion.mean_probability == pytest.approx(twin.mean_probability, rel=1e-6)


@pytest.mark.parametrize("reference", ["T1w", "FLAIR"])
def test_contrasts_on_different_grids_come_back_on_the_reference(pipeline: Pipeline, reference: str) -> None:
    grids = {"T1w": make_grid("RPI", (24, 28, 26), 0.9), "FLAIR": make_grid("SAL", (17, 20, 18), 1.2)}
    result = pipeline.run(make_study(grids), reference=reference)
    assert result.reference == reference
    for name in VOLUMES:
        volume = getattr(result, name)
        assert volume.data.shape == grids[reference].shape
        assert np.array_equal(volume.affine, grids[reference].affine)
    assert all(volume.grid.matches(grids[reference]) for volume in result.inputs.values())
    assert len(result.lesions) == 1
    assert np.linalg.norm(LESION_MM - result.lesions[0].centroid_mm) < 1.0
    assert any("resampled" in action for action in result.provenance.geometry)


def test_another_spacing_is_resampled_and_back(pipeline: Pipeline) -> None:
    grid = make_grid("LAS", (12, 14, 13), 2.0)
    result = pipeline.run(make_study(grid))
    assert result.labels.data.shape == grid.shape
    assert np.array_equal(result.labels.affine, grid.affine)
    assert set(np.unique(result.labels.data)) <= set(range(5))
    assert result.provenance.geometry[0].startswith("common grid: 25 x 27 x 23 voxels, 1 x 1 x 1 mm, SAR")


def test_an_oblique_left_handed_grid_keeps_its_affine_exactly(pipeline: Pipeline, make_oblique: Grid) -> None:
    result = pipeline.run(make_study(make_oblique))
    assert np.array_equal(result.fused.affine, make_oblique.affine)
    assert len(result.lesions) == 1
    assert np.linalg.norm(LESION_MM - result.lesions[0].centroid_mm) < 1.0


@pytest.fixture
def make_oblique() -> Grid:
    """Give a left-handed grid turned by 20 degrees about the left-right axis."""
    cosine, sine = np.cos(np.radians(20)), np.sin(np.radians(20))
    affine = np.eye(4)
    affine[:3, :3] = np.array([[-1, 0, 0], [0, cosine, -sine], [0, sine, cosine]])
    affine[:3, 3] = -affine[:3, :3] @ ((np.array([20, 26, 26]) - 1) / 2)
    return Grid((20, 26, 26), affine)


@pytest.mark.parametrize("dtype", [np.int16, np.uint16, np.float64, np.uint8])
def test_voxel_types_make_no_difference(pipeline: Pipeline, dtype: type[np.generic]) -> None:
    whole = {name: np.round(volume.data) for name, volume in make_study().items()}
    affine = make_grid().affine
    expected = pipeline.run(Study.from_arrays(whole, affine=affine))
    found = pipeline.run(Study.from_arrays({name: data.astype(dtype) for name, data in whole.items()}, affine=affine))
    assert same(found, expected)


def test_the_study_is_left_as_it_was(pipeline: Pipeline) -> None:
    study = make_study()
    before = {name: volume.data.copy() for name, volume in study.items()}
    pipeline.run(study)
    assert all(np.array_equal(volume.data, before[name]) for name, volume in study.items())


def test_non_finite_voxels_can_be_background(pipeline: Pipeline) -> None:
    study = make_study()
    masked = {name: np.where(volume.data == 0, np.nan, volume.data) for name, volume in study.items()}
    result = pipeline.run(Study.from_arrays(masked, affine=make_grid().affine), non_finite="zero")
    assert same(result, pipeline.run(study))
    assert any(warning.startswith("FLAIR: ") and "NaN" in warning for warning in result.warnings)


def test_a_bundle_without_classes_only_fuses(tmp_path: Path) -> None:
    make_tiny(tmp_path / "fuse.zip", classes=None)
    with Pipeline.open(tmp_path / "fuse.zip", cache_dir=tmp_path) as fusing:
        result = fusing.run(make_study())
    assert np.allclose(result.fused.data, fused_by_hand(result), rtol=1e-5, atol=1e-4)
    for name in ("labels", "lesion_probability", "lesions", "tissue_ml", "classes", "lesion_class", "lesion_ml"):
        assert getattr(result, name) is None
    assert sorted(path.name for path in result.save(tmp_path / "out")) == [
        "fused.nii.gz",
        "preview.png",
        "report.html",
        "report.json",
    ]


def test_a_flat_contrast_is_fused_with_its_range_back_and_air_stays_zero(tmp_path: Path) -> None:
    study = make_study()
    flat = Study({name: Volume(each.data.clip(0) ** 0.7, each.affine) for name, each in study.items()})
    make_tiny(tmp_path / "flat.zip", normalisation=Robust(percentile=95.0, most_median=0.6))
    with Pipeline.open(tmp_path / "flat.zip", cache_dir=tmp_path) as stretching:
        result = stretching.run(flat)
    shares, air = [], (flat["T1w"].data == 0) & (flat["FLAIR"].data == 0)
    for volume in flat.values():
        foreground = volume.data[volume.data > 0.02 * np.percentile(volume.data[volume.data > 0], 99)]
        bright, middle = np.percentile(foreground, 95), np.median(foreground)
        assert middle > 0.65 * bright
        spread = max(bright - middle, 0.1 * bright)  # stretched by 4 at most
        shares.append(np.clip(1 - (bright - volume.data) / spread * 0.4, 0, 1.5))
    np.testing.assert_allclose(result.fused.data, (shares[0] + shares[1]) / 2 * bright, rtol=1e-4, atol=1e-4 * bright)
    assert air.any()
    assert not result.fused.data[air].any()
    report = build_report(result)
    assert (report.intensity.scale, report.intensity.offset) == pytest.approx((1 / bright, 0))
    assert all("flat: its contrast stretched" in action for action in result.provenance.geometry)


def test_a_bundle_without_a_lesion_class_has_labels(tmp_path: Path) -> None:
    make_tiny(tmp_path / "tissue.zip", lesion_class=None)
    with Pipeline.open(tmp_path / "tissue.zip", cache_dir=tmp_path) as segmenting:
        result = segmenting.run(make_study())
    assert set(result.tissue_ml) == {"csf", "grey_matter", "white_matter", "lesion"}
    assert result.lesion_probability is result.lesions is None


def test_progress_goes_through_every_step_once(pipeline: Pipeline) -> None:
    seen: list[Progress] = []
    result = pipeline.run(make_study(), progress=seen.append)
    tiles = result.provenance.tiles
    assert seen == [
        Progress("prepare", 0, 1),
        *(Progress("infer", done, tiles) for done in range(tiles + 1)),
        Progress("measure", 0, 1),
    ]


@pytest.mark.parametrize("answer", [None, 0, "", True])
def test_only_false_cancels(pipeline: Pipeline, answer: Any) -> None:
    assert pipeline.run(make_study(), progress=lambda _: answer).lesions


@pytest.mark.parametrize("stop", [("prepare", 0), ("infer", 0), ("infer", 1), ("infer", 4), ("measure", 0)])
def test_a_cancelled_run_leaves_the_pipeline_ready(pipeline: Pipeline, stop: tuple[str, int]) -> None:
    def report(progress: Progress) -> bool:
        return (progress.stage, progress.done) != stop

    with pytest.raises(Cancelled) as caught:
        pipeline.run(make_study(), progress=report)
    assert (caught.value.stage, caught.value.done) == stop
    assert pipeline.run(make_study()).lesions


def test_an_error_of_the_callback_comes_through(pipeline: Pipeline) -> None:
    def report(progress: Progress) -> None:
        if progress.done == 2:
            raise LookupError("the caller's own")

    with pytest.raises(LookupError, match="the caller's own"):
        pipeline.run(make_study(), progress=report)
    assert pipeline.run(make_study()).lesions


def test_threads_share_a_pipeline_and_change_nothing(pipeline: Pipeline) -> None:
    studies = [make_study(make_grid(codes)) for codes in ("LAS", "RPI")] * 3
    expected = [pipeline.run(study) for study in studies[:2]]
    with ThreadPoolExecutor(3) as pool:
        results = list(pool.map(pipeline.run, studies))
    assert all(same(result, expected[index % 2]) for index, result in enumerate(results))


def test_the_number_of_threads_changes_nothing(pipeline: Pipeline, open_pipeline: Callable[..., Pipeline]) -> None:
    expected = pipeline.run(make_study(), overlap=0.5)
    for threads in (1, 2, 3):
        with open_pipeline(threads=threads) as other:
            result = other.run(make_study(), overlap=0.5)
            assert 1 <= result.provenance.threads <= threads
            assert same(result, expected)


def test_the_memory_an_error_asks_for_is_enough(pipeline: Pipeline, open_pipeline: Callable[..., Pipeline]) -> None:
    study = make_study(make_grid(shape=(90, 80, 70)))
    with open_pipeline(max_memory_mib=1.5) as narrow, pytest.raises(DeviceMemoryError) as caught:
        narrow.run(study)
    assert caught.value.max_memory_mib == 1.5
    needed = caught.value.needed_mib
    assert isinstance(needed, int)
    assert needed > 1.5
    with open_pipeline(max_memory_mib=needed) as enough:
        assert same(enough.run(study), pipeline.run(study))


def test_a_second_opening_uses_the_cache(bundle: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with Pipeline.open(bundle, cache_dir=tmp_path) as first:
        expected = first.run(make_study())
    assert len(list(tmp_path.rglob("*.bin"))) == 1

    def refuse(*_: Any) -> None:
        raise AssertionError("compiled again")

    monkeypatch.setattr(openvino_engine, "_compile", refuse)
    with Pipeline.open(bundle, cache_dir=tmp_path) as second:
        assert same(second.run(make_study()), expected)
    assert len(list(tmp_path.rglob("*.bin"))) == 1


def test_warmup_and_repr(pipeline: Pipeline) -> None:
    pipeline.warmup()
    assert repr(pipeline).startswith("Pipeline('tiny', openvino on ")
    assert pipeline.engine_info.precision == "fp32"


def test_onnxruntime_agrees(pipeline: Pipeline, open_pipeline: Callable[..., Pipeline]) -> None:
    pytest.importorskip("onnxruntime")
    expected = pipeline.run(make_study())
    with open_pipeline(engine="onnxruntime") as other:
        result = other.run(make_study())
    assert result.provenance.engine == "onnxruntime"
    assert np.allclose(result.fused.data, expected.fused.data, atol=1e-3)
    assert np.mean(result.labels.data == expected.labels.data) > 0.999


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_values_that_are_not_finite_never_become_an_image(value: float) -> None:
    tile = np.zeros((1, 1, 4, 4, 4), np.float32)
    check_finite({"fused": tile}, 0)
    tile[0, 0, 1, 2, 3] = value
    with pytest.raises(EngineError, match='values in "fused" of tile 3 that are not finite'):
        check_finite({"fused": tile}, 3)
