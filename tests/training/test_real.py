"""Real studies: found, read onto the network's grid, cut into patches; what is missing is named."""

from __future__ import annotations

from dataclasses import fields, replace
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
import torch
from PIL import Image

from rmr_sdk.errors import ConfigError, GeometryError, StudyError
from rmr_training.cli import main
from rmr_training.data import LabelMap, Patches
from rmr_training.losses import UNKNOWN
from rmr_training.real import RealRanges, cut_patch, find_study_folders, load_real_study, name_studies
from rmr_training.sampling import Draw
from rmr_training.scanner import scan
from rmr_training.synthesis import LESION, Ranges
from tests.training.test_synthesis import phantom

SHAPE = (40, 44, 36)


def write_study(folder: Path, affine: np.ndarray | None = None, mask: bool = True, t1: str = "t1.nii.gz") -> Path:
    """Write a ball of brain, brighter towards +x on T1 and towards +z on FLAIR, with one lesion."""
    folder.mkdir(parents=True, exist_ok=True)
    affine = np.diag([1.0, 1.0, 1.0, 1.0]) if affine is None else affine
    x, y, z = np.meshgrid(*[np.arange(n) - n / 2 for n in SHAPE], indexing="ij")
    ball = np.sqrt(x**2 + y**2 + z**2) < 15
    flair = ball * (100 + z)
    lesion = np.sqrt((x - 5) ** 2 + y**2 + z**2) < 3
    nib.save(nib.Nifti1Image((ball * (100 + x)).astype(np.float32), affine), folder / t1)
    nib.save(
        nib.Nifti1Image(flair.astype(np.float32), affine), folder / t1.replace("t1", "flair").replace("T1w", "FLAIR")
    )
    if mask:
        name = "lesion.nii.gz" if t1 == "t1.nii.gz" else t1.replace("T1w", "desc-lesion_mask")
        nib.save(nib.Nifti1Image(lesion.astype(np.uint8), affine), folder / name)
    return folder


def test_study_is_turned_and_its_labels_say_what_is_known(tmp_path: Path) -> None:
    study = load_real_study(write_study(tmp_path / "one"), labelled=True)
    assert study.images.shape == (2, SHAPE[2], SHAPE[1], SHAPE[0])
    assert study.labels is not None
    assert set(study.labels.unique().tolist()) == {0, LESION, UNKNOWN}
    assert len(study.lesions) == int((study.labels == LESION).sum()) > 50
    z, _, x = (study.lesions.mean(0) - np.array([SHAPE[2], SHAPE[1], SHAPE[0]]) / 2).round()
    assert (z, x) == (0, 5)
    t1w, flair = study.images
    middle = [n // 2 for n in t1w.shape]
    assert t1w[middle[0], middle[1], middle[2] + 8] > t1w[middle[0], middle[1], middle[2] - 8]
    assert flair[middle[0] + 8, middle[1], middle[2]] > flair[middle[0] - 8, middle[1], middle[2]]


def test_thick_slices_are_brought_to_the_networks_spacing(tmp_path: Path) -> None:
    folder = write_study(tmp_path / "thick", np.diag([1.0, 1.0, 3.0, 1.0]))
    study = load_real_study(folder, labelled=True)
    assert study.images.shape[1:] == (3 * SHAPE[2], SHAPE[1], SHAPE[0])
    assert len(study.lesions) > 150


def test_patches_are_fixed_by_the_generator_and_carry_the_mask(tmp_path: Path) -> None:
    study = load_real_study(write_study(tmp_path / "one"), labelled=True)
    gentle = replace(RealRanges(*[0.0] * len(fields(RealRanges))), lesion_centred=1.0)
    seen = 0
    for seed in range(4):
        one, same = (cut_patch(study, 24, torch.Generator().manual_seed(seed), gentle) for _ in range(2))
        assert torch.equal(one.flair, same.flair)
        assert one.t1w.shape == (1, 24, 24, 24)
        assert set(one.labels.unique().tolist()) <= {0, LESION, UNKNOWN}
        outside = one.labels == 0
        assert one.t1w[0][outside].mean() < 0.15 < 0.5 < one.t1w[0][~outside].mean()
        seen += int((one.labels == LESION).sum())
    assert seen > 200


def test_unlabelled_studies_know_nothing(tmp_path: Path) -> None:
    study = load_real_study(write_study(tmp_path / "one", mask=False), labelled=False)
    assert study.labels is None
    made = cut_patch(study, 16, torch.Generator().manual_seed(0))
    assert made.labels.unique().tolist() == [UNKNOWN]


def test_stream_mixes_real_and_synthetic_patches(tmp_path: Path) -> None:
    study = load_real_study(write_study(tmp_path / "one"), labelled=True)
    maps = [LabelMap("phantom", "1", 1.0, phantom(), np.argwhere(phantom() == LESION))]
    names = [Patches(maps, 16, 0, real=[study], real_share=0.5).draw(i)[1] for i in range(24)]
    assert 6 <= names.count("one") <= 18
    assert names.count("one") + names.count("phantom") == 24


@pytest.mark.parametrize(("share", "expected"), [(0.0, 0), (1.0, 12)])
def test_thick_slices_of_real_patches_are_as_frequent_as_ranges_say(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, share: float, expected: int
) -> None:
    study = load_real_study(write_study(tmp_path / "one"), labelled=True)
    thick = []

    def spy(draw: Draw, image: torch.Tensor, axis: int | None, *args: float, **named: float) -> torch.Tensor:
        thick.append(axis is not None)
        return scan(draw, image, axis, *args, **named)

    monkeypatch.setattr("rmr_training.real.scan", spy)
    maps = [LabelMap("phantom", "1", 1.0, phantom(), np.argwhere(phantom() == LESION))]
    stream = Patches(maps, 16, 0, real=[study], real_share=1.0, ranges=Ranges(real_thick_slices=share))
    for index in range(6):
        stream.draw(index)
    assert sum(thick) == expected
    assert len(thick) == 12


def test_studies_are_found_in_folders_and_in_bids_trees(tmp_path: Path) -> None:
    write_study(tmp_path / "plain")
    anatomy = tmp_path / "sub-01" / "ses-02" / "anat"
    write_study(anatomy, t1="sub-01_ses-02_T1w.nii.gz")
    found = find_study_folders(tmp_path)
    assert found == sorted([tmp_path / "plain", anatomy])
    assert len(load_real_study(anatomy, labelled=True).lesions) > 50


@pytest.mark.parametrize(
    ("folders", "names"),
    [
        (["a/one", "a/two"], ["one", "two"]),
        (["a/one", "b/one"], ["a/one", "b/one"]),
        (["sub-01/anat"], ["sub-01/anat"]),
        (["sub-01/anat", "sub-02/anat"], ["sub-01/anat", "sub-02/anat"]),
        (["sub-01/ses-1/anat", "sub-02/ses-1/anat"], ["sub-01/ses-1/anat", "sub-02/ses-1/anat"]),
        (["x/sub-01/anat", "y/sub-01/anat", "one"], ["x/sub-01/anat", "y/sub-01/anat", "one"]),
    ],
)
def test_studies_have_names_of_their_own(folders: list[str], names: list[str], tmp_path: Path) -> None:
    assert name_studies([tmp_path / folder for folder in folders]) == names


def test_a_study_without_a_mask_is_named(tmp_path: Path) -> None:
    folder = write_study(tmp_path / "bare", mask=False)
    with pytest.raises(StudyError, match=r"study bare: it has no lesion mask"):
        load_real_study(folder, labelled=True)


def test_a_study_without_flair_is_named(tmp_path: Path) -> None:
    folder = write_study(tmp_path / "half")
    (folder / "flair.nii.gz").unlink()
    with pytest.raises(StudyError, match=r"study half: .*FLAIR"):
        load_real_study(folder, labelled=True)


def test_a_mask_on_another_grid_is_refused(tmp_path: Path) -> None:
    folder = write_study(tmp_path / "shifted")
    mask = nib.load(folder / "lesion.nii.gz")
    moved = mask.affine.copy()
    moved[0, 3] += 4
    nib.save(nib.Nifti1Image(np.asarray(mask.dataobj), moved), folder / "lesion.nii.gz")
    with pytest.raises(GeometryError, match=r"study shifted: its lesion mask lies on another grid"):
        load_real_study(folder, labelled=True)


def test_an_empty_tree_is_refused(tmp_path: Path) -> None:
    with pytest.raises(StudyError, match="no study below"):
        find_study_folders(tmp_path)


def test_contact_sheet_shows_real_patches_below_synthetic_ones(tmp_path: Path) -> None:
    (tmp_path / "maps").mkdir()
    nib.save(nib.Nifti1Image(phantom(), np.eye(4)), tmp_path / "maps" / "patient01.nii.gz")
    folder = write_study(tmp_path / "one", mask=False)
    preview = tmp_path / "sheet.png"
    command = ["synthesise", "--labelmaps", str(tmp_path / "maps"), "--samples", "4", "--side", "24"]
    assert main([*command, "--preview", str(preview)]) == 0
    alone = Image.open(preview).copy()
    assert main([*command, "--preview", str(preview), "--beside", str(folder)]) == 0
    assert main([*command, "--preview", str(tmp_path / "new" / "sheet.png"), "--samples", "1"]) == 0
    for flags in (["--samples", "0"], ["--side", "4"], ["--seed", "-1"], ["--preview", str(tmp_path / "sheet.txt")]):
        assert main([*command, "--preview", str(preview), *flags]) == ConfigError.exit_code
    both = Image.open(preview)
    assert both.size == (alone.width, 2 * alone.height)
    assert np.array_equal(np.asarray(both)[: alone.height], np.asarray(alone))
    assert np.asarray(both)[alone.height :].max() > 100
