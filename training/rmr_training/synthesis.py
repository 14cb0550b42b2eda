"""Training studies made from label maps: anatomy is real, everything a scanner adds is drawn at random.

A sample is a patch of a label map, deformed, with its lesions varied, painted with random tissue contrasts for T1 and
FLAIR, and then worsened as scanners worsen images: partial volume, texture, bias field, thick slices, noise, a small
misalignment between the contrasts, an imperfect brain mask or a head that was never stripped. Everything follows one
`torch.Generator`, so that a seed fixes a sample.

The idea of learning from label maps with random contrasts: Billot et al., SynthSeg, Med. Image Anal. 86 (2023). Ranges
here are ours, chosen by looking at contact sheets beside real scans.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Generator, Tensor

BACKGROUND, CSF, GREY, WHITE, LESION = range(5)


@dataclass(frozen=True, slots=True)
class Ranges:
    """How far samples vary. Probabilities are per sample.

    Attributes:
        lesion_centred: Probability that a patch is centred near a lesion.
        new_lesions: Probability that small lesions are added to white matter.
        whole_head: Probability that a shell of skull and scalp surrounds the brain.
        thick_slices: Probability that one axis has thick slices.
        bias: Deviation of the logarithm of the bias field.
        rotation: Largest rotation per axis, in radians.
        scale: Deviation of the scale and shear terms.
        elastic: Deviation of the elastic displacement, in voxels.
        misalignment: Largest shift of FLAIR against T1 per axis, in voxels.
    """

    lesion_centred: float = 0.7
    new_lesions: float = 0.5
    whole_head: float = 0.2
    thick_slices: float = 0.5
    bias: float = 0.25
    rotation: float = 0.3
    scale: float = 0.08
    elastic: float = 2.5
    misalignment: float = 0.8


@dataclass(frozen=True, slots=True)
class Sample:
    """One synthetic patch: both contrasts (1, D, H, W) float32, normalised, and labels (D, H, W) uint8."""

    t1w: Tensor
    flair: Tensor
    labels: Tensor


class _Draw:
    """Random numbers from one generator."""

    def __init__(self, generator: Generator) -> None:
        self.generator = generator

    def uniform(self, low: float, high: float) -> float:
        return low + (high - low) * float(torch.rand((), generator=self.generator))

    def integer(self, low: int, high: int) -> int:
        """Draw from low to high, both included."""
        return int(torch.randint(low, high + 1, (), generator=self.generator))

    def chance(self, probability: float) -> bool:
        return float(torch.rand((), generator=self.generator)) < probability

    def normal(self, *shape: int) -> Tensor:
        return torch.randn(shape, generator=self.generator)

    def field(self, shape: Sequence[int], knots: int, channels: int = 1) -> Tensor:
        """Draw a smooth field (1, channels, D, H, W) of about unit deviation at its knots."""
        coarse = self.normal(1, channels, *(min(knots, n) for n in shape))
        return F.interpolate(coarse, size=tuple(shape), mode="trilinear", align_corners=True)


def _rotation(angles: Sequence[float]) -> Tensor:
    matrix = torch.eye(3)
    for axis, angle in enumerate(angles):
        turn = torch.eye(3)
        a, b = [i for i in range(3) if i != axis]
        turn[a, a] = turn[b, b] = math.cos(angle)
        turn[a, b], turn[b, a] = -math.sin(angle), math.sin(angle)
        matrix = matrix @ turn
    return matrix


def _centre(draw: _Draw, labels: NDArray[np.uint8], lesions: NDArray[np.int64], side: int, ranges: Ranges) -> Tensor:
    if len(lesions) and draw.chance(ranges.lesion_centred):
        voxel = torch.from_numpy(lesions[draw.integer(0, len(lesions) - 1)]).float()
        reach = side // 3
        return voxel + torch.tensor([draw.integer(-reach, reach) for _ in range(3)]).float()
    for _ in range(8):  # a patch of air teaches little
        place = [draw.integer(0, n - 1) for n in labels.shape]
        if labels[tuple(place)]:
            break
    return torch.tensor(place).float()


def _sampling_grid(draw: _Draw, shape: Sequence[int], centre: Tensor, side: int, ranges: Ranges) -> Tensor:
    """Source voxel (side, side, side, 3) of every voxel of the patch, after a random affine and elastic deformation."""
    angles = [draw.uniform(-ranges.rotation, ranges.rotation) for _ in range(3)]
    matrix = _rotation(angles) @ (torch.eye(3) + ranges.scale * draw.normal(3, 3))
    flips = torch.tensor([-1.0 if draw.chance(0.5) else 1.0 for _ in range(3)])
    offsets = torch.arange(side) - (side - 1) / 2
    points = torch.stack(torch.meshgrid(offsets, offsets, offsets, indexing="ij"), -1)
    points = (points * flips) @ matrix.T + centre
    return points + ranges.elastic * draw.field([side] * 3, 5, channels=3)[0].permute(1, 2, 3, 0)


def _sample_nearest(labels: Tensor, points: Tensor) -> Tensor:
    index = points.round().long()
    limits = torch.tensor(labels.shape)
    inside = ((index >= 0) & (index < limits)).all(-1)
    index = index.clamp(min=torch.zeros(3, dtype=torch.long), max=limits - 1)
    return torch.where(inside, labels[index[..., 0], index[..., 1], index[..., 2]], 0)


def _vary_lesions(draw: _Draw, labels: Tensor, ranges: Ranges) -> Tensor:
    """Grow or shrink lesions a little, and add small ones to white matter."""
    side = labels.shape[0]
    labels = labels.clone()
    if draw.chance(0.3):
        lesion = (labels == LESION).float()[None, None]
        if draw.chance(0.5):
            grown = F.max_pool3d(lesion, 3, 1, 1)[0, 0] > 0
            labels[grown & (labels == WHITE)] = LESION
        else:
            core = -F.max_pool3d(-lesion, 3, 1, 1)[0, 0] > 0
            rim = (lesion[0, 0] > 0) & ~core & (draw.field(labels.shape, 12)[0, 0] > 0)
            labels[rim] = WHITE
    if draw.chance(ranges.new_lesions):
        white = (labels == WHITE).nonzero()
        axes = torch.arange(side).float()
        for _ in range(draw.integer(1, 5) if len(white) else 0):
            centre = white[draw.integer(0, len(white) - 1)].float()
            radii = [draw.uniform(1.0, 3.5) for _ in range(3)]
            distance = sum(
                ((axes - centre[a]) / radii[a]).pow(2).view([side if i == a else 1 for i in range(3)]) for a in range(3)
            )
            ragged = distance + 0.35 * draw.field(labels.shape, side // 3)[0, 0]
            labels[(ragged < 1) & (labels == WHITE)] = LESION
    return labels


def _tissue_means(draw: _Draw) -> tuple[list[float], list[float]]:
    """Mean intensities of background, CSF, grey and white matter and lesion on T1 and FLAIR."""
    white = draw.uniform(0.75, 1.0)
    grey = white - draw.uniform(0.12, 0.35)
    csf = draw.uniform(0.08, min(0.4, grey - 0.1))
    t1 = [0.0, csf, grey, white, draw.uniform(csf + 0.1, white - 0.05)]
    white = draw.uniform(0.4, 0.7)
    grey = white + draw.uniform(-0.02, 0.22)
    lesion = max(white, grey) + draw.uniform(0.06, 0.45)
    return t1, [0.0, draw.uniform(0.03, 0.35), grey, white, lesion]


def _paint(draw: _Draw, soft: Tensor, means: Sequence[float], lesion_field: Tensor) -> Tensor:
    """Mix tissue means by soft labels (1, 5, D, H, W), with texture and lesions that fade towards white matter."""
    side = soft.shape[2]
    mean = torch.tensor(means).view(1, 5, 1, 1, 1)
    image = (soft * mean).sum(1, keepdim=True)
    image = image + soft[:, LESION:] * lesion_field * (means[LESION] - means[WHITE])
    texture = draw.field([side] * 3, side // 2) * draw.uniform(0.0, 0.05)
    texture = texture + draw.field([side] * 3, side // 6) * draw.uniform(0.0, 0.05)
    grey_only = draw.field([side] * 3, 6) * draw.uniform(0.0, 0.08) * soft[:, GREY : GREY + 1]
    return image + texture * (1 - soft[:, :1]) + grey_only


def _head_shell(draw: _Draw, brain: Tensor) -> tuple[Tensor, Tensor]:
    """Intensities (1, 1, D, H, W) of what surrounds the brain on T1 and FLAIR: fluid, skull, scalp, air."""
    grown = brain
    images = [torch.zeros_like(brain), torch.zeros_like(brain)]
    layers = [
        (draw.integer(1, 3), (draw.uniform(0.05, 0.3), draw.uniform(0.02, 0.3))),
        (draw.integer(2, 4), (draw.uniform(0.02, 0.2), draw.uniform(0.02, 0.2))),
        (draw.integer(0, 2), (draw.uniform(0.3, 1.2), draw.uniform(0.2, 0.9))),
        (draw.integer(2, 5), (draw.uniform(0.5, 1.6), draw.uniform(0.3, 1.2))),
    ]
    ragged = 1 + 0.4 * draw.field(brain.shape[2:], 8)
    for thickness, intensities in layers:
        outer = grown
        for _ in range(thickness):
            outer = F.max_pool3d(outer, 3, 1, 1)
        for image, intensity in zip(images, intensities, strict=True):
            image += (outer - grown) * intensity * ragged.clamp(0.2, 2.0)
        grown = outer
    return images[0], images[1]


def _thicken(draw: _Draw, image: Tensor, axis: int, factor: float) -> Tensor:
    """Average slices along an axis and interpolate them back."""
    size = list(image.shape[2:])
    coarse = list(size)
    coarse[axis] = max(4, round(size[axis] / factor))
    thin = F.interpolate(image, size=coarse, mode="area")
    return F.interpolate(thin, size=size, mode="trilinear", align_corners=False)


def _scan(draw: _Draw, image: Tensor, thick_axis: int | None) -> Tensor:
    """Worsen a clean image as a scanner does: field, slices, noise, transfer curve."""
    shape = image.shape[2:]
    level = draw.uniform(0.0, 1.0)
    image = image * torch.exp(draw.uniform(0, 1) * draw.field(shape, 3) * 0.35)
    if thick_axis is not None:
        image = _thicken(draw, image, thick_axis, draw.uniform(1.5, 4.0))
    noise = [draw.normal(*image.shape) * 0.05 * level for _ in range(2)]
    image = torch.sqrt((image + noise[0]).pow(2) + noise[1].pow(2)) if draw.chance(0.5) else image + noise[0]
    return image.clamp(min=0) ** draw.uniform(0.8, 1.25)


def _normalise(draw: _Draw, image: Tensor, tissue: Tensor, labels: Tensor) -> Tensor:
    """Scale to the 99th percentile as the runtime does on volumes; a patch can only guess it, hence the jitter."""
    chosen = tissue & (labels != LESION) if draw.chance(0.7) else tissue
    values = image[0, 0][chosen]
    if len(values) < 100:
        return image.clamp(0, 1.5)
    rank = max(1, round(0.99 * len(values)))
    top = values.kthvalue(rank).values.clamp(min=1e-3)
    return (image / top * draw.uniform(0.82, 1.15)).clamp(0, 1.5)


def synthesise(
    labels: NDArray[np.uint8],
    lesions: NDArray[np.int64],
    side: int,
    generator: Generator,
    ranges: Ranges | None = None,
) -> Sample:
    """Make one patch from a label map.

    Args:
        labels: Label map (D, H, W): 0 background, 1 CSF, 2 grey matter, 3 white matter, 4 lesion; 1 mm voxels.
        lesions: Voxel indices (n, 3) of its lesions, or an empty array.
        side: Side of the patch in voxels.
        generator: Source of all randomness.
        ranges: How far samples vary.

    Returns:
        The patch, in the orientation of the label map up to flips.
    """
    ranges = ranges or Ranges()
    draw = _Draw(generator)
    source = torch.from_numpy(labels)
    points = _sampling_grid(draw, labels.shape, _centre(draw, labels, lesions, side, ranges), side, ranges)
    target = _vary_lesions(draw, _sample_nearest(source, points), ranges)
    soft = F.one_hot(target.long(), 5).permute(3, 0, 1, 2)[None].float()
    softness = draw.uniform(0.2, 0.9)
    soft = (1 - softness) * soft + softness * F.avg_pool3d(F.pad(soft, (1,) * 6, mode="replicate"), 3, 1)
    brain = (target > 0).float()[None, None]
    t1_means, flair_means = _tissue_means(draw)
    lesion_field = draw.field([side] * 3, 10) * draw.uniform(0, 0.35)
    images = [_paint(draw, soft, means, lesion_field) for means in (t1_means, flair_means)]
    if draw.chance(ranges.whole_head):
        images = [image + shell for image, shell in zip(images, _head_shell(draw, brain), strict=True)]
    else:
        edge = F.max_pool3d(brain, 3, 1, 1) if draw.chance(0.3) else brain
        images = [image * edge for image in images]
    images[1] = _misalign(draw, images[1], ranges.misalignment)
    thick = draw.chance(ranges.thick_slices)
    same_axis = draw.integer(0, 2)
    scanned = []
    for image in images:
        axis = (same_axis if draw.chance(0.8) else draw.integer(0, 2)) if thick and draw.chance(0.8) else None
        stripped = (image > 0).float() if draw.chance(0.8) else None
        image = _scan(draw, image, axis)
        scanned.append(image if stripped is None else image * stripped)
    normalised = [_normalise(draw, image, target > 0, target) for image in scanned]
    return Sample(normalised[0][0], normalised[1][0], target.to(torch.uint8))


def _misalign(draw: _Draw, image: Tensor, largest: float) -> Tensor:
    """Shift by a fraction of a voxel along each axis."""
    if not draw.chance(0.5):
        return image
    shape = torch.tensor(image.shape[2:]).float()
    theta = torch.eye(3, 4)[None]
    shift = torch.tensor([draw.uniform(-largest, largest) for _ in range(3)])
    theta[0, :, 3] = (2 * shift / shape).flip(0)
    grid = F.affine_grid(theta, list(image.shape), align_corners=False)
    return F.grid_sample(image, grid, padding_mode="border", align_corners=False)
