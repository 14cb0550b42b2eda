"""From a study to one grid and back: views where nothing is resampled, SimpleITK's values where something is."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from test_geometry import CODES, grids, to_sitk

from rmr_sdk.geometry import Grid, reorient
from rmr_sdk.intensity import MOST_STRETCH
from rmr_sdk.manifest import MinMax, Robust
from rmr_sdk.preprocess import IntensityMap, fit_normalisation, prepare, restore_image, restore_labels
from rmr_sdk.resample import image_mode, resample
from rmr_sdk.study import Study
from rmr_sdk.volume import Volume


def test_minmax_by_hand() -> None:
    fitted = fit_normalisation(np.array([-5.0, 0.0, 2.0, 4.0], np.float32), MinMax())
    assert fitted == IntensityMap(scale=0.25, offset=0.0, low=0.0, high=1.0, floor=0.0)
    assert fitted.apply([-5, 0, 2, 4]).tolist() == [0, 0, 0.5, 1]


def test_minmax_subtracts_a_positive_minimum() -> None:
    fitted = fit_normalisation(np.array([2, 4, 10], np.uint16), MinMax())
    assert fitted.apply([2, 4, 10]).tolist() == [0, 0.25, 1]
    assert fitted.floor == 2


def test_robust_by_hand() -> None:
    array = np.concatenate([[-50.0] * 20, [1.0] * 20, np.arange(101) + 100.0])
    top = np.percentile(array[array > 0], 99)
    fitted = fit_normalisation(array, Robust(percentile=50.0, floor_fraction=0.1, high=1.2))
    assert fitted.floor == pytest.approx(0.1 * top)
    assert fitted.scale == pytest.approx(1 / 150)  # the median of 100 to 200: 1 is below the floor
    assert fitted.apply([-50, 0, 150, 300]) == pytest.approx([0, 0, 1, 1.2])


def test_a_flat_contrast_is_stretched_to_its_median_by_hand() -> None:
    array = np.concatenate([[0.0] * 50, np.arange(101) + 100.0])  # 100 to 200: the median is 150
    plain = fit_normalisation(array, Robust(percentile=100.0))
    assert (
        plain
        == fit_normalisation(array, Robust(percentile=100.0, most_median=0.75))
        == IntensityMap(scale=1 / 200, high=1.5, floor=plain.floor)
    )
    fitted = fit_normalisation(array, Robust(percentile=100.0, most_median=0.5))
    assert fitted.apply([0, 100, 150, 200, 250, 300]) == pytest.approx([0, 0, 0.5, 1, 1.5, 1.5])
    assert fitted.floor == plain.floor
    assert fitted.invert([0, 0.5, 1]) == pytest.approx([0, 100, 200])  # outputs are stretched too, air stays 0
    assert (fitted.gain, fitted.zero) == pytest.approx((200, 0))
    assert fitted.recover([-10, 0, 100, 200, 400]) == pytest.approx([0, 0, 0.5, 1, 1.5])


def test_a_contrast_is_stretched_by_no_more_than_a_factor() -> None:
    array = np.concatenate([np.full(60, 99.0), np.full(40, 100.0)])  # what differs may be noise
    fitted = fit_normalisation(array, Robust(percentile=100.0, most_median=0.5))
    assert fitted.scale == pytest.approx(MOST_STRETCH / 100)
    assert fitted.apply([99, 100]) == pytest.approx([1 - MOST_STRETCH / 100, 1])
    even = fit_normalisation(np.full(9, 7.0), Robust(most_median=0.5))
    assert even.apply([7.0]) == pytest.approx([1])


@given(st.floats(0.05, 0.95), st.lists(st.floats(1, 100, width=32), min_size=3, max_size=30))
def test_stretching_leaves_the_top_and_never_brightens(most_median: float, values: list[float]) -> None:
    array = np.array(values, np.float32)
    plain, fitted = fit_normalisation(array, Robust()), fit_normalisation(array, Robust(most_median=most_median))
    before, after = plain.apply(array), fitted.apply(array)
    below = before <= 1
    assert (after[below] <= before[below] + 1e-5).all()
    assert fitted.apply([1 / plain.scale]) == pytest.approx([1], abs=1e-4)
    assert fitted.scale <= MOST_STRETCH * plain.scale * (1 + 1e-9)
    if fitted.scale < MOST_STRETCH * plain.scale * (1 - 1e-9):
        middle = np.median(array[array > plain.floor])
        assert fitted.apply([middle]) <= most_median + 1e-4


@pytest.mark.parametrize("dtype", ["int16", "uint16", "float32"])
def test_robust_is_the_same_for_every_dtype_and_memory_order(dtype) -> None:
    array = np.random.default_rng(1).integers(0, 3000, (9, 10, 11)).astype(dtype)
    for normalisation in (Robust(), Robust(most_median=0.3)):
        fitted = fit_normalisation(array, normalisation)
        for view in (array.T, array[::-1, :, ::-1], np.asfortranarray(array), array.astype(np.float32)):
            assert fit_normalisation(view, normalisation) == fitted
    assert fitted.stretch > 0


@given(st.floats(0.001, 1000), st.floats(-500, 500), st.lists(st.floats(0, 1.5, width=32), min_size=1))
def test_invert_undoes_apply(scale: float, offset: float, values: list[float]) -> None:
    fitted = IntensityMap(scale=scale, offset=offset, high=1.5)
    inverted = fitted.invert(values)
    np.testing.assert_allclose(fitted.apply(inverted), values, atol=1e-4 * max(1, scale * abs(offset)))
    np.testing.assert_allclose(fitted.recover(inverted), values, atol=1e-4 * max(1, scale * abs(offset)))


def test_a_flat_contrast_is_said_to_be_stretched(make_grid, make_phantom, make_manifest) -> None:
    study = make_phantom(make_grid(codes="LAS"), np.float32)
    flair = study["FLAIR"]
    flat = Study({**study, "FLAIR": Volume(flair.data.clip(0) ** 0.4, flair.affine)})
    plain = prepare(study, make_manifest(normalisation=Robust(most_median=0.999)))
    assert not any("stretched" in action for action in plain.actions)
    middle = float(np.median(plain.intensity["FLAIR"].apply(flair.data[flair.data > plain.intensity["FLAIR"].floor])))
    prepared = prepare(flat, make_manifest(normalisation=Robust(most_median=middle)))
    line = prepared.intensity["FLAIR"]
    values = line.apply(prepared.arrays["FLAIR"][prepared.arrays["FLAIR"] > line.floor])
    assert np.median(values) == pytest.approx(middle, abs=1e-4)
    assert prepared.actions[1].endswith(f", flat: its contrast stretched by a factor of {line.scale * line.gain:.2f}")


def test_equal_grids_stay_views(make_grid, make_phantom, make_manifest) -> None:
    study = make_phantom(make_grid(codes="LAS"), np.int16)
    prepared = prepare(study, make_manifest(orientation="SAL"))
    assert not prepared.resampled
    assert prepared.grid.orientation == "SAL"
    for name, array in prepared.arrays.items():
        assert np.shares_memory(array, study[name].data)
        assert array.dtype == np.int16
        assert np.array_equal(array, study[name].data.transpose(2, 1, 0))
    assert prepared.actions == tuple(f"{name}: axes LAS taken as SAL, no voxel resampled" for name in ("T1w", "FLAIR"))
    assert prepared.warnings == ()


@pytest.mark.parametrize("resampled", [False, True])
@pytest.mark.parametrize("codes", ["RAS", "SLP", "PIR", "ILA"])
def test_a_permuted_and_flipped_study_is_the_same_study(
    make_grid, make_phantom, make_manifest, reoriented, codes, resampled
) -> None:
    spacing = (1.0, 1.3, 1.6) if resampled else (1.0, 1.0, 1.0)
    study = make_phantom(make_grid(spacing_mm=spacing, tilt_degrees=10))
    turned = Study({**reoriented(study, codes), "T1w": reoriented(study, codes[::-1])["T1w"]})
    first, second = prepare(study, make_manifest()), prepare(turned, make_manifest())
    assert first.resampled == resampled
    assert first.intensity == second.intensity
    assert first.grid.matches(second.grid, 1e-9)
    for name in first.arrays:
        np.testing.assert_allclose(first.arrays[name], second.arrays[name], atol=1e-4 if resampled else 0)


@given(st.sampled_from(CODES), st.sampled_from(CODES))
def test_what_comes_back_lies_where_it_was(make_grid, make_phantom, make_manifest, own: str, network: str) -> None:
    study = make_phantom(make_grid(shape=(20, 22, 24), codes=own))
    prepared = prepare(study, make_manifest(orientation=network))
    back = restore_image(prepared, prepared.arrays["FLAIR"])
    assert np.array_equal(back.data, study["FLAIR"].data)
    assert np.array_equal(back.affine, study["FLAIR"].affine)
    assert np.shares_memory(back.data, study["FLAIR"].data)


def test_the_reference_can_be_chosen(make_grid, make_phantom, make_manifest) -> None:
    grid = {"T1w": make_grid(shape=(22, 22, 22)), "FLAIR": make_grid(spacing_mm=(1.0, 1.0, 1.05))}
    prepared = prepare(make_phantom(grid), make_manifest(), reference="T1w")
    assert prepared.axes.source.matches(grid["T1w"])
    assert prepared.arrays["FLAIR"].shape == (22, 22, 22)


@pytest.mark.parametrize(
    ("spacing_mm", "tolerance", "resampled"),
    [((1, 1, 1), 0, False), ((1, 1, 1.09), 0.1, False), ((1, 1, 1.11), 0.1, True), ((0.85, 1, 1), 0.1, True)],
)
def test_the_tolerance_of_the_spacing(make_grid, make_phantom, make_manifest, spacing_mm, tolerance, resampled) -> None:
    study = make_phantom(make_grid(spacing_mm=spacing_mm))
    prepared = prepare(study, make_manifest(spacing_tolerance=tolerance))
    assert prepared.resampled == resampled


def test_an_axis_that_suits_keeps_its_voxels(make_grid, make_phantom, make_manifest) -> None:
    study = make_phantom(make_grid(shape=(20, 24, 8), spacing_mm=(1.05, 1.0, 3.0)))
    prepared = prepare(study, make_manifest(orientation="LAS"))
    assert prepared.grid.shape == (20, 24, 24)
    assert prepared.grid.spacing_mm == pytest.approx((1.05, 1.0, 1.0))
    np.testing.assert_allclose(prepared.arrays["FLAIR"][:, :, 1::3], study["FLAIR"].data, atol=1e-3)
    assert prepared.actions == (
        "common grid: 20 x 24 x 24 voxels, 1.05 x 1 x 1 mm, LAS, over the field of view of the FLAIR",
        "T1w: resampled (linear) from 20 x 24 x 8 voxels, 1.05 x 1 x 3 mm, LAS",
        "FLAIR: resampled (linear) from 20 x 24 x 8 voxels, 1.05 x 1 x 3 mm, LAS",
    )


def test_only_the_other_contrast_is_resampled_onto_a_suitable_reference(make_grid, make_phantom, make_manifest) -> None:
    study = make_phantom({"T1w": make_grid(spacing_mm=(0.9, 0.9, 3)), "FLAIR": make_grid()})
    prepared = prepare(study, make_manifest())
    assert not prepared.resampled
    assert np.shares_memory(prepared.arrays["FLAIR"], study["FLAIR"].data)
    assert prepared.arrays["T1w"].dtype == np.float32


def test_a_grid_off_by_rounding_is_not_resampled(make_grid, make_phantom, make_manifest) -> None:
    study = make_phantom(make_grid())
    moved = study["T1w"].affine.copy()
    moved[:3, 3] += 0.005
    nearly = Study({"T1w": Volume(study["T1w"].data, moved), "FLAIR": study["FLAIR"]})
    assert np.shares_memory(prepare(nearly, make_manifest()).arrays["T1w"], study["T1w"].data)


def test_align_none_still_permutes(make_grid, make_phantom, make_manifest, reoriented) -> None:
    study = make_phantom(make_grid())
    mixed = Study({"T1w": reoriented(study, "PIR")["T1w"], "FLAIR": study["FLAIR"]})
    assert not prepare(mixed, make_manifest(), align="none").resampled


def test_non_finite_voxels_can_be_background(make_grid, make_phantom, make_manifest) -> None:
    study = make_phantom(make_grid())
    study["FLAIR"].data[0, 0, :3] = np.nan, np.inf, -np.inf
    prepared = prepare(study, make_manifest(orientation="LAS"), non_finite="zero")
    assert prepared.warnings == ("FLAIR: 3 voxels that are NaN or infinite were taken as background",)
    assert prepared.arrays["FLAIR"][0, 0, :3].tolist() == [0, 0, 0]
    assert np.isnan(study["FLAIR"].data[0, 0, 0])  # the caller's array is left alone


def test_partial_coverage_is_a_warning(make_grid, make_phantom, make_manifest) -> None:
    half = make_grid(shape=(20, 24, 12))
    prepared = prepare(make_phantom({"T1w": half, "FLAIR": make_grid()}), make_manifest(orientation="LAS"))
    assert prepared.warnings == ("T1w: covers 55% of the field of view of the FLAIR; the rest was taken as background",)
    assert prepared.arrays["T1w"][:, :, :5].max() == 0


def test_warnings_of_the_files_are_passed_on(make_grid, make_phantom, make_manifest) -> None:
    study = dataclasses.replace(make_phantom(make_grid()), warnings=("T1w: odd",))
    assert prepare(study, make_manifest()).warnings == ("T1w: odd",)


@given(grids(codes="RAS"), grids(), st.integers(0, 2**32 - 1))
def test_linear_and_nearest_are_those_of_simpleitk(sitk, source: Grid, target: Grid, seed: int) -> None:
    origin = source.world((np.asarray(source.shape) - 1) / 2) - target.world((np.asarray(target.shape) - 1) / 2)
    affine = target.affine.copy()
    affine[:3, 3] += origin  # so that they overlap
    target = Grid(target.shape, affine)
    array = np.random.default_rng(seed).uniform(0, 100, source.shape).astype(np.float32)
    index = source.index(target.world(np.stack(np.indices(target.shape), axis=-1)))
    for mode, interpolator in (("linear", sitk.sitkLinear), ("nearest", sitk.sitkNearestNeighbor)):
        image = sitk.Resample(to_sitk(sitk, source, array), to_sitk(sitk, target), sitk.Transform(), interpolator, 0.0)
        expected = sitk.GetArrayFromImage(image).transpose(2, 1, 0)
        clear = np.abs(index % 1 - 0.5).min(axis=-1) > 1e-5  # of borders, where rounding decides which side it is on
        np.testing.assert_allclose(resample(array, source, target, mode)[clear], expected[clear], atol=1e-3)


def test_area_averages_what_linear_skips() -> None:
    array = np.random.default_rng(0).uniform(0, 1, (16, 16, 16)).astype(np.float32)
    source, target = Grid(array.shape, np.eye(4)), Grid((16, 16, 16), np.eye(4)).respaced((4.0, 4.0, 4.0))
    assert image_mode(source, target) == "area"
    blocks = array.reshape(4, 4, 4, 4, 4, 4).mean(axis=(1, 3, 5))
    np.testing.assert_allclose(resample(array, source, target, "area"), blocks, atol=1e-6)


@pytest.mark.parametrize(
    ("source_mm", "target_mm", "mode"),
    [((1, 1, 1), (1.4, 1.4, 1.4), "linear"), ((0.6, 1, 1), (1, 1, 1), "area"), ((0.9, 0.9, 3), (1, 1, 1), "linear")],
)
def test_the_interpolation_of_images(make_grid, source_mm, target_mm, mode) -> None:
    assert image_mode(make_grid(spacing_mm=source_mm), make_grid(spacing_mm=target_mm, codes="SAL")) == mode
    assert image_mode(make_grid(spacing_mm=source_mm, tilt_degrees=45), make_grid(spacing_mm=target_mm)) == mode


@pytest.mark.parametrize("spacing_mm", [(0.72, 0.72, 3.0), (0.5, 0.5, 0.5), (1.7, 1.7, 1.7)])
def test_resampled_results_come_back_to_their_place(make_grid, make_phantom, make_manifest, spacing_mm) -> None:
    shape = tuple(int(26 / length) for length in spacing_mm)
    study = make_phantom(make_grid(shape=shape, spacing_mm=spacing_mm, codes="PSL", tilt_degrees=12))
    prepared = prepare(study, make_manifest())
    assert prepared.resampled
    labels = (prepared.arrays["FLAIR"] > 50).astype(np.uint8) * 2 + (prepared.arrays["FLAIR"] > 150) * np.uint8(2)
    back = restore_labels(prepared, labels)
    assert back.data.dtype == np.uint8
    assert set(np.unique(back.data)) == {0, 2, 4}
    assert back.data.shape == shape
    assert np.array_equal(back.affine, study["FLAIR"].affine)
    truth = study["FLAIR"].data > 50
    dice = 2 * (truth & (back.data > 0)).sum() / (truth.sum() + (back.data > 0).sum())
    assert dice > 0.93
    fused = restore_image(prepared, prepared.arrays["FLAIR"])
    inside = truth & (study["FLAIR"].data < 150)
    assert np.median(np.abs(fused.data - study["FLAIR"].data)[inside]) < 2


def test_real_raw_study_in_world_coordinates(data_dir, make_manifest, sitk) -> None:
    study = Study.from_folder(data_dir / "open_ms_raw/patient12_study1")
    prepared = prepare(study, make_manifest(), align="header", threads=2)
    assert prepared.grid.orientation == "SAL"
    assert all(0.9 <= length <= 1.1 for length in prepared.grid.spacing_mm)
    image = sitk.ReadImage(str(data_dir / "open_ms_raw/patient12_study1/t1.nii.gz"), sitk.sitkFloat32)
    sampler = sitk.Resample(image, to_sitk(sitk, prepared.grid), sitk.Transform(), sitk.sitkLinear, 0.0)
    expected = sitk.GetArrayFromImage(sampler).transpose(2, 1, 0)
    apart = np.abs(prepared.arrays["T1w"] - expected)
    assert np.percentile(apart, 99.9) < 0.5  # of up to 2,000; at the border float32 headers round differently


def test_real_mni_study_is_not_touched(data_dir, make_manifest) -> None:
    study = Study.from_folder(data_dir / "open_ms/patient19")
    prepared = prepare(study, make_manifest())
    assert not prepared.resampled
    assert prepared.arrays["FLAIR"].flags.c_contiguous  # the file's order seen as (slice, row, column)
    assert reorient(prepared.grid, "LAS").grid.matches(study["FLAIR"].grid)
