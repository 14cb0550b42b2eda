"""Synthetic samples: fixed by their seed, of the right shape and range, and showing what their labels say."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch

from rmr_training.data import LabelMap, SyntheticPatches, split_by_donor
from rmr_training.sampling import Draw
from rmr_training.scanner import flatten_contrast
from rmr_training.sheet import contact_sheet
from rmr_training.synthesis import (
    CORE,
    CSF,
    GREY,
    LESION,
    RIM_DARKNESS,
    WHITE,
    Ranges,
    bright_cortex,
    bright_rims,
    lesion_profiles,
    look_alikes,
    synthesise,
    vary_lesions,
)


def phantom() -> np.ndarray:
    """A ball of white matter in a shell of grey matter and CSF, with one lesion off its centre."""
    axes = np.meshgrid(*[np.arange(60) - 30.0] * 3, indexing="ij")
    radius = np.sqrt(sum(a**2 for a in axes))
    labels = np.zeros((60, 60, 60), np.uint8)
    labels[radius < 28], labels[radius < 26], labels[radius < 20] = 1, 2, 3
    lesion = np.sqrt((axes[0] - 8) ** 2 + axes[1] ** 2 + axes[2] ** 2)
    labels[lesion < 5] = LESION
    return labels


@pytest.fixture(scope="module")
def label_map() -> LabelMap:
    labels = phantom()
    return LabelMap("phantom01", "01", 1.0, labels, np.argwhere(labels == LESION))


def test_sample_is_fixed_by_its_index(label_map: LabelMap) -> None:
    stream = SyntheticPatches([label_map], 32, seed=3)
    again = SyntheticPatches([label_map], 32, seed=3, first=2)
    *images, source = next(iter(again))
    assert source == "phantom01"
    for one, other in zip(stream.sample(2), images, strict=True):
        assert torch.equal(one, other)
    assert not torch.equal(stream.sample(2)[0], stream.sample(3)[0])
    assert not torch.equal(stream.sample(2)[0], SyntheticPatches([label_map], 32, seed=4).sample(2)[0])


def test_samples_have_shape_range_and_classes(label_map: LabelMap) -> None:
    stream = SyntheticPatches([label_map], 32, seed=0)
    seen: set[int] = set()
    for index in range(12):
        t1w, flair, labels = stream.sample(index)
        assert t1w.shape == flair.shape == (1, 32, 32, 32)
        assert labels.shape == (32, 32, 32)
        assert labels.dtype == torch.uint8
        for image in (t1w, flair):
            assert torch.isfinite(image).all()
            assert image.min() >= 0
            assert image.max() <= 1.5
        seen |= set(labels.unique().tolist())
    assert seen == {0, 1, 2, 3, 4}


def test_contrasts_show_what_labels_say(label_map: LabelMap) -> None:
    gentle = Ranges(thick_slices=0, whole_head=0, bias=0, new_lesions=0, misalignment=0, lesion_centred=1.0)
    lesion_over_white, grey_under_white = [], []
    for seed in range(10):
        made = synthesise(label_map.labels, label_map.lesions, 32, torch.Generator().manual_seed(seed), gentle)
        white, grey, lesion = (made.labels == c for c in (WHITE, GREY, LESION))
        if lesion.sum() > 50 and white.sum() > 50:
            lesion_over_white.append(made.flair[0][lesion].mean() > made.flair[0][white].mean())
        if grey.sum() > 50 and white.sum() > 50:
            grey_under_white.append(made.t1w[0][grey].mean() < made.t1w[0][white].mean())
    assert len(lesion_over_white) >= 5
    assert np.mean(lesion_over_white) >= 0.9
    assert np.mean(grey_under_white) >= 0.8


def test_new_lesions_lie_in_white_matter() -> None:
    healthy = phantom()
    healthy[healthy == LESION] = WHITE
    always = Ranges(new_lesions=1.0)
    none = np.empty((0, 3), np.int64)
    counts = [
        (synthesise(healthy, none, 32, torch.Generator().manual_seed(s), always).labels == LESION).sum()
        for s in range(8)
    ]
    assert sum(int(c > 0) for c in counts) >= 4


def test_of_few_lesions_none_is_large_and_none_is_new() -> None:
    labels = torch.full((48, 48, 48), WHITE, dtype=torch.uint8)
    labels[4:20, 4:20, 4:20] = LESION  # 4096 voxels
    for corner in range(6):
        labels[30:33, 30:33, 6 * corner : 6 * corner + 3] = LESION
    few = Ranges(no_lesions=0.0, new_lesions=0.0, few_lesions=1.0)
    counts = []
    for seed in range(40):
        before = labels.clone()
        made = vary_lesions(Draw(torch.Generator().manual_seed(seed)), labels, few)
        assert torch.equal(labels, before)
        assert not (made[4:20, 4:20, 4:20] == LESION).any()
        assert set(made.unique().tolist()) <= {WHITE, LESION}
        grown = torch.nn.functional.max_pool3d((labels == LESION).float()[None], 3, 1, 1)[0] > 0
        assert not ((made == LESION) & ~grown).any()
        counts.append(sum(bool((made[29:34, 29:34, 6 * c : 6 * c + 3] == LESION).any()) for c in range(6)))
    assert len(set(counts)) >= 4
    kept = vary_lesions(Draw(torch.Generator().manual_seed(0)), labels, replace(few, few_lesions=0.0))
    assert (kept[4:20, 4:20, 4:20] == LESION).any()


def test_split_keeps_donors_apart(label_map: LabelMap) -> None:
    other = LabelMap("mni_lesions02", "02", 1.0, label_map.labels, label_map.lesions)
    same = LabelMap("mni_lesions01", "01", 1.0, label_map.labels, label_map.lesions)
    train, held = split_by_donor([label_map, other, same], ["01"])
    assert train == [other]
    assert held == [label_map, same]


def test_contact_sheet_shows_every_sample(label_map: LabelMap) -> None:
    stream = SyntheticPatches([label_map], 16, seed=0)
    sheet = contact_sheet([stream.sample(i) for i in range(5)], zoom=1)
    assert sheet.size == (4 * 3 * 16, 2 * 16)


def test_low_contrast_brings_intensities_together_and_keeps_their_order() -> None:
    draw = Draw(torch.Generator().manual_seed(0))
    image = torch.linspace(0, 1.2, 50)
    for flat in flatten_contrast(draw, [image, image], probability=1.0):
        assert (flat.diff() > 0).all()
        assert flat[0] == 0
        ratio = float(flat[10] / flat[40])
        assert 0.25**0.9 <= ratio <= 0.25**0.4
    same, _ = flatten_contrast(draw, [image, image], probability=0.0)
    assert same is image


def test_bright_cortex_lies_on_grey_matter_and_at_most_a_voxel_beside_it() -> None:
    grey = torch.zeros(1, 1, 24, 24, 24)
    grey[..., 10:13] = 1
    spread = 0
    for seed in range(8):
        extra = bright_cortex(Draw(torch.Generator().manual_seed(seed)), grey, height=0.4)
        assert extra.shape == grey.shape
        assert float(extra.min()) >= 0
        assert 0 < float(extra.max()) <= 1.5 * 0.4
        assert not extra[..., :9].any()
        assert not extra[..., 14:].any()
        spread += bool(extra[..., 9].any())
    assert 0 < spread < 8


def test_bright_rims_lie_on_white_matter_near_fluid_and_fade() -> None:
    fluid, white = torch.zeros(2, 1, 1, 24, 24, 24).unbind()
    fluid[..., :6] = 1
    white[..., 6:] = 1
    widths, nearest, farthest = set(), 0.0, 0.0
    for seed in range(24):
        extra = bright_rims(Draw(torch.Generator().manual_seed(seed)), white, fluid, height=0.4)
        assert extra.shape == white.shape
        assert float(extra.min()) >= 0
        assert float(extra.max()) <= 1.5 * 0.4
        assert not extra[..., :6].any()
        assert not extra[..., 10:].any()
        widths.add(int(extra.amax((0, 1, 2, 3)).count_nonzero()))
        nearest, farthest = nearest + float(extra[..., 6].sum()), farthest + float(extra[..., 9].sum())
    assert widths == {1, 2, 3, 4}
    assert 0 < farthest < nearest


def test_a_lesion_keeps_of_its_contrast_what_is_drawn_at_the_rim_and_all_of_it_within() -> None:
    lesion = torch.zeros(1, 1, 40, 40, 40)
    lesion[..., 4:20, 4:20, 4:20] = 1
    lesion[..., 30, 30, 30] = 1  # a single voxel is all rim
    rims, flat = Ranges(rim_darkness=(0.2, 0.2), rim_contrast=(0.6, 0.6)), (1.0, 1.0)
    shares = {12: 1.0, 4: 3**3 / CORE**3, 30: 1 / CORE**3}  # of lesion around the core, a corner and the single voxel
    for seed in range(6):
        made = lesion_profiles(Draw(torch.Generator().manual_seed(seed)), lesion, rims)
        even = lesion_profiles(
            Draw(torch.Generator().manual_seed(seed)), lesion, Ranges(rim_darkness=flat, rim_contrast=flat)
        )
        for profile, whole, rim in zip(made, even, (0.2, 0.6), strict=True):
            assert profile.shape == lesion.shape
            assert float(profile.min()) >= 0
            for at, share in shares.items():
                expected = float(whole[0, 0, at, at, at]) * (rim + (1 - rim) * share)
                assert float(profile[0, 0, at, at, at]) == pytest.approx(expected, abs=1e-5)


def test_small_lesions_are_lighter_on_t1_than_large_ones_and_bright_on_flair() -> None:
    axes = np.meshgrid(*[np.arange(60) - 30.0] * 3, indexing="ij")
    labels = np.where(sum(a**2 for a in axes) < 28**2, WHITE, 0).astype(np.uint8)
    labels[28:32, 28:32, 4:8] = CSF
    small, large = [
        np.sqrt(sum((a - c) ** 2 for a, c in zip(axes, at, strict=True))) for at in ((-14, 0, 0), (8, 0, 0))
    ]
    labels[small < 2], labels[large < 7] = LESION, LESION
    still = Ranges(
        rotation=0, scale=0, elastic=0, thick_slices=0, whole_head=0, bias=0, noise=0, misalignment=0, look_alikes=0,
        new_lesions=0, no_lesions=0, low_contrast=0,
    )  # fmt: skip
    darkness, brightness = [], []
    for seed in range(12):
        made = synthesise(
            labels,
            np.argwhere(labels == LESION),
            60,
            torch.Generator().manual_seed(seed),
            still,
            torch.tensor([29.5] * 3),
        )
        white, lesion = made.labels == WHITE, made.labels == LESION
        near = torch.arange(60) < 24
        for image, into, sign in ((made.t1w, darkness, -1), (made.flair, brightness, 1)):
            level = image[0][white].median()
            into.append(
                [float(sign * (image[0][lesion & side[:, None, None]].mean() - level)) for side in (near, ~near)]
            )
    dark, bright = np.mean(darkness, 0), np.mean(brightness, 0)
    assert 0 < dark[0] < 0.5 * dark[1]
    assert 0.3 * bright[1] < bright[0] < bright[1]


def test_of_look_alikes_only_rims_are_dark_on_t1() -> None:
    labels = torch.full((48, 48, 48), WHITE)
    labels[:, :, :20], labels[:, :, 40:] = CSF, GREY
    soft = torch.nn.functional.one_hot(labels, 5).permute(3, 0, 1, 2)[None].float()
    t1w, flair = [0.0, 0.2, 0.6, 0.9, 0.5], [0.0, 0.2, 0.6, 0.5, 0.9]
    deepest = 0.0
    for seed in range(12):
        dark, bright = look_alikes(Draw(torch.Generator().manual_seed(seed)), soft, t1w, flair, 1.0)
        assert float(dark.min()) >= 0
        assert not dark[..., :20].any()
        assert not dark[..., 24:].any()
        assert bool((bright[dark > 0] > 0).all())
        assert float(dark.max()) <= 1.5 * RIM_DARKNESS[1] * (0.9 - 0.2)
        deepest = max(deepest, float(dark.max()))
    assert deepest > 0.02
    nothing = look_alikes(Draw(torch.Generator().manual_seed(0)), soft, t1w, flair, 0.0)
    assert not any(bool(image.any()) for image in nothing)
