"""`rmr bench`: measuring, showing and comparing, and every way in which it refuses."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from rmr_sdk.bench import roofline
from rmr_sdk.cli import main

Bench = Callable[..., int]


@pytest.fixture(scope="module")
def bench(bundle: Path, tmp_path_factory: pytest.TempPathFactory) -> Bench:
    """Give a function that runs `rmr bench` on the tiny bundle, as short as it can be."""
    cache = tmp_path_factory.mktemp("bench-cache")
    short = {"--repeats": 1, "--warmup": 0, "--cold-starts": 0, "--bundle": bundle, "--cache-dir": cache}

    def call(*words: object, **changes: object) -> int:
        options: dict[str, Any] = short | {f"--{name.replace('_', '-')}": value for name, value in changes.items()}
        return main(["bench", *map(str, words), *(str(word) for pair in options.items() for word in pair)])

    return call


@pytest.fixture(scope="module")
def result(bench: Bench, folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Give the path of a result."""
    path = tmp_path_factory.mktemp("results") / "new" / "a.json"
    assert bench(folder, "--no-roofline", out=path) == 0
    return path


def test_a_measurement_is_printed_and_written(
    bench: Bench, folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(roofline, "COPY_BYTES", 2**16)
    monkeypatch.setattr(roofline, "SIDE", 16)
    out, html = tmp_path / "r.json", tmp_path / "pages" / "r.html"
    assert bench(folder, out=out, html=html) == 0
    printed = capsys.readouterr()
    assert printed.err == ""
    for words in ("tiny 0.1.0, study ", "p50", "openvino fp32", "not a medical device", f"Written:  {out}, {html}"):
        assert words in printed.out
    assert json.loads(out.read_text())["roofline"]["copy_gb_per_s"] > 0
    assert html.read_text().startswith("<!doctype html>")


def test_json_is_the_file(bench: Bench, folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert bench(folder, "--no-roofline", "--json", out=tmp_path / "a.json") == 0
    assert capsys.readouterr().out == (tmp_path / "a.json").read_text()


def test_a_result_is_shown_again(
    bench: Bench, result: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert bench("--show", result, "--html", tmp_path / "page.html") == 0
    assert "openvino fp32" in capsys.readouterr().out
    assert "openvino fp32" in (tmp_path / "page.html").read_text()


def test_two_results_are_compared(
    bench: Bench, result: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert bench("--compare", result, result) == 0
    assert "too few samples" in capsys.readouterr().out
    out = tmp_path / "comparison.json"
    assert bench("--compare", result, result, "--json", "--out", out) == 0
    assert json.loads(capsys.readouterr().out) == json.loads(out.read_text())
    assert json.loads(out.read_text())["figures"][0]["ratio"] == 1.0


def test_unlike_runs_are_compared_where_that_is_named(
    bench: Bench, result: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    other = json.loads(result.read_text())
    other["protocol"]["overlap"] = 0.5
    (tmp_path / "b.json").write_text(json.dumps(other))
    assert bench("--compare", result, tmp_path / "b.json") == 3
    assert "ConfigError: The results differ in overlap (0.25 and 0.5)." in capsys.readouterr().err
    assert bench("--compare", result, tmp_path / "b.json", "--may-differ", "overlap") == 0
    assert "Remark:   different overlap: 0.25 and 0.5" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("changes", "code", "words"),
    [
        ({"repeats": 0}, 3, "ConfigError: repeats is 0. Pass a whole number from 1 to 10000."),
        ({"warmup": -1}, 3, "ConfigError: warmup is -1."),
        ({"cold_starts": -2}, 3, "ConfigError: cold_starts is -2."),
        ({"overlap": 2}, 3, "ConfigError: overlap 2.0 is out of range."),
        ({"threads": 0}, 3, "ConfigError: threads is 0."),
        ({"precision": "fp8"}, 3, 'ConfigError: There is no precision "fp8".'),
        ({"engine": "caffe"}, 3, 'ConfigError: There is no engine "caffe".'),
        ({"device": "tpu"}, 3, 'ConfigError: There is no device "tpu".'),
        ({"bundle": "none"}, 4, 'BundleError: There is no bundle "none"'),
        ({"precision": "int8"}, 4, "EngineMismatchError: "),
    ],
)
def test_bad_options(
    bench: Bench,
    folder: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    changes: dict[str, object],
    code: int,
    words: str,
) -> None:
    assert bench(folder, out=tmp_path / "a.json", **changes) == code
    assert words in capsys.readouterr().err
    assert list(tmp_path.iterdir()) == []


def test_bad_files(
    bench: Bench, folder: Path, result: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    page = tmp_path / "page.html"
    page.write_text("<html>")
    for code, words, arguments in (
        (3, "StudyError", [tmp_path / "none"]),
        (6, f"OutputError: {page} exists. Pass overwrite=True (--overwrite)", [folder, "--html", page]),
        (6, f"OutputError: {page} is not a folder.", [folder, "--out", page / "a.json"]),
        (
            3,
            "ConfigError: --out and --html name the same file.",
            [folder, "--out", page, "--html", page, "--overwrite"],
        ),
        (3, f'FormatError: "{page}" is no result of `rmr bench`', ["--show", page]),
        (3, f'FormatError: "{page}" is no result of `rmr bench`', ["--compare", result, page]),
        (3, "cannot be read: No such file", ["--compare", result, tmp_path / "none.json"]),
    ):
        assert bench(*arguments) == code, arguments
        printed = capsys.readouterr()
        assert words in printed.err
        assert printed.out == ""
    assert page.read_text() == "<html>"
    assert bench("--show", result, "--html", page, "--overwrite") == 0
    assert page.read_text() != "<html>"


@pytest.mark.parametrize(
    "words",
    [
        ["a", "--show", "b"],
        ["a", "--compare", "b", "c"],
        ["a", "--may-differ", "study"],
        ["--compare", "b", "c", "--html", "page.html"],
    ],
)
def test_what_does_not_belong_together(words: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as caught:
        main(["bench", *words])
    assert caught.value.code == 2
    assert "rmr bench: error:" in capsys.readouterr().err
