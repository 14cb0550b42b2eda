"""Checkpoints as an export finds them: the authors' three files as they are, or one of our own training.

Owns how a network is put together from files, and what is known about it without being told. `rmr_training.checkpoint`
reads the files.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import msgspec

from rmr_sdk.errors import FormatError
from rmr_sdk.manifest import MinMax, Normalisation
from rmr_training.checkpoint import KEEP_ALL, LesionLevels, lesion_levels, load_network, load_weights, read_checkpoint
from rmr_training.data import ORIENTATION
from rmr_training.models import RmrFusion, find_preset

logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True, eq=False)
class Source:
    """A network to export, and what its origin says about how it must be fed.

    Attributes:
        network: With its weights, in evaluation mode.
        normalisation: How contrasts are scaled.
        orientation: Axis codes of (D, H, W).
        spacing_mm: Spacing that it was trained on, in the order of (D, H, W).
        spacing_tolerance: Relative difference of spacing that it takes without resampling.
        recipe: How the weights were made, as far as the files tell.
        studies: Real studies that the weights have learnt from, as far as the files tell.
        levels: Which lesions are kept, as `rmr-train calibrate` chose it.
    """

    network: RmrFusion
    normalisation: Normalisation
    orientation: str
    spacing_mm: tuple[float, float, float]
    spacing_tolerance: float
    recipe: str
    studies: tuple[str, ...] = ()
    levels: LesionLevels = KEEP_ALL


def load_own(path: Path) -> Source:
    """Load a checkpoint of `rmr-train`.

    Raises:
        FormatError: It cannot be read, does not say its preset or normalisation, or does not fit its preset.
    """
    content = read_checkpoint(path)
    network = load_network(path).eval()
    stage = content.get("stage", "unknown")
    recipe = f'Preset "{network.preset.name}", trained by rmr-train up to its stage "{stage}".'
    if stage != "joint":
        logger.warning("%s is of stage %s: fusion and head are not trained", path.name, stage)
        recipe += " Fusion and head are not trained: not for use."
    studies = tuple(content.get("studies", ()))
    scaling, levels = _normalisation(content, path.name), lesion_levels(content)
    return Source(network, scaling, ORIENTATION, (1.0, 1.0, 1.0), 0.25, recipe, studies, levels)


def load_authors(
    autoencoder: Path,
    fusion: Path,
    segmentation: Path | None = None,
    head: str = "swin_unetr",
    options: Mapping[str, Any] | None = None,
) -> Source:
    """Load checkpoints of the authors' format, `{"model": state_dict, ...}`, into the `paper` preset.

    Args:
        autoencoder: DualSwinAE.
        fusion: FusionNet.
        segmentation: The head, or None for a network that only fuses.
        head: Name of the head, or `package.module:Class`.
        options: Keyword arguments of the head.

    Raises:
        FormatError: A file cannot be read, is one of `rmr-train`, or does not fit its network.
        ConfigError: There is no such head, or it does not take the options.
    """
    preset = replace(find_preset("paper"), head=head, head_options=dict(options or {}))
    if segmentation is None:
        preset = replace(preset, head=None, head_options={})
    network = RmrFusion(preset).eval()
    parts = {"autoencoder": autoencoder, "fusion": fusion, "head": segmentation}
    files = {part: path for part, path in parts.items() if path is not None}
    for part, path in files.items():
        load_weights(network.get_submodule(part), _authors_weights(path), path.name)
    recipe = f'Preset "paper", from {", ".join(path.name for path in files.values())}; training not stated.'
    # MRBrainS18, which the authors train on, has slices of 3 mm; the network also runs on 1 mm volumes.
    return Source(network, MinMax(), ORIENTATION, (3.0, 0.958, 0.958), 0.7, recipe)


def _authors_weights(path: Path) -> Mapping[str, Any]:
    content = read_checkpoint(path)
    if "preset" in content:
        raise FormatError(f"{path.name} is a checkpoint of rmr-train, a whole network.", "Pass it with --checkpoint.")
    weights: Mapping[str, Any] = content["model"]
    return weights


def _normalisation(content: Mapping[str, Any], name: str) -> Normalisation:
    try:
        return msgspec.convert(content.get("normalisation"), Normalisation)
    except msgspec.ValidationError as error:
        raise FormatError(
            f"{name} does not say how contrasts are normalised ({error}).", "Train it again with this rmr-train."
        ) from error
