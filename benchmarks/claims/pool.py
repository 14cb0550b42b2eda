"""Synthetic patches on disk, made once and shared by all runs.

The name of a pool ends in a digest of its label maps, its ranges and its first patch: where the donors, a map or the
synthesis have changed, another pool is made.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from rmr_training.data import LabelMap, SyntheticPatches
from rmr_training.synthesis import Ranges

RANGES = Ranges(lesion_centred=1.0, no_lesions=0.0, look_alikes=0.2, whole_head=0.0)
"""Easier than what `rmr-train` draws, so that a few hundred patches teach a small network what a lesion is."""

Batch = tuple[Tensor, Tensor, Tensor]


@dataclass(frozen=True, slots=True, eq=False)
class Pool:
    """Patches: name; images float16 (n, 2, D, H, W), T1 and FLAIR; labels uint8 (n, D, H, W)."""

    name: str
    images: np.ndarray
    labels: np.ndarray

    def __len__(self) -> int:
        return len(self.labels)

    def take(self, indices: Sequence[int], device: torch.device) -> Batch:
        """Return contrasts (N, 1, D, H, W) float32 and labels (N, D, H, W) of some patches."""
        images = torch.from_numpy(self.images[list(indices)].astype(np.float32)).to(device)
        return images[:, :1], images[:, 1:], torch.from_numpy(self.labels[list(indices)]).to(device)


def open_pool(
    folder: Path,
    maps: Sequence[LabelMap],
    side: int,
    count: int,
    seed: int,
    progress: Callable[[int], None] | None = None,
) -> Pool:
    """Open a pool, or make it.

    Args:
        folder: Takes the pools; the name of this one says side, count and seed.
        maps: Label maps to synthesise from.
        side: Side of a patch in voxels.
        count: Patches.
        seed: Seed of the stream of patches.
        progress: Called with the number of patches made.
    """
    stream = SyntheticPatches(maps, side, seed, ranges=RANGES)
    place = folder / f"patches-{side}-{count}-seed{seed}-{_digest(maps, stream)}"
    if (place / "labels.npy").exists():
        return _load(place)
    images = np.empty((count, 2, side, side, side), np.float16)
    labels = np.empty((count, side, side, side), np.uint8)
    for index in range(count):
        images[index], labels[index] = _sample(stream.sample(index))
        if progress is not None:
            progress(index + 1)
    place.mkdir(parents=True, exist_ok=True)
    np.save(place / "images.npy", images)
    np.save(place / "labels.npy", labels)
    return _load(place)


def _digest(maps: Sequence[LabelMap], stream: SyntheticPatches) -> str:
    """Return a digest of all that the patches of a stream come from."""
    digest = hashlib.sha256(repr(RANGES).encode())
    for each in maps:
        digest.update(f"{each.name} {each.donor} {each.weight} {each.labels.shape}".encode())
        digest.update(each.labels.tobytes())
    for array in _sample(stream.sample(0)):
        digest.update(array.tobytes())
    return digest.hexdigest()[:8]


def _load(place: Path) -> Pool:
    return Pool(place.name, np.load(place / "images.npy", mmap_mode="r"), np.load(place / "labels.npy", mmap_mode="r"))


def _sample(sample: Sequence[Tensor]) -> tuple[np.ndarray, np.ndarray]:
    t1w, flair, labels = sample[:3]
    return torch.cat([t1w, flair]).numpy().astype(np.float16), labels.numpy()
