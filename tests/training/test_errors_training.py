"""Bad input to training and evaluation: each a typed error that says what, where and how to fix it."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
import torch

from rmr_sdk.errors import ConfigError, FormatError, GeometryError, OutputError, RmrError, StudyError
from rmr_training.checkpoint import load_network, read_checkpoint, save_checkpoint
from rmr_training.data import load_label_maps
from rmr_training.evaluate import load_study
from rmr_training.models import Preset, RmrFusion, build_head, find_preset
from rmr_training.sheet import check_sheet
from tests.training.test_stages import TINY

Situation = Callable[[Path], object]


def save_image(path: Path, array: np.ndarray, spacing: float = 1.0) -> None:
    nib.save(nib.Nifti1Image(array, np.diag([spacing, spacing, spacing, 1.0])), path)


def without_model(folder: Path) -> object:
    torch.save({"weights": {}}, folder / "model.pth")
    return read_checkpoint(folder / "model.pth")


def without_preset(folder: Path) -> object:
    torch.save({"model": {}}, folder / "model.pth")
    return load_network(folder / "model.pth")


def of_another_shape(folder: Path) -> object:
    save_checkpoint(folder / "model.pth", RmrFusion(TINY), "joint", {})
    content = read_checkpoint(folder / "model.pth")
    content["preset"] = Preset("other", TINY.encoder, growth=8, head=None).to_metadata()
    torch.save(content, folder / "model.pth")
    return load_network(folder / "model.pth")


def with_label_nine(folder: Path) -> object:
    save_image(folder / "patient01.nii.gz", np.full((4, 4, 4), 9, np.uint8))
    return load_label_maps(folder)


def of_a_malformed_preset(folder: Path) -> object:
    torch.save({"model": {}, "preset": {"name": 3}}, folder / "model.pth")
    return load_network(folder / "model.pth")


def of_an_impossible_preset(folder: Path) -> object:
    preset = TINY.to_metadata()
    preset["encoder"]["heads"] = 0
    torch.save({"model": {}, "preset": preset}, folder / "model.pth")
    return load_network(folder / "model.pth")


def map_of(voxels: np.ndarray, spacing: float = 1.0, cut: bool = False) -> Situation:
    def situation(folder: Path) -> object:
        file = folder / "patient01.nii.gz"
        save_image(file, voxels, spacing)
        if cut:
            file.write_bytes(file.read_bytes()[:-2000])
        return load_label_maps(folder)

    return situation


NOISE = np.random.default_rng(0).integers(0, 5, (24, 24, 24), np.uint8)


def in_the_place_of_a_folder(folder: Path) -> object:
    (folder / "model.pth").mkdir()
    save_checkpoint(folder / "model.pth", RmrFusion(TINY), "joint", {})
    return None


def on_two_grids(folder: Path) -> object:
    image = np.random.default_rng(0).random((8, 8, 8), np.float32)
    save_image(folder / "t1.nii.gz", image)
    save_image(folder / "flair.nii.gz", image, spacing=2.0)
    save_image(folder / "lesion.nii.gz", (image > 0.5).astype(np.uint8))
    return load_study(folder)


ROWS: list[tuple[Situation, type[RmrError], str]] = [
    (lambda folder: read_checkpoint(folder / "none.pth"), FormatError, "not a readable checkpoint"),
    (without_model, FormatError, 'has no entry "model"'),
    (without_preset, FormatError, "does not name its preset"),
    (of_another_shape, FormatError, "do not fit the network"),
    (load_label_maps, StudyError, "no label map"),
    (with_label_nine, FormatError, "labels up to 9"),
    (of_a_malformed_preset, FormatError, r"the preset of model\.pth makes no network: Expected `str`"),
    (of_an_impossible_preset, FormatError, r"the preset of model\.pth makes no network: integer"),
    (map_of(NOISE, cut=True), FormatError, r"patient01\.nii\.gz is damaged or no NIfTI file"),
    (map_of(NOISE[..., None].repeat(2, 3)), FormatError, "has 4 axes and voxels of 1 x 1 x 1 mm"),
    (map_of(NOISE, spacing=2.0), FormatError, "has 3 axes and voxels of 2 x 2 x 2 mm"),
    (in_the_place_of_a_folder, OutputError, r"model\.pth cannot be written"),
    (lambda folder: check_sheet(folder / "sheet.txt"), ConfigError, r"sheet\.txt is not the name of an image"),
    (on_two_grids, GeometryError, "different grids"),
    (lambda _: find_preset("huge"), ConfigError, r"unknown preset 'huge' \(known: paper, edge, edge-"),
    (lambda _: build_head("vnet", 16, 5), ConfigError, "unknown head 'vnet'"),
    (lambda _: build_head("no.such:Head", 16, 5), ConfigError, "cannot be imported"),
    (lambda _: build_head("unet", 16, 5, options={"depth": 3}), ConfigError, "does not take these options"),
]


def test_a_checkpoint_that_cannot_be_written_leaves_nothing(tmp_path: Path) -> None:
    with pytest.raises(AttributeError, match="pickle"):
        save_checkpoint(tmp_path / "model.pth", RmrFusion(TINY), "joint", {"step": lambda: 0})
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(("situation", "kind", "words"), ROWS, ids=[row[2] for row in ROWS])
def test_bad_input(situation: Situation, kind: type[RmrError], words: str, tmp_path: Path) -> None:
    with pytest.raises(kind, match=words):
        situation(tmp_path)
