"""A network in memory on whole volumes: for training code that wants lesion figures without a report."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path

import torch
from monai.inferers import sliding_window_inference
from torch import Tensor

from rmr_sdk.errors import StudyError
from rmr_sdk.manifest import Manifest

from ..checkpoint import NORMALISATION
from ..models import CLASSES, RmrFusion, find_preset
from ..synthesis import LESION
from .cases import Case, load_case
from .segmentation import LesionFigures, Mask, Spacing, compare_lesions
from .subjects import NetworkSubject, network_manifest


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


def load_study(folder: Path) -> tuple[Tensor, Tensor, Mask, Spacing]:
    """Read a labelled study into the network's orientation and intensities.

    Returns:
        T1 and FLAIR (1, 1, D, H, W), the lesion mask (D, H, W), and the spacing along (D, H, W).

    Raises:
        StudyError: There is no lesion mask.
        GeometryError: Contrasts and mask are not on one grid.
    """
    case = _labelled_case(folder, network_manifest(find_preset("edge"), NORMALISATION))
    t1w, flair = (torch.from_numpy(case.normalise(case.study[name].data, name))[None, None] for name in case.study)
    return t1w, flair, case.truth[CLASSES[LESION]], case.axes.grid.spacing_mm


def evaluate(network: RmrFusion, folders: Sequence[Path]) -> list[LesionFigures]:
    """Segment labelled studies and compare their lesions to the consensus.

    Raises:
        StudyError: A study has no lesion mask.
        InputError: As `load_case`.
    """
    subject = NetworkSubject(network)
    figures = []
    for folder in folders:
        case = _labelled_case(folder, subject.manifest)
        labels = subject.run(case.study).labels
        assert labels is not None, "a network with a head segments"
        predicted, truth = case.turn(labels) == LESION, case.truth[CLASSES[LESION]]
        figures.append(compare_lesions(case.name, predicted, truth, case.axes.grid.spacing_mm))
    return figures


def to_table(figures: Sequence[LesionFigures]) -> list[dict[str, object]]:
    """Return the figures as plain rows."""
    return [asdict(row) for row in figures]


def _labelled_case(folder: Path, manifest: Manifest) -> Case:
    case = load_case(folder, manifest)
    if CLASSES[LESION] not in case.truth:
        raise StudyError(f"study {case.name} has no lesion mask that can be compared.", "Add lesion.nii.gz beside it.")
    return case
