"""Every way in which a command can fail: its exit code, its words, and what stays behind: nothing."""

from __future__ import annotations

import gzip
import json
import os
import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hostile.nifti_files import CONTENT, image_bytes
from tiny_study import make_grid, make_study, make_tiny, write_study

from rmr_sdk import Progress, Volume
from rmr_sdk.cli import main, run
from rmr_sdk.io.nifti import write_volume

Rmr = Callable[..., int]


def nifti(data: bytes) -> Callable[[Path], None]:
    """Return what replaces the T1 of a study by these bytes."""
    return lambda study: (study / "t1.nii.gz").write_bytes(data) and None


def volume(change: Callable[[np.ndarray], np.ndarray], shift_mm: float = 0.0) -> Callable[[Path], None]:
    """Return what replaces the T1 of a study by changed voxels, or moves it in space."""

    def write(study: Path) -> None:
        grid, data = make_grid(), make_study()["T1w"].data
        affine = grid.affine.copy()
        affine[0, 3] += shift_mm
        write_volume(study / "t1.nii.gz", Volume(change(data), affine))

    return write


def missing(study: Path) -> None:
    (study / "t1.nii.gz").unlink()


def folder_in_its_place(study: Path) -> None:
    missing(study)
    (study / "t1.nii.gz").mkdir()


def hostile(case: str) -> Callable[[Path], None]:
    """Return what replaces the T1 by one of the hostile files."""
    return nifti(CONTENT[case][0]())


BAD_STUDIES: list[tuple[str, Callable[[Path], None], str]] = [
    ("missing file", missing, 'FormatError: "T1" does not exist. Pass the path of a .nii or .nii.gz file.'),
    ("folder in its place", folder_in_its_place, 'FormatError: "T1" is a folder or a device, not a file.'),
    ("not NIfTI", hostile("png"), 'FormatError: "T1" is not a NIfTI file. Convert the study'),
    ("truncated gzip", hostile("truncated gzip"), 'FormatError: "T1" is truncated or damaged'),
    ("2-D", hostile("2-D"), 'FormatError: "T1" is 2-D with the shape (6, 7). Pass one 3-D volume'),
    ("4-D", hostile("4-D"), 'FormatError: "T1" is 4-D with the shape (6, 7, 8, 2). Pass one 3-D volume'),
    ("zero size", hostile("zero size"), 'FormatError: "T1" holds no voxels'),
    ("complex", hostile("complex"), 'FormatError: "T1" holds complex voxels. Pass one real value'),
    ("RGB", hostile("rgb"), 'FormatError: "T1" holds RGB voxels.'),
    (
        "singular affine",
        nifti(gzip.compress(image_bytes(srow_z=(-1, 0, 0, 0)))),
        'GeometryError: "T1": the affine is singular',
    ),
    (
        "NaN",
        volume(lambda data: np.where(data == 0, np.nan, data)),
        'StudyError: contrast "T1w": it holds NaN or infinite voxels (7544 of 10560). '
        'Pass non_finite="zero" (--non-finite zero)',
    ),
    ("infinite", volume(lambda data: np.where(data == 0, np.inf, data)), "it holds NaN or infinite voxels"),
    ("all constant", volume(np.ones_like), 'StudyError: contrast "T1w": every voxel is 1.0.'),
    (
        "no overlap",
        volume(lambda data: data, shift_mm=500),
        'GeometryError: contrast "T1w": it does not overlap the reference "FLAIR" in space.',
    ),
]


@pytest.mark.parametrize(("spoil", "words"), [row[1:] for row in BAD_STUDIES], ids=[row[0] for row in BAD_STUDIES])
def test_a_bad_study_ends_with_3(
    rmr: Rmr, tmp_path: Path, capsys: pytest.CaptureFixture[str], spoil: Callable[[Path], None], words: str
) -> None:
    study, out = write_study(tmp_path / "study"), tmp_path / "out"
    spoil(study)
    files = ("--t1", study / "t1.nii.gz", "--flair", study / "flair.nii.gz")
    assert rmr("run", *files, "--out", out) == 3
    printed = capsys.readouterr()
    assert printed.out == ""
    assert words.replace('"T1"', f'"{study / "t1.nii.gz"}"') in printed.err
    assert printed.err.startswith("rmr: ")
    assert printed.err.count("\n") == 1
    assert not out.exists()


@pytest.mark.parametrize(
    ("options", "code", "words"),
    [
        (("--overlap", "1.5"), 3, "ConfigError: overlap 1.5 is out of range. Give a number from 0 to 0.9."),
        (("--overlap", "-0.5"), 3, "ConfigError: overlap -0.5 is out of range."),
        (("--overlap", "nan"), 3, "ConfigError: overlap nan is out of range."),
        (("--threads", "0"), 3, "ConfigError: threads is 0."),
        (("--reference", "T2w"), 3, 'ConfigError: reference is "T2w". Choose one of "T1w", "FLAIR".'),
        (("--align", "best"), 3, 'ConfigError: align is "best".'),
        (("--non-finite", "skip"), 3, 'ConfigError: non_finite is "skip".'),
        (("--engine", "caffe"), 3, 'ConfigError: There is no engine "caffe".'),
        (("--device", "tpu"), 3, 'ConfigError: There is no device "tpu".'),
        (("--precision", "fp8"), 3, 'ConfigError: There is no precision "fp8".'),
        (("--max-memory-mib", "0"), 3, "ConfigError: max_memory_mib is 0.0."),
        (("--max-memory-mib", "0.01"), 5, "DeviceMemoryError: this study needs 1 MiB"),
        (("--device", "npu"), 5, 'DeviceUnavailableError: OpenVINO finds no device "npu"'),
        (("--precision", "int8"), 4, 'EngineMismatchError: Bundle "tiny" cannot run in int8'),
        (("--bundle", "no-such"), 4, 'BundleError: There is no bundle "no-such"'),
    ],
)
def test_a_bad_option(
    rmr: Rmr,
    folder: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    options: tuple[str, ...],
    code: int,
    words: str,
) -> None:
    assert rmr("run", folder, "--out", tmp_path / "out", *options) == code
    printed = capsys.readouterr()
    assert printed.err.startswith(f"rmr: {words}")
    assert printed.err.count("\n") == 1
    assert printed.out == ""
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    "arguments",
    [
        (),
        ("fuse",),
        ("run", "--out", "x"),
        ("run", "study"),
        ("run", "study", "--t1", "a", "--flair", "b", "--out", "x"),
        ("run", "study", "--out", "x", "--overlap", "much"),
        ("run", "study", "--out", "x", "--threads", "1.5"),
        ("run", "study", "--out", "x", "--over", "0.5"),
        ("bundle",),
        ("bundle", "show"),
    ],
)
def test_what_cannot_be_parsed_ends_with_2(arguments: tuple[str, ...], capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as caught:
        main(arguments)
    assert caught.value.code == 2
    assert "usage: rmr" in capsys.readouterr().err


def test_a_missing_contrast_says_which_option_to_pass(
    rmr: Rmr, folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert rmr("run", "--t1", folder / "t1.nii.gz", "--out", tmp_path / "out") == 3
    assert 'contrast "FLAIR" is missing (found: "T1w"). Pass --flair FILE' in capsys.readouterr().err
    assert rmr("run", tmp_path / "nowhere", "--out", tmp_path / "out") == 3
    assert "StudyError: " in capsys.readouterr().err


def test_an_output_that_cannot_be_written_stops_the_run_before_it_starts(
    rmr: Rmr, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "file").touch()
    assert rmr("run", tmp_path / "no-study", "--out", tmp_path / "file") == 6
    assert "OutputError: " in capsys.readouterr().err


def test_a_damaged_bundle_ends_with_4(rmr: Rmr, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    make_tiny(tmp_path / "tiny")
    graph = tmp_path / "tiny" / "model.fp32.onnx"
    data = bytearray(graph.read_bytes())
    data[-1] ^= 1
    graph.write_bytes(data)
    assert rmr("bundle", "show", tmp_path / "tiny") == 0
    assert rmr("bundle", "verify", tmp_path / "tiny") == 4
    assert 'ChecksumError: "model.fp32.onnx" has sha256' in capsys.readouterr().err


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"schema_version": 99}, "ManifestError: manifest.json has schema version 99; this rmr_sdk reads version 1."),
        ({"tile_shape": "big"}, "ManifestError: manifest.json breaks its schema at tile_shape: Expected `array`"),
    ],
)
def test_a_manifest_that_cannot_be_used_ends_with_4(
    rmr: Rmr, folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], change: dict[str, Any], words: str
) -> None:
    make_tiny(tmp_path / "tiny")
    manifest = tmp_path / "tiny" / "manifest.json"
    manifest.write_text(json.dumps({**json.loads(manifest.read_text()), **change}))
    assert rmr("run", folder, "--bundle", tmp_path / "tiny", "--out", tmp_path / "out") == 4
    assert words in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("stage", ["read", "open", "prepare", "infer", "measure", "save"])
def test_an_interrupt_leaves_nothing(
    rmr: Rmr,
    folder: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    stage: str,
) -> None:
    @contextmanager
    def interrupted() -> Iterator[Callable[[Progress], None]]:
        def report(progress: Progress) -> None:
            if progress.stage == stage:
                raise KeyboardInterrupt

        yield report

    monkeypatch.setattr(run, "progress_bar", interrupted)
    assert rmr("run", folder, "--out", tmp_path / "out") == 130
    assert capsys.readouterr().err == "rmr: Cancelled: the command was interrupted.\n"
    assert list(tmp_path.iterdir()) == []


def test_too_little_memory(
    rmr: Rmr, folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def refuse(*_: Any, **__: Any) -> None:
        raise MemoryError

    monkeypatch.setattr("rmr_sdk.pipeline.prepare", refuse)
    assert rmr("run", folder, "--out", tmp_path / "out") == 5
    assert capsys.readouterr().err.startswith("rmr: DeviceMemoryError: the study does not fit in memory.")
    assert list(tmp_path.iterdir()) == []


def test_an_interrupt_while_writing_leaves_nothing(
    rmr: Rmr, folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupt(*_: Any) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("rmr_sdk.io.report.write_report", interrupt)
    assert rmr("run", folder, "--out", tmp_path / "a" / "b") == 130
    assert list(tmp_path.iterdir()) == []


def test_sigterm_while_writing_leaves_nothing(
    rmr: Rmr, folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    before = signal.getsignal(signal.SIGTERM)

    def terminate(staging: Path, *_: Any) -> None:
        (staging / "half").touch()
        os.kill(os.getpid(), signal.SIGTERM)

    monkeypatch.setattr("rmr_sdk.io.report.write_report", terminate)
    assert rmr("run", folder, "--out", tmp_path / "a" / "b") == 130
    assert capsys.readouterr().err == "rmr: Cancelled: the command was interrupted.\n"
    assert list(tmp_path.iterdir()) == []
    assert signal.getsignal(signal.SIGTERM) == before


def test_a_command_in_another_thread_leaves_signals_alone(capsys: pytest.CaptureFixture[str]) -> None:
    before, codes = signal.getsignal(signal.SIGTERM), []
    thread = threading.Thread(target=lambda: codes.append(main(["bundle", "list"])))
    thread.start()
    thread.join()
    assert codes == [0]
    assert signal.getsignal(signal.SIGTERM) == before
