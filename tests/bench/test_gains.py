"""The benchmark of our departures from the public code: what it puts into a study and how it measures a seam."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest

from rmr_sdk import Study
from rmr_sdk.intensity import fit_normalisation
from rmr_sdk.manifest import MinMax, Robust


@pytest.fixture(scope="module")
def gains() -> Iterator[ModuleType]:
    """Give the benchmark, which is a script beside the packages."""
    sys.path.insert(0, str(Path(__file__).parents[2] / "benchmarks"))
    import bench_gains

    yield bench_gains
    sys.path.pop(0)


@pytest.mark.parametrize("jump", [0.0, 3.0])
def test_a_seam_is_the_step_at_the_border_over_those_beside_it(gains: ModuleType, jump: float) -> None:
    image = np.cumsum(np.ones((12, 5, 6), np.float32), axis=0)
    image[6:] += jump
    inside = np.ones(image.shape, bool)
    assert gains.seam(image, inside, ((6,), (), ())) == pytest.approx(1 + jump)
    assert gains.seam(image, inside, ((4,), (), ())) == pytest.approx(1 / (1 + jump / 2))
    inside[:, 0] = False
    image[:, 0] = np.random.default_rng(0).random((12, 6))  # outside, it counts for nothing
    assert gains.seam(image, inside, ((6,), (), ())) == pytest.approx(1 + jump)


def test_a_vessel_moves_the_maximum_and_hardly_the_percentile(gains: ModuleType) -> None:
    rng = np.random.default_rng(1)
    study = Study.from_arrays(
        {name: rng.random((40, 42, 44), np.float32) for name in ("T1w", "FLAIR")}, affine=np.eye(4)
    )
    struck = gains.add_vessel(study, 4.0)
    for name in study:
        before, after = np.asarray(study[name].data, np.float32), np.asarray(struck[name].data)
        assert (before != after).sum() == 27
        assert after.max() == pytest.approx(4 * before.max())
        lines = [fit_normalisation(array.copy(), Robust()) for array in (before, after)]
        assert lines[1].scale == pytest.approx(lines[0].scale, rel=0.01)
        clean, moved = (fit_normalisation(array.copy(), MinMax()) for array in (before, after))
        assert gains.scale_by_maximum(clean, 4.0).scale == pytest.approx(moved.scale, rel=0.01)
