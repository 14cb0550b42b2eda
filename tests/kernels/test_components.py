"""Connected components against scipy.ndimage."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import ndimage

from rmr_sdk.postprocess import components, count_labels

TOUCHING = np.ones((3, 3, 3))


@pytest.mark.parametrize("density", [0.01, 0.08, 0.3, 0.9])
@pytest.mark.parametrize("shape", [(17, 23, 29), (1, 9, 40), (12, 1, 1), (5, 6, 1)])
def test_components_equal_scipy(rng: np.random.Generator, density: float, shape: tuple[int, int, int]) -> None:
    mask = rng.random(shape) < density
    probability = rng.random(shape, np.float32)
    ids = np.empty(shape, np.int32)
    found = components(mask, probability=probability, ids=ids)

    expected, count = ndimage.label(mask, TOUCHING)
    assert len(found) == count
    np.testing.assert_array_equal(ids > 0, mask)
    for component in found:
        inside = ids == component.id
        assert len(np.unique(expected[inside])) == 1
        assert component.voxels == inside.sum() == (expected == expected[inside][0]).sum()
        np.testing.assert_allclose(component.centroid, ndimage.center_of_mass(inside), rtol=1e-12)
        np.testing.assert_allclose(component.mean_probability, probability[inside].mean(dtype=np.float64), rtol=1e-12)


def test_components_are_ordered_by_size_then_by_first_voxel(rng: np.random.Generator) -> None:
    mask = rng.random((16, 18, 20)) < 0.05
    ids = np.empty(mask.shape, np.int32)
    found = components(mask, ids=ids)
    firsts = [int(np.flatnonzero(ids == component.id)[0]) for component in found]
    keys = [(-component.voxels, first) for component, first in zip(found, firsts, strict=True)]
    assert keys == sorted(keys)
    assert [component.id for component in found] == list(range(1, len(found) + 1))


@pytest.mark.parametrize("step", [(0, 0, 1), (0, 1, 1), (0, 1, -1), (1, 1, 1), (1, -1, 1), (1, 1, -1), (1, -1, -1)])
def test_all_26_neighbours_connect(step: tuple[int, int, int]) -> None:
    mask = np.zeros((3, 3, 3), bool)
    mask[1, 1, 1] = mask[1 + step[0], 1 + step[1], 1 + step[2]] = True
    assert len(components(mask)) == 1


def test_voxels_two_apart_do_not_connect() -> None:
    mask = np.zeros((1, 1, 5), bool)
    mask[0, 0, [0, 2, 4]] = True
    assert [component.voxels for component in components(mask)] == [1, 1, 1]


def test_components_of_one_label_only() -> None:
    labels = np.zeros((2, 2, 6), np.uint8)
    labels[0, 0, :3] = 4
    labels[0, 0, 3:] = 3
    (lesion,) = components(labels, value=4)
    assert (lesion.voxels, lesion.centroid, lesion.mean_probability) == (3, (0.0, 0.0, 1.0), None)
    assert components(labels, value=2) == []


def test_count_labels() -> None:
    labels = np.array([[[0, 1, 4]], [[4, 4, 0]]], np.uint8)
    assert count_labels(labels, 5) == [2, 1, 0, 0, 3]
