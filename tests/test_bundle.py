"""Bundles: found, read with every byte checked, written as a whole or not at all, and not fooled by hostile files."""

from __future__ import annotations

import contextlib
import hashlib
import os
import shutil
import zipfile
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from tiny_bundle import make_bundle, make_golden, make_graph, make_manifest

from rmr_sdk import bundle as bundle_module
from rmr_sdk.bundle import Bundle, list_bundles, write_bundle
from rmr_sdk.errors import BundleError, OutputError
from rmr_sdk.golden import encode_golden
from rmr_sdk.manifest import MANIFEST_NAME


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    target = tmp_path_factory.mktemp("bundles") / "tiny"
    make_bundle(target)
    return target


@pytest.fixture(scope="module")
def zipped(folder: Path) -> Path:
    make_bundle(folder.with_suffix(".zip"))
    return folder.with_suffix(".zip")


def contents() -> dict[str, bytes]:
    graph = make_graph().SerializeToString()
    return {"model.fp32.onnx": graph, "golden.npz": encode_golden(make_golden(graph))}


def test_folder_and_zip_are_the_same_bundle(folder: Path, zipped: Path) -> None:
    one, other = Bundle.open(folder), Bundle.open(str(zipped))
    assert one.manifest == other.manifest
    assert one.hash == other.hash == hashlib.sha256((folder / MANIFEST_NAME).read_bytes()).hexdigest()
    assert one.graph("fp32") == other.graph("fp32") == (folder / "model.fp32.onnx").read_bytes()
    one.verify()
    other.verify()


def test_writing_fills_in_hashes_and_sizes(folder: Path) -> None:
    artifact = Bundle.open(folder).manifest.artifacts[0]
    data = (folder / artifact.path).read_bytes()
    assert (artifact.sha256, artifact.size) == (hashlib.sha256(data).hexdigest(), len(data))


def test_the_same_contents_give_the_same_zip(zipped: Path, tmp_path: Path) -> None:
    make_bundle(tmp_path / "again.zip")
    assert (tmp_path / "again.zip").read_bytes() == zipped.read_bytes()


def test_a_shipped_name_is_found_and_listed(zipped: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bundle_module, "_SHIPPED", zipped.parent)
    assert list_bundles() == ("tiny",)
    assert Bundle.open("tiny").manifest.name == "tiny"


def test_a_shipped_name_wins_over_a_folder(folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    make_bundle(tmp_path / "tiny.zip", version="9.9.9")
    monkeypatch.setattr(bundle_module, "_SHIPPED", tmp_path)
    monkeypatch.chdir(folder.parent)
    assert Bundle.open("tiny").manifest.version == "9.9.9"
    assert Bundle.open("./tiny").manifest.version == "0.1.0"


def test_the_shipped_bundles_are_whole() -> None:
    for name in list_bundles():
        Bundle.open(name).verify()


def test_repr_tells_which_bundle_and_no_path(folder: Path) -> None:
    text = repr(Bundle.open(folder))
    assert text.startswith("Bundle(tiny 0.1.0, ")
    assert str(folder.parent) not in text


@pytest.mark.parametrize("name", ["new", "new.zip"])
def test_a_failure_while_writing_leaves_nothing(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(descriptor: int) -> None:
        raise OSError(28, "No space left on device")

    files = contents()
    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OutputError, match="No space left"):
        write_bundle(tmp_path / name, make_manifest(), files)
    assert list(tmp_path.iterdir()) == []


def test_a_folder_comes_back_when_it_cannot_be_replaced(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    target, files = tmp_path / "tiny", contents()
    write_bundle(target, make_manifest(), files)
    rename, calls = Path.rename, []

    def second_fails(path: Path, to: Path) -> Path:
        calls.append(path)
        if len(calls) == 2:
            raise OSError(5, "Input/output error")
        return rename(path, to)

    monkeypatch.setattr(Path, "rename", second_fails)
    with pytest.raises(OutputError, match="Input/output"):
        write_bundle(target, make_manifest(version="0.2.0"), files, overwrite=True)
    assert list(tmp_path.iterdir()) == [target]
    Bundle.open(target).verify()


@pytest.mark.parametrize("name", ["tiny", "tiny.zip"])
def test_overwriting_replaces_a_bundle(name: str, tmp_path: Path) -> None:
    target, files = tmp_path / name, contents()
    write_bundle(target, make_manifest(), files)
    assert write_bundle(target, make_manifest(version="0.2.0"), files, overwrite=True).manifest.version == "0.2.0"
    assert list(tmp_path.iterdir()) == [target]


def test_an_empty_folder_may_exist(tmp_path: Path) -> None:
    write_bundle(tmp_path, make_manifest(), contents()).verify()


def test_a_folder_with_other_files_is_never_replaced(tmp_path: Path) -> None:
    target = tmp_path / "tiny"
    write_bundle(target, make_manifest(), contents())
    (target / "thesis.txt").write_text("irreplaceable")
    with pytest.raises(OutputError, match="nothing but a bundle"):
        write_bundle(target, make_manifest(), contents(), overwrite=True)
    assert (target / "thesis.txt").read_text() == "irreplaceable"


def test_a_zip_that_points_outside_writes_nothing(zipped: Path, tmp_path: Path) -> None:
    hostile = tmp_path / "in" / "hostile.zip"
    hostile.parent.mkdir()
    shutil.copy(zipped, hostile)
    with zipfile.ZipFile(hostile, "a") as archive:
        archive.writestr("../evil.txt", b"evil")
        archive.writestr("/evil.txt", b"evil")
    Bundle.open(hostile).verify()
    with pytest.raises(BundleError, match="lists no file"):
        Bundle.open(hostile).read("../evil.txt")
    assert [path.name for path in tmp_path.rglob("*")] == ["in", "hostile.zip"]


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=150)
@given(at=st.floats(0, 1, exclude_max=True), value=st.integers(0, 255), keep=st.floats(0.2, 1))
def test_a_damaged_zip_is_refused_or_whole(zipped: Path, tmp_path: Path, at: float, value: int, keep: float) -> None:
    data = bytearray(zipped.read_bytes())
    data[int(at * len(data))] = value
    damaged = tmp_path / "damaged.zip"
    damaged.write_bytes(data[: int(keep * len(data))] if keep < 0.9 else data)
    with contextlib.suppress(BundleError):
        assert Bundle.open(damaged).graph("fp32") == Bundle.open(zipped).graph("fp32")
