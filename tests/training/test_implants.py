"""Implants: other patients' lesions in the white matter of a real study, where the map says, and nowhere else."""

from __future__ import annotations

from dataclasses import fields, replace

import nibabel as nib
import numpy as np
import pytest
import torch

from rmr_training.data import LabelMap, Patches
from rmr_training.implants import Implant, brain_box, find_tissue, three_centres
from rmr_training.losses import UNKNOWN
from rmr_training.real import RealRanges, RealStudy, cut_patch, load_real_study
from rmr_training.synthesis import LESION, Ranges
from tests.training.test_synthesis import phantom

STILL = RealRanges(*[0.0] * len(fields(RealRanges)))
PLAIN = Ranges(new_lesions=0.0, no_lesions=0.0, low_contrast=0.0, implants=1.0)


@pytest.fixture(scope="module")
def study(tmp_path_factory: pytest.TempPathFactory) -> RealStudy:
    """A head like the phantom's, half as large again, in three shades and without a lesion."""
    labels = np.repeat(np.repeat(np.repeat(phantom(), 3, 0), 3, 1), 3, 2)[::2, ::2, ::2]
    labels[labels == LESION] = 3
    folder = tmp_path_factory.mktemp("study")
    for name, levels in (("t1", (0, 20, 60, 90)), ("flair", (0, 10, 60, 50))):
        image = np.array(levels, np.float32)[labels].transpose(2, 1, 0)
        nib.save(nib.Nifti1Image(image, np.eye(4)), folder / f"{name}.nii.gz")
    nib.save(nib.Nifti1Image(np.zeros(labels.shape, np.uint8), np.eye(4)), folder / "lesion.nii.gz")
    return load_real_study(folder, labelled=True)


def implant(ranges: Ranges = PLAIN) -> Implant:
    labels = phantom()
    return Implant(labels, np.argwhere(labels == LESION), brain_box(labels > 0), ranges)


def test_white_matter_and_shades_are_found(study: RealStudy) -> None:
    assert study.tissue is not None
    middle = [n // 2 for n in study.tissue.white.shape]
    assert study.tissue.white[tuple(middle)]
    at_rim = [middle[0], middle[1], middle[2] + 35]  # grey matter
    assert not study.tissue.white[tuple(at_rim)]
    assert float(study.tissue.white.sum()) == pytest.approx(4 / 3 * np.pi * 30**3, rel=0.05)
    fluid, bright = study.tissue.t1w
    assert fluid / bright == pytest.approx(20 / 90, rel=0.1)
    assert study.tissue.fluid.any()
    assert not (study.tissue.fluid & (study.tissue.white | study.tissue.grey)).any()
    white, brightest = study.tissue.flair
    assert brightest / white == pytest.approx(60 / 50, rel=0.02)


def test_lesions_of_the_map_are_put_where_they_lie_in_its_brain(study: RealStudy) -> None:
    plain = cut_patch(study, 48, torch.Generator().manual_seed(5), STILL)
    assert not (plain.labels == LESION).any()
    found = 0
    for seed in range(4):
        made = cut_patch(study, 48, torch.Generator().manual_seed(seed), replace(STILL, lesion_centred=1.0), implant())
        same = cut_patch(study, 48, torch.Generator().manual_seed(seed), replace(STILL, lesion_centred=1.0), implant())
        assert torch.equal(made.flair, same.flair)
        new = made.labels == LESION
        if not new.any():
            continue
        found += 1
        around = ~new & (made.t1w[0] > 0.8)  # the rest of white matter
        assert made.flair[0][new].mean() > made.flair[0][around].mean() + 0.1
        assert made.t1w[0][new].mean() < made.t1w[0][around].mean()
        # A ball of radius 5 in a brain that is half as large again, of radius 7.5 here; it may have grown by a voxel.
        assert int(new.sum()) <= 4 / 3 * np.pi * 9.5**3
        untouched = torch.nn.functional.max_pool3d(new[None, None].float(), 5, 1, 2)[0, 0] == 0
        assert set(np.unique(made.labels[untouched].numpy())) <= {0, UNKNOWN}
    assert found >= 3


def test_only_white_matter_takes_lesions(study: RealStudy) -> None:
    assert study.tissue is not None
    bare = replace(study, tissue=replace(study.tissue, white=torch.zeros_like(study.tissue.white)))
    made = cut_patch(bare, 48, torch.Generator().manual_seed(0), replace(STILL, lesion_centred=1.0), implant())
    assert not (made.labels == LESION).any()


def test_grey_matter_and_rims_are_brightened_on_flair(study: RealStudy) -> None:
    assert study.tissue is not None
    plain = cut_patch(study, 48, torch.Generator().manual_seed(5), STILL)
    brightest = 0.0
    for seed in range(6):
        made = cut_patch(study, 48, torch.Generator().manual_seed(seed), replace(STILL, look_alikes=1.0))
        same = cut_patch(study, 48, torch.Generator().manual_seed(seed), replace(STILL, look_alikes=1.0))
        assert torch.equal(made.flair, same.flair)
        assert not (made.labels == LESION).any()
        assert made.t1w.max() <= plain.t1w.max() + 1e-3
        brightest = max(brightest, float((made.flair[0] * (made.t1w[0] < 0.8)).max()))
        darker = (made.t1w < 0.8).float()[None]
        inner = torch.nn.functional.max_pool3d(darker, 13, 1, 6)[0, 0] == 0  # deep in white matter
        if inner.any():
            assert made.flair[0][inner].max() == pytest.approx(float(made.flair[0][inner].min()), abs=0.02)
    assert brightest > float(plain.flair.max()) + 0.1


def test_stream_implants_as_often_as_asked(study: RealStudy) -> None:
    labels = phantom()
    maps = [LabelMap("phantom", "1", 1.0, labels, np.argwhere(labels == LESION))]

    def shares(ranges: Ranges) -> float:
        stream = Patches(maps, 40, 0, ranges=ranges, real=[study], real_share=1.0)
        return float(np.mean([bool((stream.sample(i)[2] == LESION).any()) for i in range(24)]))

    assert shares(replace(PLAIN, implants=0.0)) == 0
    assert shares(PLAIN) > 0.5


def test_three_groups_of_numbers() -> None:
    rng = np.random.default_rng(0)
    parts = [rng.normal(mean, 0.03, count) for mean, count in ((0.2, 3000), (0.6, 8000), (0.9, 5000))]
    values = np.concatenate(parts).astype(np.float32)
    assert three_centres(rng.permutation(values)) == pytest.approx((0.2, 0.6, 0.9), abs=0.01)


def test_an_empty_head_is_no_error() -> None:
    tissue = find_tissue(np.zeros((2, 4, 5, 6), np.float32), np.zeros((4, 5, 6), bool))
    assert not tissue.white.any()
    assert tissue.box.tolist() == [[0, 0, 0], [4, 5, 6]]
    assert (tissue.t1w, tissue.flair) == ((0.2, 0.9), (0.5, 0.5))


def test_box_of_a_mask() -> None:
    mask = np.zeros((6, 7, 8), bool)
    mask[1:3, 2:6, 7] = True
    assert brain_box(mask).tolist() == [[1, 2, 7], [2, 4, 1]]
