"""T1w and FLAIR told apart by the brain itself: real, simulated and painted studies, right and swapped."""

from __future__ import annotations

import numpy as np
import pytest

from rmr_sdk.contrast_check import check_contrasts, measure_change
from rmr_sdk.demo import demo_study_folder
from rmr_sdk.geometry import Grid
from rmr_sdk.io.nifti import read_volume
from rmr_sdk.preprocess import prepare
from rmr_sdk.similarity import reduce_volume
from rmr_sdk.study import Study

REAL = (
    "open_ms/patient07",
    "open_ms/patient19",
    "open_ms_raw/patient01_study1",
    "open_ms_raw/patient01_study2",
    "open_ms_raw/patient12_study1",
    "open_ms_raw/patient12_study2",
    "open_ms_raw/patient19_study2",
    "open_ms_raw/patient20_study2",
)


def swapped(study: Study) -> Study:
    return Study({"T1w": study["FLAIR"], "FLAIR": study["T1w"]})


def check(study: Study, make_manifest) -> list[str]:
    prepared = prepare(study, make_manifest(), align="header")
    return [warning for warning in prepared.warnings if "T1w and FLAIR look" in warning]


@pytest.mark.parametrize("name", REAL)
def test_real_studies(data_dir, make_manifest, name) -> None:
    study = Study.from_folder(data_dir / name)
    assert check(study, make_manifest) == []
    (warning,) = check(swapped(study), make_manifest)
    assert warning.startswith("T1w and FLAIR look swapped: ")


def test_the_demo_study_and_its_evidence(make_manifest) -> None:
    study = Study.from_folder(demo_study_folder())
    assert check(study, make_manifest) == []
    assert check(swapped(study), make_manifest) == [
        "T1w and FLAIR look swapped: white matter is brighter than grey matter on T1, but from the rim of the brain"
        " inward brightness changes by -5% on the volume given as T1w, +21% on the volume given as FLAIR"
    ]


@pytest.mark.parametrize("name", ["patient01", "patient05", "patient08", "mni152_lesions02", "mni152_lesions15"])
def test_painted_label_maps(data_dir, name) -> None:
    labels, _ = read_volume(data_dir / "labelmaps" / f"{name}.nii.gz")
    rng = np.random.default_rng(len(name))
    arrays = {}
    for contrast, means in (("T1w", (0, 0.3, 0.65, 0.85, 0.6)), ("FLAIR", (0, 0.2, 0.75, 0.65, 0.95))):
        clean = np.array(means)[labels.data] * rng.uniform(200, 900)
        arrays[contrast] = np.abs(clean + rng.normal(0, 0.05 * clean.max(), clean.shape)).astype(np.float32)
    assert check_contrasts(arrays, labels.grid) == []
    (warning,) = check_contrasts({"T1w": arrays["FLAIR"], "FLAIR": arrays["T1w"]}, labels.grid)
    assert "look swapped" in warning


def test_one_image_given_twice(make_manifest) -> None:
    study = Study.from_folder(demo_study_folder())
    (warning,) = check(Study({"T1w": study["T1w"], "FLAIR": study["T1w"]}), make_manifest)
    assert warning == "T1w and FLAIR look like one image: their correlation within the brain is 1.000"


def layers(shape: tuple[int, int, int] = (100, 100, 100)) -> tuple[np.ndarray, Grid]:
    """Make a ball of 90 mm radius in air; return how deep its voxels of 2 mm are, and their grid."""
    grid = Grid(shape, np.diag([2.0, 2.0, 2.0, 1.0]))
    points = grid.world(np.moveaxis(np.indices(shape), 0, -1)) - grid.world((np.array(shape) - 1) / 2)
    return 90.0 - np.linalg.norm(points, axis=-1), grid


def test_the_change_from_rim_to_deep_is_measured() -> None:
    depth_mm, grid = layers()
    inside = depth_mm > 0
    rising = np.where(depth_mm > 6, 120.0, 100.0) * inside
    falling = np.where(depth_mm > 6, 45.0, 50.0) * inside
    change = measure_change(*(reduce_volume(array.astype(np.float32), grid) for array in (rising, falling)))
    assert change is not None
    assert change.t1w == pytest.approx(np.log(1.2), abs=1e-6)
    assert change.flair == pytest.approx(np.log(0.9), abs=1e-6)


@pytest.mark.parametrize("nothing", ["no overlap", "small", "hollow", "other contrasts"])
def test_without_a_brain_nothing_is_said(nothing) -> None:
    depth_mm, grid = layers()
    first, second = (depth_mm > 0).astype(np.float32), (depth_mm > 0).astype(np.float32)
    if nothing == "no overlap":
        first[50:], second[:50] = 0, 0
    elif nothing == "small":
        first = second = (depth_mm > 65).astype(np.float32)
    elif nothing == "hollow":
        first = second = ((depth_mm > 0) & (depth_mm < 20)).astype(np.float32)
    names = ("T1w", "T2w") if nothing == "other contrasts" else ("T1w", "FLAIR")
    assert check_contrasts(dict(zip(names, (first, second), strict=True)), grid) == []
