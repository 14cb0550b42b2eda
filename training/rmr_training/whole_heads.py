"""Real heads that were not stripped and have no lesion mask: what can be learnt of them is where no lesion is.

The weights that a run starts from label the study. Two rules then say which of the lesions that they found are none:
what lies outside the brain, by what hangs together or by the SDK's atlas, and what hardly touches white matter, such as
bright cortex or plexus. They and all tissue without a lesion are known to be no lesion. Of lesions that pass both
rules, and of what is around them, nothing is known: they teach nothing.

The least share of white matter is from the label maps of real anatomies (`patientNN`): of their lesions less than
`LEAST_WHITE` touches white matter in 5 % by number and in 1 % by volume.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from scipy import ndimage

from rmr_sdk.atlas import BRAIN
from rmr_sdk.errors import FormatError, InputError
from rmr_sdk.io.files import atomic_file, make_folder
from rmr_sdk.io.nifti import read_volume, write_volume
from rmr_sdk.measure import place_atlas
from rmr_sdk.preprocess import prepare
from rmr_sdk.study import Study
from rmr_sdk.volume import Volume

from .checkpoint import NORMALISATION
from .evaluate.subjects import infer_network, network_manifest
from .implants import DARKEST_TISSUE
from .losses import IGNORED, UNKNOWN
from .models import RmrFusion
from .real import RealStudy
from .synthesis import BACKGROUND, GREY, LESION, WHITE

NEAR_MM = 3.0
"""A lesion this near the brain counts as inside: the brain that labels give is rough at its rim."""

CUT_MM = 2.0
"""Half the thickness of the thickest bridge between brain and other tissue."""

LEAST_WHITE = 0.3
"""Least share of white matter among the voxels around a lesion."""

SUSPECT = 253
"""In a file of `load_whole_head`: no lesion, although the weights called it one. Elsewhere it is `UNKNOWN`."""

GRID_TOLERANCE_MM = 1e-3
"""How far affines may differ: a header keeps them in single precision."""

_AROUND = np.ones((3, 3, 3))

Mask = NDArray[np.bool_]
Labels = NDArray[np.uint8]


def find_brain(tissue: Mask, spacing_mm: Sequence[float]) -> Mask:
    """Return the largest piece (6 neighbours) of a mask (D, H, W) after bridges thinner than 2 * `CUT_MM` are cut."""
    depth_mm = ndimage.distance_transform_edt(np.pad(tissue, 1), spacing_mm)[1:-1, 1:-1, 1:-1]
    ids, count = ndimage.label(depth_mm > CUT_MM)
    if not count:
        return np.zeros_like(tissue)
    core = ids == 1 + int(np.argmax(np.bincount(ids.ravel())[1:]))
    brain: Mask = tissue & (ndimage.distance_transform_edt(~core, spacing_mm) <= CUT_MM)
    return brain


def doubt_lesions(labels: Labels, spacing_mm: Sequence[float], within: Mask | None = None) -> Mask:
    """Mark the lesions of a label map (D, H, W) that the rules say are none.

    Args:
        labels: Classes as in `synthesis`.
        spacing_mm: Of its voxels.
        within: Where the atlas has brain: more than half of a lesion lies there. None where the atlas does not fit.
    """
    ids, count = ndimage.label(labels == LESION, _AROUND)
    if not count:
        return np.zeros(labels.shape, bool)
    brain = find_brain((labels == GREY) | (labels >= WHITE), spacing_mm)
    far_mm = ndimage.distance_transform_edt(~brain, spacing_mm) if brain.any() else np.full(labels.shape, np.inf)
    doubted = np.asarray(ndimage.minimum(far_mm, ids, range(1, count + 1))) > NEAR_MM
    if within is not None:
        doubted |= np.asarray(ndimage.mean(within, ids, range(1, count + 1))) < 0.5
    for number, box in enumerate(ndimage.find_objects(ids)):
        wide = tuple(slice(max(0, side.start - 1), side.stop + 1) for side in box)
        own = ids[wide] == number + 1
        around = labels[wide][ndimage.binary_dilation(own, _AROUND) & ~own]
        doubted[number] |= (around == WHITE).sum() < LEAST_WHITE * around.size
    return np.isin(ids, 1 + np.flatnonzero(doubted))


def judge(labels: Labels, foreground: Mask, spacing_mm: Sequence[float], within: Mask | None = None) -> Labels:
    """Say what is known of each voxel: 0 for air, `UNKNOWN`, `SUSPECT` or `IGNORED`.

    Args:
        labels: What a network made of the study, (D, H, W), classes as in `synthesis`.
        foreground: Where a contrast is not air.
        spacing_mm: Of the voxels.
        within: Where the atlas has brain; None where it does not fit.
    """
    doubted = doubt_lesions(labels, spacing_mm, within)
    believed = (labels == LESION) & ~doubted
    known = np.where(foreground, UNKNOWN, BACKGROUND).astype(np.uint8)
    known[ndimage.binary_dilation(believed, _AROUND, iterations=2) & foreground] = IGNORED
    known[doubted & foreground] = SUSPECT
    return known


def weights_file(file: Path) -> Path:
    """Return where the SHA-256 of the weights that labelled a head is kept: `NAME.sha256` beside `NAME.nii.gz`."""
    return file.with_name(f"{file.name.removesuffix('.nii.gz')}.sha256")


def is_labelled(file: Path, weights: str | None) -> bool:
    """Tell whether a file keeps what weights, given by their SHA-256, know of a head; None stands for any weights."""
    if weights is None or not file.exists():
        return file.exists()
    try:
        return weights_file(file).read_text().strip() == weights
    except FileNotFoundError:
        return False


def _keep(file: Path, known: Volume, weights: str | None) -> None:
    """Write what is known of a head, then of which weights it is: cut off between the two, it is of none."""
    note = weights_file(file)
    make_folder(file.parent)
    note.unlink(missing_ok=True)
    write_volume(file, known)
    if weights is not None:
        with atomic_file(note) as handle:
            handle.write(weights.encode())


def load_whole_head(folder: Path, network: RmrFusion, file: Path, weights: str | None = None) -> RealStudy:
    """Read a study as the runtime does, and what is known of it, from `file` or else from a network.

    Args:
        folder: Holds T1 and FLAIR as `Study.from_folder` finds them.
        network: Labels the study if `file` does not exist or is of other weights.
        file: NIfTI file that keeps what is known, written atomically.
        weights: SHA-256 of the file that the network is from; it is kept beside `file` as `weights_file` names it.
            None takes a file of any weights.

    Raises:
        InputError: The study is missing or cannot be used; it is named.
        FormatError: `file` is of another grid.
    """
    manifest = network_manifest(network.preset, NORMALISATION)
    try:
        prepared = prepare(Study.from_folder(folder), manifest)
    except InputError as error:
        raise type(error)(f"study {folder.name}: {error.problem}", error.fix, study=folder.name) from error
    images = np.stack([prepared.intensity[name].apply(prepared.arrays[name]) for name in manifest.contrasts])
    images = np.ascontiguousarray(images, np.float32)
    if is_labelled(file, weights):
        kept = read_volume(file)[0]
        known, affine = np.asarray(kept.data, np.uint8), kept.affine
    else:
        found, grid = infer_network(network, prepared, manifest).labels, prepared.grid
        assert found is not None, "only networks with a head learn where lesions are not"
        placement = place_atlas(Volume(found, grid.affine), manifest)
        fits = placement is not None and placement.fits
        within = (placement.zones(grid) & BRAIN) > 0 if placement is not None and fits else None
        known = judge(found, np.asarray((images > 0).any(0)), grid.spacing_mm, within)
        affine = grid.affine
        _keep(file, Volume(known, affine), weights)
    if known.shape != images.shape[1:]:
        raise FormatError(
            f"{file.name} is {known.shape}, the study {folder.name} {images.shape[1:]}.", "Remove it: it is made anew."
        )
    if not np.allclose(affine, prepared.grid.affine, atol=GRID_TOLERANCE_MM):
        raise FormatError(f"{file.name} lies elsewhere than the study {folder.name}.", "Remove it: it is made anew.")
    places = np.argwhere(np.asarray((images > DARKEST_TISSUE).any(0))[::4, ::4, ::4]) * 4
    labels = np.where(known == SUSPECT, UNKNOWN, known).astype(np.uint8)
    return RealStudy(
        folder.name, torch.from_numpy(images), torch.from_numpy(labels), np.argwhere(known == SUSPECT), places
    )
