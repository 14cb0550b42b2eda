"""Where voxels of DICOM series lie: sorted by position, whatever the orientation and the order of the files."""

from __future__ import annotations

from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
from dicom_studies import FLAIR, LPS, T1, write_enhanced, write_series
from pydicom.dataset import Dataset

from rmr_sdk import Study
from rmr_sdk.io.dicom.world import swap_lps_ras
from rmr_sdk.volume import Volume

SHAPE = (9, 7, 10)
# The ends that a row, a column and the slices run to: axial, sagittal and coronal, each as is and with negated cosines.
STACKS = ["LPS", "LPI", "RAS", "LAI", "PIR", "PIL", "ASR", "AIL", "LIP", "LIA", "RSA", "RIP"]


def make_volume(codes: str = "LPS", tilts: tuple[float, ...] = (), shape: tuple[int, int, int] = SHAPE) -> Volume:
    """Return voxels that all differ, on a grid of these axes, turned about x, y and z."""
    affine = np.eye(4)
    for axis, (code, mm) in enumerate(zip(codes, (0.9, 1.1, 3.0), strict=True)):
        world, sign = {"R": (0, 1), "L": (0, -1), "A": (1, 1), "P": (1, -1), "S": (2, 1), "I": (2, -1)}[code]
        affine[:3, axis] = 0
        affine[world, axis] = sign * mm
    affine[:3, 3] = (-12.5, 20.25, 7.0)
    for axis, degrees in enumerate(tilts):
        turn, (i, j) = np.eye(4), [n for n in range(3) if n != axis]
        turn[i, i] = turn[j, j] = np.cos(np.radians(degrees))
        turn[i, j], turn[j, i] = -np.sin(np.radians(degrees)), np.sin(np.radians(degrees))
        affine = turn @ affine
    data = np.random.default_rng(1).permutation(int(np.prod(shape))).reshape(shape).astype(np.uint16)
    return Volume(data, affine)


def assert_same_in_world(volume: Volume, other: Volume) -> None:
    """Check that every voxel is where the other volume has the same value."""
    points = volume.grid.world(np.moveaxis(np.indices(volume.data.shape), 0, -1))
    index = other.grid.index(points)
    nearest = np.rint(index).astype(int)
    np.testing.assert_allclose(index, nearest, atol=1e-4)
    assert sorted(volume.data.shape) == sorted(other.data.shape)
    np.testing.assert_array_equal(other.data[tuple(np.moveaxis(nearest, -1, 0))], volume.data)


def read(folder: Path) -> Study:
    """Read the series with the numbers 1 and 2, whatever they are."""
    return Study.from_dicom(folder, t1_series=1, flair_series=2)


@pytest.mark.parametrize("codes", STACKS)
def test_every_orientation(tmp_path: Path, codes: str) -> None:
    t1, flair = make_volume(codes), make_volume(codes, (11.0, -17.0, 23.0))
    write_series(tmp_path, t1, 1, T1)
    write_series(tmp_path, flair, 2, FLAIR)
    study = read(tmp_path)
    assert_same_in_world(t1, study["T1w"])
    assert_same_in_world(flair, study["FLAIR"])
    assert study["FLAIR"].data.flags.f_contiguous
    assert study["FLAIR"].data.dtype == np.uint16


@pytest.mark.parametrize("codes", ["LPS", "PIR", "RSA"])
def test_another_reader_puts_voxels_at_the_same_places(tmp_path: Path, codes: str, sitk: ModuleType) -> None:
    volume = make_volume(codes, (8.0, 14.0, -5.0))
    write_series(tmp_path / "1", volume, 1, T1)
    write_series(tmp_path / "2", volume, 2, FLAIR)
    ours = read(tmp_path)["T1w"]
    theirs = sitk.ReadImage(sitk.ImageSeriesReader.GetGDCMSeriesFileNames(str(tmp_path / "1")))
    for index in np.ndindex(ours.data.shape):
        place = theirs.TransformPhysicalPointToContinuousIndex((LPS[:3, :3] @ ours.grid.world(index)).tolist())
        np.testing.assert_allclose(place, np.rint(place), atol=1e-3)
        assert theirs[tuple(int(n) for n in np.rint(place))] == ours.data[index]


@pytest.mark.parametrize("order", [range(10, 0, -1), (3, 9, 1, 7, 5, 10, 2, 8, 4, 6), [1] * 10])
def test_instance_numbers_and_names_do_not_matter(tmp_path: Path, order: list[int]) -> None:
    volume = make_volume("LPS", (5.0, 0.0, 0.0))
    write_series(tmp_path, volume, 1, T1, order=list(order))
    write_series(tmp_path, volume, 2, FLAIR)
    assert_same_in_world(volume, read(tmp_path)["T1w"])


@pytest.mark.parametrize("shuffle", [False, True])
@pytest.mark.parametrize("per_frame", [False, True])
def test_enhanced(tmp_path: Path, shuffle: bool, per_frame: bool) -> None:
    volume = make_volume("PIR", (5.0, -9.0, 2.0))
    write_enhanced(tmp_path, [volume], 1, T1, shuffle=shuffle, per_frame_orientation=per_frame)
    write_enhanced(tmp_path, [volume], 2, FLAIR)
    study = Study.from_dicom(tmp_path)  # its parameters are found in the functional groups
    assert_same_in_world(volume, study["T1w"])
    assert_same_in_world(volume, study["FLAIR"])


def test_echoes_of_an_enhanced_file_are_split(tmp_path: Path) -> None:
    first, second = make_volume(), Volume(make_volume().data[::-1].copy(), make_volume().affine)
    write_enhanced(tmp_path, [first, second], 2, FLAIR, echoes=[20.0, 100.0], shuffle=True)
    write_series(tmp_path, first, 1, T1)
    study = Study.from_dicom(tmp_path)
    assert_same_in_world(second, study["FLAIR"])
    assert study.notes[1].startswith("FLAIR: DICOM series 2.2 (")


def test_cosines_with_few_digits_are_made_orthonormal(tmp_path: Path) -> None:
    volume = make_volume("LPS", (0.0, 0.0, 10.0))

    def round_off(_: int, image: Dataset) -> None:
        image.ImageOrientationPatient = [f"{float(value):.3f}" for value in image.ImageOrientationPatient]

    write_series(tmp_path, volume, 1, T1, change=round_off)
    write_series(tmp_path, volume, 2, FLAIR)
    affine = read(tmp_path)["T1w"].affine
    cosines = affine[:3, :3] / np.linalg.norm(affine[:3, :3], axis=0)
    np.testing.assert_allclose(cosines.T @ cosines, np.eye(3), atol=1e-9)
    np.testing.assert_allclose(affine, volume.affine, atol=1e-3)


def test_a_single_slice_is_as_thick_as_it_says(tmp_path: Path) -> None:
    volume = make_volume("LPS", (4.0, 0.0, 0.0), (9, 7, 1))
    write_series(tmp_path, volume, 1, T1)
    write_series(tmp_path, make_volume(), 2, FLAIR)
    read_back = read(tmp_path)["T1w"]
    np.testing.assert_allclose(read_back.affine, volume.affine, atol=1e-5)
    assert read_back.data.shape == (9, 7, 1)


def test_lps_and_ras_differ_in_two_signs() -> None:
    np.testing.assert_array_equal(swap_lps_ras([[1, 2, 3], [-4, 5, 0]]), [[-1, -2, 3], [4, -5, 0]])
    np.testing.assert_array_equal(swap_lps_ras(swap_lps_ras((1, 2, 3))), (1, 2, 3))


def test_frames_of_reference_are_kept_but_not_shown(tmp_path: Path) -> None:
    write_series(tmp_path, make_volume(), 1, T1)
    write_series(tmp_path, make_volume(), 2, {**FLAIR, "FrameOfReferenceUID": "2.25.77"})
    study = read(tmp_path)
    assert study.frames == {"T1w": "2.25.2002", "FLAIR": "2.25.77"}
    assert "2.25" not in repr(study)
    assert "2.25" not in repr(study.source)
    assert Study.from_arrays({"T1w": make_volume().data}, affine=np.eye(4)).frames is None
