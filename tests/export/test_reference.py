"""The authors' checkpoints and what the authors' own code gives for a tile."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from rmr_export import build_graph, load_authors, parity
from rmr_export.graph.network import ExportNetwork


@pytest.mark.slow
def test_the_graph_matches_the_reference(data_dir: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(parity, "MAX_SCORES_BYTES", 0)  # ONNX Runtime would take gigabytes
    reference = data_dir / "reference"
    network = load_authors(reference / "SwinAE.pth", reference / "Fusion.pth").network
    with np.load(reference / "tile.npz") as file:
        inputs = {"t1w": file["t1"], "flair": file["flair"]}
        wanted = {"fused": file["fused"]}
    tile = inputs["t1w"].shape[2:]
    with torch.inference_mode():
        (fused,) = ExportNetwork(network, tile).eval()(*(torch.from_numpy(array) for array in inputs.values()))
    np.testing.assert_allclose(fused, wanted["fused"], atol=1e-5)
    assert (
        max(found.maximum for found in parity.prove(build_graph(network, tile), {"reference": (inputs, wanted)})) < 1e-4
    )
