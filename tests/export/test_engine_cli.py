"""The commands `rmr-export engine` and `rmr-export rewrites`: what they write and print, and their exit codes."""

from __future__ import annotations

import shutil
import sys
from dataclasses import replace
from pathlib import Path

import onnx
import pytest
from msgspec.structs import replace as replaced
from networks import TINY, make_network

pytest.importorskip("tensorrt_rtx", reason="TensorRT-RTX is not installed")

from rmr_export.cli import main
from rmr_export.precision.fp16 import to_fp16
from rmr_sdk.bundle import Bundle, write_bundle
from rmr_sdk.manifest import UNHASHED, Artifact
from rmr_training.checkpoint import save_checkpoint

ENGINE = "engines/tensorrt-rtx-fp16-sm86+120.engine"


@pytest.fixture(scope="module")
def original(exported: Bundle, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Give the tiny bundle as a folder, with an fp16 graph."""
    manifest = exported.manifest
    half = to_fp16(onnx.load_model_from_string(exported.graph("fp32")))
    files = {file.path: exported.read(file.path) for file in manifest.files}
    files["model.fp16.onnx"] = half.SerializeToString(deterministic=True)
    artifact = Artifact(path="model.fp16.onnx", sha256=UNHASHED, size=1, precision="fp16", kind="onnx")
    target = tmp_path_factory.mktemp("engines") / "tiny"
    write_bundle(target, replaced(manifest, artifacts=(*manifest.artifacts, artifact)), files)
    return target


@pytest.fixture
def bundle(original: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(original, tmp_path / "tiny"))


def run(*arguments: object) -> int:
    return main(["engine", *map(str, arguments), "--runtime", "tensorrt-rtx"])


def test_engines_are_written_into_the_bundle(bundle: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(bundle, "--sm", 120, 86, "--precision", "fp16", "fp32") == 0
    printed = capsys.readouterr().out.splitlines()
    assert printed[0].startswith(f"{ENGINE}: ")
    assert printed[-1] == f"tiny 0.1.0: {bundle}"
    opened = Bundle.open(bundle)
    opened.verify()
    size = len(opened.read(ENGINE))
    engines = {artifact.path: artifact for artifact in opened.manifest.artifacts if artifact.kind == "engine"}
    assert set(engines) == {ENGINE, ENGINE.replace("fp16", "fp32")}
    found = engines[ENGINE]
    assert (found.runtime, found.precision, found.compute_capabilities) == ("tensorrt-rtx", "fp16", (86, 120))
    assert found.version is not None
    assert opened.manifest.onnx_precisions == ("fp32", "fp16")
    assert run(bundle, "--sm", 86, "--precision", "fp16") == 6
    assert f'the bundle has an engine already: "{ENGINE}"' in capsys.readouterr().err
    assert run(bundle, "--sm", 86, 120, "--precision", "fp16", "--overwrite") == 0
    assert len(Bundle.open(bundle).read(ENGINE)) == size


def test_another_bundle_is_written(bundle: Path, tmp_path: Path) -> None:
    before = {path: path.read_bytes() for path in bundle.rglob("*") if path.is_file()}
    assert run(bundle, "--sm", 86, "--workspace-mib", 512, "--out", tmp_path / "copy.zip") == 0
    assert {path: path.read_bytes() for path in bundle.rglob("*") if path.is_file()} == before
    assert [artifact.kind for artifact in Bundle.open(tmp_path / "copy.zip").manifest.artifacts][-1] == "engine"
    assert run(bundle, "--sm", 86, "--out", tmp_path / "copy.zip") == 6


def test_explanation_alone_writes_nothing(bundle: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(bundle, "--sm", 86, "--explain") == 0
    printed = capsys.readouterr().out.splitlines()
    headings = [line.split(":")[0] for line in printed[1:7]]
    assert headings == ["kernels", "attention", "prelu", "convolutions", "products", "traffic"]
    assert printed[2] == "attention: 8 of 8 fused"
    assert printed[-1].startswith("Nothing was written")
    assert not (bundle / "engines").exists()


@pytest.mark.parametrize(
    ("arguments", "code", "words"),
    [
        (("--sm", 87), 4, "does not build for compute capability 87"),
        (("--precision", "int8"), 4, "has no int8 graph (it has: fp32, fp16)"),
        (("--workspace-mib", 0), 3, "a workspace of 0 MiB is none"),
    ],
)
def test_refusals(
    arguments: tuple[object, ...], code: int, words: str, bundle: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(bundle, *arguments) == code
    assert words in capsys.readouterr().err
    assert not (bundle / "engines").exists()


def test_the_shipped_bundle_stays_as_it_is(capsys: pytest.CaptureFixture[str]) -> None:
    assert run("ms-edge") == 3
    assert '"ms-edge" is shipped with the package' in capsys.readouterr().err


def test_a_runtime_that_is_not_installed(
    bundle: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "tensorrt", None)
    assert main(["engine", str(bundle), "--runtime", "tensorrt"]) == 5
    assert "tensorrt cannot be loaded" in capsys.readouterr().err


def test_rewrites_one_by_one(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    save_checkpoint(tmp_path / "model.pth", make_network(replace(TINY, head=None)), "joint", {})
    assert main(["rewrites", str(tmp_path / "model.pth"), "--sm", "86"]) == 0
    rows = [line.split(" | ") for line in capsys.readouterr().out.splitlines()]
    assert rows[0][0] == "step, each exact"
    assert rows[1][0] == "as torch gives it"
    kernels = [int(row[1]) for row in rows[1:]]
    assert len(kernels) == 7
    assert kernels[-1] < kernels[0]
    assert {row[2] for row in rows[2:6]} == {"0 of 8"}
    assert rows[-1][2] == "8 of 8", "heads of 8 channels are fused once they are padded"
    assert int(rows[1][3]) > int(rows[-1][3]), "PReLUs on their own"
