"""Calibration of the lesion class: one offset of its score, chosen on synthetic patches of held-out lesion donors.

Networks are trained on patches where lesions are far more frequent than in a head, and on losses that weigh them; the
arg-max of their scores then finds too much or too little. A voxel is called a lesion where

    score(lesion) + offset > max of the other scores

and the offset that gives the best lesion Dice over the validation patches is added to the bias of the head's last
convolution: nothing changes at run time. These patches lie anywhere in the brain, not near lesions as in training, so
that there is as much lesion on them as in the heads that they come from. Dice is taken of each donor's patches and
averaged, as figures of studies are: a donor with few lesions counts as much as one with many.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from rmr_sdk.errors import ConfigError, StudyError

from .data import LabelMap, Patches
from .models import RmrFusion
from .synthesis import Ranges
from .validation import VALIDATION_SEED

LIMIT = 4.0
"""Largest offset; e^4 is a factor of 55 in the odds."""

ANYWHERE = Ranges(lesion_centred=0.0, whole_head=0.0, look_alikes=1.0)
"""Patches with as much lesion, and as much that looks like one, as heads have; of whole heads a third would lie outside
the brain."""


@dataclass(frozen=True, slots=True)
class Calibration:
    """What was found.

    Attributes:
        offset: To add to the score of the lesion class.
        dice_before: Mean of the donors' lesion Dice, without it.
        dice_after: The same, with it.
        patches: Patches that were looked at.
    """

    offset: float
    dice_before: float
    dice_after: float
    patches: int


def calibrate(network: RmrFusion, maps: Sequence[LabelMap], side: int = 64, patches: int = 96) -> Calibration:
    """Find the offset of the lesion class (the last one) with the best Dice, and put it into the network.

    Args:
        network: Its head's last convolution takes the offset.
        maps: Label maps of held-out donors.
        side: Side of a patch in voxels.
        patches: Patches to look at.

    Raises:
        ConfigError: The head does not end in a convolution with a bias a class.
        StudyError: There is no label map, or no lesion on any patch.
    """
    bias = _last_bias(network)
    if not maps:
        raise StudyError("there is no held-out label map to calibrate on.", "Hold a donor out.")
    found = _margins(network.eval(), Patches(maps, side, VALIDATION_SEED, ranges=ANYWHERE), patches)
    donors = [(margins, truth) for margins, truth in found if bool(truth.any())]
    if not donors:
        raise StudyError(
            f"no lesion on {patches} validation patches.", "Look at more of them, or hold out other donors."
        )
    offset, before, after = best_offset(donors)
    with torch.no_grad():
        bias[-1] += offset
    return Calibration(offset, before, after, patches)


def best_offset(donors: Sequence[tuple[Tensor, Tensor]], steps: int = 161) -> tuple[float, float, float]:
    """Return the offset with the best mean of the donors' Dice, and this mean without and with it.

    Of several that are equally good it is the one nearest to 0.

    Args:
        donors: Of each, the score of the lesion class minus the best of the others, and whether it is a lesion (bool),
            (n,) both.
        steps: Offsets that are tried, from -LIMIT to LIMIT; an odd number has 0 among them.
    """
    offsets = (torch.arange(steps) - (steps - 1) / 2) * (2 * LIMIT / (steps - 1))

    def dice(offset: Tensor) -> float:
        return float(torch.stack([dice_at(offset, margins, truth) for margins, truth in donors]).mean())

    values = torch.tensor([dice(offset) for offset in offsets])
    equal = offsets[values == values.max()]
    return float(equal[equal.abs().argmin()]), dice(torch.zeros(())), float(values.max())


def dice_at(offset: Tensor | float, margins: Tensor, truth: Tensor) -> Tensor:
    """Return the lesion Dice at an offset, of margins and truth as `best_offset` takes them."""
    predicted = margins + offset > 0
    return 2 * (predicted & truth).sum() / (predicted.sum() + truth.sum()).clamp(min=1)


def margins_of(logits: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
    """Return margins and truth (n,) of all voxels that an offset could make a lesion, and of those that are one.

    Args:
        logits: (1, classes, D, H, W), the lesion class last.
        labels: (D, H, W).
    """
    margins = (logits[:, -1] - logits[:, :-1].amax(1)).flatten()
    lesion = labels.flatten() == logits.shape[1] - 1
    near = lesion | (margins > -LIMIT)
    return margins[near], lesion[near]


def _margins(network: RmrFusion, stream: Patches, patches: int) -> list[tuple[Tensor, Tensor]]:
    """Collect, donor by donor, margins and truth of all voxels that could be called a lesion, or are one."""
    donor_of = {m.name: m.donor for m in stream.maps}
    found: dict[str, list[tuple[Tensor, Tensor]]] = {}
    with torch.inference_mode():
        for index in range(patches):
            sample, name = stream.draw(index)
            logits = network(sample.t1w[None], sample.flair[None]).logits
            found.setdefault(donor_of[name], []).append(margins_of(logits, sample.labels))
    return [(torch.cat([m for m, _ in parts]), torch.cat([t for _, t in parts])) for parts in found.values()]


def _last_bias(network: RmrFusion) -> Tensor:
    parts = network.head.modules() if network.head is not None else ()
    biases = [part.bias for part in parts if isinstance(part, nn.Conv3d | nn.ConvTranspose3d)]
    if not biases or biases[-1] is None or len(biases[-1]) != len(network.preset.classes):
        raise ConfigError(
            f"the head {network.preset.head!r} does not end in a convolution with a bias for each class.",
            "Calibrate such a head in its own code.",
        )
    return biases[-1]
