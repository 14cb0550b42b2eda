"""Brain masks: brought onto the common grid through their headers; outside is background, and no tile."""

from __future__ import annotations

import numpy as np
import pytest
from tiny_study import lesion_mask, make_grid, make_study, make_tiny

from rmr_sdk.errors import GeometryError, StudyError
from rmr_sdk.geometry import Grid, reorient
from rmr_sdk.io.nifti import write_volume
from rmr_sdk.pipeline import Pipeline
from rmr_sdk.preprocess import prepare
from rmr_sdk.volume import Volume


def ball(grid: Grid, radius_mm: float = 6.0, dtype: type[np.generic] = np.uint8) -> Volume:
    points = grid.world(np.moveaxis(np.indices(grid.shape), 0, -1))
    return Volume((np.linalg.norm(points, axis=-1) < radius_mm).astype(dtype), grid.affine)


@pytest.mark.parametrize("dtype", [np.uint8, np.float32, np.int16, np.bool_])
@pytest.mark.parametrize("codes", ["LAS", "PIR"])
def test_outside_the_mask_is_background(make_manifest, codes, dtype) -> None:
    study = make_study()
    mask = ball(reorient(study["FLAIR"].grid, codes).grid, dtype=dtype)
    bare, prepared = prepare(study, make_manifest()), prepare(study, make_manifest(), brain_mask=mask)
    brain = reorient(mask.grid, "SAL").apply(mask.data) != 0
    for name, array in prepared.arrays.items():
        assert np.array_equal(array, np.where(brain, bare.arrays[name], 0))
        assert array.dtype == study[name].data.dtype
    assert prepared.actions[-1] == "voxels outside the brain mask taken as background"
    assert study["FLAIR"].data[0, 12, 11] == bare.arrays["FLAIR"][11, 12, 0]  # the caller's voxels are left alone


def test_a_mask_on_another_grid_lies_where_its_header_says(make_manifest) -> None:
    study = make_study()
    mask = ball(make_grid("RAS", (40, 40, 40), 0.5))
    brain = prepare(study, make_manifest(), brain_mask=mask).arrays["FLAIR"] > 0
    axes = reorient(study["FLAIR"].grid, "SAL")
    assert brain[axes.apply(ball(study["FLAIR"].grid, 5.5).data) > 0].all()
    assert not brain[axes.apply(ball(study["FLAIR"].grid, 6.5).data) == 0].any()


def test_intensities_are_those_of_the_brain(make_manifest) -> None:
    study = make_study()
    study["FLAIR"].data[0, 0, 0] = 1e6  # outside the mask
    masked = prepare(study, make_manifest(), brain_mask=ball(study["FLAIR"].grid)).intensity["FLAIR"]
    assert 1 / masked.scale < 200
    assert masked.floor < 50


def test_no_tile_is_run_outside_the_mask(tmp_path) -> None:
    make_tiny(tmp_path / "bundle")
    study = make_study(make_grid(shape=(40, 60, 60)))
    mask = lesion_mask(study["FLAIR"].grid)
    with Pipeline.open(tmp_path / "bundle") as pipeline:
        whole, masked = pipeline.run(study), pipeline.run(study, brain_mask=mask)
    assert masked.provenance.tiles < whole.provenance.tiles
    assert not masked.labels.data[mask.data == 0].any()
    assert masked.labels.data[mask.data > 0].any()


def empty() -> Volume:
    grid = make_grid()
    return Volume(np.zeros(grid.shape, np.uint8), grid.affine)


def nan() -> Volume:
    grid = make_grid()
    return Volume(np.full(grid.shape, np.nan, np.float32), grid.affine)


def elsewhere() -> Volume:
    mask = ball(make_grid())
    affine = mask.affine.copy()
    affine[:3, 3] += 500
    return Volume(mask.data, affine)


def beside() -> Volume:
    """Overlap the study, but with no voxel of brain there."""
    grid = make_grid(shape=(60, 60, 60))
    data = np.zeros(grid.shape, np.uint8)
    data[0] = 1
    return Volume(data, grid.affine)


@pytest.mark.parametrize(
    ("mask", "error", "message"),
    [
        (empty, StudyError, "the brain mask is empty: every voxel is 0. Pass a mask"),
        (nan, StudyError, "the brain mask is empty"),
        (elsewhere, GeometryError, "the brain mask does not overlap the study in space"),
        (beside, StudyError, "the brain mask has no voxel of brain where the study is"),
    ],
)
def test_masks_that_are_refused(make_manifest, mask, error, message) -> None:
    with pytest.raises(error, match=message):
        prepare(make_study(), make_manifest(), brain_mask=mask())


def test_the_command_line_takes_a_mask(tmp_path, monkeypatch) -> None:
    from tiny_study import write_study

    from rmr_sdk.cli import main

    make_tiny(tmp_path / "bundle")
    folder = write_study(tmp_path / "study")
    write_volume(tmp_path / "brain mask ä.nii.gz", ball(make_grid()))
    common = ["run", str(folder), "--bundle", str(tmp_path / "bundle"), "--overwrite", "--out", str(tmp_path / "out")]
    assert main([*common, "--brain-mask", str(tmp_path / "brain mask ä.nii.gz")]) == 0
    assert "voxels outside the brain mask" in (tmp_path / "out" / "report.json").read_text()
    assert main([*common, "--brain-mask", str(tmp_path / "missing.nii.gz")]) == 3
