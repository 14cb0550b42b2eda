"""Studies to evaluate on: contrasts on one grid, and what is known to be true about them.

A study with ground truth stays on its own grid, so that figures are those of the files; contrasts and truth must share
it. A study without may be as the scanner wrote it: it is brought onto the network's grid by the runtime's `prepare`.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from rmr_sdk.errors import FormatError, GeometryError, InputError, StudyError
from rmr_sdk.geometry import AxisMap, reorient
from rmr_sdk.intensity import IntensityMap
from rmr_sdk.io.nifti import read_volume
from rmr_sdk.manifest import Manifest
from rmr_sdk.preprocess import Prepared, prepare
from rmr_sdk.study import Study
from rmr_sdk.volume import Volume

FloatArray = NDArray[np.float32]
Mask = NDArray[np.bool_]

LABEL_FILES = ("labels", "*_dseg")
"""Names of files that label all classes."""

LESION_FILES = ("lesion", "*_desc-lesion_mask", "*_label-lesion_mask")
"""Names of files that mark lesions, and say nothing of other classes."""


@dataclass(frozen=True, slots=True, eq=False)
class Case:
    """One study, ready to be damaged, fused and compared.

    Attributes:
        name: Name of its folder; with its parent's where two folders share a name.
        study: The contrasts on one grid, intensities as given.
        axes: From that grid to the network's orientation (D, H, W).
        intensity: Contrast -> intensity map of the clean study.
        truth: Class -> mask (D, H, W) in the network's orientation; empty without ground truth.
        notes: What the reader of the figures should know.
    """

    name: str
    study: Study
    axes: AxisMap
    intensity: dict[str, IntensityMap]
    truth: dict[str, Mask]
    notes: tuple[str, ...] = ()

    def turn(self, voxels: NDArray[Any]) -> NDArray[Any]:
        """Return voxels of the study's grid in the network's orientation, C-contiguous."""
        return np.ascontiguousarray(self.axes.apply(voxels))

    def normalise(self, voxels: NDArray[Any], contrast: str) -> FloatArray:
        """Return intensities of a contrast as the network would see them, in the network's orientation."""
        return np.ascontiguousarray(self.intensity[contrast].apply(self.axes.apply(voxels)))

    def recover(self, fused: NDArray[Any], contrast: str) -> FloatArray:
        """Return what a fused image on the intensity scale of a contrast is in network values, likewise."""
        return np.ascontiguousarray(self.intensity[contrast].recover(self.axes.apply(fused)))

    def head(self) -> Mask:
        """Return the voxels (D, H, W) in which any contrast is foreground: the brain, where the study is stripped."""
        return np.logical_or.reduce([self.turn(self.study[name].data) > m.floor for name, m in self.intensity.items()])


def load_case(folder: Path, manifest: Manifest, name: str | None = None) -> Case:
    """Read a study and its ground truth, if there is one.

    Ground truth is `labels.nii.gz` or `*_dseg.nii.gz` with the classes of the manifest, otherwise `lesion.nii.gz`,
    `*_desc-lesion_mask.nii.gz` or `*_label-lesion_mask.nii.gz`, beside the contrasts. Classes that the manifest does
    not know cannot be compared: then the case has no truth, and a note.

    Args:
        folder: As for `Study.from_folder`.
        manifest: Says contrasts, orientation, spacing, normalisation and classes.
        name: What to call the case; by default the folder's name.

    Raises:
        InputError: A file is missing or unreadable, or its contrast cannot be used; the study is named.
        GeometryError: Contrasts and truth are not on one grid.
        FormatError: The truth has labels outside the class list.
    """
    name = name or folder.resolve().name
    with _naming(name):
        study = Study.from_folder(folder)
        prepared = prepare(study, manifest)
        truth, notes = _read_truth(folder, study, manifest)
        contrasts = {contrast: study[contrast] for contrast in manifest.contrasts}
        axes = prepared.axes
        if truth:
            masks = {key: np.ascontiguousarray(axes.apply(mask)) for key, mask in truth.items()}
            return Case(name, Study(contrasts), axes, dict(prepared.intensity), masks, notes)
        return _on_common_grid(name, prepared, manifest, notes)


def _on_common_grid(name: str, prepared: Prepared, manifest: Manifest, notes: tuple[str, ...]) -> Case:
    """Make a case of what the runtime would feed to the network, which may be another grid than that of the files."""
    volumes = {contrast: Volume(array, prepared.grid.affine) for contrast, array in prepared.arrays.items()}
    # What `prepare` did not resample is a view in another orientation, which is no news.
    moved = [action for action in prepared.actions if not action.endswith("no voxel resampled")]
    axes = reorient(prepared.grid, manifest.orientation)
    return Case(name, Study(volumes), axes, dict(prepared.intensity), {}, (*notes, *moved))


def _read_truth(folder: Path, study: Study, manifest: Manifest) -> tuple[dict[str, NDArray[np.bool_]], tuple[str, ...]]:
    """Return the masks of the classes that are known, on the study's grid, and notes about what is not."""
    labels, lesions = _find(folder, LABEL_FILES), _find(folder, LESION_FILES)
    file = labels or lesions
    if file is None:
        return {}, ("no ground truth beside it: fusion figures only",)
    if manifest.classes is None or (labels is None and manifest.lesion_class is None):
        return {}, ("the network does not segment what is marked: fusion figures only",)
    volume, _ = read_volume(file, label="the ground truth of the folder")
    for other in (*(study[contrast] for contrast in manifest.contrasts), volume):
        if not other.grid.matches(study[manifest.reference].grid):
            raise GeometryError(
                "contrasts and ground truth lie on different grids.", "Resample them to one grid first."
            )
    if labels is None:
        return {str(manifest.lesion_class): np.asarray(volume.data) > 0}, ()
    return _split_labels(volume, manifest.classes), ()


def _split_labels(volume: Volume, classes: tuple[str, ...]) -> dict[str, NDArray[np.bool_]]:
    found = np.unique(volume.data)
    if found[0] < 0 or found[-1] >= len(classes) or (found != np.round(found)).any():
        raise FormatError(
            f"its labels run from {found[0]:g} to {found[-1]:g}; the classes are 0 to {len(classes) - 1}.",
            f"Map them to: {', '.join(classes)}.",
        )
    return {name: np.asarray(volume.data) == index for index, name in enumerate(classes) if index}


def _find(folder: Path, names: tuple[str, ...]) -> Path | None:
    """Return the ground truth of one kind beside the contrasts."""
    files = [
        file
        for place in (folder, folder / "anat")
        for name in names
        for ending in (".nii", ".nii.gz")
        for file in sorted(place.glob(name + ending))
    ]
    if len(files) > 1:
        raise StudyError("the folder holds several files that could be its ground truth.", "Keep one of them.")
    return files[0] if files else None


@contextmanager
def _naming(study: str) -> Iterator[None]:
    """Say which study an error is about."""
    try:
        yield
    except InputError as error:
        raise type(error)(f"study {study}: {error.problem}", error.fix, **{**error.facts, "study": study}) from error
