"""From a network to a bundle that the runtime opens, checks and runs."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx
import pytest
from networks import TINY, make_network

from rmr_export import Card, ExportError, Source, export_bundle, parity, read_card
from rmr_export.parity import torch_runner
from rmr_export.phantom import STEPS, phantom
from rmr_export.verify import verify_bundle
from rmr_sdk.bundle import Bundle
from rmr_sdk.engines import base, open_engine
from rmr_training.models import CLASSES

CARD = """
licence = "CC-BY-4.0"
recipe = "Both stages on synthetic studies."
studies_seen = ["open_ms patient07"]
spacing_mm = [3.0, 1.0, 1.0]

[[data]]
name = "open_ms"
licence = "CC-BY"
citation = "Lesjak et al. (2017)"

[[accuracy]]
precision = "fp32"
study_set = "open_ms"
studies = 2
metric = "lesion_dice"
value = 0.5

[[tolerance]]
metric = "lesion_dice_drop"
maximum = 0.005
"""


def test_manifest(exported: Bundle) -> None:
    manifest = exported.manifest
    assert (manifest.name, manifest.version, manifest.contrasts) == ("tiny", "0.1.0", ("T1w", "FLAIR"))
    assert (manifest.reference, manifest.orientation) == ("FLAIR", "SAR")
    assert (manifest.classes, manifest.lesion_class) == (CLASSES, "lesion")
    assert manifest.tile_shape == TINY.tile
    assert manifest.onnx_precisions == ("fp32",)
    exported.verify()


def test_the_engine_computes_what_torch_computes(exported: Bundle, source: Source, tmp_path: Path) -> None:
    inputs = phantom(TINY.tile)
    engine, _ = open_engine(exported, "openvino", precision="fp32", cache_dir=tmp_path)
    with engine.session() as session:
        session.submit(inputs)
        found = session.collect()
        for name, wanted in torch_runner(source.network)(inputs).items():
            np.testing.assert_allclose(found[name], wanted, atol=1e-5)
    engine.close()


def test_every_engine_verifies(exported: Bundle) -> None:
    verdicts = {(verdict.engine, verdict.precision): verdict for verdict in verify_bundle(exported)}
    for engine in ("openvino", "onnxruntime"):
        deviation = verdicts[engine, "fp32"].deviation
        assert deviation is not None
        assert deviation.maximum < 1e-5
    assert "no int8 graph" in str(verdicts["openvino", "int8"].problem)
    assert not any(verdict.failed for verdict in verdicts.values())


def test_the_same_network_gives_the_same_bundle(exported: Bundle, source: Source, tmp_path: Path) -> None:
    assert export_bundle(source, tmp_path / "again", name="tiny").hash == exported.hash


def test_without_a_head(tmp_path: Path, source: Source) -> None:
    network = make_network(replace(TINY, head=None))
    bundle = export_bundle(replace(source, network=network), tmp_path / "fuses", tile=(8, 16, 16), name="fuses")
    assert bundle.manifest.classes is None
    assert bundle.manifest.lesion_class is None
    assert bundle.manifest.tile_shape == (8, 16, 16)
    assert list(bundle.golden().outputs) == ["fused"]


def test_a_card_fills_the_manifest(
    tmp_path: Path, source: Source, exported: Bundle, monkeypatch: pytest.MonkeyPatch
) -> None:
    _trace_no_more(exported, monkeypatch)
    (tmp_path / "card.toml").write_text(CARD)
    manifest = export_bundle(source, tmp_path / "b", card=read_card(tmp_path / "card.toml")).manifest
    assert manifest.licence == "CC-BY-4.0"
    assert manifest.spacing_mm == (3.0, 1.0, 1.0)
    assert manifest.spacing_tolerance == source.spacing_tolerance
    assert manifest.training.recipe == "Both stages on synthetic studies."
    assert manifest.training.data[0].citation == "Lesjak et al. (2017)"
    assert (manifest.accuracy[0].value, manifest.tolerance[0].maximum) == (0.5, 0.005)


def test_a_failed_proof_writes_nothing(
    tmp_path: Path, source: Source, exported: Bundle, monkeypatch: pytest.MonkeyPatch
) -> None:
    _trace_no_more(exported, monkeypatch)
    monkeypatch.setattr(parity, "LIMIT", 1e-12)
    monkeypatch.setattr(parity, "ROUNDINGS", 1e-3)
    with pytest.raises(ExportError, match=r"openvino differs from torch by .* on the (random|golden) tile"):
        export_bundle(source, tmp_path / "b.zip", card=Card())
    assert not list(tmp_path.iterdir())


def test_an_engine_that_is_wrong_is_named(exported: Bundle, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(base.GOLDEN_LIMITS, "fp32", base.GoldenLimit(maximum=0.0, rms=0.0))  # type: ignore[index]
    verdict = next(verify_bundle(exported, ("onnxruntime",)))
    assert verdict.failed
    assert "does not reproduce the golden tile" in str(verdict.problem)


def _trace_no_more(exported: Bundle, monkeypatch: pytest.MonkeyPatch) -> None:
    """Take the graph that has been traced already."""
    graph = onnx.load_from_string(exported.graph("fp32"))
    monkeypatch.setattr("rmr_export.bundle.build_graph", lambda network, tile: graph)


@pytest.mark.parametrize("tile", [(16, 16, 24), (28, 126, 126), (96, 112, 96)])
def test_phantom(tile: tuple[int, int, int]) -> None:
    for name, image in phantom(tile).items():
        assert image.shape == (1, 1, *tile), name
        assert image.dtype == np.float32
        assert 0.4 < (image == 0).mean() < 0.7, "about half of it is background"
        assert 0.9 < image.max() < 1.4
        np.testing.assert_array_equal(image * STEPS, np.round(image * STEPS))
        np.testing.assert_array_equal(image.astype(np.float16).astype(np.float32), image)
