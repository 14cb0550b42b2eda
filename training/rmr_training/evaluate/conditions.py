"""Damage of known strength, done to both contrasts of a study before the network or a baseline sees it.

Each condition has three strengths in physical terms. The same seed, study, condition and contrast always give the same
damage, and a stronger noise or more damaged blocks contain the weaker: strengths differ in degree only. A voxel that is
exactly 0 was masked out after the scan, so it stays 0 in every condition.
"""

from __future__ import annotations

import zlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Generator, Tensor

from rmr_sdk.errors import ConfigError
from rmr_sdk.geometry import AxisMap, Grid
from rmr_sdk.intensity import IntensityMap
from rmr_sdk.resample import resample
from rmr_sdk.study import Study
from rmr_sdk.volume import Volume

from ..degradations import damage_spectrum, gaussian_blur
from .fusion_quality import bounding_box

CLEAN = "clean"


@dataclass(frozen=True, slots=True, eq=False)
class Scan:
    """One contrast as the conditions see it.

    Attributes:
        voxels: float32 (1, 1, D, H, W) in the network's orientation, in the contrast's own units.
        grid: Where they lie.
        unit: Intensity that the normalisation of the clean contrast maps to 1.
        foreground: bool (D, H, W), what that normalisation calls foreground.
        generator: Source of all randomness.
    """

    voxels: Tensor
    grid: Grid
    unit: float
    foreground: NDArray[np.bool_]
    generator: Generator


def _noise(scan: Scan, fraction: float) -> Tensor:
    return scan.voxels + fraction * scan.unit * torch.randn(scan.voxels.shape, generator=scan.generator)


def _blur(scan: Scan, sigma: float) -> Tensor:
    return _within_head(scan, lambda part: gaussian_blur(part, sigma))


def _fourier(scan: Scan, blocks: float) -> Tensor:
    return _within_head(scan, lambda part: damage_spectrum(part, scan.generator, int(blocks)))


def _contrast(scan: Scan, exponent: float) -> Tensor:
    # A power, not a line: it leaves 0 where it is, so that air and dark fluid do not turn grey.
    return scan.unit * (scan.voxels.clamp(min=0) / scan.unit) ** exponent


def _within_head(scan: Scan, change: Callable[[Tensor], Tensor]) -> Tensor:
    """Change the box around the foreground alone: air needs no time, and damage drawn at random shall hit the head."""
    box = (slice(None), slice(None), *bounding_box(scan.foreground))
    voxels = scan.voxels.clone()
    voxels[box] = change(scan.voxels[box])
    return voxels


def _thick(scan: Scan, thickness_mm: float) -> Tensor:
    spacing = scan.grid.spacing_mm
    thick = scan.grid.respaced((max(thickness_mm, spacing[0]), *spacing[1:]))
    slices = resample(scan.voxels[0, 0].numpy(), scan.grid, thick, "area")
    return torch.from_numpy(resample(slices, thick, scan.grid, "linear"))[None, None]


@dataclass(frozen=True, slots=True)
class Condition:
    """One kind of damage.

    Attributes:
        name: As on the command line.
        about: What is done; `{}` stands for the amount.
        amounts: Mild, middling and strong.
        damage: Takes a scan and an amount, gives voxels (1, 1, D, H, W).
    """

    name: str
    about: str
    amounts: tuple[float, ...]
    damage: Callable[[Scan, float], Tensor]

    def describe(self, strength: int) -> str:
        """Say what strength 1, 2 or 3 does."""
        return self.about.format(f"{self.amounts[strength - 1]:g}")


CONDITIONS: dict[str, Condition] = {
    condition.name: condition
    for condition in (
        Condition(
            "noise",
            "Gaussian noise, deviation {} of the intensity that normalisation maps to 1",
            (0.025, 0.05, 0.1),
            _noise,
        ),
        Condition("blur", "Gaussian blur in slices, deviation {} voxels", (0.5, 1.0, 2.0), _blur),
        Condition(
            "fourier",
            "{} blocks with smoothed amplitude and shuffled phase, sides up to 1/8 of the head",
            (4, 8, 16),
            _fourier,
        ),
        Condition(
            "contrast",
            "low contrast: intensities to the power of {}, which multiplies the logarithm of every ratio by it",
            (0.8, 0.6, 0.4),
            _contrast,
        ),
        Condition("thick", "slices of {} mm, averaged and interpolated back", (3.0, 4.0, 5.0), _thick),
    )
}
"""The kinds of damage by name; "clean" is none."""


def check_conditions(names: Sequence[str]) -> tuple[str, ...]:
    """Return condition names, "clean" first whether named or not: every drop is measured from it.

    Raises:
        ConfigError: One does not exist.
    """
    for name in names:
        if name != CLEAN and name not in CONDITIONS:
            raise ConfigError(
                f'there is no condition "{name}".',
                f"Choose from: {', '.join((CLEAN, *CONDITIONS))}; name the studies before --conditions.",
                condition=name,
            )
    return (CLEAN, *(name for name in CONDITIONS if name in names))


def damage_study(
    study: Study, axes: AxisMap, intensity: Mapping[str, IntensityMap], condition: str, strength: int, seed: str
) -> Study:
    """Damage contrasts of a study.

    Args:
        study: Contrasts on one grid.
        axes: From that grid to the network's orientation; slices are its first axis.
        intensity: The intensity map of each contrast to damage; other contrasts are passed on.
        condition: A name of `CONDITIONS`, or "clean", which returns the study itself.
        strength: 1, 2 or 3.
        seed: What the randomness follows from, beside the condition and the contrast.
    """
    if condition == CLEAN:
        return study
    kind = CONDITIONS[condition]
    volumes = dict(study.volumes)
    for contrast, line in intensity.items():
        original = np.ascontiguousarray(axes.apply(study[contrast].data), np.float32)
        scan = Scan(
            voxels=torch.from_numpy(original)[None, None],
            grid=axes.grid,
            unit=line.gain + line.zero,
            foreground=original > line.floor,
            generator=_generator(f"{seed}/{condition}/{contrast}"),
        )
        made = kind.damage(scan, kind.amounts[strength - 1])[0, 0].numpy()
        volumes[contrast] = _volume(axes, np.where(original == 0, np.float32(0), made))
    return Study(volumes, study.warnings)


def _volume(axes: AxisMap, voxels: NDArray[Any]) -> Volume:
    return Volume(axes.invert(voxels), axes.source.affine)


def _generator(seed: str) -> Generator:
    return torch.Generator().manual_seed(zlib.crc32(seed.encode()))
