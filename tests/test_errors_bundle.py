"""Every way in which a bundle or an engine can be unusable: the error's type and its words."""

from __future__ import annotations

import io
import json
import os
import re
import shutil
import sys
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from tiny_bundle import TILE, make_bundle, make_golden, make_graph, make_manifest, random_tile

from rmr_sdk.bundle import Bundle, write_bundle
from rmr_sdk.engines import Engine, open_engine
from rmr_sdk.errors import (
    BundleError,
    ChecksumError,
    ConfigError,
    DeviceUnavailableError,
    EngineError,
    EngineMismatchError,
    ManifestError,
    OutputError,
    RmrError,
)
from rmr_sdk.golden import GoldenTile, decode_golden, encode_golden
from rmr_sdk.manifest import (
    MANIFEST_NAME,
    UNHASHED,
    Artifact,
    GoldenFile,
    LesionThreshold,
    decode_manifest,
    encode_manifest,
)

ONNX: dict[str, Any] = {"sha256": UNHASHED, "size": 1, "precision": "fp32", "kind": "onnx"}
ENGINE: dict[str, Any] = {"sha256": UNHASHED, "size": 1, "precision": "fp16", "kind": "engine"}
BUILT: dict[str, Any] = {"runtime": "tensorrt", "version": "10.3.0", "compute_capabilities": (87,)}
GRAPH = Artifact(path="model.onnx", **ONNX)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    target = tmp_path_factory.mktemp("bundles") / "tiny"
    make_bundle(target)
    return target


@pytest.fixture
def copy(folder: Path, tmp_path: Path) -> Path:
    """Give a copy of the bundle's folder to damage."""
    return Path(shutil.copytree(folder, tmp_path / "copy"))


BY_LOAD = LesionThreshold(small_ml=5, small=0.9, large_ml=20, large=0.5)
BACKWARD = LesionThreshold(small_ml=5, small=0.9, large_ml=5, large=0.5)


def expect(error: type[RmrError], words: str, act: Callable[[], object]) -> None:
    with pytest.raises(RmrError, match=re.escape(words)) as caught:
        act()
    assert type(caught.value) is error
    assert caught.value.fix, "an error says what to do"


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"contrasts": ("T1w", "t1w"), "reference": "T1w"}, 'must differ, also in lower case, but are "T1w", "t1w"'),
        ({"reference": "T2w"}, 'reference is "T2w", which is none of the contrasts "T1w", "FLAIR"'),
        ({"classes": ("csf", "lesion")}, 'must begin with "background" and differ'),
        ({"classes": ("background", "lesion", "lesion")}, 'must begin with "background" and differ'),
        ({"lesion_class": "tumour"}, 'lesion_class is "tumour", which is no foreground class of "background"'),
        ({"lesion_class": None, "least_lesion_probability": 0.5}, "is above 0, but there is no lesion_class"),
        ({"lesion_class": None, "least_lesion_mm3": 3.0}, "is above 0, but there is no lesion_class"),
        ({"classes": ("background", "lesion"), "least_white_matter": 0.1}, 'there is no class "white_matter"'),
        ({"lesion_threshold": BACKWARD}, "needs a large_ml above its small_ml"),
        ({"lesion_class": None, "lesion_threshold": BY_LOAD}, "is there, but there is no lesion_class"),
        ({"lesion_class": "background"}, "is no foreground class"),
        (
            {"classes": None, "lesion_class": "lesion"},
            'lesion_class is "lesion", which is no foreground class of (none)',
        ),
        ({"artifacts": (Artifact(path="a", **ENGINE, **BUILT),)}, 'must hold at least one of kind "onnx"'),
        ({"artifacts": (GRAPH, Artifact(path="b", **ONNX))}, "more than one ONNX graph of a precision"),
        ({"artifacts": (GRAPH, Artifact(path="b", **ENGINE))}, "artifacts[1] is an engine and needs runtime, version"),
        ({"artifacts": (Artifact(path="a", **ONNX, **BUILT),)}, "artifacts[0] is a graph, which has no runtime"),
        ({"golden": GoldenFile(path="Model.fp32.onnx", sha256=UNHASHED, size=1)}, "is named twice"),
        ({"golden": GoldenFile(path=MANIFEST_NAME, sha256=UNHASHED, size=1)}, "or is the manifest itself"),
        ({"intended_use": "For diagnosis."}, 'intended_use must say "not a medical device"'),
    ],
)
def test_manifest_contradicts_itself(changes: dict[str, Any], words: str) -> None:
    expect(ManifestError, words, lambda: make_manifest(**changes))


@pytest.mark.parametrize(
    ("data", "words"),
    [
        (b"", "is not readable JSON"),
        (b"{", "is not readable JSON"),
        (b"\xff\xfe{}", "is not readable JSON"),
        (b'{"schema_version": 1, "name": "\xff"}', "is not readable JSON"),
        (b'{"schema_version": 1, "name": ' + b"[" * 10**5, "manifest.json"),
        (b"[]", "Expected `object`, got `array`"),
        (b"{}", "missing required field `schema_version`"),
        (b'{"schema_version": "1"}', "at schema_version: Expected `int`, got `str`"),
        (b'{"schema_version": 0}', "at schema_version"),
        (
            b'{"schema_version": 2, "anything": "else"}',
            "has schema version 2; this rmr_sdk reads version 1. Update rmr",
        ),
    ],
)
def test_manifest_cannot_be_decoded(data: bytes, words: str) -> None:
    expect(ManifestError, words, lambda: decode_manifest(data))


def test_manifest_with_a_wrong_type_names_the_field(copy: Path) -> None:
    fields = json.loads((copy / MANIFEST_NAME).read_bytes()) | {"spacing_mm": [1, "1", 1]}
    (copy / MANIFEST_NAME).write_text(json.dumps(fields))
    expect(ManifestError, "at spacing_mm[1]: Expected `float`, got `str`", lambda: Bundle.open(copy))


def _golden(**arrays: np.ndarray) -> bytes:
    """Pack a golden file in which some arrays are replaced, or removed where they are empty."""
    good = np.load(io.BytesIO(encode_golden(make_golden(make_graph().SerializeToString()))))
    merged = {name: good[name] for name in good.files} | arrays
    buffer = io.BytesIO()
    np.savez_compressed(buffer, **{name: array for name, array in merged.items() if array.size})  # type: ignore[arg-type]
    return buffer.getvalue()


COUNT = int(np.prod(TILE))


@pytest.mark.parametrize(
    ("arrays", "words"),
    [
        ({"voxels": np.arange(COUNT, dtype=np.int32) + 1}, "has voxels outside the tile"),
        ({"voxels": np.arange(COUNT, dtype=np.int32) - 1}, "has voxels outside the tile"),
        ({"voxels": np.arange(COUNT)}, "has voxels as int64 (2048,), not int32"),
        ({"voxels": np.array(["a"], dtype=object)}, "cannot be read (ValueError"),
        ({"input.t1w": np.zeros((0,))}, "cannot be read (KeyError"),
        ({"input.t1w": np.zeros((1, 1, 2, 2, 2), np.float16)}, "has input.t1w as float16 (1, 1, 2, 2, 2)"),
        ({"input.t1w": np.full((1, 1, *TILE), np.nan, np.float16)}, "has values in input.t1w that are not finite"),
        ({"output.fused": np.zeros((1, 3), np.float32)}, "has output.fused as float32 (1, 3)"),
        ({"bomb": np.zeros(10**8, np.int8)}, "bytes unpacked, and at most"),
    ],
)
def test_golden_does_not_fit(arrays: dict[str, np.ndarray], words: str) -> None:
    expect(BundleError, words, lambda: decode_golden(_golden(**arrays), make_manifest()))


@pytest.mark.parametrize("data", [b"", b"garbage", b"PK\x05\x06" + b"\0" * 18])
def test_golden_is_no_such_file(data: bytes) -> None:
    expect(BundleError, "The golden tile cannot be read", lambda: decode_golden(data, make_manifest()))


def _zip(path: Path, entries: dict[str, bytes], method: int = zipfile.ZIP_DEFLATED) -> Path:
    with zipfile.ZipFile(path, "w", method) as archive:
        for name, data in entries.items():
            archive.writestr(name, data)
    return path


@pytest.mark.parametrize("name", ["no-such-bundle", "no/such/bundle.zip", "a\0b", "/dev/null"])
def test_bundle_is_not_there(name: str) -> None:
    expect(BundleError, f'There is no bundle "{name}" (shipped: ', lambda: Bundle.open(name))


def test_folder_is_no_bundle(tmp_path: Path) -> None:
    expect(BundleError, "Not a bundle: manifest.json is not at its top", lambda: Bundle.open(tmp_path))


def test_manifest_is_a_folder(tmp_path: Path) -> None:
    (tmp_path / MANIFEST_NAME).mkdir()
    expect(BundleError, "(Is a directory)", lambda: Bundle.open(tmp_path))


def test_manifest_is_a_pipe_that_nobody_writes_to(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / MANIFEST_NAME)
    expect(ManifestError, "is not readable JSON", lambda: Bundle.open(tmp_path))


def test_manifest_is_endless(tmp_path: Path) -> None:
    (tmp_path / MANIFEST_NAME).write_bytes(b" " * (2**20 + 1))
    expect(ChecksumError, "not at most 1048576", lambda: Bundle.open(tmp_path))


def test_zip_has_its_manifest_one_folder_down(tmp_path: Path) -> None:
    hostile = _zip(tmp_path / "a.zip", {f"tiny/{MANIFEST_NAME}": b"{}"})
    expect(BundleError, "manifest.json is not at its top (not in the zip file)", lambda: Bundle.open(hostile))


@pytest.mark.parametrize("data", [b"", b"not a zip file", b"PK\x03\x04" + b"\0" * 40])
def test_file_is_no_zip(data: bytes, tmp_path: Path) -> None:
    (tmp_path / "a.zip").write_bytes(data)
    expect(BundleError, 'Cannot unpack "manifest.json"', lambda: Bundle.open(tmp_path / "a.zip"))


def test_zip_has_gone(tmp_path: Path) -> None:
    make_bundle(tmp_path / "tiny.zip")
    opened = Bundle.open(tmp_path / "tiny.zip")
    (tmp_path / "tiny.zip").unlink()
    words = 'The bundle lacks its file "golden.npz" (No such file or directory)'
    expect(BundleError, words, lambda: opened.read("golden.npz"))


def test_zip_is_packed_with_another_method(tmp_path: Path) -> None:
    hostile = _zip(tmp_path / "a.zip", {MANIFEST_NAME: b"{}"}, zipfile.ZIP_LZMA)
    expect(ChecksumError, "neither stored nor deflated", lambda: Bundle.open(hostile))


def test_zip_is_a_bomb(tmp_path: Path) -> None:
    hostile = _zip(tmp_path / "a.zip", {MANIFEST_NAME: b" " * 10**6})
    expect(ChecksumError, "unpack to more than 200 times", lambda: Bundle.open(hostile))


def test_file_is_larger_than_the_manifest_says(copy: Path) -> None:
    with open(copy / "model.fp32.onnx", "ab") as file:
        file.write(b"more")
    expect(ChecksumError, '"model.fp32.onnx" has ', Bundle.open(copy).verify)


def test_file_has_another_checksum(copy: Path) -> None:
    data = bytearray((copy / "golden.npz").read_bytes())
    data[-1] ^= 1
    (copy / "golden.npz").write_bytes(data)
    expect(ChecksumError, '"golden.npz" has sha256', Bundle.open(copy).verify)


def test_file_is_missing(copy: Path) -> None:
    (copy / "model.fp32.onnx").unlink()
    expect(BundleError, 'lacks its file "model.fp32.onnx"', lambda: Bundle.open(copy).graph("fp32"))


def test_file_is_not_listed(folder: Path) -> None:
    expect(BundleError, 'lists no file "other"', lambda: Bundle.open(folder).read("other"))


def test_precision_is_not_in_the_bundle(folder: Path) -> None:
    expect(EngineMismatchError, "has no int8 graph (it has: fp32)", lambda: Bundle.open(folder).graph("int8"))


def test_written_files_are_not_the_listed_ones(tmp_path: Path) -> None:
    target = tmp_path / "new"
    expect(BundleError, "disagree: ['golden.npz', ", lambda: write_bundle(target, make_manifest(), {"other": b""}))
    assert not target.exists()


@pytest.mark.parametrize("name", ["folder", "file.zip"])
def test_target_exists(name: str, tmp_path: Path) -> None:
    make_bundle(tmp_path / name)
    expect(OutputError, "exists. Choose another name", lambda: make_bundle(tmp_path / name))


def test_target_cannot_be_written(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the way")
    expect(OutputError, "Cannot write the bundle", lambda: make_bundle(tmp_path / "file" / "new"))


@pytest.mark.parametrize(
    ("options", "error", "words"),
    [
        ({"engine": "caffe"}, ConfigError, 'There is no engine "caffe". Choose one of "auto", "openvino", "tensorrt'),
        ({"device": "tpu"}, ConfigError, 'There is no device "tpu". Choose one of "auto", "cpu", "gpu", "npu"'),
        ({"precision": "fp8"}, ConfigError, 'There is no precision "fp8". Choose one of "auto", "fp32", "bf16"'),
        ({"threads": 0}, ConfigError, "threads is 0. Pass a whole number from 1"),
        ({"threads": True}, ConfigError, "threads is True."),
        ({"threads": 1.5}, ConfigError, "threads is 1.5."),
        ({"device": "npu"}, DeviceUnavailableError, 'finds no device "npu" (it finds: cpu'),
        ({"precision": "int8"}, EngineMismatchError, "cannot run in int8: it has no int8 graph (it has: fp32)"),
        ({"engine": "onnxruntime", "device": "gpu"}, DeviceUnavailableError, 'runs on the CPU only, not on "gpu"'),
        ({"engine": "onnxruntime", "precision": "bf16"}, EngineMismatchError, "computes in fp32 only, not in bf16"),
    ],
)
def test_engine_cannot_be_had(options: Any, error: type[RmrError], words: str, folder: Path, tmp_path: Path) -> None:
    if options.get("engine") == "onnxruntime":
        pytest.importorskip("onnxruntime")
    expect(error, words, lambda: open_engine(Bundle.open(folder), cache_dir=tmp_path, **options))
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("name", ["openvino", "onnxruntime"])
def test_library_is_not_installed(name: str, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, name, None)
    extra = {"openvino": 'pip install "openvino"', "onnxruntime": 'pip install "rmr-sdk[onnxruntime]"'}[name]
    expect(DeviceUnavailableError, extra, lambda: open_engine(Bundle.open(folder), name))


def test_cpu_lacks_the_precision(folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from rmr_sdk.engines.openvino import import_openvino

    openvino = import_openvino()
    known = openvino.Core.get_property

    def without_halves(core: Any, device: str, name: str) -> Any:
        return ["FP32", "INT8"] if name == "OPTIMIZATION_CAPABILITIES" else known(core, device, name)

    monkeypatch.setattr(openvino.Core, "get_property", without_halves)
    for precision in ("bf16", "fp16"):
        words = f"This CPU does not compute in {precision} (it computes in: fp32, int8)"
        options = {"precision": precision, "cache_dir": tmp_path}
        expect(DeviceUnavailableError, words, lambda options=options: open_engine(Bundle.open(folder), **options))


ENGINES = pytest.mark.parametrize("name", ["openvino", "onnxruntime"])


def _bundle(target: Path, graph: bytes, golden: GoldenTile | None = None, **changes: Any) -> Bundle:
    """Write a bundle whose graph or golden tile is not what the manifest promises."""
    golden = golden or make_golden(make_graph().SerializeToString())
    files = {"model.fp32.onnx": graph, "golden.npz": encode_golden(golden)}
    return write_bundle(target, make_manifest(**changes), files)


@ENGINES
def test_graph_is_not_onnx(name: str, tmp_path: Path) -> None:
    pytest.importorskip(name)
    bundle = _bundle(tmp_path / "bundle", b"garbage")
    expect(EngineError, "the fp32 graph of bundle", lambda: open_engine(bundle, name, cache_dir=tmp_path / "cache"))


@ENGINES
def test_graph_has_another_shape(name: str, tmp_path: Path) -> None:
    pytest.importorskip(name)
    bundle = _bundle(tmp_path / "bundle", make_graph(tile=(8, 8, 8)).SerializeToString())
    words = "and its manifest promises"
    expect(EngineMismatchError, words, lambda: open_engine(bundle, name, cache_dir=tmp_path / "cache"))


@ENGINES
def test_graph_is_dynamic(name: str, tmp_path: Path) -> None:
    pytest.importorskip(name)
    bundle = _bundle(tmp_path / "bundle", make_graph(tile=("d", "h", "w")).SerializeToString())
    words = "(1, 1, -1, -1, -1)"
    expect(EngineMismatchError, words, lambda: open_engine(bundle, name, cache_dir=tmp_path / "cache"))


@ENGINES
def test_golden_tile_is_not_reproduced(name: str, tmp_path: Path) -> None:
    pytest.importorskip(name)
    golden = make_golden(make_graph().SerializeToString())
    other = {output: array + np.float32(0.01) for output, array in golden.outputs.items()}
    graph = make_graph().SerializeToString()
    bundle = _bundle(tmp_path / "bundle", graph, GoldenTile(golden.inputs, golden.voxels, other))
    words = f"Engine {name} in fp32 does not reproduce the golden tile (root mean square 0.01"
    for _ in range(2):  # a refused engine is not cached
        expect(EngineError, words, lambda: open_engine(bundle, name, cache_dir=tmp_path / "cache"))
    assert not (tmp_path / "cache").exists()


@pytest.fixture(params=["openvino", "onnxruntime"])
def engine(request: pytest.FixtureRequest, folder: Path, tmp_path: Path) -> Engine:
    pytest.importorskip(request.param)
    return open_engine(Bundle.open(folder), request.param, cache_dir=tmp_path)[0]


def test_session_is_full(engine: Engine) -> None:
    with engine.session() as session:
        for seed in range(engine.slots):
            session.submit(random_tile(seed))
        expect(EngineError, f"All {engine.slots} slots", lambda: session.submit(random_tile(9)))


def test_session_is_empty(engine: Engine) -> None:
    with engine.session() as session:
        expect(EngineError, "No tile of the session is in flight", session.collect)


BAD_TILES: dict[str, dict[str, np.ndarray]] = {
    "shape": {name: array[:, :, :4] for name, array in random_tile(0).items()},
    "type": {name: array.astype(np.float64) for name, array in random_tile(0).items()},
    "missing": {"t1w": random_tile(0)["t1w"]},
    "unknown": random_tile(0) | {"t2w": random_tile(0)["t1w"]},
}


@pytest.mark.parametrize("tile", BAD_TILES.values(), ids=BAD_TILES)
def test_tile_does_not_fit(tile: Any, engine: Engine) -> None:
    with engine.session() as session:

        def run() -> None:
            session.submit(tile)
            session.collect()

        with pytest.raises(EngineError):
            run()
        session.submit(random_tile(0))
        assert session.collect()["fused"].shape == (1, 1, *TILE)


def test_openvino_gives_up_on_a_tile(folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from rmr_sdk.engines.openvino import import_openvino

    def fail(request: Any) -> None:
        raise RuntimeError("Exception from infer_request.cpp:259:\nout of memory.\n")

    engine, _ = open_engine(Bundle.open(folder), "openvino", cache_dir=tmp_path)
    with engine.session() as session:
        session.submit(random_tile(0))
        with monkeypatch.context() as patch:
            patch.setattr(import_openvino().InferRequest, "wait", fail)
            expect(EngineError, "OpenVINO failed on a tile: out of memory.", session.collect)
        session.submit(random_tile(0))
        assert session.collect()["fused"].shape == (1, 1, *TILE)


def test_manifest_in_python_is_checked_when_written() -> None:
    expect(ManifestError, "at orientation", lambda: encode_manifest(make_manifest(orientation="LRS")))
