"""Every engine and precision on the same weights: seconds a tile and a study, memory, and how true the results are.

Contestants take turns on the same real tiles. Studies are arrays in, arrays out. The torch peers compute MONAI's
windows, whose number is known: their seconds a study are projected from seconds a tile, blending left out. Results are
checked against torch (a tile) and against the fp32 engine (whole studies) before anything is written.

    python benchmarks/bench_engines.py
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
from datetime import date
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
from contest import (
    Contestant,
    Tile,
    data_folder,
    fidelity,
    monai_tiles,
    open_contestant,
    open_torch,
    peak_mib,
    percentiles,
    race,
    real_tiles,
    run_study,
    sdk_memory,
    warm_up,
)
from machine import machine_facts, result_path

from rmr_sdk import Study
from rmr_sdk.bundle import Bundle
from rmr_sdk.engines import open_engine

ROOT = Path(__file__).parent.parent
OVERLAPS = (0.25, 0.5)
ENTRIES = (
    *(("openvino", precision) for precision in ("fp32", "bf16", "fp16", "int8")),
    *(("onnxruntime", precision) for precision in ("fp32", "fp16", "int8")),
)
TILE_RMS = {"fp32": 2e-4, "bf16": 0.05, "fp16": 0.02, "int8": 0.08}
LEAST_AGREEMENT = {"fp32": 0.999, "bf16": 0.995, "fp16": 0.995, "int8": 0.995}

Row = dict[str, Any]


def enter(
    bundle: Bundle, checkpoint: Path, tile: Tile, cache: Path, without: list[str]
) -> tuple[list[Contestant], list[Row]]:
    """Open and warm up all contestants; return those that run and, with the reason, those that do not."""
    from rmr_training.checkpoint import load_network

    network = load_network(checkpoint).eval()
    entries: list[tuple[str, str, Contestant | str]] = [
        (engine, precision, open_contestant(bundle, engine, precision, cache)) for engine, precision in ENTRIES
    ]
    entries += [(name, "fp32", open_torch(network, name != "torch eager")) for name in ("torch eager", "torch.compile")]
    running: list[Contestant] = []
    unavailable: list[Row] = []
    outputs: dict[str, Any] = {}
    for engine, precision, entry in entries:
        if engine in without:
            continue
        found = entry if isinstance(entry, str) else warm_up(entry, tile)
        if isinstance(entry, str) or isinstance(found, str):
            unavailable.append({"engine": engine, "precision": precision, "reason": found})
            continue
        running.append(entry)
        outputs[f"{engine} {precision}"] = found
    check_tiles(running, outputs)
    return running, unavailable


def check_tiles(running: list[Contestant], outputs: dict[str, Any]) -> None:
    """Refuse contestants that do not compute what torch does; an SDK engine has passed the golden tile besides."""
    exact = outputs["torch eager fp32"]
    for contestant in running:
        found = outputs[f"{contestant.engine} {contestant.precision}"]
        for name, array in exact.items():
            rms = float(np.sqrt(np.square(found[name] - array, dtype=np.float64).mean()))
            if not rms <= TILE_RMS[contestant.precision]:
                sys.exit(
                    f"{contestant.engine} {contestant.precision}: {name} is {rms:.2g} off torch: nothing is reported"
                )


def measure_studies(
    bundle: Bundle, running: list[Contestant], folder: Path, repeats: int
) -> tuple[dict[str, dict[str, Any]], dict[str, Any]]:
    """Run whole studies in turns; return seconds by contestant and overlap, and results by contestant at the first."""
    study = Study.from_folder(folder)
    shape = study[bundle.manifest.reference].data.shape
    seconds: dict[str, dict[str, list[float]]] = {}
    results: dict[str, Any] = {}
    tiles: dict[float, int] = {}
    for repeat in range(repeats):
        for contestant in running:
            if contestant.opened is None or (contestant.engine == "onnxruntime" and repeat):
                continue
            name = f"{contestant.engine} {contestant.precision}"
            for overlap in OVERLAPS:
                took, result = run_study(bundle, contestant, study, overlap)
                seconds.setdefault(name, {}).setdefault(str(overlap), []).append(took)
                tiles[overlap] = result.provenance.tiles
                if overlap == OVERLAPS[0]:
                    results[name] = result
    measured: dict[str, dict[str, Any]] = {
        name: {overlap: {**percentiles(runs), "tiles": tiles[float(overlap)]} for overlap, runs in found.items()}
        for name, found in seconds.items()
    }
    for contestant in running:
        if contestant.opened is None:
            windows = {overlap: monai_tiles(shape, bundle.manifest.tile_shape, overlap) for overlap in OVERLAPS}
            a_tile = percentiles(contestant.seconds)
            measured[f"{contestant.engine} fp32"] = {
                str(o): {"p50": round(n * a_tile["p50"], 2), "tiles": n, "projected_from": a_tile["n"]}
                for o, n in windows.items()
            }
    return measured, results


def measure_accuracy(bundle: Bundle, running: list[Contestant], results: dict[str, Any]) -> dict[str, dict[str, Row]]:
    """Compare the studies with the fp32 engine: patient19 from the runs that were timed, and patient07."""
    folder = data_folder() / "open_ms"
    found: dict[str, dict[str, Row]] = {}
    for patient in ("patient19", "patient07"):
        study = Study.from_folder(folder / patient)
        truth = np.asarray(nib.load(folder / patient / "lesion.nii.gz").dataobj) > 0  # type: ignore[attr-defined]
        own = results
        if patient != "patient19":
            engines = [c for c in running if c.engine == "openvino"]
            own = {f"{c.engine} {c.precision}": run_study(bundle, c, study, OVERLAPS[0])[1] for c in engines}
        for name, result in own.items():
            found.setdefault(name, {})[patient] = fidelity(result, own["openvino fp32"], truth)
    return found


def torch_memory(checkpoint: Path, shape: tuple[int, ...], compiled: bool) -> float:
    """Return the peak memory of one tile in torch; MONAI's volumes would come on top."""
    return peak_mib(
        f"import sys; sys.path.insert(0, {str(Path(__file__).parent)!r})\n"
        "from pathlib import Path\nimport numpy as np\nfrom contest import open_torch\n"
        "from rmr_training.checkpoint import load_network\n"
        f"tile = {{name: np.ones((1, 1, *{shape}), np.float32) for name in ('t1w', 'flair')}}\n"
        f"open_torch(load_network(Path({str(checkpoint)!r})).eval(), {compiled}).compute(tile)"
    )


def leave_out_untrue(rows: list[Row], unavailable: list[Row]) -> list[Row]:
    """Move rows whose labels differ too much from those of fp32 to the ones that are not reported."""
    kept = []
    for row in rows:
        worst = min((figures["label_agreement"] for figures in row["accuracy"].values()), default=1.0)
        if worst >= LEAST_AGREEMENT[row["precision"]]:
            kept.append(row)
        else:
            reason = f"same label as fp32 in {worst:.2%} only: no speed is reported"
            unavailable.append({"engine": row["engine"], "precision": row["precision"], "reason": reason})
    return kept


def main() -> int:
    """Run the benchmark and write its JSON."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--bundle", default="ms-edge")
    parser.add_argument("--checkpoint", type=Path, default=ROOT / "models" / "ms-edge.pth", help="the same weights")
    parser.add_argument("--rounds", type=int, default=12, help="tiles timed of each contestant")
    parser.add_argument("--repeats", type=int, default=3, help="studies timed of each engine and overlap")
    parser.add_argument("--without", nargs="+", default=[], choices=("onnxruntime", "torch.compile"))
    parser.add_argument("--out", type=Path, default=result_path("engines"))
    options = parser.parse_args()

    bundle, folder = Bundle.open(options.bundle), data_folder() / "open_ms" / "patient19"
    tiles = real_tiles(Study.from_folder(folder), bundle, 4)
    with tempfile.TemporaryDirectory() as temporary:
        cache = Path(temporary)
        running, unavailable = enter(bundle, options.checkpoint, tiles[0], cache, options.without)
        race(running, tiles, options.rounds)
        studies, results = measure_studies(bundle, running, folder, options.repeats)
        accuracy = measure_accuracy(bundle, running, results)
        rows = []
        for contestant in running:
            name = f"{contestant.engine} {contestant.precision}"
            peak = (
                sdk_memory(options.bundle, contestant, folder, OVERLAPS[0], cache)
                if contestant.opened
                else torch_memory(options.checkpoint, bundle.manifest.tile_shape, "compile" in contestant.engine)
            )
            rows.append(
                {
                    "engine": contestant.engine,
                    "precision": contestant.precision,
                    "detail": contestant.detail,
                    "tile_s": percentiles(contestant.seconds),
                    "study_s": studies[name],
                    "peak_mib": peak,
                    "accuracy": accuracy.get(name, {}),
                }
            )
        auto = open_engine(bundle, cache_dir=cache)[1]
    rows = leave_out_untrue(rows, unavailable)
    report = {
        "benchmark": "engines",
        "date": date.today().isoformat(),
        "machine": machine_facts(),
        "bundle": {"name": bundle.manifest.name, "version": bundle.manifest.version, "hash": bundle.hash},
        "study": folder.name,
        "tile": list(bundle.manifest.tile_shape),
        "auto": auto,
        "rows": rows,
        "unavailable": unavailable,
    }
    options.out.write_text(json.dumps(report, indent=2) + "\n")
    print(json.dumps({"auto": auto, "rows": rows, "unavailable": unavailable}, indent=2))
    return 0


if __name__ == "__main__":
    sys.exit(main())
