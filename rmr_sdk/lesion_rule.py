"""What of the lesions is kept: what the network is sure of, what lies in white matter, and what is not too small.

The bundle states the levels, and a caller may take others. What is dropped gets the label that most voxels around its
lesion have, on the common grid: what stays must not depend on the grid of the reference.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from rmr_sdk import _C
from rmr_sdk.errors import ConfigError
from rmr_sdk.manifest import MOST_MM3, WHITE_MATTER, LesionThreshold, Manifest


@dataclass(frozen=True, slots=True)
class Applied:
    """What a rule did.

    Attributes:
        threshold: Probability from which on voxels were kept, for the lesion volume that was found; at 0 all were.
        lesions: Connected lesions, or pieces of them that a threshold parted, of which nothing was kept.
        voxels: Voxels that have another label now.
    """

    threshold: float = 0.0
    lesions: int = 0
    voxels: int = 0


@dataclass(frozen=True, slots=True)
class LesionRule:
    """What a connected lesion (26 neighbours) needs to be kept, and what its voxels need.

    Attributes:
        lesion: The label of lesions; None where there is none, and nothing is dropped.
        white_matter: The label of white matter.
        least_probability: Least mean probability; at 0 every lesion has it.
        least_white_matter: Least share of white matter among the labels that its voxels touch; at 0 likewise.
        threshold: Least probability of a voxel of a lesion that is kept, by the volume of all lesions before anything
            is dropped, and how large the pieces must be that this makes of a lesion; None keeps all.
        least_mm3: Least volume of what the others leave of a lesion; at 0 every one has it.
    """

    lesion: int | None
    white_matter: int = 0
    least_probability: float = 0.0
    least_white_matter: float = 0.0
    threshold: LesionThreshold | None = None
    least_mm3: float = 0.0

    @classmethod
    def of(
        cls,
        manifest: Manifest,
        least_probability: float | None = None,
        least_white_matter: float | None = None,
        threshold: float | None = None,
        least_mm3: float | None = None,
    ) -> LesionRule:
        """Return the rule of a bundle, with the caller's levels where they are not None.

        Raises:
            ConfigError: A level is not within 0 to 1, or a volume not within 0 to 1000 mm3; one is asked for and the
                bundle has no lesion class, or white matter is and it has no such class.
        """
        levels = [
            _checked("least_lesion_probability", least_probability, manifest.least_lesion_probability),
            _checked("least_white_matter", least_white_matter, manifest.least_white_matter),
            _checked("least_lesion_mm3", least_mm3, manifest.least_lesion_mm3, MOST_MM3),
        ]
        stated = manifest.lesion_threshold
        by_load = stated if threshold is None else _at_any_load(threshold, stated.least_piece if stated else 0.0)
        if manifest.lesion_class is None and (max(levels) > 0 or by_load is not None):
            raise ConfigError(
                f"{manifest.name} has no lesion class, and a level of lesions is asked for.",
                "Leave out least_lesion_probability, least_white_matter, lesion_threshold and least_lesion_mm3.",
            )
        classes = manifest.classes or ()
        if levels[1] > 0 and WHITE_MATTER not in classes:
            raise ConfigError(
                f'least_white_matter is {levels[1]}, and {manifest.name} has no class "{WHITE_MATTER}".',
                "Leave it out.",
            )
        lesion = None if manifest.lesion_class is None else classes.index(manifest.lesion_class)
        white = classes.index(WHITE_MATTER) if WHITE_MATTER in classes else 0
        return cls(lesion, white, levels[0], levels[1], by_load, levels[2])

    @property
    def keeps_all(self) -> bool:
        """Tell whether nothing can be dropped."""
        return self.lesion is None or not (self._doubts or self.least_mm3 > 0)

    @property
    def least_piece(self) -> float:
        """Return the share of the largest piece of a lesion that its other pieces need."""
        return self.threshold.least_piece if self.threshold is not None else 0.0

    @property
    def _doubts(self) -> bool:
        """Tell whether anything but the size of a lesion counts."""
        return self.least_probability > 0 or self.least_white_matter > 0 or self.threshold is not None

    def apply(
        self, labels: npt.NDArray[np.uint8], probability: npt.NDArray[np.float32], voxel_ml: float = 0.001
    ) -> Applied:
        """Drop what does not keep the rule, in place, and say what that was.

        Args:
            labels: (D, H, W), C-contiguous.
            probability: Of a lesion, likewise; left as it is.
            voxel_ml: Volume of a voxel in millilitres.
        """
        if self.lesion is None or self.keeps_all:
            return Applied()
        threshold = 0.0
        if self.threshold is not None:
            threshold = self.threshold.at(np.count_nonzero(labels == self.lesion) * voxel_ml)
        lesions = voxels = 0
        if self._doubts:
            lesions, voxels = _C.drop_components(
                labels,
                probability,
                value=self.lesion,
                least=self.least_probability,
                around=self.white_matter,
                least_around=self.least_white_matter,
                least_voxel=threshold,
                least_piece=self.least_piece,
            )
        least_voxels = math.ceil(self.least_mm3 / (1000 * voxel_ml) - 1e-6)
        if least_voxels > 1:  # of what is left: a threshold parts lesions
            found = _C.drop_components(labels, probability, value=self.lesion, least=0.0, least_voxels=least_voxels)
            lesions, voxels = lesions + found[0], voxels + found[1]
        return Applied(threshold, lesions, voxels)


def _at_any_load(threshold: float, least_piece: float) -> LesionThreshold | None:
    level = _checked("lesion_threshold", threshold, 0.0)
    if level == 0:
        return None
    return LesionThreshold(small_ml=1, small=level, large_ml=2, large=level, least_piece=least_piece)


def _checked(name: str, value: float | None, stated: float, most: float = 1) -> float:
    if value is None:
        return stated
    if not 0 <= value <= most:
        fix = f"Pass 0 to keep all lesions, up to {most:g}, or None for what the bundle states."
        raise ConfigError(f"{name} is {value}.", fix)
    return value
