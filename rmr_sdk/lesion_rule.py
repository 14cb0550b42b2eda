"""Which connected lesions are kept: those that the network is sure of, and that lie in white matter.

The bundle states both levels, and a caller may take others. What is dropped gets the label that most voxels around it
have, on the common grid: which lesions stay must not depend on the grid of the reference.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from rmr_sdk import _C
from rmr_sdk.errors import ConfigError
from rmr_sdk.manifest import WHITE_MATTER, Manifest


@dataclass(frozen=True, slots=True)
class LesionRule:
    """What a connected lesion (26 neighbours) needs to be kept.

    Attributes:
        lesion: The label of lesions; None where there is none, and nothing is dropped.
        white_matter: The label of white matter.
        least_probability: Least mean probability; at 0 every lesion has it.
        least_white_matter: Least share of white matter among the labels that its voxels touch; at 0 likewise.
    """

    lesion: int | None
    white_matter: int = 0
    least_probability: float = 0.0
    least_white_matter: float = 0.0

    @classmethod
    def of(
        cls, manifest: Manifest, least_probability: float | None = None, least_white_matter: float | None = None
    ) -> LesionRule:
        """Return the rule of a bundle, with the caller's levels where they are not None.

        Raises:
            ConfigError: A level is not within 0 to 1, or white matter is asked for and the bundle has no such class.
        """
        levels = [
            _checked("least_lesion_probability", least_probability, manifest.least_lesion_probability),
            _checked("least_white_matter", least_white_matter, manifest.least_white_matter),
        ]
        classes = manifest.classes or ()
        if levels[1] > 0 and WHITE_MATTER not in classes:
            raise ConfigError(
                f'least_white_matter is {levels[1]}, and {manifest.name} has no class "{WHITE_MATTER}".',
                "Leave it out.",
            )
        lesion = None if manifest.lesion_class is None else classes.index(manifest.lesion_class)
        return cls(lesion, classes.index(WHITE_MATTER) if WHITE_MATTER in classes else 0, *levels)

    @property
    def keeps_all(self) -> bool:
        """Tell whether nothing can be dropped."""
        return self.lesion is None or not (self.least_probability > 0 or self.least_white_matter > 0)

    def apply(self, labels: npt.NDArray[np.uint8], probability: npt.NDArray[np.float32]) -> int:
        """Drop what does not keep the rule, in place, and return how many lesions that were.

        Args:
            labels: (D, H, W), C-contiguous.
            probability: Of a lesion, likewise; left as it is.
        """
        if self.lesion is None or self.keeps_all:
            return 0
        return _C.drop_components(
            labels,
            probability,
            value=self.lesion,
            least=self.least_probability,
            around=self.white_matter,
            least_around=self.least_white_matter,
        )


def _checked(name: str, value: float | None, stated: float) -> float:
    if value is None:
        return stated
    if not 0 <= value <= 1:
        fix = "Pass 0 to keep all lesions, up to 1, or None for what the bundle states."
        raise ConfigError(f"{name} is {value}.", fix)
    return value
