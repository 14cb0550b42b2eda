"""The three claims of the method at a scale that one CPU core affords: runs, verdicts, tables and figure.

    python benchmarks/bench_claims.py --threads 1 --steps 300 --seeds 3      train and measure what is not there yet
    python benchmarks/bench_claims.py --render                               docs/claims.md from the newest result
    python benchmarks/bench_claims.py --device cuda --steps 5000 --batch 4 --patches 5000 --out runs/claims-gpu

Every run is kept in the folder --out: one that is finished is not repeated, one that was cut off goes on from its last
checkpoint. Not part of `make bench`.
"""

from __future__ import annotations

import argparse
import json
import logging
import os
import re
from collections.abc import Sequence
from dataclasses import asdict, fields
from datetime import date
from pathlib import Path
from typing import Any

import torch
from claims import page
from claims.arms import ARMS, Arm, cost
from claims.measures import Material, measure, real_patches, synthetic_patches
from claims.pool import Pool, open_pool
from claims.training import Budget, Place, load_run, train
from claims.verdicts import Runs, compare
from claims.verdicts import claims as judge
from machine import machine_facts
from result_tables import newest

from rmr_sdk.engines.cache import default_cache_dir
from rmr_training.config import HELD_OUT
from rmr_training.data import load_label_maps, split_by_donor

RESULTS = Path(__file__).parent / "results"
LEARN_SEED, VALIDATION_SEED = 71, 900_001
"""Seeds of the two pools of patches."""

log = logging.getLogger("claims")


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the benchmark, or render its newest result."""
    options = _parser().parse_args(arguments)
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s", datefmt="%H:%M:%S")
    if options.render:
        page.render(newest("claims"))
        return 0
    torch.set_num_threads(options.threads)
    values = vars(options) | {"autoencoder_steps": options.autoencoder_steps or options.steps}
    budget = Budget(**{item.name: values[item.name] for item in fields(Budget)})
    place = Place(options.out, torch.device(options.device))
    report = run_all(options, budget, place)
    device = torch.cuda.get_device_name() if place.device.type == "cuda" else f"cpu {os.cpu_count()}core"
    name = re.sub(r"[^a-z0-9]+", "-", device.lower())
    file = options.result or RESULTS / f"{name}-{report['date']}-claims.json"
    file.write_text(json.dumps(report, indent=1) + "\n")
    for claim, verdict in report["claims"].items():
        print(f"claim ({claim}): {verdict}")
    return 0


def settle(place: Place, budget: Budget, held_out: Sequence[str], *pools: Pool) -> None:
    """Keep the settings of a folder of runs; refuse to mix runs of different settings, donors or patches.

    Raises:
        SystemExit: The folder holds runs of other settings.
    """
    fixed = {"held_out": sorted(held_out), "pools": [pool.name for pool in pools]}
    settings = json.dumps(asdict(budget) | fixed, indent=1) + "\n"
    file = place.folder / "settings.json"
    if file.exists() and file.read_text() != settings:
        raise SystemExit(f"{place.folder} holds runs of other settings ({file.name}): choose another --out")
    place.folder.mkdir(parents=True, exist_ok=True)
    file.write_text(settings)


def choose(names: Sequence[str] | None) -> list[Arm]:
    """Return the arms of these names with the autoencoders that they build on; all arms without names."""
    asked = [arm for arm in ARMS if names is None or arm.name in names]
    wanted = {arm.name for arm in asked} | {arm.autoencoder for arm in asked}
    return [arm for arm in ARMS if arm.name in wanted]


def run_all(options: argparse.Namespace, budget: Budget, place: Place) -> dict[str, Any]:
    """Train and measure every arm with every seed, and compare them."""
    held_out = options.held_out.split(",")
    known, unseen = split_by_donor(load_label_maps(options.labelmaps), held_out)
    made = options.cache
    learn = open_pool(made, known, budget.side, budget.patches, LEARN_SEED, _told("patches to learn from"))
    check = open_pool(made, unseen, budget.side, budget.validation, VALIDATION_SEED, _told("patches to measure on"))
    settle(place, budget, held_out, learn, check)
    real = sorted(options.real.glob("patient*")) if options.real else []
    material = Material(
        synthetic_patches(check, place.device), real_patches(real, budget.side, place.device) if real else {}
    )
    rows, runs = [], {}
    todo = [(arm, seed) for seed in range(options.seeds) for arm in choose(options.arms)]
    for arm, seed in sorted(todo, key=lambda run: run[0].control):
        row = train(arm, seed, budget, learn, place)
        figures = measure(arm, load_run(arm, seed, place), material, place.file(arm.name, seed, ".measures.json"))
        runs[arm.name, seed] = figures
        rows.append(row | {"figures": figures})
    return _report(budget, options, rows, runs)


def _report(budget: Budget, options: argparse.Namespace, rows: list[dict[str, Any]], runs: Runs) -> dict[str, Any]:
    comparisons = compare(runs)
    return {
        "benchmark": "claims",
        "date": date.today().isoformat(),
        "machine": machine_facts(),
        "device": options.device,
        "threads": options.threads,
        "seeds": options.seeds,
        "budget": asdict(budget),
        "held_out_donors": options.held_out,
        "arms": [_arm_row(arm, budget) for arm in ARMS if any(row["arm"] == arm.name for row in rows)],
        "claims": judge(comparisons),
        "comparisons": [comparison.to_row() for comparison in comparisons],
        "runs": rows,
    }


def _arm_row(arm: Arm, budget: Budget) -> dict[str, Any]:
    parameters, kmac = cost(arm)
    row = {"name": arm.name, "kind": arm.kind, "about": arm.about, "steps": budget.steps_of(arm)}
    return row | {"parameters": parameters, "kmac_per_voxel": round(kmac, 2)}


def _told(what: str) -> Any:
    def tell(count: int) -> None:
        if count % 20 == 0:
            log.info("%d %s", count, what)

    return tell


def _parser() -> argparse.ArgumentParser:
    data = Path(os.environ.get("RMR_DATA", "../shared/data"))
    defaults = {item.name: item.default for item in fields(Budget)}
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--render", action="store_true", help="only rewrite docs/claims.md from the newest result")
    parser.add_argument("--steps", type=int, default=200, help="steps of stage 2 and of direct arms")
    parser.add_argument("--autoencoder-steps", type=int, help="steps of stage 1 (default: those of stage 2)")
    parser.add_argument("--seeds", type=int, default=3)
    names = [arm.name for arm in ARMS]
    about = f"only these and the autoencoders that they build on, of {', '.join(names)}"
    parser.add_argument("--arms", nargs="+", choices=names, metavar="ARM", help=about)
    parser.add_argument("--batch", type=int, default=defaults["batch"], help="patches a step")
    parser.add_argument("--side", type=int, default=defaults["side"], help="side of a patch in voxels")
    parser.add_argument("--patches", type=int, default=defaults["patches"], help="patches in the pool to learn from")
    parser.add_argument("--validation", type=int, default=defaults["validation"], help="patches to measure on")
    about = "degraded versions of each image a step of stage 1, 1 to 3; 3 is the authors' way"
    parser.add_argument("--degraded", type=int, default=defaults["degraded"], help=about)
    parser.add_argument("--rate", type=float, default=defaults["rate"], help="peak learning rate")
    about = "peak learning rate of stage 1"
    parser.add_argument("--autoencoder-rate", type=float, default=defaults["autoencoder_rate"], help=about)
    about = "weight of lesions in the cross-entropy"
    parser.add_argument("--lesion-weight", type=float, default=defaults["lesion_weight"], help=about)
    parser.add_argument("--checkpoint-every", type=int, default=defaults["checkpoint_every"], help="steps")
    parser.add_argument("--device", default="cpu", help="cpu or cuda")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--labelmaps", type=Path, default=data / "labelmaps")
    parser.add_argument(
        "--held-out", default=",".join(HELD_OUT), help="lesion donors to measure on (default %(default)s)"
    )
    real = data / "open_ms" if (data / "open_ms").is_dir() else None
    parser.add_argument("--real", type=Path, default=real, help="folder of labelled studies, reported beside")
    parser.add_argument("--no-real", dest="real", action="store_const", const=None, help="report no real study")
    parser.add_argument("--out", type=Path, default=Path("runs/claims"), help="folder of the runs")
    parser.add_argument("--cache", type=Path, default=default_cache_dir() / "claims", help="folder of the patches")
    parser.add_argument("--result", type=Path, help="JSON to write (default: benchmarks/results)")
    return parser


if __name__ == "__main__":
    raise SystemExit(main())
