"""Rigid displacements near a contrast's header position: how large one is, and which one matches best.

A displacement is six numbers, a shift in mm and a rotation about the centre of the head; as a (4, 4) matrix it maps
where the header puts a point to where the displacement puts it, in RAS mm. The search is a pattern search: it steps
along one of the six at a time while the match improves, then halves the step. That finds the optimum to a fraction of
a millimetre in about a hundred looks, without gradients, and always in the same way.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from rmr_sdk.geometry import Affine

Match = Callable[[Affine], float]

_ARM_MM = 70.0  # from the centre of a head to its surface: a turn by x rad moves that by 70 x mm
_SCALE = np.array([1.0, 1.0, 1.0, 1 / _ARM_MM, 1 / _ARM_MM, 1 / _ARM_MM])
_ROUNDS = 8  # sweeps over the six directions before the step is halved anyway


@dataclass(frozen=True, slots=True)
class Found:
    """The best match of a search.

    Attributes:
        parameters: Shift in mm, and rotation about x, y, z in rad.
        match: How good it is.
    """

    parameters: tuple[float, ...]
    match: float


def displacement(parameters: npt.ArrayLike, centre_mm: Affine) -> Affine:
    """Return the matrix of a displacement.

    Args:
        parameters: Shift along x, y and z in mm, then rotation about x, y and z in rad, applied in the order z, y, x.
        centre_mm: What the rotation turns about.
    """
    values = np.asarray(parameters, np.float64)
    turn = _turn(0, values[3]) @ _turn(1, values[4]) @ _turn(2, values[5])
    matrix = np.eye(4)
    matrix[:3, :3] = turn
    matrix[:3, 3] = centre_mm - turn @ centre_mm + values[:3]
    return matrix


def _turn(axis: int, angle: float) -> Affine:
    first, second = (axis + 1) % 3, (axis + 2) % 3
    matrix = np.eye(3)
    matrix[first, first] = matrix[second, second] = np.cos(angle)
    matrix[first, second], matrix[second, first] = -np.sin(angle), np.sin(angle)
    return matrix


def rotation_degrees(matrix: Affine) -> float:
    """Return by what angle, about whatever axis, a rigid matrix turns."""
    cosine = (np.trace(matrix[:3, :3]) - 1) / 2
    return float(np.degrees(np.arccos(np.clip(cosine, -1, 1))))


def mean_shift_mm(matrix: Affine, points_mm: Affine) -> float:
    """Return how far a matrix moves some points (N, 3) on average."""
    moved = points_mm @ matrix[:3, :3].T + matrix[:3, 3] - points_mm
    return float(np.linalg.norm(moved, axis=1).mean())


def search(match: Match, centre_mm: Affine, start: Sequence[float], steps_mm: Sequence[float]) -> Found:
    """Climb to the best match near a displacement.

    Args:
        match: How well a displacement matches; more is better.
        centre_mm: What rotations turn about.
        start: The six parameters to start at.
        steps_mm: Lengths of steps, descending; rotations step by the angle that moves the surface of a head as far.
    """
    at = np.array(start, np.float64)
    best = match(displacement(at, centre_mm))
    for step_mm in steps_mm:
        for _ in range(_ROUNDS):
            before = best
            for axis in range(6):
                at, best = _better(match, centre_mm, at, best, axis, step_mm)
            if best <= before:
                break
    return Found(tuple(float(value) for value in at), best)


def _better(
    match: Match, centre_mm: Affine, at: Affine, best: float, axis: int, step_mm: float
) -> tuple[Affine, float]:
    """Return the better one of the two neighbours along an axis, or the same place when neither is better."""
    for neighbour in _neighbours(at, axis, step_mm):
        value = match(displacement(neighbour, centre_mm))
        if value > best:
            return neighbour, value
    return at, best


def drop_around(match: Match, centre_mm: Affine, found: Found, distance_mm: float) -> float:
    """Return by how much the match falls, on average, a distance away from its optimum in each of the six directions.

    As a fraction of what the optimum has above 1, the value of no match.
    """
    around = [
        match(displacement(neighbour, centre_mm))
        for axis in range(6)
        for neighbour in _neighbours(np.array(found.parameters), axis, distance_mm)
    ]
    return (found.match - sum(around) / len(around)) / max(found.match - 1, 1e-9)


def _neighbours(at: Affine, axis: int, step_mm: float) -> list[Affine]:
    step = np.zeros(6)
    step[axis] = step_mm * _SCALE[axis]
    return [at + step, at - step]
