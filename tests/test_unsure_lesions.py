"""Lesions of low mean probability, or in no white matter: dropped as bundle or caller say, and said in the report."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from msgspec.structs import replace
from tiny_bundle import make_manifest
from tiny_study import LESION_MM, TOUCHING_MM, make_doubtful, make_tiny

from rmr_sdk import Pipeline, Result
from rmr_sdk.cli import main
from rmr_sdk.errors import ConfigError
from rmr_sdk.io.nifti import write_volume
from rmr_sdk.io.report import build_report, decode_report, encode_report
from rmr_sdk.lesion_rule import LesionRule
from rmr_sdk.manifest import LesionThreshold


def run(folder: Path, least: float | None = None, **manifest: float) -> Result:
    """Run the study with a faint lesion through the tiny bundle."""
    bundle = folder / f"tiny{manifest}.zip"
    if not bundle.exists():
        make_tiny(bundle, **manifest)
    with Pipeline.open(bundle, cache_dir=folder, threads=1, least_lesion_probability=least) as pipeline:
        return pipeline.run(make_doubtful())


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("bundles")


@pytest.fixture(scope="module")
def everything(folder: Path) -> Result:
    """Give the result with both lesions: the tiny bundle states no level."""
    return run(folder)


@pytest.fixture(scope="module")
def between(everything: Result) -> float:
    """Give a level between the mean probabilities of both lesions."""
    assert everything.lesions is not None
    sure, faint = sorted((lesion.mean_probability for lesion in everything.lesions), reverse=True)
    assert sure - faint > 0.1
    return (sure + faint) / 2


def test_all_are_kept_where_nothing_is_stated(everything: Result) -> None:
    assert everything.lesions is not None
    assert len(everything.lesions) == 2
    assert (everything.provenance.least_lesion_probability, everything.provenance.lesions_dropped) == (0.0, 0)


def test_a_faint_lesion_becomes_what_is_around_it(folder: Path, everything: Result, between: float) -> None:
    found = run(folder, between)
    assert found.lesions is not None
    assert found.labels is not None
    assert everything.labels is not None
    (lesion,) = found.lesions
    assert np.linalg.norm(np.asarray(lesion.centroid_mm) - LESION_MM) < 1
    assert (found.provenance.least_lesion_probability, found.provenance.lesions_dropped) == (between, 1)
    changed = found.labels.data != everything.labels.data
    assert set(everything.labels.data[changed]) == {4}
    instead = set(found.labels.data[changed])
    assert len(instead) == 1
    assert 4 not in instead
    assert (found.labels.data == 4).sum() == lesion.voxels
    assert found.lesion_probability is not None
    assert everything.lesion_probability is not None
    np.testing.assert_array_equal(found.lesion_probability.data, everything.lesion_probability.data)
    np.testing.assert_array_equal(found.fused.data, everything.fused.data)
    assert sum(found.tissue_ml.values()) > sum(everything.tissue_ml.values())


def test_the_bundle_states_the_level_and_the_caller_may_take_another(folder: Path, between: float) -> None:
    stated = run(folder, least_lesion_probability=between)
    assert stated.lesions is not None
    assert len(stated.lesions) == 1
    kept = run(folder, 0.0, least_lesion_probability=between)
    assert kept.lesions is not None
    assert len(kept.lesions) == 2
    none = run(folder, 1.0, least_lesion_probability=between)
    assert none.lesions == ()
    assert none.provenance.lesions_dropped == 2


def test_what_white_matter_hardly_touches_is_dropped(folder: Path, everything: Result) -> None:
    assert everything.labels is not None
    white = folder / "white.zip"
    classes = ("background", "csf", "white_matter", "grey_matter", "lesion")  # lesions lie in what is grey matter now
    make_tiny(white, classes=classes, least_white_matter=0.1)
    with Pipeline.open(white, cache_dir=folder, threads=1) as pipeline:
        found = pipeline.run(make_doubtful())
    with Pipeline.open(white, cache_dir=folder, threads=1, least_white_matter=0) as pipeline:
        kept = pipeline.run(make_doubtful())
    assert found.labels is not None
    assert kept.labels is not None
    np.testing.assert_array_equal(kept.labels.data, everything.labels.data)
    assert (kept.provenance.least_white_matter, kept.provenance.lesions_dropped) == (0.0, 0)
    assert found.lesions == ()
    assert (found.provenance.least_white_matter, found.provenance.lesions_dropped) == (0.1, 2)
    np.testing.assert_array_equal(found.labels.data, np.where(kept.labels.data == 4, 3, kept.labels.data))


def test_a_lesion_is_trimmed_to_the_voxels_that_are_sure_at_its_load(folder: Path, everything: Result) -> None:
    assert everything.labels is not None
    assert everything.lesion_probability is not None
    lesion, probability = everything.labels.data == 4, everything.lesion_probability.data
    least = float(np.quantile(probability[lesion], 0.3))
    load = int(lesion.sum()) * everything.labels.grid.voxel_ml
    for small_ml, large_ml in ((2 * load, 3 * load), (load / 3, load / 2)):  # the load is small, then large
        small, large = (least, 0.0) if small_ml > load else (0.0, least)
        stated = LesionThreshold(small_ml=small_ml, small=small, large_ml=large_ml, large=large)
        make_tiny(folder / f"{small}.zip", lesion_threshold=stated)
        with Pipeline.open(folder / f"{small}.zip", cache_dir=folder, threads=1) as pipeline:
            found = pipeline.run(make_doubtful())
        assert found.labels is not None
        assert found.provenance.lesion_threshold == least
        np.testing.assert_array_equal(found.labels.data == 4, lesion & (probability >= np.float64(least)))
    other = folder / "stated.zip"
    make_tiny(other, lesion_threshold=stated)
    with Pipeline.open(other, cache_dir=folder, threads=1, lesion_threshold=0) as pipeline:
        kept = pipeline.run(make_doubtful())
    assert kept.labels is not None
    assert kept.provenance.lesion_threshold == 0
    np.testing.assert_array_equal(kept.labels.data, everything.labels.data)
    with Pipeline.open(other, cache_dir=folder, threads=1, lesion_threshold=1.0) as pipeline:
        none = pipeline.run(make_doubtful())
    assert none.lesions == ()
    assert (none.provenance.lesion_threshold, none.provenance.lesions_dropped) == (1.0, 2)


def test_small_pieces_of_a_lesion_that_the_threshold_parts_are_dropped(folder: Path) -> None:
    by_load = LesionThreshold(small_ml=1, small=0.5, large_ml=2, large=0.5, least_piece=0.1)
    make_tiny(folder / "pieces.zip", lesion_threshold=by_load)
    study = make_doubtful(TOUCHING_MM)

    def sizes(**levels: float) -> tuple[float, list[int]]:
        with Pipeline.open(folder / "pieces.zip", cache_dir=folder, threads=1, **levels) as pipeline:
            found = pipeline.run(study)
        assert found.provenance.lesions_dropped == 0
        return found.provenance.lesion_threshold, [lesion.voxels for lesion in found.lesions or ()]

    threshold, (largest,) = sizes()
    assert threshold == 0.5
    own_threshold, (least,) = sizes(lesion_threshold=0.7)  # the caller's threshold, the bundle's pieces
    assert own_threshold == 0.7
    assert least < largest
    (whole,) = sizes(lesion_threshold=0.0)[1]
    make_tiny(folder / "kept.zip", lesion_threshold=replace(by_load, least_piece=0.0))
    with Pipeline.open(folder / "kept.zip", cache_dir=folder, threads=1) as pipeline:
        found = pipeline.run(study)
    both = [lesion.voxels for lesion in found.lesions or ()]
    assert len(both) == 2
    assert both[0] == largest
    assert both[1] < 0.1 * largest
    assert sum(both) < whole
    assert found.provenance.least_piece == 0.0


def test_small_lesions_are_dropped_below_a_volume(folder: Path, everything: Result) -> None:
    assert everything.lesions is not None
    small, large = sorted(1000 * lesion.volume_ml for lesion in everything.lesions)
    assert small < large
    make_tiny(folder / "large.zip", least_lesion_mm3=(small + large) / 2)
    with Pipeline.open(folder / "large.zip", cache_dir=folder, threads=1) as pipeline:
        found = pipeline.run(make_doubtful())
    assert found.lesions is not None
    assert [1000 * lesion.volume_ml for lesion in found.lesions] == [pytest.approx(large)]
    assert (found.provenance.least_lesion_mm3, found.provenance.lesions_dropped) == ((small + large) / 2, 1)
    for least, count in ((0.0, 2), (small, 2), (1000.0, 0)):
        with Pipeline.open(folder / "large.zip", cache_dir=folder, threads=1, least_lesion_mm3=least) as pipeline:
            assert len(pipeline.run(make_doubtful()).lesions or ()) == count


def test_white_matter_needs_its_class(folder: Path) -> None:
    manifest = make_manifest(classes=("background", "lesion"))
    with pytest.raises(ConfigError, match='has no class "white_matter"'):
        LesionRule.of(manifest, least_white_matter=0.5)
    assert LesionRule.of(manifest).keeps_all


@pytest.mark.parametrize("level", ["least_probability", "least_white_matter", "threshold", "least_mm3"])
def test_a_level_needs_a_lesion_class(level: str) -> None:
    manifest = make_manifest(lesion_class=None)
    with pytest.raises(ConfigError, match="has no lesion class"):
        LesionRule.of(manifest, **{level: 0.5})
    assert LesionRule.of(manifest, **{level: 0.0}).keeps_all


def test_the_report_says_what_was_dropped(folder: Path, between: float) -> None:
    report = decode_report(encode_report(build_report(run(folder, between))))
    assert report.provenance.lesions_dropped == 1
    assert report.provenance.least_lesion_probability == between


def test_a_stream_drops_the_same(folder: Path, between: float) -> None:
    expected, study = run(folder, between), make_doubtful()
    grids = {"FLAIR": study["FLAIR"].grid}
    bundle = folder / "tiny{}.zip"
    with (
        Pipeline.open(bundle, cache_dir=folder, threads=1, least_lesion_probability=between) as pipeline,
        pipeline.stream(grids, {"T1w": study["T1w"]}, dtype=np.float32) as stream,
    ):
        for index in range(study["FLAIR"].data.shape[2]):
            stream.add("FLAIR", index, study["FLAIR"].data[:, :, index].astype(np.float32))
        found = stream.finish()
    assert found.labels is not None
    assert expected.labels is not None
    np.testing.assert_array_equal(found.labels.data, expected.labels.data)
    assert found.provenance.lesions_dropped == 1


def test_the_command_line_takes_a_level(folder: Path, between: float, tmp_path: Path) -> None:
    study = make_doubtful()
    for name in study:
        write_volume(tmp_path / f"{name.lower()}.nii.gz", study[name])
    command = ["run", "--t1", str(tmp_path / "t1w.nii.gz"), "--flair", str(tmp_path / "flair.nii.gz")]
    command += ["--bundle", str(folder / "tiny{}.zip"), "--cache-dir", str(folder), "--out", str(tmp_path / "out")]
    assert (
        main(
            [
                *command,
                "--least-lesion-probability",
                str(between),
                "--least-white-matter",
                "0.01",
                "--lesion-threshold",
                "0.02",
                "--least-lesion-mm3",
                "1.5",
            ]
        )
        == 0
    )
    report = decode_report((tmp_path / "out" / "report.json").read_bytes())
    assert report.lesions is not None
    assert report.lesions.count == 1
    assert report.provenance.least_white_matter == 0.01
    assert report.provenance.lesion_threshold == 0.02
    page = " ".join((tmp_path / "out" / "report.html").read_text().split())
    kept = f"voxels of a probability of at least 0.02, in lesions of a mean probability of at least {between:.2f}"
    assert f"{kept} with at least 0.01 white matter around them, and of at least 1.5 mm&sup3;; 1 dropped" in page
