"""Where lesions are: by hand on the template, on the demo study whose lesions were drawn, on real anatomies."""

from __future__ import annotations

import dataclasses
import itertools
from pathlib import Path

import numpy as np
import pytest

from rmr_sdk.atlas import BRAIN, INFRATENTORIAL, LEAST_SIMILARITY, VENTRICLE, Placement, load_atlas
from rmr_sdk.atlas.fit import fit_atlas
from rmr_sdk.demo import demo_study_folder
from rmr_sdk.geometry import Grid, reorient
from rmr_sdk.io.nifti import read_volume
from rmr_sdk.location import LOCATIONS, Place, TissueLabels, locate_lesions
from rmr_sdk.location import _offsets as offsets_within
from rmr_sdk.measure import find_lesions, measure_diameter, place_atlas
from rmr_sdk.postprocess import ComponentVoxels, bounding_box, components
from rmr_sdk.resample import resample
from rmr_sdk.volume import Volume

TISSUE = TissueLabels(csf=1, grey_matter=2, white_matter=3, lesion=4)
WHITE, GREY = (3, 4), (2,)


def template_labels(spacing_mm: float = 2.0) -> tuple[np.ndarray, Grid]:
    """Label the template that the atlas is made from: white and grey matter where it is mostly that, fluid between."""
    atlas = load_atlas()
    grid = atlas.tissue_grid.respaced([spacing_mm] * 3)
    white, grey = (resample(tissue, atlas.tissue_grid, grid, "linear") for tissue in atlas.tissue)
    inside = Placement(np.eye(4), 1.0).zones(grid) & BRAIN > 0
    labels = np.where(inside, 1, 0)
    labels[grey > 0.35] = 2
    labels[(white > 0.5) & (white > grey)] = 3
    return labels.astype(np.uint8), grid


def turned(grid: Grid, degrees: tuple[float, float, float], shift_mm: tuple[float, float, float]) -> Grid:
    """Return a grid whose content is a head that was turned about the three axes, then moved."""
    world = np.eye(4)
    for axis, angle in enumerate(np.radians(degrees)):
        first, second = (other for other in range(3) if other != axis)
        step = np.eye(4)
        step[[first, second], [first, second]] = np.cos(angle)
        step[first, second], step[second, first] = -np.sin(angle), np.sin(angle)
        world = step @ world
    world[:3, 3] = shift_mm
    return Grid(grid.shape, world @ grid.affine)


def voxels_of(labels: np.ndarray) -> ComponentVoxels:
    ids = np.empty(labels.shape, np.int32)
    components(np.ascontiguousarray(labels == 4), ids=ids)
    return ComponentVoxels.of(ids)


def with_lesion(labels: np.ndarray, grid: Grid, centre_mm: tuple[float, float, float], radius_mm: float) -> np.ndarray:
    """Return labels with a ball of lesion where there was brain."""
    points = grid.world(np.moveaxis(np.indices(grid.shape), 0, -1))
    ball = np.linalg.norm(points - centre_mm, axis=-1) <= radius_mm
    changed = labels.copy()
    changed[ball & (labels > 1)] = 4
    return changed


@pytest.fixture(scope="module")
def template() -> tuple[np.ndarray, Grid, Placement]:
    """Give the labelled template and the atlas on it."""
    labels, grid = template_labels()
    placement = fit_atlas(labels, grid, WHITE, GREY)
    assert placement is not None
    return labels, grid, placement


def test_the_atlas_finds_itself(template: tuple[np.ndarray, Grid, Placement]) -> None:
    _, grid, placement = template
    assert placement.fits
    assert placement.similarity > 0.95
    corners = np.array(list(itertools.product((-60, 60), (-90, 60), (-50, 70))), float)
    assert np.abs(corners @ placement.affine[:3, :3].T + placement.affine[:3, 3] - corners).max() < 2.0
    assert placement.coverage(grid) == pytest.approx(1.0, abs=0.01)


@pytest.mark.parametrize(
    ("degrees", "shift_mm"),
    [((25, 0, 0), (0, 0, 0)), ((-25, 10, -15), (40, -60, 80)), ((0, 20, 20), (-30, 10, 5))],
)
def test_a_tilted_head_has_the_same_zones(
    template: tuple[np.ndarray, Grid, Placement],
    degrees: tuple[float, float, float],
    shift_mm: tuple[float, float, float],
) -> None:
    labels, grid, placement = template
    moved = turned(grid, degrees, shift_mm)
    found = fit_atlas(labels, moved, WHITE, GREY)
    assert found is not None
    assert found.fits
    upright, tilted = placement.zones(grid), found.zones(moved)
    for bit in (VENTRICLE, INFRATENTORIAL):
        first, second = ((zones & bit > 0) & (labels > 0) for zones in (upright, tilted))
        assert 2 * (first & second).sum() / (first.sum() + second.sum()) > 0.95


@pytest.mark.parametrize(("low", "high"), [(0.0, 0.65), (0.25, 1.0)])
def test_a_head_that_is_cut_off_is_found_all_the_same(
    template: tuple[np.ndarray, Grid, Placement], low: float, high: float
) -> None:
    labels, grid, placement = template
    first, last = (round(share * grid.shape[2]) for share in (low, high))
    affine = grid.affine.copy()
    affine[:3, 3] = grid.world((0, 0, first))
    part = np.ascontiguousarray(labels[:, :, first:last])
    cut = Grid(part.shape, affine)
    found = fit_atlas(part, cut, WHITE, GREY)
    assert found is not None
    assert found.fits
    assert found.coverage(cut) < 0.95
    expected, zones = placement.zones(cut) & INFRATENTORIAL, found.zones(cut) & INFRATENTORIAL
    assert np.mean(expected[part > 1] != zones[part > 1]) < 0.03


def test_what_is_no_head_does_not_fit() -> None:
    grid = Grid((80, 95, 75), np.diag([2.0, 2.0, 2.0, 1.0]))
    points = np.stack(np.meshgrid(*(np.linspace(-1, 1, length) for length in grid.shape), indexing="ij"), axis=-1)
    radius = np.linalg.norm(points, axis=-1)
    egg = np.select([radius < 0.7, radius < 0.9, radius < 1.0], [3, 2, 1], 0).astype(np.uint8)
    noise = np.random.default_rng(0).integers(0, 5, grid.shape).astype(np.uint8)
    for labels in (egg, noise):
        found = fit_atlas(labels, grid, WHITE, GREY)
        assert found is not None
        assert not found.fits
        assert found.similarity < LEAST_SIMILARITY
    assert fit_atlas(np.zeros(grid.shape, np.uint8), grid, WHITE, GREY) is None
    slices = Grid((200, 200, 2), np.diag([1.0, 1.0, 20.0, 1.0]))
    assert fit_atlas(np.full(slices.shape, 3, np.uint8), slices, WHITE, GREY) is None


def test_only_this_much_of_a_head_upside_down(template: tuple[np.ndarray, Grid, Placement]) -> None:
    labels, grid, _ = template
    found = fit_atlas(labels, turned(grid, (180, 0, 0), (0, 0, 0)), WHITE, GREY)
    assert found is not None
    assert not found.fits


@pytest.mark.parametrize(
    ("centre_mm", "radius_mm", "place"),
    [
        ((24, -40, 26), 6, Place("periventricular", reaches_cortex=False)),
        ((0, 20, 16), 4, Place("periventricular", reaches_cortex=False)),  # corpus callosum
        ((30, -20, 36), 3, Place("deep white matter", reaches_cortex=False)),
        ((0, -28, -28), 5, Place("infratentorial", reaches_cortex=False)),  # pons
        ((24, -56, -34), 5, Place("infratentorial", reaches_cortex=False)),  # cerebellum
        ((40, 34, 20), 5, Place("juxtacortical", reaches_cortex=True)),
        ((26, 4, 2), 4, Place("deep white matter", reaches_cortex=False)),  # putamen: deep grey matter is no cortex
    ],
)
def test_lesions_drawn_on_the_template(
    template: tuple[np.ndarray, Grid, Placement],
    centre_mm: tuple[float, float, float],
    radius_mm: float,
    place: Place,
) -> None:
    labels, grid, placement = template
    for side in (1, -1):
        spoiled = with_lesion(labels, grid, (side * centre_mm[0], *centre_mm[1:]), radius_mm)
        assert locate_lesions(spoiled, grid, voxels_of(spoiled), TISSUE, placement) == (place,)


def test_what_lies_outside_the_brain_is_called_that(template: tuple[np.ndarray, Grid, Placement]) -> None:
    labels, grid, placement = template
    spoiled = labels.copy()
    corner = tuple(np.round(grid.index((70, 60, 50))).astype(int))
    spoiled[corner] = 4
    (place,) = locate_lesions(spoiled, grid, voxels_of(spoiled), TISSUE, placement)
    assert place == Place("outside the brain", reaches_cortex=False)


@pytest.mark.parametrize("codes", ["RAS", "LPI", "SAR", "PSL"])
def test_the_demo_lesions_are_where_they_were_drawn(codes: str) -> None:
    """examples/make_demo_study.py drew them: seven beside the ventricles, four deep, two at the cortex, one below.

    One of the two drawn at the cortex does not reach it in the labels of the template, whose cortex is a blur.
    """
    mask, _ = read_volume(next(demo_study_folder().glob("*mask*")))
    atlas = load_atlas()
    white, grey = (resample(tissue, atlas.tissue_grid, mask.grid, "linear") for tissue in atlas.tissue)
    labels = np.where(Placement(np.eye(4), 1.0).zones(mask.grid) & BRAIN > 0, 1, 0)
    labels[grey > 0.35] = 2
    labels[(white > 0.5) & (white > grey)] = 3
    labels[mask.data > 0] = 4
    axes = reorient(mask.grid, codes)
    stored = np.ascontiguousarray(axes.apply(labels.astype(np.uint8)))
    placement = fit_atlas(stored, axes.grid, WHITE, GREY)
    assert placement is not None
    places = locate_lesions(stored, axes.grid, voxels_of(stored), TISSUE, placement)
    counts = [sum(place.location == location for place in places) for location in LOCATIONS]
    assert counts[0] == 7
    assert counts[2] == 1
    assert counts[1] + counts[3] == 6
    assert counts[4] == 0


@pytest.mark.parametrize("name", ["patient03", "patient04", "patient06"])
def test_real_anatomies(data_dir: Path, name: str) -> None:
    """Small, huge and usual ventricles: the atlas fits, and the zones hold as much as they do in people."""
    volume, _ = read_volume(data_dir / "labelmaps" / f"{name}.nii.gz")
    labels = np.ascontiguousarray(volume.data)
    placement = fit_atlas(labels, volume.grid, WHITE, GREY)
    assert placement is not None
    assert placement.similarity > 0.75
    zones = placement.zones(volume.grid)
    ventricles_ml = np.count_nonzero((zones & VENTRICLE > 0) & (labels == 1)) * volume.grid.voxel_ml
    brain = (labels > 1).sum()
    assert 8 < ventricles_ml < 100
    assert 0.08 < np.count_nonzero((zones & INFRATENTORIAL > 0) & (labels > 1)) / brain < 0.16
    assert np.count_nonzero((zones & BRAIN == 0) & (labels > 1)) / brain < 0.01


def test_locations_are_those_of_the_pipeline(make_manifest) -> None:
    labels, grid = template_labels()
    spoiled = with_lesion(labels, grid, (24, -40, 26), 6)
    volume = Volume(spoiled, grid.affine)
    probability = Volume(np.float32(0.5) * (spoiled == 4), grid.affine)
    manifest = make_manifest()
    (lesion,) = find_lesions(volume, probability, manifest, place_atlas(volume, manifest))
    assert lesion.location == "periventricular"
    assert lesion.mean_probability == 0.5
    assert lesion.diameter_mm == pytest.approx(12, abs=2.5)
    (nowhere,) = find_lesions(volume, probability, manifest)
    assert nowhere == dataclasses.replace(lesion, location=None, reaches_cortex=False)
    others = make_manifest(classes=("background", "brain", "lesion"))
    assert place_atlas(volume, others) is None


@pytest.mark.parametrize(
    ("spacing_mm", "reach_mm", "count"),
    [
        ((1.0, 1.0, 1.0), 0.0, 27),  # itself and its neighbours
        ((1.0, 1.0, 1.0), 1.0, 27 + 6 * 9),  # one voxel between, straight ahead
        ((1.0, 1.0, 3.0), 1.0, 27 + 4 * 9),  # but not across a thick slice
    ],
)
def test_distances_are_between_boxes(spacing_mm: tuple[float, float, float], reach_mm: float, count: int) -> None:
    offsets = offsets_within(spacing_mm, reach_mm)
    assert len(offsets) == len(set(offsets)) == count
    assert offsets[0] == (0, 0, 0)


@pytest.mark.parametrize(
    ("index", "spacing_mm", "diameter_mm"),
    [
        ([(0, 0, 0)], (1.0, 1.0, 1.0), 1.0),
        ([(0, 0, 0)], (0.7, 0.7, 3.0), 3.0),
        ([(0, 0, k) for k in range(5)], (1.0, 1.0, 2.0), 10.0),
        ([(i, 0, 0) for i in range(4)], (0.5, 1.0, 3.0), 2.0),
        ([(0, 0, 0), (3, 4, 0)], (1.0, 1.0, 1.0), 6.0),
    ],
)
def test_diameters(
    index: list[tuple[int, int, int]], spacing_mm: tuple[float, float, float], diameter_mm: float
) -> None:
    grid = Grid((10, 10, 10), np.diag([*spacing_mm, 1.0]))
    assert measure_diameter(np.array(index), grid) == pytest.approx(diameter_mm)


def test_the_diameter_of_a_tilted_ellipsoid() -> None:
    points = np.moveaxis(np.indices((60, 60, 60)), 0, -1) - 29.5
    axis = np.array([1.0, 2.0, 2.0]) / 3
    along = points @ axis
    across = np.linalg.norm(points - along[..., None] * axis, axis=-1)
    index = np.argwhere((along / 24) ** 2 + (across / 6) ** 2 <= 1)
    assert measure_diameter(index, Grid((60, 60, 60), np.eye(4))) == pytest.approx(48, rel=0.02)


def test_voxels_of_components() -> None:
    ids = np.zeros((3, 4, 5), np.int32)
    ids[0, 0, :3], ids[2, 3, 4], ids[0, 2, 1:3] = 1, 3, 2
    voxels = ComponentVoxels.of(ids, origin=(10, 20, 30))
    assert len(voxels) == 3
    assert [part.tolist() for part in voxels] == [
        [[10, 20, 30], [10, 20, 31], [10, 20, 32]],
        [[10, 22, 31], [10, 22, 32]],
        [[12, 23, 34]],
    ]
    flags = np.array([True, False, True, False, False, True])
    assert voxels.any(flags).tolist() == [True, False, True]
    assert voxels.share(flags).tolist() == [pytest.approx(2 / 3), 0, 1]


def test_bounding_boxes() -> None:
    mask = np.zeros((4, 5, 6), bool)
    assert bounding_box(mask) is None
    mask[1, 2, 3] = mask[2, 2, 5] = True
    assert bounding_box(mask) == (slice(1, 3), slice(2, 3), slice(3, 6))
