"""`rmr study show`, and `rmr run` on DICOM: what is listed, taken, written and told."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pydicom
import pytest
from dicom_studies import FLAIR, SECRETS, T1, write_series
from tiny_study import make_grid, make_study, write_study

from rmr_sdk import Study
from rmr_sdk.io.nifti import read_volume
from rmr_sdk.io.report import decode_report
from rmr_sdk.result import OUTPUT_FILES
from rmr_sdk.volume import Volume

Rmr = Callable[..., int]


@pytest.fixture(scope="module")
def dicom(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Give a DICOM study of the tiny head: T1, FLAIR, a localiser and a T1 after contrast agent."""
    folder, head = tmp_path_factory.mktemp("dicom"), make_study(make_grid("LPS"), np.uint16)
    write_series(folder / "a", head["T1w"], 3, T1)
    write_series(folder / "b", head["FLAIR"], 5, FLAIR)
    write_series(folder / "c", head["T1w"], 1, {**T1, "ImageType": ["ORIGINAL", "PRIMARY", "LOCALIZER"]})
    write_series(folder / "d", head["T1w"], 8, {**T1, "ContrastBolusAgent": "Gadovist"})
    return folder


def test_run_gives_what_it_gives_for_the_same_head_as_nifti(
    rmr: Rmr, dicom: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    nifti = write_study(tmp_path / "nifti", make_study(make_grid("LPS"), np.uint16))
    assert rmr("run", nifti, "--out", tmp_path / "expected") == 0
    assert rmr("run", dicom, "--out", tmp_path / "out") == 0
    printed = capsys.readouterr()
    assert printed.err == ""
    assert "preview.png, report.html, report.json, dicom/ (24 files)" in printed.out
    for name in ("labels", "fused", "lesion_probability"):
        expected, found = (read_volume(tmp_path / run / f"{name}.nii.gz")[0] for run in ("expected", "out"))
        np.testing.assert_allclose(found.affine, expected.affine, atol=1e-5)
        np.testing.assert_array_equal(found.data, expected.data)
    report = decode_report((tmp_path / "out" / "report.json").read_bytes())
    assert report.provenance.geometry[:2] == (
        "T1w: DICOM series 3 (3D inversion recovery gradient echo, TR 2300, TE 2.98, TI 900 ms)",
        "FLAIR: DICOM series 5 (2D inversion recovery spin echo, TR 9000, TE 120, TI 2500 ms)",
    )


def test_no_output_beside_dicom_names_the_patient(
    rmr: Rmr, dicom: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert rmr("run", dicom, "--out", tmp_path / "out", "--debug") == 0
    printed = capsys.readouterr()
    said = printed.out + printed.err
    said += "".join((tmp_path / "out" / name).read_bytes().decode("latin-1") for name in OUTPUT_FILES)
    assert not [word for word in (*SECRETS, "t1_mprage_sag") if word in said]
    (tmp_path / "out" / "dicom" / "segmentation.dcm").read_bytes().index(SECRETS[0].encode())


def test_series_options_and_no_dicom(rmr: Rmr, dicom: Path, tmp_path: Path) -> None:
    archive = shutil.make_archive(str(tmp_path / "study"), "zip", dicom)
    assert rmr("run", archive, "--t1-series", 8, "--flair-series", 5, "--out", tmp_path / "out", "--no-dicom") == 0
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == sorted(OUTPUT_FILES)
    report = decode_report((tmp_path / "out" / "report.json").read_bytes())
    assert report.provenance.geometry[0] == "T1w: DICOM series 8 (named by hand)"


def test_an_existing_dicom_folder_is_refused_before_the_run(
    rmr: Rmr, dicom: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    shutil.copytree(dicom / "a", tmp_path / "out" / "dicom")
    assert rmr("run", dicom, "--out", tmp_path / "out", "--overwrite") == 6
    assert "dicom holds files that no earlier run wrote" in capsys.readouterr().err
    assert len(list((tmp_path / "out" / "dicom").iterdir())) == 22


def test_errors_of_series_options(
    rmr: Rmr, dicom: Path, folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert rmr("run", dicom, "--t1-series", 4, "--out", tmp_path / "out") == 3
    assert "there is no series 4 (--t1-series). Name one of 1, 3, 5, 8." in capsys.readouterr().err
    files = ("--t1", folder / "t1.nii.gz", "--flair", folder / "flair.nii.gz")
    with pytest.raises(SystemExit) as caught:
        rmr("run", *files, "--t1-series", 3, "--out", tmp_path / "out")
    assert caught.value.code == 2
    assert not (tmp_path / "out").exists()


def test_show_lists_every_series(rmr: Rmr, dicom: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert rmr("study", "show", dicom) == 0
    lines = capsys.readouterr().out.splitlines()
    assert " ".join(lines[0].split()) == "series take is images size spacing mm TR TE TI description"
    rows = [line.split("  ") for line in lines[1:] if not line.startswith("    ")]
    assert [row[0] for row in rows] == ["1", "3", "5", "8"]
    assert [" ".join(row).split()[1] for row in rows] == ["-", "T1w", "FLAIR", "-"]
    assert "    a localiser" in lines
    assert any(line.endswith("TI 900 ms, after contrast agent") for line in lines)
    assert "t1_mprage_sag" in lines[1]


def test_show_as_json(rmr: Rmr, dicom: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert rmr("study", "show", dicom, "--json") == 0
    found = json.loads(capsys.readouterr().out)
    assert found["format"] == "DICOM"
    series = {one["series"]: one for one in found["volumes"]}
    assert (series["5"]["take"], series["5"]["series_uid"], series["5"]["size"]) == ("FLAIR", "2.25.3005", [20, 24, 22])
    assert (series["1"]["is"], series["1"]["why"]) == ("", "a localiser")


def test_show_tells_problems_and_what_a_run_would_say(
    rmr: Rmr, dicom: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    def change(_: int, image: pydicom.Dataset) -> None:
        image.SeriesDescription = "t1\x1b[31m"
        image.add_new(0x20050010, "LO", "Philips MR Imaging DD 001")
        image.add_new(0x2005100E, "FL", 0.004)

    write_series(tmp_path, Study.from_dicom(dicom)["T1w"], 3, T1, change=change)
    (tmp_path / "IM030004").unlink()
    (tmp_path / "x.dcm").write_bytes(bytes(200))
    assert rmr("study", "show", tmp_path) == 0
    printed = capsys.readouterr().out
    assert "t1?[31m" in printed
    assert "1 slice is missing between images 4 and 6" in printed
    assert "Philips' private scale factors are not applied" in printed
    assert "Warning: 1 file is named like DICOM but of another kind: left out" in printed
    assert "Warning: no series of the DICOM study is a FLAIR (1 x T1w)." in printed


def test_show_a_nifti_folder(rmr: Rmr, folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert rmr("study", "show", folder) == 0
    assert "FLAIR: 20 x 24 x 22 voxels, 1 x 1 x 1 mm" in capsys.readouterr().out
    assert rmr("study", "show", folder, "--json") == 0
    assert [one["take"] for one in json.loads(capsys.readouterr().out)["volumes"]] == ["T1w", "FLAIR"]
    assert rmr("study", "show", tmp_path / "nothing") == 3
    assert "is not a folder" in capsys.readouterr().err


def test_two_patients_are_told_in_the_list_too(rmr: Rmr, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    head = make_study(make_grid("LPS"), np.uint16)
    write_series(tmp_path, Volume(head["T1w"].data, head["T1w"].affine), 1, T1)
    write_series(tmp_path, head["FLAIR"], 2, FLAIR, subject={"PatientID": "another"})
    assert rmr("study", "show", tmp_path) == 0
    printed = capsys.readouterr().out
    assert printed.count("Warning: the DICOM files are of 2 patients (PatientID differs).") == 1
    assert "another" not in printed
