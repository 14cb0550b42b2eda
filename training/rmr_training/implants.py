"""Lesions put into real studies: a real head with other patients' lesions.

One labelled patient shows few lesions, or the same ones again and again. Lesions of label maps, painted into the white
matter of a real study, give real texture and real artefacts with any load of lesions. The map is laid over the study
by the boxes around both brains, so the head must be stripped.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor

from rmr_sdk.postprocess import bounding_box

from .losses import UNKNOWN
from .sampling import Draw, sample_nearest
from .synthesis import (
    BACKGROUND,
    LESION,
    LESION_CONTRAST,
    RIM_DARKNESS,
    WHITE,
    Ranges,
    bright_cortex,
    bright_rims,
    lesion_profiles,
    vary_lesions,
)

DARKEST_TISSUE = 0.15
"""Of the 99th percentile; what is darker on both contrasts is air or bone."""


@dataclass(frozen=True, slots=True, eq=False)
class Tissue:
    """Where white matter is, and how bright tissues are.

    Attributes:
        white: bool (D, H, W), likely white matter without lesions.
        grey: bool (D, H, W), likely grey matter without lesions.
        fluid: bool (D, H, W), likely fluid within the head.
        box: float32 (2, 3), first voxel and extent of the brain.
        t1w: Brightness of the darkest and the brightest tissue on T1: fluid and white matter.
        flair: Brightness of white matter and of the brighter of grey and white matter on FLAIR.
    """

    white: Tensor
    grey: Tensor
    fluid: Tensor
    box: Tensor
    t1w: tuple[float, float]
    flair: tuple[float, float]


def find_tissue(images: NDArray[np.float32], lesions: NDArray[np.bool_]) -> Tissue:
    """Tell white matter from the rest by three classes of T1, as good as is needed to implant lesions.

    Args:
        images: T1 and FLAIR (2, D, H, W), normalised; the head must be stripped.
        lesions: Lesion mask (D, H, W).
    """
    t1w, flair = images
    head = np.asarray((images > DARKEST_TISSUE).any(0)) & ~lesions
    centres = three_centres(t1w[head]) if head.any() else (0.2, 0.6, 0.9)
    white = head & (t1w > (centres[1] + centres[2]) / 2)
    grey = head & ~white & (t1w > (centres[0] + centres[1]) / 2)
    fluid = np.asarray((images > 0).all(0)) & ~lesions & (t1w < (centres[0] + centres[1]) / 2)
    levels = [float(np.median(flair[part])) if part.any() else 0.5 for part in (white, grey)]
    return Tissue(
        torch.from_numpy(white),
        torch.from_numpy(grey),
        torch.from_numpy(fluid),
        brain_box(head),
        (centres[0], centres[2]),
        (levels[0], max(levels)),
    )


def add_look_alikes(draw: Draw, tissue: Tissue, points: Tensor, images: Tensor, probability: float) -> Tensor:
    """Brighten a real study's FLAIR where there is no lesion: stretches of grey matter, rims of the fluid.

    Rims are darkened on T1 as well.

    Args:
        draw: Source of randomness.
        tissue: Of the study.
        points: Voxels (d, h, w, 3) of the study that the patch comes from.
        images: T1 and FLAIR (2, d, h, w) of the patch.
        probability: Of each of the two.

    Returns:
        The images with both.
    """
    (fluid, bright), (white, brightest) = tissue.t1w, tissue.flair
    dark, extra = torch.zeros_like(images[0]), torch.zeros_like(images[1])
    if draw.chance(probability):
        height = brightest - white + draw.uniform(*LESION_CONTRAST)
        extra = extra + bright_cortex(draw, _share(tissue.grey, points), height)[0, 0]
    if draw.chance(probability):
        height = brightest - white + draw.uniform(*LESION_CONTRAST)
        rims = bright_rims(draw, _share(tissue.white, points), _share(tissue.fluid, points), height)[0, 0]
        extra = extra + rims
        dark = rims / height * draw.uniform(*RIM_DARKNESS) * (bright - fluid)
    return torch.stack([(images[0] - dark).clamp(min=0), images[1] + extra])


def _share(mask: Tensor, points: Tensor) -> Tensor:
    """Return the share (1, 1, d, h, w) that a mask has of the neighbourhood of each point."""
    return F.avg_pool3d(sample_nearest(mask, points).float()[None, None], 3, 1, 1)


def three_centres(values: NDArray[np.float32], rounds: int = 20) -> tuple[float, float, float]:
    """Return the centres of three groups of numbers, lowest first (k-means in one dimension)."""
    values = np.sort(values[:: max(1, len(values) // 200_000)])
    low, middle, high = (float(v) for v in np.percentile(values, (10, 50, 90)))
    for _ in range(rounds):
        parts = np.split(values, np.searchsorted(values, ((low + middle) / 2, (middle + high) / 2)))
        low, middle, high = (float(p.mean()) if len(p) else c for p, c in zip(parts, (low, middle, high), strict=True))
    return low, middle, high


def brain_box(mask: NDArray[np.bool_]) -> Tensor:
    """Return the first voxel and the extent, float32 (2, 3), of a mask (D, H, W); all of it where the mask is empty."""
    box = bounding_box(mask) or tuple(slice(0, n) for n in mask.shape)
    return torch.tensor([[side.start for side in box], [side.stop - side.start for side in box]]).float()


@dataclass(frozen=True, slots=True, eq=False)
class Implant:
    """Lesions of a label map, to be put into the white matter of a real study.

    Attributes:
        labels: uint8 (D, H, W), a label map.
        lesions: int64 (n, 3), the voxels of its lesions.
        box: float32 (2, 3), first voxel and extent of its brain.
        ranges: How far its lesions vary.
    """

    labels: NDArray[np.uint8]
    lesions: NDArray[np.int64]
    box: Tensor
    ranges: Ranges

    def places(self, tissue: Tissue) -> NDArray[np.int64]:
        """Return where in a study its lesions come to lie, voxels (n, 3)."""
        scale = tissue.box[1] / self.box[1]
        at = tissue.box[0] + (torch.from_numpy(self.lesions).float() - self.box[0]) * scale
        return at.round().long().numpy()

    def put(self, draw: Draw, tissue: Tissue, points: Tensor, images: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
        """Put lesions into a patch.

        Args:
            draw: Source of randomness.
            tissue: Of the study.
            points: Voxels (d, h, w, 3) of the study that the patch comes from.
            images: T1 and FLAIR (2, d, h, w) of the patch.
            labels: uint8 (d, h, w) of the patch.

        Returns:
            Images and labels with the lesions.
        """
        shift = torch.tensor([draw.uniform(-3, 3) for _ in range(3)])
        at = self.box[0] + (points - tissue.box[0]) * (self.box[1] / tissue.box[1]) + shift
        white = sample_nearest(tissue.white, points).bool() & (labels == UNKNOWN)
        theirs = sample_nearest(torch.from_numpy(self.labels), at) == LESION
        target = torch.where(white, torch.where(theirs, LESION, WHITE), BACKGROUND).to(torch.uint8)
        new = vary_lesions(draw, target, self.ranges) == LESION
        softness = draw.uniform(0.2, 0.9)
        hard = new[None, None].float()
        soft = ((1 - softness) * hard + softness * F.avg_pool3d(hard, 3, 1, 1))[0, 0]
        darkness, brightness = (each[0, 0] for each in lesion_profiles(draw, soft[None, None], self.ranges))
        (fluid, bright), (white_flair, brightest) = tissue.t1w, tissue.flair
        darker = draw.uniform(*self.ranges.lesion_darkness) * (bright - fluid) * darkness
        brighter = brightest - white_flair + draw.uniform(*self.ranges.lesion_contrast) * brightness
        t1w, flair = images[0] - soft * darker, images[1] + soft * brighter
        return torch.stack([t1w, flair]).clamp(min=0), torch.where(new, LESION, labels)
