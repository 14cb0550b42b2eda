"""A coarse atlas of the head, and where it lies in a study.

It answers what tissue labels alone cannot: which fluid is a lateral ventricle, which grey matter is deep, and what lies
below the tentorium. `fit` brings it onto a study's labels; README.md says what it is made from and how.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

import numpy as np
import numpy.typing as npt

from rmr_sdk import _C
from rmr_sdk.geometry import Affine, Grid

VENTRICLE = 1
"""Bit of the zone where fluid is that of the lateral ventricles: nearer to them than to any other fluid, by 3 mm."""

INFRATENTORIAL = 2
"""Bit of the zone of brainstem and cerebellum."""

DEEP_GREY = 4
"""Bit of the zone in which grey matter is that of thalamus or basal ganglia."""

BRAIN = 8
"""Bit of the zone of the brain and what is up to 6 mm outside of it."""

_SURE_WHITE, _SURE_GREY = 0.9, 0.75

LEAST_SIMILARITY = 0.65
"""Least correlation that counts as a fit. Seen: 0.79 to 0.99 on 34 label maps, 0.70 to 0.98 on the labels of 9 runs;
0.40 to 0.67 with the head upside down or back to front, 0.35 to 0.57 with T1 and FLAIR swapped."""


@dataclass(frozen=True, slots=True, eq=False)
class Atlas:
    """The atlas in the world of the ICBM 152 template.

    Attributes:
        tissue: White and grey matter, (2, x, y, z) float32, share of each voxel.
        tissue_grid: Where `tissue` lies, 4 mm.
        zones: Bits of `VENTRICLE`, `INFRATENTORIAL` and `DEEP_GREY`, (x, y, z) uint8.
        zones_grid: Where `zones` lies, 2 mm.
    """

    tissue: npt.NDArray[np.float32]
    tissue_grid: Grid
    zones: npt.NDArray[np.uint8]
    zones_grid: Grid


@dataclass(frozen=True, slots=True, eq=False)
class Placement:
    """Where the atlas lies in a study.

    Attributes:
        affine: (4, 4), atlas mm -> world mm of the study.
        similarity: Correlation of white and grey matter with the study's, 1 at best.
    """

    affine: Affine
    similarity: float

    @property
    def fits(self) -> bool:
        """Tell whether the atlas may be trusted here."""
        return self.similarity >= LEAST_SIMILARITY

    def zones(self, grid: Grid, threads: int = 1) -> npt.NDArray[np.uint8]:
        """Return the zones as bits on a grid of the study; 0 beyond the atlas."""
        atlas = load_atlas()
        return self._on(atlas.zones, atlas.zones_grid, grid, threads)

    def tissue(self, grid: Grid, threads: int = 1) -> tuple[npt.NDArray[np.bool_], npt.NDArray[np.bool_]]:
        """Return where the atlas is sure of white matter, and where of grey matter, on a grid of the study."""
        atlas = load_atlas()
        sure = ((atlas.tissue[0] > _SURE_WHITE) + 2 * (atlas.tissue[1] > _SURE_GREY)).astype(np.uint8)
        found = self._on(sure, atlas.tissue_grid, grid, threads)
        return found == 1, found == 2

    def coverage(self, grid: Grid) -> float:
        """Return the share of the atlas's white and grey matter that lies in the field of view of a grid."""
        atlas = load_atlas()
        points = np.argwhere(atlas.tissue.sum(axis=0) > 0.5)
        index = grid.index(Grid(atlas.tissue_grid.shape, self.affine @ atlas.tissue_grid.affine).world(points))
        return float(((index > -0.5) & (index < np.asarray(grid.shape) - 0.5)).all(axis=1).mean())

    def _on(self, source: npt.NDArray[np.uint8], at: Grid, grid: Grid, threads: int) -> npt.NDArray[np.uint8]:
        out = np.empty(grid.shape, np.uint8)
        matrix = np.linalg.solve(self.affine @ at.affine, grid.affine)[:3]
        _C.resample(source, out, matrix=np.ascontiguousarray(matrix), mode="nearest", threads=threads)
        return out


@lru_cache(maxsize=1)
def load_atlas() -> Atlas:
    """Read the atlas that comes with the package."""
    with np.load(Path(__file__).parent / "atlas.npz") as file:
        tissue, zones = file["tissue"].astype(np.float32) / 255, file["zones"]
        tissue_grid, zones_grid = Grid(tissue.shape[1:], file["tissue_affine"]), Grid(zones.shape, file["zones_affine"])
    return Atlas(tissue, tissue_grid, zones, zones_grid)
