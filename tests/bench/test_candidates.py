"""The comparison of weights on synthetic patches: one offset for all groups, patches of the kind they are called."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

import nibabel as nib
import numpy as np
import pytest
import torch

from rmr_training.checkpoint import save_checkpoint
from rmr_training.models import RmrFusion
from tests.training.test_stages import TINY
from tests.training.test_synthesis import phantom


@pytest.fixture(scope="module")
def candidates() -> Iterator[ModuleType]:
    """Give the benchmark, which is a script beside the packages."""
    sys.path.insert(0, str(Path(__file__).parents[2] / "benchmarks"))
    import bench_candidates

    yield bench_candidates
    sys.path.pop(0)


def test_one_offset_serves_all_groups(candidates: ModuleType) -> None:
    lesion = torch.tensor([True, True, False, False])
    groups = {
        ("all", "clean"): (torch.tensor([-0.5, -0.5, -3.0, -3.0]), lesion),  # right from an offset of 0.5 on
        ("few", "clean"): (torch.tensor([2.0, 2.0, -1.0, -3.0]), lesion),  # one too many from 1.0 on
    }
    row = candidates.compare("x", groups)
    assert 0.5 < row["offset"] <= 1.0
    assert row["dice"] == {"all": {"clean": 1.0}, "few": {"clean": 1.0}}
    groups["few", "clean"] = (torch.tensor([2.0, 2.0, 0.5, -3.0]), lesion)
    row = candidates.compare("x", groups)
    assert row["dice"] == {"all": {"clean": 1.0}, "few": {"clean": 0.8}}
    assert row["mean"] == pytest.approx(0.9)


def test_damage_is_of_the_kind_that_it_is_called(candidates: ModuleType) -> None:
    image = torch.zeros(1, 16, 16, 16)
    image[:, 4:12, 4:12, 4:12] = 1

    def changed(kind: str) -> torch.Tensor:
        return candidates.DAMAGE[kind].change(image, torch.Generator().manual_seed(0))

    assert torch.equal(changed("clean"), image)
    noisy, blurred = changed("noise"), changed("blur")
    assert torch.equal(noisy == 0, image == 0), "what was masked out stays 0"
    assert float((noisy - image)[image > 0].std()) == pytest.approx(0.1, rel=0.1)
    assert torch.allclose(blurred.sum((2, 3)), image.sum((2, 3)), rtol=1e-2), "in slices alone"
    assert float(blurred.max()) < 1
    assert candidates.ranges_of(candidates.DAMAGE["contrast"], 0.0).low_contrast == 1
    assert candidates.ranges_of(candidates.DAMAGE["thick"], 1.0).thick_slices == 1
    assert candidates.ranges_of(candidates.DAMAGE["clean"], 1.0).few_lesions == 1


def test_candidates_are_compared_on_the_same_patches(
    candidates: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "labelmaps").mkdir()
    for donor in ("01", "05", "09", "20", "28"):
        nib.save(nib.Nifti1Image(phantom(), np.eye(4)), tmp_path / "labelmaps" / f"patient{donor}.nii.gz")
    save_checkpoint(tmp_path / "model.pth", RmrFusion(TINY), "joint", {})
    monkeypatch.setenv("RMR_DATA", str(tmp_path))
    monkeypatch.setattr(candidates, "SIDE", 16)
    both = [f"{name}={tmp_path / 'model.pth'}" for name in ("one", "two")]
    assert candidates.main([*both, "--patches", "2", "--threads", "1", "--out", str(tmp_path / "found.json")]) == 0
    found = json.loads((tmp_path / "found.json").read_text())
    one, two = found["rows"]
    assert {**one, "candidate": ""} == {**two, "candidate": ""}
    assert list(one["dice"]) == ["all", "few"]
    assert all(list(by_damage) == list(candidates.DAMAGE) for by_damage in one["dice"].values())
    with pytest.raises(SystemExit):
        candidates.main([str(tmp_path / "model.pth")])
