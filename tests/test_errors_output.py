"""Everything that can stop a result from being written, and what stays behind: nothing."""

from __future__ import annotations

import errno
import os
from collections.abc import Callable
from pathlib import Path

import pytest
from sample_results import make_result

from rmr_sdk.errors import FormatError, OutputError, RmrError
from rmr_sdk.io import files, nifti, report
from rmr_sdk.result import OUTPUT_FILES, Result, check_save

Prepare = Callable[[Path, pytest.MonkeyPatch], Path]


def existing_file(folder: Path, _: pytest.MonkeyPatch) -> Path:
    (folder / "labels.nii.gz").write_text("earlier")
    return folder


def dangling_link(folder: Path, _: pytest.MonkeyPatch) -> Path:
    (folder / "report.json").symlink_to(folder / "nowhere")
    return folder


def folder_in_the_way(folder: Path, _: pytest.MonkeyPatch) -> Path:
    (folder / "fused.nii.gz").mkdir()
    return folder


def file_as_folder(folder: Path, _: pytest.MonkeyPatch) -> Path:
    (folder / "out").write_text("a file")
    return folder / "out"


def file_as_parent(folder: Path, _: pytest.MonkeyPatch) -> Path:
    (folder / "out").write_text("a file")
    return folder / "out" / "deeper"


def name_too_long(folder: Path, _: pytest.MonkeyPatch) -> Path:
    return folder / ("n" * 300)


def read_only(folder: Path, patch: pytest.MonkeyPatch) -> Path:
    patch.setattr(os, "access", lambda path, mode: False)  # root may write anywhere
    return folder / "out"


def disk_full(folder: Path, patch: pytest.MonkeyPatch) -> Path:
    def fail(staging: Path, result: Result) -> None:
        (staging / "report.json").write_text("half")
        raise OSError(errno.ENOSPC, "No space left on device")

    patch.setattr(report, "write_report", fail)
    return folder / "new" / "out"


def volume_fails(folder: Path, patch: pytest.MonkeyPatch) -> Path:
    def fail(file: object, volume: object, *, gzipped: bool, description: str) -> None:
        raise OSError(errno.EIO, "Input/output error")

    patch.setattr(nifti, "write_stream", fail)
    return folder


def rename_fails(folder: Path, patch: pytest.MonkeyPatch) -> Path:
    replace = Path.replace

    def fail(self: Path, target: Path) -> Path:
        if target.name == "report.html":
            raise OSError(errno.EROFS, "Read-only file system")
        return replace(self, target)

    patch.setattr(Path, "replace", fail)
    return folder


@pytest.mark.parametrize(
    ("prepare", "words"),
    [
        (existing_file, r"labels\.nii\.gz exists\. Pass overwrite=True"),
        (dangling_link, r"report\.json exists"),
        (folder_in_the_way, r"fused\.nii\.gz is a folder\. Remove it"),
        (file_as_folder, r"out is not a folder\. Give another"),
        (file_as_parent, r"out is not a folder\. Give another"),
        (name_too_long, r"File name too long\. Check the folder"),
        (read_only, r"may not be written\. Change its permissions"),
        (disk_full, r"No space left on device\. Free some space"),
        (volume_fails, r"Input/output error\. Check the folder"),
        (rename_fails, r"Read-only file system\. Check the folder"),
    ],
)
def test_save_refuses_and_leaves_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, prepare: Prepare, words: str
) -> None:
    target = prepare(tmp_path, monkeypatch)
    before = sorted(tmp_path.rglob("*"))
    with pytest.raises(OutputError, match=words) as caught:
        make_result().save(target)
    assert caught.value.exit_code == 6
    assert sorted(tmp_path.rglob("*")) == before


@pytest.mark.parametrize("prepare", [existing_file, file_as_folder, file_as_parent, folder_in_the_way, read_only])
def test_the_same_is_refused_before_the_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, prepare: Prepare) -> None:
    with pytest.raises(OutputError):
        check_save(prepare(tmp_path, monkeypatch))


def test_a_folder_in_the_way_is_refused_with_overwrite_too(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(OutputError, match="is a folder"):
        make_result().save(folder_in_the_way(tmp_path, monkeypatch), overwrite=True)


def test_overwriting_keeps_the_earlier_files_when_it_fails(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    make_result().save(tmp_path)
    before = {path.name: path.read_bytes() for path in tmp_path.iterdir()}
    with pytest.raises(OutputError):
        make_result(notice="other").save(Path(disk_full(tmp_path, monkeypatch)).parents[1], overwrite=True)
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == before


def test_an_interrupt_leaves_nothing(tmp_path: Path) -> None:
    def interrupted() -> None:
        with files.output_folder(tmp_path / "a" / "b", OUTPUT_FILES, overwrite=False) as staging:
            (staging / "fused.nii.gz").write_text("half")
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        interrupted()
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("data", "words"),
    [(b"\xff{", "breaks its schema"), (b"{}", "missing required field"), (b'{"schema_version": 2}', "schema_version")],
)
def test_reports_that_cannot_be_read(data: bytes, words: str) -> None:
    with pytest.raises(FormatError, match=words) as caught:
        report.decode_report(data)
    assert isinstance(caught.value, RmrError)
