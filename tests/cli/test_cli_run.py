"""`rmr run`: what it writes where."""

from __future__ import annotations

import gzip
import json
import logging
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from tiny_study import SHAPE, lesion_mask, make_grid, make_study, write_study

from rmr_sdk import Study
from rmr_sdk.cli import main
from rmr_sdk.io.nifti import read_volume
from rmr_sdk.io.report import decode_report
from rmr_sdk.result import OUTPUT_FILES

Rmr = Callable[..., int]


def test_a_study_folder(rmr: Rmr, folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert rmr("run", folder, "--out", tmp_path / "new" / "out") == 0
    printed = capsys.readouterr()
    assert printed.err == ""
    assert "1 lesion, " in printed.out
    assert "Research software, not a medical device." in printed.out
    assert f"Written:  {tmp_path / 'new' / 'out'}: fused.nii.gz, labels.nii.gz" in printed.out
    assert sorted(path.name for path in (tmp_path / "new" / "out").iterdir()) == sorted(OUTPUT_FILES)
    labels, _ = read_volume(tmp_path / "new" / "out" / "labels.nii.gz")
    assert np.array_equal(labels.affine, make_grid().affine)
    assert (labels.data[lesion_mask(make_grid()).data > 0] == 4).all()


def test_two_files_and_json(rmr: Rmr, folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    files = ("--t1", folder / "t1.nii.gz", "--flair", folder / "flair.nii.gz")
    options = ("--overlap", 0.5, "--threads", 1, "--precision", "fp32", "--reference", "T1w", "--align", "header")
    assert rmr("run", *files, *options, "--out", tmp_path, "--json") == 0
    printed = capsys.readouterr()
    assert printed.err == ""
    assert printed.out == (tmp_path / "report.json").read_text()
    report = decode_report(printed.out.encode())
    assert (report.reference, report.provenance.overlap, report.provenance.threads) == ("T1w", 0.5, 1)
    assert report.lesions is not None
    assert report.lesions.count == 1


def test_overwrite(rmr: Rmr, folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "labels.nii.gz").write_text("earlier")
    assert rmr("run", folder, "--out", tmp_path) == 6
    assert "OutputError: " in capsys.readouterr().err
    assert (tmp_path / "labels.nii.gz").read_text() == "earlier"
    assert rmr("run", folder, "--out", tmp_path, "--overwrite") == 0
    assert read_volume(tmp_path / "labels.nii.gz")[0].data.shape == SHAPE


def test_non_finite_voxels_can_be_background(rmr: Rmr, tmp_path: Path) -> None:
    clean = make_study()
    masked = {name: np.where(volume.data == 0, np.nan, volume.data) for name, volume in clean.items()}
    study = write_study(tmp_path / "study", Study.from_arrays(masked, affine=make_grid().affine))
    assert rmr("run", study, "--out", tmp_path / "out", "--non-finite", "zero") == 0


def test_warnings_appear_on_stderr_once(
    bundle: Path, folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "file").touch()
    arguments = ["run", str(folder), "--bundle", str(bundle), "--out", str(tmp_path / "out")]
    assert main([*arguments, "--cache-dir", str(tmp_path / "file"), "--json"]) == 0
    printed = capsys.readouterr()
    assert printed.err.count("The engine cache cannot be written") == 1
    assert printed.err.startswith("rmr: warning: ")
    assert len(printed.err.splitlines()) == 1
    assert "The engine cache cannot be written" in json.loads(printed.out)["warnings"][0]
    assert [type(each) for each in logging.getLogger("rmr_sdk").handlers] == [logging.NullHandler]


def test_debug_shows_stages_and_tracebacks(rmr: Rmr, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write_study(tmp_path)
    assert rmr("run", tmp_path, "--out", tmp_path / "out", "--overlap", 1.5, "--debug") == 3
    printed = capsys.readouterr().err
    assert "rmr: info: opened tiny: openvino (the default engine)" in printed
    assert "Traceback (most recent call last)" in printed
    assert printed.splitlines()[-1].startswith("rmr: ConfigError: overlap 1.5 is out of range.")


def test_a_terminal_gets_a_progress_bar(
    rmr: Rmr, folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True)
    assert rmr("run", folder, "--out", tmp_path, "--json") == 0
    printed = capsys.readouterr()
    for words in ("Reading the study", "Opening the bundle", "Computing tiles", "Measuring", "Writing"):
        assert words in printed.err
    json.loads(printed.out)


def test_no_output_names_the_folder_of_the_study(rmr: Rmr, tmp_path: Path) -> None:
    study = write_study(tmp_path / "DOE^JANE-1970", make_study())
    assert rmr("run", study, "--out", tmp_path / "out") == 0
    for file in (tmp_path / "out").iterdir():
        data = file.read_bytes()
        assert b"JANE" not in (gzip.decompress(data) if file.suffix == ".gz" else data)
