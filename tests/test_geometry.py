"""Grids, orientations and index maps against hand-made tables, nibabel and SimpleITK."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from rmr_sdk.geometry import Grid, index_map, reorient

CODES = ["".join(codes) for order in itertools.permutations(("LR", "PA", "IS")) for codes in itertools.product(*order)]
LPS_RAS = np.diag([-1.0, -1.0, 1.0])


def rotation(angles: tuple[float, float, float]) -> np.ndarray:
    matrix = np.eye(3)
    for axis, angle in enumerate(angles):
        i, j = (axis + 1) % 3, (axis + 2) % 3
        turn = np.eye(3)
        turn[[i, j], [i, j]] = np.cos(angle)
        turn[i, j], turn[j, i] = -np.sin(angle), np.sin(angle)
        matrix = turn @ matrix
    return matrix


@st.composite
def grids(draw: st.DrawFn, tilt: float = 0.5, codes: str | None = None) -> Grid:
    """Draw grids as scanners make them: any axes, left- or right-handed, tilted by up to `tilt` rad about each axis."""
    codes = codes or draw(st.sampled_from(CODES))
    base = np.zeros((3, 3))
    for axis, code in enumerate(codes):
        base["RAS".find(code) if code in "RAS" else "LPI".find(code), axis] = 1 if code in "RAS" else -1
    angle = st.floats(-tilt, tilt).map(lambda value: round(value, 9))  # ITK's SVD chokes on subnormal cosines
    spacing = draw(st.tuples(*[st.floats(0.3, 6.0)] * 3))
    affine = np.eye(4)
    affine[:3, :3] = rotation(draw(st.tuples(angle, angle, angle))) @ base @ np.diag(spacing)
    affine[:3, 3] = draw(st.tuples(*[st.floats(-300, 300)] * 3))
    return Grid(draw(st.tuples(*[st.integers(1, 9)] * 3)), affine)


def to_sitk(sitk, grid: Grid, array: np.ndarray | None = None):
    """Make the SimpleITK image of an array: LPS, and axes in reverse."""
    image = sitk.GetImageFromArray((np.zeros(grid.shape, np.float32) if array is None else array).transpose(2, 1, 0))
    image.SetSpacing(grid.spacing_mm)
    image.SetOrigin((LPS_RAS @ grid.affine[:3, 3]).tolist())
    image.SetDirection((LPS_RAS @ grid.affine[:3, :3] / grid.spacing_mm).ravel().tolist())
    return image


@pytest.mark.parametrize(
    ("columns", "spacing_mm", "orientation", "voxel_ml"),
    [
        ([[1, 0, 0], [0, 1, 0], [0, 0, 1]], (1, 1, 1), "RAS", 0.001),
        ([[-1, 0, 0], [0, 1, 0], [0, 0, 1]], (1, 1, 1), "LAS", 0.001),
        ([[0, 0, 2], [-1, 0, 0], [0, -3, 0]], (1, 3, 2), "PIR", 0.006),
        ([[0, 0.7, 0], [0, 0, -0.7], [4, 0, 0]], (4, 0.7, 0.7), "SRP", 0.00196),
        ([[0.8, -0.6, 0], [0.6, 0.8, 0], [0, 0, 2.5]], (1, 1, 2.5), "RAS", 0.0025),
        ([[1, 0, 0], [0, 0.866, -0.5], [0, 0.5, 0.866]], (1, 1, 1), "RAS", 0.001),
    ],
    ids=["right-handed", "left-handed", "permuted", "sagittal", "oblique in plane", "tilted 30 degrees"],
)
def test_grid_says_spacing_orientation_and_volume(columns, spacing_mm, orientation, voxel_ml) -> None:
    affine = np.eye(4)
    affine[:3, :3] = columns
    grid = Grid((4, 5, 6), affine)
    assert grid.spacing_mm == pytest.approx(spacing_mm, abs=1e-4)
    assert grid.orientation == orientation
    assert grid.voxel_ml == pytest.approx(voxel_ml, rel=1e-4)


def test_world_and_index_of_a_hand_made_grid() -> None:
    grid = Grid((10, 20, 30), [[-2, 0, 0, 90], [0, 0, 3, -126], [0, 1, 0, -72], [0, 0, 0, 1]])
    assert grid.world((0, 0, 0)).tolist() == [90, -126, -72]
    assert grid.world([(1, 0, 0), (0, 1, 0), (0, 0, 0.5)]).tolist() == [
        [88, -126, -72],
        [90, -126, -71],
        [90, -124.5, -72],
    ]
    assert grid.index((88, -123, -71)).tolist() == [1, 1, 1]


def test_grid_keeps_its_own_read_only_affine() -> None:
    affine = np.eye(4)
    grid = Grid((2, 2, 2), affine)
    affine[0, 0] = 5
    assert grid.affine[0, 0] == 1
    with pytest.raises(ValueError, match="read-only"):
        grid.affine[0, 0] = 2


def test_repr_names_no_position() -> None:
    assert repr(Grid((2, 3, 4), np.diag([1, 1, 2.5, 1]))) == "Grid(2 x 3 x 4 voxels, 1 x 1 x 2.5 mm, RAS)"


@given(grids())
def test_orientation_is_that_of_nibabel(grid: Grid) -> None:
    import nibabel

    cosines = np.abs(grid.affine[:3, :3] / grid.spacing_mm)
    if np.sort(cosines, axis=0)[2].min() > 0.75:  # nearer to a tie the two may pick differently
        assert grid.orientation == "".join(nibabel.aff2axcodes(grid.affine))


@given(grids(), st.sampled_from(CODES))
def test_reorient_moves_no_voxel_in_the_world(grid: Grid, codes: str) -> None:
    axes = reorient(grid, codes)
    array = np.arange(np.prod(grid.shape)).reshape(grid.shape)
    turned = axes.apply(array)
    assert np.shares_memory(turned, array)
    assert turned.shape == axes.grid.shape
    assert axes.grid.orientation == codes

    sources = np.stack(np.unravel_index(turned.ravel(), grid.shape), axis=-1)
    targets = np.stack(np.unravel_index(np.arange(turned.size), turned.shape), axis=-1)
    np.testing.assert_allclose(axes.grid.world(targets), grid.world(sources), atol=1e-9)


@given(grids(), st.sampled_from(CODES))
def test_reorient_is_undone_exactly(grid: Grid, codes: str) -> None:
    axes = reorient(grid, codes)
    array = np.arange(np.prod(grid.shape)).reshape(grid.shape)
    back = axes.invert(axes.apply(array))
    assert np.array_equal(back, array)
    assert back.strides == array.strides
    assert reorient(axes.grid, grid.orientation).grid.matches(grid, 1e-9)


def test_reorient_by_hand() -> None:
    axes = reorient(Grid((2, 3, 4), np.diag([-1.0, 1, 1, 1])), "SAR")
    assert axes.order == (2, 1, 0)
    assert axes.flips == (False, False, True)
    assert axes.grid.affine.tolist() == [[0, 0, 1, -1], [0, 1, 0, 0], [1, 0, 0, 0], [0, 0, 0, 1]]


@given(grids(), grids(), st.tuples(*[st.floats(-2, 12)] * 3))
def test_index_map_is_that_of_simpleitk(sitk, source: Grid, target: Grid, index: tuple[float, float, float]) -> None:
    point = to_sitk(sitk, target).TransformContinuousIndexToPhysicalPoint(index)
    expected = to_sitk(sitk, source).TransformPhysicalPointToContinuousIndex(point)
    mapped = index_map(source, target) @ (*index, 1.0)
    np.testing.assert_allclose(mapped, expected, atol=1e-6)
    np.testing.assert_allclose(target.world(index), LPS_RAS @ point, atol=1e-9)
    np.testing.assert_allclose(source.index(target.world(index)), expected, atol=1e-6)


@given(grids(), st.tuples(*[st.floats(0.5, 4.0)] * 3))
def test_respaced_keeps_centre_directions_and_field_of_view(grid: Grid, spacing_mm: tuple[float, float, float]) -> None:
    respaced = grid.respaced(spacing_mm)
    middle = (np.asarray(grid.shape) - 1) / 2
    np.testing.assert_allclose(
        respaced.world((np.asarray(respaced.shape) - 1) / 2), grid.world(middle), rtol=1e-12, atol=1e-9
    )
    assert respaced.spacing_mm == pytest.approx(spacing_mm)
    assert respaced.orientation == grid.orientation
    extent, needed = np.multiply(respaced.shape, spacing_mm), np.multiply(grid.shape, grid.spacing_mm)
    assert (extent >= needed - 1e-3 * np.asarray(spacing_mm) - 1e-9).all()
    assert (extent < needed + spacing_mm).all()


@given(grids())
def test_respaced_to_its_own_spacing_is_the_same_grid(grid: Grid) -> None:
    assert grid.respaced(grid.spacing_mm).matches(grid, 1e-9)


@pytest.mark.parametrize(
    ("shift", "coverage"),
    [(0, 1.0), (5, 0.5), (-5, 0.5), (9.9, 0.0), (10, 0.0), (400, 0.0)],
)
def test_coverage_of_a_shifted_grid(shift: float, coverage: float) -> None:
    grid, moved = Grid((10, 10, 10), np.eye(4)), np.eye(4)
    moved[1, 3] = shift
    assert grid.coverage_of(Grid((10, 10, 10), moved)) == coverage


def test_coverage_by_a_larger_grid_is_full() -> None:
    small, large = Grid((100, 9, 9), np.eye(4)), Grid((120, 40, 40), np.eye(4))
    assert large.coverage_of(small) == 1.0
    assert small.coverage_of(large) < 0.1


@pytest.mark.parametrize(("apart", "same"), [(0.0, True), (0.0009, True), (0.0011, False)])
def test_matches_within_a_tolerance(apart: float, same: bool) -> None:
    moved = np.eye(4)
    moved[2, 3] = apart
    assert Grid((5, 5, 5), np.eye(4)).matches(Grid((5, 5, 5), moved)) is same


def test_matches_looks_at_the_far_corner() -> None:
    turned = np.eye(4)
    turned[:3, :3] = rotation((0.0, 0.0, 1e-4))
    assert Grid((5, 5, 5), np.eye(4)).matches(Grid((5, 5, 5), turned))
    assert not Grid((200, 5, 5), np.eye(4)).matches(Grid((200, 5, 5), turned))
    assert not Grid((5, 5, 5), np.eye(4)).matches(Grid((5, 5, 6), np.eye(4)))
