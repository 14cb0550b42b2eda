"""Figures of a trained network on patches: overlap with the labels, quality of the fused image, and what damage does.

Patches come from held-out lesion donors and are the same for every run. Real patches are cut at fixed places around
the centre of the brain; they are reported and decide nothing.
"""

from __future__ import annotations

import itertools
import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from monai.metrics import compute_dice
from torch import Tensor, nn

from rmr_training.degradations import DEGRADATIONS
from rmr_training.evaluate.fidelity import mean_ssim
from rmr_training.evaluate.fusion_quality import FusionReference
from rmr_training.models import CLASSES, RmrFusion
from rmr_training.objectives import autocast
from rmr_training.real import load_real_study
from rmr_training.sampling import keyed_generator
from rmr_training.synthesis import LESION, WHITE

from .arms import Arm, DirectNetwork
from .pool import Batch, Pool

HIGH = 1.5
"""Greatest intensity that a network sees."""

FUSION_FIGURES = ("qabf", "ssim", "ssim_t1w", "ssim_flair", "vif", "fmi", "mi", "scd", "entropy")
REAL_PLACES = (-32, 32)
"""Centres of real patches along each axis, in voxels from the centre of the brain."""

Patches = list[Batch]


@dataclass(frozen=True, slots=True, eq=False)
class Material:
    """What networks are measured on: synthetic patches of held-out donors, real ones by study."""

    synthetic: Patches
    real: Mapping[str, Patches]


def synthetic_patches(pool: Pool, device: torch.device) -> Patches:
    """Take every patch of a pool, one a batch."""
    return [pool.take([index], device) for index in range(len(pool))]


def real_patches(folders: Iterable[Path], side: int, device: torch.device) -> dict[str, Patches]:
    """Cut eight patches of each labelled real study around the centre of its brain."""
    found = {}
    for folder in folders:
        study = load_real_study(folder, labelled=True)
        assert study.labels is not None
        patches = []
        for box in _boxes(study.brain.mean(0), study.labels.shape, side):
            t1w, flair = study.images[(slice(None), *box)].to(device)
            patches.append((t1w[None, None], flair[None, None], study.labels[box][None]))
        found[study.name] = patches
    return found


def _boxes(centre: np.ndarray, shape: Sequence[int], side: int) -> Iterator[tuple[slice, ...]]:
    for offset in itertools.product(REAL_PLACES, repeat=3):
        lows = [min(max(round(c) + o - side // 2, 0), n - side) for c, o, n in zip(centre, offset, shape, strict=True)]
        yield tuple(slice(low, low + side) for low in lows)


def measure(arm: Arm, network: RmrFusion | DirectNetwork, material: Material, file: Path) -> dict[str, Any]:
    """Measure a network, unless it has been on the same real studies.

    Args:
        arm: Says what of the network was trained.
        network: In evaluation mode.
        material: What to measure on.
        file: Keeps the figures, and the names of the real studies that were at hand.

    Returns:
        Of an autoencoder, `reconstruction`; otherwise `dice` by class, `real` lesion Dice by study, `fusion` figures,
        and by degradation what it makes of `dice` and of the fused image, each where the arm has it.
    """
    real = sorted(material.real)
    if file.exists() and (kept := json.loads(file.read_text())).get("real_studies") == real:
        return kept["figures"]  # type: ignore[no-any-return]
    if arm.kind == "autoencoder":
        found: dict[str, Any] = {"reconstruction": reconstruction_figures(network, material.synthetic)}
    else:
        found = _figures(arm, network, material)
    file.write_text(json.dumps({"real_studies": real, "figures": found}) + "\n")
    return found


def _figures(arm: Arm, network: RmrFusion | DirectNetwork, material: Material) -> dict[str, Any]:
    found: dict[str, Any] = {}
    clean, images = _predict(arm, network, material.synthetic)
    if arm.segments:
        found["dice"] = dice_by_class(clean, [batch[2] for batch in material.synthetic])
        found["real"] = {name: _lesion_dice(arm, network, patches) for name, patches in material.real.items()}
    if arm.fuses:
        found["fusion"] = fusion_figures(images, material.synthetic)
    if arm.degraded:
        found["degraded"] = {}
        for name in DEGRADATIONS:
            labels, damaged = _predict(arm, network, list(_degrade(material.synthetic, name)))
            row: dict[str, Any] = {"dice": dice_by_class(labels, [batch[2] for batch in material.synthetic])}
            if arm.fuses:
                row["image_change"] = _change(images, damaged, material.synthetic)
            found["degraded"][name] = row
    return found


def _predict(arm: Arm, network: RmrFusion | DirectNetwork, patches: Patches) -> tuple[list[Tensor], list[Tensor]]:
    """Return labels and fused images of each patch; lists are empty where the arm has none."""
    labels, images = [], []
    with torch.inference_mode():
        for t1w, flair, _ in patches:
            with autocast(t1w.device, True):
                if isinstance(network, RmrFusion):
                    fused = network(t1w, flair)
                    images.append(fused.image.float())
                    logits = fused.logits
                else:
                    logits = network(t1w, flair)
            if arm.segments:
                labels.append(logits.argmax(1))
    return labels, images


def dice_by_class(predicted: list[Tensor], truth: list[Tensor]) -> dict[str, float]:
    """Return the Dice overlap (MONAI's) of each class but the background, over all patches as one volume."""
    pair = [torch.cat([x.cpu().long() for x in each], 1) for each in (predicted, truth)]
    figures = {}
    for number, name in enumerate(CLASSES[1:], start=1):
        masks = [(x == number).float()[:, None] for x in pair]
        figures[name] = float(compute_dice(*masks, ignore_empty=False))
    figures["tissues"] = float(np.mean([figures[name] for name in CLASSES[1:LESION]]))
    return figures


def _lesion_dice(arm: Arm, network: RmrFusion | DirectNetwork, patches: Patches) -> float:
    predicted, _ = _predict(arm, network, patches)
    masks = [[(x == LESION).long() * LESION for x in each] for each in (predicted, [batch[2] for batch in patches])]
    return dice_by_class(*masks)["lesion"]


def _degrade(patches: Patches, name: str) -> Iterator[Batch]:
    """Degrade both contrasts of each patch, as strongly as the method draws it; the draw is the same for every run."""
    for index, (t1w, flair, labels) in enumerate(patches):
        generator = keyed_generator(index)
        yield DEGRADATIONS[name](t1w, generator), DEGRADATIONS[name](flair, generator), labels


def _head(t1w: Tensor, flair: Tensor) -> Tensor:
    return (t1w > 0) | (flair > 0)


def _change(images: list[Tensor], damaged: list[Tensor], patches: Patches) -> float:
    """Return the mean absolute change of the fused image inside the head, in units of the normalisation."""
    changes = []
    for before, after, (t1w, flair, _) in zip(images, damaged, patches, strict=True):
        inside = _head(t1w, flair)
        if bool(inside.any()):
            changes.append(float((before - after).abs()[inside].mean()))
    return float(np.mean(changes))


def reconstruction_figures(network: nn.Module, patches: Patches) -> dict[str, float]:
    """Return the structural similarity of clean contrasts and what the autoencoder makes of them, inside the head."""
    rows = []
    with torch.inference_mode():
        for t1w, flair, _ in patches:
            with autocast(t1w.device, True):
                restored = network.get_submodule("autoencoder")(t1w, flair)
            inside = _head(t1w, flair)[0, 0].cpu().numpy()
            pairs = zip((t1w, flair), restored, strict=True)
            arrays = [[x[0, 0].float().cpu().numpy() for x in pair] for pair in pairs]
            rows.append([mean_ssim(clean, image, inside, HIGH) for clean, image in arrays])
    t1w_ssim, flair_ssim = np.mean(rows, 0).tolist()
    return {"ssim_t1w": t1w_ssim, "ssim_flair": flair_ssim}


def fusion_figures(images: list[Tensor], patches: Patches) -> dict[str, float]:
    """Return figures of fusion, averaged over patches, and how far lesions stand out of white matter."""
    rows = []
    for image, (t1w, flair, labels) in zip(images, patches, strict=True):
        arrays = [x[0, 0].cpu().numpy() for x in (t1w, flair, image)]
        reference = FusionReference(arrays[0], arrays[1], _head(t1w, flair)[0, 0].cpu().numpy(), HIGH)
        figures = reference.assess(arrays[2]).to_row()
        row = {name: figures[name] for name in FUSION_FIGURES}
        rows.append(row | {"lesion_contrast": _lesion_contrast(arrays[2], labels[0].cpu().numpy())})
    return {name: float(np.nanmean([row[name] for row in rows])) for name in rows[0]}


def _lesion_contrast(image: np.ndarray, labels: np.ndarray) -> float:
    """Return how far lesions lie above white matter, in deviations of white matter; NaN where there is none."""
    lesion, white = image[labels == LESION], image[labels == WHITE]
    if not (len(lesion) and len(white)):
        return float("nan")
    return float((lesion.mean() - white.mean()) / max(float(white.std()), 1e-6))
