"""The losses of both training stages.

Source: Zhang et al., AAAI 38(7):7087-7095 (2024), and the authors' code for the constants; where the code departs from
the usual definition (the SSIM window and its constants) the code is followed and the departure is named.
"""

from __future__ import annotations

from functools import lru_cache

import torch
import torch.nn.functional as F
from monai.losses import DiceLoss
from torch import Tensor, nn

SPATIAL = (2, 3, 4)

SSIM_SIDE = 11
"""Least side of an image that structural similarity can be computed of."""


def total_variation(x: Tensor) -> Tensor:
    """Mean squared forward difference along each spatial axis, summed over the axes of (N, C, D, H, W)."""
    return torch.stack([x.diff(dim=axis).pow(2).mean() for axis in SPATIAL]).sum()


def content(x: Tensor, target: Tensor) -> Tensor:
    """40 * MSE + 20 * total variation of the difference: the pull that both levels of constraints share."""
    difference = x - target
    return 40 * difference.pow(2).mean() + 20 * total_variation(difference)


@lru_cache(maxsize=16)
def _ssim_band(length: int, radius: int = 5) -> Tensor:
    """Matrix (length - 2 * radius, length) that smooths one axis by the window, without padding."""
    offsets = torch.arange(-radius, radius + 1, dtype=torch.float64)
    # The authors divide by 3 sigma^2, not by 2 sigma^2; the 3-D window is then a product of these.
    window = torch.exp(-offsets.pow(2) / (3 * 1.5**2))
    window = (window / window.sum()).float()
    band = torch.zeros(length - 2 * radius, length)
    for row in range(len(band)):
        band[row, row : row + 2 * radius + 1] = window
    return band


def _smooth(x: Tensor) -> Tensor:
    """Smooth all axes of (N, C, D, H, W) by matrix products, 20 times as fast as one-channel convolutions on a CPU."""
    for axis in SPATIAL:
        band = _ssim_band(x.shape[axis]).to(x)
        x = (x.movedim(axis, -1) @ band.T).movedim(-1, axis)
    return x


def ssim3d(x: Tensor, y: Tensor) -> Tensor:
    """Mean structural similarity of two images (N, 1, D, H, W), each axis of at least 11 voxels.

    Windows of 11^3 with weights exp(-r^2 / (3 * 1.5^2)), no padding, dynamic range L = 2, as in the authors' code.
    """
    maps = torch.cat([x, y, x * x, y * y, x * y], 1)
    mean_x, mean_y, xx, yy, xy = _smooth(maps).split(1, 1)
    c1, c2 = (0.01 * 2) ** 2, (0.03 * 2) ** 2
    covariance = xy - mean_x * mean_y
    variances = xx - mean_x**2 + yy - mean_y**2
    score = (2 * mean_x * mean_y + c1) * (2 * covariance + c2) / ((mean_x**2 + mean_y**2 + c1) * (variances + c2))
    return score.mean()


def reconstruction(image: Tensor, target: Tensor) -> Tensor:
    """Constraint on the level of images: content and structure of a reconstruction (N, 1, D, H, W)."""
    return content(image, target) + 1 - ssim3d(image, target)


def sobel_magnitude(x: Tensor) -> Tensor:
    """|Gx| + |Gy| + |Gz| of (N, 1, D, H, W) with unnormalised 3x3x3 Sobel kernels and zero padding.

    The kernels are products of [1, 2, 1] and [1, 0, -1], so sums of shifted slices take their place.
    """
    padded = F.pad(x, (1,) * 6)
    total = torch.zeros_like(x)
    for axis in SPATIAL:
        slope = padded
        for other in SPATIAL:
            low, middle, high = (slope.narrow(other, start, x.shape[other]) for start in range(3))
            slope = low - high if other == axis else low + 2 * middle + high
        total = total + slope.abs()
    return total


def visual(fused: Tensor, t1w: Tensor, flair: Tensor) -> Tensor:
    """12 * L1 to FLAIR + L1 of the gradient to the stronger of both contrasts' gradients, (N, 1, D, H, W) each."""
    edges = torch.maximum(sobel_magnitude(t1w), sobel_magnitude(flair))
    return 12 * F.l1_loss(fused, flair) + F.l1_loss(sobel_magnitude(fused), edges)


UNKNOWN = 255
"""Label of a voxel of which only this is known: it is no lesion. Real studies have lesion masks, not tissue classes."""

IGNORED = 254
"""Label of a voxel of which nothing is known."""


class SegmentationLoss(nn.Module):
    """10 * Dice, and optionally a weighted cross-entropy, which keeps small lesions from vanishing early.

    Where the label is `UNKNOWN`, the lesion class (the last) is compared as everywhere; the other classes count in
    neither Dice nor target, and the cross-entropy asks for their sum. Where it is `IGNORED`, nothing is compared.

    Args:
        cross_entropy: Weight of the cross-entropy; 0 is the authors' loss.
        lesion_weight: Weight of the last class within the cross-entropy; the background has 0.3, the others 1.
        batch_dice: Take Dice over the whole batch rather than per patch, so that a patch without a class does not
            pull that class to zero; False is the authors' loss.
    """

    def __init__(self, cross_entropy: float = 0.0, lesion_weight: float = 3.0, batch_dice: bool = False) -> None:
        super().__init__()
        self.cross_entropy, self.lesion_weight = cross_entropy, lesion_weight
        self.dice = DiceLoss(include_background=True, batch=batch_dice)

    def forward(self, logits: Tensor, labels: Tensor) -> Tensor:
        """Compare class scores (N, K, D, H, W) to labels (N, D, H, W)."""
        classes = logits.shape[1]
        unknown, ignored = labels == UNKNOWN, labels == IGNORED
        target = torch.where(unknown | ignored, 0, labels).long()
        counted = (~unknown)[:, None].repeat(1, classes, 1, 1, 1)
        counted[:, -1] = True
        counted &= ~ignored[:, None]
        one_hot = F.one_hot(target, classes).movedim(-1, 1) * counted
        loss: Tensor = 10 * self.dice(logits.softmax(1) * counted, one_hot.to(logits.dtype))
        if self.cross_entropy:
            loss = loss + self.cross_entropy * self._cross_entropy(logits, target, unknown, ignored)
        return loss

    def _cross_entropy(self, logits: Tensor, target: Tensor, unknown: Tensor, ignored: Tensor) -> Tensor:
        weights = logits.new_ones(logits.shape[1])
        weights[0], weights[-1] = 0.3, self.lesion_weight
        scores = logits.log_softmax(1)
        known = scores.gather(1, target[:, None])[:, 0]
        score = torch.where(unknown, scores[:, :-1].logsumexp(1), known)
        weight = torch.where(unknown, 1.0, weights[target]) * ~ignored
        return -(weight * score).sum() / weight.sum().clamp(min=1.0)
