"""The result file: read back as written, its schema current, other files refused."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from pathlib import Path

import jsonschema
import pytest

from rmr_sdk.bench import results
from rmr_sdk.bench.results import BenchResult, decode_result, encode_result, json_schema, read_result
from rmr_sdk.errors import FormatError

SCHEMA = Path(__file__).parents[2] / "docs" / "schemas" / "bench.schema.json"


def test_a_result_reads_back_as_it_was(measured: BenchResult) -> None:
    assert decode_result(encode_result(measured)) == measured


def test_the_schema_in_docs_is_the_one_in_the_code() -> None:
    assert SCHEMA.read_text(encoding="utf-8").strip() == json_schema(), "see rmr_sdk/bench/results.py for the command"


def test_a_result_keeps_its_schema(measured: BenchResult) -> None:
    jsonschema.validate(json.loads(encode_result(measured)), json.loads(json_schema()))


def test_a_result_names_no_user_and_no_folder(measured: BenchResult, place: Path) -> None:
    text = encode_result(measured).decode()
    for secret in (str(place), os.path.expanduser("~"), os.uname().nodename):
        assert secret not in text


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda data: b"\xff" + data, "is no result of `rmr bench`"),
        (lambda data: b"[1, 2]", "is no result of `rmr bench`"),
        (lambda data: b'{"a": ' + b"[" * 10**5, "is no result of `rmr bench`"),
        (lambda data: b'{"schema_version": 1}', 'its kind is ""'),
        (
            lambda data: data.replace(b'"schema_version": 1', b'"schema_version": 2'),
            "has schema version 2; this rmr_sdk",
        ),
        (lambda data: data.replace(b'"rmr-bench"', b'"rmr-report"'), 'its kind is "rmr-report"'),
        (lambda data: data.replace(b'"p50_s": ', b'"p51_s": '), "breaks its schema: Object missing required field"),
        (lambda data: data.replace(b'"tiles": ', b'"tiles": "many", "x": '), "breaks its schema: Expected `int`"),
    ],
)
def test_other_files_are_refused(
    make_result: Callable[..., BenchResult], tmp_path: Path, change: Callable[[bytes], bytes], words: str
) -> None:
    file = tmp_path / "a.json"
    file.write_bytes(change(encode_result(make_result())))
    with pytest.raises(FormatError, match=words.replace("(", r"\(")) as caught:
        read_result(file)
    assert f'"{file}"' in str(caught.value)


def test_what_cannot_be_read_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(FormatError, match="cannot be read: No such file"):
        read_result(tmp_path / "missing.json")
    with pytest.raises(FormatError, match="cannot be read: Is a directory"):
        read_result(tmp_path)
    monkeypatch.setattr(results, "MAX_FILE_BYTES", 10)
    (tmp_path / "large.json").write_bytes(b" " * 11)
    with pytest.raises(FormatError, match="larger than any result"):
        read_result(tmp_path / "large.json")
