"""The whole way of an evaluation: from folders and a bundle or a checkpoint to rows, files and a few lines."""

from __future__ import annotations

import argparse
import csv
import importlib
import json
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from tiny_study import lesion_mask, make_grid, make_study, make_tiny, write_study

from rmr_sdk import Pipeline
from rmr_sdk.errors import BundleError, ConfigError, FormatError, GeometryError, OutputError, RmrError, StudyError
from rmr_sdk.geometry import reorient
from rmr_sdk.io.nifti import write_volume
from rmr_sdk.manifest import MinMax
from rmr_sdk.study import Study
from rmr_sdk.volume import Volume
from rmr_training.checkpoint import save_checkpoint
from rmr_training.cli_evaluate import add_evaluate
from rmr_training.evaluate import (
    BundleSubject,
    NetworkSubject,
    Plan,
    assess,
    evaluate,
    figure,
    load_case,
    load_study,
    open_subject,
    predict,
    to_document,
    to_table,
)
from rmr_training.evaluate.assessment import Evaluation
from rmr_training.evaluate.report import to_json, to_text
from rmr_training.evaluate.segmentation import LesionCounts, count_lesions
from rmr_training.models import RmrFusion
from tests.training.test_stages import TINY

ROOT = Path(__file__).parents[2]
QUICK = {"baselines": ("average",), "strengths": (3,)}


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("bundle") / "tiny.zip"
    make_tiny(path)
    return path


@pytest.fixture(scope="module")
def subject(bundle: Path) -> Any:
    with Pipeline.open(bundle, threads=1) as pipeline:
        yield BundleSubject(pipeline)


@pytest.fixture(scope="module")
def study(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Give the folder of a study with one lesion and its mask."""
    return write_study(tmp_path_factory.mktemp("studies") / "alpha", mask=True)


@pytest.fixture
def command(capsys: pytest.CaptureFixture[str]) -> Callable[..., str]:
    """Give a function that runs the sub-command and returns what it prints."""
    parser = argparse.ArgumentParser()
    add_evaluate(parser.add_subparsers())

    def run(*arguments: object) -> str:
        options = parser.parse_args(["evaluate", *map(str, arguments)])
        options.command(options)
        return capsys.readouterr().out

    return run


def network(seed: int = 0) -> RmrFusion:
    torch.manual_seed(seed)
    return RmrFusion(TINY)


def with_files(folder: Path, **volumes: Volume) -> Path:
    write_study(folder)
    for name, volume in volumes.items():
        write_volume(folder / f"{name}.nii.gz", volume)
    return folder


# Cases


def test_a_lesion_mask_tells_of_lesions_alone(subject: BundleSubject, study: Path) -> None:
    case = load_case(study, subject.manifest)
    assert list(case.truth) == ["lesion"]
    assert np.array_equal(case.truth["lesion"], case.turn(lesion_mask(make_grid()).data) > 0)
    assert case.axes.grid.orientation == "SAR"
    assert case.notes == ()


@pytest.mark.parametrize("name", ["labels", "sub-1_dseg"])
def test_labels_tell_of_every_class(name: str, subject: BundleSubject, tmp_path: Path) -> None:
    labels = np.zeros(make_grid().shape, np.uint8)
    labels[3:9, 3:9, 3:9], labels[5, 5, 5] = 3, 4
    # A lesion mask beside it says less, and is not looked at.
    folder = with_files(
        tmp_path / "beta", **{name: Volume(labels, make_grid().affine), "lesion": lesion_mask(make_grid())}
    )
    case = load_case(folder, subject.manifest)
    assert {key: int(mask.sum()) for key, mask in case.truth.items()} == {
        "csf": 0,
        "grey_matter": 0,
        "white_matter": 215,
        "lesion": 1,
    }


@pytest.mark.parametrize("name", ["sub-1_desc-lesion_mask", "sub-1_label-lesion_mask"])
def test_names_of_lesion_masks(name: str, subject: BundleSubject, tmp_path: Path) -> None:
    assert load_case(with_files(tmp_path, **{name: lesion_mask(make_grid())}), subject.manifest).truth


def test_contrasts_on_different_grids_meet_on_the_networks(subject: BundleSubject, tmp_path: Path) -> None:
    grids = {"T1w": make_grid("RAS"), "FLAIR": make_grid("LPS", (20, 24, 11))}
    thick = make_grid("LPS", (20, 24, 11))
    thick_affine = thick.affine.copy()
    thick_affine[:3, 2] *= 2  # slices of 2 mm
    grids["FLAIR"] = type(thick)(thick.shape, thick_affine)
    case = load_case(write_study(tmp_path, make_study(grids)), subject.manifest)
    assert case.truth == {}
    assert case.axes.grid.spacing_mm == pytest.approx((1, 1, 1))
    assert case.study["T1w"].grid.matches(case.study["FLAIR"].grid)
    assert any("resampled" in note for note in case.notes)
    assert "no ground truth" in case.notes[0]
    assert "lesion_f1" not in str(assess(subject, [tmp_path], Plan(**QUICK)).segmentation)


def test_a_network_without_a_head_is_assessed_on_fusion(study: Path, tmp_path: Path) -> None:
    make_tiny(tmp_path / "headless.zip", classes=None)
    found = open_subject(str(tmp_path / "headless.zip"), threads=1)
    evaluation = assess(found, [study], Plan(**QUICK))
    found.close()
    assert evaluation.segmentation == []
    assert "does not segment" in evaluation.studies[0]["notes"][0]
    assert {row["method"] for row in evaluation.fusion} == {"network", "average"}


# Figures


def test_clean_figures_of_the_tiny_bundle(subject: BundleSubject, study: Path) -> None:
    evaluation = assess(subject, [study], Plan(**QUICK))
    (row,) = evaluation.segmentation
    assert (row["study"], row["condition"], row["strength"], row["class"]) == ("alpha", "clean", 0, "lesion")
    assert row["dice"] > 0.5
    assert (row["sensitivity"], row["false_lesions"], row["lesion_f1"]) == (1.0, 0, 1.0)
    assert row["absolute_volume_error_ml"] == abs(row["predicted_ml"] - row["truth_ml"])
    ours, average = evaluation.fusion
    assert (ours["method"], average["method"]) == ("network", "average")
    # The tiny network fuses by averaging, so its figures are those of the baseline.
    for name in ("ssim", "mi", "nmi", "fmi", "qabf", "vif", "scd", "entropy"):
        assert ours[name] == pytest.approx(average[name], abs=2e-3), name


def test_min_max_bundles_are_assessed_in_their_own_units(study: Path, tmp_path: Path) -> None:
    make_tiny(tmp_path / "tiny.zip", normalisation=MinMax())
    found = open_subject(str(tmp_path / "tiny.zip"), threads=1)
    ours, average = assess(found, [study], Plan(**QUICK)).fusion
    found.close()
    assert ours["ssim"] == pytest.approx(average["ssim"], abs=2e-3)


def test_damage_shows(subject: BundleSubject, study: Path) -> None:
    plan = Plan(conditions=("noise", "blur"), **QUICK)
    evaluation = assess(subject, [study], plan)
    levels = [(row["condition"], row["strength"]) for row in evaluation.segmentation]
    assert levels == [("clean", 0), ("noise", 3), ("blur", 3)]
    ssim = {row["condition"]: row["ssim"] for row in evaluation.fusion if row["method"] == "network"}
    assert ssim["noise"] < ssim["clean"]
    summary = {
        (row["condition"], row["figure"]): row
        for row in to_document(evaluation)["summary"]
        if row.get("method") == "network"
    }
    assert summary["noise", "ssim"]["drop"] == pytest.approx(ssim["clean"] - ssim["noise"])
    assert summary["clean", "ssim"]["drop"] == 0
    assert {row["n"] for row in summary.values()} == {1}


def test_one_contrast_can_be_damaged_alone(subject: BundleSubject, study: Path) -> None:
    both, one = (
        assess(subject, [study], Plan(conditions=("noise",), damaged=damaged, **QUICK)).fusion[2]
        for damaged in ((), ("T1w",))
    )
    assert one["ssim_flair"] > both["ssim_flair"]


def test_figures_do_not_depend_on_threads_or_company(subject: BundleSubject, study: Path, tmp_path: Path) -> None:
    other = write_study(tmp_path / "beta", mask=True)
    plan = {"conditions": ("noise",), **QUICK}
    alone = assess(subject, [study], Plan(**plan)).fusion
    together = assess(subject, [other, study], Plan(threads=2, **plan)).fusion
    assert [row for row in together if row["study"] == "alpha"] == alone


def test_means_leave_out_what_is_not_defined(subject: BundleSubject, study: Path, tmp_path: Path) -> None:
    grid = make_grid()
    healthy = Study({name: Volume(np.minimum(v.data, 95), v.affine) for name, v in make_study(grid).items()})
    empty = write_study(tmp_path / "healthy", healthy)
    write_volume(empty / "lesion.nii.gz", Volume(np.zeros(grid.shape, np.uint8), grid.affine))
    document = to_document(assess(subject, [study, empty], Plan(fusion=False)))
    summary = {row["figure"]: row for row in document["summary"]}
    assert (summary["hausdorff95_mm"]["n"], summary["truth_ml"]["n"], document["n"]) == (1, 2, 2)
    assert summary["hausdorff95_mm"]["mean"] == document["segmentation"][0]["hausdorff95_mm"]
    assert document["segmentation"][1]["hausdorff95_mm"] is None
    assert document["fusion"] == []


def test_means_are_shown_with_their_own_number_of_studies(
    bundle: Path, study: Path, tmp_path: Path, command: Callable[..., str], monkeypatch: pytest.MonkeyPatch
) -> None:
    titles: list[str] = []
    save = figure.Figure.savefig

    def savefig(self: Any, *arguments: Any, **options: Any) -> None:
        titles.extend([self.get_suptitle(), *(axes.get_title() for axes in self.axes)])
        save(self, *arguments, **options)

    monkeypatch.setattr(figure.Figure, "savefig", savefig)
    other = write_study(tmp_path / "unlabelled")
    options = ("--baselines", "average", "--threads", 1, "--out", tmp_path / "out")
    text = command(bundle, study, other, *options, "--conditions", "noise", "--strengths", 3)
    ends = {tuple(line.split()[:2]): line[-5:] for line in text.splitlines() if line.startswith("clean")}
    assert ends == {("clean", "lesion"): "n = 1", ("clean", "network"): "n = 2", ("clean", "average"): "n = 2"}
    assert titles[0] == "tiny 0.1.0, 2 studies" or titles[0] == "tiny, 2 studies"
    assert titles[1:4] == [
        "Dice, lesion, n = 1",
        "SSIM to the clean inputs, n = 2",
        "Q$^{AB/F}$ of the clean inputs, n = 2",
    ]
    assert titles[4] == "SSIM, n = 2"


def test_figures_of_a_line_that_differ_have_their_own_number_of_studies() -> None:
    rows = [
        {"study": name, "condition": "clean", "strength": 0, "class": "lesion", "dice": dice, "sensitivity": 1.0}
        for name, dice in (("one", 0.5), ("two", math.nan))
    ]
    text = to_text(Evaluation({"name": "tiny"}, Plan(), [{"study": n, "notes": []} for n in ("one", "two")], rows))
    assert text.splitlines()[-1].endswith("dice 0.500 (n = 1)  sensitivity 1.000 (n = 2)")


def test_small_predictions_are_not_counted_but_touch() -> None:
    truth, predicted = np.zeros((2, 12, 12, 12), bool)
    truth[2:5, 2:5, 2:5] = True
    predicted[3, 3, 3] = predicted[9, 9, 9] = True
    spacing = (1.0, 1.0, 1.0)
    assert count_lesions(predicted, truth, spacing) == LesionCounts(1.0, 0, 0.0)
    alone = count_lesions(predicted, np.zeros_like(truth), spacing)
    assert math.isnan(alone.sensitivity)
    assert math.isnan(alone.lesion_f1)
    assert alone.false_lesions == 0


# Checkpoints


def test_a_checkpoint_runs_on_the_tiles_of_the_product(tmp_path: Path) -> None:
    """Where one tile holds the head, the outcome is that of one pass of the network."""
    grid = reorient(make_grid("RAS", (16, 16, 16)), "SAR").grid
    study = make_study(grid)
    found = NetworkSubject(network())
    outcome = found.run(study)
    case = load_case(write_study(tmp_path, study, mask=True), found.manifest)
    inputs = [torch.from_numpy(case.normalise(study[name].data, name))[None, None] for name in ("T1w", "FLAIR")]
    with torch.inference_mode():
        fused = found.network(*inputs)
    image = case.normalise(outcome.fused.data, "FLAIR")
    expected = case.intensity["FLAIR"].high
    assert np.allclose(image, fused.image[0, 0].clamp(0, expected).numpy(), atol=1e-4)
    assert outcome.labels is not None
    agreement = (case.turn(outcome.labels) == fused.logits[0].argmax(0).numpy()).mean()
    assert agreement > 0.999
    theirs, probability = predict(found.network, *inputs)
    assert torch.allclose(theirs, fused.image, atol=1e-5)
    assert torch.allclose(probability, fused.logits.softmax(1), atol=1e-5)


def test_a_checkpoint_is_opened_by_its_ending(study: Path, tmp_path: Path) -> None:
    save_checkpoint(tmp_path / "model.pth", network(), "joint", {})
    opened = open_subject(str(tmp_path / "model.pth"))
    evaluation = assess(opened, [study], Plan(**QUICK))
    opened.close()
    assert evaluation.model == {"name": "model.pth", "engine": "torch", "precision": "fp32", "overlap": 0.25}
    assert evaluation.segmentation[0]["dice"] == evaluate(network(), [study])[0].dice


def test_lesion_figures_of_a_network_in_memory(study: Path) -> None:
    (row,) = to_table(evaluate(network(), [study]))
    assert row["study"] == "alpha"
    assert row["truth_ml"] == pytest.approx(int(lesion_mask(make_grid()).data.sum()) / 1000)
    t1w, flair, truth, spacing = load_study(study)
    assert t1w.shape == flair.shape == (1, 1, *truth.shape)
    assert spacing == (1.0, 1.0, 1.0)


# Files


def test_files_of_an_evaluation(bundle: Path, study: Path, tmp_path: Path, command: Callable[..., str]) -> None:
    options = ("--conditions", "noise", "--strengths", 1, 3, "--baselines", "average", "--threads", 1)
    text = command(bundle, study, *options, "--out", tmp_path / "a")
    assert "tiny 0.1.0, 1 studies" in text
    assert text.count("n = 1") == 9  # three levels; a class and two methods in each
    names = {"evaluation.json", "segmentation.csv", "fusion.csv", "summary.csv", "evaluation.png"}
    assert {path.name for path in (tmp_path / "a").iterdir()} == names
    document = json.loads((tmp_path / "a" / "evaluation.json").read_text())
    assert document["n"] == 1
    assert [row["about"].split()[0] for row in document["conditions"]] == ["as", "Gaussian", "Gaussian"]
    with (tmp_path / "a" / "segmentation.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert [(row["study"], row["condition"], row["strength"]) for row in rows] == [
        ("alpha", "clean", "0"),
        ("alpha", "noise", "1"),
        ("alpha", "noise", "3"),
    ]
    assert float(rows[0]["dice"]) == document["segmentation"][0]["dice"]
    with Image.open(tmp_path / "a" / "evaluation.png") as image:
        assert image.width > 1000
    command(bundle, study, *options, "--out", tmp_path / "b")
    for name in names:
        assert (tmp_path / "a" / name).read_bytes() == (tmp_path / "b" / name).read_bytes(), name


def test_json_is_the_document(bundle: Path, study: Path, subject: BundleSubject, command: Callable[..., str]) -> None:
    printed = command(bundle, study, "--json", "--baselines", "--figures", "segmentation", "--threads", 1)
    assert json.loads(printed) == json.loads(to_json(to_document(assess(subject, [study], Plan(fusion=False)))))


def test_a_file_that_is_there_is_kept(
    bundle: Path, study: Path, tmp_path: Path, command: Callable[..., str], monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "fusion.csv").write_text("mine")
    monkeypatch.setattr(Pipeline, "run", None)  # refused before anything runs
    with pytest.raises(OutputError, match=r"fusion\.csv exists"):
        command(bundle, study, "--out", tmp_path)
    assert (tmp_path / "fusion.csv").read_text() == "mine"


def test_a_table_without_rows_is_not_written(bundle: Path, tmp_path: Path, command: Callable[..., str]) -> None:
    folder, out = write_study(tmp_path / "gamma"), tmp_path / "out"
    out.mkdir()
    (out / "segmentation.csv").write_text("of an earlier run")
    text = command(bundle, folder, "--out", out, "--overwrite", "--baselines", "average", "--threads", 1)
    assert "gamma: no ground truth beside it" in text
    assert {path.name for path in out.iterdir()} == {"evaluation.json", "fusion.csv", "summary.csv", "evaluation.png"}


def test_tables_are_made_from_the_document(
    subject: BundleSubject, study: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    evaluation = assess(subject, [study], Plan(conditions=("noise",), baselines=("average",), strengths=(1, 3)))
    limits = [{"study": "alpha", "condition": "noise", "strength": each, "dice": 1 / each} for each in (1, 3)]
    (tmp_path / "cpu-robustness.json").write_text(
        to_json({**to_document(evaluation), "limits": limits, "note": "by weights", "date": "2026-01-01"})
    )
    monkeypatch.syspath_prepend(ROOT / "benchmarks")
    tables, results = importlib.import_module("accuracy_tables"), importlib.import_module("result_tables")
    monkeypatch.setattr(results, "RESULTS", tmp_path)
    dice = {row["strength"]: row["dice"] for row in evaluation.segmentation}
    lines = tables.robustness_table().splitlines()
    assert lines[0] == "| damage | mild | strong |"
    assert lines[2] == f"| none | {dice[0]:.2f} |  |"
    mild, strong = (f"{dice[strength]:.2f} ({dice[strength] - dice[0]:+.2f})" for strength in (1, 3))
    assert lines[3] == f"| noise | {mild} | {strong} |"
    assert lines[4] == "| the consensus after noise | 1.00 | 0.33 |"
    assert "n = 1 studies" in lines[-1]
    assert "cut at the best level" in lines[-1]
    assert "noise: Gaussian noise, deviation 0.1" in lines[-1]
    ours = evaluation.fusion[0]
    assert f"| network | {ours['ssim']:.3f} | {ours['nmi']:.3f} |" in tables.fusion_table()


# Bad input


def twice(subject: BundleSubject, folder: Path) -> object:
    return assess(subject, [folder, folder], Plan())


def without_mask(subject: BundleSubject, folder: Path) -> object:
    return assess(subject, [write_study(folder / "delta")], Plan(segmentation=True))


def without_head(subject: BundleSubject, folder: Path) -> object:
    make_tiny(folder / "headless.zip", classes=None)
    with Pipeline.open(folder / "headless.zip", threads=1) as pipeline:
        return assess(BundleSubject(pipeline), [folder], Plan(segmentation=True))


def of_other_contrasts(subject: BundleSubject, folder: Path) -> object:
    class Other:
        facts: dict[str, Any] = {}  # noqa: RUF012
        manifest = type("Manifest", (), {"contrasts": ("T1w", "T2w")})

    return assess(Other(), [folder], Plan())  # type: ignore[arg-type]


def on_two_grids(subject: BundleSubject, folder: Path) -> object:
    mask = lesion_mask(make_grid("LAS", (20, 24, 21)))
    return load_case(with_files(folder, lesion=mask), subject.manifest)


def with_label_nine(subject: BundleSubject, folder: Path) -> object:
    labels = Volume(np.full(make_grid().shape, 9, np.uint8), make_grid().affine)
    return load_case(with_files(folder, labels=labels), subject.manifest)


def with_two_masks(subject: BundleSubject, folder: Path) -> object:
    mask = lesion_mask(make_grid())
    return load_case(with_files(folder, **{"lesion": mask, "a_desc-lesion_mask": mask}), subject.manifest)


def of_stage_one(subject: BundleSubject, folder: Path) -> object:
    save_checkpoint(folder / "model.pth", network(), "autoencoder", {})
    return open_subject(str(folder / "model.pth"))


def of_a_training_study_without_mask(subject: BundleSubject, folder: Path) -> object:
    return evaluate(network(), [write_study(folder)])


def of_all_and_one_that_is_none(subject: BundleSubject, folder: Path) -> object:
    parser = argparse.ArgumentParser()
    add_evaluate(parser.add_subparsers())
    options = parser.parse_args(["evaluate", "no-such-bundle", str(folder), "--conditions", "all", "typo"])
    return options.command(options)


ROWS: list[tuple[Callable[[BundleSubject, Path], object], type[RmrError], str]] = [
    (lambda *_: Plan(conditions=("fog",)), ConfigError, 'no condition "fog".*clean, noise, blur'),
    (of_all_and_one_that_is_none, ConfigError, 'no condition "typo"'),
    (lambda *_: Plan(strengths=(4,)), ConfigError, "no strength 4. Choose from: 1, 2, 3"),
    (lambda *_: Plan(baselines=("sum",)), ConfigError, "no baseline sum. Choose from: average"),
    (lambda *_: Plan(segmentation=False, fusion=False), ConfigError, "neither segmentation nor fusion"),
    (lambda s, f: assess(s, [f], Plan(damaged=("T2w",))), ConfigError, "no contrast T2w. Choose from: T1w, FLAIR"),
    (lambda *_: Plan(threads=-1), ConfigError, "threads is -1"),
    (twice, ConfigError, "given more than once"),
    (of_other_contrasts, ConfigError, "the network fuses T1w, T2w. Evaluate one of T1w and FLAIR"),
    (without_head, ConfigError, "no segmentation head"),
    (without_mask, StudyError, "study delta has no ground truth"),
    (on_two_grids, GeometryError, "study .*: contrasts and ground truth lie on different grids"),
    (with_label_nine, FormatError, "study .*: its labels run from 9 to 9; the classes are 0 to 4"),
    (with_two_masks, StudyError, "several files that could be its ground truth"),
    (of_a_training_study_without_mask, StudyError, "no lesion mask that can be compared"),
    (of_stage_one, FormatError, "is of stage 1"),
    (lambda s, f: open_subject(str(f / "model.pth"), precision="fp16"), ConfigError, "in fp32, not fp16"),
    (lambda s, f: open_subject(str(f / "model.pth")), FormatError, "not a readable checkpoint"),
    (lambda s, f: open_subject("no-such-bundle"), BundleError, 'no bundle "no-such-bundle"'),
]


@pytest.mark.parametrize(("situation", "kind", "words"), ROWS, ids=[row[2] for row in ROWS])
def test_bad_input(
    situation: Callable[[BundleSubject, Path], object],
    kind: type[RmrError],
    words: str,
    subject: BundleSubject,
    tmp_path: Path,
) -> None:
    with pytest.raises(kind, match=words):
        situation(subject, tmp_path)


def test_conditions_that_swallow_a_study_are_explained(bundle: Path, study: Path, command: Callable[..., str]) -> None:
    with pytest.raises(ConfigError, match="name the studies before --conditions"):
        command(bundle, study, "--conditions", "noise", study)


def test_folders_of_one_name_are_told_apart(subject: BundleSubject, tmp_path: Path) -> None:
    folders = [write_study(tmp_path / site / "one") for site in ("here", "there")]
    evaluation = assess(subject, folders, Plan(baselines=()))
    assert [row["study"] for row in evaluation.studies] == ["here/one", "there/one"]
