"""Healed studies: white matter where lesions were, everything else as it was."""

from __future__ import annotations

from dataclasses import fields, replace

import numpy as np
import pytest
import torch

from rmr_training.data import Patches
from rmr_training.healing import heal
from rmr_training.implants import find_tissue
from rmr_training.losses import UNKNOWN
from rmr_training.real import RealRanges, RealStudy, cut_patch
from rmr_training.synthesis import LESION, Ranges

STILL = RealRanges(*[0.0] * len(fields(RealRanges)))
SIDE = 56


def ball(middle: tuple[int, int, int], radius: float) -> np.ndarray:
    axes = np.indices((SIDE,) * 3)
    return np.asarray(sum((axes[a] - middle[a]) ** 2 for a in range(3)) <= radius**2)


@pytest.fixture(scope="module")
def study() -> RealStudy:
    """A head of fluid, white and grey matter, with noise, and a lesion of radius 4 in white matter."""
    rng = np.random.default_rng(0)
    middle = (28, 28, 28)
    head, white, fluid = ball(middle, 26), ball(middle, 20), ball(middle, 6)
    lesion = ball((28, 28, 40), 4)
    t1w = np.select([lesion, fluid, white, head], [0.5, 0.2, 0.9, 0.6], 0.0)
    flair = np.select([lesion, fluid, white, head], [1.0, 0.2, 0.5, 0.6], 0.0)
    noise = rng.normal(0, 0.02, (2, *head.shape)) * head
    images = (np.stack([t1w, flair]) + noise).clip(0).astype(np.float32)
    labels = np.where(lesion, LESION, np.where(head, UNKNOWN, 0)).astype(np.uint8)
    brain = np.argwhere(head)[::64]
    return RealStudy(
        "head",
        torch.from_numpy(images),
        torch.from_numpy(labels),
        np.argwhere(lesion),
        brain,
        find_tissue(images, lesion),
    )


def test_a_lesion_becomes_white_matter_with_its_texture(study: RealStudy) -> None:
    healed = heal(study)
    assert healed.labels is not None
    assert healed.tissue is not None
    lesion = study.labels == LESION
    assert not (healed.labels == LESION).any()
    assert (healed.labels[lesion] == UNKNOWN).all()
    for image, level in zip(healed.images, (0.9, 0.5), strict=True):
        assert float(image[lesion].mean()) == pytest.approx(level, abs=0.02)
        assert 0.01 < float(image[lesion].std()) < 0.03
    assert healed.tissue.white[lesion].all()
    assert not healed.tissue.grey[lesion].any()


def test_what_is_far_from_a_lesion_stays(study: RealStudy) -> None:
    healed = heal(study)
    near = torch.from_numpy(ball((28, 28, 40), 13))
    assert torch.equal(healed.images[:, ~near], study.images[:, ~near])
    assert (study.labels == LESION).any()  # the study itself is not touched


@pytest.mark.parametrize("missing", ["lesions", "labels", "white"])
def test_what_cannot_be_healed_is_given_back(study: RealStudy, missing: str) -> None:
    assert study.tissue is not None
    changes = {
        "lesions": {"lesions": np.empty((0, 3), np.int64)},
        "labels": {"labels": None},
        "white": {"tissue": replace(study.tissue, white=torch.zeros_like(study.tissue.white))},
    }
    bare = replace(study, **changes[missing])
    assert heal(bare) is bare


def test_a_stream_heals_as_often_as_asked(study: RealStudy) -> None:
    def share(healed: float) -> float:
        ranges = Ranges(implants=0.0, low_contrast=0.0, look_alikes=0.0, healed=healed)
        stream = Patches([], 48, 0, ranges=ranges, real=[study], real_share=1.0)
        return float(np.mean([bool((stream.sample(i)[2] == LESION).any()) for i in range(30)]))

    assert share(1.0) == 0
    half, all_of_them = share(0.5), share(0.0)
    assert 0.2 * all_of_them < half < 0.8 * all_of_them


def test_healed_places_are_still_visited(study: RealStudy) -> None:
    made = cut_patch(heal(study), 16, torch.Generator().manual_seed(0), replace(STILL, lesion_centred=1.0))
    assert float((made.t1w > 0.75).float().mean()) > 0.3
