"""What a loss of resolution leaves of lesions, whatever network looks for them: small ones are gone before it begins.

The truth itself is damaged as the images are and cut where that agrees best with what it was. No method is bound by
this figure, but one that sees no more than the damaged image will hardly draw lesions more exactly.
"""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Generator

from rmr_sdk.errors import ConfigError
from rmr_sdk.geometry import Grid

from .conditions import CONDITIONS, Scan
from .segmentation import overlap

RESOLUTION = ("blur", "thick")
"""The conditions that this makes sense of: they average neighbours and do nothing else."""

_CUTS = np.linspace(0.05, 0.95, 19)


def damaged_truth(truth: NDArray[np.bool_], grid: Grid, condition: str, strength: int) -> float:
    """Return the Dice coefficient of a mask with itself, damaged and cut at the best of 19 levels.

    Args:
        truth: (D, H, W), some voxels true.
        grid: Where they lie; slices are the first axis.
        condition: One of `RESOLUTION`.
        strength: 1, 2 or 3.

    Raises:
        ConfigError: The condition is another one.
    """
    if condition not in RESOLUTION:
        raise ConfigError(f'"{condition}" is no loss of resolution.', f"Choose from: {', '.join(RESOLUTION)}.")
    kind = CONDITIONS[condition]
    voxels = torch.from_numpy(truth.astype(np.float32))[None, None]
    scan = Scan(voxels, grid, unit=1.0, foreground=np.ones_like(truth), generator=Generator())
    left = kind.damage(scan, kind.amounts[strength - 1])[0, 0].numpy()
    return max(overlap(left >= cut, truth) for cut in _CUTS)
