"""Every way in which an export can be refused: the error's type, its exit code and its words."""

from __future__ import annotations

import argparse
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

pytest.importorskip("rmr_export", reason="rmr-export is not installed")

from rmr_export import ExportError, Source, build_graph, export_bundle, load_authors, load_own, read_accuracy, read_card
from rmr_export.cli import _read_options, _source
from rmr_sdk.errors import ConfigError, FormatError, ManifestError, OutputError, RmrError
from rmr_sdk.manifest import Robust
from rmr_training.checkpoint import load_weights, read_checkpoint, save_checkpoint
from rmr_training.models import EncoderShape, Preset, RmrFusion, build_head, find_preset

PRESET = Preset(
    "tiny",
    EncoderShape(stem=(2, 4), width=4, depths=(1, 1), heads=1, window=2, tail=2, features=2, decoder=2),
    growth=2,
    head=None,
    tile=(8, 8, 8),
)


@pytest.fixture(scope="module")
def network() -> RmrFusion:
    torch.manual_seed(0)
    return RmrFusion(PRESET).eval()


@pytest.fixture(scope="module")
def source(network: RmrFusion) -> Source:
    return Source(network, Robust(), "SAR", (1.0, 1.0, 1.0), 0.25, "Random weights.")


def raises(kind: type[RmrError], exit_code: int, words: str, action: Callable[[], Any]) -> None:
    """Run the action; its error must be of this very type, say these words, and say what to do."""
    with pytest.raises(kind, match=re.escape(words)) as caught:
        action()
    assert type(caught.value) is kind
    assert caught.value.exit_code == exit_code
    assert caught.value.fix.endswith(".")


def save(path: Path, content: Any) -> Path:
    torch.save(content, path)
    return path


def test_checkpoints(tmp_path: Path, network: RmrFusion) -> None:
    bare = save(tmp_path / "bare.pth", {"weights": {}})
    nameless = save(tmp_path / "nameless.pth", {"model": {}})
    (tmp_path / "text.pth").write_text("no checkpoint")
    save_checkpoint(tmp_path / "ours.pth", network, "joint", {})
    raises(FormatError, 3, "absent.pth", lambda: read_checkpoint(tmp_path / "absent.pth"))
    raises(FormatError, 3, "text.pth", lambda: read_checkpoint(tmp_path / "text.pth"))
    raises(FormatError, 3, 'bare.pth has no entry "model"', lambda: load_own(bare))
    raises(FormatError, 3, "nameless.pth does not name its preset", lambda: load_own(nameless))
    raises(
        FormatError,
        3,
        "ours.pth is a checkpoint of rmr-train, a whole network",
        lambda: load_authors(tmp_path / "ours.pth", nameless),
    )
    raises(FormatError, 3, "the weights of nameless.pth do not fit", lambda: load_authors(nameless, nameless))


def test_a_checkpoint_without_its_normalisation(tmp_path: Path, network: RmrFusion) -> None:
    content = {"model": network.state_dict(), "preset": PRESET.to_metadata(), "stage": "joint"}
    path = save(tmp_path / "old.pth", content)
    raises(FormatError, 3, "old.pth does not say how contrasts are normalised", lambda: load_own(path))


def test_weights_of_another_shape(network: RmrFusion) -> None:
    weights = dict(network.fusion.state_dict())
    weights["conv5.conv.0.bias"] = torch.zeros(3)
    raises(
        FormatError,
        3,
        "conv5.conv.0.bias: (3,) for (2,)",
        lambda: load_weights(network.fusion, weights, "Fusion.pth"),
    )


@pytest.mark.parametrize(
    ("name", "options", "words"),
    [
        ("no_such_head", {}, "unknown head 'no_such_head' (known: dynunet, segresnet, swin_unetr, unet)"),
        ("no.such:Head", {}, "head 'no.such:Head' cannot be imported"),
        ("torch.nn:NoSuchHead", {}, "head 'torch.nn:NoSuchHead' cannot be imported"),
        ("unet", {"no_such_option": 1}, "head 'unet' does not take these options"),
    ],
)
def test_heads(name: str, options: dict[str, Any], words: str) -> None:
    raises(ConfigError, 3, words, lambda: build_head(name, 4, 5, options=options))


def test_presets() -> None:
    words = "unknown preset 'small' (known: paper, edge, edge-small, edge-large)"
    raises(ConfigError, 3, words, lambda: find_preset("small"))


@pytest.mark.parametrize("content", ["licence = 3", "license = 'MIT'", "licence = ", None])
def test_cards(tmp_path: Path, content: str | None) -> None:
    if content is not None:
        (tmp_path / "card.toml").write_text(content)
    raises(FormatError, 3, 'the card "card.toml" cannot be used', lambda: read_card(tmp_path / "card.toml"))


@pytest.mark.parametrize("content", ["{}", '{"accuracy": [{"value": 1}]}', "no JSON", None])
def test_figures(tmp_path: Path, content: str | None) -> None:
    if content is not None:
        (tmp_path / "figures.json").write_text(content)
    raises(
        FormatError, 3, 'the figures in "figures.json" cannot be used', lambda: read_accuracy(tmp_path / "figures.json")
    )


def test_a_tile_that_does_not_fit(source: Source, network: RmrFusion, tmp_path: Path) -> None:
    raises(
        ConfigError,
        3,
        "the network cannot be computed on a tile of 7 x 8 x 8",
        lambda: export_bundle(source, tmp_path / "b", tile=(7, 8, 8)),
    )
    raises(ExportError, 4, "cannot be traced on a tile of 7 x 8 x 8", lambda: build_graph(network, (7, 8, 8)))


def test_a_name_that_breaks_the_schema(source: Source, tmp_path: Path) -> None:
    raises(ManifestError, 4, "at name", lambda: export_bundle(source, tmp_path / "b", name="Our Bundle"))


def test_a_target_that_exists(source: Source, tmp_path: Path) -> None:
    (tmp_path / "b.zip").touch()
    raises(OutputError, 6, 'b.zip" exists', lambda: export_bundle(source, tmp_path / "b.zip"))


def test_an_engine_that_differs(source: Source, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from rmr_export import parity

    nan = {"fused": np.full((1, 1, 8, 8, 8), np.nan, np.float32)}
    monkeypatch.setattr(parity, "_open_openvino", lambda data: lambda inputs: nan)
    raises(ExportError, 4, "openvino differs from torch by inf", lambda: export_bundle(source, tmp_path / "b"))
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"checkpoint": "a", "fusion": "b"}, "do not go with --checkpoint"),
        ({"autoencoder": "a"}, "--autoencoder needs --fusion"),
        ({"autoencoder": "a", "fusion": "b", "head": ["unet"]}, "--head needs --segmentation"),
    ],
)
def test_options_that_do_not_go_together(options: dict[str, Any], words: str) -> None:
    names = ("checkpoint", "autoencoder", "fusion", "segmentation", "head")
    given = argparse.Namespace(**{name: options.get(name) for name in names})
    raises(ConfigError, 3, words, lambda: _source(given))


def test_head_options() -> None:
    assert _read_options(["a=1", "b=[1, 2]", "c=text", "d=x=y"]) == {"a": 1, "b": [1, 2], "c": "text", "d": "x=y"}
    raises(ConfigError, 3, '"feature_size" is not an option of a head', lambda: _read_options(["feature_size"]))
