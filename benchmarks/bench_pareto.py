"""What size buys: three sizes of the edge network after the same small training, and what each costs.

    python benchmarks/bench_pareto.py --steps 1000 --threads 1      train what is not trained yet, then measure
    python benchmarks/model_card.py                                 show the result

Every size starts from the same seed and sees the same synthetic patches in the same order; fusion, head and autoencoder
are trained together, without stage 1 and without real studies. Nine patches of ten lie near a lesion, none lacks its
lesions or shows a whole head: of patches as the release has them no size had learnt a lesion after 300 steps. A run
that was cut off goes on from its last checkpoint, one that is finished is not repeated. The real study is there for the
clock alone: its lesion mask is not opened.
"""

from __future__ import annotations

import argparse
import contextlib
import csv
import json
import os
import statistics
import tempfile
import time
from collections.abc import Sequence
from dataclasses import asdict
from datetime import date
from pathlib import Path
from typing import Any

import torch
from cost import measure_cost
from exported import export_unproven
from machine import machine_facts, result_path

from rmr_sdk import Pipeline, Study
from rmr_sdk.errors import DeviceUnavailableError
from rmr_training.checkpoint import load_network
from rmr_training.config import DataConfig, load_material
from rmr_training.data import Patches
from rmr_training.models import CLASSES, RmrFusion, find_preset
from rmr_training.recipe import Recipe
from rmr_training.stages import Material, Trainer
from rmr_training.synthesis import Ranges
from rmr_training.validation import validate

SIZES = ("edge-small", "edge", "edge-large")
PRECISIONS = ("fp32", "bf16")
RANGES = Ranges(lesion_centred=0.9, no_lesions=0.0, whole_head=0.0)
OVERLAP = 0.25
TIMED_SAMPLES = 8

Row = dict[str, Any]


def train(size: str, recipe: Recipe, material: Material, folder: Path) -> Path:
    """Train one size, or go on with it; return its averaged weights.

    Raises:
        SystemExit: The folder holds a run of another recipe.
    """
    folder.mkdir(parents=True, exist_ok=True)
    settings = folder / "recipe.json"
    text = json.dumps({"recipe": asdict(recipe), "ranges": asdict(material.ranges)}, indent=2) + "\n"
    if settings.exists() and settings.read_text() != text:
        raise SystemExit(f"{folder} holds a run of another recipe: choose another --runs")
    settings.write_text(text)
    torch.manual_seed(recipe.seed)
    trainer = Trainer(RmrFusion(find_preset(size)), recipe, material, folder)
    if (folder / "last.pth").exists():
        trainer.resume(folder / "last.pth")
    if trainer.step < recipe.steps:
        trainer.run(Meter(size, recipe, folder / "meter.json"))
    return folder / "model.pth"


class Meter:
    """Counts the CPU time that steps take, which other programs on the machine change less than the clock's.

    Args:
        size: Name of the size, for a terminal.
        recipe: What is trained.
        file: Takes steps and seconds; they go on where an earlier process left off.
    """

    def __init__(self, size: str, recipe: Recipe, file: Path) -> None:
        self.size, self.recipe, self.file = size, recipe, file
        self.counts = json.loads(file.read_text()) if file.exists() else {"steps": 0, "cpu_s": 0.0}
        self._since = time.process_time()

    def __call__(self, step: int, loss: float) -> None:
        """Count a step."""
        now = time.process_time()
        self.counts = {"steps": self.counts["steps"] + 1, "cpu_s": self.counts["cpu_s"] + now - self._since}
        self._since = now
        if step % self.recipe.log_every == 0 or step == self.recipe.steps:
            self.file.write_text(json.dumps(self.counts))
            print(f"{self.size} {step}/{self.recipe.steps} loss {loss:.3f}", flush=True)


def read_speed(folder: Path, batch: int) -> dict[str, float]:
    """Return the speed of a run: CPU seconds a step, and medians over its log of steps a second and of waiting.

    The first line of a log has no speed, and neither has the first after a run was resumed.
    """
    with (folder / "log.csv").open() as file:
        rows = [row for row in csv.DictReader(file) if row["patches_per_s"]]
    counts = json.loads((folder / "meter.json").read_text())
    return {
        "step_cpu_s": round(counts["cpu_s"] / counts["steps"], 3),
        "steps_per_s": round(statistics.median(float(row["patches_per_s"]) for row in rows) / batch, 3),
        "waiting_share": round(statistics.median(float(row["waiting_share"]) for row in rows), 3),
    }


def sample_seconds(material: Material, recipe: Recipe) -> float:
    """Return the CPU seconds that one synthetic patch takes to make, the mean of some."""
    stream = Patches(material.maps, recipe.side, recipe.seed, ranges=material.ranges)
    stream.sample(0)
    started = time.process_time()
    for index in range(TIMED_SAMPLES):
        stream.sample(index)
    return (time.process_time() - started) / TIMED_SAMPLES


def synthetic_dice(checkpoint: Path, material: Material, recipe: Recipe) -> dict[str, float]:
    """Return Dice by class, and their mean, on patches of lesion donors that were held out."""
    found = validate(load_network(checkpoint), material.held_out, recipe, torch.device("cpu"), material.ranges)
    by_class = {name: round(dice, 4) for name, dice in zip(CLASSES[1:], found.dice, strict=True)}
    return {"mean": round(found.score, 4), **by_class}


def end_to_end(bundle: Path, study: Study, repeats: int, threads: int) -> dict[str, float]:
    """Return the median seconds of a study, arrays in and arrays out, by precision; runs are interleaved.

    A precision that the processor does not have is left out.
    """
    seconds: dict[str, list[float]] = {}
    with tempfile.TemporaryDirectory() as cache:
        for _ in range(repeats):
            for precision in PRECISIONS:
                with (
                    contextlib.suppress(DeviceUnavailableError),
                    Pipeline.open(bundle, precision=precision, threads=threads, cache_dir=cache) as pipeline,
                ):
                    pipeline.warmup()
                    started = time.perf_counter()
                    pipeline.run(study, overlap=OVERLAP)
                    seconds.setdefault(precision, []).append(time.perf_counter() - started)
    return {precision: round(statistics.median(runs), 3) for precision, runs in seconds.items()}


def measure(size: str, checkpoint: Path, recipe: Recipe, material: Material, options: argparse.Namespace) -> Row:
    """Measure one trained size."""
    cost = measure_cost(find_preset(size))
    row: Row = {
        "size": size,
        "parameters": cost.parameters,
        "kmac_per_voxel": round(cost.kmac_per_voxel, 1),
        "training": read_speed(checkpoint.parent, recipe.batch),
        "synthetic_dice": synthetic_dice(checkpoint, material, recipe),
    }
    with tempfile.TemporaryDirectory() as folder:
        bundle = export_unproven(checkpoint, Path(folder))
        row["bundle_mb"] = round(bundle.stat().st_size / 1e6, 2)
        if options.study is not None:
            study = Study.from_folder(options.study)
            row["seconds"] = end_to_end(bundle, study, options.repeats, options.inference_threads)
    return row


def make_recipe(options: argparse.Namespace) -> Recipe:
    """Build the recipe that all sizes share."""
    return Recipe(
        stage="joint",
        steps=options.steps,
        warmup=min(50, options.steps // 10),
        rate=options.rate,
        batch=options.batch,
        side=options.side,
        ema=options.ema,
        train_autoencoder=True,
        real_share=0.0,
        log_every=min(20, max(1, options.steps // 5)),
        checkpoint_every=options.checkpoint_every,
        validation_patches=options.validation_patches,
        workers=options.workers,
    )


def main(arguments: Sequence[str] | None = None) -> int:
    """Train and measure all sizes, and write the JSON."""
    options = _parser().parse_args(arguments)
    torch.set_num_threads(options.threads)
    recipe = make_recipe(options)
    material = load_material(DataConfig(labelmaps=str(options.labelmaps)), RANGES, "joint")
    rows = []
    for size in options.sizes:
        checkpoint = train(size, recipe, material, options.runs / size)
        rows.append(measure(size, checkpoint, recipe, material, options))
        print(json.dumps(rows[-1]))
    report = {
        "benchmark": "pareto",
        "date": date.today().isoformat(),
        "machine": machine_facts(),
        "recipe": asdict(recipe),
        "ranges": asdict(RANGES),
        "training_threads": options.threads,
        "sample_cpu_s": round(sample_seconds(material, recipe), 3),
        "study": None if options.study is None else options.study.name,
        "inference_threads": options.inference_threads,
        "overlap": OVERLAP,
        "repeats": options.repeats,
        "sizes": rows,
    }
    out = options.out or result_path("pareto")
    out.write_text(json.dumps(report, indent=2) + "\n")
    return 0


def _parser() -> argparse.ArgumentParser:
    data = Path(os.environ.get("RMR_DATA", "../shared/data")).absolute()
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--steps", type=int, default=1000, help="of each size (default %(default)s)")
    parser.add_argument("--rate", type=float, default=2e-3, help="peak learning rate")
    parser.add_argument("--batch", type=int, default=2, help="patches a step")
    parser.add_argument("--side", type=int, default=48, help="side of a patch in voxels")
    parser.add_argument("--ema", type=float, default=0.99, help="decay of the weight average")
    parser.add_argument("--checkpoint-every", type=int, default=100, help="steps")
    parser.add_argument("--validation-patches", type=int, default=32)
    parser.add_argument("--workers", type=int, default=1, help="processes that make samples")
    parser.add_argument("--threads", type=int, default=1, help="of the training")
    parser.add_argument("--inference-threads", type=int, default=2)
    parser.add_argument("--repeats", type=int, default=3, help="runs of the study by size and precision")
    parser.add_argument("--sizes", nargs="+", choices=SIZES, default=SIZES)
    parser.add_argument("--labelmaps", type=Path, default=data / "labelmaps")
    study = data / "open_ms" / "patient19"
    parser.add_argument("--study", type=Path, default=study, help="images to time inference on")
    parser.add_argument("--no-study", dest="study", action="store_const", const=None, help="time no inference")
    parser.add_argument("--runs", type=Path, default=Path("runs/pareto"), help="folder of the runs")
    parser.add_argument("--out", type=Path, help="JSON to write (default: benchmarks/results)")
    return parser


if __name__ == "__main__":
    raise SystemExit(main())
