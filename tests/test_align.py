"""Alignment by the headers or rigidly, on the demo study: what moves, what stays, what is refused."""

from __future__ import annotations

import dataclasses
import sys
from collections.abc import Callable
from types import ModuleType
from typing import Any

import numpy as np
import pytest

from rmr_sdk import rigid
from rmr_sdk.demo import demo_study_folder
from rmr_sdk.displacement import displacement, mean_shift_mm
from rmr_sdk.errors import ConfigError, GeometryError, StudyError
from rmr_sdk.geometry import Grid
from rmr_sdk.preprocess import Prepared, prepare
from rmr_sdk.study import Study
from rmr_sdk.volume import Volume

NEAR = (6.0, -5.0, 4.0, 0.08, -0.1, 0.09)  # 8.8 mm and about 9 degrees


@pytest.fixture(scope="module")
def demo() -> Study:
    """Give the demo study: a real T1 and a simulated FLAIR of the same head, on one grid, exactly aligned."""
    return Study.from_folder(demo_study_folder())


@pytest.fixture(scope="module")
def run(make_manifest) -> Callable[..., Prepared]:
    """Give a function that prepares a study."""

    def prepared(study: Study, **options: Any) -> Prepared:
        return prepare(study, make_manifest(), **options)

    return prepared


@pytest.fixture(scope="module")
def near(sitk, demo, run) -> tuple[Study, np.ndarray, Prepared]:
    """Give the demo study with a displaced T1, the displacement, and the study prepared."""
    study, matrix = moved(demo, NEAR)
    return study, matrix, run(study)


def moved(study: Study, parameters: Any, contrast: str = "T1w") -> tuple[Study, np.ndarray]:
    """Displace a contrast's header about the centre of its grid; return the study and the displacement."""
    volume = study[contrast]
    matrix = displacement(parameters, volume.grid.world((np.asarray(volume.data.shape) - 1) / 2))
    return replaced(study, Volume(volume.data, matrix @ volume.affine), contrast), matrix


def replaced(study: Study, volume: Volume, contrast: str = "T1w") -> Study:
    return Study({**study, contrast: volume})


def head_points(study: Study) -> np.ndarray:
    return study["FLAIR"].grid.world(np.argwhere(np.asarray(study["FLAIR"].data[::8, ::8, ::8]) > 0) * 8)


def hide_simpleitk(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "SimpleITK", None)


def test_headers_that_agree_move_nothing(demo, run) -> None:
    prepared = run(demo)
    (alignment,) = prepared.alignments
    assert (alignment.contrast, alignment.reference, alignment.method) == ("T1w", "FLAIR", "header")
    assert alignment.reason == "its header's position matches the FLAIR as well as any nearby"
    assert np.array_equal(alignment.matrix, np.eye(4))
    assert (alignment.shift_mm, alignment.rotation_deg, alignment.similarity_after) == (0, 0, None)
    assert alignment.similarity_before is not None
    assert alignment.similarity_before > 1.3
    assert np.shares_memory(prepared.arrays["T1w"], demo["T1w"].data)
    assert prepared.warnings == ()


def test_a_known_displacement_is_undone(demo, near) -> None:
    _, matrix, prepared = near
    (alignment,) = prepared.alignments
    assert alignment.method == "rigid"
    assert mean_shift_mm(alignment.matrix @ matrix, head_points(demo)) < 0.5
    assert alignment.shift_mm == pytest.approx(mean_shift_mm(np.linalg.inv(matrix), head_points(demo)), abs=1.0)
    assert alignment.rotation_deg == pytest.approx(9.0, abs=0.5)
    assert alignment.similarity_after > alignment.similarity_before + 0.1
    assert alignment.reason.startswith("it matches the FLAIR best ")
    assert prepared.actions[0].startswith("T1w: moved by ")
    assert "resampled (linear)" in prepared.actions[0]


def test_the_reference_stays_and_the_other_moves(demo, near, run) -> None:
    study, matrix, _ = near
    prepared = run(study, reference="T1w")
    (alignment,) = prepared.alignments
    assert (alignment.contrast, alignment.reference) == ("FLAIR", "T1w")
    assert mean_shift_mm(np.linalg.inv(alignment.matrix) @ matrix, head_points(demo)) < 0.5
    assert np.shares_memory(prepared.arrays["T1w"], study["T1w"].data)


def test_aligned_voxels_are_interpolated_at_the_right_place(demo, near, run) -> None:
    study, _, prepared = near
    inner = (slice(20, -20),) * 3
    truth = run(demo, align="header").arrays["T1w"][inner].astype(float)
    apart = np.abs(prepared.arrays["T1w"][inner] - truth)
    assert np.median(apart) < 4  # of 255: what one linear interpolation does to a sharp image
    assert apart.mean() < np.abs(run(study, align="header").arrays["T1w"][inner] - truth).mean() / 4


def test_the_answer_does_not_depend_on_threads_or_repetition(near, run) -> None:
    study, _, prepared = near
    first, second = prepared.alignments[0], run(study, threads=3).alignments[0]
    assert np.array_equal(first.matrix, second.matrix)
    assert first.similarity_after == second.similarity_after


def test_simpleitk_gets_its_threads_back(sitk, near) -> None:
    before = sitk.ProcessObject.GetGlobalDefaultNumberOfThreads()
    with rigid._one_thread(sitk):
        assert sitk.ProcessObject.GetGlobalDefaultNumberOfThreads() == 1
    assert sitk.ProcessObject.GetGlobalDefaultNumberOfThreads() == before


def test_orientations_make_no_difference(near, run, reoriented) -> None:
    study, _, prepared = near
    turned = Study({"T1w": reoriented(study, "PSL")["T1w"], "FLAIR": reoriented(study, "ILA")["FLAIR"]})
    np.testing.assert_allclose(run(turned).alignments[0].matrix, prepared.alignments[0].matrix, atol=1e-9)


def test_header_never_registers(demo, run) -> None:
    (alignment,) = run(moved(demo, NEAR)[0], align="header").alignments
    assert (alignment.method, alignment.similarity_before) == ("header", None)
    assert alignment.reason == "as asked, its header was taken at its word"


def test_none_checks_nothing(demo, run) -> None:
    (alignment,) = run(demo, align="none").alignments
    assert (alignment.method, alignment.reason) == ("none", "as asked, nothing was checked: both are on one grid")


def test_rigid_registers_what_agrees_too(sitk, demo, run) -> None:
    (alignment,) = run(demo, align="rigid").alignments
    assert alignment.method == "rigid"
    assert alignment.shift_mm < 0.3
    assert alignment.reason.startswith("as asked: ")


def test_rigid_keeps_the_header_where_nothing_matches_better(demo, run, monkeypatch) -> None:
    monkeypatch.setattr(rigid, "refine", lambda *_: displacement([0, 0, 15.0, 0, 0, 0], np.zeros(3)))
    (alignment,) = run(demo, align="rigid").alignments
    assert alignment.method == "header"
    assert alignment.reason == "no rigid displacement matches the FLAIR better than its header's position"


def test_a_registration_that_went_astray_is_not_taken(demo, run, monkeypatch) -> None:
    study, matrix = moved(demo, NEAR)
    monkeypatch.setattr(rigid, "refine", lambda *_: displacement([0, 0, 15.0, 0, 0, 0], np.zeros(3)))
    (alignment,) = run(study).alignments
    assert mean_shift_mm(alignment.matrix @ matrix, head_points(demo)) < 1.0


def test_without_simpleitk_auto_warns_and_names_the_extra(demo, run, monkeypatch) -> None:
    study, _ = moved(demo, NEAR)
    hide_simpleitk(monkeypatch)
    prepared = run(study)
    assert prepared.alignments[0].method == "header"
    warning = next(each for each in prepared.warnings if "rmr-sdk[align]" in each)
    assert warning.startswith("T1w: it matches the FLAIR best ")
    assert run(demo).warnings == ()


def test_without_simpleitk_rigid_is_an_error(demo, run, monkeypatch) -> None:
    hide_simpleitk(monkeypatch)
    with pytest.raises(ConfigError, match=r"needs the extra `align`, which is not installed.*rmr-sdk\[align\]"):
        run(demo, align="rigid")


def test_simpleitk_that_gives_up_is_an_error_with_its_cause(sitk, demo, run, monkeypatch) -> None:
    def give_up(*_: object) -> None:
        raise RuntimeError("all samples map outside")

    monkeypatch.setattr(sitk.ImageRegistrationMethod, "Execute", give_up)
    with pytest.raises(GeometryError, match="SimpleITK found no rigid alignment") as caught:
        run(demo, align="rigid")
    assert isinstance(caught.value.__cause__.__cause__, RuntimeError)


def test_a_large_movement_is_worth_a_warning(sitk, demo, run) -> None:
    study, _ = moved(demo, (12.0, 0, 0, 0, 0, 0))
    warnings = run(study).warnings
    assert warnings[0] == "T1w: was moved by 12.0 mm and 0.0 degrees to match the FLAIR; look at it"


@pytest.mark.parametrize("parameters", [(0, 0, 45.0, 0, 0, 0), (0, 0, 0, 0.55, 0, 0)])
def test_what_no_patient_moves_is_a_wrong_header(sitk, demo, run, parameters) -> None:
    study, _ = moved(demo, parameters)
    with pytest.raises(GeometryError, match="that is no movement of a patient but a wrong header") as caught:
        run(study)
    assert caught.value.facts["contrast"] == "T1w"
    assert run(study, align="header").alignments[0].method == "header"


@pytest.mark.parametrize("shift_mm", [6.0, 300.0])
def test_different_frames_of_reference_are_not_trusted(sitk, demo, run, shift_mm) -> None:
    study, matrix = moved(demo, (0, 0, shift_mm, 0, 0, 0))
    frames = {"T1w": "one", "FLAIR": "another"}
    (alignment,) = run(dataclasses.replace(study, frames=frames)).alignments
    assert alignment.method == "rigid"
    assert alignment.reason.startswith("it and the FLAIR come from different frames of reference: it matches ")
    assert mean_shift_mm(alignment.matrix @ matrix, head_points(demo)) < 0.5


def test_different_frames_of_reference_without_simpleitk_are_a_warning(demo, run, monkeypatch) -> None:
    hide_simpleitk(monkeypatch)
    prepared = run(dataclasses.replace(demo, frames={"T1w": "one", "FLAIR": "another"}))
    assert prepared.alignments[0].method == "header"
    assert prepared.warnings[0].startswith("T1w: it and the FLAIR come from different frames of reference: ")


@pytest.mark.parametrize("frames", [{"T1w": "one", "FLAIR": "one"}, {"T1w": "one"}, {}])
def test_frames_that_do_not_differ_change_nothing(demo, run, frames) -> None:
    assert run(dataclasses.replace(demo, frames=frames)).alignments[0].method == "header"


def test_a_head_of_another_size_is_another_head(demo, run) -> None:
    volume = demo["T1w"]
    centre = volume.grid.world((np.asarray(volume.data.shape) - 1) / 2)
    larger = np.diag([1.2, 1.2, 1.2, 1.0])
    larger[:3, 3] = -0.2 * centre
    with pytest.raises(StudyError, match=r'contrast "T1w": it cannot be of the head that the FLAIR shows') as caught:
        run(replaced(demo, Volume(volume.data, larger @ volume.affine)))
    assert caught.value.facts["drop"] < 0.042


def test_a_head_the_wrong_way_round_is_worth_a_warning(demo, run) -> None:
    backwards = replaced(demo, Volume(demo["T1w"].data[:, ::-1], demo["T1w"].affine))
    prepared = run(backwards)
    assert prepared.warnings[0].startswith("T1w: matches the FLAIR loosely: ")
    assert prepared.alignments[0].method == "header"
    differ = run(dataclasses.replace(backwards, frames={"T1w": "one", "FLAIR": "another"}))
    assert any("too loosely to correct its header" in warning for warning in differ.warnings)


def test_what_shares_no_more_than_chance_is_refused(demo, run) -> None:
    shuffled = demo["T1w"].data.ravel().copy()
    np.random.default_rng(0).shuffle(shuffled)
    study = replaced(demo, Volume(shuffled.reshape(demo["T1w"].data.shape), demo["T1w"].affine))
    with pytest.raises(StudyError, match="it has no more in common with the FLAIR than chance"):
        run(study)
    assert run(study, align="header").alignments[0].method == "header"


def test_what_shares_very_little_is_a_warning(demo, run) -> None:
    rng, volume = np.random.default_rng(0), demo["T1w"]
    noisy = np.abs(volume.data + rng.normal(0, 450, volume.data.shape)).astype(np.float32)
    prepared = run(replaced(demo, Volume(noisy, volume.affine)))
    assert prepared.alignments[0].reason == "it matches the FLAIR too loosely to correct its header"
    assert any("that its position could hardly be checked" in warning for warning in prepared.warnings)


def test_too_little_of_a_head_is_left_to_its_header(make_grid, make_phantom, run) -> None:
    study = make_phantom(make_grid())
    prepared = run(study)
    (alignment,) = prepared.alignments
    assert alignment.reason == "it shows too little of the head that the FLAIR shows to check its header"
    assert prepared.warnings == ()
    differ = run(dataclasses.replace(study, frames={"T1w": "one", "FLAIR": "another"}))
    assert "different frames of reference, and it shows too little" in differ.warnings[0]


def test_too_little_of_a_head_cannot_be_registered(sitk, make_grid, make_phantom, run) -> None:
    with pytest.raises(GeometryError, match="shows too little of the head that the FLAIR shows to be aligned rigidly"):
        run(make_phantom(make_grid()), align="rigid")


def test_simpleitk_is_told_where_voxels_are(sitk: ModuleType, demo) -> None:
    from rmr_sdk.similarity import reduce_volume

    tilted = displacement([1, 2, 3, 0.1, 0.2, 0.3], np.zeros(3)) @ np.diag([-2.0, 2.0, 3.0, 1.0])
    reduced = reduce_volume(demo["T1w"].data, Grid(demo["T1w"].data.shape, tilted))
    image = rigid._image(sitk, reduced)
    index = (3, 5, 7)
    np.testing.assert_allclose(image.TransformIndexToPhysicalPoint(index), reduced.grid.world(index), atol=1e-6)
    assert image.GetPixel(*index) == reduced.level[index]
