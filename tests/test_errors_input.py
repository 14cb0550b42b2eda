"""Every way in which input can be wrong: the error's type and its words."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import nibabel
import numpy as np
import pytest
from hostile.nifti_files import AFFINES, CONTENT, PLACES

from rmr_sdk.errors import ConfigError, FormatError, GeometryError, InputError, OutputError, StudyError
from rmr_sdk.geometry import Grid, reorient
from rmr_sdk.intensity import fit_normalisation
from rmr_sdk.io.nifti import read_volume, write_volume
from rmr_sdk.manifest import MinMax, Robust
from rmr_sdk.preprocess import prepare
from rmr_sdk.study import Study
from rmr_sdk.volume import Volume

EYE = np.eye(4)
ONES = np.ones((3, 3, 3), np.float32)
LONG = np.arange(448, dtype=np.float32).reshape(112, 2, 2)


def affine(**entries: float) -> np.ndarray:
    """Return the identity with entries such as `m00=2` replaced."""
    matrix = np.eye(4)
    for name, value in entries.items():
        matrix[int(name[1]), int(name[2])] = value
    return matrix


def raises(kind: type[InputError], words: str, action: Callable[[], Any]) -> InputError:
    """Run the action and return its error, which must be of this very type, and say these words and a fix."""
    with pytest.raises(kind, match=re.escape(words)) as caught:
        action()
    assert type(caught.value) is kind
    assert caught.value.fix.endswith(".")
    assert caught.value.exit_code == 3
    return caught.value


@pytest.mark.parametrize("case", CONTENT)
@pytest.mark.parametrize("name", ["scan.nii", "scan.nii.gz"])
def test_file_content(tmp_path: Path, case: str, name: str) -> None:
    make, words = CONTENT[case]
    (tmp_path / name).write_bytes(make())
    raises(FormatError, f'"{tmp_path / name}" {words}', lambda: read_volume(tmp_path / name))


@pytest.mark.parametrize("case", AFFINES)
def test_file_affine(tmp_path: Path, case: str) -> None:
    make, words = AFFINES[case]
    (tmp_path / "scan.nii").write_bytes(make())
    raises(GeometryError, f'"{tmp_path / "scan.nii"}": {words}', lambda: read_volume(tmp_path / "scan.nii"))


@pytest.mark.parametrize("case", PLACES)
def test_file_place(tmp_path: Path, case: str) -> None:
    make, words = PLACES[case]
    make(tmp_path / "scan.nii.gz")
    raises(FormatError, f'scan.nii.gz" {words}', lambda: Study.from_files(T1w=tmp_path / "scan.nii.gz"))


def test_file_that_cannot_be_opened(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "scan.nii").touch()

    def refuse(*_: Any) -> None:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr("builtins.open", refuse)
    raises(FormatError, 'scan.nii" cannot be read: Permission denied.', lambda: read_volume(tmp_path / "scan.nii"))


@pytest.mark.parametrize(
    ("shape", "matrix", "words"),
    [
        ((3, 3), EYE, "a volume needs three axes of at least one voxel, not the shape (3, 3)."),
        ((3, 3, 3, 2), EYE, "not the shape (3, 3, 3, 2)."),
        ((3, 0, 3), EYE, "not the shape (3, 0, 3)."),
        ((3, 3, 3), np.eye(3), "an affine has the shape (4, 4), not (3, 3)."),
        ((3, 3, 3), affine(m03=np.inf), "the affine holds NaN or infinite numbers."),
        ((3, 3, 3), affine(m33=2), "the last row of the affine is [0.0, 0.0, 0.0, 2.0], not 0 0 0 1."),
        ((3, 3, 3), affine(m11=0), "the affine is singular"),
        ((3, 3, 3), affine(m11=0, m01=1), "the affine is singular"),
        ((3, 3, 3), affine(m11=1e-9, m01=1), "the affine is singular"),
    ],
)
def test_grid(shape: tuple[int, ...], matrix: np.ndarray, words: str) -> None:
    raises(GeometryError, words, lambda: Grid(shape, matrix))  # type: ignore[arg-type]


@pytest.mark.parametrize("codes", ["", "RA", "RASS", "RRS", "RAX", "RLS", "XRAS"])
def test_orientation(codes: str) -> None:
    raises(
        GeometryError,
        f'"{codes}" is not an orientation. Give one letter',
        lambda: reorient(Grid((2, 2, 2), EYE), codes),
    )


@pytest.mark.parametrize(
    ("dtype", "words"),
    [
        ("complex64", "the voxels are complex64, not real numbers. Pass one real value per voxel"),
        ([("R", "u1"), ("G", "u1"), ("B", "u1")], "the voxels are RGB, not real"),
        ("object", "the voxels are object, not"),
        ("U3", "the voxels are str96, not"),
        ("M8[s]", "the voxels are datetime64[s], not"),
    ],
)
def test_voxel_type(dtype: Any, words: str) -> None:
    array = np.zeros((3, 3, 3), dtype)
    raises(StudyError, words, lambda: Volume(array, EYE))
    error = raises(StudyError, f'contrast "T1w": {words}', lambda: Study.from_arrays({"T1w": array}, affine=EYE))
    assert error.contrast == "T1w"


def test_image_voxel_type() -> None:
    image = nibabel.Nifti1Image(np.zeros((3, 3, 3), np.complex64), EYE)
    raises(StudyError, 'contrast "T1w": the voxels are complex64', lambda: Study.from_images({"T1w": image}))


@pytest.mark.parametrize(
    ("action", "kind", "words"),
    [
        (lambda: Study.from_files(), StudyError, "the study holds no contrast. Pass at least one volume"),
        (lambda: Study.from_arrays({}, affine=EYE), StudyError, "the study holds no contrast."),
        (
            lambda: Study.from_arrays({"T1w": ONES, "FLAIR": ONES}, affine={"T1w": EYE}),
            GeometryError,
            'contrast "FLAIR" has no affine (given for: "T1w").',
        ),
        (
            lambda: Study.from_arrays({"FLAIR": ONES[0]}, affine=EYE),
            GeometryError,
            'contrast "FLAIR": a volume needs three axes',
        ),
        (
            lambda: Study.from_arrays({"T1w": ONES}, affine=EYE).require(["T1w", "FLAIR"]),
            StudyError,
            'contrast "FLAIR" is missing (found: "T1w"). Pass --flair FILE, or FLAIR=FILE to Study.from_files.',
        ),
    ],
)
def test_study(action: Callable[[], Any], kind: type[InputError], words: str) -> None:
    raises(kind, words, action)


@pytest.mark.parametrize(
    ("files", "words"),
    [
        ([], "the folder holds no NIfTI file that is named like a T1w or a FLAIR. Name them t1.nii.gz"),
        (["t1.txt", "brain.nii.gz"], "the folder holds no NIfTI file"),
        (["a_T1w.nii", "b_T1w.nii"], "the folder holds 2 files that could be its T1w. Keep one study per folder"),
        (["flair.nii", "flair.nii.gz"], "the folder holds 2 files that could be its FLAIR."),
    ],
)
def test_study_folder(tmp_path: Path, files: list[str], words: str) -> None:
    for name in files:
        write_volume(tmp_path / name, Volume(ONES, EYE))
    raises(StudyError, words, lambda: Study.from_folder(tmp_path))


@pytest.mark.parametrize("name", ["nowhere", "n" * 300])
def test_study_folder_that_is_not_there(tmp_path: Path, name: str) -> None:
    raises(StudyError, f'{name}" is not a folder.', lambda: Study.from_folder(tmp_path / name))


def test_study_folder_that_cannot_be_listed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(_: Path) -> None:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(Path, "iterdir", refuse)  # root may list any folder
    raises(StudyError, '" cannot be read: Permission denied. Check', lambda: Study.from_folder(tmp_path))


@pytest.mark.parametrize(
    ("normalisation", "array"),
    [(Robust(), -ONES), (Robust(), 0 * ONES), (Robust(), 1e-35 * ONES), (MinMax(), -ONES), (MinMax(), 7 * ONES)],
)
def test_normalisation(normalisation: Any, array: np.ndarray) -> None:
    raises(StudyError, "no two voxels above zero differ", lambda: fit_normalisation(array, normalisation))


def with_voxel(value: float) -> np.ndarray:
    """Return a ramp of 27 voxels, the middle one replaced."""
    array = np.arange(27, dtype=np.float32).reshape(3, 3, 3)
    array[1, 1, 1] = value
    return array


def far_away() -> Study:
    """Return two contrasts half a metre apart."""
    return Study.from_arrays(
        {"T1w": with_voxel(1), "FLAIR": with_voxel(1)}, affine={"T1w": affine(m03=500), "FLAIR": EYE}
    )


def shifted() -> Study:
    """Return two contrasts half a voxel apart."""
    return Study.from_arrays(
        {"T1w": with_voxel(1), "FLAIR": with_voxel(1)}, affine={"T1w": affine(m03=0.5), "FLAIR": EYE}
    )


def pair(t1w: np.ndarray, flair: np.ndarray) -> Study:
    """Return a study of two arrays on one grid."""
    return Study.from_arrays({"T1w": t1w, "FLAIR": flair}, affine=EYE)


@pytest.mark.parametrize(
    ("study", "options", "kind", "words"),
    [
        (
            lambda: pair(ONES, ONES),
            {"align": "fast"},
            ConfigError,
            'align is "fast". Choose one of "auto", "header", "rigid", "none".',
        ),
        (
            lambda: pair(ONES, ONES),
            {"non_finite": "skip"},
            ConfigError,
            'non_finite is "skip". Choose one of "error", "zero".',
        ),
        (
            lambda: pair(ONES, ONES),
            {"reference": "T2w"},
            ConfigError,
            'reference is "T2w". Choose one of "T1w", "FLAIR".',
        ),
        (
            lambda: Study.from_arrays({"T1w": ONES}, affine=EYE),
            {},
            StudyError,
            'contrast "FLAIR" is missing (found: "T1w").',
        ),
        (
            lambda: pair(with_voxel(1), with_voxel(np.nan)),
            {},
            StudyError,
            'contrast "FLAIR": it holds NaN or infinite voxels (1 of 27). Pass non_finite="zero" (--non-finite zero)',
        ),
        (
            lambda: pair(with_voxel(-np.inf), with_voxel(1)),
            {},
            StudyError,
            'contrast "T1w": it holds NaN or infinite voxels (1 of 27).',
        ),
        (lambda: pair(with_voxel(1), ONES), {}, StudyError, 'contrast "FLAIR": every voxel is 1.0. Check that this is'),
        (
            lambda: pair(with_voxel(1), ONES * np.nan),
            {"non_finite": "zero"},
            StudyError,
            'contrast "FLAIR": every voxel is 0.0.',
        ),
        (
            lambda: pair(with_voxel(1), -with_voxel(1)),
            {},
            StudyError,
            'contrast "FLAIR": no two voxels above zero differ',
        ),
        (
            far_away,
            {},
            GeometryError,
            'contrast "T1w": it does not overlap the reference "FLAIR" in space. Check that all',
        ),
        (
            lambda: Study.from_arrays(
                {"T1w": with_voxel(1), "FLAIR": with_voxel(1)}, affine=np.diag([0.001] * 3 + [1])
            ),
            {},
            GeometryError,
            'contrast "T1w": its voxels are 0.001 x 0.001 x 0.001 mm, which no scan of a head has. Check the unit',
        ),
        (
            lambda: Study.from_arrays(dict.fromkeys(("T1w", "FLAIR"), LONG), affine=np.diag([9.0, 1, 1, 1])),
            {},
            GeometryError,
            'contrast "T1w": its field of view is 1008 x 2 x 2 mm, which no scan of a head has. Check the unit',
        ),
        (
            shifted,
            {"align": "none"},
            GeometryError,
            'contrast "T1w": it is on another grid than the reference "FLAIR", and align="none"',
        ),
    ],
)
def test_prepare(
    make_manifest: Callable[..., Any],
    study: Callable[[], Study],
    options: dict[str, Any],
    kind: type[InputError],
    words: str,
) -> None:
    raises(kind, words, lambda: prepare(study(), make_manifest(), **options))


@pytest.mark.parametrize("place", ["no/such/folder/x.nii.gz", "file/x.nii.gz", "folder"])
def test_output_place(tmp_path: Path, place: str) -> None:
    (tmp_path / "file").touch()
    (tmp_path / "folder").mkdir()
    with pytest.raises(OutputError, match=r"cannot be written: .* Check the folder") as caught:
        write_volume(tmp_path / place, Volume(ONES, EYE))
    assert caught.value.exit_code == 6
    assert sorted(path.name for path in tmp_path.rglob("*")) == ["file", "folder"]
