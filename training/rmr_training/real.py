"""Real studies to train on: read onto the network's grid once, then cut into patches that are bent and worsened.

A study with a lesion mask teaches lesions only: of a voxel outside the mask it is known that it is no lesion, and of
air that it is background. A study without a mask serves the autoencoder.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, fields
from pathlib import Path

import msgspec
import numpy as np
import torch
from numpy.typing import NDArray
from torch import Generator, Tensor

from rmr_sdk.errors import ConfigError, GeometryError, InputError, StudyError
from rmr_sdk.geometry import AxisMap, Grid, reorient
from rmr_sdk.intensity import fit_normalisation
from rmr_sdk.io.nifti import read_volume
from rmr_sdk.manifest import Normalisation
from rmr_sdk.resample import image_mode, resample
from rmr_sdk.study import Study
from rmr_sdk.volume import to_kernel_dtype

from .checkpoint import NORMALISATION
from .implants import DARKEST_TISSUE, Implant, Tissue, add_look_alikes, find_tissue
from .losses import UNKNOWN
from .sampling import Draw, keyed_generator, sample_linear, sample_nearest, sampling_points
from .scanner import flatten_contrast, scan
from .synthesis import LESION, Sample

ORIENTATION = "SAR"
"""Axis codes of (D, H, W): axial slices first, as scanners and the method have them."""

SPACING_MM = (1.0, 1.0, 1.0)
_SPACING_TOLERANCE = 0.15


@dataclass(frozen=True, slots=True, eq=False)
class RealStudy:
    """A real study on the network's grid.

    Attributes:
        name: Name of its folder.
        images: float32 (2, D, H, W), T1 and FLAIR, normalised.
        labels: uint8 (D, H, W): `LESION`, 0 for air and `UNKNOWN` elsewhere; None without a lesion mask.
        lesions: int64 (n, 3), the voxels of its lesions.
        brain: int64 (n, 3), voxels of tissue, thinned out; patches are centred on them.
        tissue: What lesions are implanted with; None without a lesion mask.
    """

    name: str
    images: Tensor
    labels: Tensor | None
    lesions: NDArray[np.int64]
    brain: NDArray[np.int64]
    tissue: Tissue | None = None


def find_study_folders(folder: Path) -> list[Path]:
    """Find the studies below a folder: BIDS-like `sub-*/[ses-*/]anat`, or one folder a study.

    Raises:
        StudyError: There is none.
    """
    names = ("t1.nii.gz", "t1.nii", "*_T1w.nii.gz", "*_T1w.nii")
    found = sorted({file.parent for name in names for file in folder.rglob(name)})
    if not found:
        raise StudyError(
            f"no study below {folder.name}.", "Name a folder with t1.nii.gz and flair.nii.gz, or a BIDS tree."
        )
    return found


def name_studies(folders: Sequence[Path]) -> list[str]:
    """Return a name per study folder, all different: its own, with as many parents' as that takes.

    The `anat` folders of a BIDS-like tree are named with their subject, and their session where there is one.

    Raises:
        ConfigError: A study is given twice.
    """
    paths = [folder.resolve() for folder in folders]
    twice = [path.name for path, count in Counter(paths).items() if count > 1]
    if twice:
        raise ConfigError(f"study {twice[0]} is given more than once.", "Give each study once.", study=twice[0])
    return [_distinct_name(path, paths) for path in paths]


def _distinct_name(path: Path, others: Sequence[Path]) -> str:
    parts, depth = path.parts, 1
    if path.name == "anat":
        depth = 3 if path.parent.name.startswith("ses-") else 2
    while any(other != path and other.parts[-depth:] == parts[-depth:] for other in others):
        depth += 1
    return "/".join(parts[-depth:])


def load_real_study(folder: Path, labelled: bool) -> RealStudy:
    """Read a study onto the FLAIR's field of view at 1 mm, in `ORIENTATION`.

    Args:
        folder: Holds T1 and FLAIR as `Study.from_folder` finds them; its lesion mask is `lesion.nii.gz` or
            `*_desc-lesion_mask.nii.gz`.
        labelled: Whether the lesion mask is needed.

    Raises:
        InputError: A file is missing or unreadable; the study is named.
        GeometryError: The mask is not on the grid of the FLAIR.
    """
    try:
        study = Study.from_folder(folder)
        study.require(("T1w", "FLAIR"))
        axes = reorient(study["FLAIR"].grid, ORIENTATION)
        grid = _network_grid(axes.grid)
        images = np.stack([_on_grid(study, name, grid) for name in ("T1w", "FLAIR")])
        mask = _lesion_mask(folder, study["FLAIR"].grid, axes, grid) if labelled else None
    except InputError as error:
        raise type(error)(f"study {folder.name}: {error.problem}", error.fix, study=folder.name) from error
    foreground = np.asarray((images > 0).any(0))
    labels = None if mask is None else torch.from_numpy(np.where(mask, LESION, np.where(foreground, UNKNOWN, 0)))
    places = np.argwhere(np.asarray((images > DARKEST_TISSUE).any(0))[::4, ::4, ::4]) * 4
    return RealStudy(
        folder.name,
        torch.from_numpy(images),
        None if labels is None else labels.to(torch.uint8),
        np.argwhere(mask) if mask is not None else np.empty((0, 3), np.int64),
        places,
        None if mask is None else find_tissue(images, mask),
    )


def _network_grid(native: Grid) -> Grid:
    off = [
        abs(own / wanted - 1) > _SPACING_TOLERANCE for own, wanted in zip(native.spacing_mm, SPACING_MM, strict=True)
    ]
    return native.respaced(SPACING_MM) if any(off) else native


def _on_grid(study: Study, contrast: str, grid: Grid) -> NDArray[np.float32]:
    volume = study[contrast]
    own = reorient(volume.grid, ORIENTATION)
    voxels = own.apply(to_kernel_dtype(volume.data))
    if not own.grid.matches(grid):
        voxels = resample(voxels, own.grid, grid, image_mode(own.grid, grid))
    normalisation = msgspec.convert(NORMALISATION, Normalisation)
    return np.ascontiguousarray(fit_normalisation(voxels, normalisation).apply(voxels), np.float32)


def _lesion_mask(folder: Path, flair: Grid, axes: AxisMap, grid: Grid) -> NDArray[np.bool_]:
    files = [*folder.glob("lesion.nii*"), *folder.glob("*_desc-lesion_mask.nii*")]
    if not files:
        raise StudyError("it has no lesion mask.", "Add lesion.nii.gz, or list it as unlabelled.")
    mask, _ = read_volume(files[0])
    if not mask.grid.matches(flair):
        raise GeometryError("its lesion mask lies on another grid than the FLAIR.", "Resample the mask first.")
    turned = axes.apply(to_kernel_dtype(mask.data))
    if not axes.grid.matches(grid):
        turned = resample(turned, axes.grid, grid, "nearest")
    return np.ascontiguousarray(turned) > 0


@dataclass(frozen=True, slots=True)
class RealRanges:
    """How far patches of real studies vary.

    Attributes:
        lesion_centred: Probability that a patch is centred near a lesion.
        rotation: Largest rotation per axis, in radians.
        scale: Deviation of the scale and shear terms.
        elastic: Deviation of the elastic displacement, in voxels.
        thick_slices: Probability that one axis has thick slices.
        bias: Largest deviation of the logarithm of the bias field.
        noise: Largest deviation of the noise.
        gain: Largest change of each contrast's scale.
        low_contrast: Probability that contrast is lost.
        look_alikes: Probability that grey matter, and that rims of the fluid, are brightened; needs a lesion mask.
    """

    lesion_centred: float = 0.5
    rotation: float = 0.2
    scale: float = 0.06
    elastic: float = 1.5
    thick_slices: float = 0.2
    bias: float = 0.15
    noise: float = 0.03
    gain: float = 0.12
    low_contrast: float = 0.1
    look_alikes: float = 0.4


def cut_patch(
    study: RealStudy, side: int, generator: Generator, ranges: RealRanges | None = None, implant: Implant | None = None
) -> Sample:
    """Cut one patch out of a study, bent and worsened at random; without a mask all labels are `UNKNOWN`.

    Args:
        study: The study.
        side: Side of the patch in voxels.
        generator: Source of all randomness.
        ranges: How far patches vary.
        implant: Lesions to put into its white matter; needs a study with a lesion mask.
    """
    ranges = ranges or RealRanges()
    draw = Draw(generator)
    near = study.lesions
    if implant is not None and study.tissue is not None and draw.chance(0.5):
        near = implant.places(study.tissue)
    points = sampling_points(
        draw, _centre(draw, study, near, side, ranges), side, ranges.rotation, ranges.scale, ranges.elastic
    )
    images = sample_linear(study.images, points)
    labels = None if study.labels is None else sample_nearest(study.labels, points)
    if study.tissue is not None:
        images = add_look_alikes(draw, study.tissue, points, images, ranges.look_alikes)
    if implant is not None and study.tissue is not None and labels is not None:
        images, labels = implant.put(draw, study.tissue, points, images, labels)
    axis = draw.integer(0, 2) if draw.chance(ranges.thick_slices) else None
    worsened = []
    for image in images:
        made = scan(draw, image[None, None], axis, ranges.bias, ranges.noise, gamma=0.12)
        made = made * (image > 0) if draw.chance(0.7) else made
        worsened.append((made[0] * draw.uniform(1 - ranges.gain, 1 + ranges.gain)).clamp(0, 1.5))
    if labels is None:
        labels = torch.full([side] * 3, UNKNOWN, dtype=torch.uint8)
    t1w, flair = flatten_contrast(draw, worsened, ranges.low_contrast)
    return Sample(t1w, flair, labels)


def _centre(draw: Draw, study: RealStudy, lesions: NDArray[np.int64], side: int, ranges: RealRanges) -> Tensor:
    places = study.brain
    if len(lesions) and draw.chance(ranges.lesion_centred):
        places = lesions
    voxel = torch.from_numpy(places[draw.integer(0, len(places) - 1)]).float()
    reach = side // 4
    return voxel + torch.tensor([draw.integer(-reach, reach) for _ in range(3)]).float()


def plain_patches(study: RealStudy, side: int, count: int) -> list[tuple[Tensor, Tensor, Tensor]]:
    """Cut patches that are neither bent nor worsened, for the eye; labels that are not known show as 0."""
    still = RealRanges(*[0.0] * len(fields(RealRanges)))
    made = [cut_patch(study, side, keyed_generator(seed), still) for seed in range(count)]
    return [(m.t1w, m.flair, torch.where(m.labels == UNKNOWN, 0, m.labels)) for m in made]
