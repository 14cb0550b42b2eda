"""The simple fusions: what they must do to equal images, to constants and to single details."""

from __future__ import annotations

import numpy as np
import pytest

from rmr_training.evaluate.baselines import BASELINES, average, laplacian, maximum, wavelet


@pytest.mark.parametrize("name", BASELINES)
@pytest.mark.parametrize("shape", [(16, 16, 16), (21, 18, 25), (3, 4, 5)], ids=str)
def test_two_equal_images_fuse_to_themselves(name: str, shape: tuple[int, int, int]) -> None:
    image = np.random.default_rng(0).random(shape, np.float32)
    fused = BASELINES[name](image, image)
    assert fused.dtype == np.float32
    assert np.allclose(fused, image, atol=1e-5)


@pytest.mark.parametrize("name", BASELINES)
def test_the_order_of_the_inputs_does_not_matter(name: str) -> None:
    first, second = np.random.default_rng(1).random((2, 20, 22, 24), np.float32)
    assert np.allclose(BASELINES[name](first, second), BASELINES[name](second, first), atol=1e-5)


def test_average_and_maximum_of_a_table() -> None:
    first, second = np.float32([[[0.0, 1.0, 0.5]]]), np.float32([[[1.0, 0.0, 0.5]]])
    assert average(first, second).tolist() == [[[0.5, 0.5, 0.5]]]
    assert maximum(first, second).tolist() == [[[1.0, 1.0, 0.5]]]


@pytest.mark.parametrize("fuse", [wavelet, laplacian])
def test_details_of_either_image_survive_whole(fuse: object) -> None:
    """Where one image is flat, the pyramid keeps the other's detail at full height; the average halves it."""
    flat = np.full((48, 48, 48), 0.5, np.float32)
    ripple = 0.1 * np.cos(np.pi * np.arange(48, dtype=np.float32))  # as fast as voxels allow: no approximation holds it
    textured = flat + ripple
    fused = fuse(flat, textured)  # type: ignore[operator]
    assert np.allclose(fused[8:-8, 8:-8, 8:-8], textured[8:-8, 8:-8, 8:-8], atol=5e-3)
    assert np.allclose(average(flat, textured) - flat, ripple / 2, atol=1e-6)
