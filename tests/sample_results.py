"""Small results of a head that is the same in the world whatever grid it is sampled on."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from rmr_sdk.geometry import Grid, reorient
from rmr_sdk.intensity import IntensityMap
from rmr_sdk.result import Lesion, Provenance, Result
from rmr_sdk.volume import Volume

CLASSES = ("background", "csf", "grey_matter", "white_matter", "lesion")
SEMI_AXES_MM = (24.0, 30.0, 22.0)
RIGHT_FRONT_TOP = ((10.0, 13.0, 8.0), 4.0)

PROVENANCE = Provenance(
    bundle="ms-test",
    bundle_version="1.2.3",
    bundle_hash="ab" * 32,
    engine="openvino",
    engine_reason="the only engine installed",
    device="cpu",
    precision="fp32",
    threads=2,
    overlap=0.25,
    tiles=8,
    tiles_skipped=3,
    geometry=("both contrasts share one grid",),
    versions={"rmr_sdk": "0.1.0"},
)


def make_grid(codes: str = "LAS", shape: tuple[int, int, int] = (60, 72, 54)) -> Grid:
    """Return a 1 mm grid of an RAS `shape` around the world's origin, stored with the axes `codes`."""
    affine = np.eye(4)
    affine[:3, 3] = -(np.asarray(shape) - 1) / 2
    return reorient(Grid(shape, affine), codes).grid


def make_result(
    grid: Grid | None = None,
    spheres: Sequence[tuple[tuple[float, float, float], float]] = (RIGHT_FRONT_TOP,),
    **changes: Any,
) -> Result:
    """Return the result of an ellipsoid brain with spherical lesions of (centre in mm, radius in mm)."""
    grid = grid or make_grid()
    points = grid.world(np.moveaxis(np.indices(grid.shape), 0, -1))
    radius = np.sqrt(((points / SEMI_AXES_MM) ** 2).sum(axis=-1))
    labels = np.select([radius < 0.7, radius < 0.9, radius < 1.0], [3, 2, 1], 0).astype(np.uint8)
    found = []
    for number, (centre, size) in enumerate(spheres, start=1):
        inside = np.linalg.norm(points - centre, axis=-1) <= size
        labels[inside] = 4
        voxels = int(inside.sum())
        centroid = tuple(points[inside].mean(axis=0).tolist())
        volume_ml = voxels * grid.voxel_ml
        found.append(
            Lesion(
                id=number,
                volume_ml=volume_ml,
                diameter_mm=2 * size,
                centroid_mm=centroid,
                mean_probability=0.9,
                voxels=voxels,
            )
        )
    t1, flair = (np.asarray(means, np.float32)[labels] for means in ((0, 30, 90, 130, 85), (0, 20, 110, 90, 160)))
    fields: dict[str, Any] = {
        "fused": Volume((t1 + flair) / 2, grid.affine),
        "labels": Volume(labels, grid.affine),
        "lesion_probability": Volume(np.float32(0.9) * (labels == 4), grid.affine),
        "lesions": tuple(found),
        "tissue_ml": {name: float((labels == i).sum()) * grid.voxel_ml for i, name in enumerate(CLASSES[1:4], 1)},
        "classes": CLASSES,
        "lesion_class": "lesion",
        "reference": "FLAIR",
        "intensity": IntensityMap(scale=1 / 120, offset=0.0, low=0.0, high=1.5),
        "inputs": {"T1w": Volume(t1, grid.affine), "FLAIR": Volume(flair, grid.affine)},
        "timings": {"prepare": 0.25, "network": 3.5},
        "provenance": PROVENANCE,
    }
    return Result(**{**fields, **changes})


def make_fused_only(**changes: Any) -> Result:
    """Return the result of a bundle without a segmentation head."""
    absent = dict.fromkeys(("labels", "lesion_probability", "lesions", "tissue_ml", "classes", "lesion_class"))
    return make_result(**{**absent, **changes})
