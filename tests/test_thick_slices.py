"""Lesions of label maps, seen in thick or fine voxels, taken to the common grid and back: none of any size is lost."""

from __future__ import annotations

import numpy as np
import pytest

from rmr_sdk.common_grid import choose_grid
from rmr_sdk.displacement import displacement
from rmr_sdk.geometry import Grid
from rmr_sdk.io.nifti import read_volume
from rmr_sdk.postprocess import components
from rmr_sdk.resample import image_mode, resample

MAPS = ("mni152_lesions04", "patient06")
LARGE_MM3 = 10.0


def seen_by_a_scanner(lesions: np.ndarray, grid: Grid, spacing_mm: tuple[float, ...], seed: int) -> tuple:
    """Average lesions over the voxels of an oblique grid at a random offset."""
    rng = np.random.default_rng(seed)
    shape = tuple(int(length) for length in np.ceil(np.multiply(grid.shape, grid.spacing_mm) / spacing_mm))
    centre = grid.world((np.asarray(grid.shape) - 1) / 2)
    affine = np.diag([*spacing_mm, 1.0])
    affine[:3, 3] = centre - affine[:3, :3] @ ((np.asarray(shape) - 1) / 2)
    offset = [*(rng.uniform(-0.5, 0.5, 3) * spacing_mm), *np.radians(rng.uniform(-8, 8, 3))]
    native = Grid(shape, displacement(offset, centre) @ affine)
    return native, resample(lesions.astype(np.float32), grid, native, "area")


@pytest.mark.parametrize(
    ("spacing_mm", "exact"),
    [
        ((0.9, 0.9, 3.0), True),
        ((1.0, 1.0, 2.5), True),
        ((1.0, 1.0, 5.0), True),
        ((2.0, 2.0, 2.0), True),
        ((0.72, 0.72, 4.0), False),
    ],
)
def test_lesions_come_back(data_dir, make_manifest, spacing_mm, exact) -> None:
    manifest = make_manifest(spacing_tolerance=0.25)
    large = lost = 0
    for seed, name in enumerate(MAPS):
        labels, _ = read_volume(data_dir / "labelmaps" / f"{name}.nii.gz")
        native, image = seen_by_a_scanner(labels.data == 4, labels.grid, spacing_mm, seed)
        truth = image >= 0.5
        common = choose_grid(native, manifest)
        there = (resample(image, native, common, image_mode(native, common)) >= 0.5).astype(np.uint8)
        back = resample(there, common, native, "nearest") > 0
        if exact:
            assert np.array_equal(back, truth)
        else:
            assert 2 * (back & truth).sum() / (back.sum() + truth.sum()) > 0.8
        ids = np.zeros(truth.shape, np.int32)
        found = components(np.ascontiguousarray(truth), ids=ids)
        sizes = {lesion.id for lesion in found if lesion.voxels * native.voxel_ml * 1000 >= LARGE_MM3}
        large += len(sizes)
        lost += len(sizes - set(np.unique(ids[back]).tolist()))
    assert large > 50
    assert lost <= 0.01 * large
