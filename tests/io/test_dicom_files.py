"""Where DICOM files are found, and which files are left alone."""

from __future__ import annotations

import zipfile
from pathlib import Path

import numpy as np
import pytest
from dicom_studies import FLAIR, T1, write_series
from test_dicom_geometry import assert_same_in_world, make_volume

from rmr_sdk import Study
from rmr_sdk.errors import FormatError, StudyError
from rmr_sdk.io.nifti import write_volume
from rmr_sdk.volume import Volume

PNG = b"\x89PNG\r\n\x1a\n" + bytes(200)


def write_study(folder: Path) -> Path:
    """Write a T1 and a FLAIR in folders of their own."""
    write_series(folder / "PAT 1" / "série 1", make_volume(), 1, T1)
    write_series(folder / "PAT 1" / "série 2", make_volume("PIR"), 2, FLAIR)
    return folder


def archive(folder: Path, target: Path) -> Path:
    """Pack a folder into a .zip."""
    with zipfile.ZipFile(target, "w", zipfile.ZIP_DEFLATED) as packed:
        for file in sorted(folder.rglob("*")):
            packed.write(file, file.relative_to(folder))
    return target


def check(study: Study) -> None:
    """Check that both volumes are there."""
    assert study.contrasts == ("T1w", "FLAIR")
    assert_same_in_world(make_volume(), study["T1w"])
    assert_same_in_world(make_volume("PIR"), study["FLAIR"])


def test_nested_folders_and_names_of_any_kind(tmp_path: Path) -> None:
    study = Study.from_folder(write_study(tmp_path / "a b é"))
    check(study)
    assert study.source is not None


def test_an_archive_is_read_in_place(tmp_path: Path) -> None:
    packed = archive(write_study(tmp_path / "study"), tmp_path / "study.zip")
    before = sorted(tmp_path.rglob("*"))
    check(Study.from_folder(packed))
    check(Study.from_dicom(str(packed)))
    assert sorted(tmp_path.rglob("*")) == before


def test_a_nifti_pair_goes_before_dicom_and_a_lone_file_does_not(tmp_path: Path) -> None:
    write_study(tmp_path)
    nifti = Volume(np.zeros((3, 4, 5), np.int16), np.eye(4))
    write_volume(tmp_path / "t1.nii.gz", nifti)
    check(Study.from_folder(tmp_path))
    write_volume(tmp_path / "flair.nii.gz", nifti)
    study = Study.from_folder(tmp_path)
    assert study["T1w"].data.shape == (3, 4, 5)
    assert study.source is None


def test_what_is_not_dicom_is_left_alone(tmp_path: Path) -> None:
    folder = write_study(tmp_path) / "PAT 1"
    image = next((folder / "série 1").iterdir()).read_bytes()
    for name in ("DICOMDIR", ".hidden", "._IM010000"):  # an index, and what file browsers add
        (folder / name).write_bytes(image[:400])
    (folder / "__MACOSX").mkdir()
    (folder / "__MACOSX" / "IM").write_bytes(image)
    for name in ("notes.txt", "picture.png", "empty.json"):
        (folder / name).write_bytes(PNG)
    study = Study.from_folder(tmp_path)
    check(study)
    assert not [warning for warning in study.warnings if "left out" in warning]


def test_files_that_only_look_like_dicom_are_told(tmp_path: Path) -> None:
    folder = write_study(tmp_path)
    for name in ("picture.dcm", "PICTURE", "1.2.840.113"):
        (folder / name).write_bytes(PNG)
    (folder / "cut.dcm").write_bytes(bytes(128) + b"DICM" + b"\x08\x00")
    (folder / "empty").touch()
    study = Study.from_folder(folder)
    check(study)
    assert study.warnings[:2] == (
        "4 files are named like DICOM but of another kind: left out",
        "1 file is damaged: left out",
    )


def test_files_without_a_preamble(tmp_path: Path) -> None:
    for file in write_study(tmp_path).rglob("IM*"):
        file.write_bytes(file.read_bytes()[132:])
    check(Study.from_folder(tmp_path))


def test_a_file_that_cannot_be_read_counts_as_damaged(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_study(tmp_path)
    (tmp_path / "locked").touch()
    opened = open

    def refuse(path: object, *arguments: object, **options: object) -> object:
        if str(path).endswith("locked"):
            raise PermissionError(13, "Permission denied")
        return opened(path, *arguments, **options)  # type: ignore[call-overload]

    monkeypatch.setattr("builtins.open", refuse)
    study = Study.from_folder(tmp_path)
    check(study)
    assert "1 file is damaged: left out" in study.warnings


@pytest.mark.parametrize("name", ["nothing", "text", "study.zip"])
def test_a_folder_without_dicom(tmp_path: Path, name: str) -> None:
    (tmp_path / "text").mkdir()
    (tmp_path / "text" / "picture.dcm").write_bytes(PNG)
    (tmp_path / "nothing").mkdir()
    archive(tmp_path / "text", tmp_path / "study.zip")
    with pytest.raises(FormatError, match="no DICOM image was found") as caught:
        Study.from_dicom(tmp_path / name)
    assert ("1 file is named like DICOM but of another kind: left out" in str(caught.value)) is (name != "nothing")


def test_what_is_neither_a_folder_nor_an_archive(tmp_path: Path) -> None:
    (tmp_path / "file.zip").write_bytes(PNG)
    with pytest.raises(FormatError, match=r'file.zip" is no .zip archive, or is damaged\. Copy or export'):
        Study.from_folder(tmp_path / "file.zip")
    with pytest.raises(StudyError, match=r'gone" does not exist\. Pass the folder or the \.zip'):
        Study.from_dicom(tmp_path / "gone")


def test_an_archive_that_cannot_be_used(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    packed = archive(write_study(tmp_path / "study"), tmp_path / "study.zip")
    data = bytearray(packed.read_bytes())
    entry = data.index(b"PK\x01\x02")
    while entry >= 0:
        data[entry + 8] |= 1  # the flag of encryption
        entry = data.find(b"PK\x01\x02", entry + 4)
    (tmp_path / "locked.zip").write_bytes(data)
    with pytest.raises(StudyError, match=r"the archive is encrypted. Unpack it"):
        Study.from_dicom(tmp_path / "locked.zip")

    def refuse(*_: object, **__: object) -> None:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr("zipfile.ZipFile", refuse)
    with pytest.raises(FormatError, match=r'study.zip" cannot be read: Permission denied\. Check its permissions'):
        Study.from_dicom(packed)


def test_a_damaged_member_is_left_out(tmp_path: Path) -> None:
    packed = archive(write_study(tmp_path / "study"), tmp_path / "study.zip")
    data = bytearray(packed.read_bytes())
    with zipfile.ZipFile(packed) as members:
        first = next(info for info in members.infolist() if info.filename.endswith("IM010000"))
    start = first.header_offset + 30 + len(first.filename.encode())
    data[start : start + 40] = bytes(40)
    packed.write_bytes(data)
    study = Study.from_dicom(packed)
    assert study["T1w"].data.shape == (9, 7, 9)
    assert "1 file is damaged: left out" in study.warnings
