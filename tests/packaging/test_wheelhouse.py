"""Making the folder: what is fetched for which machine, and what stops it, each with the way out."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Callable
from pathlib import Path

import building
import pytest
import wheelhouse
from building import Index, build_wheel, check_platform, clean_copy, fetch
from packaging.requirements import Requirement
from wheel_file import Target, WheelhouseError

MakeWheel = Callable[..., Path]
OLD_JETSON = Target("3.10", "aarch64", 35)


def test_fetch_for_another_machine_asks_for_what_only_that_one_needs(make_wheel: MakeWheel, tmp_path: Path) -> None:
    there = tmp_path / "there"
    make_wheel("app", metadata="Requires-Dist: backport; python_version < '3.11'\nRequires-Dist: fast", folder=there)
    make_wheel("backport", folder=there)
    make_wheel("fast", tag="cp310-cp310-manylinux_2_35_aarch64", folder=there)
    make_wheel("fast", tag="cp311-cp311-manylinux_2_35_x86_64", folder=there)
    out = tmp_path / "out"
    found = fetch([Requirement("app")], OLD_JETSON, out, Index(there))
    assert [wheel.path.name for wheel in found] == [
        "app-1.0-py3-none-any.whl",
        "backport-1.0-py3-none-any.whl",
        "fast-1.0-cp310-cp310-manylinux_2_35_aarch64.whl",
    ]
    assert sorted(path.name for path in out.iterdir()) == [wheel.path.name for wheel in found]


def test_no_wheel_for_the_target_says_for_which(make_wheel: MakeWheel, tmp_path: Path) -> None:
    make_wheel("fast", tag="cp311-cp311-manylinux_2_35_x86_64", folder=tmp_path / "there")
    with pytest.raises(WheelhouseError, match=r"no wheels for cp310-manylinux_2_35_aarch64 that meet fast") as caught:
        fetch([Requirement("fast")], OLD_JETSON, tmp_path / "out", Index(tmp_path / "there"))
    assert "with --build the packages that come as source" in str(caught.value)


def test_constraints_pin_versions(make_wheel: MakeWheel, tmp_path: Path) -> None:
    there = tmp_path / "there"
    for version in ("1.0", "2.0"):
        make_wheel("thing", version, folder=there)
    pins = tmp_path / "pins.txt"
    pins.write_text("thing==1.0\n")
    index = Index(there, pins)
    assert [wheel.version for wheel in fetch([Requirement("thing")], OLD_JETSON, tmp_path / "out", index)] == ["1.0"]


def test_what_never_comes_is_named(make_wheel: MakeWheel, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    make_wheel("app", metadata="Requires-Dist: lost", folder=tmp_path)
    monkeypatch.setattr(building, "_download", lambda *arguments: None)
    with pytest.raises(WheelhouseError, match=r"Nothing meets lost on cp310-manylinux_2_35_aarch64"):
        fetch([Requirement("app")], OLD_JETSON, tmp_path, Index())


def test_failing_build_shows_the_end_of_what_was_said(tmp_path: Path) -> None:
    (tmp_path / "pyproject.toml").write_text("[project]\nname = 3\n")
    with pytest.raises(WheelhouseError, match=r"(?s)-m pip wheel failed:.*must contain"):
        build_wheel(tmp_path, tmp_path / "out", "OFF", 0)


def test_a_name_must_not_promise_more_than_the_symbols_keep(make_wheel: MakeWheel) -> None:
    with pytest.raises(WheelhouseError, match=r"auditwheel show failed"):
        check_platform(make_wheel("thing", tag="cp311-cp311-manylinux_2_17_x86_64"))


def test_one_file_is_one_file(tmp_path: Path) -> None:
    with pytest.raises(WheelhouseError, match=r"One file was expected, not 0"):
        building._the_one(tmp_path.glob("*"))


def test_clean_copy_leaves_out_what_git_ignores(tmp_path: Path) -> None:
    tree = tmp_path / "tree"
    (tree / "build").mkdir(parents=True)
    for name in (".gitignore", "kept.py", "new.py", "build/object.o"):
        (tree / name).write_text("build/\n")
    copied = clean_copy(tree, tmp_path / "plain")
    assert sorted(path.name for path in copied.rglob("*")) == [".gitignore", "kept.py", "new.py"], "no git: by name"
    subprocess.run(["git", "init", "-q"], cwd=tree, check=True)
    subprocess.run(["git", "add", "kept.py"], cwd=tree, check=True)
    copied = clean_copy(tree, tmp_path / "git")
    assert sorted(path.name for path in copied.rglob("*")) == [".gitignore", "kept.py", "new.py"]


def test_time_of_archives(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("SOURCE_DATE_EPOCH", "12345")
    assert wheelhouse.source_time(tmp_path) == 12345
    monkeypatch.delenv("SOURCE_DATE_EPOCH")
    (tmp_path / "pyproject.toml").write_text("")
    os.utime(tmp_path / "pyproject.toml", (1000, 1000))
    assert wheelhouse.source_time(tmp_path) == 1000


def test_folder_with_something_else_is_left_alone(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "thesis.txt").write_text("mine")
    assert wheelhouse.main(["--out", str(tmp_path)]) == 1
    assert "holds something that is no delivery. Name another folder with --out." in capsys.readouterr().err
    assert (tmp_path / "thesis.txt").read_text() == "mine"


def test_other_python_of_this_machine_is_told_how(capsys: pytest.CaptureFixture[str]) -> None:
    assert wheelhouse.main(["--python", "3.99"]) == 1
    assert "make wheelhouse PYTHON=python3.99 VENV=.venv-3.99" in capsys.readouterr().err
