"""How a study is put together, and which files of a folder it takes."""

from __future__ import annotations

import nibabel
import numpy as np
import pytest

from rmr_sdk.errors import FormatError
from rmr_sdk.io.nifti import write_volume
from rmr_sdk.study import Study
from rmr_sdk.volume import Volume

AFFINE = np.diag([1.0, 1.0, 2.0, 1.0])


def volume(value: int = 0) -> Volume:
    return Volume(np.full((3, 4, 5), value, np.int16), AFFINE)


def test_study_is_a_mapping() -> None:
    study = Study({"T1w": volume(), "FLAIR": volume()})
    assert study.contrasts == tuple(study) == ("T1w", "FLAIR")
    assert len(study) == 2
    assert "T2w" not in study
    study.require(["FLAIR"])


def test_from_files_reads_each_contrast(tmp_path) -> None:
    for name, value in (("a name with spaces é.nii.gz", 1), ("b.nii", 2)):
        write_volume(tmp_path / name, volume(value))
    study = Study.from_files(T1w=tmp_path / "a name with spaces é.nii.gz", FLAIR=str(tmp_path / "b.nii"))
    assert [int(study[name].data[0, 0, 0]) for name in study] == [1, 2]
    assert study.warnings == ()


def test_from_arrays_shares_memory_and_takes_one_affine_or_several() -> None:
    array = np.zeros((3, 4, 5))
    assert np.shares_memory(Study.from_arrays({"T1w": array}, affine=AFFINE)["T1w"].data, array)
    study = Study.from_arrays({"T1w": array, "FLAIR": array}, affine={"T1w": AFFINE, "FLAIR": np.eye(4)})
    assert study["FLAIR"].grid.spacing_mm == (1, 1, 1)


def test_from_images_takes_nibabel_images_and_reports_their_headers() -> None:
    image = nibabel.Nifti1Image(np.zeros((3, 4, 5), np.int16), AFFINE)
    image.set_qform(np.eye(4), 1)
    study = Study.from_images({"T1w": image})
    assert np.array_equal(study["T1w"].affine, AFFINE)
    assert study.warnings == ("T1w: sform and qform of the header disagree by up to 4 mm; the sform was used",)


def test_units_of_a_nibabel_image_are_converted_like_those_of_a_file(tmp_path) -> None:
    image = nibabel.Nifti1Image(np.zeros((3, 4, 5), np.int16), np.diag([0.001, 0.001, 0.002, 1.0]))
    image.header.set_xyzt_units("meter")
    nibabel.save(image, tmp_path / "t1.nii")
    given, read = Study.from_images({"T1w": image}), Study.from_files(T1w=tmp_path / "t1.nii")
    np.testing.assert_allclose(given["T1w"].affine, AFFINE, rtol=1e-6)
    np.testing.assert_allclose(read["T1w"].affine, AFFINE, rtol=1e-6)
    assert given.warnings == read.warnings


def test_warnings_say_which_contrast(tmp_path) -> None:
    image = nibabel.Nifti1Image(np.zeros((3, 4, 5), np.int16), None)
    nibabel.save(image, tmp_path / "flair.nii")
    (warning,) = Study.from_files(FLAIR=tmp_path / "flair.nii").warnings
    assert warning.startswith("FLAIR: the header does not say where left and right are")


@pytest.mark.parametrize(
    ("files", "t1", "flair"),
    [
        (["t1.nii.gz", "flair.nii.gz"], 0, 1),
        (["T1W.NII", "FLAIR.nii"], 0, 1),
        (["sub-1_T1w.nii.gz", "sub-1_FLAIR.nii.gz", "sub-1_T2w.nii.gz"], 0, 1),
        (["anat/sub-1_T1w.nii.gz", "anat/sub-1_FLAIR.nii.gz"], 0, 1),
        (["t1_mprage.nii.gz", "flair_3d.nii.gz"], 0, 1),
        (["t1ce.nii.gz", "t1.nii.gz", "t1_mask.nii.gz", "flair_lesion_seg.nii.gz", "flair.nii"], 1, 4),
        (["t1_brain.nii.gz", "sub-1_T1w.nii.gz"], 1, None),
        (["._sub-1_T1w.nii.gz", "sub-1_T1w.nii.gz", "sub-1_FLAIR.nii.gz"], 1, 2),  # macOS adds such files
        (["t1ce.nii.gz", "t1_gd.nii.gz", "t1map.nii", "t1.txt", "flair.nii.gz", "s_ce-gd_T1w.nii"], None, 4),
    ],
    ids=["plain", "case", "bids", "anat", "prefix", "exact wins", "bids wins", "hidden", "not a T1w"],
)
def test_from_folder_finds_by_name(tmp_path, files, t1, flair) -> None:
    for value, name in enumerate(files):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        write_volume(tmp_path / name, volume(value))
    study = Study.from_folder(tmp_path)
    found = {name: int(study[name].data[0, 0, 0]) for name in study}
    assert found == {name: value for name, value in (("T1w", t1), ("FLAIR", flair)) if value is not None}


def test_folder_messages_and_reprs_name_no_file(tmp_path) -> None:
    folder = tmp_path / "anat"
    folder.mkdir()
    (folder / "sub-JaneDoe_T1w.nii.gz").write_bytes(b"no image")
    with pytest.raises(FormatError, match="the T1w file of the folder") as caught:
        Study.from_folder(tmp_path)
    assert "Jane" not in str(caught.value)
    write_volume(folder / "sub-JaneDoe_T1w.nii.gz", volume())
    assert repr(Study.from_folder(tmp_path)) == "Study(T1w=Volume(3 x 4 x 5 voxels, 1 x 1 x 2 mm, RAS, int16))"


def test_real_folders_are_found(data_dir) -> None:
    for folder in ("open_ms/patient07", "open_ms_raw/patient12_study1"):
        study = Study.from_folder(data_dir / folder)
        assert study.contrasts == ("T1w", "FLAIR")
        assert study.warnings == ()
