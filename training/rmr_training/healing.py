"""Real studies without their lesions: white matter in place of each, so that a real head shows a small load or none.

Where the one labelled patient of a training set has a large load, the network only ever sees real white matter around
the ventricles as lesion. Of the healed study it learns that the place alone does not make one; implants then give it
lesions elsewhere. What is filled in is the level of the white matter around, with the study's own texture from nearby.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage
from torch import Tensor, from_numpy, where

from .implants import Tissue
from .losses import UNKNOWN
from .real import RealStudy
from .synthesis import LESION

LEVEL_SIGMA = 4.0
"""Voxels over which the level of white matter is averaged."""

TEXTURE_SIGMA = 2.0
"""What varies over fewer voxels than this is texture."""

RIM = 2
"""Voxels around a lesion that may be brighter than white matter though raters left them out."""

_AROUND = np.ones((3, 3, 3), bool)

Image = NDArray[np.float32]


def heal(study: RealStudy) -> RealStudy:
    """Return the study with white matter where its lesions are.

    Args:
        study: With a lesion mask and tissue.

    Returns:
        The same study without a lesion; `lesions` still says where they were, so that patches are centred on them.
    """
    tissue, labels = study.tissue, study.labels
    if tissue is None or labels is None or not len(study.lesions):
        return study
    lesion = np.asarray(labels.numpy() == LESION)
    wide = ndimage.binary_dilation(lesion, _AROUND, RIM)
    white, fluid = tissue.white.numpy(), tissue.fluid.numpy()
    source = white & ~wide
    if not source.any():
        return study
    near = ndimage.binary_dilation(lesion, _AROUND)
    filled = (lesion | (wide & white) | (near & ~tissue.grey.numpy())) & ~fluid
    share = np.maximum(ndimage.gaussian_filter(filled.astype(np.float32), 0.7), lesion & ~fluid)
    images = np.stack([_fill(image, source, share) for image in study.images.numpy()])
    return replace(
        study,
        images=from_numpy(images),
        labels=where(labels == LESION, UNKNOWN, labels),
        tissue=_with_white(tissue, filled),
    )


def _with_white(tissue: Tissue, filled: NDArray[np.bool_]) -> Tissue:
    more: Tensor = from_numpy(filled)
    return replace(tissue, white=tissue.white | more, grey=tissue.grey & ~more)


def _fill(image: Image, source: NDArray[np.bool_], share: Image) -> Image:
    """Blend an image (D, H, W) with the level and the texture of its white matter, by the share of each voxel."""
    weight = source.astype(np.float32)
    level = _mean(image, weight, LEVEL_SIGMA, float(np.median(image[source])))
    texture = np.where(source, image - _mean(image, weight, TEXTURE_SIGMA, 0.0), 0)
    spread = float(texture[source].std())
    texture = np.clip(_nearest(texture, source), -3 * spread, 3 * spread)
    return np.asarray((1 - share) * image + share * np.clip(level + texture, 0, None), np.float32)


def _mean(
    image: NDArray[np.float32], weight: NDArray[np.float32], sigma: float, otherwise: float
) -> NDArray[np.float32]:
    """Return the weighted mean around each voxel, and a fixed value where nothing near has weight."""
    total = ndimage.gaussian_filter(image * weight, sigma, truncate=8)
    near = ndimage.gaussian_filter(weight, sigma, truncate=8)
    return np.asarray(np.where(near > 1e-4, total / np.maximum(near, 1e-4), otherwise), np.float32)


def _nearest(values: Image, known: NDArray[np.bool_]) -> Image:
    """Mirror what is known into the rest: as far beyond the nearest known voxel as that one is before it."""
    distance, nearest = ndimage.distance_transform_edt(~known, return_indices=True)
    own = np.indices(known.shape)
    size = np.array(known.shape).reshape(3, 1, 1, 1)
    beyond = np.clip(2 * nearest - own, 0, size - 1)
    mirrored = values[tuple(beyond)]
    inside = known[tuple(beyond)]
    return np.asarray(np.where(distance == 0, values, np.where(inside, mirrored, values[tuple(nearest)])), np.float32)
