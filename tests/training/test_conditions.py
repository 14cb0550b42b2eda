"""Damage of studies: what each condition does, that it is the same every time, and what it leaves alone."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import ndimage
from tiny_study import make_grid

from rmr_sdk.geometry import reorient
from rmr_sdk.intensity import IntensityMap, fit_normalisation
from rmr_sdk.manifest import Robust
from rmr_sdk.study import Study
from rmr_sdk.volume import Volume
from rmr_training.evaluate.conditions import CONDITIONS, check_conditions, damage_study

SHAPE = (64, 56, 48)
GRID = make_grid("LAS", SHAPE)
AXES = reorient(GRID, "SAR")


@pytest.fixture(scope="module")
def study() -> Study:
    """Give two contrasts of a textured block in air that is exactly zero."""
    rng = np.random.default_rng(0)
    inside = np.zeros(SHAPE, bool)
    inside[4:-4, 4:-4, 4:-4] = True
    texture = 0.7 + 2 * ndimage.gaussian_filter(rng.standard_normal(SHAPE), 2.5)
    return Study(
        {
            name: Volume(np.where(inside, scale * texture, 0).astype(np.float32), GRID.affine)
            for name, scale in (("T1w", 500.0), ("FLAIR", 90.0))
        }
    )


@pytest.fixture(scope="module")
def maps(study: Study) -> dict[str, IntensityMap]:
    return {name: fit_normalisation(volume.data, Robust()) for name, volume in study.items()}


def damaged(study: Study, maps: dict[str, IntensityMap], name: str, strength: int, seed: str = "0") -> np.ndarray:
    return damage_study(study, AXES, maps, name, strength, seed)["FLAIR"].data


@pytest.mark.parametrize("name", CONDITIONS)
def test_damage_is_the_same_every_time_and_keeps_what_was_masked(
    name: str, study: Study, maps: dict[str, IntensityMap]
) -> None:
    clean, once = study["FLAIR"].data, damaged(study, maps, name, 2)
    assert np.array_equal(once, damaged(study, maps, name, 2))
    assert not np.array_equal(once, clean)
    assert not once[clean == 0].any()
    assert damage_study(study, AXES, maps, name, 2, "0")["FLAIR"].grid.matches(GRID)


@pytest.mark.parametrize("name", CONDITIONS)
def test_a_contrast_that_is_not_named_is_left_alone(name: str, study: Study, maps: dict[str, IntensityMap]) -> None:
    found = damage_study(study, AXES, {"T1w": maps["T1w"]}, name, 3, "0")
    assert found["FLAIR"] is study["FLAIR"]
    assert not np.array_equal(found["T1w"].data, study["T1w"].data)


def test_clean_is_the_study_itself(study: Study, maps: dict[str, IntensityMap]) -> None:
    assert damage_study(study, AXES, maps, "clean", 0, "0") is study


@pytest.mark.parametrize("name", CONDITIONS)
def test_strengths_differ_in_degree(name: str, study: Study, maps: dict[str, IntensityMap]) -> None:
    inside = (slice(10, -10),) * 3  # away from the sharp rim, which lies on slice borders or not as it happens
    clean = study["FLAIR"].data
    errors = [float(np.square((damaged(study, maps, name, s) - clean)[inside]).mean()) for s in (1, 2, 3)]
    assert 0 < errors[0] < errors[1] < errors[2]


def test_noise_has_the_deviation_that_it_says(study: Study, maps: dict[str, IntensityMap]) -> None:
    clean, unit = study["FLAIR"].data, 1 / maps["FLAIR"].scale
    weak, strong = (damaged(study, maps, "noise", s)[clean > 0] - clean[clean > 0] for s in (1, 3))
    assert weak.std() / unit == pytest.approx(0.025, rel=0.02)
    assert strong.std() / unit == pytest.approx(0.1, rel=0.02)
    assert np.allclose(4 * weak, strong, atol=1e-3 * unit)  # the same noise, only more of it
    other = damaged(study, maps, "noise", 1, seed="1")[clean > 0] - clean[clean > 0]
    assert abs(np.corrcoef(weak, other)[0, 1]) < 0.02


def test_blur_stays_in_the_slice(maps: dict[str, IntensityMap]) -> None:
    columns = np.zeros(SHAPE, np.float32)
    columns[8:-8, 8:-8, 8:-8] = 40 + 10 * (np.arange(48)[8:-8] % 2)  # differs from slice to slice alone
    study = Study({"FLAIR": Volume(columns, GRID.affine)})
    lines = {"FLAIR": fit_normalisation(columns, Robust())}
    found = damage_study(study, AXES, lines, "blur", 3, "0")["FLAIR"].data
    assert np.allclose(found, columns, atol=1e-3)


def test_more_damaged_blocks_contain_the_fewer(study: Study, maps: dict[str, IntensityMap]) -> None:
    clean = study["FLAIR"].data
    touched = [np.abs(damaged(study, maps, "fourier", s) - clean) > 1e-3 for s in (1, 2, 3)]
    assert 0 < touched[0].sum() <= touched[1].sum() <= touched[2].sum() < 0.1 * clean.size
    assert (touched[0] & ~touched[2]).sum() < 0.05 * touched[0].sum()  # but where blocks overlap


def test_low_contrast_multiplies_the_logarithm_of_ratios(study: Study, maps: dict[str, IntensityMap]) -> None:
    clean, found = study["FLAIR"].data, damaged(study, maps, "contrast", 2)
    inside = clean > 0
    ratio = np.log(found[inside] / found[10, 10, 10]) - 0.6 * np.log(clean[inside] / clean[10, 10, 10])
    assert np.abs(ratio).max() < 1e-4


def test_thick_slices_are_averages_along_the_slice_axis(maps: dict[str, IntensityMap]) -> None:
    slices = np.zeros(SHAPE, np.float32)
    slices[8:-8, 8:-8, 6:-6] = 40 + 10 * (np.arange(48)[6:-6] % 2)
    study = Study({"FLAIR": Volume(slices, GRID.affine)})
    lines = {"FLAIR": fit_normalisation(slices, Robust())}
    found = damage_study(study, AXES, lines, "thick", 2, "0")["FLAIR"].data
    assert np.allclose(found[20, 20, 12:-12], 45, atol=1e-3)  # 4 mm hold two of each
    assert np.ptp(found[8:-8, 8:-8, 24]) == pytest.approx(0, abs=1e-3)


def test_clean_comes_first_and_conditions_in_their_order() -> None:
    assert check_conditions(("thick", "noise", "noise")) == ("clean", "noise", "thick")


def test_every_strength_says_what_it_does() -> None:
    assert CONDITIONS["noise"].describe(3).startswith("Gaussian noise, deviation 0.1 of")
    assert [CONDITIONS["thick"].describe(s).split()[2] for s in (1, 2, 3)] == ["3", "4", "5"]
