"""Where training samples come from: label maps on disk, split by lesion donor, and an endless stream of patches."""

from __future__ import annotations

import re
import zlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import nibabel as nib
import numpy as np
import torch
from nibabel.affines import voxel_sizes
from nibabel.filebasedimages import ImageFileError
from nibabel.spatialimages import HeaderDataError
from numpy.typing import NDArray
from torch import Generator, Tensor
from torch.utils.data import IterableDataset

from rmr_sdk.errors import FormatError, StudyError

from .healing import heal
from .implants import Implant, brain_box
from .models import CLASSES
from .real import ORIENTATION, RealRanges, RealStudy, cut_patch
from .sampling import keyed_generator
from .synthesis import LESION, Ranges, Sample, synthesise

__all__ = ["ORIENTATION", "LabelMap", "Patches", "SyntheticPatches", "load_label_maps", "split_by_donor"]

SPACING_TOLERANCE_MM = 0.01
"""How far the voxels of a label map may be from 1 mm, as headers are rounded."""


@dataclass(frozen=True, slots=True, eq=False)
class LabelMap:
    """One anatomy to synthesise from.

    Attributes:
        name: File name without its ending.
        donor: Number of the patient whose lesions it shows; maps that share it belong on one side of a split.
        weight: How often it is drawn, relative to the others.
        labels: uint8 (D, H, W) in `ORIENTATION`.
        lesions: int64 (n, 3), the voxels of its lesions.
        box: float32 (2, 3), first voxel and extent of the brain.
    """

    name: str
    donor: str
    weight: float
    labels: NDArray[np.uint8]
    lesions: NDArray[np.int64]
    box: Tensor = field(init=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "box", brain_box(self.labels > 0))


def load_label_maps(folder: Path) -> list[LabelMap]:
    """Read all label maps of a folder.

    Raises:
        StudyError: There is none.
        FormatError: A map is damaged, not 3-D, not of voxels of 1 mm, or holds labels outside the class list.
    """
    files = sorted(folder.glob("*.nii.gz"))
    if not files:
        raise StudyError(f"no label map (*.nii.gz) in {folder}.", "Name the folder that holds them.")
    return [_load_label_map(file) for file in files]


def _load_label_map(file: Path) -> LabelMap:
    try:
        image = nib.load(file)
        stored = np.asanyarray(image.dataobj)
    except (OSError, EOFError, ValueError, zlib.error, ImageFileError, HeaderDataError) as error:
        raise FormatError(f"{file.name} is damaged or no NIfTI file: {error}.", "Copy it again.") from error
    spacing_mm = voxel_sizes(image.affine)
    if stored.ndim != 3 or np.abs(spacing_mm - 1).max() > SPACING_TOLERANCE_MM:
        voxels = " x ".join(f"{n:g}" for n in spacing_mm)
        raise FormatError(
            f"{file.name} has {stored.ndim} axes and voxels of {voxels} mm.",
            "Make it a 3-D label map of voxels of 1 mm.",
        )
    canonical = nib.as_closest_canonical(nib.Nifti1Image(stored, image.affine, dtype=stored.dtype))
    labels = np.ascontiguousarray(np.asanyarray(canonical.dataobj).transpose(2, 1, 0))
    highest = int(labels.max(initial=0))
    if labels.dtype.kind not in "iu" or highest >= len(CLASSES) or labels.min(initial=0) < 0:
        raise FormatError(
            f"{file.name} has labels up to {highest} of type {labels.dtype}; the classes are 0 to {len(CLASSES) - 1}.",
            "Map its labels to the class list first.",
        )
    name = file.name.removesuffix(".nii.gz")
    donor = re.findall(r"\d+", name)[-1:] or [name]
    # A real anatomy counts more than one more set of lesions on the template's.
    weight = 1.0 if name.startswith("mni") else 5.0
    return LabelMap(name, donor[0], weight, labels.astype(np.uint8), np.argwhere(labels == LESION))


def split_by_donor(maps: Sequence[LabelMap], held_out: Sequence[str]) -> tuple[list[LabelMap], list[LabelMap]]:
    """Split maps into those to train on and those whose lesion donor is held out."""
    train = [m for m in maps if m.donor not in held_out]
    return train, [m for m in maps if m.donor in held_out]


class Patches(IterableDataset[tuple[Tensor, Tensor, Tensor, str]]):
    """An endless stream of patches (t1w, flair, labels, source), synthetic and real.

    Sample i of a seed is the same however many workers share the stream, so a run that resumes at step n goes on
    exactly where it stopped.

    Args:
        maps: Label maps to synthesise from.
        side: Side of a patch in voxels.
        seed: Seed of the stream.
        first: Index of the first sample.
        ranges: How far synthetic samples vary.
        real: Real studies to cut patches from.
        real_share: Probability that a sample is real; without real studies all are synthetic.
        whole_heads: Real heads of which only lesions that are none are known.
        whole_heads_share: Probability that a real sample is of such a head.
        batch: Samples of a step in this process.
        stride: Samples of a step in all processes; each process takes `batch` of them, beginning at `first`.
    """

    def __init__(
        self,
        maps: Sequence[LabelMap],
        side: int,
        seed: int,
        first: int = 0,
        ranges: Ranges | None = None,
        real: Sequence[RealStudy] = (),
        real_share: float = 0.0,
        batch: int = 1,
        stride: int | None = None,
        whole_heads: Sequence[RealStudy] = (),
        whole_heads_share: float = 0.0,
    ) -> None:
        self.maps, self.side, self.seed, self.first = list(maps), side, seed, first
        self.ranges = ranges or Ranges()
        self.real, self.whole_heads = list(real), list(whole_heads)
        self.healed = [heal(study) for study in real] if self.ranges.healed else []
        self.real_share = real_share if real or whole_heads else 0.0
        self.whole_heads_share = 0.0 if not whole_heads else whole_heads_share if real else 1.0
        self.batch, self.stride = batch, stride or batch
        self.weights = torch.tensor([m.weight for m in maps], dtype=torch.float64)

    def sample(self, index: int) -> tuple[Tensor, Tensor, Tensor]:
        """Make sample number `index`: contrasts (1, D, H, W) float32 and labels (D, H, W) uint8."""
        made, _ = self.draw(index)
        return made.t1w, made.flair, made.labels

    def draw(self, index: int) -> tuple[Sample, str]:
        """Make sample number `index`, and name the label map or the study it comes from."""
        generator = keyed_generator(self.seed, index)
        if self.real_share and float(torch.rand((), generator=generator)) < self.real_share:
            chosen_from = self.real
            if self.whole_heads_share and float(torch.rand((), generator=generator)) < self.whole_heads_share:
                chosen_from = self.whole_heads
            elif self.healed and float(torch.rand((), generator=generator)) < self.ranges.healed:
                chosen_from = self.healed
            study = chosen_from[int(torch.randint(len(chosen_from), (), generator=generator))]
            return self._cut(study, generator), study.name
        chosen = self._choose(generator)
        return synthesise(chosen.labels, chosen.lesions, self.side, generator, self.ranges), chosen.name

    def _choose(self, generator: Generator) -> LabelMap:
        return self.maps[int(torch.multinomial(self.weights, 1, generator=generator))]

    def _cut(self, study: RealStudy, generator: Generator) -> Sample:
        ranges, implant = self.ranges, None
        if study.tissue is not None and float(torch.rand((), generator=generator)) < ranges.implants:
            chosen = self._choose(generator)
            implant = Implant(chosen.labels, chosen.lesions, chosen.box, ranges)
        varied = RealRanges(
            thick_slices=ranges.real_thick_slices, low_contrast=ranges.low_contrast, look_alikes=ranges.look_alikes
        )
        return cut_patch(study, self.side, generator, varied, implant)

    def __iter__(self) -> Iterator[tuple[Tensor, Tensor, Tensor, str]]:
        """Yield whole batches in turn to each worker, as a `DataLoader` of batch size `batch` collects them."""
        worker = torch.utils.data.get_worker_info()
        step, steps = (0, 1) if worker is None else (worker.id, worker.num_workers)
        while True:
            for item in range(self.batch):
                made, source = self.draw(self.first + step * self.stride + item)
                yield made.t1w, made.flair, made.labels, source
            step += steps


def SyntheticPatches(  # noqa: N802 - reads as the class it makes
    maps: Sequence[LabelMap], side: int, seed: int, first: int = 0, ranges: Ranges | None = None
) -> Patches:
    """Make a stream of synthetic patches alone."""
    return Patches(maps, side, seed, first, ranges)
