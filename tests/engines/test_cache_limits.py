"""The cache under pressure: its limit, two processes, folders that cannot be written, and what is left behind."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from rmr_sdk.engines.cache import EngineCache, cache_limit_mib
from rmr_sdk.engines.file_lock import FileLock
from rmr_sdk.errors import ConfigError

KIB = 2**10

BUILDER = """
import sys, time
from pathlib import Path
from rmr_sdk.engines.cache import EngineCache
cache, log = EngineCache("tensorrt", Path(sys.argv[1])), Path(sys.argv[2])
while not (Path(sys.argv[1]) / "go").exists():
    time.sleep(0.01)
with cache.making("key") as alone:
    found = cache.load("key")
    if found is None:
        time.sleep(0.5)
        with log.open("a") as file:
            file.write(f"built alone={alone}\\n")
        cache.store("key", b"engine")
print(cache.load("key").decode())
"""


def age(path: Path, seconds: float) -> None:
    os.utime(path, (time.time() - seconds,) * 2)


def fill(root: Path, engine: str, key: str, size: int, seconds: float) -> Path:
    assert EngineCache(engine, root).store(key, b"x" * size) is None
    age(root / engine / f"{key}.bin", seconds)
    return root / engine / f"{key}.bin"


def test_two_processes_build_once(tmp_path: Path) -> None:
    log = tmp_path / "log"
    arguments = [sys.executable, "-c", BUILDER, str(tmp_path), str(log)]
    processes = [subprocess.Popen(arguments, stdout=subprocess.PIPE, text=True) for _ in range(2)]
    time.sleep(1)
    (tmp_path / "go").touch()
    printed = [process.communicate(timeout=60)[0].strip() for process in processes]
    assert printed == ["engine", "engine"]
    assert log.read_text() == "built alone=True\n"
    assert [path.name for path in (tmp_path / "tensorrt").iterdir()] == ["key.bin"]


def test_a_killed_builder_leaves_no_lock(tmp_path: Path) -> None:
    script = (
        "import sys, time; from pathlib import Path; from rmr_sdk.engines.file_lock import FileLock\n"
        "with FileLock(Path(sys.argv[1])).held(1) as alone:\n    print(alone, flush=True); time.sleep(60)"
    )
    lock = tmp_path / "key.lock"
    with subprocess.Popen([sys.executable, "-c", script, str(lock)], stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "True\n"
        with FileLock(lock).held(timeout_s=0.2) as alone:
            assert not alone
        process.kill()
        process.wait(timeout=30)
        with FileLock(lock).held(timeout_s=10) as alone:
            assert alone
    assert not lock.exists()


def test_a_builder_that_hangs_is_waited_for_only_so_long(tmp_path: Path) -> None:
    cache = EngineCache("tensorrt", tmp_path)
    with cache.making("key") as first, cache.making("key", timeout_s=0.2) as second, cache.making("other") as third:
        assert (first, second, third) == (True, False, True)


def test_a_second_thread_waits_for_the_first(tmp_path: Path) -> None:
    cache, order = EngineCache("tensorrt", tmp_path), []

    def wait() -> None:
        with cache.making("key", timeout_s=30) as alone:
            order.append(("second", alone))

    with cache.making("key"):
        thread = threading.Thread(target=wait)
        thread.start()
        time.sleep(0.3)
        order.append(("first", True))
    thread.join()
    assert order == [("first", True), ("second", True)]


def test_a_folder_that_cannot_be_written_is_no_lock(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    cache = EngineCache("tensorrt", tmp_path / "file")
    with cache.making("key") as alone:
        assert not alone
    assert cache.load("key") is None
    warning = cache.store("key", b"data")
    assert warning is not None
    assert "cannot be written" in warning


def test_a_lock_goes_with_an_error(tmp_path: Path) -> None:
    cache = EngineCache("tensorrt", tmp_path)
    with pytest.raises(ZeroDivisionError), cache.making("key"):
        raise ZeroDivisionError
    assert list((tmp_path / "tensorrt").iterdir()) == []


def test_the_least_recently_used_make_room(tmp_path: Path) -> None:
    old, used, new = (
        fill(tmp_path, engine, key, 300 * KIB, seconds)
        for engine, key, seconds in (("openvino", "old", 300), ("tensorrt", "used", 200), ("openvino", "new", 100))
    )
    assert EngineCache("tensorrt", tmp_path).load("used") is not None
    cache = EngineCache("tensorrt", tmp_path, limit_mib=1)
    assert cache.store("fourth", b"y" * 600 * KIB) is None
    assert [path.exists() for path in (old, used, new)] == [False, True, False]
    assert cache.store("fourth", b"z" * 600 * KIB) is None, "an entry makes no room for itself"
    assert used.exists()


def test_an_entry_larger_than_the_limit_is_not_kept(tmp_path: Path) -> None:
    kept = fill(tmp_path, "openvino", "kept", 100, 0)
    warning = EngineCache("tensorrt", tmp_path, limit_mib=0.5).store("key", b"x" * KIB * KIB)
    assert warning is not None
    assert "An engine of 1.0 MiB is larger than the engine cache may be (0.5 MiB)" in warning
    assert "RMR_CACHE_LIMIT_MIB" in warning
    assert kept.exists()


def test_what_killed_processes_left_is_removed(tmp_path: Path) -> None:
    folder = tmp_path / "tensorrt"
    folder.mkdir()
    leftovers = [folder / ".key.0123", folder / "other.lock"]
    for path in (*leftovers, folder / ".key.4567"):
        path.write_bytes(b"half an engine")
    for path in leftovers:
        age(path, 7200)
    assert EngineCache("tensorrt", tmp_path).store("key", b"data") is None
    assert sorted(path.name for path in folder.iterdir()) == [".key.4567", "key.bin"]


def test_an_entry_that_vanishes_meanwhile_is_no_matter(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    dangling = tmp_path / "tensorrt" / "gone.bin"
    dangling.parent.mkdir()
    dangling.symlink_to(tmp_path / "nowhere")
    assert EngineCache("tensorrt", tmp_path).store("key", b"data") is None


@pytest.mark.parametrize(("text", "expected"), [("", 4096), ("100", 100), ("0", 0), ("1.5", 1.5)])
def test_the_limit_comes_from_the_environment(text: str, expected: float, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RMR_CACHE_LIMIT_MIB", text)
    assert cache_limit_mib() == expected


@pytest.mark.parametrize("text", ["-1", "much", "nan", "inf"])
def test_a_limit_that_is_none(text: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("RMR_CACHE_LIMIT_MIB", text)
    with pytest.raises(ConfigError, match="Set it to a number of MiB from 0 on"):
        EngineCache("tensorrt", tmp_path)
