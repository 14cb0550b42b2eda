"""Every way in which a run can be refused or fail: the error's type and its words."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from tiny_study import make_grid, make_study, make_tiny

from rmr_sdk import Pipeline, Study
from rmr_sdk.errors import (
    BundleError,
    Cancelled,
    ConfigError,
    DeviceMemoryError,
    EngineError,
    GeometryError,
    RmrError,
    StudyError,
)


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Give the path of the tiny bundle."""
    path = tmp_path_factory.mktemp("bundles") / "tiny.zip"
    make_tiny(path)
    return path


@pytest.fixture(scope="module")
def pipeline(bundle: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Pipeline]:
    """Give one open pipeline; an error must leave it usable for the next row."""
    with Pipeline.open(bundle, cache_dir=tmp_path_factory.mktemp("cache")) as opened:
        yield opened


def expect(kind: type[RmrError], words: str, act: Callable[[], object]) -> RmrError:
    """Run the action and return its error, which must be of this very type and say these words."""
    with pytest.raises(RmrError, match=re.escape(words)) as caught:
        act()
    assert type(caught.value) is kind
    return caught.value


def changed(change: Callable[[np.ndarray], np.ndarray]) -> Study:
    """Return the tiny study with its FLAIR changed."""
    study, affine = make_study(), make_grid().affine
    return Study.from_arrays({"T1w": study["T1w"].data, "FLAIR": change(study["FLAIR"].data.copy())}, affine=affine)


def apart() -> Study:
    """Return a T1 and a FLAIR half a metre apart."""
    study, far = make_study(), make_grid().affine.copy()
    far[0, 3] += 500
    arrays = {name: volume.data for name, volume in study.items()}
    return Study.from_arrays(arrays, affine={"T1w": far, "FLAIR": make_grid().affine})


@pytest.mark.parametrize(
    ("options", "kind", "words"),
    [
        ({"bundle": "no-such"}, BundleError, 'There is no bundle "no-such" (shipped: '),
        ({"engine": "caffe"}, ConfigError, 'There is no engine "caffe". Choose one of "auto", "openvino"'),
        ({"device": "tpu"}, ConfigError, 'There is no device "tpu".'),
        ({"precision": "fp8"}, ConfigError, 'There is no precision "fp8".'),
        ({"threads": 0}, ConfigError, "threads is 0. Pass a whole number from 1"),
        ({"least_lesion_probability": 1.5}, ConfigError, "least_lesion_probability is 1.5. Pass 0 to keep all lesions"),
        ({"least_white_matter": -0.1}, ConfigError, "least_white_matter is -0.1. Pass 0 to keep all lesions"),
        ({"lesion_threshold": 2.0}, ConfigError, "lesion_threshold is 2.0. Pass 0 to keep all lesions"),
        (
            {"least_lesion_mm3": 1001.0},
            ConfigError,
            "least_lesion_mm3 is 1001.0. Pass 0 to keep all lesions, up to 1000",
        ),
        ({"least_lesion_probability": float("nan")}, ConfigError, "least_lesion_probability is nan."),
        ({"max_memory_mib": 0}, ConfigError, "max_memory_mib is 0. Pass a positive number, or None"),
        ({"max_memory_mib": -5.0}, ConfigError, "max_memory_mib is -5.0."),
        ({"max_memory_mib": float("nan")}, ConfigError, "max_memory_mib is nan."),
        ({"max_memory_mib": float("inf")}, ConfigError, "max_memory_mib is inf."),
    ],
)
def test_opening(bundle: Path, tmp_path: Path, options: dict[str, Any], kind: type[RmrError], words: str) -> None:
    arguments = {"bundle": bundle, "cache_dir": tmp_path, **options}
    expect(kind, words, lambda: Pipeline.open(**arguments))


@pytest.mark.parametrize(
    ("study", "options", "kind", "words"),
    [
        (make_study, {"overlap": -0.1}, ConfigError, "overlap -0.1 is out of range. Give a number from 0 to 0.9."),
        (make_study, {"overlap": 0.95}, ConfigError, "overlap 0.95 is out of range."),
        (make_study, {"overlap": float("nan")}, ConfigError, "overlap nan is out of range."),
        (make_study, {"reference": "T2w"}, ConfigError, 'reference is "T2w". Choose one of "T1w", "FLAIR".'),
        (make_study, {"align": "best"}, ConfigError, 'align is "best". Choose one of'),
        (make_study, {"non_finite": "ignore"}, ConfigError, 'non_finite is "ignore". Choose one of'),
        (lambda: Study({"FLAIR": make_study()["FLAIR"]}), {}, StudyError, 'contrast "T1w" is missing (found: "FLAIR")'),
        (lambda: changed(lambda a: np.where(a > 150, np.nan, a)), {}, StudyError, 'contrast "FLAIR": it holds NaN'),
        (lambda: changed(lambda a: 0 * a + 7), {}, StudyError, 'contrast "FLAIR": every voxel is 7.0'),
        (apart, {}, GeometryError, 'contrast "T1w": it does not overlap the reference "FLAIR" in space.'),
        (
            lambda: make_study({"T1w": make_grid(spacing_mm=1.3), "FLAIR": make_grid()}),
            {"align": "none"},
            GeometryError,
            'contrast "T1w": it is on another grid than the reference "FLAIR"',
        ),
    ],
)
def test_running(
    pipeline: Pipeline, study: Callable[[], Study], options: dict[str, Any], kind: type[RmrError], words: str
) -> None:
    expect(kind, words, lambda: pipeline.run(study(), **options))
    assert pipeline.run(make_study()).lesions


def test_too_little_memory(bundle: Path, tmp_path: Path) -> None:
    with Pipeline.open(bundle, cache_dir=tmp_path, max_memory_mib=0.25) as narrow:
        error = expect(
            DeviceMemoryError,
            "this study needs 1 MiB beside the network, and max_memory_mib is 0.25. Raise max_memory_mib",
            lambda: narrow.run(make_study()),
        )
    assert (error.needed_mib, error.max_memory_mib, error.exit_code) == (1, 0.25, 5)


def test_cancelled(pipeline: Pipeline) -> None:
    error = expect(
        Cancelled,
        "the run was cancelled during 'infer' (2 of",
        lambda: pipeline.run(make_study(), progress=lambda step: (step.stage, step.done) != ("infer", 2)),
    )
    assert (error.stage, error.done, error.exit_code) == ("infer", 2, 130)


@pytest.mark.parametrize("act", [lambda closed: closed.run(make_study()), lambda closed: closed.warmup()])
def test_closed(bundle: Path, tmp_path: Path, act: Callable[[Pipeline], object]) -> None:
    closed = Pipeline.open(bundle, cache_dir=tmp_path)
    closed.close()
    closed.close()
    expect(EngineError, "The engine has been closed. Open the pipeline again.", lambda: act(closed))
