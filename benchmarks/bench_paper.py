"""The paper preset, fusion only, on a whole study at overlap 0.5, against the same weights in torch eager and MONAI.

Weights are the random ones of `reference/`: they cost what trained ones cost. The bundle, on a tile of our choosing, is
made here first (minutes; kept in build/bench for the next time). MONAI's run would take half an hour: some of its tiles
are timed in turns with our studies, and multiplied by the number that it computes. Before a ratio is printed every
precision is checked against torch on a tile from the middle of the study, and its fused image against that of fp32.

    python benchmarks/bench_paper.py
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
from datetime import date
from pathlib import Path
from time import perf_counter
from typing import Any

import msgspec
import numpy as np
from contest import (
    Contestant,
    data_folder,
    fidelity,
    monai_tiles,
    open_contestant,
    open_torch,
    percentiles,
    psnr_db,
    real_tiles,
    run_study,
    sdk_memory,
)
from machine import machine_facts, result_path

from rmr_sdk import Study
from rmr_sdk.bundle import Bundle, write_bundle
from rmr_sdk.manifest import UNHASHED, Artifact
from rmr_sdk.preprocess import prepare
from rmr_sdk.result import Result

ROOT = Path(__file__).parent.parent
OVERLAP = 0.5
THEIRS = (32, 128, 128)
"""The authors' tile."""
OURS = (28, 182, 154)
"""Whole axial slices of a head: no overlap within a slice; multiples of 14, so that no window is padded."""
CALIBRATED = (28, 56, 56)
PRECISIONS = ("fp32", "bf16", "int8")
LEAST_DB = 40.0
"""Of the fused image, to torch on one tile and to fp32 on the whole study."""


def checkpoints() -> dict[str, Path]:
    """Return the files of the authors' format."""
    folder = data_folder() / "reference"
    return {"autoencoder": folder / "SwinAE.pth", "fusion": folder / "Fusion.pth"}


def make_bundle(target: Path, tile: tuple[int, int, int]) -> None:
    """Export the preset, and add an int8 graph; its ranges are those of the golden tile of a smaller export."""
    import onnx

    from rmr_export import export_bundle, load_authors
    from rmr_export.precision.calibration import calibrate
    from rmr_export.precision.int8 import quantise

    source = load_authors(**checkpoints())
    with tempfile.TemporaryDirectory() as folder:
        small = export_bundle(source, Path(folder) / "small", tile=CALIBRATED, name="paper", proof=False)
        tiles = [("golden tile", small.golden().network_inputs())]
        ranges = calibrate(onnx.load_from_string(small.graph("fp32")), tiles).ranges()
        made = export_bundle(source, Path(folder) / "made", tile=tile, name="paper", proof=False)
        artifact = Artifact(path="model.int8.onnx", precision="int8", kind="onnx", sha256=UNHASHED, size=1)
        manifest = msgspec.structs.replace(made.manifest, artifacts=(*made.manifest.artifacts, artifact))
        files = {file.path: made.read(file.path) for file in made.manifest.files}
        graph = quantise(onnx.load_from_string(made.graph("fp32")), ranges)
        write_bundle(target, manifest, files | {artifact.path: graph.SerializeToString()}, overwrite=True)


class Peer:
    """Torch eager: timed on a tile of MONAI's from the middle of a study, and taken as the truth of one of ours."""

    def __init__(self, study: Study, bundle: Bundle) -> None:
        from rmr_export import load_authors

        self.torch: Contestant = open_torch(load_authors(**checkpoints()).network, compiled=False)
        prepared = prepare(study, bundle.manifest)
        extents = prepared.grid.shape
        box = tuple(slice((n - t) // 2, (n - t) // 2 + t) for n, t in zip(extents, THEIRS, strict=True))
        self.tiles = monai_tiles(extents, THEIRS, OVERLAP)
        self.tile = {
            name.lower(): np.ascontiguousarray(prepared.intensity[name].apply(array)[box][None, None])
            for name, array in prepared.arrays.items()
        }
        self.ours = real_tiles(study, bundle, 1)[0]
        self.fused = np.asarray(self.torch.compute(self.ours)["fused"])

    def time(self) -> None:
        """Compute the tile once."""
        started = perf_counter()
        self.torch.compute(self.tile)
        self.torch.seconds.append(perf_counter() - started)

    def agreement_db(self, contestant: Contestant) -> float:
        """Return how well an engine agrees with torch on a tile of ours, inside the head."""
        head = np.logical_or.reduce([array > 0 for array in self.ours.values()])
        return psnr_db(np.asarray(contestant.compute(self.ours)["fused"]), self.fused, head)


def main() -> int:
    """Run the benchmark and write its JSON."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--tile", type=int, nargs=3, default=OURS, metavar=("D", "H", "W"))
    parser.add_argument("--precision", nargs="+", default=PRECISIONS[1:], choices=PRECISIONS[1:], help="beside fp32")
    parser.add_argument("--repeats", type=int, default=3, help="studies timed of each precision, and tiles of the peer")
    parser.add_argument("--out", type=Path, default=result_path("paper"))
    options = parser.parse_args()

    precisions = ("fp32", *options.precision)
    tile, folder = tuple(options.tile), data_folder() / "open_ms" / "patient19"
    target = ROOT / "build" / "bench" / f"paper-{'x'.join(map(str, tile))}"
    cache = target.parent / "cache"
    if not (target / "model.int8.onnx").exists():
        print(f"making {target.name}: some minutes", file=sys.stderr)
        make_bundle(target, tile)
    bundle, study = Bundle.open(target), Study.from_folder(folder)
    running = [open_contestant(bundle, "openvino", precision, cache) for precision in precisions]
    contestants = [entry for entry in running if isinstance(entry, Contestant)]
    unavailable = [
        {"engine": "openvino", "precision": precision, "reason": entry}
        for precision, entry in zip(precisions, running, strict=True)
        if isinstance(entry, str)
    ]
    peer = Peer(study, bundle)
    peer.torch.compute(peer.tile)  # first use
    seconds: dict[str, list[float]] = {contestant.precision: [] for contestant in contestants}
    results: dict[str, Result] = {}
    for _ in range(options.repeats):
        peer.time()
        for contestant in contestants:
            took, results[contestant.precision] = run_study(bundle, contestant, study, OVERLAP)
            seconds[contestant.precision].append(took)
    peer_s = percentiles(peer.torch.seconds)
    projected = peer_s["p50"] * peer.tiles
    rows: list[dict[str, Any]] = [
        {
            "engine": contestant.engine,
            "precision": contestant.precision,
            "detail": contestant.detail,
            "study_s": percentiles(seconds[contestant.precision]),
            "tiles": results[contestant.precision].provenance.tiles,
            "ratio": round(projected / percentiles(seconds[contestant.precision])["p50"], 1),
            "peak_mib": sdk_memory(str(target), contestant, folder, OVERLAP, cache),
            "torch_db": peer.agreement_db(contestant),
            **fidelity(results[contestant.precision], results["fp32"], None),
        }
        for contestant in contestants
    ]
    poor = [row for row in rows if row["fused_psnr_db"] < LEAST_DB or row["torch_db"] < LEAST_DB]
    for row in poor:
        reason = f"fused PSNR {row['fused_psnr_db']} dB to fp32, {row['torch_db']} dB to torch: too little"
        unavailable.append({"engine": row["engine"], "precision": row["precision"], "reason": reason})
        rows.remove(row)
    if not rows:
        print(json.dumps(unavailable, indent=2), "\nthe fused images differ: nothing is reported", file=sys.stderr)
        return 1
    report = {
        "benchmark": "paper",
        "date": date.today().isoformat(),
        "machine": machine_facts(),
        "study": folder.name,
        "overlap": OVERLAP,
        "tile": list(tile),
        "rows": rows,
        "unavailable": unavailable,
        "peer": {"tile": list(THEIRS), "tile_s": peer_s, "tiles": peer.tiles, "projected_s": round(projected, 1)},
    }
    options.out.write_text(json.dumps(report, indent=2) + "\n")
    print(json.dumps({key: report[key] for key in ("rows", "unavailable", "peer")}, indent=2))
    return 0


if __name__ == "__main__":
    sys.exit(main())
