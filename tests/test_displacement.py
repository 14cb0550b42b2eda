"""Rigid displacements: their matrices by hand, and a search for an optimum that is known."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from rmr_sdk.displacement import Found, displacement, drop_around, mean_shift_mm, rotation_degrees, search

CENTRE = np.array([10.0, -20.0, 30.0])
POINTS = CENTRE + np.random.default_rng(0).normal(0, 40, (200, 3))


def test_a_displacement_by_hand() -> None:
    matrix = displacement([1.0, 2.0, 3.0, 0.0, 0.0, np.pi / 2], CENTRE)
    np.testing.assert_allclose(matrix @ (*CENTRE, 1), (11, -18, 33, 1), atol=1e-12)
    np.testing.assert_allclose(matrix @ (11, -20, 30, 1), (11, -17, 33, 1), atol=1e-12)  # x turns to y about z


@given(st.lists(st.floats(-0.5, 0.5), min_size=3, max_size=3), st.lists(st.floats(-50, 50), min_size=3, max_size=3))
def test_a_displacement_is_rigid(angles, shift) -> None:
    matrix = displacement([*shift, *angles], CENTRE)
    np.testing.assert_allclose(matrix[:3, :3] @ matrix[:3, :3].T, np.eye(3), atol=1e-12)
    assert np.linalg.det(matrix[:3, :3]) == pytest.approx(1)
    np.testing.assert_allclose((matrix @ (*CENTRE, 1))[:3], CENTRE + shift, atol=1e-9)


@pytest.mark.parametrize("axis", [0, 1, 2])
def test_the_angle_of_a_rotation(axis) -> None:
    parameters = np.zeros(6)
    parameters[3 + axis] = np.radians(7.0)
    assert rotation_degrees(displacement(parameters, CENTRE)) == pytest.approx(7.0)


def test_the_mean_shift_of_points() -> None:
    assert mean_shift_mm(displacement([3.0, 4.0, 0, 0, 0, 0], CENTRE), POINTS) == pytest.approx(5.0)


def test_the_search_finds_an_optimum_that_is_known() -> None:
    truth = displacement([7.3, -4.1, 9.6, 0.11, -0.14, 0.09], CENTRE)

    def match(matrix: np.ndarray) -> float:
        return 2.0 - mean_shift_mm(np.linalg.inv(truth) @ matrix, POINTS) / 100

    found = search(match, CENTRE, [0.0] * 6, (8.0, 4.0, 2.0, 1.0, 0.5))
    assert mean_shift_mm(np.linalg.inv(truth) @ displacement(found.parameters, CENTRE), POINTS) < 1.0
    assert found.match == match(displacement(found.parameters, CENTRE))


def test_the_drop_around_an_optimum() -> None:
    found = Found((0.0,) * 6, 1.5)

    def match(matrix: np.ndarray) -> float:
        return 1.5 - 0.01 * float(np.linalg.norm(matrix[:3, :3] @ CENTRE + matrix[:3, 3] - CENTRE))

    # Three of the six directions shift the centre by 4 mm, the rotations leave it.
    assert drop_around(match, CENTRE, found, 4.0) == pytest.approx(0.04 / 2 / 0.5)
