"""A result prints what matters, hides what is private, and saves all of its files."""

from __future__ import annotations

import dataclasses
import pickle
from pathlib import Path

import numpy as np
import pytest
from sample_results import make_fused_only, make_grid, make_result

from rmr_sdk.io.nifti import read_volume
from rmr_sdk.result import OUTPUT_FILES, describe_lesions, format_ml


def test_prints_the_main_facts() -> None:
    result = make_result(warnings=("FLAIR is coarse",), notice="simulated")
    text = str(result)
    for part in ("1 lesion, 0.", "CSF", "60 x 72 x 54 voxels", "LAS", "ms-test 1.2.3", "openvino on cpu, fp32 (3.8 s)"):
        assert part in text
    for line in ("Warning:  FLAIR is coarse", "Notice:   simulated"):
        assert line in text.splitlines()
    assert "not a medical device" in text.splitlines()[-1]


def test_prints_without_segmentation() -> None:
    assert "this bundle only fuses" in str(make_fused_only())
    assert make_fused_only().lesion_ml is None


def test_repr_shows_no_voxels_and_no_inputs() -> None:
    text = repr(make_result())
    assert "inputs" not in text
    assert "array(" not in text


def test_is_frozen_and_pickles() -> None:
    result = make_result()
    with pytest.raises(dataclasses.FrozenInstanceError):
        result.notice = "changed"  # type: ignore[misc]
    copy = pickle.loads(pickle.dumps(result))
    assert copy.lesions == result.lesions
    np.testing.assert_array_equal(copy.labels.data, result.labels.data)


@pytest.mark.parametrize(
    ("spheres", "words"),
    [
        ([], "No lesion found"),
        ([((0.0, 0.0, 0.0), 4.0)], "1 lesion, 0.26 ml"),
        ([((0.0, 0.0, 0.0), 4.0), ((12.0, 0.0, 0.0), 3.0)], "2 lesions, 0.38 ml in all, the largest 0.26 ml"),
    ],
)
def test_describes_lesions(spheres: list[tuple[tuple[float, float, float], float]], words: str) -> None:
    lesions = make_result(make_grid(shape=(59, 71, 53)), spheres).lesions
    assert describe_lesions(lesions) == words


def test_formats_volumes() -> None:
    assert [format_ml(volume) for volume in (0.004, 12.345, 612.7)] == ["0.00 ml", "12.35 ml", "613 ml"]


@pytest.mark.parametrize("codes", ["LAS", "PSR"])
def test_saved_volumes_read_back_exactly(tmp_path: Path, codes: str) -> None:
    result = make_result(make_grid(codes))
    written = result.save(tmp_path / "new" / "folder")
    assert sorted(path.name for path in written) == sorted(OUTPUT_FILES)
    for name in ("fused", "labels", "lesion_probability"):
        volume, warnings = read_volume(tmp_path / "new" / "folder" / f"{name}.nii.gz")
        np.testing.assert_array_equal(volume.data, getattr(result, name).data)
        np.testing.assert_array_equal(volume.affine, result.fused.affine)
        assert not warnings


def test_saves_into_an_existing_folder_beside_other_files(tmp_path: Path) -> None:
    (tmp_path / "notes.txt").write_text("mine")
    make_result().save(str(tmp_path))
    assert sorted(path.name for path in tmp_path.iterdir()) == sorted((*OUTPUT_FILES, "notes.txt"))


def test_overwriting_leaves_no_file_of_the_earlier_result(tmp_path: Path) -> None:
    """Labels of another run beside a fused volume would look as if they belonged to it."""
    make_result().save(tmp_path)
    before = (tmp_path / "report.json").read_bytes()
    make_fused_only().save(tmp_path, overwrite=True)
    assert sorted(p.name for p in tmp_path.iterdir()) == ["fused.nii.gz", "preview.png", "report.html", "report.json"]
    assert (tmp_path / "report.json").read_bytes() != before


def test_saves_the_same_bytes_each_time(tmp_path: Path) -> None:
    for folder in ("a", "b"):
        make_result().save(tmp_path / folder)
    for name in OUTPUT_FILES:
        assert (tmp_path / "a" / name).read_bytes() == (tmp_path / "b" / name).read_bytes(), name


def test_every_output_carries_the_notice(tmp_path: Path) -> None:
    import nibabel

    notice = "FLAIR and lesions are simulated"
    make_result(notice=notice).save(tmp_path)
    for name in ("fused", "labels", "lesion_probability"):
        assert nibabel.load(tmp_path / f"{name}.nii.gz").header["descrip"].item().decode() == notice
    for name in ("report.json", "report.html"):
        assert notice in (tmp_path / name).read_text(encoding="utf-8")
