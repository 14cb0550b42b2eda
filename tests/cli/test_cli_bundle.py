"""`rmr bundle`: list, show and verify."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from tiny_study import make_tiny

from rmr_sdk import bundle as bundle_module
from rmr_sdk.manifest import decode_manifest

Rmr = Callable[..., int]


@pytest.fixture
def shipped(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Give a folder of shipped bundles that holds `tiny`."""
    make_tiny(tmp_path / "tiny.zip")
    monkeypatch.setattr(bundle_module, "_SHIPPED", tmp_path)
    return tmp_path


def test_bundle_list_show_verify(rmr: Rmr, shipped: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert rmr("bundle", "list") == 0
    assert capsys.readouterr().out == "tiny 0.1.0  fp32  0.1 MB\n"
    assert rmr("bundle", "show", "tiny") == 0
    printed = capsys.readouterr().out
    for words in ("Apache-2.0", "T1w, FLAIR", "8 x 16 x 16", "grey_matter", "model.fp32.onnx", "Weights written by"):
        assert words in printed
    assert "not a medical device" in printed
    assert rmr("bundle", "show", "tiny", "--json") == 0
    assert decode_manifest(capsys.readouterr().out.encode()).name == "tiny"
    assert rmr("bundle", "verify", "tiny") == 0
    assert capsys.readouterr().out == "tiny 0.1.0: all 2 files are as the manifest describes them\n"
