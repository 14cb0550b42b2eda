"""What a run is said to take before it runs, and runs that must be done by a deadline."""

from __future__ import annotations

import time
import tracemalloc
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from tiny_study import make_grid, make_study, make_tiny

from rmr_sdk import Pipeline, Progress
from rmr_sdk.errors import Cancelled, ConfigError, DeadlineExceeded, DeviceMemoryError

MIB = 1024 * 1024


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Give the path of the tiny bundle."""
    path = tmp_path_factory.mktemp("bundles") / "tiny.zip"
    make_tiny(path)
    return path


@pytest.fixture
def pipeline(bundle: Path) -> Iterator[Pipeline]:
    """Give a pipeline that has run nothing yet."""
    with Pipeline.open(bundle, cache_dir=bundle.parent, threads=1) as opened:
        yield opened


@pytest.mark.parametrize("spacing_mm", [1.0, 2.6])
def test_a_plan_is_what_the_run_does(pipeline: Pipeline, spacing_mm: float) -> None:
    study = make_study(make_grid(spacing_mm=spacing_mm))
    plan = pipeline.plan(study, overlap=0.5)
    made = pipeline.run(study, overlap=0.5).provenance
    assert (plan.tiles, plan.tiles_skipped) == (made.tiles, made.tiles_skipped)
    assert plan.bytes <= sum(plan.memory.values())
    assert (plan.memory["copies"] > 0) == (spacing_mm > 2)
    assert plan.seconds > 0
    assert "a tile of zeros" in plan.basis
    assert "the last run" in pipeline.plan(study).basis


def test_the_memory_of_a_plan_is_what_a_run_allocates(pipeline: Pipeline) -> None:
    study = make_study(make_grid(shape=(90, 80, 70)))
    planned = pipeline.plan(study).memory
    pipeline.run(study)
    tracemalloc.start()
    try:
        pipeline.run(study)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    allocated = planned["outputs"] + planned["blend"]
    assert allocated < peak < 6 * allocated  # NumPy's arrays; finding lesions and checking quality take some too


def test_fewer_slots_where_memory_is_short(bundle: Path) -> None:
    study = make_study(make_grid(shape=(90, 80, 70)))
    with Pipeline.open(bundle, cache_dir=bundle.parent, threads=8) as roomy:
        plan = roomy.plan(study)
    least = (plan.bytes - (plan.slots - 1) * plan.memory["tiles"] // (plan.slots + 1)) / MIB
    with Pipeline.open(bundle, cache_dir=bundle.parent, threads=8, max_memory_mib=least + 0.01) as narrow:
        small = narrow.plan(study)
        assert 1 <= small.slots <= plan.slots
        assert small.bytes <= (least + 0.01) * MIB
    with (
        Pipeline.open(bundle, cache_dir=bundle.parent, max_memory_mib=0.5) as none,
        pytest.raises(DeviceMemoryError, match="this study needs"),
    ):
        none.plan(study)


def test_a_deadline_that_is_long_enough_changes_nothing(pipeline: Pipeline) -> None:
    study = make_study()
    expected, found = pipeline.run(study), pipeline.run(study, deadline_s=600)
    assert np.array_equal(found.labels.data, expected.labels.data)


def test_a_deadline_ends_a_run_between_two_tiles(pipeline: Pipeline) -> None:
    steps: list[Progress] = []

    def dawdle(step: Progress) -> None:
        steps.append(step)
        if step.stage == "infer" and step.done == 1:
            time.sleep(0.3)

    with pytest.raises(DeadlineExceeded, match=r"the deadline of 0\.25 s passed during 'infer' \(1 of") as caught:
        pipeline.run(make_study(), progress=dawdle, deadline_s=0.25)
    assert isinstance(caught.value, Cancelled)
    assert caught.value.exit_code == 130
    assert steps[-1].done == 1
    assert pipeline.run(make_study()).lesions


@pytest.mark.parametrize("deadline_s", [0, -1, float("nan"), float("inf")])
def test_deadlines_that_make_no_sense(pipeline: Pipeline, deadline_s: float) -> None:
    with pytest.raises(ConfigError, match="Pass a positive number of seconds"):
        pipeline.run(make_study(), deadline_s=deadline_s)
