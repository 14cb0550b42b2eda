"""The comparison of bounds for flat contrasts: heads are seen as the runtime sees studies, and no run is made twice."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

import nibabel as nib
import numpy as np
import pytest

from rmr_sdk.lesion_rule import LesionRule
from rmr_training import sureness
from rmr_training.checkpoint import KEEP_ALL, save_checkpoint
from rmr_training.sampling import keyed_generator
from rmr_training.sureness import Segmented
from rmr_training.synthesis import LESION, WHITE
from tests.training.test_stages import network
from tests.training.test_sureness import label_map, table
from tests.training.test_synthesis import phantom


@pytest.fixture(scope="module")
def stretch() -> Iterator[ModuleType]:
    """Give the benchmark, which is a script beside the packages."""
    sys.path.insert(0, str(Path(__file__).parents[2] / "benchmarks"))
    import bench_stretch

    yield bench_stretch
    sys.path.pop(0)


def test_figures_are_of_what_the_rule_keeps(stretch: ModuleType) -> None:
    head = table(true_at=0.9, false_at=0.4)  # 8 voxels each
    assert stretch.judge(head, LesionRule(LESION, WHITE)) == (pytest.approx(2 / 3), pytest.approx(2 / 3))
    assert stretch.judge(head, LesionRule(LESION, WHITE, least_probability=0.5)) == (1.0, 1.0)
    assert (head.labels == LESION).sum() == 16


def test_a_bound_stretches_what_is_above_it_and_equals_are_run_once(
    stretch: ModuleType, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen = []

    def look(net: object, prepared: object, manifest: object, head: object) -> Segmented:
        seen.append(prepared)
        return table(0.9, 0.4)

    monkeypatch.setattr(stretch, "segment_prepared", look)
    head = sureness.make_head(label_map(phantom()), keyed_generator(1), 48)
    clean = list(stretch.by_bound(network(), KEEP_ALL, head, ("clean", 0), (1.0, 0.999)))
    assert [stretched for _, stretched in clean] == [False, False]
    assert len(seen) == 1
    low = list(stretch.by_bound(network(), KEEP_ALL, head, ("contrast", 3), (1.0, 0.5, 0.3)))
    assert [stretched for _, stretched in low] == [False, True, True]
    assert len(seen) == 4
    medians = []
    for prepared in seen[1:]:
        line = prepared.intensity["FLAIR"]
        values = line.apply(prepared.arrays["FLAIR"])
        medians.append(float(np.median(values[prepared.arrays["FLAIR"] > line.floor])))
    assert medians[0] > 0.5
    assert medians[1:] == pytest.approx([0.5, 0.3], abs=1e-3)


def test_rows_are_written(stretch: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "labelmaps").mkdir()
    labels = phantom()
    labels[12:15, 28:31, 28:31] = LESION  # small enough for a small load
    nib.save(nib.Nifti1Image(labels, np.eye(4)), tmp_path / "labelmaps" / "patient05.nii.gz")
    save_checkpoint(tmp_path / "fold.pth", network(), "joint", {})
    monkeypatch.setattr(stretch, "SIDE", 48)
    rows = stretch.judge_fold("fold", tmp_path / "fold.pth", tmp_path / "labelmaps", 1, (1.0, 0.4))
    assert [(row["damage"], row["most_median"]) for row in rows] == [
        ("clean", 1.0),
        ("clean", 0.4),
        ("contrast", 1.0),
        ("contrast", 0.4),
    ]
    assert all(row["heads"] == 2 for row in rows)
    assert all(0 <= row[name] <= 1 for row in rows for name in ("dice", "f1"))
    assert [row["stretched"] for row in rows if row["most_median"] == 1] == [0, 0]
    assert rows[-1]["stretched"] == 2
    (tmp_path / "cpu-stretch.json").write_text(json.dumps({"rows": rows, "date": "2026-01-01"}))
    import accuracy_tables
    import result_tables

    monkeypatch.setattr(result_tables, "RESULTS", tmp_path)
    lines = accuracy_tables.stretch_table().splitlines()
    assert lines[0] == "| fold | contrasts | heads | not stretched | 0.4 |"
    low = f"{rows[-1]['dice']:.3f} / {rows[-1]['f1']:.3f} (2) |"
    assert lines[3].startswith("| fold | low | 2 |")
    assert lines[3].endswith(low)
