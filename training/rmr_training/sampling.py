"""Random numbers and random places: what synthetic and real patches are drawn with.

Everything follows one `torch.Generator`, so that a seed fixes a sample.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import torch
import torch.nn.functional as F
from torch import Generator, Tensor

LEAST_SIDE = 8
"""Least side of a patch in voxels: fields and blurs of samples need that much."""

LEFT_RIGHT = 2
"""Axis of (D, H, W) that a head may be flipped along; top and bottom, front and back differ."""


def keyed_generator(*key: int) -> Generator:
    """Return a generator that a tuple of numbers fixes.

    Torch seeds its CPU generator with 32 bits only, so the numbers are mixed into them first.
    """
    return Generator().manual_seed(int(np.random.SeedSequence(key).generate_state(1)[0]))


class Draw:
    """Random numbers from one generator."""

    def __init__(self, generator: Generator) -> None:
        self.generator = generator

    def uniform(self, low: float, high: float) -> float:
        """Draw from [low, high)."""
        return low + (high - low) * float(torch.rand((), generator=self.generator))

    def integer(self, low: int, high: int) -> int:
        """Draw from low to high, both included."""
        return int(torch.randint(low, high + 1, (), generator=self.generator))

    def chance(self, probability: float) -> bool:
        """Say yes with the given probability."""
        return float(torch.rand((), generator=self.generator)) < probability

    def normal(self, *shape: int) -> Tensor:
        """Draw standard normal numbers."""
        return torch.randn(shape, generator=self.generator)

    def field(self, shape: Sequence[int], knots: int, channels: int = 1) -> Tensor:
        """Draw a smooth field (1, channels, D, H, W) of about unit deviation at its knots."""
        coarse = self.normal(1, channels, *(min(knots, n) for n in shape))
        return F.interpolate(coarse, size=tuple(shape), mode="trilinear", align_corners=True)


def rotation(angles: Sequence[float]) -> Tensor:
    """Return the matrix (3, 3) of rotations by the given angles in radians, one axis after the other."""
    matrix = torch.eye(3)
    for axis, angle in enumerate(angles):
        turn = torch.eye(3)
        a, b = [i for i in range(3) if i != axis]
        turn[a, a] = turn[b, b] = math.cos(angle)
        turn[a, b], turn[b, a] = -math.sin(angle), math.sin(angle)
        matrix = matrix @ turn
    return matrix


def sampling_points(
    draw: Draw, centre: Tensor, side: int, rotate: float = 0.3, scale: float = 0.08, elastic: float = 2.5
) -> Tensor:
    """Draw where the voxels of a patch come from: flipped, rotated, scaled, sheared and bent.

    Args:
        draw: Source of randomness.
        centre: Source voxel (3,) of the middle of the patch.
        side: Side of the patch in voxels.
        rotate: Largest rotation per axis, in radians.
        scale: Deviation of the scale and shear terms.
        elastic: Deviation of the elastic displacement, in voxels.

    Returns:
        Source voxel (side, side, side, 3) of every voxel.
    """
    angles = [draw.uniform(-rotate, rotate) for _ in range(3)]
    matrix = rotation(angles) @ (torch.eye(3) + scale * draw.normal(3, 3))
    flips = torch.ones(3)
    if draw.chance(0.5):
        flips[LEFT_RIGHT] = -1
    offsets = torch.arange(side) - (side - 1) / 2
    points = torch.stack(torch.meshgrid(offsets, offsets, offsets, indexing="ij"), -1)
    points = (points * flips) @ matrix.T + centre
    return points + elastic * draw.field([side] * 3, 5, channels=3)[0].permute(1, 2, 3, 0)


def sample_nearest(volume: Tensor, points: Tensor) -> Tensor:
    """Take the nearest voxel of (D, H, W) at points (..., 3); outside the volume it is 0."""
    index = points.round().long()
    limits = torch.tensor(volume.shape)
    inside = ((index >= 0) & (index < limits)).all(-1)
    index = index.clamp(min=torch.zeros(3, dtype=torch.long), max=limits - 1)
    return torch.where(inside, volume[index[..., 0], index[..., 1], index[..., 2]], 0)


def sample_linear(volumes: Tensor, points: Tensor) -> Tensor:
    """Interpolate (C, D, H, W) at points (d, h, w, 3), linearly and 0 outside; the result is (C, d, h, w)."""
    extent = torch.tensor(volumes.shape[1:]).float()
    grid = (2 * points + 1) / extent - 1
    return F.grid_sample(volumes[None], grid.flip(-1)[None], padding_mode="zeros", align_corners=False)[0]
