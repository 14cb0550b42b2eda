"""DICOM objects beside the other files of a result: all or none, where they may go, and whom they name."""

from __future__ import annotations

import sys
from pathlib import Path

import pydicom
import pytest
from dicom_studies import SECRETS
from sample_results import make_fused_only, make_result
from test_dicom_out import SHAPE, head_grid, result_of, write_study

from rmr_sdk import Study
from rmr_sdk.errors import ConfigError, DeviceUnavailableError, OutputError
from rmr_sdk.result import check_save


def test_patient_data_is_in_dicom_objects_alone(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    study = write_study(tmp_path / "in", head_grid("LPS"))
    caplog.set_level("DEBUG")
    result = result_of(study)
    result.save(tmp_path / "out")
    said = " ".join((repr(study), repr(result), str(result), repr(study.source), caplog.text, *study.notes))
    assert not [word for word in SECRETS if word in said]
    for file in (tmp_path / "out").iterdir():
        if file.is_file() and file.suffix != ".gz":
            assert not [word for word in SECRETS if word.encode() in file.read_bytes()], file.name
    assert b"Doppelganger^Jacqueline" in (tmp_path / "out" / "dicom" / "segmentation.dcm").read_bytes()


def test_saving_gives_all_files(tmp_path: Path) -> None:
    files = result_of(write_study(tmp_path / "in", head_grid("LPS"))).save(tmp_path / "out")
    assert len(files) == 6 + SHAPE[2] + 2
    assert all(file.is_file() for file in files)
    assert tmp_path / "out" / "dicom" / "fused" / "0001.dcm" in files


def test_dicom_can_be_left_out_and_needs_a_source(tmp_path: Path) -> None:
    result = result_of(write_study(tmp_path / "in", head_grid("LPS")))
    result.save(tmp_path / "out", dicom=False)
    assert not (tmp_path / "out" / "dicom").exists()
    with pytest.raises(ConfigError, match="this study did not come from DICOM"):
        make_result().save(tmp_path / "other", dicom=True)
    assert not (tmp_path / "other").exists()


def test_an_earlier_folder_is_replaced_and_removed_only_where_it_is_ours(tmp_path: Path) -> None:
    result, out = result_of(write_study(tmp_path / "in", head_grid("LPS"))), tmp_path / "out"
    result.save(out)
    first = pydicom.dcmread(out / "dicom" / "fused" / "0001.dcm").SOPInstanceUID
    for name in out.iterdir():
        if name.is_file():
            name.unlink()
    with pytest.raises(OutputError, match=r"dicom exists\. Pass overwrite=True"):
        result.save(out)
    result.save(out, overwrite=True)
    assert pydicom.dcmread(out / "dicom" / "fused" / "0001.dcm").SOPInstanceUID != first
    result_of(write_study(tmp_path / "in", head_grid("LPS")), make_fused_only).save(out, overwrite=True)
    assert not (out / "dicom" / "segmentation.dcm").exists()
    make_result().save(out, overwrite=True)
    assert not (out / "dicom").exists()


@pytest.mark.parametrize("kind", ["file of another name", "file", "link"])
def test_a_folder_of_another_origin_is_never_replaced(tmp_path: Path, kind: str) -> None:
    result, target = (
        result_of(write_study(tmp_path / "in", head_grid("LPS")), make_fused_only),
        tmp_path / "out" / "dicom",
    )
    target.parent.mkdir()
    if kind == "link":
        target.symlink_to(tmp_path / "in")
    elif kind == "file":
        target.write_text("mine")
    else:
        (target / "fused").mkdir(parents=True)
        (target / "fused" / "IM0001.dcm").write_text("mine")
    before = sorted(tmp_path.rglob("*"))
    for refuse in (
        lambda: check_save(target.parent, True, None, result.source),
        lambda: result.save(target.parent, True),
    ):
        with pytest.raises(OutputError, match="dicom holds files that no earlier run wrote"):
            refuse()
    assert sorted(tmp_path.rglob("*")) == before
    make_result().save(target.parent, overwrite=True)  # a result without DICOM has no need of the place
    assert set(before) <= set(tmp_path.rglob("*"))


def test_a_rename_that_fails_brings_the_earlier_folder_back(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    result, out = result_of(write_study(tmp_path / "in", head_grid("LPS")), make_fused_only), tmp_path / "out"
    result.save(out)
    before = {path: path.read_bytes() for path in (out / "dicom").rglob("*.dcm")}
    replace = Path.replace

    def fail(self: Path, target: Path) -> Path:
        if target.name == "report.html":
            raise OSError(30, "Read-only file system")
        return replace(self, target)

    monkeypatch.setattr(Path, "replace", fail)
    with pytest.raises(OutputError, match="Read-only file system"):
        result.save(out, overwrite=True)
    assert {path: path.read_bytes() for path in (out / "dicom").rglob("*.dcm")} == before


def test_a_full_disk_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    result = result_of(write_study(tmp_path / "in", head_grid("LPS")))

    def fail(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("rmr_sdk.io.dicom_out.write_measurements", fail)
    with pytest.raises(OutputError, match=r"No space left on device\. Free some space"):
        result.save(tmp_path / "a" / "out")
    assert not (tmp_path / "a").exists()


@pytest.mark.parametrize("library", ["pydicom", "highdicom"])
def test_without_the_extra(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, library: str) -> None:
    study = write_study(tmp_path / "in", head_grid("LPS"))
    monkeypatch.setitem(sys.modules, library, None)
    fix = f'DICOM needs {library}, which is not installed. Run: pip install "rmr-sdk\\[dicom\\]"'
    for use in (
        lambda: check_save(tmp_path / "out", source=study.source, dicom=None),
        lambda: result_of(study).save(tmp_path / "out"),
    ):
        with pytest.raises(DeviceUnavailableError, match=fix):
            use()
    if library == "pydicom":
        with pytest.raises(DeviceUnavailableError, match=fix):
            Study.from_folder(tmp_path / "in")
    assert not (tmp_path / "out").exists()
