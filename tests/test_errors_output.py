"""Everything that can stop a result from being written, and what stays behind: nothing."""

from __future__ import annotations

import errno
import os
import resource
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
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
    def fail(staging: Path, result: Result, names: Mapping[str, str]) -> None:
        (staging / names["json"]).write_text("half")
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


def contents(folder: Path) -> dict[str, bytes]:
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


@contextmanager
def files_at_most(size: int) -> Iterator[None]:
    """Let the kernel refuse every file that grows beyond a size, as a disk that is nearly full does."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


@pytest.mark.parametrize("size", [4_000, 200_000], ids=["in a volume", "in the report"])
def test_a_disk_that_fills_up(tmp_path: Path, size: int) -> None:
    result = make_result()
    result.save(tmp_path / "earlier")
    largest = {name: len(data) for name, data in contents(tmp_path / "earlier").items()}
    assert max(largest[name] for name in ("labels.nii.gz", "fused.nii.gz")) < 200_000 < largest["report.html"]
    before = contents(tmp_path)
    with files_at_most(size), pytest.raises(OutputError, match=r"File too large\. Free some space"):
        result.save(tmp_path / "new" / "out")
    with files_at_most(size), pytest.raises(OutputError, match=r"File too large\. Free some space"):
        make_result(notice="other").save(tmp_path / "earlier", overwrite=True)
    assert contents(tmp_path) == before
    assert [path.name for path in tmp_path.iterdir()] == ["earlier"]


@pytest.mark.parametrize("failing", ["fused.nii.gz", "labels.nii.gz", "report.json", "report.html"])
@pytest.mark.parametrize("error", [OSError(errno.EIO, "Input/output error"), KeyboardInterrupt()])
def test_a_rename_that_fails_brings_the_earlier_files_back(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, failing: str, error: BaseException
) -> None:
    make_result().save(tmp_path)
    before, replace, failed = contents(tmp_path), Path.replace, []

    def fail_once(self: Path, target: Path) -> Path:
        if self.name == failing and target.parent == tmp_path and not failed:
            failed.append(self)
            raise error
        return replace(self, target)

    monkeypatch.setattr(Path, "replace", fail_once)
    with pytest.raises((OutputError, KeyboardInterrupt)):
        make_result(notice="other").save(tmp_path, overwrite=True)
    assert failed
    assert contents(tmp_path) == before
    assert not [path for path in tmp_path.iterdir() if path.is_dir()]


def test_earlier_files_stay_somewhere_when_the_disk_refuses_everything(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    make_result().save(tmp_path)
    before, replace, failing = contents(tmp_path), Path.replace, []

    def fail(self: Path, target: Path) -> Path:
        if failing or (self.name == "report.html" and target.parent == tmp_path):
            failing.append(self)
            raise OSError(errno.EROFS, "Read-only file system")
        return replace(self, target)

    monkeypatch.setattr(Path, "replace", fail)
    with pytest.raises(OutputError, match="Read-only file system"):
        make_result(notice="other").save(tmp_path, overwrite=True)
    (aside,) = tmp_path.glob(".rmr-earlier-*")
    assert contents(aside) == before


def test_all_folders_and_files_of_odd_names(tmp_path: Path) -> None:
    """Spaces, quotes, newlines, scripts of any direction, and bytes that are no Unicode."""
    for name in ("a b", "Müller #1 (çópy)", "研究 אב", 'it\'s "quoted"\n', os.fsdecode(b"caf\xe9")):
        written = make_result().save(tmp_path / name / "résultats 1")
        assert all(path.is_file() for path in written)


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
