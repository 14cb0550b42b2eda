"""Training studies made from label maps: anatomy is real, everything a scanner adds is drawn at random.

A sample is a patch of a label map, deformed, with its lesions varied, painted with random tissue contrasts for T1 and
FLAIR, and then worsened as scanners worsen images: partial volume, texture, bias field, thick slices, noise, a small
misalignment between the contrasts, an imperfect brain mask or a head that was never stripped. What looks like a
lesion on FLAIR and is none is drawn too: bright rims of the ventricles, bright cortex, uneven white matter, plexus
and flow in the fluid. Everything follows one `torch.Generator`, so that a seed fixes a sample.

The idea of learning from label maps with random contrasts: Billot et al., SynthSeg, Med. Image Anal. 86 (2023). Ranges
are ours, from what is known of these contrasts. Only the greatest brightness of lesions was set with the labelled real
studies in sight, on which results are reported.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from scipy import ndimage
from torch import Generator, Tensor

from .sampling import Draw, sample_nearest, sampling_points
from .scanner import flatten_contrast, misalign, normalise, scan
from .surroundings import head_shell, remnants

BACKGROUND, CSF, GREY, WHITE, LESION = range(5)

LESION_CONTRAST = (0.12, 0.40)
"""Least and most brightness of the core of a lesion on FLAIR above the brighter of grey and white matter."""

PATCH = 64
"""Side in voxels that numbers of knots are said for; a larger sample has more of them, and varies as patches do."""

RIM_DARKNESS = (0.0, 0.5)
"""Darkness of a rim of the fluid on T1, where it is as bright as a lesion on FLAIR; white matter is 0, fluid 1."""

LARGEST_OF_FEW = 300
"""Voxels of the largest lesion that is kept where there are to be few."""

CORE = 5
"""Side in voxels of the neighbourhood whose share of lesion says how far within a lesion a voxel is."""

BRAIN_SCALE = (0.82, 1.15)
WHOLE_HEAD_SCALE = (0.28, 1.1)
"""Factor on the brain's own percentile; fat and skin of a whole head raise that of the volume: the brain gets dark."""


@dataclass(frozen=True, slots=True)
class Ranges:
    """How far samples vary. Probabilities are per sample.

    Attributes:
        lesion_centred: Probability that a patch is centred near a lesion.
        new_lesions: Probability that small lesions are added to white matter.
        no_lesions: Probability that all lesions are turned into white matter.
        few_lesions: Probability that all but some small lesions are, where not all are.
        look_alikes: Probability of each thing that looks like a lesion on FLAIR and is none.
        whole_head: Probability that skull, scalp, face or neck surround the brain.
        thick_slices: Probability that one axis has thick slices.
        real_thick_slices: The same of patches of real studies, whose slices may be thick already.
        bias: Largest deviation of the logarithm of the bias field.
        noise: Largest deviation of the noise; white matter of T1 is about 0.9.
        rotation: Largest rotation per axis, in radians.
        scale: Deviation of the scale and shear terms.
        elastic: Deviation of the elastic displacement, in voxels.
        misalignment: Largest shift of FLAIR against T1 per axis, in voxels.
        lesion_contrast: Least and most brightness of a lesion's core on FLAIR above the brighter of grey and white
            matter.
        lesion_darkness: Least and most darkness of a lesion's core on T1, where white matter is 0 and fluid is 1.
        rim_contrast: Least and most share of that brightness which is left where little lesion is around: in small
            lesions, and at the rim of large ones.
        rim_darkness: The same of that darkness.
        low_contrast: Probability that contrast is lost, on patches of real studies too.
        implants: Probability that a patch of a real study gets lesions of a label map.
        healed: Probability that a patch of a labelled real study has white matter in place of its lesions.
    """

    lesion_centred: float = 0.6
    new_lesions: float = 0.4
    no_lesions: float = 0.1
    few_lesions: float = 0.0
    look_alikes: float = 0.4
    whole_head: float = 0.35
    thick_slices: float = 0.5
    real_thick_slices: float = 0.2
    bias: float = 0.35
    noise: float = 0.05
    rotation: float = 0.3
    scale: float = 0.08
    elastic: float = 2.5
    misalignment: float = 0.8
    lesion_contrast: tuple[float, float] = LESION_CONTRAST
    lesion_darkness: tuple[float, float] = (0.15, 1.0)
    rim_contrast: tuple[float, float] = (0.5, 1.0)
    rim_darkness: tuple[float, float] = (0.1, 0.5)
    low_contrast: float = 0.1
    implants: float = 0.6
    healed: float = 0.0


@dataclass(frozen=True, slots=True)
class Sample:
    """One synthetic patch: both contrasts (1, D, H, W) float32, normalised, and labels (D, H, W) uint8."""

    t1w: Tensor
    flair: Tensor
    labels: Tensor


def synthesise(
    labels: NDArray[np.uint8],
    lesions: NDArray[np.int64],
    side: int,
    generator: Generator,
    ranges: Ranges | None = None,
    centre: Tensor | None = None,
) -> Sample:
    """Make one patch from a label map.

    Args:
        labels: Label map (D, H, W): 0 background, 1 CSF, 2 grey matter, 3 white matter, 4 lesion; 1 mm voxels, axes
            from foot to head, back to front, left to right.
        lesions: Voxel indices (n, 3) of its lesions, or an empty array.
        side: Side of the patch in voxels.
        generator: Source of all randomness.
        ranges: How far samples vary.
        centre: Voxel (3,) in the middle of the patch; None to draw it.

    Returns:
        The patch, in the orientation of the label map up to a flip of left and right.
    """
    ranges = ranges or Ranges()
    draw = Draw(generator)
    whole_head = draw.chance(ranges.whole_head)
    if centre is None:
        centre = _centre(draw, labels, lesions, side, ranges, beyond=whole_head)
    points = sampling_points(draw, centre, side, ranges.rotation, ranges.scale, ranges.elastic)
    target = vary_lesions(draw, sample_nearest(torch.from_numpy(labels), points), ranges)
    soft = _soften(draw, target)
    images = list(_paint_brain(draw, soft, ranges))
    brain = (target > 0).float()[None, None]
    if whole_head:
        images = [image + shell for image, shell in zip(images, head_shell(draw, brain), strict=True)]
    else:
        edge = F.max_pool3d(brain, 3, 1, 1) if draw.chance(0.3) else brain
        images = [image * edge for image in images]
        if draw.chance(0.3):
            images = [image + rest for image, rest in zip(images, remnants(draw, brain), strict=True)]
    images[1] = misalign(draw, images[1], ranges.misalignment)
    scanned = _scan_both(draw, images, target, ranges, WHOLE_HEAD_SCALE if whole_head else BRAIN_SCALE)
    t1w, flair = flatten_contrast(draw, scanned, ranges.low_contrast)
    return Sample(t1w[0], flair[0], target.to(torch.uint8))


def _centre(
    draw: Draw, labels: NDArray[np.uint8], lesions: NDArray[np.int64], side: int, ranges: Ranges, beyond: bool
) -> Tensor:
    """Draw the middle of a patch: near a lesion, in the brain, or, with `beyond`, outside the brain too."""
    if beyond and draw.chance(0.3):
        reach = side // 2
        return torch.tensor([draw.integer(-reach, n - 1 + reach) for n in labels.shape]).float()
    if len(lesions) and draw.chance(ranges.lesion_centred):
        voxel = torch.from_numpy(lesions[draw.integer(0, len(lesions) - 1)]).float()
        reach = side // 3
        return voxel + torch.tensor([draw.integer(-reach, reach) for _ in range(3)]).float()
    for _ in range(8):  # a patch of air teaches little
        place = [draw.integer(0, n - 1) for n in labels.shape]
        if labels[tuple(place)]:
            break
    return torch.tensor(place).float()


def vary_lesions(draw: Draw, labels: Tensor, ranges: Ranges) -> Tensor:
    """Remove lesions, grow or shrink them a little, add small ones to white matter."""
    labels = labels.clone()
    if draw.chance(ranges.no_lesions):
        labels[labels == LESION] = WHITE
        return labels
    if ranges.few_lesions and draw.chance(ranges.few_lesions):
        _keep_some_small(draw, labels)
    if draw.chance(0.3):
        lesion = (labels == LESION).float()[None, None]
        if draw.chance(0.5):
            grown = F.max_pool3d(lesion, 3, 1, 1)[0, 0] > 0
            labels[grown & (labels == WHITE)] = LESION
        else:
            core = -F.max_pool3d(-lesion, 3, 1, 1)[0, 0] > 0
            rim = (lesion[0, 0] > 0) & ~core & (_varied(draw, labels.shape, 12)[0, 0] > 0)
            labels[rim] = WHITE
    if draw.chance(ranges.new_lesions):
        _add_lesions(draw, labels)
    return labels


def _keep_some_small(draw: Draw, labels: Tensor) -> None:
    """Turn large lesions, and some of the small ones, into white matter, in place."""
    found, count = ndimage.label(labels.numpy() == LESION, np.ones((3, 3, 3)))
    if not count:
        return
    sizes = np.bincount(found.ravel())
    drawn = torch.rand(count + 1, generator=draw.generator).numpy() < draw.uniform(0.2, 1.0)
    kept = drawn & (sizes <= LARGEST_OF_FEW)
    labels[torch.from_numpy((found > 0) & ~kept[found])] = WHITE


def _add_lesions(draw: Draw, labels: Tensor) -> None:
    """Turn 1 to 5 ragged ellipsoids of white matter into lesions, in place."""
    side = labels.shape[0]
    white = (labels == WHITE).nonzero()
    axes = torch.arange(side).float()
    for _ in range(draw.integer(1, 5) if len(white) else 0):
        centre = white[draw.integer(0, len(white) - 1)].float()
        radii = [draw.uniform(1.0, 3.5) for _ in range(3)]
        distance = sum(
            ((axes - centre[a]) / radii[a]).pow(2).view([side if i == a else 1 for i in range(3)]) for a in range(3)
        )
        ragged = distance + 0.35 * draw.field(labels.shape, side // 3)[0, 0]
        labels[(ragged < 1) & (labels == WHITE)] = LESION


def _soften(draw: Draw, target: Tensor) -> Tensor:
    """Give each voxel the share (1, 5, D, H, W) of its neighbours' tissues: partial volume."""
    soft = F.one_hot(target.long(), 5).permute(3, 0, 1, 2)[None].float()
    softness = draw.uniform(0.2, 0.9)
    return (1 - softness) * soft + softness * F.avg_pool3d(F.pad(soft, (1,) * 6, mode="replicate"), 3, 1)


def _tissue_means(draw: Draw, ranges: Ranges) -> tuple[list[float], list[float]]:
    """Mean intensities of background, CSF, grey and white matter and the core of a lesion on T1 and FLAIR."""
    white = draw.uniform(0.75, 1.0)
    grey = white - draw.uniform(0.12, 0.35)
    csf = draw.uniform(0.08, min(0.4, grey - 0.1))
    t1 = [0.0, csf, grey, white, white - draw.uniform(*ranges.lesion_darkness) * (white - csf)]
    white = draw.uniform(0.4, 0.7)
    grey = white + draw.uniform(-0.02, 0.22)
    lesion = max(white, grey) + draw.uniform(*ranges.lesion_contrast)
    return t1, [0.0, draw.uniform(0.03, 0.35), grey, white, lesion]


def _paint_brain(draw: Draw, soft: Tensor, ranges: Ranges) -> tuple[Tensor, Tensor]:
    t1_means, flair_means = _tissue_means(draw, ranges)
    darkness, brightness = lesion_profiles(draw, soft[:, LESION:], ranges)
    t1w = _paint(draw, soft, t1_means, t1_means[WHITE], darkness)
    flair = _paint(draw, soft, flair_means, max(flair_means[GREY], flair_means[WHITE]), brightness)
    dark, bright = look_alikes(draw, soft, t1_means, flair_means, ranges.look_alikes)
    return t1w - dark, flair + bright


def _varied(draw: Draw, shape: Sequence[int], knots: int) -> Tensor:
    """Draw a smooth field with that many knots along each `PATCH` voxels."""
    return draw.field(shape, max(knots, round(knots * max(shape) / PATCH)))


def lesion_profiles(draw: Draw, lesion: Tensor, ranges: Ranges) -> tuple[Tensor, Tensor]:
    """Draw what share of its core's contrast a lesion has at each voxel, on T1 and on FLAIR, (1, 1, D, H, W) both.

    A lesion is darkest on T1 and brightest on FLAIR where there is nothing but lesion around; small ones and rims are
    hardly dark, though bright. No two lesions are alike.

    Args:
        draw: Source of randomness.
        lesion: Share of lesion (1, 1, D, H, W).
        ranges: How far profiles vary.
    """
    core = F.avg_pool3d(lesion, CORE, 1, CORE // 2, count_include_pad=False)
    uneven = _varied(draw, lesion.shape[2:], 10)

    def profile(rims: tuple[float, float]) -> Tensor:
        rim = draw.uniform(*rims)
        return (rim + (1 - rim) * core) * (1 + uneven * draw.uniform(0, 0.35)).clamp(min=0)

    return profile(ranges.rim_darkness), profile(ranges.rim_contrast)


def _paint(draw: Draw, soft: Tensor, means: Sequence[float], beside: float, profile: Tensor) -> Tensor:
    """Mix tissue means by soft labels (1, 5, D, H, W), with texture.

    Args:
        draw: Source of randomness.
        soft: Share of each tissue.
        means: Mean intensity of each tissue, and of the core of a lesion.
        beside: Intensity that the contrast of a lesion is counted from.
        profile: Share of that contrast at each voxel.
    """
    shape, side = soft.shape[2:], soft.shape[2]
    mean = torch.tensor(means[:LESION]).view(1, LESION, 1, 1, 1)
    image = (soft[:, :LESION] * mean).sum(1, keepdim=True)
    image = image + soft[:, LESION:] * (beside + profile * (means[LESION] - beside))
    texture = draw.field(shape, side // 2) * draw.uniform(0.0, 0.05)
    texture = texture + draw.field(shape, side // 6) * draw.uniform(0.0, 0.05)
    grey_only = _varied(draw, shape, 6) * draw.uniform(0.0, 0.08) * soft[:, GREY : GREY + 1]
    return image + texture * (1 - soft[:, :1]) + grey_only


def look_alikes(
    draw: Draw, soft: Tensor, t1_means: Sequence[float], flair_means: Sequence[float], probability: float
) -> tuple[Tensor, Tensor]:
    """Draw what is brighter than its tissue on FLAIR without being a lesion.

    Bright rims along the fluid, bright stretches of cortex and deep grey, faint wide unevenness of white matter, and
    plexus or flow in the fluid.

    Args:
        draw: Source of randomness.
        soft: Share of each tissue (1, 5, D, H, W).
        t1_means: Mean intensity of each tissue on T1.
        flair_means: The same on FLAIR.
        probability: Of each of the four.

    Returns:
        Images (1, 1, D, H, W): what to take from T1, and what to add to FLAIR.
    """
    shape, side = soft.shape[2:], soft.shape[2]
    dark, extra = torch.zeros_like(soft[:, :1]), torch.zeros_like(soft[:, :1])
    height = flair_means[LESION] - flair_means[WHITE]
    white, grey, csf = (soft[:, i : i + 1] for i in (WHITE, GREY, CSF))
    if draw.chance(probability):
        rims = bright_rims(draw, white, csf, height)
        extra += rims
        dark += rims / height * draw.uniform(*RIM_DARKNESS) * (t1_means[WHITE] - t1_means[CSF])
    if draw.chance(probability):
        extra += bright_cortex(draw, grey, height)
    if draw.chance(probability):
        extra += white * _varied(draw, shape, 4).clamp(min=0) * draw.uniform(0.05, 0.35) * height
    if draw.chance(probability):
        blobs = (draw.field(shape, side // 5) > 1.0).float()
        extra += csf * blobs * draw.uniform(0.2, 1.0) * (flair_means[LESION] - flair_means[CSF])
    return dark, extra


def bright_rims(draw: Draw, white: Tensor, fluid: Tensor, height: float) -> Tensor:
    """Draw bright rims of the fluid, as an image (1, 1, D, H, W) to add.

    Bands along the ventricles and caps on their horns are normal on FLAIR. They are 1 to 4 voxels wide, fade away from
    the fluid, and are in places as bright as lesions.

    Args:
        draw: Source of randomness.
        white: Share of white matter (1, 1, D, H, W).
        fluid: Share of fluid, likewise.
        height: Brightness of a lesion above white matter.
    """
    near, fading = fluid, draw.uniform(0.7, 1.0)
    for _ in range(draw.integer(1, 4)):
        near = torch.maximum(near, fading * F.max_pool3d(near, 3, 1, 1))
    stretches = _varied(draw, fluid.shape[2:], draw.integer(3, 8)).clamp(0, 1.5)
    return white * near * stretches * draw.uniform(0.1, 1.0) * height


def bright_cortex(draw: Draw, grey: Tensor, height: float) -> Tensor:
    """Draw stretches of grey matter that are as bright as lesions on FLAIR, as an image (1, 1, D, H, W) to add.

    Cortex of insula, cingulum and temporal lobe is like that on healthy people's FLAIR. Half the time it is a voxel
    thicker than on T1, as where slices are thick.

    Args:
        draw: Source of randomness.
        grey: Share of grey matter (1, 1, D, H, W).
        height: Brightness of a lesion above white matter.
    """
    if draw.chance(0.5):
        grey = torch.maximum(grey, 0.7 * F.max_pool3d(grey, 3, 1, 1))
    stretches = _varied(draw, grey.shape[2:], draw.integer(3, 8)).clamp(0, 1.5)
    return grey * stretches * draw.uniform(0.1, 1.0) * height


def _scan_both(
    draw: Draw, images: Sequence[Tensor], target: Tensor, ranges: Ranges, scale: tuple[float, float]
) -> list[Tensor]:
    """Worsen both contrasts, each in its own way, and scale them as the runtime does."""
    thick = draw.chance(ranges.thick_slices)
    same_axis = draw.integer(0, 2)
    done = []
    for image in images:
        axis = (same_axis if draw.chance(0.8) else draw.integer(0, 2)) if thick and draw.chance(0.8) else None
        stripped = (image > 0).float() if draw.chance(0.8) else None
        image = scan(draw, image, axis, ranges.bias, ranges.noise, gamma=0.2)
        image = image if stripped is None else image * stripped
        tissue = (target > 0) & (target != LESION) if draw.chance(0.7) else target > 0
        done.append(normalise(draw, image, tissue, scale))
    return done
