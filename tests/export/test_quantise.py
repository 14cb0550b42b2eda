"""Precisions of a bundle: made, held to the gate, written or refused, and everything that cannot be used."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import onnx
import pytest
from networks import TINY, make_network, make_source

from rmr_export import Card, export_bundle
from rmr_export.cli import main
from rmr_export.errors import PrecisionError, ToleranceError
from rmr_export.precision import runners
from rmr_export.precision.apply import quantise_bundle
from rmr_export.precision.gate import accuracy_entries, measure
from rmr_export.precision.lanes import measure_study
from rmr_export.precision.make import Recipe, make_precisions
from rmr_export.precision.runners import openvino_runner
from rmr_export.precision.sensitivity import groups_of
from rmr_export.precision.tiles import StudyTiles, SyntheticTiles, find_all, load
from rmr_sdk.bundle import Bundle
from rmr_sdk.engines.base import GOLDEN_LIMITS, GoldenLimit
from rmr_sdk.errors import ConfigError, FormatError, GeometryError, InputError, OutputError, StudyError
from rmr_sdk.manifest import Limit, MinMax
from rmr_sdk.study import Study

LOOSE = (Limit(metric="label_agreement", minimum=0.3), Limit(metric="fused_psnr_db", minimum=10.0))
TIGHT = (Limit(metric="label_agreement", minimum=1.0), Limit(metric="fused_psnr_db", minimum=150.0))
QUICK = Recipe(tiles=1, fall_back=False, threads=1)


def save_study(folder: Path, study: Study, **changes: Callable[[np.ndarray], np.ndarray]) -> Path:
    folder.mkdir(parents=True)
    for name, file in (("T1w", "t1"), ("FLAIR", "flair")):
        data = changes.get(name, lambda voxels: voxels)(np.asarray(study[name].data))
        nib.save(nib.Nifti1Image(data, study[name].affine), folder / f"{file}.nii.gz")
    return folder


@pytest.fixture(scope="module")
def cohort(
    tmp_path_factory: pytest.TempPathFactory, make_phantom: Callable[..., Study], make_grid: Callable[..., Any]
) -> Path:
    """Give a folder with three studies; the last of them by name has a lesion mask."""
    root = tmp_path_factory.mktemp("cohort")
    for number, name in enumerate(("one", "two", "three")):
        study = make_phantom(make_grid(shape=(20, 24, 22)))
        noise = np.random.default_rng(number).normal(size=study["FLAIR"].data.shape).astype(np.float32)
        save_study(root / name, study, FLAIR=lambda voxels, noise=noise: np.where(voxels > 0, voxels + noise, 0))
    study = Study.from_folder(root / "two")
    mask = (np.asarray(study["FLAIR"].data) > 150).astype(np.uint8)
    nib.save(nib.Nifti1Image(mask, study["FLAIR"].affine), root / "two" / "lesion.nii.gz")
    return root


@pytest.fixture(scope="module")
def bundle(exported: Bundle) -> Bundle:
    return exported


@pytest.fixture(scope="module")
def graph(bundle: Bundle) -> onnx.ModelProto:
    return onnx.load_from_string(bundle.graph("fp32"))


def manifest_with(bundle: Bundle, tolerance: tuple[Limit, ...]) -> Any:
    from msgspec.structs import replace as replaced

    return replaced(bundle.manifest, tolerance=tolerance)


def add(bundle: Bundle, tolerance: tuple[Limit, ...], target: Path, precisions: list[str], recipe: Recipe) -> Bundle:
    """Add precisions to a bundle of another tolerance."""
    from rmr_sdk.bundle import write_bundle

    files = {file.path: bundle.read(file.path) for file in bundle.manifest.files}
    source = write_bundle(target.with_name("source.zip"), manifest_with(bundle, tolerance), files, overwrite=True)
    return quantise_bundle(source, precisions, recipe, target)[0]


def test_a_bundle_with_every_precision(bundle: Bundle, cohort: Path, tmp_path: Path) -> None:
    recipe = replace(QUICK, calibration=(cohort,))
    made = add(bundle, LOOSE, tmp_path / "all.zip", ["bf16", "fp16", "int8"], recipe)
    manifest = made.manifest
    made.verify()
    assert manifest.onnx_precisions == ("fp32", "fp16", "int8")
    assert made.graph("fp32") == bundle.graph("fp32")
    assert manifest.within_tolerance("fp16")
    assert manifest.within_tolerance("int8")
    # The last study was kept out of calibration, and nothing else was checked on.
    assert {entry.study_set for entry in manifest.accuracy} == {"golden tile", "two"}
    stated = {(entry.precision, entry.study_set, entry.metric): entry for entry in manifest.accuracy}
    assert 0.3 < stated["int8", "two", "label_agreement"].value < 1
    assert stated["fp16", "two", "label_agreement"].value > 0.9
    assert "whole study, on OpenVINO" in stated["int8", "two", "label_agreement"].note
    assert "tiles, every float16 tensor rounded" in stated["fp16", "two", "label_agreement"].note
    assert abs(stated["int8", "two", "lesion_dice_difference"].value) <= 1
    found = made.golden().deviation(
        openvino_runner(onnx.load_from_string(made.graph("int8")), threads=1)(made.golden().network_inputs())
    )
    assert 0 < found.rms < GOLDEN_LIMITS["int8"].rms


def test_out_of_tolerance_is_not_shipped_unless_forced(bundle: Bundle, cohort: Path, tmp_path: Path) -> None:
    recipe = replace(QUICK, calibration=(cohort / "one",), check=(cohort / "two",), check_tiles=1)
    target = tmp_path / "bundle"
    with pytest.raises(ToleranceError, match=r"int8 is out of tolerance: .* --force int8") as caught:
        add(bundle, TIGHT, target, ["int8"], recipe)
    assert caught.value.exit_code == 4
    assert not target.exists()
    made = add(bundle, TIGHT, target, ["int8"], replace(recipe, force=("int8",)))
    assert not made.manifest.within_tolerance("int8")
    assert any("label_agreement on" in problem for problem in made.manifest.tolerance_problems("int8"))


def test_layers_fall_back_to_float_until_the_tolerance_holds(
    bundle: Bundle, graph: onnx.ModelProto, cohort: Path
) -> None:
    limit = (Limit(metric="fused_psnr_db", minimum=120.0),)
    # Three groups are left to choose from, so that few graphs have to be compiled.
    keep = tuple(
        name
        for name in groups_of(graph)
        if name not in ("fusion.conv5", "head.output_block", "decoder.layer2.double_conv.2")
    )
    recipe = Recipe(
        tiles=1, threads=1, calibration=(cohort / "one",), check=(cohort / "two",), check_tiles=1, keep_float=keep
    )
    made = make_precisions(
        graph, manifest_with(bundle, limit), bundle.golden(), ["int8"], replace(recipe, force=("int8",))
    )
    assert made.fallen is not None
    assert made.costs == sorted(made.costs, key=lambda cost: -cost.strain)
    assert list(made.fallen.excluded) == [cost.group for cost in made.costs[: len(made.fallen.excluded)]]
    assert len(made.fallen.steps) == len(made.fallen.excluded) + 1
    assert made.fallen.steps[-1] < made.fallen.steps[0], made.costs
    assert not set(keep) & {cost.group for cost in made.costs}


@pytest.fixture
def packed(bundle: Bundle, tmp_path: Path) -> Path:
    from rmr_sdk.bundle import write_bundle

    files = {file.path: bundle.read(file.path) for file in bundle.manifest.files}
    write_bundle(tmp_path / "in.zip", manifest_with(bundle, LOOSE), files)
    return tmp_path / "in.zip"


def test_command_line(packed: Path, cohort: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out, report = tmp_path / "out.zip", tmp_path / "report.json"
    arguments = ["quantise", str(packed), "--precision", "int8", "--calibration", str(cohort / "one")]
    arguments += ["--check", str(cohort / "two"), "--check-tiles", "1", "--calibration-tiles", "1", "--threads", "1"]
    arguments += ["--equalise", "--correct-bias", "--no-fall-back", "--method", "mse"]
    assert main([*arguments, "--out", str(out), "--report", str(report)]) == 0
    printed = capsys.readouterr().out.splitlines()
    assert printed[0] == "calibrated on 1 tiles of 1 studies or label maps"
    assert any(line.startswith("int8  two (1 tiles): label_agreement 0.") for line in printed)
    assert "fp32, int8, tile 16 x 16 x 24" in printed[-1]
    found = json.loads(report.read_text())
    assert found["calibration"] == {"tiles": 1, "sources": ["one"]}
    assert {each["study"] for each in found["measured"]} == {"golden tile", "two"}
    assert main([*arguments, "--out", str(out)]) == 6
    assert main([*arguments[:1], str(out), *arguments[2:], "--out", str(tmp_path / "again.zip")]) == 3
    assert "has a graph in int8 already. Pass --overwrite" in capsys.readouterr().err
    with pytest.raises(OutputError, match="cannot write the report"):
        main(["--debug", *arguments, "--out", str(out), "--overwrite", "--report", str(tmp_path / "no" / "r.json")])


def test_bundle_command_makes_precisions_too(cohort: Path, tmp_path: Path) -> None:
    card = Card(tolerance=LOOSE)
    told: list[Any] = []
    made = export_bundle(
        make_source(make_network(TINY)),
        tmp_path / "b.zip",
        name="b",
        card=card,
        proof=False,
        precisions=["fp32", "fp16", "int8"],
        recipe=replace(QUICK, calibration=(cohort,), check_tiles=1),
        told=told.append,
    )
    assert made.manifest.onnx_precisions == ("fp32", "fp16", "int8")
    assert {each.precision for each in told[0].measured} == {"fp16", "int8"}


def test_a_study_that_was_calibrated_on_is_not_checked_on(
    bundle: Bundle, graph: onnx.ModelProto, cohort: Path, tmp_path: Path
) -> None:
    shutil.copytree(cohort / "one", tmp_path / "renamed")
    recipe = replace(QUICK, calibration=(cohort / "one",), check=(tmp_path / "renamed",))
    with pytest.raises(ConfigError, match='study "renamed" was calibrated on'):
        make_precisions(graph, bundle.manifest, bundle.golden(), ["int8"], recipe)


def wrong(tmp_path: Path, cohort: Path, kind: str) -> Path:
    """Make a study that cannot be calibrated on."""
    study = Study.from_folder(cohort / "one")
    if kind == "contrast":
        save_study(tmp_path / kind, study)
        (tmp_path / kind / "flair.nii.gz").unlink()
    elif kind == "nan":
        save_study(tmp_path / kind, study, T1w=lambda voxels: np.where(voxels > 110, np.nan, voxels))
    elif kind == "dark":
        nothing = {"T1w": np.zeros_like, "FLAIR": np.zeros_like}
        save_study(tmp_path / kind, study, **nothing)
    else:
        (tmp_path / kind).mkdir()
    return tmp_path / kind


@pytest.mark.parametrize(
    ("kind", "words"),
    [
        ("empty", "holds no study"),
        ("contrast", 'study "contrast": contrast "FLAIR" is missing'),
        ("nan", 'study "nan": '),
        ("dark", 'study "dark": contrast "T1w": every voxel is 0.0'),
    ],
)
def test_studies_that_cannot_be_calibrated_on(
    bundle: Bundle, graph: onnx.ModelProto, cohort: Path, tmp_path: Path, kind: str, words: str
) -> None:
    recipe = replace(QUICK, calibration=(wrong(tmp_path, cohort, kind),), check=(cohort / "two",))
    with pytest.raises(InputError, match=words) as caught:
        make_precisions(graph, bundle.manifest, bundle.golden(), ["int8"], recipe)
    assert caught.value.exit_code == 3


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"calibration": ()}, "int8 needs tiles to calibrate on"),
        ({}, "nothing is left to check int8 on"),
        ({"tiles": 0}, "0 tiles of a study are no tiles at all"),
        ({"synthetic_tiles": -1}, "-1 synthetic tiles"),
        ({"method": "best"}, "no calibration method"),
    ],
)
def test_options_that_make_no_sense(
    bundle: Bundle, graph: onnx.ModelProto, cohort: Path, changes: dict[str, Any], words: str
) -> None:
    recipe = replace(QUICK, calibration=(cohort / "one",))
    with pytest.raises(ConfigError, match=words):
        make_precisions(graph, bundle.manifest, bundle.golden(), ["int8"], replace(recipe, **changes))


def test_a_broken_int8_graph_is_found_by_the_golden_tile(
    bundle: Bundle, graph: onnx.ModelProto, cohort: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from rmr_export.precision import make

    monkeypatch.setattr(make, "GOLDEN_LIMITS", {"int8": GoldenLimit(maximum=1.0, rms=1e-9)})
    recipe = replace(QUICK, calibration=(cohort / "one",), check=(cohort / "two",))
    with pytest.raises(ToleranceError, match="int8 does not reproduce the golden tile"):
        make_precisions(graph, bundle.manifest, bundle.golden(), ["int8"], recipe)


def test_a_gate_without_studies(bundle: Bundle, graph: onnx.ModelProto) -> None:
    with pytest.raises(ConfigError, match="no study is given to check the accuracy on"):
        measure({"fp32": graph}, bundle.manifest, ["bf16"], [])


def test_only_fp32_is_nothing_to_make(bundle: Bundle, graph: onnx.ModelProto) -> None:
    made = make_precisions(graph, bundle.manifest, bundle.golden(), ["fp32"], QUICK)
    assert not made.graphs
    assert not made.measured


def test_values_that_are_not_finite_name_precision_and_study(
    bundle: Bundle, graph: onnx.ModelProto, cohort: Path
) -> None:
    study = load(find_all([cohort / "one"])[0], bundle.manifest)
    run = openvino_runner(graph, threads=1)

    def broken(inputs: Any) -> Any:
        return {name: values * np.nan for name, values in run(inputs).items()}

    with pytest.raises(PrecisionError, match=r'int8 gives values in ".*" that are not finite, on study "one"'):
        measure_study(study, bundle.manifest, {"fp32": run, "int8": broken}, 1)


def test_the_same_precision_costs_nothing(bundle: Bundle, graph: onnx.ModelProto, cohort: Path) -> None:
    study = load(find_all([cohort / "two"])[0], bundle.manifest)
    run = openvino_runner(graph, threads=1)
    (found,) = measure_study(study, bundle.manifest, {"fp32": run, "int8": run}, None)
    assert found.whole
    assert found.figures["label_agreement"] == found.figures["fused_ssim"] == 1.0
    assert found.figures["lesion_dice_difference"] == found.figures["fused_max_error"] == 0.0
    assert found.figures["fused_psnr_db"] == 200.0
    assert all(entry.studies == 1 for entry in accuracy_entries([found]))


def test_a_lesion_mask_on_another_grid(bundle: Bundle, graph: onnx.ModelProto, cohort: Path, tmp_path: Path) -> None:
    shutil.copytree(cohort / "two", tmp_path / "off")
    nib.save(nib.Nifti1Image(np.ones((4, 4, 4), np.uint8), np.eye(4)), tmp_path / "off" / "lesion.nii.gz")
    study = load(find_all([tmp_path / "off"])[0], bundle.manifest)
    run = openvino_runner(graph, threads=1)
    with pytest.raises(GeometryError, match='study "off": its lesion mask lies on another grid'):
        measure_study(study, bundle.manifest, {"fp32": run, "int8": run}, None)


def test_a_processor_without_bf16(graph: onnx.ModelProto, monkeypatch: pytest.MonkeyPatch) -> None:
    from rmr_export.precision.gate import open_if_able

    class Core:
        def get_property(self, device: str, name: str) -> list[str]:
            return ["FP32"]

    monkeypatch.setattr(runners, "openvino_core", Core)
    assert open_if_able({"fp32": graph}, "bf16", None) is None


def test_synthetic_tiles(bundle: Bundle, tmp_path: Path) -> None:
    labels = np.zeros((24, 26, 20), np.uint8)
    labels[4:20, 4:22, 4:16] = 3
    labels[10:13, 10:13, 8:11] = 4
    nib.save(nib.Nifti1Image(labels, np.eye(4)), tmp_path / "a01.nii.gz")
    nib.save(nib.Nifti1Image(labels, np.eye(4)), tmp_path / "a02.nii.gz")
    tiles = list(SyntheticTiles(tmp_path, bundle.manifest, 3, leave_out=("02",)))
    assert {name for name, _ in tiles} == {"a01"}
    assert [tile["t1w"].shape for _, tile in tiles] == [(1, 1, *bundle.manifest.tile_shape)] * 3
    again = list(SyntheticTiles(tmp_path, bundle.manifest, 3, leave_out=("02",)))
    np.testing.assert_array_equal(tiles[2][1]["flair"], again[2][1]["flair"])
    from msgspec.structs import replace as replaced

    scaled = list(SyntheticTiles(tmp_path, replaced(bundle.manifest, normalisation=MinMax()), 1))
    assert scaled[0][1]["flair"].max() <= 1.0
    with pytest.raises(StudyError, match="no label map is left"):
        list(SyntheticTiles(tmp_path, bundle.manifest, 1, leave_out=("01", "02")))


def test_studies_come_one_by_one_and_are_told_apart(bundle: Bundle, cohort: Path) -> None:
    seen: set[str] = set()
    tiles = list(StudyTiles(find_all([cohort]), bundle.manifest, 1, seen))
    assert [name for name, _ in tiles] == ["one", "three", "two"]
    assert len(seen) == 3
    with pytest.raises(StudyError):
        find_all([cohort / "nowhere"])
    with pytest.raises(FormatError):
        load(find_all([cohort.parent / "x"])[0], bundle.manifest) if _spoil(cohort.parent / "x") else None


def _spoil(folder: Path) -> bool:
    folder.mkdir()
    for name in ("t1", "flair"):
        (folder / f"{name}.nii.gz").write_bytes(b"no image")
    return True
