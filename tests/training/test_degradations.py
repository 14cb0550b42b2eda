"""Degradations: the same under a seed, within their ranges, and where they are meant to be."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from scipy import ndimage

from rmr_training.degradations import DEGRADATIONS, add_noise, blur, damage_spectrum, gaussian_blur, shuffle_phase


def generator(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


@pytest.fixture
def image() -> torch.Tensor:
    return torch.rand(1, 1, 32, 32, 32, generator=generator(0))


@pytest.mark.parametrize("name", sorted(DEGRADATIONS))
def test_same_seed_same_result_and_input_untouched(name: str, image: torch.Tensor) -> None:
    before = image.clone()
    first, second, other = (DEGRADATIONS[name](image, generator(seed)) for seed in (1, 1, 2))
    assert torch.equal(first, second)
    assert not torch.equal(first, other)
    assert not torch.equal(first, image)
    assert torch.equal(image, before)
    assert first.shape == image.shape


def test_noise_has_no_more_than_a_tenth_of_the_maximum(image: torch.Tensor) -> None:
    deviations = [(add_noise(image, generator(seed)) - image).std().item() for seed in range(30)]
    assert max(deviations) <= 0.1 * image.max().item() * 1.05
    assert max(deviations) > 0.05
    assert min(deviations) < 0.03


def test_blur_agrees_with_scipy_inside_slices(image: torch.Tensor) -> None:
    expected = ndimage.gaussian_filter(image[0, 0].numpy(), (0, 1.5, 1.5), mode="nearest", radius=(0, 5, 5))
    np.testing.assert_allclose(gaussian_blur(image, 1.5)[0, 0].numpy(), expected, atol=1e-5)


def test_blur_leaves_slices_apart() -> None:
    x = torch.zeros(1, 1, 5, 9, 9)
    x[0, 0, 2] = torch.rand(9, 9, generator=generator(3))
    assert blur(x, generator(1))[0, 0, [0, 1, 3, 4]].abs().max() == 0


def test_spectrum_damage_stays_in_blocks(image: torch.Tensor) -> None:
    damaged = damage_spectrum(image, generator(4))
    changed = (damaged != image).float().mean().item()
    assert 0 < changed <= 8 * (4 * 4 * 4) / 32**3
    assert (damaged >= 0).all()


def test_shuffling_moves_neighbours_only_and_loses_none() -> None:
    phase = torch.arange(64.0).view(1, 8, 8)
    moved = shuffle_phase(phase, generator(5))
    assert torch.equal(moved.flatten().sort().values, phase.flatten())
    assert not torch.equal(moved, phase)
    for axis in (1, 2):
        index = (moved // 8 if axis == 1 else moved % 8) - torch.arange(8.0).view(
            [-1 if a == axis else 1 for a in range(3)]
        )
        assert index.abs().max() <= 5
