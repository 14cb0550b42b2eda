"""Stacks that are no volume, or an odd one: what is said about them, and where."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from dicom_studies import FLAIR, T1, write_series
from pydicom.dataset import Dataset
from test_dicom_geometry import assert_same_in_world, make_volume, read

from rmr_sdk import Study
from rmr_sdk.errors import GeometryError, StudyError
from rmr_sdk.volume import Volume

Spoil = Callable[[Path], None]


def series(change: Callable[[int, Dataset], None], volume: Volume | None = None) -> Spoil:
    """Return what writes a T1 whose images have been changed."""
    return lambda folder: write_series(folder, volume or make_volume(), 1, T1, change=change) and None


def without(*slices: int) -> Spoil:
    """Return what writes a T1 and removes slices from it."""

    def write(folder: Path) -> None:
        write_series(folder, make_volume(), 1, T1)
        for k in slices:
            (folder / f"IM01{k:04d}").unlink()

    return write


def move(image: Dataset, axis: int, mm: float) -> None:
    """Move an image along an axis of the patient."""
    position = [float(value) for value in image.ImagePositionPatient]
    position[axis] += mm
    image.ImagePositionPatient = position


def stretch(k: int, image: Dataset) -> None:
    move(image, 2, 0.3 * k * (k % 2))


def lean(k: int, image: Dataset) -> None:
    move(image, 1, 0.5 * k)


def step_aside(k: int, image: Dataset) -> None:
    move(image, 0, 4.0 * (k == 4))


def lengthen(_: int, image: Dataset) -> None:
    image.ImageOrientationPatient = [1, 0, 0, 0, 1.05, 0]


def skew(_: int, image: Dataset) -> None:
    image.ImageOrientationPatient = [1, 0, 0, 0.0998, 0.995, 0]


def collapse(_: int, image: Dataset) -> None:
    image.PixelSpacing = [0, 1]


def forget_one(k: int, image: Dataset) -> None:
    if k == 3:
        del image.ImagePositionPatient


def two_frames(k: int, image: Dataset) -> None:
    image.FrameOfReferenceUID = f"2.25.{k // 5}"


def thin(_: int, image: Dataset) -> None:
    del image.SliceThickness
    del image.SpacingBetweenSlices


@pytest.mark.parametrize(
    ("write", "words"),
    [
        (without(4), "1 slice is missing between images 4 and 6 (6 mm apart, the others 3 mm)."),
        (without(4, 5, 6), "3 slices are missing between images 4 and 8 (12 mm apart"),
        (series(stretch), "its slices are 0.9 to 5.7 mm apart: not one spacing."),
        (series(lean), "its slices lean by 9.5 degrees (a sheared stack, as from a tilted gantry)."),
        (series(step_aside), "image 5 is shifted sideways against the others."),
        (
            series(lengthen),
            "its direction cosines (ImageOrientationPatient) are not at right angles or not of length 1",
        ),
        (series(skew), "its direction cosines (ImageOrientationPatient) are not at right angles"),
        (series(collapse), "its PixelSpacing is not positive."),
        (series(forget_one), "1 of 10 images have no valid ImagePositionPatient."),
        (series(two_frames), "its images are of several frames of reference."),
        (series(thin, make_volume(shape=(9, 7, 1))), "it is a single slice without a thickness."),
    ],
)
def test_no_volume(tmp_path: Path, write: Spoil, words: str) -> None:
    write(tmp_path)
    write_series(tmp_path, make_volume(), 2, FLAIR)
    with pytest.raises(GeometryError) as caught:
        read(tmp_path)
    assert f'contrast "T1w": series 1: {words}' in str(caught.value)
    assert caught.value.fix.startswith("Export the series again")
    assert caught.value.contrast == "T1w"


def test_an_end_slice_may_be_missing_and_small_irregularity_is_taken(tmp_path: Path) -> None:
    def jitter(k: int, image: Dataset) -> None:
        move(image, 2, 0.1 * (-1) ** k * (0 < k < 9))

    without(9)(tmp_path)
    write_series(tmp_path, make_volume(), 2, FLAIR, change=jitter)
    study = read(tmp_path)
    assert study["T1w"].data.shape[2] == 9
    np.testing.assert_allclose(study["FLAIR"].grid.spacing_mm[2], 3.0, atol=1e-6)


def test_identical_duplicates_are_dropped_and_told(tmp_path: Path) -> None:
    volume = make_volume()
    write_series(tmp_path / "a", volume, 1, T1)
    write_series(tmp_path / "b", volume, 1, T1, prefix="COPY")
    (tmp_path / "b" / "COPY010000").unlink()
    write_series(tmp_path / "c", volume, 2, FLAIR)
    write_series(tmp_path / "c", Volume(volume.data[:, :, :1], volume.affine), 2, FLAIR, prefix="ONE")
    study = read(tmp_path)
    assert_same_in_world(volume, study["T1w"])
    assert "T1w: series 1: 9 duplicate images were left out" in study.warnings
    assert "FLAIR: series 2: 1 duplicate image was left out" in study.warnings


def test_duplicates_that_differ_are_refused(tmp_path: Path) -> None:
    volume = make_volume()
    write_series(tmp_path / "a", volume, 1, T1)
    write_series(
        tmp_path / "b",
        Volume(volume.data[:, :, 3:4] + 1, volume.affine),
        1,
        T1,
        prefix="X",
        change=lambda _, i: move(i, 2, 9.0),
    )
    write_series(tmp_path / "c", volume, 2, FLAIR)
    with pytest.raises(
        StudyError, match="series 1 has two different images at the position of image 4, and its headers"
    ):
        read(tmp_path)


@pytest.mark.parametrize(
    ("keyword", "values"),
    [
        ("EchoTime", (2.98, 9.0)),
        ("ImageType", (["ORIGINAL", "PRIMARY", "M"], ["ORIGINAL", "PRIMARY", "P"])),
        ("InversionTime", (700.0, 2500.0)),
        ("TemporalPositionIdentifier", (1, 2)),
        ("AcquisitionNumber", (1, 2)),
        ("TriggerTime", (10.0, 500.0)),
    ],
)
def test_several_images_a_position_are_split(tmp_path: Path, keyword: str, values: tuple[object, object]) -> None:
    first, second = make_volume(), Volume(make_volume().data[::-1].copy(), make_volume().affine)
    for number, (volume, value) in enumerate(zip((first, second), values, strict=True)):
        write_series(tmp_path, volume, 1, {**T1, keyword: value}, prefix=f"P{number}")
    write_series(tmp_path, first, 2, FLAIR)
    for key, volume in (("1.1", first), ("1.2", second)):
        assert_same_in_world(volume, Study.from_dicom(tmp_path, t1_series=key, flair_series=2)["T1w"])


def test_what_varies_without_sharing_a_position_splits_nothing(tmp_path: Path) -> None:
    volume = make_volume()

    def vary(k: int, image: Dataset) -> None:
        image.AcquisitionNumber, image.EchoTime = k, 2.0 + 0.1 * (k % 2)

    write_series(tmp_path, volume, 1, T1, change=vary)
    write_series(tmp_path, volume, 2, FLAIR)
    assert_same_in_world(volume, read(tmp_path)["T1w"])


def test_mixed_orientations_are_volumes_of_their_own(tmp_path: Path) -> None:
    axial, coronal = make_volume("LPS"), make_volume("LIP")
    write_series(tmp_path, axial, 1, T1)
    write_series(tmp_path, coronal, 1, T1, prefix="COR")
    write_series(tmp_path, axial, 2, FLAIR)
    for key, volume in (("1.1", coronal), ("1.2", axial)):
        assert_same_in_world(volume, Study.from_dicom(tmp_path, t1_series=key, flair_series=2)["T1w"])


def test_wide_gaps_and_doubtful_steps_are_told(tmp_path: Path) -> None:
    def gaps(_: int, image: Dataset) -> None:
        image.SliceThickness, image.SpacingBetweenSlices = 1.5, 1.5

    write_series(tmp_path, make_volume(), 1, T1, change=gaps)
    write_series(tmp_path, make_volume(), 2, FLAIR)
    warnings = read(tmp_path).warnings
    assert "T1w: series 1: slices are 1.5 mm thick and 3 mm apart: tissue between is not seen" in warnings
    assert "T1w: series 1: slices are 3 mm apart where the header says 1.5 mm: some may be missing" in warnings
