"""The benchmark of how lesions look: what it measures on a picture made by hand, and how it sums lesions up."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest

from rmr_training.implants import find_tissue


@pytest.fixture(scope="module")
def looks() -> Iterator[ModuleType]:
    """Give the benchmark, which is a script beside the packages."""
    sys.path.insert(0, str(Path(__file__).parents[2] / "benchmarks"))
    import bench_looks

    yield bench_looks
    sys.path.pop(0)


def test_lesions_are_measured_against_the_tissue_around_them(looks: ModuleType) -> None:
    shape = (24, 24, 24)
    t1w, flair = np.full((2, *shape), 0.2, np.float32)
    t1w[:, :, 8:], flair[:, :, 8:] = 0.6, 0.7  # grey matter beside fluid
    t1w[:, :, 14:], flair[:, :, 14:] = 0.9, 0.6  # white matter
    mask = np.zeros(shape, bool)
    mask[2:4, 2:4, 18:20], mask[10:14, 10:14, 16:20] = True, True
    t1w[2:4, 2:4, 18:20], flair[2:4, 2:4, 18:20] = 0.9, 0.8
    t1w[10:14, 10:14, 16:20], flair[10:14, 10:14, 16:20] = 0.55, 1.0
    images = np.stack([t1w, flair])
    small, large = looks.look_at(images, mask, find_tissue(images, mask))
    assert small == (8, pytest.approx(0.1, abs=0.01), pytest.approx(0.0, abs=0.01))
    assert large == (64, pytest.approx(0.3, abs=0.01), pytest.approx(0.5, abs=0.01))


def test_lesions_are_summed_up_by_size_and_the_smallest_left_out(looks: ModuleType) -> None:
    lesions = [(4, 9.0, 9.0), (5, 0.1, 0.0), (14, 0.3, 0.2), (60, 0.2, 0.4)]
    first, last = looks.rows_of("somewhere", lesions)
    assert (first["from_mm3"], first["to_mm3"], first["lesions"]) == (5, 15, 2)
    assert first["brightness"] == pytest.approx([0.11, 0.15, 0.2, 0.25, 0.29])
    assert first["darkness"] == pytest.approx([0.01, 0.05, 0.1, 0.15, 0.19])
    assert (last["from_mm3"], last["to_mm3"], last["lesions"]) == (60, None, 1)
