"""Which of several weights to go on with, settled on synthetic patches: no labelled study is looked at.

    python benchmarks/bench_candidates.py released=models/ms-edge-fold07.pth tried=runs/tried/model.pth

Lesion Dice on patches of held-out lesion donors, with all lesions and with few small ones, clean and under the damage
that a study may have. Each candidate gets the one offset of the lesion score that suits all groups of patches best, so
that weights are compared rather than thresholds; what a release is calibrated to is not looked at.
"""

from __future__ import annotations

import argparse
import json
import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import date
from pathlib import Path
from typing import Any

import torch
from machine import machine_facts, result_path
from release_plan import ROOT
from torch import Generator, Tensor

from rmr_training.calibration import best_offset, dice_at, margins_of
from rmr_training.checkpoint import load_network
from rmr_training.config import HELD_OUT
from rmr_training.data import Patches, load_label_maps, split_by_donor
from rmr_training.degradations import gaussian_blur
from rmr_training.evaluate import CONDITIONS
from rmr_training.models import RmrFusion
from rmr_training.synthesis import Ranges

SEED = 770_077
"""Of the patches; calibration and validation have others."""

SIDE = 64

LOADS = {"all": 0.0, "few": 1.0}
"""Lesions of a patch, and the probability that only few small ones are left."""

Pair = tuple[Tensor, Tensor]
"""Score of the lesion class minus the best other one, and whether a voxel is a lesion, (n,) both."""


STRONGEST = {name: condition.amounts[-1] for name, condition in CONDITIONS.items()}
"""What `rmr-train evaluate` does at its greatest strength."""


def _same(image: Tensor, _: Generator) -> Tensor:
    return image


def _noise(image: Tensor, generator: Generator) -> Tensor:
    return image + STRONGEST["noise"] * torch.randn(image.shape, generator=generator) * (image != 0)


def _blur(image: Tensor, _: Generator) -> Tensor:
    return gaussian_blur(image[None], STRONGEST["blur"])[0]


@dataclass(frozen=True, slots=True)
class Damage:
    """Ranges that patches are drawn from beside the common ones, and what is done to both contrasts (1, D, H, W)."""

    ranges: Mapping[str, float] = field(default_factory=dict)
    change: Callable[[Tensor, Generator], Tensor] = _same


DAMAGE = {
    "clean": Damage(),
    "noise": Damage(change=_noise),
    "blur": Damage(change=_blur),
    "contrast": Damage({"low_contrast": 1.0}),
    "thick": Damage({"thick_slices": 1.0}),
}
"""Contrast and slices are as the synthesis draws them."""


def ranges_of(damage: Damage, few: float) -> Ranges:
    """Return how patches of a group vary: a third of them near a lesion, all that looks like one on each."""
    common = {"lesion_centred": 0.3, "whole_head": 0.0, "no_lesions": 0.0, "look_alikes": 1.0}
    return Ranges(**{**common, "thick_slices": 0.0, "low_contrast": 0.0, "few_lesions": few, **damage.ranges})


def margins(network: RmrFusion, stream: Patches, change: Callable[[Tensor, Generator], Tensor], count: int) -> Pair:
    """Run a network over patches; return all voxels that an offset could make a lesion, and those that are one."""
    found: list[Pair] = []
    for index in range(count):
        sample, _ = stream.draw(index)
        generator = Generator().manual_seed(index)
        t1w, flair = change(sample.t1w, generator), change(sample.flair, generator)
        with torch.inference_mode():
            found.append(margins_of(network(t1w[None], flair[None]).logits, sample.labels))
    return torch.cat([margin for margin, _ in found]), torch.cat([lesion for _, lesion in found])


def compare(name: str, groups: Mapping[tuple[str, str], Pair]) -> dict[str, Any]:
    """Return the row of a candidate: its offset, its mean Dice and that of every group at this offset."""
    offset, _, mean = best_offset(list(groups.values()))
    dice: dict[str, dict[str, float]] = {}
    for (load, damage), pair in groups.items():
        dice.setdefault(load, {})[damage] = round(float(dice_at(offset, *pair)), 4)
    return {"candidate": name, "offset": round(offset, 2), "mean": round(mean, 4), "dice": dice}


def main(arguments: Sequence[str] | None = None) -> int:
    """Compare the candidates, print a line of each and write the JSON."""
    data = Path(os.environ.get("RMR_DATA", ROOT.parent / "shared" / "data"))
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("candidates", nargs="+", metavar="NAME=FILE", help="averaged weights and what to call them")
    parser.add_argument("--patches", type=int, default=24, help="of each group (default %(default)s)")
    parser.add_argument("--threads", type=int, default=os.cpu_count())
    parser.add_argument("--out", type=Path)
    options = parser.parse_args(arguments)
    named = [each.partition("=") for each in options.candidates]
    if unnamed := [name for name, sign, _ in named if not sign]:
        parser.error(f"{unnamed[0]}: give it a name, as NAME=FILE")
    torch.set_num_threads(options.threads)
    _, held_out = split_by_donor(load_label_maps(data / "labelmaps"), HELD_OUT)
    rows = []
    for name, _, file in named:
        network = load_network(Path(file)).eval()
        groups = {
            (load, kind): margins(
                network,
                Patches(held_out, SIDE, SEED, ranges=ranges_of(damage, few)),
                damage.change,
                options.patches,
            )
            for load, few in LOADS.items()
            for kind, damage in DAMAGE.items()
        }
        rows.append(compare(name, groups))
        print(json.dumps(rows[-1]), flush=True)
    report = {
        "benchmark": "candidates",
        "date": date.today().isoformat(),
        "machine": machine_facts(),
        "patches": options.patches,
        "side": SIDE,
        "donors": HELD_OUT,
        "rows": rows,
    }
    (options.out or result_path("candidates")).write_text(json.dumps(report, indent=2) + "\n")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
