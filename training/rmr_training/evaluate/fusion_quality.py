"""Figures of a fused image beside both of its inputs, over the head and nothing else.

Which voxels: the *mask* holds every voxel of the clean study in which either contrast is foreground by the network's
own normalisation (the brain where the study is stripped, otherwise the head); the *core* is the mask without its
outermost voxels, where a stripped image has an edge that no anatomy has. Histograms, SSIM and SCD look at the mask,
edges and local features at the core, VIF at the box around the mask. Intensities are the network's: 1 is the
percentile that the normalisation maps there; everything is clipped to [0, high] first.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass, fields

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from .edges import average_gradient, edge_preservation, spatial_frequency
from .features import feature_mutual_information
from .fidelity import mean_ssim, sum_of_difference_correlations, visual_information_fidelity
from .information import entropy, mutual_information, quantise

FloatArray = NDArray[np.float32]
Mask = NDArray[np.bool_]
Box = tuple[slice, slice, slice]

MARGIN = 8
"""Voxels of air kept around the mask where there are any, so that the largest window can be centred on its rim."""


@dataclass(frozen=True, slots=True)
class FusionFigures:
    """How well an image unites two others. Higher is better for all but the last three, which describe the image.

    Figures that compare with one input at a time are given for each, and as the mean of both; where a paper prints
    the sum, it is twice the mean.

    Attributes:
        ssim: Structural similarity, at most 1.
        ssim_t1w: To the T1.
        ssim_flair: To the FLAIR.
        mi: Mutual information in bits.
        mi_t1w: With the T1.
        mi_flair: With the FLAIR.
        nmi: Normalised mutual information, 0 to 1.
        fmi: Feature mutual information of gradients in slices, 0 to 1.
        qabf: Q^AB/F, edges of both inputs that are kept, 0 to 0.975.
        vif: Visual information fidelity.
        vif_t1w: Of the T1.
        vif_flair: Of the FLAIR.
        scd: Sum of the correlations of differences, -2 to 2.
        entropy: Of the fused image, in bits.
        spatial_frequency: Of the fused image, in units of the normalisation.
        average_gradient: Of the fused image, likewise.
    """

    ssim: float
    ssim_t1w: float
    ssim_flair: float
    mi: float
    mi_t1w: float
    mi_flair: float
    nmi: float
    fmi: float
    qabf: float
    vif: float
    vif_t1w: float
    vif_flair: float
    scd: float
    entropy: float
    spatial_frequency: float
    average_gradient: float

    def to_row(self) -> dict[str, float]:
        """Return the figures by name."""
        return asdict(self)


class FusionReference:
    """Two inputs that fused images are compared with, cut to the box around the head once.

    Args:
        t1w: Network intensities (D, H, W).
        flair: Likewise.
        mask: Voxels of the head.
        high: Greatest intensity that the network sees; the data range of all figures.
    """

    def __init__(self, t1w: FloatArray, flair: FloatArray, mask: Mask, high: float) -> None:
        self.high = high
        self.box = bounding_box(mask, MARGIN)
        self.t1w, self.flair = self._cut(t1w), self._cut(flair)
        self.mask = np.ascontiguousarray(mask[self.box])
        self.core = ndimage.binary_erosion(self.mask, np.ones((3, 3, 3), bool))
        self._levels = {name: quantise(image[self.mask], high) for name, image in self._inputs.items()}

    @property
    def _inputs(self) -> dict[str, FloatArray]:
        return {"t1w": self.t1w, "flair": self.flair}

    def _cut(self, image: FloatArray) -> FloatArray:
        """Return what of a volume the figures look at: its box, clipped to the data range."""
        return np.clip(image[self.box], 0, np.float32(self.high), dtype=np.float32)

    def assess(self, fused: FloatArray) -> FusionFigures:
        """Return the figures of a fused volume (D, H, W) in network intensities; of an empty mask all are NaN."""
        if not self.mask.any():
            return FusionFigures(*[float("nan")] * len(fields(FusionFigures)))
        image = self._cut(fused)
        levels = quantise(image[self.mask], self.high)
        ssim = {name: mean_ssim(each, image, self.mask, self.high) for name, each in self._inputs.items()}
        vif = {name: visual_information_fidelity(each, image, self.high) for name, each in self._inputs.items()}
        fmi = [feature_mutual_information(each, image, self.core) for each in self._inputs.values()]
        shared = {name: mutual_information(each, levels) for name, each in self._levels.items()}
        return FusionFigures(
            ssim=_mean(*ssim.values()),
            ssim_t1w=ssim["t1w"],
            ssim_flair=ssim["flair"],
            mi=_mean(*(each.bits for each in shared.values())),
            mi_t1w=shared["t1w"].bits,
            mi_flair=shared["flair"].bits,
            nmi=_mean(*(each.normalised for each in shared.values())),
            fmi=_mean(*fmi),
            qabf=edge_preservation(self.t1w, self.flair, image, self.core),
            vif=_mean(*vif.values()),
            vif_t1w=vif["t1w"],
            vif_flair=vif["flair"],
            scd=sum_of_difference_correlations(self.t1w, self.flair, image, self.mask),
            entropy=entropy(levels),
            spatial_frequency=spatial_frequency(image, self.core),
            average_gradient=average_gradient(image, self.core),
        )


def bounding_box(mask: Mask, margin: int = 0) -> Box:
    """Return the box around a mask, with a margin where the volume has one; the whole volume for an empty mask."""
    if not mask.any():
        return (slice(None), slice(None), slice(None))
    sides = []
    for axis in range(3):
        touched = np.flatnonzero(mask.any(tuple(other for other in range(3) if other != axis)))
        sides.append(slice(max(0, int(touched[0]) - margin), int(touched[-1]) + 1 + margin))
    return (sides[0], sides[1], sides[2])


def _mean(*values: float) -> float:
    return float(np.mean(values))
