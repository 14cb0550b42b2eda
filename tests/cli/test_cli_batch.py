"""`rmr batch`: one line per study, one summary, and an exit code that tells whether some failed."""

from __future__ import annotations

import csv
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from tiny_study import make_study, write_study

from rmr_sdk.cohort.summary import decode_summary
from rmr_sdk.io.nifti import write_volume

Rmr = Callable[..., int]


@pytest.fixture
def batch(rmr: Rmr, bundle: Path, tmp_path: Path) -> Callable[..., int]:
    """Give a function that runs `rmr batch` with the tiny bundle."""
    return lambda *arguments: rmr("batch", "--bundle", bundle, "--cache-dir", tmp_path / "cache", *arguments)


def test_a_folder_of_studies(batch: Rmr, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for name in ("study 1", "étude-2"):
        write_study(tmp_path / "in put" / name)
    out = tmp_path / "résultats 1"
    assert batch(tmp_path / "in put", "--out", out) == 0
    printed = capsys.readouterr()
    assert printed.err == ""
    first, second, *rest = printed.out.splitlines()
    assert first.startswith("[1/2] study 1: 1 lesion, 0.37 ml, ")
    assert second.startswith("[2/2] étude-2: 1 lesion, ")
    assert rest == [
        "Studies:  2: 2 done, 0 failed",
        f"Written:  {out}: summary.csv, summary.json",
        "Research software, not a medical device. Not for diagnosis or for decisions about treatment.",
    ]
    assert (out / "étude-2" / "report.html").is_file()
    assert batch(tmp_path / "in put", "--out", out) == 0
    assert "2 done (2 of them before), 0 failed" in capsys.readouterr().out
    for level in ("--lesion-threshold", "--least-lesion-probability"):
        assert batch(tmp_path / "in put", "--out", out, level, "1") == 0
        assert "[2/2] étude-2: 0 lesions, " in capsys.readouterr().out


def test_a_table_with_a_failure(batch: Rmr, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write_study(tmp_path / "x")
    (tmp_path / "png.nii.gz").write_bytes(b"\x89PNG\r\n\x1a\n" + bytes(400))
    table = tmp_path / "cohort.csv"
    table.write_text("study,t1,flair\nbad,png.nii.gz,x/flair.nii.gz\ngood,x/t1.nii.gz,x/flair.nii.gz\n")
    assert batch(table, "--out", tmp_path / "out") == 3
    printed = capsys.readouterr().out
    assert "[1/2] bad: failed: FormatError: the T1w file is not a NIfTI file." in printed
    assert "[2/2] good: 1 lesion" in printed
    assert str(tmp_path / "png.nii.gz") not in printed
    with open(tmp_path / "out" / "summary.csv", newline="", encoding="utf-8") as file:
        assert [row["status"] for row in csv.DictReader(file)] == ["failed", "done"]
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == [
        ".rmr-batch",
        "good",
        "summary.csv",
        "summary.json",
    ]


def test_json(batch: Rmr, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write_study(tmp_path / "in" / "a")
    assert batch(tmp_path / "in", "--out", tmp_path / "out", "--json", "--overlap", 0.5, "--no-dicom") == 0
    printed = capsys.readouterr().out
    assert json.loads(printed)["done"] == 1
    assert printed == (tmp_path / "out" / "summary.json").read_text()


@pytest.mark.parametrize(
    ("arguments", "code", "words"),
    [
        (("nowhere", "--out", "out"), 3, 'StudyError: "nowhere" is not a folder and not a .csv file.'),
        (("in", "--out", "in"), 3, "ConfigError: results would go among the studies."),
        (("in", "--out", "in/a/t1.nii.gz"), 6, "OutputError: in/a/t1.nii.gz is not a folder."),
        (("in", "--out", "out", "--bundle", "no-such"), 4, 'BundleError: There is no bundle "no-such"'),
        (("in", "--out", "out", "--engine", "caffe"), 3, 'ConfigError: There is no engine "caffe".'),
    ],
)
def test_what_stops_it(
    batch: Rmr,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    arguments: tuple[str, ...],
    code: int,
    words: str,
) -> None:
    write_study(tmp_path / "in" / "a")
    monkeypatch.chdir(tmp_path)
    assert batch(*arguments) == code
    printed = capsys.readouterr()
    assert printed.err.startswith(f"rmr: {words}")
    assert printed.err.count("\n") == 1


def test_a_wrong_option_fails_every_study_and_is_told(
    batch: Rmr, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write_study(tmp_path / "in" / "a")
    assert batch(tmp_path / "in", "--out", tmp_path / "out", "--overlap", 2) == 3
    assert "a: failed: ConfigError: overlap 2.0 is out of range." in capsys.readouterr().out


def command(bundle: Path, tmp_path: Path, *arguments: object) -> list[str]:
    """Return the command line of a process of its own."""
    words = ("batch", tmp_path / "in", "--out", tmp_path / "out", "--bundle", bundle, "--cache-dir", tmp_path / "cache")
    return [sys.executable, "-m", "rmr_sdk", *map(str, (*words, *arguments))]


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_stops_it_with_what_is_done_kept(bundle: Path, tmp_path: Path, number: signal.Signals) -> None:
    first = write_study(tmp_path / "in" / "000")
    for index in range(1, 200):
        folder = tmp_path / "in" / f"{index:03d}"
        folder.mkdir()
        for name in ("t1.nii.gz", "flair.nii.gz"):
            os.link(first / name, folder / name)
    process = subprocess.Popen(
        command(bundle, tmp_path, "--threads", 1),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        # Children of a shell's background job ignore SIGINT otherwise.
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    )
    assert process.stdout is not None
    for _ in range(2):
        assert "done" not in process.stdout.readline()
    time.sleep(0.2)
    process.send_signal(number)
    _, errors = process.communicate(timeout=60)
    assert process.returncode == 130
    assert errors == "rmr: Cancelled: the command was interrupted.\n"
    summary = decode_summary((tmp_path / "out" / "summary.json").read_bytes())
    finished = {row.study for row in summary.studies}
    assert summary.total == 200
    assert 2 <= len(finished) < 200
    folders = {path.name for path in (tmp_path / "out").iterdir() if path.is_dir()} - {".rmr-batch"}
    assert finished <= folders
    assert len(folders - finished) <= 1  # at most the one whose files were just complete
    assert not list((tmp_path / "out").rglob(".rmr-*.part"))
    assert all((tmp_path / "out" / name / "report.html").is_file() for name in folders)


@pytest.mark.slow
def test_on_a_local_cluster_of_two_workers(bundle: Path, tmp_path: Path) -> None:
    pytest.importorskip("ray", reason="the extra `ray` is not installed")
    study = make_study()
    for name in ("sub-01", "sub-02", "sub-03"):
        (tmp_path / "in" / name / "anat").mkdir(parents=True)
        for contrast in ("T1w", "FLAIR")[: 1 if name == "sub-02" else 2]:
            write_volume(tmp_path / "in" / name / "anat" / f"{name}_{contrast}.nii.gz", study[contrast])
    environment = {**os.environ, "RAY_OVERRIDE_RESOURCES": '{"CPU": 2}', "OMP_NUM_THREADS": "1"}
    run = subprocess.run(
        command(bundle, tmp_path, "--ray", "--threads", 1),
        capture_output=True,
        text=True,
        timeout=180,
        env=environment,
        check=False,
    )
    assert run.returncode == 3, run.stderr
    summary = decode_summary((tmp_path / "out" / "summary.json").read_bytes())
    assert [(row.study, row.status) for row in summary.studies] == [
        ("sub-01", "done"),
        ("sub-02", "failed"),
        ("sub-03", "done"),
    ]
    for name in ("sub-01", "sub-03"):
        assert len(list((tmp_path / "out" / name / "anat").iterdir())) == 6
    again = subprocess.run(
        command(bundle, tmp_path, "--json"), capture_output=True, text=True, timeout=120, check=False
    )
    assert [row["resumed"] for row in json.loads(again.stdout)["studies"]] == [True, False, True]
