"""The mean of checkpoints: of weights alone, of one network alone, and what is known of each carried along."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from rmr_sdk.errors import ConfigError, FormatError
from rmr_training.averaging import average
from rmr_training.checkpoint import NORMALISATION, load_network, read_checkpoint, save_checkpoint
from rmr_training.cli import main
from rmr_training.models import Preset, RmrFusion
from tests.training.test_stages import TINY


def write(folder: Path, seed: int, **extra: object) -> Path:
    torch.manual_seed(seed)
    path = folder / f"{seed}.pth"
    save_checkpoint(path, RmrFusion(TINY), "joint", extra)
    return path


def test_the_mean_of_weights_is_written_with_what_is_known(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    calibrated = {"normalisation": NORMALISATION | {"most_median": 0.6}, "calibration": {"offset": 1.0}}
    one = write(tmp_path, 1, step=5, recipe={"steps": 5}, studies=["b", "a"], **calibrated)
    two = write(tmp_path, 2, step=7, recipe={"steps": 7}, studies=["c"])
    half = read_checkpoint(one)
    half["model"] = {key: w.half() if w.is_floating_point() else w for key, w in half["model"].items()}
    torch.save(half, one)
    assert main(["average", str(one), str(two), "--out", str(tmp_path / "mean.pth")]) == 0
    assert "the mean of 2 checkpoints" in capsys.readouterr().out
    mean = read_checkpoint(tmp_path / "mean.pth")
    assert (mean["step"], mean["recipe"], mean["studies"], mean["mean_of"]) == (7, {"steps": 7}, ["a", "b", "c"], 2)
    assert "calibration" not in mean
    assert mean["normalisation"] == NORMALISATION
    first, second = half["model"], read_checkpoint(two)["model"]
    assert mean["model"].keys() == first.keys()
    for key, weight in mean["model"].items():
        assert weight.dtype == second[key].dtype
        wanted = (first[key].double() + second[key].double()) / 2
        torch.testing.assert_close(weight.double(), wanted, rtol=1e-6, atol=1e-7)
    load_network(tmp_path / "mean.pth")


@pytest.mark.parametrize("key", ["preset", "normalisation", "stage"])
def test_checkpoints_of_other_networks_are_refused(tmp_path: Path, key: str) -> None:
    paths = [write(tmp_path, 1), write(tmp_path, 2)]
    content = read_checkpoint(paths[1])
    other = Preset("other", TINY.encoder, growth=TINY.growth, head=TINY.head).to_metadata()
    content[key] = {"preset": other, "normalisation": {}, "stage": "autoencoder"}[key]
    torch.save(content, paths[1])
    with pytest.raises(FormatError, match=rf"2\.pth and 1\.pth differ in {key}"):
        average(paths, tmp_path / "mean.pth")
    assert not (tmp_path / "mean.pth").exists()


def test_one_checkpoint_and_the_state_of_a_run_are_refused(tmp_path: Path) -> None:
    path = write(tmp_path, 1)
    with pytest.raises(ConfigError, match=r"the mean of 1 checkpoints was asked for\. Name two or more"):
        average([path], tmp_path / "mean.pth")
    with pytest.raises(FormatError, match=r"2\.pth is the state of a run\. Take model\.pth"):
        average([path, write(tmp_path, 2, average={})], tmp_path / "mean.pth")
