"""Each part of the C interface against its twin in Python, over drawn inputs."""

from __future__ import annotations

import hashlib
import io
import zipfile
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from tiny_bundle import make_golden, make_graph, make_manifest

from rmr_sdk.blend import schedule_rows
from rmr_sdk.common_grid import choose_grid, same_place
from rmr_sdk.engines.base import GOLDEN_LIMITS
from rmr_sdk.engines.cores import usable_cores
from rmr_sdk.errors import StudyError
from rmr_sdk.foreground import Foreground
from rmr_sdk.geometry import Grid, index_map, reorient
from rmr_sdk.golden import encode_golden
from rmr_sdk.intensity import fit_normalisation
from rmr_sdk.manifest import LesionThreshold, MinMax, Robust, encode_manifest
from rmr_sdk.resample import image_mode
from rmr_sdk.tiles import axis_windows, plan_tiles, tile_starts

EXTENT = st.integers(1, 60)
OVERLAP = st.sampled_from([0.0, 0.1, 0.25, 0.3, 0.5, 0.75, 0.9])
SIGMA = st.sampled_from([0.03, 0.125, 0.3, 1.0])
DTYPES = st.sampled_from([np.uint8, np.int16, np.uint16, np.float32])
MANIFEST = make_manifest()


@st.composite
def grids(draw: st.DrawFn) -> Grid:
    """Draw a grid of any orientation, tilt and spacing that a scanner makes."""
    angles = [np.radians(draw(st.floats(-40, 40))) for _ in range(3)]
    turn = np.eye(3)
    for axis, angle in enumerate(angles):
        a, b = [other for other in range(3) if other != axis]
        step = np.eye(3)
        step[a, a] = step[b, b] = np.cos(angle)
        step[a, b], step[b, a] = -np.sin(angle), np.sin(angle)
        turn = turn @ step
    columns = turn[:, draw(st.permutations(range(3)))]
    signs = [draw(st.sampled_from([-1.0, 1.0])) for _ in range(3)]
    spacing = [draw(st.sampled_from([0.5, 0.8, 0.9375, 1.0, 1.2, 2.0, 3.3, 5.0])) for _ in range(3)]
    affine = np.eye(4)
    affine[:3, :3] = columns * signs * spacing
    affine[:3, 3] = [draw(st.floats(-100, 100)) for _ in range(3)]
    return Grid(tuple(draw(st.integers(1, 50)) for _ in range(3)), affine)


@given(extent=EXTENT, size=EXTENT, overlap=OVERLAP, sigma=SIGMA)
def test_tiles_along_an_axis(parts: ModuleType, extent: int, size: int, overlap: float, sigma: float) -> None:
    starts = tile_starts(extent, size, overlap)
    assert parts.tile_starts(extent, size, overlap) == starts
    windows = parts.axis_windows(starts, size, extent, sigma)
    for window, twin in zip(windows, axis_windows(starts, size, extent, sigma), strict=True):
        assert np.array_equal(np.array(window, np.float32), twin)


@given(
    shape=st.tuples(*[st.integers(1, 40)] * 3),
    tile=st.tuples(*[st.integers(1, 24)] * 3),
    overlap=OVERLAP,
    share=st.sampled_from([0.0, 0.001, 0.01, 0.5]),
    seed=st.integers(0, 2**31),
)
def test_foreground_plan_and_schedule(
    parts: ModuleType, shape: tuple[int, ...], tile: tuple[int, ...], overlap: float, share: float, seed: int
) -> None:
    values = (np.random.default_rng(seed).random(shape) < share).astype(np.float32)
    overlap = 0.0 if max(n - t for n, t in zip(shape, tile, strict=True)) > 8 * min(tile) else overlap  # stay small
    foreground = Foreground([values], [0.5])
    plan = plan_tiles(foreground.low, foreground.high, shape, tile, overlap, foreground.holds, 0.125)
    rows = schedule_rows(plan)
    found = parts.plan(values, 0.5, tile, overlap, 0.125)
    assert (tuple(found["low"]), tuple(found["high"])) == (foreground.low, foreground.high)
    assert found["skipped"] == plan.skipped
    for (origin, low, high, windows), twin in zip(found["tiles"], plan.tiles, strict=True):
        assert (tuple(origin), tuple(low), tuple(high)) == (twin.origin, twin.low, twin.high)
        assert all(np.array_equal(a, b) for a, b in zip(windows, twin.windows, strict=True))
    for name in ("slot", "first", "last"):
        assert np.array_equal(np.reshape(found[name], shape[:2]), getattr(rows, name))
    assert found["slots"] == rows.slots


@given(
    dtype=DTYPES,
    count=st.integers(2, 400),
    levels=st.sampled_from([2, 10, 255]),
    normalisation=st.sampled_from(
        [
            MinMax(),
            Robust(),
            Robust(percentile=95.0),
            Robust(percentile=33.3, floor_fraction=0.5, high=2.0),
            Robust(most_median=0.4),
            Robust(percentile=40.0, most_median=0.7),
        ]
    ),
    seed=st.integers(0, 2**31),
)
def test_intensities(
    parts: ModuleType, dtype: type[np.generic], count: int, levels: int, normalisation: Any, seed: int
) -> None:
    rng = np.random.default_rng(seed)
    values = rng.integers(0, levels, (count, 1, 2)) * (rng.random() if dtype is np.float32 else 1)
    if dtype in (np.float32, np.int16):
        values = values - rng.integers(0, 5)
    values = values.astype(dtype)
    robust = isinstance(normalisation, Robust)
    fields = (99, 0, 1, 1)
    if robust:
        fields = tuple(getattr(normalisation, name) for name in ("percentile", "floor_fraction", "high", "most_median"))
    try:
        twin = fit_normalisation(values, normalisation)
    except StudyError:
        with pytest.raises(RuntimeError, match=r"^StudyError: no two voxels above zero differ"):
            parts.fit(values, robust, *fields)
        return
    line = (twin.scale, twin.offset, twin.low, twin.high, twin.floor, twin.gain, twin.zero)
    assert parts.fit(values, robust, *fields) == line
    assert parts.fit(values[::-1], robust, *fields)[0] == twin.scale


@given(grid=grids(), codes=st.sampled_from(["RAS", "SAR", "LPI", "IRP"]))
def test_grids(parts: ModuleType, grid: Grid, codes: str) -> None:
    found, axes = parts.describe_grid(grid.shape, grid.affine, codes), reorient(grid, codes)
    assert found["orientation"] == grid.orientation
    assert tuple(found["spacing_mm"]) == grid.spacing_mm
    assert found["voxel_ml"] == pytest.approx(grid.voxel_ml)
    assert found["text"] == str(grid)
    assert (tuple(found["order"]), tuple(found["flips"])) == (axes.order, axes.flips)
    shape, affine = found["grid"]
    assert tuple(shape) == axes.grid.shape
    assert np.allclose(affine, axes.grid.affine, rtol=0, atol=1e-10)


@given(grid=grids(), wanted=st.sampled_from([(1.0, 1.0, 1.0), (0.8, 1.2, 3.0)]), tolerance=st.sampled_from([0.0, 0.25]))
def test_common_grids(parts: ModuleType, grid: Grid, wanted: tuple[float, ...], tolerance: float) -> None:
    manifest = make_manifest(spacing_mm=wanted, spacing_tolerance=tolerance)
    found, twin = (
        parts.common_grid(grid.shape, grid.affine, encode_manifest(manifest).decode()),
        choose_grid(grid, manifest),
    )
    if twin is grid:
        assert found is None
        return
    assert tuple(found[0]) == twin.shape
    assert np.allclose(found[1], twin.affine, rtol=0, atol=1e-10)


@given(source=grids(), target=grids())
def test_pairs_of_grids(parts: ModuleType, source: Grid, target: Grid) -> None:
    found = parts.relate(source.shape, source.affine, target.shape, target.affine)
    assert found["coverage"] == pytest.approx(source.coverage_of(target), abs=1e-3)
    assert found["same_place"] == same_place(source, target)
    assert found["area"] == (image_mode(source, target) == "area")
    assert np.allclose(found["index_map"], index_map(source, target), rtol=1e-9, atol=1e-9)
    assert parts.relate(source.shape, source.affine, source.shape, source.affine)["same_place"]


@given(data=st.binary(max_size=300))
def test_sha256(parts: ModuleType, data: bytes) -> None:
    assert parts.sha256(data) == hashlib.sha256(data).hexdigest()


def test_sha256_at_every_length_of_a_block(parts: ModuleType) -> None:
    for length in range(200):
        assert parts.sha256(b"a" * length) == hashlib.sha256(b"a" * length).hexdigest()


@given(
    files=st.dictionaries(st.text("abc/.", min_size=1, max_size=8), st.binary(max_size=2000), max_size=4),
    method=st.sampled_from([zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED]),
    comment=st.binary(max_size=50),
)
def test_zip_files(parts: ModuleType, files: dict[str, bytes], method: int, comment: bytes) -> None:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", method) as archive:
        archive.comment = comment.replace(b"P", b"p")
        for name, content in files.items():
            with archive.open(name, "w", force_zip64=True) as entry:  # as numpy.savez writes
                entry.write(content)
    assert parts.unzip(buffer.getvalue()) == files


@given(noise=st.binary(max_size=400), cut=st.integers(0, 300))
def test_damaged_zip_files_are_refused_or_read_never_more(parts: ModuleType, noise: bytes, cut: int) -> None:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("entry", b"content " * 40)
    whole = buffer.getvalue()
    for damaged in (noise, whole[:cut], whole[: cut % len(whole)] + noise + whole[(cut + len(noise)) % len(whole) :]):
        try:
            found = parts.unzip(damaged)
        except (RuntimeError, UnicodeDecodeError):
            continue
        assert all(content == b"content " * 40 for content in found.values())


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"normalisation": MinMax()},
        {"normalisation": Robust(percentile=97.3, floor_fraction=0.1, high=2.5, most_median=0.65)},
        {"classes": None, "lesion_class": None},
        {"lesion_class": None, "orientation": "LPI", "spacing_mm": (0.1, 0.7, 99.9), "spacing_tolerance": 0.123456789},
        {"reference": "T1w", "name": "a.b-c_1", "version": "10.2.3-rc.1"},
        {"precisions": ("fp32", "fp16", "int8")},
        {"least_lesion_probability": 0.7},
        {"least_white_matter": 0.2},
        {"least_lesion_mm3": 12.5},
        {"lesion_threshold": LesionThreshold(small_ml=2.5, small=0.9, large_ml=20, large=0.45)},
        {"lesion_threshold": LesionThreshold(small_ml=2.5, small=0.9, large_ml=20, large=0.45, least_piece=0.25)},
    ],
    ids=str,
)
def test_manifests(parts: ModuleType, changes: dict[str, Any]) -> None:
    manifest = make_manifest(**{"precisions": ("fp32",), **changes})
    found = parts.decode_manifest(encode_manifest(manifest).decode())
    for name in ("name", "version", "reference", "orientation", "spacing_tolerance"):
        assert found[name] == getattr(manifest, name)
    for name in ("contrasts", "spacing_mm", "tile_shape"):
        assert tuple(found[name]) == getattr(manifest, name)
    assert tuple(found["classes"]) == (manifest.classes or ())
    lesion = manifest.lesion_class
    assert found["lesion_class"] == (-1 if lesion is None else manifest.classes.index(lesion))
    assert found["least_lesion_probability"] == manifest.least_lesion_probability
    assert found["least_white_matter"] == manifest.least_white_matter
    assert found["least_lesion_mm3"] == manifest.least_lesion_mm3
    if manifest.least_white_matter:
        assert found["white_matter"] == manifest.classes.index("white_matter")
    by_load = manifest.lesion_threshold
    for found_ml, threshold in zip((0.0, 2.5, 2.7, 7.1, 19.9, 20.0, 99.0), found["thresholds"], strict=True):
        assert threshold == (0.0 if by_load is None else by_load.at(found_ml))
    assert found["least_piece"] == (0.0 if by_load is None else by_load.least_piece)
    assert found["sigma_scale"] == manifest.window.sigma_scale
    assert tuple(found["precisions"]) == manifest.onnx_precisions
    assert found["golden"] == (manifest.golden.path, manifest.golden.sha256, manifest.golden.size)
    assert found["robust"] == isinstance(manifest.normalisation, Robust)
    if isinstance(manifest.normalisation, Robust):
        for name in ("percentile", "floor_fraction", "high", "most_median"):
            assert found[name] == getattr(manifest.normalisation, name)


def test_golden_tiles(parts: ModuleType) -> None:
    golden = make_golden(make_graph().SerializeToString())
    npz, manifest = encode_golden(golden), encode_manifest(MANIFEST).decode()
    found = parts.decode_golden(npz, manifest)
    for name, values in zip(("t1w", "flair"), found["inputs"], strict=True):
        assert np.array_equal(values, golden.network_inputs()[name].ravel())
    assert np.array_equal(found["voxels"], golden.voxels)
    assert np.array_equal(found["fused"], golden.outputs["fused"].ravel())
    assert np.array_equal(found["probability"], golden.outputs["probability"].ravel())

    rng = np.random.default_rng(3)
    outputs = {
        name: rng.normal(size=(1, channels, *MANIFEST.tile_shape)).astype(np.float32)
        for name, channels in MANIFEST.output_channels.items()
    }
    apart = golden.deviation(outputs)
    expected = pytest.approx((apart.maximum, apart.rms))
    assert parts.golden_deviation(npz, manifest, outputs["fused"], outputs["probability"]) == expected
    outputs["fused"].flat[golden.voxels[7]] = np.nan
    assert parts.golden_deviation(npz, manifest, outputs["fused"], outputs["probability"]) == (np.inf, np.inf)


@pytest.mark.parametrize("precision", GOLDEN_LIMITS)
def test_golden_limits(parts: ModuleType, precision: str) -> None:
    limit = GOLDEN_LIMITS[precision]
    assert parts.golden_limit(precision) == (limit.maximum, limit.rms)


def test_cores(parts: ModuleType) -> None:
    assert parts.usable_cores() == usable_cores()


def test_the_cache_takes_nothing_that_is_damaged(parts: ModuleType, tmp_path: Path) -> None:
    folder = str(tmp_path / "new")
    assert parts.cache_load(folder, "key") is None
    assert parts.cache_store(folder, "key", b"network \0") == ""
    assert parts.cache_load(folder, "key") == b"network \0"
    (entry,) = (tmp_path / "new" / "openvino-c").iterdir()
    for damaged in (b"", entry.read_bytes()[:-1], entry.read_bytes() + b"x"):
        entry.write_bytes(damaged)
        assert parts.cache_load(folder, "key") is None
    assert parts.cache_store("", "key", b"network") == ""
    assert parts.cache_load("", "key") is None
