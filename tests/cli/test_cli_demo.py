"""`rmr demo`: the shipped study, a real one, and the overlap with a lesion mask."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from sample_results import make_fused_only, make_result
from tiny_study import lesion_mask, make_grid, write_study

from rmr_sdk import Volume, list_bundles
from rmr_sdk.cli import demo, main
from rmr_sdk.demo import DEMO_NOTICE
from rmr_sdk.geometry import reorient
from rmr_sdk.io.nifti import write_volume
from rmr_sdk.io.report import decode_report
from rmr_sdk.result import OUTPUT_FILES

Rmr = Callable[..., int]


def test_demo(rmr: Rmr, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    shipped = write_study(tmp_path / "demo", mask=True)
    (shipped / "lesion.nii.gz").rename(shipped / "sub-demo_label-lesion_mask.nii.gz")
    monkeypatch.setattr(demo, "demo_study_folder", lambda: shipped)
    monkeypatch.chdir(tmp_path)
    for _ in range(2):  # the second run replaces the files of the first
        assert rmr("demo") == 0
    printed = capsys.readouterr().out
    assert printed.startswith(f"Demo study. {DEMO_NOTICE}.\n")
    assert f"Notice:   {DEMO_NOTICE}" in printed
    assert "with the simulated lesions; it shows that the installation works, no more" in printed
    assert sorted(path.name for path in (tmp_path / "demo_output").iterdir()) == sorted(OUTPUT_FILES)
    assert decode_report((tmp_path / "demo_output" / "report.json").read_bytes()).notice == DEMO_NOTICE
    assert rmr("demo", "--json") == 0
    json.loads(capsys.readouterr().out)


def test_demo_of_a_real_study(rmr: Rmr, folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert rmr("demo", folder, "--out", tmp_path) == 0
    printed = capsys.readouterr().out
    assert DEMO_NOTICE not in printed
    assert "with the lesion mask of the folder; this is one study" in printed
    assert decode_report((tmp_path / "report.json").read_bytes()).notice == ""


@pytest.mark.parametrize(
    ("simulated", "seen", "words"), [(True, True, "works, no more"), (False, True, "it measures nothing")]
)
def test_overlap_with_what_was_trained_on_is_no_measure(simulated: bool, seen: bool, words: str) -> None:
    assert demo._describe_overlap(0.5, simulated, seen).endswith(words)


def test_a_study_that_the_weights_have_seen_is_known_by_its_name(
    rmr: Rmr, folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    training = SimpleNamespace(studies_seen=(folder.name,))
    bundle = SimpleNamespace(manifest=SimpleNamespace(training=training))
    monkeypatch.setattr(demo, "Bundle", SimpleNamespace(open=lambda name: bundle))
    assert rmr("demo", folder, "--out", tmp_path) == 0
    assert "the network has learnt from a study of this name" in capsys.readouterr().out


@pytest.mark.skipif("ms-edge" not in list_bundles(), reason="the bundle ms-edge does not come with this source tree")
def test_the_shipped_demo(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["demo", "--out", str(tmp_path)]) == 0
    printed = capsys.readouterr().out
    dice = float(printed.partition("Overlap:  Dice ")[2].split()[0])
    assert dice > 0.5
    assert sorted(path.name for path in tmp_path.iterdir()) == sorted(OUTPUT_FILES)


def test_a_mask_on_another_grid_is_not_measured(rmr: Rmr, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    study = write_study(tmp_path / "study")
    write_volume(study / "lesion.nii.gz", lesion_mask(make_grid(spacing_mm=2.0)))
    assert rmr("demo", study, "--out", tmp_path / "out") == 0
    assert "Overlap:  not measured: the lesion mask of the folder is on another grid" in capsys.readouterr().out


def test_dice() -> None:
    result = make_result()
    mask = Volume((result.labels.data == 4).astype(np.uint8), result.labels.affine)
    assert demo.lesion_dice(result, mask) == 1.0
    axes = reorient(mask.grid, "SPR")
    assert demo.lesion_dice(result, Volume(axes.apply(mask.data), axes.grid.affine)) == 1.0
    half = mask.data.copy()
    half[: int(np.argwhere(mask.data).mean(axis=0)[0])] = 0
    kept, whole = int(half.sum()), int(mask.data.sum())
    assert demo.lesion_dice(result, Volume(half, mask.affine)) == pytest.approx(2 * kept / (kept + whole))
    assert demo.lesion_dice(result, Volume(np.roll(mask.data, 30, 0), mask.affine)) == 0.0
    assert demo.lesion_dice(make_result(spheres=()), Volume(np.zeros_like(mask.data), mask.affine)) == 1.0
    elsewhere = make_grid(shape=(10, 10, 10))
    assert demo.lesion_dice(result, Volume(np.ones(elsewhere.shape), elsewhere.affine)) is None
    assert demo.lesion_dice(make_fused_only(), mask) is None
