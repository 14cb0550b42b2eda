"""Alignment on real studies: against published transforms, and pairs that are not of one head."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from rmr_sdk.align import Alignment, AlignmentTask, align_contrast
from rmr_sdk.displacement import displacement, mean_shift_mm
from rmr_sdk.errors import StudyError
from rmr_sdk.geometry import reorient
from rmr_sdk.preprocess import prepare
from rmr_sdk.similarity import Reduced, Similarity, reduce_volume
from rmr_sdk.study import Study
from rmr_sdk.volume import Volume

RAW = (
    "patient01_study1",
    "patient01_study2",
    "patient12_study1",
    "patient12_study2",
    "patient19_study2",
    "patient20_study2",
)
LPS = np.diag([-1.0, -1.0, 1.0, 1.0])


@pytest.fixture(scope="module")
def reduced(data_dir) -> Callable[[str, str], Reduced]:
    """Give a function that reads a contrast of a study and reduces it."""
    read: dict[tuple[str, str], Reduced] = {}

    def give(study: str, contrast: str) -> Reduced:
        if (study, contrast) not in read:
            volume = Study.from_folder(data_dir / study)[contrast]
            read[study, contrast] = reduce_as_prepared(volume)
        return read[study, contrast]

    return give


def reduce_as_prepared(volume: Volume, matrix: np.ndarray | None = None) -> Reduced:
    axes = reorient(volume.grid, "SAR").moved(np.eye(4) if matrix is None else matrix)
    return reduce_volume(axes.apply(volume.data), axes.grid)


def align(flair: Reduced, t1: Reduced) -> tuple[Alignment, list[str]]:
    return align_contrast(AlignmentTask(contrast="T1w", reference="FLAIR"), flair, t1)


def published(file: Path) -> np.ndarray:
    """Read an ITK transform, which maps FLAIR points to T1 points in LPS; return what moves the T1 in RAS."""
    lines = [line.split(":")[1].split() for line in file.read_text().splitlines() if "arameters:" in line]
    numbers, centre = (np.array(line, float) for line in lines)
    matrix = np.eye(4)
    matrix[:3, :3] = numbers[:9].reshape(3, 3)
    matrix[:3, 3] = numbers[9:] + centre - matrix[:3, :3] @ centre
    return np.linalg.inv(LPS @ matrix @ LPS)


@pytest.mark.parametrize("study", RAW)
def test_raw_studies_lie_where_others_put_them(sitk, data_dir, reduced, study) -> None:
    flair, t1 = reduced(f"open_ms_raw/{study}", "FLAIR"), reduced(f"open_ms_raw/{study}", "T1w")
    alignment, warnings = align(flair, t1)
    assert warnings == []
    similarity = Similarity(flair, t1, 2.9, np.eye(4))
    theirs = published(data_dir / "open_ms_raw" / study / "t1_to_flair.txt")
    apart = mean_shift_mm(np.linalg.inv(theirs) @ alignment.matrix, similarity.head_points)
    assert apart <= 1.5
    if alignment.method == "rigid":
        assert similarity(alignment.matrix) > max(similarity(theirs), similarity(np.eye(4)))
    assert (alignment.method == "rigid") == (study in {"patient12_study1", "patient19_study2", "patient20_study2"})


@pytest.mark.parametrize("study", ["patient01_study2", "patient20_study2"])
def test_a_known_displacement_of_a_raw_study_is_undone(sitk, data_dir, reduced, study) -> None:
    flair = reduced(f"open_ms_raw/{study}", "FLAIR")
    shift, axis = np.array([6.0, -5.0, 6.2]), np.array([0.5, -0.6, 0.62])  # 10 mm; 10 degrees about this axis
    matrix = displacement([*shift, *np.radians(10) * axis / np.linalg.norm(axis)], flair.centre_mm)
    volume = Study.from_folder(data_dir / "open_ms_raw" / study)["T1w"]
    alignment, _ = align(flair, reduce_as_prepared(volume, matrix))
    theirs = published(data_dir / "open_ms_raw" / study / "t1_to_flair.txt")
    points = flair.grid.world(np.argwhere(flair.head)[::100])
    assert mean_shift_mm(np.linalg.inv(theirs) @ alignment.matrix @ matrix, points) < 1.0


@pytest.mark.parametrize("study", ["patient07", "patient19"])
def test_studies_on_one_grid_stay_untouched(data_dir, make_manifest, study) -> None:
    volumes = Study.from_folder(data_dir / "open_ms" / study)
    prepared = prepare(volumes, make_manifest())
    assert prepared.alignments[0].method == "header"
    assert prepared.warnings == ()
    assert all(np.shares_memory(prepared.arrays[name], volumes[name].data) for name in volumes)


@pytest.mark.parametrize(
    ("flair", "t1"),
    [
        ("open_ms/patient07", "open_ms/patient19"),
        ("open_ms/patient19", "open_ms/patient07"),
        ("open_ms_raw/patient12_study1", "open_ms_raw/patient19_study2"),
        ("open_ms_raw/patient01_study1", "open_ms_raw/patient20_study2"),
    ],
)
def test_another_head_is_refused(reduced, flair, t1) -> None:
    with pytest.raises(StudyError, match="it cannot be of the head that the FLAIR shows"):
        align(reduced(flair, "FLAIR"), reduced(t1, "T1w"))


@pytest.mark.parametrize("study", ["open_ms/patient19", "open_ms_raw/patient12_study2"])
def test_sides_that_are_exchanged_are_noticed(sitk, data_dir, reduced, study) -> None:
    volume = Study.from_folder(data_dir / study)["T1w"]
    _, warnings = align(reduced(study, "FLAIR"), reduce_as_prepared(Volume(volume.data[::-1], volume.affine)))
    assert any("better with left and right exchanged" in warning for warning in warnings)


@pytest.mark.parametrize("damage", ["noise", "blur", "slab", "shading"])
def test_damage_does_not_make_it_another_head(sitk, data_dir, reduced, damage) -> None:
    study = "open_ms_raw/patient19_study2"
    volume = Study.from_folder(data_dir / study)["T1w"]
    voxels = volume.data.astype(np.float32)
    affine = volume.affine.copy()
    if damage == "noise":
        noise = np.random.default_rng(0).normal(0, 0.4 * np.percentile(voxels, 99), voxels.shape)
        voxels = np.abs(voxels + noise).astype(np.float32)
    elif damage == "blur":
        kernel = np.hanning(15)[1:-1] / np.hanning(15).sum()  # 6 mm wide at half its height
        for axis in (0, 1):
            voxels = np.apply_along_axis(np.convolve, axis, voxels, kernel, mode="same").astype(np.float32)
    elif damage == "slab":
        voxels = voxels[:, :, 20:27]
        affine[:3, 3] += 20 * affine[:3, 2]
    else:
        voxels = voxels * np.linspace(0.3, 2.0, voxels.shape[0], dtype=np.float32)[:, None, None]
    alignment, _ = align(reduced(study, "FLAIR"), reduce_as_prepared(Volume(voxels, affine)))
    whole, _ = align(reduced(study, "FLAIR"), reduced(study, "T1w"))
    points = reduced(study, "FLAIR").grid.world(np.argwhere(reduced(study, "FLAIR").head)[::100])
    assert mean_shift_mm(np.linalg.inv(whole.matrix) @ alignment.matrix, points) < 3.0
