"""What the engine benchmarks share: contestants timed in turns, how true their results are, and what they need.

A contestant computes one tile for each slot that it has; what is reported is seconds a tile with the machine full.
"""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from math import ceil
from pathlib import Path
from time import perf_counter
from typing import Any

import numpy as np
import numpy.typing as npt

from rmr_sdk.bundle import Bundle
from rmr_sdk.engines import Engine, open_engine
from rmr_sdk.engines.base import FloatArray
from rmr_sdk.engines.cores import usable_cores
from rmr_sdk.errors import RmrError
from rmr_sdk.inference import plan_study
from rmr_sdk.pipeline import Pipeline
from rmr_sdk.preprocess import prepare
from rmr_sdk.result import Result
from rmr_sdk.study import Study
from rmr_sdk.tiles import extract_tile

Tile = dict[str, FloatArray]

PERFECT_DB = 200.0
"""Stands for the infinite ratio of equal images, which JSON cannot write."""

# Not ru_maxrss: a child inherits that of the process it was forked from.
RSS = "import re; print(int(re.search(r'VmHWM:\\s+(\\d+)', open('/proc/self/status').read())[1]) / 1024)"


def data_folder() -> Path:
    """Return where the real studies are."""
    return Path(os.environ.get("RMR_DATA", "../shared/data"))


@dataclass
class Contestant:
    """One way to compute a tile.

    Attributes:
        engine: "openvino", "onnxruntime", "torch eager", "torch.compile".
        precision: Precision computed in.
        slots: Tiles that `compute` computes at once.
        compute: Computes them; returns the outputs of the last one.
        opened: The SDK's engine and its reason, where it is one.
        seconds: Seconds a tile of each round.
    """

    engine: str
    precision: str
    slots: int
    compute: Callable[[Tile], Mapping[str, FloatArray]]
    opened: tuple[Engine, str] | None = None
    seconds: list[float] = field(default_factory=list)

    @property
    def detail(self) -> str:
        """Return what the precision alone does not say."""
        return self.opened[0].info.detail if self.opened else ""


def open_contestant(bundle: Bundle, engine: str, precision: str, cache: Path) -> Contestant | str:
    """Open an engine of the SDK; return why not, in words, where it does not run here."""
    try:
        opened = open_engine(bundle, engine, precision=precision, cache_dir=cache)
    except RmrError as error:
        return str(error)

    def compute(tile: Tile) -> dict[str, FloatArray]:
        with opened[0].session() as session:
            for _ in range(opened[0].slots):
                session.submit(tile)
            for _ in range(opened[0].slots):
                outputs = session.collect()
            return {name: array.copy() for name, array in outputs.items()}

    return Contestant(engine, precision, opened[0].slots, compute, opened)


def open_torch(network: Any, compiled: bool) -> Contestant:
    """Open a network in torch, eager or compiled by inductor, on all cores."""
    import torch

    torch.set_num_threads(usable_cores())
    run = torch.compile(network) if compiled else network

    def compute(tile: Tile) -> dict[str, FloatArray]:
        with torch.inference_mode():
            fused = run(*(torch.from_numpy(tile[name]) for name in ("t1w", "flair")))
            outputs = {"fused": fused.image.numpy()}
            if fused.logits is not None:
                outputs["probability"] = fused.logits.softmax(1).numpy()
            return outputs

    return Contestant("torch.compile" if compiled else "torch eager", "fp32", 1, compute)


def warm_up(contestant: Contestant, tile: Tile) -> Mapping[str, FloatArray] | str:
    """Compute once; return the outputs, or the last line of what went wrong."""
    try:
        return contestant.compute(tile)
    except Exception as error:  # a compiler may fail in any way; the row then says so
        return f"{type(error).__name__}: {str(error).strip().splitlines()[-1] if str(error).strip() else ''}"


def race(contestants: Sequence[Contestant], tiles: Sequence[Tile], rounds: int) -> None:
    """Time contestants in turns, on the same tile in each round."""
    for index in range(rounds):
        for contestant in contestants:
            started = perf_counter()
            contestant.compute(tiles[index % len(tiles)])
            contestant.seconds.append((perf_counter() - started) / contestant.slots)


def percentiles(seconds: Sequence[float]) -> dict[str, float]:
    """Return p50, p95, p99 and how many there were."""
    found = np.percentile(seconds, (50, 95, 99))
    return {
        **{name: round(float(v), 4) for name, v in zip(("p50", "p95", "p99"), found, strict=True)},
        "n": len(seconds),
    }


def real_tiles(study: Study, bundle: Bundle, count: int) -> list[Tile]:
    """Cut tiles out of the middle of a study, normalised."""
    prepared = prepare(study, bundle.manifest)
    plan = plan_study(prepared, bundle.manifest, 0.25, 1)
    first = max(0, (len(plan.tiles) - count) // 2)
    tiles = []
    for tile in plan.tiles[first : first + count]:
        arrays = {name: np.empty((1, 1, *plan.tile_shape), np.float32) for name in bundle.manifest.input_names}
        for name, source in prepared.arrays.items():
            extract_tile(source, tile.origin, arrays[name.lower()], prepared.intensity[name], 1)
        tiles.append(arrays)
    return tiles


def run_study(bundle: Bundle, contestant: Contestant, study: Study, overlap: float) -> tuple[float, Result]:
    """Run a whole study, arrays in, arrays out."""
    assert contestant.opened is not None
    pipeline = Pipeline(bundle, *contestant.opened)
    started = perf_counter()
    result = pipeline.run(study, overlap=overlap)
    return perf_counter() - started, result


def monai_tiles(shape: Sequence[int], tile: Sequence[int], overlap: float) -> int:
    """Return how many windows MONAI's sliding window computes of a volume: all of them, background too."""
    counts = (ceil(max(n - t, 0) / int(t * (1 - overlap))) + 1 for n, t in zip(shape, tile, strict=True))
    return int(np.prod(list(counts)))


def psnr_db(found: npt.NDArray[Any], exact: npt.NDArray[Any], where: npt.NDArray[np.bool_]) -> float:
    """Return the peak signal-to-noise ratio over some voxels, the peak being the range of the exact image there."""
    difference = found[where].astype(np.float64) - exact[where]
    error = float(np.square(difference).mean())
    peak = float(exact[where].max() - exact[where].min())
    return PERFECT_DB if error == 0 else round(10 * float(np.log10(peak**2 / error)), 2)


def fidelity(found: Result, exact: Result, truth: npt.NDArray[np.bool_] | None) -> dict[str, float]:
    """Compare a result with the fp32 one of the same engine and overlap.

    Args:
        found: The result.
        exact: The fp32 result.
        truth: Lesions of the consensus; None to leave them out.
    """
    where = np.logical_or.reduce([volume.data > 0 for volume in exact.inputs.values()])
    figures = {"fused_psnr_db": psnr_db(found.fused.data, exact.fused.data, where)}
    if found.labels is None or exact.labels is None or exact.classes is None:
        return figures
    ours, theirs = found.labels.data, exact.labels.data
    either = (ours > 0) | (theirs > 0)
    figures["label_agreement"] = round(float((ours == theirs)[either].mean()), 6)
    for index, name in enumerate(exact.classes[1:], start=1):
        figures[f"{name}_dice"] = round(dice(ours == index, theirs == index), 5)
    if truth is not None and exact.lesion_class is not None:
        figures["consensus_lesion_dice"] = round(dice(ours == exact.classes.index(exact.lesion_class), truth), 4)
    return figures


def dice(one: npt.NDArray[np.bool_], other: npt.NDArray[np.bool_]) -> float:
    """Return the Dice overlap; 1 where both are empty."""
    total = int(one.sum()) + int(other.sum())
    return 2 * int((one & other).sum()) / total if total else 1.0


def peak_mib(code: str) -> float:
    """Run code in a fresh interpreter; return its peak resident memory in MiB."""
    done = subprocess.run([sys.executable, "-c", code + "\n" + RSS], check=True, capture_output=True, text=True)
    return round(float(done.stdout.strip().splitlines()[-1]))


def sdk_memory(bundle: str, contestant: Contestant, study: Path, overlap: float, cache: Path) -> float:
    """Return the peak memory of reading and running a study with an engine of the SDK, in MiB."""
    options = f"engine={contestant.engine!r}, precision={contestant.precision!r}, cache_dir={str(cache)!r}"
    return peak_mib(
        "from rmr_sdk import Pipeline, Study\n"
        f"study = Study.from_folder({str(study)!r})\n"
        f"with Pipeline.open({bundle!r}, {options}) as pipeline:\n    pipeline.run(study, overlap={overlap})"
    )
