"""Figures of a trained network on labelled studies: overlap, lesions found and missed, volumes, distances.

Studies are folders with `t1.nii.gz` and `flair.nii.gz` on one grid and the mask `lesion.nii.gz`. Overlap
and distance come from MONAI; lesions are 26-connected, and one counts as found when a single voxel of it is.
"""

from __future__ import annotations

import warnings
from dataclasses import asdict, dataclass
from pathlib import Path

import msgspec
import numpy as np
import torch
from monai.inferers import sliding_window_inference
from monai.metrics import compute_dice, compute_hausdorff_distance
from numpy.typing import NDArray
from scipy import ndimage
from torch import Tensor

from rmr_sdk.errors import GeometryError
from rmr_sdk.geometry import reorient
from rmr_sdk.intensity import fit_normalisation
from rmr_sdk.io.nifti import read_volume
from rmr_sdk.manifest import Normalisation
from rmr_sdk.study import Study

from .checkpoint import NORMALISATION
from .data import ORIENTATION
from .models import RmrFusion
from .synthesis import LESION

Mask = NDArray[np.bool_]

SMALLEST_LESION_MM3 = 3.0
"""Predicted lesions below this count neither as found nor as false; raters do not mark single voxels."""


@dataclass(frozen=True, slots=True)
class LesionFigures:
    """How well a lesion mask agrees with the consensus of raters.

    Attributes:
        study: Name of the study's folder.
        dice: Dice overlap of all lesion voxels.
        truth_ml: Lesion volume of the consensus.
        predicted_ml: Lesion volume of the network.
        sensitivity: Share of the consensus' lesions that were touched.
        false_lesions: Predicted lesions that touch none of the consensus.
        lesion_f1: Harmonic mean of sensitivity and the share of predicted lesions that are true.
        hausdorff95_mm: 95th percentile of the surface distances.
    """

    study: str
    dice: float
    truth_ml: float
    predicted_ml: float
    sensitivity: float
    false_lesions: int
    lesion_f1: float
    hausdorff95_mm: float


def compare_lesions(study: str, predicted: Mask, truth: Mask, spacing_mm: tuple[float, float, float]) -> LesionFigures:
    """Compare two lesion masks (D, H, W) on one grid with the given spacing."""
    voxel_mm3 = float(np.prod(spacing_mm))
    structure = np.ones((3, 3, 3), bool)
    found, n_found = ndimage.label(predicted, structure)
    real, n_real = ndimage.label(truth, structure)
    sizes = np.bincount(found.ravel(), minlength=n_found + 1) * voxel_mm3
    counted = {i for i in range(1, n_found + 1) if sizes[i] >= SMALLEST_LESION_MM3}
    true_found = counted & set(np.unique(found[truth]).tolist())
    touched = len(set(np.unique(real[predicted]).tolist()) - {0})
    sensitivity = touched / n_real if n_real else float("nan")
    precision = len(true_found) / len(counted) if counted else float("nan")
    total = sensitivity + precision
    pair = [torch.from_numpy(mask[None, None].astype(np.float32)) for mask in (predicted, truth)]
    return LesionFigures(
        study=study,
        dice=float(compute_dice(*pair)),
        truth_ml=truth.sum() * voxel_mm3 / 1000,
        predicted_ml=predicted.sum() * voxel_mm3 / 1000,
        sensitivity=sensitivity,
        false_lesions=len(counted - true_found),
        lesion_f1=2 * sensitivity * precision / total if total else 0.0,
        hausdorff95_mm=_hausdorff95(pair, spacing_mm),
    )


def _hausdorff95(pair: list[Tensor], spacing_mm: tuple[float, float, float]) -> float:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)  # MONAI 1.6 warns of an argument that it passes itself
        return float(compute_hausdorff_distance(*pair, percentile=95, spacing=list(spacing_mm)))


def predict(network: RmrFusion, t1w: Tensor, flair: Tensor, overlap: float = 0.25) -> tuple[Tensor, Tensor]:
    """Run a network over a volume.

    Args:
        network: Has a segmentation head.
        t1w: Normalised T1 (1, 1, D, H, W).
        flair: Normalised FLAIR, likewise.
        overlap: Overlap of neighbouring tiles.

    Returns:
        Fused image (1, 1, D, H, W) and class probabilities (1, K, D, H, W).
    """
    network.eval()

    def run(both: Tensor) -> tuple[Tensor, Tensor]:
        fused = network(both[:, :1], both[:, 1:])
        return fused.image, fused.logits.softmax(1)

    with torch.inference_mode():
        fused, probability = sliding_window_inference(
            torch.cat([t1w, flair], 1), network.preset.tile, 1, run, overlap, mode="gaussian"
        )
    return fused, probability


def load_study(folder: Path) -> tuple[Tensor, Tensor, Mask, tuple[float, float, float]]:
    """Read a labelled study into the network's orientation and intensities.

    Returns:
        T1 and FLAIR (1, 1, D, H, W), the lesion mask (D, H, W), and the spacing along (D, H, W).

    Raises:
        GeometryError: Contrasts and mask are not on one grid.
    """
    study = Study.from_files(T1w=folder / "t1.nii.gz", FLAIR=folder / "flair.nii.gz")
    mask, _ = read_volume(folder / "lesion.nii.gz")
    grid = study["FLAIR"].grid
    if not (study["T1w"].grid.matches(grid) and mask.grid.matches(grid)):
        raise GeometryError(f"the volumes of {folder.name} lie on different grids.", "Resample them to one grid first.")
    axes = reorient(grid, ORIENTATION)
    normalisation = msgspec.convert(NORMALISATION, Normalisation)
    contrasts = []
    for name in ("T1w", "FLAIR"):
        array = study[name].data
        values = fit_normalisation(array, normalisation).apply(axes.apply(array))
        contrasts.append(torch.from_numpy(np.ascontiguousarray(values))[None, None])
    truth = np.ascontiguousarray(axes.apply(mask.data)) > 0
    return contrasts[0], contrasts[1], truth, axes.grid.spacing_mm


def evaluate(network: RmrFusion, folders: list[Path]) -> list[LesionFigures]:
    """Segment labelled studies and compare their lesions to the consensus."""
    figures = []
    for folder in folders:
        t1w, flair, truth, spacing = load_study(folder)
        _, probability = predict(network, t1w, flair)
        predicted = probability[0].argmax(0).numpy() == LESION
        figures.append(compare_lesions(folder.name, predicted, truth, spacing))
    return figures


def to_table(figures: list[LesionFigures]) -> list[dict[str, object]]:
    """Return the figures as plain rows."""
    return [asdict(row) for row in figures]
