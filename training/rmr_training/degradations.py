"""The degradations that the autoencoder learns to withstand: noise, blur, and local damage to the spectrum.

Each takes an image (N, 1, D, H, W), where H and W span a slice, and a `torch.Generator`; the same generator state gives
the same result. They serve training and robustness tests alike.

Source: Zhang et al., AAAI 38(7):7087-7095 (2024), and the authors' code for the ranges.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Generator, Tensor

BLOCKS = 8


def _uniform(low: float, high: float, generator: Generator) -> float:
    return low + (high - low) * float(torch.rand((), generator=generator))


def _integer(low: int, high: int, generator: Generator) -> int:
    """Draw from low to high, both included."""
    return int(torch.randint(low, high + 1, (), generator=generator))


def add_noise(x: Tensor, generator: Generator, strength: float = 0.1) -> Tensor:
    """Add Gaussian noise whose deviation is uniform in [0, strength * maximum]."""
    deviation = _uniform(0, strength, generator) * float(x.max())
    return x + deviation * torch.randn(x.shape, generator=generator).to(x)


def gaussian_blur(x: Tensor, sigma: float) -> Tensor:
    """Blur the slice plane of (N, C, D, H, W) by a Gaussian, truncated at three deviations, replicating edges."""
    radius = max(1, math.ceil(3 * sigma))
    offsets = torch.arange(-radius, radius + 1, dtype=x.dtype, device=x.device)
    window = torch.exp(-0.5 * (offsets / sigma) ** 2)
    window = window / window.sum()
    n, c, d, h, w = x.shape
    slices = F.pad(x.reshape(n * c * d, 1, h, w), (radius,) * 4, mode="replicate")
    slices = F.conv2d(F.conv2d(slices, window.view(1, 1, -1, 1)), window.view(1, 1, 1, -1))
    return slices.view(n, c, d, h, w)


def blur(x: Tensor, generator: Generator, low: float = 0.1, high: float = 3.0) -> Tensor:
    """Blur the slice plane by a deviation uniform in [low, high] voxels."""
    return gaussian_blur(x, _uniform(low, high, generator))


def shuffle_phase(phase: Tensor, generator: Generator) -> Tensor:
    """Swap neighbouring cells of (D, H, W), one cell a pixel, by 1 to 5 random moves of the whole jigsaw."""
    for _ in range(_integer(1, 5, generator)):
        axis = _integer(1, 2, generator)
        length = phase.shape[axis]
        if length < 2:
            continue
        order = torch.arange(length)
        start = _integer(0, 1, generator)
        pairs = order[start : start + (length - start) // 2 * 2].view(-1, 2)
        swapped = torch.rand(len(pairs), generator=generator) < 0.5
        order[start : start + pairs.numel()] = torch.where(swapped[:, None], pairs.flip(1), pairs).flatten()
        phase = phase.index_select(axis, order.to(phase.device))
    return phase


def damage_spectrum(x: Tensor, generator: Generator, blocks: int = BLOCKS) -> Tensor:
    """Damage the 2-D spectrum of every slice of random blocks: amplitude smoothed, phase shuffled."""
    out = x.clone()
    for image in out[:, 0]:
        d, h, w = image.shape
        for _ in range(blocks):
            sides = (
                _integer(0, d // BLOCKS, generator),
                _integer(max(0, h // BLOCKS - 4), h // BLOCKS, generator),
                _integer(max(0, w // BLOCKS - 4), w // BLOCKS, generator),
            )
            if min(sides) == 0:
                continue
            start = [_integer(0, length - side, generator) for length, side in zip((d, h, w), sides, strict=True)]
            place = tuple(slice(s, s + side) for s, side in zip(start, sides, strict=True))
            spectrum = torch.fft.fft2(image[place])
            amplitude = gaussian_blur(spectrum.abs()[None, None], 0.5)[0, 0]
            phase = shuffle_phase(spectrum.angle(), generator)
            image[place] = torch.fft.ifft2(torch.polar(amplitude, phase)).abs()
    return out


DEGRADATIONS: dict[str, Callable[[Tensor, Generator], Tensor]] = {
    "blur": blur,
    "noise": add_noise,
    "fourier": damage_spectrum,
}
"""The three of the method; each is applied alone, never chained."""
