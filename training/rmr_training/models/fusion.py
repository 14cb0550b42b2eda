"""The fusion network: densely connected convolutions over the features of both contrasts.

Source: Zhang et al., AAAI 38(7):7087-7095 (2024).
"""

from __future__ import annotations

import torch
from torch import Tensor, nn


class _ConvPReLU(nn.Module):
    """3x3x3 convolution with a PReLU per channel."""

    def __init__(self, channels: int, out: int) -> None:
        super().__init__()
        self.conv = nn.Sequential(nn.Conv3d(channels, out, 3, padding=1), nn.PReLU(out))

    def forward(self, x: Tensor) -> Tensor:
        return self.conv(x)  # type: ignore[no-any-return]


class FusionNet(nn.Module):
    """Fuse the features of two contrasts into one set of the same width.

    Args:
        features: Channels of each input and of the output.
        growth: Channels that each dense layer adds.
    """

    def __init__(self, features: int = 16, growth: int = 16) -> None:
        super().__init__()
        both = 2 * features
        self.conv0 = _ConvPReLU(both, growth)
        self.conv1 = _ConvPReLU(both + growth, growth)
        self.conv2 = _ConvPReLU(both + 2 * growth, growth)
        self.conv3 = _ConvPReLU(both + 3 * growth, growth)
        self.conv4 = _ConvPReLU(both + 4 * growth, features)
        self.conv5 = _ConvPReLU(features, features)

    def forward(self, t1w: Tensor, flair: Tensor) -> Tensor:
        """Fuse (N, features, D, H, W) of T1 and of FLAIR into (N, features, D, H, W)."""
        x = torch.cat([t1w, flair], 1)
        for dense in (self.conv0, self.conv1, self.conv2, self.conv3):
            x = torch.cat([dense(x), x], 1)
        return self.conv5(self.conv4(x))  # type: ignore[no-any-return]
