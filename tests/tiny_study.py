"""A tiny head for the tiny bundle: it is the same in the world whatever grids it is sampled on."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from tiny_bundle import make_bundle

from rmr_sdk.bundle import Bundle
from rmr_sdk.geometry import Grid, reorient
from rmr_sdk.io.nifti import write_volume
from rmr_sdk.manifest import Robust
from rmr_sdk.study import Study
from rmr_sdk.volume import Volume

SHAPE = (20, 24, 22)
LESION_MM = np.array([2.0, 3.0, 1.0])
LESION_RADIUS_MM = 3.0
FAINT_MM = np.array([-4.0, -2.0, 1.0])
FAINT_RADIUS_MM = 1.6
TOUCHING_MM = LESION_MM + 6.5 * (FAINT_MM - LESION_MM) / np.linalg.norm(FAINT_MM - LESION_MM)
"""There the second lesion hangs together with the first one in the tiny network's labels, by unsure voxels."""


def make_tiny(target: Path, **changes: Any) -> Bundle:
    """Write the tiny bundle with a normalisation that maps brain to 1 and below, and the lesion above."""
    return make_bundle(target, **{"normalisation": Robust(percentile=95.0), **changes})


def make_grid(codes: str = "LAS", shape: tuple[int, int, int] = SHAPE, spacing_mm: float = 1.0) -> Grid:
    """Return a grid around the world's origin; `shape` and spacing are those along R, A and S."""
    affine = np.diag([spacing_mm] * 3 + [1.0])
    affine[:3, 3] = -spacing_mm * (np.asarray(shape) - 1) / 2
    return reorient(Grid(shape, affine), codes).grid


def make_study(grids: Mapping[str, Grid] | Grid | None = None, dtype: type[np.generic] = np.float32) -> Study:
    """Sample the head: an ellipsoid that brightens to the right and the front, with one lesion, in empty air."""
    if not isinstance(grids, Mapping):
        grids = dict.fromkeys(("T1w", "FLAIR"), grids or make_grid())
    return Study({name: Volume(_head(name, grid).astype(dtype), grid.affine) for name, grid in grids.items()})


def make_doubtful(faint_mm: np.ndarray = FAINT_MM) -> Study:
    """Sample the head with a second lesion, which is small and fainter on FLAIR."""
    study = make_study()
    flair = study["FLAIR"]
    points = flair.grid.world(np.moveaxis(np.indices(flair.data.shape), 0, -1))
    faint = np.linalg.norm(points - faint_mm, axis=-1) < FAINT_RADIUS_MM
    return Study({**study, "FLAIR": Volume(np.where(faint, flair.data + 40, flair.data), flair.affine)})


def lesion_mask(grid: Grid) -> Volume:
    """Return where the lesion is."""
    points = grid.world(np.moveaxis(np.indices(grid.shape), 0, -1))
    return Volume((np.linalg.norm(points - LESION_MM, axis=-1) < LESION_RADIUS_MM).astype(np.uint8), grid.affine)


def write_study(folder: Path, study: Study | None = None, mask: bool = False) -> Path:
    """Write a study as t1.nii.gz and flair.nii.gz, and the lesion as lesion.nii.gz where it is wanted."""
    study = study or make_study()
    folder.mkdir(parents=True, exist_ok=True)
    for contrast, name in (("T1w", "t1"), ("FLAIR", "flair")):
        if contrast in study:
            write_volume(folder / f"{name}.nii.gz", study[contrast])
    if mask:
        write_volume(folder / "lesion.nii.gz", lesion_mask(study["FLAIR"].grid))
    return folder


def _head(contrast: str, grid: Grid) -> np.ndarray:
    points = grid.world(np.moveaxis(np.indices(grid.shape), 0, -1))
    brain = ((points / (8.0, 10.0, 9.0)) ** 2).sum(axis=-1) < 1
    lesion = np.linalg.norm(points - LESION_MM, axis=-1) < LESION_RADIUS_MM
    shade = 100.0 + points @ np.array([0.3, 0.2, 0.1])
    return np.where(brain, shade, 0.0) + np.where(lesion, -30.0 if contrast == "T1w" else 70.0, 0.0)
