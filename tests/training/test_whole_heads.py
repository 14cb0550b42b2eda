"""Heads that were not stripped and have no lesion mask: what is no lesion, by rule, and what nothing is known of."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
import torch

from rmr_sdk.errors import ConfigError, FormatError, StudyError
from rmr_training import whole_heads
from rmr_training.checkpoint import save_checkpoint
from rmr_training.cli import main
from rmr_training.data import LabelMap, Patches
from rmr_training.losses import IGNORED, UNKNOWN
from rmr_training.models import RmrFusion, find_preset
from rmr_training.synthesis import CSF, GREY, LESION, WHITE
from rmr_training.whole_heads import SUSPECT, doubt_lesions, judge, load_whole_head
from tests.training.test_real import write_study
from tests.training.test_synthesis import phantom

MM = (1.0, 1.0, 1.0)
IN_WHITE, IN_GREY, IN_SCALP = (20, 20, 20), (20, 20, 33), (20, 20, 50)


def labelled_head() -> np.ndarray:
    """White matter in a shell of grey matter in fluid, scalp apart from it, and a lesion of 27 voxels in each."""
    z, y, x = np.indices((40, 40, 56))
    far = np.sqrt((z - 20.0) ** 2 + (y - 20.0) ** 2 + (x - 20.0) ** 2)
    labels = np.zeros(far.shape, np.uint8)
    labels[far < 18] = CSF
    labels[far < 16] = GREY
    labels[far < 9] = WHITE
    labels[18:23, 10:30, 46:54] = WHITE
    for d, h, w in (IN_WHITE, IN_GREY, IN_SCALP):
        labels[d - 1 : d + 2, h - 1 : h + 2, w - 1 : w + 2] = LESION
    return labels


def test_lesions_outside_the_brain_or_away_from_white_matter_are_doubted() -> None:
    doubted = doubt_lesions(labelled_head(), MM)
    assert not doubted[IN_WHITE]
    assert doubted[IN_GREY]
    assert doubted[IN_SCALP]
    assert int(doubted.sum()) == 2 * 27


def test_the_atlas_has_a_say_where_it_fits() -> None:
    labels = labelled_head()
    nowhere = np.zeros(labels.shape, bool)
    assert np.array_equal(doubt_lesions(labels, MM, nowhere), labels == LESION)
    assert np.array_equal(doubt_lesions(labels, MM, ~nowhere), doubt_lesions(labels, MM))


def test_without_brain_or_without_lesion() -> None:
    labels = np.zeros((12, 12, 12), np.uint8)
    assert not doubt_lesions(labels, MM).any()
    labels[6, 6, 6] = LESION
    assert doubt_lesions(labels, MM)[6, 6, 6]


def test_believed_lesions_and_their_surroundings_teach_nothing() -> None:
    labels = labelled_head()
    known = judge(labels, labels > 0, MM)
    assert set(np.unique(known)) == {0, UNKNOWN, SUSPECT, IGNORED}
    assert np.array_equal(known == 0, labels == 0)
    assert np.array_equal(known == SUSPECT, doubt_lesions(labels, MM))
    ignored = np.argwhere(known == IGNORED)
    assert ignored.min(0).tolist() == [17, 17, 17]  # two voxels beyond a lesion from 19 to 21
    assert ignored.max(0).tolist() == [23, 23, 23]
    assert len(ignored) == 7**3


@pytest.fixture(scope="module")
def network() -> RmrFusion:
    torch.manual_seed(0)
    return RmrFusion(find_preset("edge-small"))


def test_a_head_is_labelled_once(network: RmrFusion, tmp_path: Path) -> None:
    folder, file = write_study(tmp_path / "head", mask=False), tmp_path / "kept" / "head.nii.gz"
    network.train()
    study = load_whole_head(folder, network, file)
    assert network.training
    assert study.name == "head"
    assert study.labels is not None
    assert study.images.shape[1:] == study.labels.shape
    assert set(study.labels.unique().tolist()) <= {0, IGNORED, UNKNOWN}
    assert torch.equal(study.labels == 0, (study.images > 0).sum(0) == 0)

    known = nib.load(file)
    voxels = np.asanyarray(known.dataobj).copy()
    voxels[voxels > 0] = UNKNOWN
    voxels[tuple(n // 2 for n in voxels.shape)] = SUSPECT
    nib.save(nib.Nifti1Image(voxels, known.affine), file)
    again = load_whole_head(folder, network, file)  # what the file says counts, and nothing is computed
    assert again.lesions.tolist() == [[n // 2 for n in voxels.shape]]
    assert again.labels is not None
    assert not (again.labels == IGNORED).any()
    assert not (again.labels == SUSPECT).any()


def test_a_file_of_another_grid_is_refused(network: RmrFusion, tmp_path: Path) -> None:
    file = tmp_path / "head.nii.gz"
    nib.save(nib.Nifti1Image(np.zeros((4, 4, 4), np.uint8), np.eye(4)), file)
    with pytest.raises(FormatError, match=r"\(4, 4, 4\), the study head"):
        load_whole_head(write_study(tmp_path / "head", mask=False), network, file)


def test_a_file_that_lies_elsewhere_is_refused(network: RmrFusion, tmp_path: Path) -> None:
    folder, file = write_study(tmp_path / "head", mask=False), tmp_path / "head.nii.gz"
    load_whole_head(folder, network, file)
    known = nib.load(file)
    moved = known.affine.copy()
    moved[0, 3] += 1
    nib.save(nib.Nifti1Image(np.asanyarray(known.dataobj), moved), file)
    with pytest.raises(FormatError, match=r"head\.nii\.gz lies elsewhere than the study head"):
        load_whole_head(folder, network, file)


def test_labels_of_other_weights_are_made_anew(
    network: RmrFusion, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder, file = write_study(tmp_path / "head", mask=False), tmp_path / "kept" / "head.nii.gz"
    made = []
    real = whole_heads.infer_network
    monkeypatch.setattr(whole_heads, "infer_network", lambda *given: made.append(1) or real(*given))
    for weights, times in (("aa", 1), ("aa", 1), (None, 1), ("bb", 2), ("bb", 2), ("aa", 3)):
        load_whole_head(folder, network, file, weights)
        assert len(made) == times
    assert (tmp_path / "kept" / "head.sha256").read_text() == "aa"
    (tmp_path / "kept" / "head.sha256").unlink()  # as left by a run that was cut off
    load_whole_head(folder, network, file, "aa")
    assert len(made) == 4


def test_a_head_without_flair_is_named(network: RmrFusion, tmp_path: Path) -> None:
    folder = write_study(tmp_path / "half", mask=False)
    (folder / "flair.nii.gz").unlink()
    with pytest.raises(StudyError, match="study half"):
        load_whole_head(folder, network, tmp_path / "half.nii.gz")


def test_patches_of_heads_come_with_their_share(network: RmrFusion, tmp_path: Path) -> None:
    head = load_whole_head(write_study(tmp_path / "head", mask=False), network, tmp_path / "head.nii.gz")
    maps = [LabelMap("phantom", "1", 1.0, phantom(), np.argwhere(phantom() == LESION))]
    stream = Patches(maps, 16, 0, real_share=0.5, whole_heads=[head], whole_heads_share=0.4)
    names = [stream.draw(i)[1] for i in range(24)]
    assert 6 <= names.count("head") <= 18  # without labelled studies, all real patches are of heads
    both = Patches(maps, 16, 0, real=[head], real_share=1.0, whole_heads=[head], whole_heads_share=0.4)
    assert {both.draw(i)[1] for i in range(4)} == {"head"}


def test_a_run_learns_from_heads_and_says_so(
    network: RmrFusion, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "labelmaps").mkdir()
    for donor in ("01", "05", "09", "20", "28"):
        nib.save(nib.Nifti1Image(phantom(), np.eye(4)), tmp_path / "labelmaps" / f"patient{donor}.nii.gz")
    monkeypatch.setenv("RMR_DATA", str(tmp_path))
    heads = ["sub-01/anat", "sub-02/anat"]
    for head in heads:
        write_study(tmp_path / head, mask=False)
    save_checkpoint(tmp_path / "start.pth", network, "joint", {})
    save_checkpoint(tmp_path / "stage1.pth", network, "autoencoder", {})
    config = tmp_path / "run.toml"
    config.write_text(
        f"[data]\nwhole_heads = {json.dumps(heads)}\n[recipe]\nreal_share = 1.0\nside = 32\nbatch = 1\nworkers = 0\n"
    )
    command = ["joint", "--config", str(config), "--steps", "1", "--threads", "1", "--no-amp", "--preset", "edge-small"]
    stage_1 = ["--start", str(tmp_path / "stage1.pth")]
    for start in ([], stage_1):
        assert main([*command, "--out", str(tmp_path / "refused"), *start]) == ConfigError.exit_code
        assert "labelled by the weights that a joint stage starts from" in capsys.readouterr().err
    out = ["--out", str(tmp_path / "out")]
    assert main([*command, *out, "--start", str(tmp_path / "start.pth")]) == 0
    content = torch.load(tmp_path / "out" / "model.pth", weights_only=True)
    assert content["studies"] == heads
    assert content["recipe"]["whole_heads_share"] == 0.4
    assert all((tmp_path / "out" / "whole_heads" / f"{head}.nii.gz").exists() for head in heads)
    kept = (tmp_path / "out" / "whole_heads" / "sub-01" / "anat.sha256").read_text()
    assert kept == hashlib.sha256((tmp_path / "start.pth").read_bytes()).hexdigest()
    assert main([*command, *out, *stage_1, "--resume"]) == ConfigError.exit_code  # not its labels
    assert main([*command, *out, "--steps", "2", "--resume"]) == 0  # the labels are there: no start is needed
