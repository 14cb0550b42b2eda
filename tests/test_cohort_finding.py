"""Cohorts: which studies are found in a BIDS data set, a folder and a table, and what they are called."""

from __future__ import annotations

import errno
import os
from pathlib import Path
from typing import Any

import pytest
from test_cohort import names, touch, write_bids

from rmr_sdk.cohort import find_studies
from rmr_sdk.errors import FormatError, StudyError


def test_a_bids_data_set(tmp_path: Path) -> None:
    for file in (
        "sub-02/ses-B/anat/sub-02_ses-B_T1w.nii.gz",
        "sub-02/ses-A/anat/sub-02_ses-A_FLAIR.nii",
        "sub-01/anat/sub-01_T1w.nii.gz",
        "sub-03/func/sub-03_bold.nii.gz",
        "sub-04/anat/sub-04_T2w.nii.gz",
        "derivatives/sub-09/anat/sub-09_T1w.nii.gz",
        "sourcedata/x/y.dcm",
    ):
        touch(tmp_path / file)
    cohort = find_studies(tmp_path)
    assert cohort.kind == "bids"
    assert names(cohort) == ["sub-01", "sub-02_ses-A", "sub-02_ses-B"]
    assert [study.entities for study in cohort.studies] == [("sub-01",), ("sub-02", "ses-A"), ("sub-02", "ses-B")]


def test_a_folder_of_studies(tmp_path: Path) -> None:
    for file in ("b/t1.nii.gz", "a folder/IM001", "c.zip", ".hidden/t1.nii.gz", "results/x/report.json", "notes.txt"):
        touch(tmp_path / file)
    cohort = find_studies(tmp_path, leave_out=tmp_path / "results")
    assert (cohort.kind, names(cohort)) == ("folders", ["a folder", "b", "c.zip"])


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("study,t1,flair\nA,x/1.nii,x/2.nii\n\u00dc b,/y/1.nii,/y/2.nii\n", ["A", "\u00dc b"]),
        ("\ufeffFLAIR, study ,T1\nf.nii,A,t.nii\n", ["A"]),
        ("study,folder\nA,one\nB,two.zip\n", ["A", "B"]),
    ],
)
def test_a_table(tmp_path: Path, text: str, expected: list[str]) -> None:
    (tmp_path / "cohort.csv").write_text(text, encoding="utf-8")
    cohort = find_studies(tmp_path / "cohort.csv")
    assert (cohort.kind, names(cohort)) == ("csv", expected)
    first = cohort.studies[0]
    assert (first.folder or next(iter((first.files or {}).values()))).is_relative_to(tmp_path)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("study,t1\nA,x.nii\n", 'Line 2 of the table says nothing under "flair"'),
        ("study,folder\nA,x\n,y\n", 'Line 3 of the table says nothing under "study"'),
        ("study,folder\nA,x\nA,y\n", 'Line 3 of the table names "A" again'),
        ("study,folder\n../A,x\n", "Line 2 of the table has a study name that cannot name a folder"),
        ("study,folder\n.A,x\n", "a study name that cannot name a folder"),
        ("study,folder\nA,x\nsummary.csv,y\n", 'Line 3 of the table calls a study "summary.csv", like the summary'),
        ("study,folder\nSummary.JSON,x\n", 'Line 2 of the table calls a study "Summary.JSON", like the summary'),
        ("study,folder\nA,x\0y\n", "NUL"),
        ("study,t1,flair\nA,x,y\0\n", "NUL"),
        ("study,folder\n", "The table holds no study"),
        ("", "The table holds no study"),
    ],
)
def test_tables_that_are_refused(tmp_path: Path, text: str, words: str) -> None:
    (tmp_path / "cohort.csv").write_text(text)
    with pytest.raises(FormatError, match=words):
        find_studies(tmp_path / "cohort.csv")


def test_a_table_that_is_no_text(tmp_path: Path) -> None:
    (tmp_path / "cohort.csv").write_bytes(b"study,folder\n\xff\xfe,x\n")
    with pytest.raises(FormatError, match="The table cannot be read"):
        find_studies(tmp_path / "cohort.csv")


def test_places_without_studies(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(StudyError, match=r"is not a folder and not a \.csv file"):
        find_studies(tmp_path / "nowhere")
    touch(tmp_path / "t1.nii.gz")
    with pytest.raises(StudyError, match=r"holds no study.*`rmr run`"):
        find_studies(tmp_path)

    def refuse(self: Path, *_: Any) -> None:
        raise PermissionError(errno.EACCES, "Permission denied")

    monkeypatch.setattr(Path, "glob", refuse)
    with pytest.raises(StudyError, match="cannot be read: Permission denied"):
        find_studies(tmp_path)


def test_a_folder_that_is_called_like_the_summary(tmp_path: Path) -> None:
    touch(tmp_path / "summary.json" / "t1.nii.gz")
    with pytest.raises(StudyError, match=r'a study is called "summary\.json", like the summary'):
        find_studies(tmp_path)


def test_names_that_are_not_utf_8_become_printable(tmp_path: Path) -> None:
    folder = tmp_path / os.fsdecode(b"M\xfcller")
    bids = tmp_path / "bids" / os.fsdecode(b"sub-\xfc")
    try:
        touch(folder / "t1.nii.gz")
    except OSError:
        pytest.skip("the file system takes no such name")
    touch(bids / "anat" / "sub-1_T1w.nii.gz")
    study = find_studies(tmp_path).studies[0]
    assert (study.name, study.folder) == ("M\\xfcller", folder)
    (subject,) = find_studies(tmp_path / "bids").studies
    assert (subject.name, subject.entities, subject.folder) == ("sub-\\xfc", ("sub-\\xfc",), bids)


def test_studies_hide_their_paths(tmp_path: Path) -> None:
    write_bids(tmp_path / "DOE_JANE", "sub-01")
    cohort = find_studies(tmp_path / "DOE_JANE")
    assert "JANE" not in repr(cohort) + repr(cohort.studies)
