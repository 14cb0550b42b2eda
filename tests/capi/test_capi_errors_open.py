"""What the C interface refuses to open: bundles that cannot be used, and options out of range."""

from __future__ import annotations

import hashlib
import json
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from rmr_ctypes import (
    BUNDLE,
    ENGINE,
    INPUT,
    Library,
    Opener,
    refuses,
)
from tiny_bundle import make_graph, make_manifest
from tiny_study import make_tiny

from rmr_sdk.bundle import write_bundle


def rewrite(folder: Path, **changes: Any) -> Path:
    """Replace fields of the manifest; None removes one."""
    file = folder / "manifest.json"
    manifest = {**json.loads(file.read_bytes()), **changes}
    file.write_text(json.dumps({key: value for key, value in manifest.items() if value is not None}))
    return folder


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Write a tiny bundle to damage."""
    make_tiny(tmp_path / "bundle")
    return tmp_path / "bundle"


def test_no_bundle(library: Library, tmp_path: Path) -> None:
    with refuses(BUNDLE, "BundleError", "There is no bundle"):
        library.open(tmp_path / "nothing")
    with refuses(BUNDLE, "BundleError", "manifest.json is not at its top"):
        library.open(tmp_path)
    (tmp_path / "text.zip").write_text("no zip file, whatever its name")
    with refuses(BUNDLE, "BundleError", "it is not a zip file"):
        library.open(tmp_path / "text.zip")


def test_a_file_that_is_missing_changed_or_cut(library: Library, folder: Path) -> None:
    graph = folder / "model.fp32.onnx"
    whole = graph.read_bytes()
    graph.write_bytes(whole[:-1] + bytes([whole[-1] ^ 1]))
    with refuses(BUNDLE, "ChecksumError", "has sha256 .* not the file that the manifest describes"):
        library.open(folder)
    graph.write_bytes(whole[:-7])
    with refuses(BUNDLE, "ChecksumError", f"has {len(whole) - 7} bytes, not {len(whole)}"):
        library.open(folder)
    graph.unlink()
    with refuses(BUNDLE, "BundleError", 'lacks its file "model.fp32.onnx"'):
        library.open(folder)
    graph.mkdir()
    with refuses(BUNDLE, "BundleError", "not a regular file"):
        library.open(folder)


def test_zip_files_that_are_damaged(library: Library, tmp_path: Path) -> None:
    make_tiny(tmp_path / "tiny.zip")
    whole = (tmp_path / "tiny.zip").read_bytes()
    cut = tmp_path / "cut.zip"
    cut.write_bytes(whole[: len(whole) // 2])
    with refuses(BUNDLE, "BundleError", "it is not a zip file"):
        library.open(cut)
    cut.write_bytes(whole[len(whole) // 2 :])
    with refuses(BUNDLE, "BundleError", "cut short|damaged"):
        library.open(cut)
    changed = bytearray(whole)
    changed[whole.index(b"model.fp32.onnx") + 40] ^= 0xFF
    cut.write_bytes(changed)
    with refuses(BUNDLE, "BundleError", 'Cannot unpack "model.fp32.onnx"'):
        library.open(cut)


def test_a_zip_file_that_would_unpack_to_too_much(library: Library, tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "bomb.zip", "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("manifest.json", b" " * 2**21)
    with refuses(BUNDLE, "ChecksumError", "more than 200 times"):
        library.open(tmp_path / "bomb.zip")
    with zipfile.ZipFile(tmp_path / "other.zip", "w", zipfile.ZIP_LZMA) as archive:
        archive.writestr("manifest.json", b"{}")
    with refuses(BUNDLE, "BundleError", "neither stored nor deflated"):
        library.open(tmp_path / "other.zip")


BY_LOAD = {"small_ml": 5, "small": 0.9, "large_ml": 20, "large": 0.5}

BAD_FIELDS: Mapping[str, tuple[dict[str, Any], str]] = {
    "another schema": ({"schema_version": 2}, "schema version 2"),
    "missing": ({"tile_shape": None}, "the field tile_shape is missing"),
    "wrong type": ({"name": 7}, "at name: expected a string"),
    "wrong number": ({"tile_shape": [8, 16, 0]}, r"at tile_shape\[2\]: a number out of range: 0"),
    "no number": ({"spacing_tolerance": "0.1"}, "expected a number"),
    "too short": ({"spacing_mm": [1.0, 1.0]}, "at spacing_mm: a length of 2"),
    "outside": ({"golden": {"path": "../x", "sha256": "0" * 64, "size": 1}}, "at golden.path"),
    "hash": ({"golden": {"path": "x", "sha256": "0" * 63, "size": 1}}, "at golden.sha256"),
    "orientation": ({"orientation": "RRS"}, "at orientation"),
    "contrast twice": ({"contrasts": ["FLAIR", "flair"]}, "it is named twice"),
    "reference": ({"reference": "T2w"}, "none of the contrasts"),
    "classes": ({"classes": ["csf", "lesion"]}, 'must begin with "background"'),
    "class twice": ({"classes": ["background", "lesion", "lesion"]}, "named twice"),
    "least probability": ({"least_lesion_probability": 1.5}, "at least_lesion_probability: a number out of range"),
    "nothing to drop": ({"lesion_class": None, "least_lesion_probability": 0.5}, "there is no lesion_class"),
    "no white matter": (
        {"classes": ["background", "lesion"], "least_white_matter": 0.1},
        'there is no class "white_matter"',
    ),
    "no load": (
        {"lesion_threshold": {**BY_LOAD, "small_ml": 0}},
        "at lesion_threshold.small_ml: a number out of range",
    ),
    "flat": (
        {"normalisation": {"kind": "robust", "most_median": 1.5}},
        "at normalisation.most_median: a number out of range",
    ),
    "piece": (
        {"lesion_threshold": {**BY_LOAD, "least_piece": 1.5}},
        "at lesion_threshold.least_piece: a number out of range",
    ),
    "no threshold": ({"lesion_threshold": {"small_ml": 5}}, "the field small is missing"),
    "loads": ({"lesion_threshold": {**BY_LOAD, "large_ml": 5}}, "large_ml must be above small_ml"),
    "nothing to trim": ({"lesion_class": None, "lesion_threshold": BY_LOAD}, "there is no lesion_class"),
    "lesion class": ({"lesion_class": "background"}, "no foreground class"),
    "normalisation": ({"normalisation": {"kind": "zscore"}}, "a normalisation that this version does not know"),
    "intended use": ({"intended_use": "Diagnosis."}, "not a medical device"),
    "no artifact": ({"artifacts": []}, "a length of 0"),
    "object": ({"golden": [1]}, "at golden: expected an object"),
}


@pytest.mark.parametrize("case", BAD_FIELDS)
def test_manifests_that_break_their_schema(library: Library, folder: Path, case: str) -> None:
    changes, words = BAD_FIELDS[case]
    with refuses(BUNDLE, "ManifestError", words):
        library.open(rewrite(folder, **changes))


@pytest.mark.parametrize(
    "data", [b"", b"{", b"[1]", b'{"schema_version": 1} x', b"\xff", b"[" * 100_000, b'{"schema_version": 1e400}']
)
def test_manifests_that_are_no_json_object(library: Library, folder: Path, data: bytes) -> None:
    (folder / "manifest.json").write_bytes(data)
    with refuses(BUNDLE, "ManifestError", "not readable JSON|expected an object"):
        library.open(folder)


def write_with(target: Path, **files: bytes) -> Path:
    """Write a tiny bundle with other files, their hashes right."""
    make_tiny(target)
    contents = {
        "model.fp32.onnx": make_graph().SerializeToString(),
        "golden.npz": (target / "golden.npz").read_bytes(),
        **files,
    }
    write_bundle(target, make_manifest(), contents, overwrite=True)
    return target


def test_graphs_that_do_not_fit(library: Library, tmp_path: Path) -> None:
    with refuses(ENGINE, "EngineError", "cannot compile the fp32 graph"):
        library.open(write_with(tmp_path / "a", **{"model.fp32.onnx": b"no graph"}))
    other_tile = make_graph(tile=(8, 16, 20)).SerializeToString()
    with refuses(BUNDLE, "EngineMismatchError", "are not those of its manifest"):
        library.open(write_with(tmp_path / "b", **{"model.fp32.onnx": other_tile}))
    fuses_only = make_graph(classes=None).SerializeToString()
    with refuses(BUNDLE, "EngineMismatchError", "are not those of its manifest"):
        library.open(write_with(tmp_path / "c", **{"model.fp32.onnx": fuses_only}))


def test_a_golden_tile_that_is_not_reproduced(library: Library, tmp_path: Path) -> None:
    graph = make_graph()
    weights = next(each for each in graph.graph.initializer if each.name == "fused.w")
    weights.raw_data = np.full(2, 0.51, np.float32).tobytes()
    with refuses(ENGINE, "EngineError", "does not reproduce the golden tile"):
        library.open(write_with(tmp_path / "a", **{"model.fp32.onnx": graph.SerializeToString()}))


def golden_with(folder: Path, **arrays: np.ndarray | None) -> bytes:
    """Replace arrays of the golden tile; None removes one."""
    with np.load(folder / "golden.npz") as file:
        kept = {**file, **arrays}
    np.savez_compressed(folder / "changed.npz", **{name: each for name, each in kept.items() if each is not None})
    return (folder / "changed.npz").read_bytes()


@pytest.mark.parametrize(
    ("arrays", "words"),
    [
        ({"voxels": None}, "has no voxels"),
        ({"output.fused": None}, "has no array output.fused"),
        ({"voxels": np.full(2048, 8 * 16 * 16, np.int32)}, "voxels outside the tile"),
        ({"output.fused": np.full((1, 2048), np.nan, np.float32)}, "not finite"),
        ({"output.fused": np.zeros((1, 2048), np.int32)}, "in another type or shape than <f4"),
        ({"output.fused": np.zeros((1, 7), np.float32)}, "in another size"),
    ],
)
def test_golden_tiles_that_do_not_fit(
    library: Library, tmp_path: Path, arrays: dict[str, np.ndarray], words: str
) -> None:
    make_tiny(tmp_path / "old")
    golden = golden_with(tmp_path / "old", **arrays)
    # Written as files, since write_bundle would refuse it.
    target = write_with(tmp_path / "new")
    (target / "golden.npz").write_bytes(golden)
    manifest = json.loads((target / "manifest.json").read_bytes())
    manifest["golden"] |= {"sha256": hashlib.sha256(golden).hexdigest(), "size": len(golden)}
    with refuses(BUNDLE, "BundleError", words):
        library.open(rewrite(target, golden=manifest["golden"]))


def test_precisions_that_are_not_there(library: Library, folder: Path) -> None:
    with refuses(BUNDLE, "EngineMismatchError", "cannot run in int8"):
        library.open(folder, precision="int8")
    with refuses(INPUT, "ConfigError", "There is no precision 9"):
        library.open(folder, precision=9)


@pytest.mark.parametrize("options", [{"threads": -1}, {"threads": 1025}, {"max_memory_mib": -1.0}], ids=str)
def test_options_of_opening(library: Library, folder: Path, options: dict[str, Any]) -> None:
    with refuses(INPUT, "ConfigError", f"{next(iter(options))} is -?[0-9]+"):
        library.open(folder, **options)


LEVELS = ("lesion_threshold", "least_lesion_probability", "least_white_matter", "least_lesion_mm3")


@pytest.mark.parametrize("level", [-0.5, 1000.01, float("nan"), float("inf")])
@pytest.mark.parametrize("name", LEVELS)
def test_levels_that_are_none(open_c: Opener, name: str, level: float) -> None:
    with refuses(INPUT, "ConfigError", f"{name} is .*RMR_KEEP_ALL"):
        open_c(**{name: level})


def test_probabilities_and_shares_end_at_one(open_c: Opener) -> None:
    for name in LEVELS[:3]:
        with refuses(INPUT, "ConfigError", f"{name} is 1.01.*Pass a level up to 1, "):
            open_c(**{name: 1.01})


def test_white_matter_that_the_bundle_does_not_know(library: Library, tmp_path: Path) -> None:
    make_tiny(tmp_path / "other.zip", classes=("background", "csf", "grey_matter", "cortex", "lesion"))
    with refuses(INPUT, "ConfigError", 'has no class "white_matter"'):
        library.open(tmp_path / "other.zip", least_white_matter=0.1)
    library.open(tmp_path / "other.zip", least_white_matter=-1.0).close()


@pytest.mark.parametrize("name", LEVELS)
def test_levels_of_a_bundle_without_lesions(library: Library, tmp_path: Path, name: str) -> None:
    make_tiny(tmp_path / "none.zip", lesion_class=None)
    with refuses(INPUT, "ConfigError", "tiny has no lesion class"):
        library.open(tmp_path / "none.zip", **{name: 0.5})
    library.open(tmp_path / "none.zip", **{name: -1.0}).close()
