"""The engine cache and the count of cores."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from rmr_sdk.engines import cores
from rmr_sdk.engines.cache import EngineCache, cache_key, default_cache_dir


def test_an_entry_comes_back(tmp_path: Path) -> None:
    cache = EngineCache("openvino", tmp_path)
    assert cache.load("key") is None
    assert cache.store("key", b"data") is None
    assert cache.load("key") == b"data"
    assert EngineCache("onnxruntime", tmp_path).load("key") is None
    assert [path.name for path in (tmp_path / "openvino").iterdir()] == ["key.bin"]


def test_a_full_disk_leaves_nothing_and_warns(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(path: Path, target: Path) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Path, "replace", full)
    warning = EngineCache("openvino", tmp_path).store("key", b"data")
    assert warning is not None
    assert "No space left on device" in warning
    assert list((tmp_path / "openvino").iterdir()) == []


def test_the_key_follows_every_fact_and_no_order() -> None:
    assert cache_key({"a": 1, "b": 2}) == cache_key({"b": 2, "a": 1})
    assert cache_key({"a": 1}) != cache_key({"a": 2})
    assert len(cache_key({})) == 32


def test_the_users_cache_follows_xdg(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert default_cache_dir() == tmp_path / "rmr-sdk"
    monkeypatch.setenv("XDG_CACHE_HOME", "relative/paths/are/invalid")
    monkeypatch.setenv("HOME", "/home/someone")
    assert default_cache_dir() == Path("/home/someone/.cache/rmr-sdk")


def test_cores_are_at_least_one_and_at_most_all() -> None:
    assert 1 <= cores.usable_cores() <= (os.cpu_count() or 1)


@pytest.mark.parametrize(("text", "expected"), [("150000 100000\n", 2), ("50000 100000\n", 1), ("max 100000\n", 64)])
def test_a_containers_quota_counts(text: str, expected: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "cpu.max").write_text(text)
    monkeypatch.setattr(cores, "_QUOTA", tmp_path / "cpu.max")
    monkeypatch.setattr(os, "cpu_count", lambda: 64)
    monkeypatch.setattr(cores, "_physical_cores", lambda: 64)
    assert cores.usable_cores() == expected


def test_two_threads_of_a_core_count_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for cpu, siblings in enumerate(["0,4", "1,5", "2,6", "3,7"] * 2):
        (tmp_path / str(cpu)).write_text(siblings)
    monkeypatch.setattr(cores, "_TOPOLOGY", str(tmp_path / "{}"))
    monkeypatch.setattr(cores, "_quota", lambda: 64)
    monkeypatch.setattr(os, "sched_getaffinity", lambda process: set(range(8)))
    assert cores.usable_cores() == 4
    monkeypatch.setattr(os, "sched_getaffinity", lambda process: {0, 4, 1})
    assert cores.usable_cores() == 2
