"""One study through several precisions side by side: a tile is cut once, and every precision is a lane of its own."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from rmr_export.errors import PrecisionError
from rmr_export.parity import Run
from rmr_sdk.blend import BlendOutputs
from rmr_sdk.errors import GeometryError
from rmr_sdk.inference import make_blender
from rmr_sdk.io.nifti import read_volume
from rmr_sdk.manifest import Manifest
from rmr_sdk.preprocess import restore_labels
from rmr_training.evaluate.fidelity import mean_ssim

from .compare import Comparison, Tensors, compare_tiles
from .runners import EMULATED
from .tiles import PreparedStudy, naming

logger = logging.getLogger(__name__)

EMULATED_TILES = 2
"""Tiles of each study for a precision that is emulated."""

Mask = NDArray[np.bool_]


@dataclass(slots=True)
class Measured:
    """One precision on one study.

    Attributes:
        precision: The precision.
        study: Name of the study.
        tiles: How many tiles were computed.
        whole: Whether these are all; the figures are of the blended study then, otherwise of single tiles.
        figures: Name -> value.
    """

    precision: str
    study: str
    tiles: int
    whole: bool
    figures: dict[str, float] = field(default_factory=dict)


def measure_study(
    study: PreparedStudy, manifest: Manifest, runners: Mapping[str, Run], tiles: int | None
) -> list[Measured]:
    """Compare precisions with fp32 on one study.

    Args:
        study: The study.
        manifest: Of the bundle.
        runners: Precision -> function that computes a tile; with fp32.
        tiles: How many tiles; None for the whole study.

    Raises:
        PrecisionError: A precision gives values that are not finite; it is named.
        GeometryError: The lesion mask of the study is not on the grid of its reference.
    """
    total = len(study.plan.tiles)
    counts = {name: _count(name, tiles, total) for name in runners}
    counts["fp32"] = max(counts.values())
    lanes = {name: _Lane(name, run, study, manifest, counts[name]) for name, run in runners.items()}
    for index in range(total):
        working = [lane for lane in lanes.values() if index in lane.indices]
        if not working:
            continue
        inputs = study.tile(index)
        if lanes["fp32"] not in working:
            working.insert(0, lanes["fp32"])
        outputs = {lane.name: lane.compute(index, inputs) for lane in working}
        for lane in working:
            if lane.name != "fp32":
                compare_tiles(lane.comparison, inputs, outputs["fp32"], outputs[lane.name], lane.lesion)
        logger.info('study "%s": tile %d of %d', study.name, index + 1, total)
    return _finish(study, lanes)


class _Lane:
    """One precision: which tiles it computes, and what comes of them."""

    def __init__(self, name: str, run: Run, study: PreparedStudy, manifest: Manifest, count: int) -> None:
        self.name, self.run, self.study = name, run, study
        self.indices = set(study.spread(count))
        self.whole = len(self.indices) == len(study.plan.tiles)
        self.blender = make_blender(study.prepared, study.plan, manifest, threads=1) if self.whole else None
        self.comparison = Comparison()
        classes = manifest.classes or ()
        self.lesion = classes.index(manifest.lesion_class) if manifest.lesion_class is not None else None

    def compute(self, index: int, inputs: Tensors) -> Tensors:
        outputs = self.run(inputs)
        for name, array in outputs.items():
            if not np.isfinite(array).all():
                raise PrecisionError(
                    f'{self.name} gives values in "{name}" that are not finite, on study "{self.study.name}".',
                    "Keep more layers in fp32, or leave the precision out.",
                    precision=self.name,
                    study=self.study.name,
                )
        if self.blender is not None:
            self.blender.add(index, outputs["fused"], outputs.get("probability"))
        return outputs


def _count(name: str, tiles: int | None, total: int) -> int:
    wanted = total if tiles is None else min(tiles, total)
    return min(wanted, EMULATED_TILES) if name in EMULATED else wanted


def _finish(study: PreparedStudy, lanes: Mapping[str, _Lane]) -> list[Measured]:
    blended = {name: lane.blender.finish() for name, lane in lanes.items() if lane.blender is not None}
    with naming(study.name):
        truth = _lesion_mask(study) if len(blended) > 1 else None
    found = []
    for name, lane in lanes.items():
        if name == "fp32":
            continue
        figures = lane.comparison.figures()
        if name in blended:
            figures |= _blended_figures(study, blended["fp32"], blended[name], lane.lesion, truth)
        found.append(Measured(name, study.name, len(lane.indices), name in blended, figures))
    return found


def _blended_figures(
    study: PreparedStudy, reference: BlendOutputs, other: BlendOutputs, lesion: int | None, truth: Mask | None
) -> dict[str, float]:
    """Compare whole studies; the fused images within the head."""
    comparison = Comparison()
    prepared = study.prepared
    head = np.asarray(prepared.arrays[prepared.reference]) > prepared.intensity[prepared.reference].floor
    assert reference.fused is not None
    assert other.fused is not None
    comparison.add_fused(reference.fused[head], other.fused[head])
    figures = {}
    if reference.labels is not None and other.labels is not None:
        comparison.add_labels(reference.labels, other.labels, lesion)
        if truth is not None and lesion is not None:
            labels = (other.labels, reference.labels)
            dice = [_dice(restore_labels(prepared, each).data == lesion, truth) for each in labels]
            figures["lesion_dice_difference"] = dice[0] - dice[1]
    span = comparison.high - comparison.low
    figures["fused_ssim"] = mean_ssim(reference.fused, other.fused, head, span or 1.0)
    return comparison.figures() | figures


def _dice(found: Mask, truth: Mask) -> float:
    total = int(found.sum()) + int(truth.sum())
    return 2 * int((found & truth).sum()) / total if total else 1.0


def _lesion_mask(study: PreparedStudy) -> Mask | None:
    """Read the lesion mask of a study, where its folder holds one, on the grid of the reference contrast."""
    files = _mask_files(study.folder)
    if not files:
        return None
    mask, _ = read_volume(files[0], label="the lesion mask")
    if not mask.grid.matches(study.study[study.prepared.reference].grid):
        raise GeometryError("its lesion mask lies on another grid than its reference contrast.", "Resample the mask.")
    return np.asarray(mask.data) > 0


def _mask_files(folder: Path | None) -> Sequence[Path]:
    if folder is None:
        return ()
    return [
        path
        for top in (folder, folder / "anat")
        for pattern in ("lesion.nii*", "*_desc-lesion_mask.nii*")
        for path in sorted(top.glob(pattern))
    ]
