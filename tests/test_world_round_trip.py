"""Where a lesion is in the world, from the study through the pipeline into every NIfTI output, read by two others."""

from __future__ import annotations

import tempfile
from pathlib import Path
from types import ModuleType

import nibabel
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from test_geometry import CODES
from tiny_study import LESION_MM, LESION_RADIUS_MM, make_study, make_tiny

from rmr_sdk.geometry import Grid
from rmr_sdk.pipeline import Pipeline

SPACINGS = ((1.0, 1.0, 1.0), (0.72, 0.72, 3.0), (0.9, 0.9, 4.0), (3.0, 0.8, 0.8), (2.0, 2.0, 2.0), (0.5, 0.5, 0.5))


@pytest.fixture(scope="module")
def pipeline(tmp_path_factory):
    """Give the tiny pipeline, opened once."""
    folder = tmp_path_factory.mktemp("bundle")
    make_tiny(folder / "tiny")
    with Pipeline.open(folder / "tiny") as opened:
        yield opened


@st.composite
def head_grids(draw: st.DrawFn) -> Grid:
    """Draw a grid of any orientation, tilt and slice thickness whose field of view covers the head."""
    spacing = np.array(draw(st.sampled_from(SPACINGS)))
    codes = draw(st.sampled_from(CODES))
    tilt = draw(st.lists(st.floats(-25, 25), min_size=3, max_size=3))
    cosines = np.zeros((3, 3))
    for axis, code in enumerate(codes):
        cosines["RAS".find(code) if code in "RAS" else "LPI".find(code), axis] = 1.0 if code in "RAS" else -1.0
    for axis, degrees in enumerate(np.radians(tilt)):
        turn = np.eye(3)
        a, b = (axis + 1) % 3, (axis + 2) % 3
        turn[a, a] = turn[b, b] = np.cos(degrees)
        turn[a, b], turn[b, a] = -np.sin(degrees), np.sin(degrees)
        cosines = turn @ cosines
    shape = tuple(int(length) for length in np.ceil(26 / spacing))
    affine = np.eye(4)
    affine[:3, :3] = cosines * spacing
    phase = np.array(draw(st.lists(st.floats(-0.5, 0.5), min_size=3, max_size=3)))
    affine[:3, 3] = -affine[:3, :3] @ ((np.asarray(shape) - 1) / 2 + phase)
    return Grid(shape, affine)


def places(labels: np.ndarray, affine: np.ndarray) -> np.ndarray:
    """Return where the voxels labelled lesion are, in RAS mm."""
    return nibabel.affines.apply_affine(affine, np.argwhere(labels == 4))


@settings(max_examples=12)
@given(head_grids(), head_grids())
def test_a_lesion_stays_where_it_is(pipeline: Pipeline, sitk: ModuleType, t1: Grid, flair: Grid) -> None:
    study = make_study({"T1w": t1, "FLAIR": flair})
    result = pipeline.run(study)
    half_mm = max(flair.spacing_mm) / 2
    blur_mm = 1.8  # from a voxel of 1 mm to the corner of its 26 neighbours, which the tiny network averages
    with tempfile.TemporaryDirectory() as folder:
        result.save(folder)
        image = nibabel.load(Path(folder) / "labels.nii.gz")
        found = places(np.asarray(image.dataobj), image.affine)
        assert len(found) > 0
        assert np.linalg.norm(found - LESION_MM, axis=1).max() < LESION_RADIUS_MM + half_mm + blur_mm
        assert np.linalg.norm(found.mean(axis=0) - LESION_MM) < half_mm + 0.3
        for name in ("labels", "fused", "lesion_probability"):
            ours = nibabel.load(Path(folder) / f"{name}.nii.gz")
            assert np.allclose(ours.affine, flair.affine, atol=1e-4)
            theirs = sitk.ReadImage(str(Path(folder) / f"{name}.nii.gz"))
            assert theirs.GetSize() == flair.shape
            for corner in ((0, 0, 0), tuple(length - 1 for length in flair.shape)):
                point = np.array(theirs.TransformIndexToPhysicalPoint(corner)) * (-1, -1, 1)
                assert np.allclose(point, flair.world(corner), atol=2e-3)
        centroids = np.array([lesion.centroid_mm for lesion in result.lesions or ()])
        assert np.linalg.norm(centroids - LESION_MM, axis=1).min() < half_mm + 0.3


@given(st.sampled_from(SPACINGS), st.sampled_from(CODES))
def test_every_acquired_slice_is_a_slice_of_the_common_grid(make_manifest, spacing, codes) -> None:
    from rmr_sdk.common_grid import choose_grid
    from rmr_sdk.geometry import reorient

    native = reorient(Grid((9, 10, 11), np.diag([*spacing, 1.0])), codes).grid
    grid = choose_grid(native, make_manifest(spacing_tolerance=0.25))
    steps = np.array(native.spacing_mm) / grid.spacing_mm
    index = grid.index(native.world(np.stack(np.indices(native.shape), axis=-1)))
    for axis in range(3):
        if native.spacing_mm[axis] > 1.25:
            assert steps[axis] == pytest.approx(round(steps[axis]))
            assert np.allclose(index[..., axis], np.rint(index[..., axis]), atol=1e-9)
        assert 0.75 - 1e-9 <= grid.spacing_mm[axis] <= 1.25 + 1e-9
    assert index.min() > -1
    assert (index < grid.shape).all()
