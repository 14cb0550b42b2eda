"""Fixtures that several test modules share: real data where it is, small synthetic studies where it is not."""

from __future__ import annotations

import os
import warnings
from collections.abc import Callable, Mapping
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest
from hypothesis import settings
from raise_sites import start_recording

from rmr_sdk.geometry import Grid, reorient
from rmr_sdk.manifest import Artifact, GoldenFile, Manifest, Robust, Training
from rmr_sdk.study import Study
from rmr_sdk.volume import Volume

settings.register_profile("rmr", deadline=None, max_examples=40, derandomize=True)
settings.load_profile("rmr")

_DEFAULT_DATA = Path(__file__).parents[2] / "shared" / "data"


def pytest_configure() -> None:
    """Note every error that the tests make happen; tests/test_errors.py asks for them."""
    start_recording()


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Run tests/test_errors.py last: it looks back at the session."""
    items.sort(key=lambda item: item.path.name == "test_errors.py")


@pytest.fixture(scope="session")
def data_dir() -> Path:
    """Give the folder of the real data, or skip."""
    folder = Path(os.environ.get("RMR_DATA", _DEFAULT_DATA))
    if not (folder / "open_ms").is_dir():
        pytest.skip("no real data: RMR_DATA is not set and ../shared/data is not there")
    return folder


@pytest.fixture(scope="session")
def sitk() -> ModuleType:
    """Give SimpleITK, the oracle of geometry; its import warns on some Python versions."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return pytest.importorskip("SimpleITK")


@pytest.fixture(scope="session")
def make_manifest() -> Callable[..., Manifest]:
    """Give a function that makes the manifest of a two-contrast bundle; every field can be replaced."""

    def make(**changes: Any) -> Manifest:
        unhashed = {"sha256": "0" * 64, "size": 1}
        fields: dict[str, Any] = {
            "name": "test",
            "version": "1.0.0",
            "licence": "Apache-2.0",
            "contrasts": ("T1w", "FLAIR"),
            "reference": "FLAIR",
            "orientation": "SAL",
            "spacing_mm": (1.0, 1.0, 1.0),
            "spacing_tolerance": 0.1,
            "normalisation": Robust(),
            "tile_shape": (16, 16, 16),
            "classes": ("background", "csf", "grey_matter", "white_matter", "lesion"),
            "lesion_class": "lesion",
            "artifacts": (Artifact(path="model.onnx", precision="fp32", kind="onnx", **unhashed),),
            "golden": GoldenFile(path="golden.npz", **unhashed),
            "training": Training(recipe="none"),
        }
        return Manifest(**{**fields, **changes})

    return make


@pytest.fixture(scope="session")
def make_grid() -> Callable[..., Grid]:
    """Give a function that makes a grid around the world's origin from its shape, spacing, orientation and tilt."""

    def make(
        shape: tuple[int, int, int] = (20, 24, 22),
        spacing_mm: tuple[float, float, float] = (1.0, 1.0, 1.0),
        codes: str = "LAS",
        tilt_degrees: float = 0.0,
    ) -> Grid:
        cosines = np.zeros((3, 3))
        for axis, code in enumerate(codes):
            cosines["RAS".find(code) if code in "RAS" else "LPI".find(code), axis] = 1.0 if code in "RAS" else -1.0
        cosine, sine = np.cos(np.radians(tilt_degrees)), np.sin(np.radians(tilt_degrees))
        about_x = np.array([[1, 0, 0], [0, cosine, -sine], [0, sine, cosine]])
        affine = np.eye(4)
        affine[:3, :3] = about_x @ cosines @ np.diag(spacing_mm)
        affine[:3, 3] = -affine[:3, :3] @ ((np.asarray(shape) - 1) / 2)
        return Grid(shape, affine)

    return make


@pytest.fixture(scope="session")
def make_phantom() -> Callable[..., Study]:
    """Give a function that makes a study of a head that is the same in the world whatever grids it is sampled on."""

    def make(grids: Mapping[str, Grid] | Grid, dtype: type[np.generic] = np.float32) -> Study:
        if isinstance(grids, Grid):
            grids = {"T1w": grids, "FLAIR": grids}
        return Study({name: Volume(_head(name, grid).astype(dtype), grid.affine) for name, grid in grids.items()})

    return make


def _head(contrast: str, grid: Grid) -> np.ndarray:
    """Sample an ellipsoid of 8 x 10 x 9 mm that brightens to the right and the front, with a lesion, in empty air."""
    points = grid.world(np.stack(np.indices(grid.shape), axis=-1))
    brain = ((points / (8.0, 10.0, 9.0)) ** 2).sum(axis=-1) < 1
    lesion = (((points - (2.0, 3.0, 1.0)) / 2.0) ** 2).sum(axis=-1) < 1
    shade = 100.0 + points @ np.array([3.0, 2.0, 1.0])
    return np.where(brain, shade, 0.0) + np.where(lesion, -40.0 if contrast == "T1w" else 60.0, 0.0)


@pytest.fixture(scope="session")
def reoriented() -> Callable[[Study, str], Study]:
    """Give a function that permutes and flips the axes of every volume; its place in the world stays."""

    def turn(study: Study, codes: str) -> Study:
        volumes = {}
        for name, volume in study.items():
            axes = reorient(volume.grid, codes)
            volumes[name] = Volume(np.ascontiguousarray(axes.apply(volume.data)), axes.grid.affine)
        return Study(volumes)

    return turn
