"""Whether the headers of two contrasts agree with what the contrasts show: where one matches the other best.

    header position -> search on a coarse lattice, then on a fine one -> Fit: where, how well, how sharply

A head matches itself sharply: 3 mm aside, a tenth of the match is gone. Another head, or the same one upside down,
matches as a ball matches a ball: hardly worse 3 mm aside. That difference, not the height of the match, says whether
two contrasts can be of one head. docs/alignment.md has the measurements behind the constants.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from rmr_sdk.displacement import Found, Match, displacement, drop_around, mean_shift_mm, rotation_degrees, search
from rmr_sdk.geometry import Affine
from rmr_sdk.similarity import Reduced, Similarity

LEAST_POINTS = 2000
"""Points of the head on the fine lattice, 100 ml, below which nothing is judged."""

_COARSE_MM, _FINE_MM = 5.3, 3.7  # no multiples of the voxels that volumes are reduced to
_COARSE_STEPS_MM, _FINE_STEPS_MM = (8.0, 4.0, 2.0), (2.0, 1.0, 0.5)
_NEAR_MM, _FAR_MM = 3.0, 12.0
_CHANCE = (
    3.5  # times what unrelated points seem to share: searched for, they reach 2.0, and under heavy noise one head 8
)
_FAINT = 1.01  # one head under noise of 60 % of its signal; nothing is said of sides then
_NOISE = 2.0  # times what unrelated points seem to share: a smaller gain says nothing
_CLEAR_GAIN = 0.01  # of the match: what a displacement of half a millimetre costs
_SHARP_DROP = 0.042  # over 3 mm: different heads lose at most 0.039, one head at least 0.097, or blurred by 9 mm 0.047
_SHARP_SHARE = 0.165  # of the drop over 12 mm: different heads at most 0.161, one head at least 0.177 however degraded
_SHAPE_DROP = 0.022  # over 3 mm: heads of wrong size mostly lose less, whatever the share
_LOOSE = 0.0095  # drop times share: different heads at most 0.006, mirrored or clear pairs of one head at least 0.009
_DETAIL = (0.72, 0.9)  # of a volume's own drop: real ones 0.78 to 0.83; blurred by 9 mm 0.69, noise of 30 % 0.94
_MIRROR_DROP = 0.15  # over 3 mm: a pair of which one is mirrored never loses more than 0.114
_MIRROR_GAIN = 0.05  # of the match: mirrored pairs gain 0.09 or more, others lose 0.09 or more


@dataclass(frozen=True, slots=True, eq=False)
class Fit:
    """Where a contrast matches the reference best, near some position.

    Attributes:
        match: Normalised mutual information of any displacement.
        head_points: Points of the reference's head, (N, 3) RAS mm.
        centre_mm: Centre of the reference's head.
        matrix: (4, 4), where the header puts a point -> where it matches best, in RAS mm.
        shift_mm: Distance that points of the head move, on average.
        rotation_deg: Angle of the rotation.
        before: Normalised mutual information at the header's position; 1 where that shows too little in common.
        after: The same where it matches best.
        chance: What as many points of unrelated contrasts would seem to share.
        drop: Share of the match that is lost 3 mm aside.
        drop_share: That as a share of what is lost 12 mm aside.
        mirrored: Whether it would match clearly better with left and right exchanged.
    """

    match: Match
    head_points: Affine
    centre_mm: Affine
    matrix: Affine
    shift_mm: float
    rotation_deg: float
    before: float
    after: float
    chance: float
    drop: float
    drop_share: float
    mirrored: bool

    @property
    def by_chance(self) -> bool:
        """Tell whether the contrasts have no more in common than unrelated volumes."""
        return self.after - 1 < _CHANCE * (self.chance - 1)

    @property
    def of_other_heads(self) -> bool:
        """Tell whether the contrasts match only as any two heads do."""
        return self.drop < _SHAPE_DROP or (self.drop < _SHARP_DROP and self.drop_share < _SHARP_SHARE)

    @property
    def loose(self) -> bool:
        """Tell whether the match is so loose that it says little: another head, or noise, blur or shading of one."""
        return self.of_other_heads or self.drop * self.drop_share < _LOOSE

    @property
    def faint(self) -> bool:
        """Tell whether so little is shared that not even the sides can be told apart."""
        return self.after < _FAINT

    @property
    def clearly_better(self) -> bool:
        """Tell whether it matches better here than at the header's position, by more than noise makes."""
        gain = self.after - self.before
        return gain > _CLEAR_GAIN * (self.after - 1) and gain > _NOISE * (self.chance - 1)

    @property
    def centre_shift_mm(self) -> float:
        """Return the distance that the centre of the head moves."""
        return mean_shift_mm(self.matrix, self.centre_mm[None])


def fit_nearby(reference: Reduced, moving: Reduced, start_mm: Affine, threads: int = 1) -> Fit | None:
    """Find where a contrast matches the reference best, near a shift of it.

    Args:
        reference: Stays where it is.
        moving: The other contrast, at its header's position.
        start_mm: (3,), shift from where the search starts.
        threads: Threads that sample; the answer does not depend on them.

    Returns:
        None where the contrasts have too little of a head in common to tell.
    """
    centre = reference.centre_mm
    begin = (*(float(value) for value in start_mm), 0.0, 0.0, 0.0)
    start = displacement(begin, centre)
    fine = Similarity(reference, moving, _FINE_MM, start, threads)
    if fine.common_points < LEAST_POINTS:
        return None
    coarse = Similarity(reference, moving, _COARSE_MM, start, threads)
    rough = search(coarse, centre, begin, _COARSE_STEPS_MM)
    found = search(fine, centre, rough.parameters, _FINE_STEPS_MM)
    matrix = displacement(found.parameters, centre)
    near, far = (drop_around(fine, centre, found, distance) for distance in (_NEAR_MM, _FAR_MM))
    return Fit(
        match=fine,
        head_points=fine.head_points,
        centre_mm=centre,
        matrix=matrix,
        shift_mm=mean_shift_mm(matrix, fine.head_points),
        rotation_deg=rotation_degrees(matrix),
        before=fine(np.eye(4)),
        after=found.match,
        chance=fine.chance(matrix),
        drop=near,
        drop_share=near / max(far, 1e-9),
        mirrored=near < _MIRROR_DROP and found.match > _FAINT and _matches_mirrored(coarse, centre, found),
    )


def shows_detail(reduced: Reduced, threads: int = 1) -> bool:
    """Tell whether a contrast is neither so blurred nor so noisy that any head would match it as well as its own.

    Measured by matching it with itself: blur makes the match less sharp, noise sharper.
    """
    itself = Similarity(reduced, reduced, _FINE_MM, np.eye(4), threads)
    found = Found((0.0,) * 6, itself(np.eye(4)))
    near, far = (drop_around(itself, reduced.centre_mm, found, distance) for distance in (_NEAR_MM, _FAR_MM))
    return _DETAIL[0] < near / max(far, 1e-9) < _DETAIL[1]


def _matches_mirrored(coarse: Match, centre_mm: Affine, found: Found) -> bool:
    mirror = np.diag([-1.0, 1.0, 1.0, 1.0])
    mirror[0, 3] = 2 * centre_mm[0]
    placed = mirror @ displacement(found.parameters, centre_mm)
    best = search(lambda moved: coarse(moved @ placed), centre_mm, [0.0] * 6, _COARSE_STEPS_MM).match
    straight = search(coarse, centre_mm, found.parameters, _COARSE_STEPS_MM[1:]).match
    return best - straight > _MIRROR_GAIN * (best - 1)
