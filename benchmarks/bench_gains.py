"""What two departures from the public code are worth on real studies: how intensities are scaled, how tiles are joined.

    python benchmarks/bench_gains.py        the studies of the folds in models/ms-edge.toml, in torch, fp32

Each departure is turned back by its own switch, with the weights as they are; each study is segmented by weights that
have not seen it. What is a matter of training is in `bench_claims.py`.

- Scaling: a vessel of 3x3x3 voxels, several times as bright as the brightest voxel, is put into both contrasts. The
  public code divides by the maximum; here that maximum is made to fit on the untouched study, so that without a vessel
  both scales are the same.
- Blending: of tiles that overlap the later overwrites the earlier, as in the public code, or both are blended. The seam
  is the mean step of the fused image across the border of a tile over that two voxels from it, on either side.
"""

from __future__ import annotations

import argparse
import json
import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from datetime import date
from pathlib import Path
from typing import Any

import numpy as np
import torch
from bench_accuracy import refuse_seen
from machine import machine_facts, result_path
from numpy.typing import NDArray
from release_plan import ROOT, Fold, read_plan

from rmr_sdk import Study
from rmr_sdk.blend import BlendOutputs
from rmr_sdk.inference import plan_study
from rmr_sdk.intensity import IntensityMap
from rmr_sdk.io.nifti import read_volume
from rmr_sdk.lesion_rule import LesionRule
from rmr_sdk.manifest import Manifest
from rmr_sdk.preprocess import Prepared, prepare, restore_labels
from rmr_sdk.tiles import TilePlan
from rmr_sdk.volume import Volume
from rmr_training.checkpoint import NORMALISATION, lesion_levels, load_network, read_checkpoint
from rmr_training.evaluate import compare_lesions
from rmr_training.evaluate.subjects import infer_network, network_manifest
from rmr_training.models import RmrFusion

VESSELS = (2.0, 4.0)
"""Brightness of the vessel, in maxima of the study."""

OVERLAP = 0.25

Row = dict[str, Any]
Image = NDArray[np.float32]
Mask = NDArray[np.bool_]


@dataclass(frozen=True, slots=True, eq=False)
class Case:
    """A study, the weights that have not seen it, and where its lesions are."""

    folder: Path
    network: RmrFusion
    manifest: Manifest

    @property
    def study(self) -> Study:
        """Read the study."""
        return Study.from_folder(self.folder)

    def assess(self, prepared: Prepared) -> tuple[Row, Image]:
        """Segment what was prepared; return the figures of its lesions and the fused image."""
        return self.judge(prepared, infer_network(self.network, prepared, self.manifest, OVERLAP))

    def judge(self, prepared: Prepared, outputs: BlendOutputs) -> tuple[Row, Image]:
        """Return the figures of the lesions of outputs, and their fused image; lesions are dropped as at run time."""
        if outputs.labels is None or outputs.probability is None or outputs.fused is None:
            raise SystemExit(f"the weights for {self.folder.name} have no segmentation head")
        rule = LesionRule.of(self.manifest)
        rule.apply(outputs.labels, outputs.probability, prepared.grid.voxel_ml)
        truth, _ = read_volume(self.folder / "lesion.nii.gz")
        found = np.asarray(restore_labels(prepared, outputs.labels).data) == rule.lesion
        figures = compare_lesions(self.folder.name, found, np.asarray(truth.data) > 0, truth.grid.spacing_mm)
        row = {name: getattr(figures, name) for name in ("study", "dice", "sensitivity", "false_lesions")}
        return row, np.asarray(outputs.fused)


def scaling(case: Case) -> Iterator[Row]:
    """Put a vessel into the study; scale by the percentile and by the maximum."""
    clean = prepare(case.study, case.manifest)
    yield {"variant": "no vessel", **case.assess(clean)[0]}
    for times in VESSELS:
        prepared = prepare(add_vessel(case.study, times), case.manifest)
        yield {"variant": f"vessel of {times:g} maxima, percentile", **case.assess(prepared)[0]}
        maximum = {name: scale_by_maximum(line, times) for name, line in clean.intensity.items()}
        by_maximum = case.assess(replace(prepared, intensity=maximum))[0]
        yield {"variant": f"vessel of {times:g} maxima, maximum", **by_maximum}


def add_vessel(study: Study, times: float) -> Study:
    """Return a study with the voxels around its middle that many times as bright as its brightest."""

    def bright(volume: Volume) -> Volume:
        data = np.array(volume.data, np.float32)
        middle = tuple(slice(side // 2 - 1, side // 2 + 2) for side in data.shape)
        data[middle] = times * data.max()
        return Volume(data, volume.affine)

    return Study({name: bright(study[name]) for name in study})


def scale_by_maximum(clean: IntensityMap, times: float) -> IntensityMap:
    """Return the scale of a maximum that is that many times what it was when it gave the clean scale."""
    return replace(clean, scale=clean.scale / times)


def blending(case: Case) -> Iterator[Row]:
    """Let the later tile overwrite the earlier one, and blend them."""
    prepared = prepare(case.study, case.manifest)
    plan = plan_study(prepared, case.manifest, OVERLAP, threads=1)
    corners = [sorted({tile.low[axis] for tile in plan.tiles} - {0}) for axis in range(3)]
    for variant, (row, fused) in (
        ("the later tile overwrites", case.judge(prepared, overwrite(case, prepared, plan))),
        ("blended", case.assess(prepared)),
    ):
        yield {"variant": variant, **row, "seam": seam(fused, brain_of(prepared), corners)}


def overwrite(case: Case, prepared: Prepared, plan: TilePlan) -> BlendOutputs:
    """Run the network over the tiles of a plan, and keep of each voxel what the last of them says."""
    contrasts, reference = case.manifest.contrasts, prepared.intensity[prepared.reference]
    seen = [prepared.intensity[name].apply(prepared.arrays[name]) for name in contrasts]
    lesion = LesionRule.of(case.manifest).lesion
    made = BlendOutputs.allocate(plan.shape)
    assert made.labels is not None
    assert made.probability is not None
    assert made.fused is not None
    for tile in plan.tiles:
        there = tuple(slice(low, high) for low, high in zip(tile.low, tile.high, strict=True))
        own = tuple(slice(s.start - first, s.stop - first) for s, first in zip(there, tile.origin, strict=True))
        inputs = []
        for image in seen:
            block = np.zeros(plan.tile_shape, np.float32)
            block[own] = image[there]
            inputs.append(torch.from_numpy(block)[None, None])
        with torch.inference_mode():
            fused, logits = case.network(*inputs)
        if logits is None:
            raise SystemExit(f"the weights for {case.folder.name} have no segmentation head")
        scores = logits[0].softmax(0)
        made.labels[there] = scores.argmax(0).numpy().astype(np.uint8)[own]
        made.probability[there] = scores[lesion].numpy()[own]
        made.fused[there] = reference.invert(fused[0, 0].numpy())[own]
    return made


def brain_of(prepared: Prepared) -> Mask:
    """Return where FLAIR is foreground; the studies are stripped."""
    line = prepared.intensity["FLAIR"]
    return np.asarray(prepared.arrays["FLAIR"]) > line.floor


def seam(image: Image, inside: Mask, corners: Sequence[Sequence[int]]) -> float:
    """Return the mean step of an image (D, H, W) into the first voxel of a tile, over that two voxels to either side.

    Args:
        image: The fused image.
        inside: Voxels that count.
        corners: First voxels of tiles along each axis.
    """
    across: list[Image] = []
    beside: list[Image] = []
    for axis, starts in enumerate(corners):
        steps = np.abs(np.diff(image, axis=axis))
        for start in starts:
            counts = np.logical_and.reduce([inside.take(place, axis) for place in range(start - 3, start + 3)])
            before, at, after = (steps.take(place, axis)[counts] for place in (start - 3, start - 1, start + 1))
            across.append(at)
            beside += [before, after]
    return float(np.concatenate(across).mean() / np.concatenate(beside).mean())


GAINS = {"scaling": scaling, "blending": blending}


def open_case(fold: Fold, data: Path) -> Case:
    """Read a fold's weights; refuse a study that they have seen."""
    refuse_seen(fold.path, fold.held_out)
    network = load_network(fold.path).float().eval()
    levels = lesion_levels(read_checkpoint(fold.path))
    return Case(data / fold.study, network, network_manifest(network.preset, NORMALISATION, levels))


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure every departure on every fold's study and write the JSON."""
    data = Path(os.environ.get("RMR_DATA", ROOT.parent / "shared" / "data"))
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", nargs="+", choices=sorted(GAINS), default=list(GAINS))
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--out", type=Path)
    options = parser.parse_args(arguments)
    torch.set_num_threads(options.threads)
    rows: list[Row] = []
    for fold in read_plan().fold:
        for gain in options.only:
            for row in GAINS[gain](open_case(fold, data)):
                rows.append({"gain": gain, "model": fold.path.stem, **row})
                print(json.dumps(rows[-1]), flush=True)
    report = {
        "benchmark": "gains",
        "date": date.today().isoformat(),
        "machine": machine_facts(),
        "precision": "fp32",
        "overlap": OVERLAP,
        "rows": rows,
    }
    (options.out or result_path("gains")).write_text(json.dumps(report, indent=2) + "\n")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
