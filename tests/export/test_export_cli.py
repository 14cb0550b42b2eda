"""The command line `rmr-export`: what it writes and prints, and its exit codes."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from networks import TINY, make_network

from rmr_export.checkpoint import load_own
from rmr_export.cli import main
from rmr_sdk.bundle import Bundle, write_bundle
from rmr_sdk.errors import ManifestError
from rmr_sdk.manifest import MinMax, Robust
from rmr_training.checkpoint import save_checkpoint
from rmr_training.models import DualSwinAE, FusionNet, build_head


@pytest.fixture
def checkpoint(tmp_path: Path) -> Path:
    """Give a checkpoint of rmr-train."""
    save_checkpoint(tmp_path / "model.pth", make_network(TINY), "joint", {})
    return tmp_path / "model.pth"


def test_bundle_from_our_checkpoint(checkpoint: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "ours.zip"
    arguments = ["bundle", "--checkpoint", str(checkpoint), "--out", str(out), "--precision", "fp32"]
    assert main([*arguments, "--tile", "16", "16", "16"]) == 0
    printed = capsys.readouterr()
    assert printed.out.startswith("ours 0.1.0: fp32, tile 16 x 16 x 16, ")
    assert "rmr-export: openvino differs from torch by" in printed.err
    manifest = Bundle.open(out).manifest
    assert manifest.normalisation == Robust(percentile=99.0, floor_fraction=0.02, high=1.5)
    assert manifest.spacing_mm == (1.0, 1.0, 1.0)
    assert 'stage "joint"' in manifest.training.recipe


def test_figures_and_studies_of_a_measurement_reach_the_manifest(tmp_path: Path) -> None:
    save_checkpoint(tmp_path / "model.pth", make_network(TINY), "joint", {"studies": ["patient19"]})
    (tmp_path / "card.toml").write_text('studies_seen = ["patient01"]\nlimits = ["Few studies."]\n')
    figure = {"precision": "fp32", "study_set": "patient07", "studies": 1, "metric": "lesion_dice", "value": 0.5}
    (tmp_path / "figures.json").write_text(json.dumps({"benchmark": "accuracy", "accuracy": [figure]}))
    arguments = ["bundle", "--checkpoint", str(tmp_path / "model.pth"), "--card", str(tmp_path / "card.toml")]
    arguments += ["--accuracy", str(tmp_path / "figures.json"), "--out", str(tmp_path / "b.zip")]
    assert main([*arguments, "--tile", "16", "16", "16"]) == 0
    manifest = Bundle.open(tmp_path / "b.zip").manifest
    assert manifest.training.studies_seen == ("patient01", "patient19")
    assert [(entry.study_set, entry.value) for entry in manifest.accuracy] == [("patient07", 0.5)]


def test_exit_codes(checkpoint: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    arguments = ["bundle", "--checkpoint", str(checkpoint), "--out", str(tmp_path / "b.zip")]
    assert main([*arguments, "--tile", "8", "8", "8"]) == 3
    assert "rmr-export: ConfigError: the network cannot be computed on a tile of 8 x 8 x 8" in capsys.readouterr().err
    assert main([*arguments, "--name", "No Name"]) == 4
    with pytest.raises(ManifestError):
        main(["--debug", *arguments, "--name", "No Name"])


def test_a_stage_that_is_not_the_last_is_said(tmp_path: Path) -> None:
    save_checkpoint(tmp_path / "model.pth", make_network(TINY), "autoencoder", {})
    assert "not for use" in load_own(tmp_path / "model.pth").recipe


def test_bundle_from_the_authors_checkpoints(tmp_path: Path) -> None:
    torch.manual_seed(0)
    parts = {
        "SwinAE.pth": DualSwinAE(),
        "Fusion.pth": FusionNet(),
        "Seg.pth": build_head("segresnet", 16, 5, options={"init_filters": 8}),
    }
    for name, module in parts.items():
        torch.save({"model": module.state_dict(), "epoch": 1}, tmp_path / name)
    out = tmp_path / "bundle"
    files = [str(tmp_path / name) for name in parts]
    flags = ("--autoencoder", "--fusion", "--segmentation")
    arguments = [word for pair in zip(flags, files, strict=True) for word in pair]
    head = ["--head", "segresnet", "init_filters=8"]
    assert main(["bundle", *arguments, *head, "--tile", "8", "16", "16", "--name", "paper", "--out", str(out)]) == 0
    manifest = Bundle.open(out).manifest
    assert manifest.normalisation == MinMax()
    assert manifest.spacing_mm == (3.0, 0.958, 0.958)
    assert manifest.training.recipe == 'Preset "paper", from SwinAE.pth, Fusion.pth, Seg.pth; training not stated.'
    assert manifest.classes is not None


def test_verify(exported: Bundle, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    files = {file.path: exported.read(file.path) for file in exported.manifest.files}
    write_bundle(tmp_path / "tiny", exported.manifest, files)
    assert main(["verify", str(tmp_path / "tiny"), "--engine", "onnxruntime"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].startswith("onnxruntime  fp32  ok: largest ")
    assert "not here: Engine onnxruntime computes in fp32 only" in lines[1]


def test_verify_without_an_engine(
    exported: Bundle, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    from rmr_export import cli

    monkeypatch.setattr(cli, "verify_bundle", lambda bundle, engines: iter(()))
    monkeypatch.setattr(cli.Bundle, "open", lambda name: exported)
    assert main(["verify", "tiny"]) == 5
    assert "no engine could run the bundle" in capsys.readouterr().err
    wrong = cli.Verdict("openvino", "fp32", problem="does not reproduce the golden tile.", failed=True)
    monkeypatch.setattr(cli, "verify_bundle", lambda bundle, engines: iter([wrong]))
    assert main(["verify", "tiny"]) == 5
    printed = capsys.readouterr()
    assert "FAILED: does not reproduce" in printed.out
    assert "1 engines do not reproduce" in printed.err


def test_a_command_line_that_cannot_be_parsed() -> None:
    with pytest.raises(SystemExit) as caught:
        main(["bundle", "--out", "x"])
    assert caught.value.code == 2
