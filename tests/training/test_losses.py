"""The losses against independent computations: SciPy's correlations, hand-made tables, and the formulas written out."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from scipy import ndimage

from rmr_training.losses import (
    IGNORED,
    SegmentationLoss,
    content,
    reconstruction,
    sobel_magnitude,
    ssim3d,
    total_variation,
    visual,
)


def images(seed: int, *shape: int) -> torch.Tensor:
    return torch.rand(1, 1, *shape, generator=torch.Generator().manual_seed(seed))


def test_total_variation_of_a_ramp_is_its_squared_slopes() -> None:
    d, h, w = torch.meshgrid(torch.arange(4.0), torch.arange(5.0), torch.arange(6.0), indexing="ij")
    ramp = (1 * d + 2 * h + 3 * w)[None, None]
    assert total_variation(ramp).item() == pytest.approx(1 + 4 + 9)


def test_total_variation_averages_each_axis_over_its_own_differences() -> None:
    x = torch.zeros(1, 1, 2, 3, 4)
    x[0, 0, 1, 1, 1] = 1.0
    expected = 1 / (1 * 3 * 4) + 2 / (2 * 2 * 4) + 2 / (2 * 3 * 3)
    assert total_variation(x).item() == pytest.approx(expected)


def test_content_of_a_constant_difference_has_no_variation() -> None:
    x = images(0, 4, 4, 4)
    assert content(x + 0.5, x).item() == pytest.approx(40 * 0.25, rel=1e-5)


def ssim_oracle(x: np.ndarray, y: np.ndarray) -> float:
    """The formula with a full 11^3 window in float64, by SciPy's correlation."""
    offsets = np.arange(-5, 6)
    r2 = sum(np.square(o) for o in np.meshgrid(offsets, offsets, offsets, indexing="ij"))
    window = np.exp(-r2 / (3 * 1.5**2))
    window /= window.sum()

    def mean(a: np.ndarray) -> np.ndarray:
        return ndimage.correlate(a, window)[5:-5, 5:-5, 5:-5]

    mx, my = mean(x), mean(y)
    vx, vy, cov = mean(x * x) - mx**2, mean(y * y) - my**2, mean(x * y) - mx * my
    c1, c2 = (0.01 * 2) ** 2, (0.03 * 2) ** 2
    return float(np.mean((2 * mx * my + c1) * (2 * cov + c2) / ((mx**2 + my**2 + c1) * (vx + vy + c2))))


def test_ssim_agrees_with_a_full_window_in_float64() -> None:
    x, y = images(1, 13, 14, 16), images(2, 13, 14, 16)
    y = 0.7 * x + 0.3 * y
    assert ssim3d(x, y).item() == pytest.approx(
        ssim_oracle(x[0, 0].double().numpy(), y[0, 0].double().numpy()), abs=1e-5
    )


def test_ssim_of_an_image_with_itself_is_one() -> None:
    x = images(3, 12, 12, 12)
    assert ssim3d(x, x).item() == pytest.approx(1.0)


def test_sobel_agrees_with_scipy() -> None:
    x = images(4, 6, 7, 8)
    expected = sum(np.abs(ndimage.sobel(x[0, 0].double().numpy(), axis=axis, mode="constant")) for axis in range(3))
    np.testing.assert_allclose(sobel_magnitude(x)[0, 0].numpy(), expected, atol=1e-5)


def test_visual_loss_is_zero_for_flair_when_its_edges_are_the_stronger() -> None:
    flair = images(5, 6, 6, 6)
    assert visual(flair, torch.zeros_like(flair), flair).item() == 0.0


def test_visual_loss_weighs_a_shift_by_twelve() -> None:
    flair = torch.zeros(1, 1, 8, 8, 8)
    shifted = flair + 0.1
    edges = sobel_magnitude(shifted).abs().mean().item()
    assert visual(shifted, flair, flair).item() == pytest.approx(12 * 0.1 + edges, rel=1e-5)


def test_reconstruction_adds_content_and_structure() -> None:
    x, y = images(6, 12, 12, 12), images(7, 12, 12, 12)
    expected = content(x, y).item() + 1 - ssim3d(x, y).item()
    assert reconstruction(x, y).item() == pytest.approx(expected)


def dice_oracle(logits: np.ndarray, labels: np.ndarray) -> float:
    exponent = np.exp(logits - logits.max(0))
    probability = exponent / exponent.sum(0)
    truth = labels[None] == np.arange(len(logits))[:, None, None, None]
    overlap = 2 * (probability * truth).sum((1, 2, 3)) + 1e-5
    return float(np.mean(1 - overlap / (probability.sum((1, 2, 3)) + truth.sum((1, 2, 3)) + 1e-5)))


def test_segmentation_loss_is_ten_times_dice() -> None:
    generator = torch.Generator().manual_seed(8)
    logits = torch.randn(1, 5, 4, 4, 4, generator=generator)
    labels = torch.randint(0, 5, (1, 4, 4, 4), generator=generator, dtype=torch.uint8)
    expected = 10 * dice_oracle(logits[0].double().numpy(), labels[0].numpy())
    assert SegmentationLoss()(logits, labels).item() == pytest.approx(expected, rel=1e-4)


def test_ignored_voxels_count_in_neither_loss() -> None:
    generator = torch.Generator().manual_seed(9)
    logits = torch.randn(1, 5, 4, 4, 4, generator=generator)
    labels = torch.randint(0, 5, (1, 4, 4, 4), generator=generator, dtype=torch.uint8)
    labels[0, 2:] = IGNORED
    known = SegmentationLoss(cross_entropy=4.0)(logits[:, :, :2], labels[:, :2])
    assert SegmentationLoss(cross_entropy=4.0)(logits, labels).item() == pytest.approx(known.item(), rel=1e-4)
    expected = 10 * dice_oracle(logits[0, :, :2].double().numpy(), labels[0, :2].numpy())
    assert SegmentationLoss()(logits, labels).item() == pytest.approx(expected, rel=1e-4)


def test_a_patch_of_which_nothing_is_known_teaches_nothing() -> None:
    logits = torch.randn(1, 5, 4, 4, 4, requires_grad=True)
    SegmentationLoss(cross_entropy=4.0)(logits, torch.full((1, 4, 4, 4), IGNORED, dtype=torch.uint8)).backward()
    assert logits.grad is not None
    assert float(logits.grad.abs().max()) == 0


def test_cross_entropy_is_added_with_its_weight() -> None:
    logits, labels = torch.randn(1, 5, 4, 4, 4), torch.ones(1, 4, 4, 4, dtype=torch.uint8)
    plain = SegmentationLoss()(logits, labels)
    entropy = -torch.log_softmax(logits, 1)[:, 1].mean()
    weighted = SegmentationLoss(cross_entropy=2.0)(logits, labels)
    assert (weighted - plain).item() == pytest.approx(2 * entropy.item(), rel=1e-4)
