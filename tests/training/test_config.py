"""Configurations: a TOML file gives a run, flags take precedence, and what is wrong is said before hours are lost."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest

from rmr_sdk.errors import ConfigError, OutputError, RmrError, StudyError
from rmr_training.checkpoint import save_checkpoint
from rmr_training.cli import main
from rmr_training.config import (
    DataConfig,
    NetworkConfig,
    load_material,
    make_ranges,
    make_recipe,
    read_config,
    start_network,
    study_names,
)
from rmr_training.models import RmrFusion, find_preset
from rmr_training.stages import Material, Recipe, Trainer
from rmr_training.synthesis import Ranges
from tests.training.test_real import write_study
from tests.training.test_stages import QUICK, network
from tests.training.test_synthesis import phantom

RECIPES = Path(__file__).parents[2] / "training" / "recipes"


def write(folder: Path, text: str) -> Path:
    path = folder / "run.toml"
    path.write_text(text)
    return path


@pytest.fixture
def data(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A data folder with two label maps of donors 01 and 02, and one real study."""
    folder = tmp_path / "data"
    (folder / "labelmaps").mkdir(parents=True)
    for donor in ("01", "02"):
        image = nib.Nifti1Image(phantom(), np.eye(4))
        nib.save(image, folder / "labelmaps" / f"patient{donor}.nii.gz")
    write_study(folder / "studies" / "one")
    monkeypatch.setenv("RMR_DATA", str(folder))
    return folder


def test_file_and_flags_make_a_recipe(tmp_path: Path) -> None:
    config = read_config(write(tmp_path, "[recipe]\nsteps = 7\nrate = 1e-4\n[ranges]\nwhole_head = 0.1\n"))
    recipe = make_recipe("joint", config, {"rate": 3e-4})
    assert (recipe.steps, recipe.rate, recipe.batch) == (7, 3e-4, Recipe(stage="joint", steps=1).batch)
    assert make_ranges(config) == Ranges(whole_head=0.1)
    assert read_config(None).data == DataConfig()


def test_a_head_by_name_replaces_the_presets(tmp_path: Path) -> None:
    text = '[network]\nhead = "unet"\n[network.head_options]\nchannels = 8\nnum_res_units = 1\n'
    preset = read_config(write(tmp_path, text)).network.build()
    assert (preset.name, preset.head) == ("edge-unet", "unet")
    assert RmrFusion(preset).head is not None


@pytest.mark.parametrize("path", sorted(RECIPES.rglob("*.toml")), ids=lambda path: path.stem)
def test_committed_recipes_are_valid(path: Path) -> None:
    config = read_config(path)
    make_ranges(config)
    recipe = make_recipe("autoencoder" if "autoencoder" in path.name else "joint", config, {})
    assert recipe.steps > 0
    assert not any(
        "patient12" in study or "patient20" in study for study in (*config.data.real, *config.data.whole_heads)
    )


def test_material_keeps_held_out_donors_apart(data: Path) -> None:
    material = load_material(DataConfig(held_out=("02",), real=("studies/one",)), Ranges(), "joint")
    assert [m.donor for m in material.maps] == ["01"]
    assert [m.donor for m in material.held_out] == ["02"]
    assert [study.name for study in material.real] == ["one"]
    assert len(material.real[0].lesions) > 50


def test_the_command_trains_validates_and_resumes(data: Path, tmp_path: Path) -> None:
    text = '[network]\npreset = "edge"\n[recipe]\nsteps = 1\nbatch = 1\nside = 32\nworkers = 0\nvalidate_every = 1\n'
    text += 'validation_patches = 1\namp = false\n[data]\nheld_out = ["02"]\nreal = ["studies/one"]\n'
    command = ["autoencoder", "--config", str(write(tmp_path, text)), "--out", str(tmp_path / "ae"), "--threads", "1"]
    assert main(command) == 0
    assert {path.name for path in (tmp_path / "ae").iterdir()} == {
        "last.pth",
        "model.pth",
        "best.pth",
        "log.csv",
        "validation.csv",
    }
    assert main([*command, "--steps", "2"]) == OutputError.exit_code
    assert main([*command, "--steps", "2", "--resume"]) == 0
    assert len((tmp_path / "ae" / "log.csv").read_text().splitlines()) == 3


def of_head(folder: Path, head: str, more: str = "") -> Path:
    folder.mkdir()
    return write(folder, f'[network]\nhead = "{head}"\n{more}[recipe]\nsteps = 1\nbatch = 1\nside = 32\nworkers = 0\n')


def test_a_joint_stage_puts_the_head_that_is_asked_for_on_a_trained_autoencoder(data: Path, tmp_path: Path) -> None:
    trained = RmrFusion(find_preset("edge-small"))
    save_checkpoint(tmp_path / "ae.pth", trained, "autoencoder", {})
    config = NetworkConfig(preset="edge-small", head="unet", head_options={"channels": 8, "num_res_units": 1})
    made = start_network(config, tmp_path / "ae.pth", "joint")
    assert made.preset.head == "unet"
    assert all(a.equal(b) for a, b in zip(made.autoencoder.parameters(), trained.autoencoder.parameters(), strict=True))
    same = start_network(NetworkConfig(preset="edge-small"), tmp_path / "ae.pth", "joint")
    assert all(a.equal(b) for a, b in zip(same.parameters(), trained.parameters(), strict=True))
    assert start_network(NetworkConfig(), tmp_path / "ae.pth", "joint").preset == trained.preset
    for stage, saved in (("autoencoder", "autoencoder"), ("joint", "joint")):
        save_checkpoint(tmp_path / "other.pth", trained, saved, {})
        with pytest.raises(ConfigError, match="asked for is edge-small-unet with unet"):
            start_network(config, tmp_path / "other.pth", stage)
    with pytest.raises(ConfigError, match=r"ae\.pth is of preset edge-small .*asked for is edge with dynunet"):
        start_network(NetworkConfig(preset="edge"), tmp_path / "ae.pth", "joint")


def test_a_head_that_does_not_suit_is_refused_before_data_are_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("rmr_training.cli.load_material", lambda *_: pytest.fail("data were read"))
    config = of_head(tmp_path / "one", "swin_unetr")
    assert main(["joint", "--config", str(config), "--out", str(tmp_path / "out"), "--threads", "1"]) == 3
    assert "cannot be computed on a tile of 32 x 32 x 32" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("flags", "words"),
    [
        (["autoencoder", "--side", "10"], "side is 10. It must be at least 11"),
        (["autoencoder", "--side", "30"], "side is 30. It must be a multiple of 4 for the preset edge"),
        (["joint", "--side", "4"], "side is 4. It must be at least 8"),
        (["joint", "--threads", "0"], "threads is 0. It must be at least 1"),
    ],
)
def test_a_side_that_does_not_suit_is_refused_before_data_are_read(
    flags: list[str], words: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("rmr_training.cli.load_material", lambda *_: pytest.fail("data were read"))
    assert main([*flags, "--steps", "1", "--out", str(tmp_path / "out")]) == ConfigError.exit_code
    assert words in capsys.readouterr().err


def test_what_cannot_be_written_is_refused_first(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "file").touch()
    (tmp_path / "folder").mkdir()
    for command in (
        ["autoencoder", "--steps", "1", "--out", str(tmp_path / "file")],
        ["calibrate", "none.pth", "--out", str(tmp_path / "folder")],
        ["average", "none.pth", "none.pth", "--out", str(tmp_path / "file" / "mean.pth")],
        ["synthesise", "--preview", str(tmp_path / "file" / "sheet.png")],
    ):
        assert main(command) == OutputError.exit_code
        assert "OutputError" in capsys.readouterr().err


def test_an_interrupted_command_says_so(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def interrupt(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("rmr_training.cli.average", interrupt)
    assert main(["average", "a.pth", "b.pth", "--out", str(tmp_path / "mean.pth")]) == 130
    assert capsys.readouterr().err == "rmr-train: Cancelled: the command was interrupted.\n"


def test_studies_of_both_kinds_are_told_apart(data: Path) -> None:
    config = DataConfig(held_out=("02",), real=("studies/one",), whole_heads=("raw/one", "raw/two"))
    assert list(study_names(config).values()) == ["studies/one", "raw/one", "two"]
    assert [study.name for study in load_material(config, Ranges(), "joint").real] == ["studies/one"]


def no_maps(folder: Path) -> object:
    return Trainer(network(), Recipe(stage="joint", steps=1, **QUICK), Material([]), folder)


def nothing_to_validate_on(folder: Path) -> object:
    maps = load_material(DataConfig(held_out=()), Ranges(), "joint").maps
    return Trainer(network(), Recipe(stage="joint", steps=1, validate_every=1, **QUICK), Material(maps), folder)


def without_masks(folder: Path) -> object:
    material = load_material(DataConfig(held_out=("02",), real=("studies/one",)), Ranges(), "autoencoder")
    return Trainer(network(), Recipe(stage="joint", steps=1, **QUICK), material, folder)


def recipe_of(text: str) -> Callable[[Path], object]:
    return lambda folder: make_recipe("joint", read_config(write(folder, text)), {})


def ranges_of(text: str) -> Callable[[Path], object]:
    return lambda folder: make_ranges(read_config(write(folder, text)))


def not_utf8(folder: Path) -> object:
    (folder / "run.toml").write_bytes(b"# caf\xe9\n[recipe]\nsteps = 1\n")
    return read_config(folder / "run.toml")


ROWS: list[tuple[Callable[[Path], object], type[RmrError], str]] = [
    (lambda folder: read_config(folder / "none.toml"), ConfigError, r"none\.toml is not a usable configuration"),
    (lambda folder: read_config(write(folder, "[recipe")), ConfigError, r"run\.toml is not a usable configuration"),
    (lambda folder: read_config(write(folder, "[data]\nlabels = 'x'")), ConfigError, "unknown field `labels`"),
    (recipe_of("[recipe]\nsteps = 5\nlearning_rate = 1"), ConfigError, "no key 'learning_rate'"),
    (recipe_of("[recipe]\nrate = 1.0"), ConfigError, "missing required field `steps`"),
    (recipe_of("[recipe]\nsteps = 'many'"), ConfigError, "Expected `int`"),
    (recipe_of("[recipe]\nsteps = 0"), ConfigError, "steps is 0"),
    (ranges_of("[ranges]\nlesions = 1"), ConfigError, "no key 'lesions'"),
    (ranges_of("[ranges]\nbias = 'much'"), ConfigError, "Expected `float`"),
    (recipe_of('[recipe]\nsteps = 1\nstage = "autoencoder"'), ConfigError, "no key 'stage'"),
    (recipe_of("[recipe]\nsteps = 1\nreal_share = 7.0"), ConfigError, "real_share is 7"),
    *(
        (recipe_of(f"[recipe]\nsteps = 1\n{key} = {value}"), ConfigError, f"{key} is {value}. It must be {words}")
        for key, value, words in (
            ("rate", "nan", "above 0"),
            ("clip", "0.0", "above 0"),
            ("clip", "inf", "above 0"),
            ("validation_patches", "0", "above 0"),
            ("warmup", "-1", "at least 0"),
            ("workers", "-1", "at least 0"),
            ("keep", "-1", "at least 0"),
            ("validate_every", "-1", "at least 0"),
            ("degraded", "0", "from 1 to 3"),
            ("degraded", "4", "from 1 to 3"),
            ("seed", "-1", "from 0 to"),
            ("ema", "1.0", "at least 0 and below 1"),
        )
    ),
    (recipe_of("[recipe]\nsteps = 1\nvisual = 0\nsegmentation = 0"), ConfigError, "visual and segmentation are both 0"),
    (ranges_of("[ranges]\nbias = inf"), ConfigError, "bias is inf"),
    (ranges_of("[ranges]\nno_lesions = 5.0"), ConfigError, "no_lesions is 5"),
    (ranges_of("[ranges]\nnoise = -0.1"), ConfigError, "noise is -0.1"),
    (ranges_of("[ranges]\nlesion_contrast = [0.9, 0.1]"), ConfigError, "the lower bound comes first"),
    (not_utf8, ConfigError, r"run\.toml is not a usable configuration"),
    (
        lambda folder: read_config(write(folder, "[network]\nhead_options = {filters = [8]}")).network.build(),
        ConfigError,
        "head_options are given without a head",
    ),
    (
        lambda _: load_material(DataConfig(held_out=("02",), real=("studies/one",) * 2), Ranges(), "joint"),
        ConfigError,
        "study one is given more than once",
    ),
    (lambda _: load_material(DataConfig(held_out=("77",)), Ranges(), "joint"), StudyError, "lesion donor 77"),
    (no_maps, StudyError, "no label map to train on"),
    (nothing_to_validate_on, StudyError, "no held-out label map"),
    (without_masks, StudyError, "study one has no lesion mask"),
]


@pytest.mark.parametrize(("situation", "kind", "words"), ROWS, ids=[row[2] for row in ROWS])
def test_bad_configuration(
    situation: Callable[[Path], object], kind: type[RmrError], words: str, data: Path, tmp_path: Path
) -> None:
    with pytest.raises(kind, match=words):
        situation(tmp_path)
