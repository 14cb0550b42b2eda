"""How far a flat contrast is stretched (`most_median`), settled on synthetic heads: no labelled study is looked at.

    python benchmarks/bench_stretch.py            the folds of ms-edge, one process each

Lesion Dice and lesion-wise F1 on whole synthetic heads of held-out lesion donors, each with all of its lesions and with
few of them, clean and with contrasts as low as `rmr-train evaluate` makes them at its greatest strength, by the largest
median of the foreground that is left as it is; at 1 nothing is stretched. What is kept of lesions is what the weights
were calibrated to. Means are taken over the heads of a donor at a load, then over these.
"""

from __future__ import annotations

import argparse
import json
import os
from collections.abc import Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from datetime import date
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import numpy as np
import torch
from machine import machine_facts, result_path
from release_plan import ROOT, read_plan

from rmr_sdk.lesion_rule import LesionRule
from rmr_training.checkpoint import NORMALISATION, LesionLevels, lesion_levels, load_network, read_checkpoint
from rmr_training.config import HELD_OUT
from rmr_training.data import load_label_maps, split_by_donor
from rmr_training.evaluate.segmentation import count_lesions, overlap
from rmr_training.evaluate.subjects import network_manifest
from rmr_training.models import RmrFusion
from rmr_training.sureness import SIDE, Segmented, draw_heads, prepare_head, segment_prepared
from rmr_training.synthesis import LESION, Sample

BOUNDS = (1.0, 0.8, 0.7, 0.6, 0.5)
"""Largest medians that are tried."""

CASES = (("clean", 0), ("contrast", 3))
"""Damage of both contrasts, and its strength."""

Row = dict[str, Any]

Figures = tuple[float, float]
"""Lesion Dice and lesion-wise F1."""


def judge(head: Segmented, rule: LesionRule) -> Figures:
    """Return the figures of what a rule keeps."""
    labels = head.labels.copy()
    rule.apply(labels, head.probability)
    kept = labels == LESION
    return overlap(kept, head.truth), count_lesions(kept, head.truth, (1.0, 1.0, 1.0)).lesion_f1


def by_bound(
    network: RmrFusion, levels: LesionLevels, head: Sample, damage: tuple[str, int], bounds: Sequence[float]
) -> Iterator[tuple[Figures, bool]]:
    """Give the figures of a head for each bound, and whether a contrast of it was stretched."""
    known: dict[Any, Figures] = {}
    for bound in bounds:
        manifest = network_manifest(network.preset, NORMALISATION | {"most_median": bound}, levels)
        prepared = prepare_head(head, manifest, *damage)
        lines = tuple(prepared.intensity.values())
        if lines not in known:
            known[lines] = judge(segment_prepared(network, prepared, manifest, head), LesionRule.of(manifest))
        yield known[lines], any(line.stretch for line in lines)


def judge_fold(name: str, path: Path, label_maps: Path, per_map: int, bounds: Sequence[float]) -> list[Row]:
    """Return a row for each kind of damage and each bound."""
    torch.set_num_threads(1)
    network, levels = load_network(path).eval(), lesion_levels(read_checkpoint(path))
    _, held_out = split_by_donor(load_label_maps(label_maps), HELD_OUT)
    rows = []
    for damage in CASES:
        groups: dict[str, list[list[Figures]]] = {}
        stretched = np.zeros(len(bounds), int)
        for group, head, _ in draw_heads(held_out, per_map, SIDE, damaged=False):
            if not bool((head.labels == LESION).any()):
                continue
            found = list(by_bound(network, levels, head, damage, bounds))
            groups.setdefault(group, []).append([figures for figures, _ in found])
            stretched += [was for _, was in found]
            print(f"{name} {damage[0]}, donor {group}: {[round(figures[0], 3) for figures, _ in found]}", flush=True)
        means = np.mean([np.mean(heads, axis=0) for heads in groups.values()], axis=0)
        heads = sum(map(len, groups.values()))
        for bound, (dice, f1), count in zip(bounds, means, stretched, strict=True):
            row = {"fold": name, "damage": damage[0], "strength": damage[1], "most_median": bound, "heads": heads}
            rows.append(row | {"stretched": int(count), "dice": round(float(dice), 4), "f1": round(float(f1), 4)})
    return rows


def main(arguments: Sequence[str] | None = None) -> int:
    """Compare the bounds, print the means and write the JSON."""
    data = Path(os.environ.get("RMR_DATA", ROOT.parent / "shared" / "data"))
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--plan", default="ms-edge", help="models/NAME.toml (default %(default)s)")
    parser.add_argument("--heads", type=int, default=1, help="of each label map at each load (default %(default)s)")
    parser.add_argument("--out", type=Path)
    options = parser.parse_args(arguments)
    folds = [fold.path for fold in read_plan(options.plan).fold]
    with ProcessPoolExecutor(len(folds), mp_context=get_context("spawn")) as pool:
        work = [pool.submit(judge_fold, path.stem, path, data / "labelmaps", options.heads, BOUNDS) for path in folds]
        rows = [row for each in work for row in each.result()]
    for row in rows:
        print(json.dumps(row))
    report = {
        "benchmark": "stretch",
        "date": date.today().isoformat(),
        "machine": machine_facts(),
        "donors": HELD_OUT,
        "rows": rows,
    }
    (options.out or result_path("stretch")).write_text(json.dumps(report, indent=2) + "\n")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
