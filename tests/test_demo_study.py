"""The demo study is small, fits together, is anonymous, says what is simulated, and has lesions where it says."""

from __future__ import annotations

import gzip
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest

from rmr_sdk.demo import DEMO_NOTICE, demo_study_folder
from rmr_sdk.study import Study

NAMES = ("sub-demo_T1w", "sub-demo_FLAIR", "sub-demo_label-lesion_mask")


@pytest.fixture(scope="module")
def images() -> dict[str, nib.Nifti1Image]:
    return {name: nib.load(demo_study_folder() / f"{name}.nii.gz") for name in NAMES}


def test_all_files_together_stay_under_four_megabytes() -> None:
    files = [path for path in demo_study_folder().iterdir() if path.is_file()]
    assert {f"{name}.nii.gz" for name in NAMES} | {"README.md"} <= {path.name for path in files}
    assert sum(path.stat().st_size for path in files) <= 4e6


def test_study_reads_it() -> None:
    study = Study.from_folder(demo_study_folder())
    assert set(study.contrasts) == {"T1w", "FLAIR"}
    assert study["T1w"].grid.matches(study["FLAIR"].grid)
    assert study["T1w"].grid.orientation == "RAS"


def test_every_file_says_what_is_simulated(images: dict[str, nib.Nifti1Image]) -> None:
    assert len(DEMO_NOTICE) <= 79
    assert DEMO_NOTICE in (demo_study_folder() / "README.md").read_text(encoding="utf-8")
    for image in images.values():
        assert image.header["descrip"].item().decode() == DEMO_NOTICE


def test_files_hold_no_time_and_no_name() -> None:
    for name in NAMES:
        data = (demo_study_folder() / f"{name}.nii.gz").read_bytes()
        assert data[3] == 0, "the gzip header names a file"
        assert data[4:8] == b"\0\0\0\0", "the gzip header holds a time"
        assert len(gzip.decompress(data)) == 352 + 153 * 189 * 159


def test_lesions_are_bright_on_flair_and_dark_on_t1(images: dict[str, nib.Nifti1Image]) -> None:
    t1, flair, mask = (np.asarray(images[name].dataobj).astype(float) for name in NAMES)
    lesion = mask > 0
    white_matter = ~lesion & (t1 > np.percentile(t1[t1 > 0], 80))
    assert 5.0 < lesion.sum() / 1000 < 8.0
    assert np.median(flair[lesion]) > 1.3 * np.median(flair[white_matter])
    assert np.median(t1[lesion]) < 0.8 * np.median(t1[white_matter])
    assert (flair[t1 > 0] > 0).all()
    assert not flair[t1 == 0].any()


def test_licence_of_the_template_is_there_whole() -> None:
    text = " ".join((demo_study_folder() / "README.md").read_text(encoding="utf-8").split())
    for part in ("Copyright (C) 1993-2009 Louis Collins", "Permission to use, copy, modify, and distribute", "as is"):
        assert part in text
    notice = " ".join((Path(__file__).parents[1] / "NOTICE").read_text(encoding="utf-8").split())
    assert "Copyright (C) 1993-2009 Louis Collins" in notice
