"""Every way in which a DICOM study can be wrong: the error's type, its words, and no word about the patient.

The modules of tests/io/test_dicom_*.py look at each rule closely; here the studies are as they arrive at the door.
"""

from __future__ import annotations

import logging
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import highdicom
import numpy as np
import pydicom
import pytest
from dicom_studies import FLAIR, SECRETS, T1, write_enhanced, write_series
from pydicom.dataset import Dataset
from sample_results import make_result

from rmr_sdk.cli import main
from rmr_sdk.errors import FormatError, GeometryError, InputError, RmrError, StudyError
from rmr_sdk.geometry import Grid
from rmr_sdk.io.dicom.extra import quiet
from rmr_sdk.study import Study
from rmr_sdk.volume import Volume

CT = {"Modality": "CT", "SOPClassUID": "1.2.840.10008.5.1.4.1.1.2"}
LOCALISER = {"ImageType": ["ORIGINAL", "PRIMARY", "LOCALIZER"]}


def head(folder: Path, number: int, parameters: dict[str, Any], **options: Any) -> Path:
    """Write a small series that reaches over a head."""
    grid = Grid((5, 4, 10), np.diag([1.0, 1.0, 12.0, 1.0]))
    data = np.arange(np.prod(grid.shape), dtype=np.uint16).reshape(grid.shape)
    return write_series(folder, Volume(data, grid.affine), number, parameters, **options)


def both(folder: Path, change: Callable[[int, Dataset], None]) -> None:
    """Write a T1 whose images are changed, and a FLAIR."""
    head(folder, 1, T1, change=change)
    head(folder, 2, FLAIR)


def two_patients(folder: Path) -> None:
    head(folder, 1, T1)
    head(folder, 2, FLAIR, subject={"PatientID": "SECRET-4712", "PatientName": "Doppelganger^Justine"})


def two_studies(folder: Path) -> None:
    head(folder, 1, T1)
    head(folder, 2, FLAIR, subject={"StudyInstanceUID": "2.25.9"})


def missing_tags(folder: Path) -> None:
    def change(_: int, image: Dataset) -> None:
        del image.ImagePositionPatient, image.ImageOrientationPatient

    both(folder, change)


def localiser_only(folder: Path) -> None:
    head(folder, 1, {**T1, **LOCALISER})


def ct_only(folder: Path) -> None:
    head(folder, 1, CT)


def missing_slice(folder: Path) -> None:
    both(folder, lambda k, image: None)
    (folder / "IM010003").unlink()


def doubled_slice(folder: Path) -> None:
    def change(k: int, image: Dataset) -> None:
        if k == 4:
            image.ImagePositionPatient = ["0", "0", "36"]

    both(folder, change)


def skewed(folder: Path) -> None:
    def change(_: int, image: Dataset) -> None:
        image.ImageOrientationPatient = ["1", "0", "0", "0.7", "0.7", "0"]

    both(folder, change)


def cut_short(folder: Path) -> None:
    both(folder, lambda k, image: None)
    file = folder / "IM010003"
    file.write_bytes(file.read_bytes()[:-20])


def renamed_pictures(folder: Path) -> None:
    for number in range(3):
        (folder / f"{number}.dcm").write_bytes(b"\x89PNG\r\n\x1a\n" + bytes(200))


def report_only(folder: Path) -> None:
    head(folder, 1, {"Modality": "SR", "SOPClassUID": "1.2.840.10008.5.1.4.1.1.88.33"})


def equal_series(folder: Path) -> None:
    head(folder, 1, T1)
    head(folder, 2, T1)
    head(folder, 3, FLAIR)


STUDIES: dict[str, tuple[Callable[[Path], None], type[InputError], str]] = {
    "two patients": (two_patients, StudyError, "the DICOM files are of 2 patients (PatientID differs)."),
    "two studies": (two_studies, StudyError, "the DICOM files hold MR images of 2 studies."),
    "missing tags": (missing_tags, StudyError, "(1 x 10 of 10 images have no valid ImagePositionPatient; 1 x FLAIR)"),
    "localiser only": (localiser_only, StudyError, "no series of the DICOM study is a T1w (1 x a localiser)."),
    "CT": (ct_only, StudyError, "no series of the DICOM study is a T1w (1 x CT, not an MR image)."),
    "report only": (report_only, StudyError, "no series of the DICOM study is a T1w (1 x SR, not an MR image)."),
    "equal series": (equal_series, StudyError, "series 1, 2 of the DICOM study are equally good as T1w."),
    "missing slice": (missing_slice, GeometryError, "1 slice is missing between images 3 and 5 (24 mm apart"),
    "doubled slice": (doubled_slice, GeometryError, "1 slice is missing between images 4 and 6"),
    "non-orthonormal": (skewed, GeometryError, "its direction cosines (ImageOrientationPatient) are not at right"),
    "truncated": (cut_short, FormatError, "series 1: the pixels of image 4 are missing, truncated or damaged."),
    "pictures": (renamed_pictures, FormatError, "no DICOM image was found (3 files are named like DICOM but of"),
}


@pytest.mark.parametrize("case", STUDIES)
def test_a_bad_study(tmp_path: Path, case: str, capsys: pytest.CaptureFixture[str]) -> None:
    write, kind, words = STUDIES[case]
    folder = tmp_path / "Jacqueline Müller"
    folder.mkdir()
    write(folder)
    with pytest.raises(kind) as caught:
        Study.from_dicom(folder)
    assert type(caught.value) is kind
    assert words in str(caught.value)
    assert caught.value.fix.endswith(".")
    assert main(["run", str(folder), "--out", str(tmp_path / "out")]) == 3
    assert main(["study", "show", str(folder)]) == (3 if case == "pictures" else 0)
    said = str(caught.value) + capsys.readouterr().err
    assert not [word for word in (*SECRETS, str(tmp_path), "Justine") if word in said]
    assert not (tmp_path / "out").exists()


def test_contrasts_of_several_frames_of_reference_are_taken(tmp_path: Path) -> None:
    head(tmp_path, 1, T1)
    head(tmp_path, 2, {**FLAIR, "FrameOfReferenceUID": "2.25.5"})
    study = Study.from_dicom(tmp_path)
    assert study.frames is not None
    assert len(set(study.frames.values())) == 2


def test_what_the_libraries_would_say_of_a_name_is_not_said(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    subject = {"PatientName": "Jacqueline"}  # highdicom doubts names without a caret, and quotes them
    with pytest.warns(UserWarning, match="Jacqueline"):
        highdicom.valuerep.check_person_name("Jacqueline")
    head(tmp_path, 1, T1, subject=subject)
    head(tmp_path, 2, FLAIR, subject=subject)
    caplog.set_level("DEBUG")
    study = Study.from_dicom(tmp_path)
    make_result(grid=study["FLAIR"].grid, source=study.source, spheres=()).save(tmp_path / "out")
    assert "Jacqueline" not in caplog.text


def test_the_libraries_are_quiet_only_while_we_use_them(caplog: pytest.LogCaptureFixture) -> None:
    def speak() -> None:
        logging.getLogger("pydicom").warning("Jacqueline")
        logging.getLogger("highdicom.base").warning("Jacqueline")

    with quiet():
        speak()
        warnings.warn("Jacqueline", stacklevel=1)
    assert caplog.text == ""
    assert pydicom.config.settings.reading_validation_mode == pydicom.config.WARN
    speak()
    assert caplog.text.count("Jacqueline") == 2


def outcome(folder: Path, series: dict[str, int]) -> str:
    """Return the name of the error that reading ends in, if it is one of ours."""
    try:
        Study.from_dicom(folder, flair_series=2, **series)
    except RmrError as error:
        return type(error).__name__
    return "read"


def test_damage_of_any_kind_ends_in_an_error_of_ours(tmp_path: Path) -> None:
    """Bytes changed, cut out or put in at random places of headers and pixels."""
    both(tmp_path, lambda k, image: None)
    grid = Grid((5, 4, 10), np.diag([1.0, 1.0, 12.0, 1.0]))
    write_enhanced(tmp_path, [Volume(np.ones(grid.shape, np.uint16), grid.affine)], 3, T1)
    whole = {file: file.read_bytes() for file in sorted(tmp_path.iterdir())}
    chance, outcomes = np.random.default_rng(5), set()
    for _ in range(12):
        for file in (*chance.choice(list(whole), 2), tmp_path / "ENH03"):
            data = bytearray(whole[file])
            for place in chance.integers(132, len(data), 12):
                data[place : place + chance.integers(0, 4)] = chance.bytes(chance.integers(0, 4))
            file.write_bytes(data)
        for series in ({"t1_series": 1}, {"t1_series": 3}):
            outcomes.add(outcome(tmp_path, series))
        for file, data in whole.items():
            file.write_bytes(data)
    assert len(outcomes) > 1
