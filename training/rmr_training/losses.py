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
    """|Gx| + |Gy| + |Gz| of (N, 1, D, H, W) with unnormalised 3x3x3 Sobel kernels and zero padding."""
    smooth, slope = x.new_tensor([1.0, 2.0, 1.0]), x.new_tensor([1.0, 0.0, -1.0])
    kernels = []
    for axis in range(3):
        d, h, w = (slope if axis == i else smooth for i in range(3))
        kernels.append(d[:, None, None] * h[None, :, None] * w[None, None, :])
    return F.conv3d(x, torch.stack(kernels)[:, None], padding=1).abs().sum(1, keepdim=True)


def visual(fused: Tensor, t1w: Tensor, flair: Tensor) -> Tensor:
    """12 * L1 to FLAIR + L1 of the gradient to the stronger of both contrasts' gradients, (N, 1, D, H, W) each."""
    edges = torch.maximum(sobel_magnitude(t1w), sobel_magnitude(flair))
    return 12 * F.l1_loss(fused, flair) + F.l1_loss(sobel_magnitude(fused), edges)


class SegmentationLoss(nn.Module):
    """10 * Dice, and optionally a weighted cross-entropy, which keeps small lesions from vanishing early.

    Args:
        cross_entropy: Weight of the cross-entropy; 0 is the authors' loss.
        lesion_weight: Weight of the last class within the cross-entropy; the background has 0.3, the others 1.
        batch_dice: Take Dice over the whole batch rather than per patch, so that a patch without a class does not
            pull that class to zero; False is the authors' loss.
    """

    def __init__(self, cross_entropy: float = 0.0, lesion_weight: float = 3.0, batch_dice: bool = False) -> None:
        super().__init__()
        self.cross_entropy, self.lesion_weight = cross_entropy, lesion_weight
        self.dice = DiceLoss(include_background=True, softmax=True, to_onehot_y=True, batch=batch_dice)

    def forward(self, logits: Tensor, labels: Tensor) -> Tensor:
        """Compare class scores (N, K, D, H, W) to labels (N, D, H, W)."""
        loss: Tensor = 10 * self.dice(logits, labels[:, None])
        if self.cross_entropy:
            weights = logits.new_ones(logits.shape[1])
            weights[0], weights[-1] = 0.3, self.lesion_weight
            loss = loss + self.cross_entropy * F.cross_entropy(logits, labels.long(), weights)
        return loss
