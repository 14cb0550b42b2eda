"""The model card and the release: made from measurements, and refused where a rule is broken."""

from __future__ import annotations

import hashlib
import importlib
import json
import math
import re
import sys
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import msgspec
import numpy as np
import pytest
import torch
from PIL import Image

from rmr_sdk import Bundle, Pipeline
from rmr_sdk.geometry import Grid
from rmr_sdk.manifest import Training
from rmr_sdk.study import Study
from rmr_sdk.volume import Volume
from rmr_training.checkpoint import load_network, read_checkpoint, save_checkpoint
from rmr_training.models import RmrFusion
from tests.export.networks import TINY
from tests.tiny_bundle import make_bundle

ROOT = Path(__file__).parents[1]
SCRIPTS = (
    "bench_accuracy",
    "bench_confidence",
    "bench_failures",
    "bench_heads",
    "bench_stability",
    "keep_model",
    "model_card",
    "pictures",
    "release",
    "release_plan",
    "result_tables",
)
FIGURES = {"dice": 0.5, "sensitivity": 0.7, "false_lesions": 3, "lesion_f1": 0.6, "truth_ml": 1.25, "precision": "fp32"}


@pytest.fixture(scope="module")
def bench() -> Iterator[SimpleNamespace]:
    """Give the scripts, which stand beside the packages."""
    sys.path.insert(0, str(ROOT / "benchmarks"))
    yield SimpleNamespace(**{name: importlib.import_module(name) for name in SCRIPTS})
    sys.path.remove(str(ROOT / "benchmarks"))


def save(path: Path, studies: list[str], **recipe: Any) -> Path:
    torch.manual_seed(0)
    save_checkpoint(path, RmrFusion(TINY).eval(), "joint", {"recipe": {"steps": 9, **recipe}, "studies": studies})
    return path


@pytest.fixture
def plan(bench: SimpleNamespace, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    """A release of tiny weights with two folds, all as it should be."""
    monkeypatch.setattr(bench.release_plan, "MODELS", tmp_path)
    save(tmp_path / "tiny.pth", ["raw", "one", "two"])
    save(tmp_path / "tiny-one.pth", ["raw", "two"])
    save(tmp_path / "tiny-two.pth", ["raw", "one"])
    (tmp_path / "card.toml").write_text('licence = "CC0"\n')
    fields = {"name": "tiny", "version": "2.0.0", "checkpoint": "tiny.pth", "card": str(tmp_path / "card.toml")}
    folds = [bench.release_plan.Fold(checkpoint=f"tiny-{name}.pth", study=f"set/{name}") for name in ("one", "two")]
    gate = bench.release_plan.Gate(study="one", figure="dice", minimum=0.4)
    return bench.release_plan.Plan(fold=tuple(folds), gate=(gate,), **fields)


def write_figures(bench: SimpleNamespace, path: Path, **changes: Any) -> Path:
    rows = [
        {
            **FIGURES,
            "study": name,
            "model": f"tiny-{name}",
            "checkpoint_sha256": hashlib.sha256((path.parent / f"tiny-{name}.pth").read_bytes()).hexdigest(),
            **changes,
        }
        for name in ("one", "two")
    ]
    entries = [
        {name: getattr(entry, name) for name in entry.__struct_fields__}
        for entry in bench.bench_accuracy.manifest_entries(rows, "tiny", 0.25)
    ]
    path.write_text(json.dumps({"studies": rows, "accuracy": entries}))
    return path


def test_the_card_shows_the_results(bench: SimpleNamespace) -> None:
    assert bench.model_card.main(["--check"]) == 0, "run: python benchmarks/model_card.py"


def test_pictures_of_the_card_are_there_and_small() -> None:
    document = ROOT / "docs" / "model-card.md"
    for target in set(re.findall(r"\]\(((?!http)[^)#]+)\)", document.read_text())):
        file = document.parent / target
        assert file.exists(), target
        assert file.suffix != ".png" or file.stat().st_size < 400_000 or target.endswith("demo.png")


def test_a_release_carries_its_figures_and_is_the_same_again(bench: SimpleNamespace, plan: Any, tmp_path: Path) -> None:
    figures, target = write_figures(bench, tmp_path / "figures.json"), tmp_path / "tiny.zip"
    bench.release.release(plan, figures, target)
    first = target.read_bytes()
    manifest = Bundle.open(target).manifest
    assert (manifest.version, manifest.licence) == ("2.0.0", "CC0")
    assert manifest.training.studies_seen == ("one", "raw", "two")
    stated = {(entry.study_set, entry.metric): entry for entry in manifest.accuracy}
    assert stated["one", "lesion_dice"].value == 0.5
    assert "by tiny-one, same recipe, trained without it" in stated["one", "lesion_dice"].note
    bench.release.export(plan, figures, tmp_path / "again.zip")
    assert (tmp_path / "again.zip").read_bytes() == first


def test_a_broken_gate_leaves_the_shipped_bundle_alone(bench: SimpleNamespace, plan: Any, tmp_path: Path) -> None:
    target = tmp_path / "tiny.zip"
    target.write_bytes(b"shipped")
    with pytest.raises(SystemExit, match=r"one: dice is 0.3, the least that is released 0.4"):
        bench.release.release(plan, write_figures(bench, tmp_path / "figures.json", dice=0.3), target)
    assert target.read_bytes() == b"shipped"


def test_a_broken_gate_needs_a_reason(
    bench: SimpleNamespace, plan: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    target = tmp_path / "tiny.zip"
    bold = msgspec.structs.replace(plan, despite="Better than the last in every other respect.")
    bench.release.release(bold, write_figures(bench, tmp_path / "figures.json", dice=0.3), target)
    assert "released all the same:\n  one: dice is 0.3" in capsys.readouterr().out
    assert Bundle.open(target).manifest.name == "tiny"


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"study": "two"}, "one: no figures"),
        ({"dice": math.nan}, "one: dice is not defined"),
        ({"dice": None}, "one: dice is not defined"),
    ],
)
def test_no_reason_excuses_a_gate_without_a_figure(
    bench: SimpleNamespace, plan: Any, tmp_path: Path, changes: dict[str, Any], words: str
) -> None:
    figures, target = write_figures(bench, tmp_path / "figures.json"), tmp_path / "tiny.zip"
    found = json.loads(figures.read_text())
    found["studies"][0] |= changes
    figures.write_text(json.dumps(found))
    with pytest.raises(SystemExit, match=words):
        bench.release.release(msgspec.structs.replace(plan, despite="Better than the last."), figures, target)
    assert not target.exists()


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        (
            {"checkpoint_sha256": None},
            r"one: its figures do not say which .*Measure again: .* --plan tiny",
        ),
        ({"checkpoint_sha256": "0" * 64}, r"two: its figures are of another file than tiny-two.pth is now"),
        ({"study": "three"}, r"three: no fold of the plan reports it"),
    ],
)
def test_figures_of_other_checkpoints_are_refused(
    bench: SimpleNamespace, plan: Any, tmp_path: Path, changes: dict[str, Any], words: str
) -> None:
    with pytest.raises(SystemExit, match=words):
        bench.release.release(plan, write_figures(bench, tmp_path / "figures.json", **changes), tmp_path / "tiny.zip")


def test_a_release_measures_the_folds_of_its_own_plan(
    bench: SimpleNamespace, plan: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = []

    def report(studies: list[Path], precision: str, overlap: float, bundle: str, plan: Any) -> dict[str, Any]:
        asked.append(([folder.name for folder in studies], bundle, plan.name))
        return json.loads(write_figures(bench, tmp_path / "measured.json").read_text())

    monkeypatch.setattr(bench.bench_accuracy, "report", report)
    monkeypatch.setattr(bench.release, "result_path", lambda kind: tmp_path / f"{kind}.json")
    bench.release.release(plan, None, tmp_path / "tiny.zip")
    assert asked == [(["one", "two"], "tiny", "tiny")]


def test_accuracy_is_measured_by_the_plan_that_is_named(
    bench: SimpleNamespace, plan: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    mask = np.zeros((8, 8, 8), bool)
    mask[2:5, 2:5, 2:5] = True
    monkeypatch.setattr(bench.bench_accuracy, "read_plan", lambda name: {"other": plan}[name])
    monkeypatch.setattr(bench.bench_accuracy, "lesion_masks", lambda *_: (mask, mask, (1.0, 1.0, 1.0)))
    out = tmp_path / "accuracy.json"
    bench.bench_accuracy.main([str(tmp_path / "one"), "--plan", "other", "--out", str(out)])
    found = json.loads(out.read_text())
    (row,) = found["studies"]
    assert (found["bundle"], row["model"]) == ("tiny 2.0.0", "tiny-one")
    assert row["checkpoint_sha256"] == hashlib.sha256((tmp_path / "tiny-one.pth").read_bytes()).hexdigest()
    assert bench.release_plan.foreign_figures(plan, found["studies"]) == []
    save(tmp_path / "tiny-one.pth", ["raw", "two"], rate=1.0)
    assert "another file than tiny-one.pth" in bench.release_plan.foreign_figures(plan, found["studies"])[0]


def test_the_newest_result_is_the_one_of_the_latest_date(
    bench: SimpleNamespace, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(bench.result_tables, "RESULTS", tmp_path)
    assert bench.result_tables.newest("accuracy") == {}
    names = ("tesla-2026-11-23", "cpu-2core-2026-11-29", "board-2026-11-29", "undated")
    for name in names:
        (tmp_path / f"{name}-accuracy.json").write_text(json.dumps({"name": name}))
    assert bench.result_tables.newest("accuracy") == {"name": "cpu-2core-2026-11-29"}


def test_the_card_says_which_gates_hold(bench: SimpleNamespace, plan: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    for rows, word in (([], "not measured"), ([{"study": "one", "dice": 0.3}], "missed")):
        monkeypatch.setattr(bench.model_card, "newest", lambda name, rows=rows: {"studies": rows})
        assert list(bench.model_card.verdicts(plan)) == [f"one: dice at least 0.4: {word}"]
    monkeypatch.setattr(bench.model_card, "newest", lambda name: {"studies": [{"study": "one", "dice": 0.4}]})
    assert list(bench.model_card.verdicts(plan)) == ["one: dice at least 0.4: reached"]


def test_an_engine_that_fails_leaves_the_shipped_bundle_alone(
    bench: SimpleNamespace, plan: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from rmr_export.verify import Verdict

    verdict = Verdict("openvino", "fp32", problem="wrong", failed=True)
    monkeypatch.setattr(bench.release, "verify_bundle", lambda bundle: iter([verdict]))
    monkeypatch.setattr(bench.release, "export", lambda plan, figures, made: make_bundle(made))
    target = tmp_path / "tiny.zip"
    target.write_bytes(b"shipped")
    with pytest.raises(SystemExit, match="openvino in fp32: wrong"):
        bench.release.release(plan, write_figures(bench, tmp_path / "figures.json"), target)
    monkeypatch.setattr(bench.release, "verify_bundle", lambda bundle: iter(()))
    assert bench.release.broken_engines(Bundle.open("ms-edge")) == ["no engine could run the bundle"]
    assert target.read_bytes() == b"shipped"
    assert not list(tmp_path.glob("tmp*"))


@pytest.mark.parametrize(
    ("studies", "recipe", "words"),
    [
        (["raw", "one", "two"], {}, "tiny-one.pth has seen one, which it reports"),
        (["two"], {}, "its studies are not those of the released weights without its own"),
        (["raw", "two"], {"rate": 1.0}, "tiny-one.pth: rate of the recipe differs"),
    ],
)
def test_a_fold_that_is_not_one(
    bench: SimpleNamespace, plan: Any, tmp_path: Path, studies: list[str], recipe: dict[str, Any], words: str
) -> None:
    assert bench.release_plan.broken_folds(plan) == []
    save(tmp_path / "tiny-one.pth", studies, **recipe)
    assert any(words in problem for problem in bench.release_plan.broken_folds(plan))


def test_gates(bench: SimpleNamespace, plan: Any) -> None:
    gate = bench.release_plan.Gate(study="s", figure="false_lesions", maximum=6)
    assert gate.problem({"false_lesions": 6}) is None
    assert gate.problem({"false_lesions": 7}) == "s: false_lesions is 7, the greatest that is released 6"
    assert gate.problem({"false_lesions": math.nan}) is not None
    assert gate.wish == "s: false lesions at most 6"
    assert bench.release_plan.broken_gates(plan, []) == ["one: no figures"]


def test_every_released_gate_and_fold_is_of_a_study_that_is_reported(bench: SimpleNamespace) -> None:
    plan = bench.release_plan.read_plan()
    assert {gate.study for gate in plan.gate} == {fold.held_out for fold in plan.fold} == {"patient07", "patient19"}
    assert {gate.figure for gate in plan.gate} <= FIGURES.keys()
    assert "every figure but" not in plan.despite
    assert "95 % Hausdorff distance were better" in plan.despite
    assert (ROOT / plan.card).exists()


def test_weights_are_not_reported_on_what_they_saw(bench: SimpleNamespace, plan: Any, tmp_path: Path) -> None:
    accuracy = bench.bench_accuracy
    with accuracy.open_unseen(plan, "tiny", "one", "fp32") as (pipeline, model):
        assert (model, pipeline.manifest.training.studies_seen) == ("tiny-one", ("raw", "two"))
    save(tmp_path / "tiny-one.pth", ["one"])
    with (
        pytest.raises(SystemExit, match="was trained on one: it cannot be reported"),
        accuracy.open_unseen(plan, "tiny", "one", "fp32"),
    ):
        pass
    (tmp_path / "tiny-one.pth").unlink()
    make_bundle(tmp_path / "b.zip", training=Training(recipe="none", studies_seen=("one",)))
    with (
        pytest.raises(SystemExit, match="tiny was trained on one, and no fold is without it"),
        accuracy.open_unseen(plan, str(tmp_path / "b.zip"), "one", "fp32"),
    ):
        pass
    with accuracy.open_unseen(plan, str(tmp_path / "b.zip"), "three", "fp32") as (_, model):
        assert model == "tiny"


def test_which_weights_are_behind_the_figures_is_said(bench: SimpleNamespace) -> None:
    rows = [{"study": "one", "model": "fold"}, {"study": "two", "model": "tiny"}]
    told = bench.bench_accuracy.describe(rows, "tiny")
    assert "trained without it (one by fold); the released weights were not trained on two; " in told


def test_a_checkpoint_is_kept_in_half_the_bytes(bench: SimpleNamespace, tmp_path: Path) -> None:
    source = save(tmp_path / "model.pth", ["one"])
    whole = bench.keep_model.keep(source, tmp_path / "whole.pth", half=False)
    assert bench.keep_model.keep(source, tmp_path / "half.pth", half=True, studies=["raw"]) < 0.7 * whole
    files = (source, tmp_path / "whole.pth", tmp_path / "half.pth")
    wanted, kept, rounded = (load_network(file).state_dict() for file in files)
    assert all(torch.equal(kept[key], value) for key, value in wanted.items())
    assert all(torch.allclose(rounded[key], value, rtol=1e-3, atol=1e-6) for key, value in wanted.items())
    assert read_checkpoint(tmp_path / "half.pth")["studies"] == ["one", "raw"]
    save_checkpoint(tmp_path / "last.pth", load_network(source), "joint", {"average": {}})
    with pytest.raises(SystemExit, match=r"take model\.pth"):
        bench.keep_model.keep(tmp_path / "last.pth", tmp_path / "x.pth", half=True)


def test_failures_are_the_largest_that_touch_nothing(bench: SimpleNamespace) -> None:
    mask, other = np.zeros((2, 12, 12, 12), bool)
    mask[1, 1, 1:3] = mask[5:8, 5, 5] = mask[10, 10, 10] = True
    mask[0, 8:12, 8] = other[0, 11, 8] = True
    found = bench.bench_failures.untouched(mask, other)
    assert [int(case.sum()) for case in found] == [3, 2, 1]
    assert found[0][5:8, 5, 5].all()
    assert [int(case.sum()) for case in bench.bench_failures.untouched(mask, other, smallest=2)] == [3, 2]


def test_only_what_is_sure_is_kept(bench: SimpleNamespace) -> None:
    mask, probability = np.zeros((12, 12, 12), bool), np.full((12, 12, 12), 0.1, np.float32)
    mask[1:3, 1, 1] = mask[3, 2, 2] = True  # one lesion: its last voxel touches by a corner
    mask[8:10, 8, 8] = True
    probability[1:3, 1, 1], probability[3, 2, 2] = 0.875, 0.5
    probability[8:10, 8, 8] = 0.625
    keep = bench.bench_confidence.keep_sure
    assert np.array_equal(keep(mask, probability, "all", 0.0), mask)
    assert np.array_equal(keep(mask, probability, "lesion", 0.625), mask)
    assert np.argwhere(keep(mask, probability, "lesion", 0.7)).tolist() == [[1, 1, 1], [2, 1, 1], [3, 2, 2]]
    assert not keep(mask, probability, "lesion", 0.8).any()
    assert np.argwhere(keep(mask, probability, "voxel", 0.7)).tolist() == [[1, 1, 1], [2, 1, 1]]
    assert not keep(np.zeros_like(mask), probability, "voxel", 0.6).any()


def test_the_figures_at_the_applied_level_are_the_accuracy(bench: SimpleNamespace) -> None:
    newest = {kind: bench.result_tables.newest(kind) for kind in ("accuracy", "confidence")}
    applied = {row["study"]: row for row in newest["confidence"]["rows"] if row["kind"] == "released"}
    for row in newest["accuracy"]["studies"]:
        assert {key: applied[row["study"]][key] for key in ("dice", "sensitivity", "false_lesions")} == pytest.approx(
            {key: row[key] for key in ("dice", "sensitivity", "false_lesions")}, abs=0.002
        )


def test_failures_are_drawn_small_and_in_their_colours(
    bench: SimpleNamespace, tmp_path: Path, make_phantom: Callable[..., Study], make_grid: Callable[..., Grid]
) -> None:
    make_bundle(tmp_path / "tiny.zip")
    with Pipeline.open(tmp_path / "tiny.zip") as pipeline:
        result = pipeline.run(make_phantom(make_grid()))
    labels, truth = np.zeros((2, *result.fused.data.shape), np.uint8)
    labels[9:12, 10:14, 8:11], truth[4:7, 14:17, 10:13] = result.classes.index("lesion"), 1
    result, truth = replace(result, labels=Volume(labels, result.fused.affine)), truth > 0
    rows = bench.bench_failures.failures(result, truth, "phantom", tmp_path)
    assert [(row["kind"], row["count"]) for row in rows] == [("false", 1), ("missed", 1)]
    assert rows[1]["volume_ml"] == pytest.approx(0.027)
    for row in rows:
        with Image.open(tmp_path / row["picture"]) as picture:
            colours = {colour for _, colour in picture.convert("RGB").getcolors(1 << 16)}
        assert {bench.pictures.PREDICTION, bench.pictures.TRUTH} <= colours
        assert (tmp_path / row["picture"]).stat().st_size < 400_000
    bench.pictures.save_small(bench.pictures.draw_fused(result), tmp_path / "fused.png")
    with Image.open(tmp_path / "fused.png") as picture:
        assert picture.width == 900


def test_lesions_outside_the_brain(bench: SimpleNamespace) -> None:
    tissue = np.zeros((40, 40, 40), bool)
    tissue[10:30, 10:30, 10:30] = True
    tissue[30:38, 20, 20] = True  # a thin bridge to a patch of scalp
    tissue[36:40, 10:30, 10:30] = True
    brain = bench.bench_heads.find_brain(tissue, (1.0, 1.0, 1.0))
    assert brain[15, 15, 15]
    assert not brain[37:].any()
    lesions = np.zeros_like(tissue)
    lesions[20, 20, 20] = lesions[32, 15, 15] = lesions[34, 25, 25] = lesions[2, 2, 2] = True
    far, count = bench.bench_heads.outside(lesions, brain, (1.0, 1.0, 1.0))
    assert count == 2
    assert far[34, 25, 25]
    assert far[2, 2, 2]
    assert not far[32, 15, 15]
    assert bench.bench_heads.outside(lesions, np.zeros_like(brain), (1.0, 1.0, 1.0))[1] == 4
    assert bench.bench_heads.outside(np.zeros_like(brain), brain, (1.0, 1.0, 1.0))[1] == 0
    assert not bench.bench_heads.find_brain(np.zeros_like(brain), (1.0, 1.0, 1.0)).any()


def test_stability_is_the_spread_over_the_last_checkpoints(bench: SimpleNamespace, tmp_path: Path) -> None:
    for step in (100, 90, 1000):
        (tmp_path / f"model-{step}.pth").touch()
    found = bench.bench_stability.checkpoints(tmp_path, last=2)
    assert [bench.bench_stability.step_of(path) for path in found] == [100, 1000]
    expected = {"lowest": 0.5, "highest": 0.56, "spread": 0.06, "mean": 0.53}
    assert bench.bench_stability.spread([0.5, 0.53, 0.56]) == expected
    with pytest.raises(SystemExit, match="holds 0 checkpoints"):
        bench.bench_stability.checkpoints(tmp_path / "none", last=10)
