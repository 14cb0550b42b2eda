"""Contact sheets: synthetic samples side by side, for the eye."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from PIL import Image
from torch import Tensor

from rmr_sdk.errors import ConfigError

COLUMNS = 4


def check_sheet(path: Path) -> None:
    """Refuse a file name whose ending stands for no image.

    Raises:
        ConfigError: It does.
    """
    if Image.registered_extensions().get(path.suffix.lower()) not in Image.SAVE:
        raise ConfigError(f"{path.name} is not the name of an image.", "Let it end in .png.")


def contact_sheet(samples: Sequence[tuple[Tensor, Tensor, Tensor]], zoom: int = 2) -> Image.Image:
    """Show the middle slice of each sample: T1, FLAIR, labels.

    Args:
        samples: T1 and FLAIR (1, D, H, W) with 1 as the 99th percentile, and labels (D, H, W) from 0 to 4.
        zoom: Pixels a voxel.

    Returns:
        A grey image, `COLUMNS` samples a row, anterior up.
    """
    tiles = []
    for t1w, flair, labels in samples:
        middle = labels.shape[0] // 2
        grey = [np.clip(x[0, middle].numpy() / 1.2, 0, 1) * 255 for x in (t1w, flair)]
        tiles.append(np.concatenate([*grey, labels[middle].numpy() * 60.0], 1)[::-1])
    blank = np.zeros_like(tiles[0])
    tiles += [blank] * (-len(tiles) % COLUMNS)
    rows = [np.concatenate(tiles[i : i + COLUMNS], 1) for i in range(0, len(tiles), COLUMNS)]
    image = Image.fromarray(np.concatenate(rows, 0).astype(np.uint8))
    return image.resize((image.width * zoom, image.height * zoom), Image.Resampling.NEAREST)
