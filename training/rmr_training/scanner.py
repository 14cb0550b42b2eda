"""What a scanner and its processing do to an image: bias field, thick slices, noise, transfer curve, scale."""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from .sampling import Draw


def thicken(image: Tensor, axis: int, factor: float) -> Tensor:
    """Average slices of (N, C, D, H, W) along a spatial axis (0 to 2) and interpolate them back."""
    size = list(image.shape[2:])
    coarse = list(size)
    coarse[axis] = max(4, round(size[axis] / factor))
    thin = F.interpolate(image, size=coarse, mode="area")
    return F.interpolate(thin, size=size, mode="trilinear", align_corners=False)


def scan(draw: Draw, image: Tensor, thick_axis: int | None, bias: float, noise: float, gamma: float) -> Tensor:
    """Worsen a clean image (1, 1, D, H, W).

    Args:
        draw: Source of randomness.
        image: Intensities of at least 0.
        thick_axis: Axis whose slices become 1.5 to 5 voxels thick, or None.
        bias: Largest deviation of the logarithm of the bias field.
        noise: Largest deviation of the noise, Gaussian or Rician.
        gamma: Largest change of the transfer curve's exponent.
    """
    image = image * torch.exp(draw.uniform(0, bias) * draw.field(image.shape[2:], 3))
    if thick_axis is not None:
        image = thicken(image, thick_axis, draw.uniform(1.5, 5.0))
    level = draw.uniform(0, noise)
    real, imaginary = (draw.normal(*image.shape) * level for _ in range(2))
    image = torch.sqrt((image + real).pow(2) + imaginary.pow(2)) if draw.chance(0.5) else image + real
    return image.clamp(min=0) ** draw.uniform(1 - gamma, 1 + gamma)


def misalign(draw: Draw, image: Tensor, largest: float) -> Tensor:
    """Shift (1, 1, D, H, W) by up to `largest` voxels along each axis, half of the time."""
    if not draw.chance(0.5):
        return image
    shape = torch.tensor(image.shape[2:]).float()
    theta = torch.eye(3, 4)[None]
    shift = torch.tensor([draw.uniform(-largest, largest) for _ in range(3)])
    theta[0, :, 3] = (2 * shift / shape).flip(0)
    grid = F.affine_grid(theta, list(image.shape), align_corners=False)
    return F.grid_sample(image, grid, padding_mode="border", align_corners=False)


def normalise(draw: Draw, image: Tensor, tissue: Tensor, spread: Sequence[float]) -> Tensor:
    """Scale (1, 1, D, H, W) to its 99th percentile as the runtime does on volumes.

    Args:
        draw: Source of randomness.
        image: Intensities of at least 0.
        tissue: Voxels (D, H, W) that the percentile is taken over.
        spread: Range of the factor on top: a patch can only guess the percentile of a volume.
    """
    values = image[0, 0][tissue]
    if len(values) < 100:
        return image.clamp(0, 1.5)
    rank = max(1, round(0.99 * len(values)))
    top = values.kthvalue(rank).values.clamp(min=1e-3)
    return (image / top * draw.uniform(*spread)).clamp(0, 1.5)


def flatten_contrast(draw: Draw, images: Sequence[Tensor], probability: float) -> tuple[Tensor, Tensor]:
    """Take contrast from both normalised images, with the given probability, by a power of 0.4 to 0.9."""
    if draw.chance(probability):
        images = [image ** draw.uniform(0.4, 0.9) for image in images]
    return images[0], images[1]
