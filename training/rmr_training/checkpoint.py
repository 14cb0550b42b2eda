"""Checkpoints: what a training run needs to go on exactly where it stopped, and what an export needs to know.

The layout extends the authors' `{"model": state_dict, ...}`: `preset` and `normalisation` say how to build and feed the
network, `stage` which part `model` holds. A file is complete or not there.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import msgspec
import torch
from torch import nn

from rmr_sdk.errors import FormatError
from rmr_sdk.io.files import atomic_file, make_folder
from rmr_sdk.manifest import LesionThreshold

from .models import Preset, RmrFusion
from .models.heads import HEAD_FAILURES, first_line

NORMALISATION: dict[str, Any] = {"kind": "robust", "percentile": 99.0, "floor_fraction": 0.02, "high": 1.5}
"""What the networks of this package are trained on; `synthesis` imitates it on patches."""


class LesionLevels(NamedTuple):
    """Levels below which lesions and their voxels are dropped, as the manifest has them; at 0 or None all are kept."""

    least_lesion_probability: float = 0.0
    least_white_matter: float = 0.0
    lesion_threshold: LesionThreshold | None = None
    least_lesion_mm3: float = 0.0


KEEP_ALL = LesionLevels()


def save_checkpoint(path: Path, network: RmrFusion, stage: str, extra: Mapping[str, Any]) -> None:
    """Write a checkpoint atomically.

    Args:
        path: File to write.
        network: Its whole state is kept under `model`.
        stage: "autoencoder" or "joint".
        extra: Further entries, such as optimiser state and step.

    Raises:
        OutputError: The file cannot be written.
    """
    content = {
        "model": network.state_dict(),
        "preset": network.preset.to_metadata(),
        "normalisation": NORMALISATION,
        "stage": stage,
        **extra,
    }
    make_folder(path.parent)
    with atomic_file(path) as file:
        torch.save(content, file)


def read_checkpoint(path: Path) -> dict[str, Any]:
    """Read a checkpoint onto the CPU.

    Raises:
        FormatError: The file is missing, or holds no checkpoint that can be read safely.
    """
    try:
        content = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:
        raise FormatError(
            f"{path.name} is not a readable checkpoint: {error}.", "Name a .pth file of a run."
        ) from error
    if not isinstance(content, dict) or "model" not in content:
        raise FormatError(f'{path.name} has no entry "model".', "Name a checkpoint, not a bare tensor.")
    return content


def read_weights(path: Path) -> dict[str, Any]:
    """Read a checkpoint of weights alone, as `model.pth` and `best.pth` are.

    Raises:
        FormatError: It cannot be read, or is the state of a run, whose weights are not the averaged ones.
    """
    content = read_checkpoint(path)
    if "average" in content:
        raise FormatError(f"{path.name} is the state of a run.", "Take model.pth, which has the averaged weights.")
    return content


def lesion_levels(checkpoint: Mapping[str, Any]) -> LesionLevels:
    """Return the levels that a checkpoint was calibrated to; those that keep all lesions where it was not."""
    found = checkpoint.get("calibration", {})
    levels = KEEP_ALL._replace(**{name: found[name] for name in LesionLevels._fields if name in found})
    return levels._replace(lesion_threshold=msgspec.convert(levels.lesion_threshold, LesionThreshold | None))


def load_network(path: Path) -> RmrFusion:
    """Build the network of a checkpoint of this package and load its weights.

    Raises:
        FormatError: The checkpoint does not say its preset, no network can be built of it, or its weights do not fit.
        ConfigError: The head is not known here, or does not take its options.
    """
    content = read_checkpoint(path)
    if "preset" not in content:
        raise FormatError(f"{path.name} does not name its preset.", "It is not a checkpoint of rmr-train.")
    try:
        network = RmrFusion(Preset.from_metadata(content["preset"]))
    except (msgspec.ValidationError, *HEAD_FAILURES) as error:
        raise FormatError(
            f"the preset of {path.name} makes no network: {first_line(error)}.", "Take an undamaged checkpoint."
        ) from error
    load_weights(network, content["model"], path.name)
    return network


def load_weights(module: nn.Module, weights: Mapping[str, torch.Tensor], name: str) -> None:
    """Load weights that must fit exactly.

    Raises:
        FormatError: Names or shapes differ; the message quotes the first differences.
    """
    own = {key: tuple(value.shape) for key, value in module.state_dict().items()}
    given = {key: tuple(value.shape) for key, value in weights.items()}
    if own != given:
        different = sorted(key for key in own.keys() | given.keys() if own.get(key) != given.get(key))
        shown = "; ".join(f"{key}: {given.get(key, 'absent')} for {own.get(key, 'nothing')}" for key in different[:3])
        raise FormatError(
            f"the weights of {name} do not fit the network ({len(different)} entries differ: {shown}).",
            "Choose the preset and the head that it was trained with.",
        )
    module.load_state_dict(weights)
