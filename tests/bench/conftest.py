"""A benchmark of the tiny bundle, taken once, and results made by hand."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import msgspec
import pytest
from tiny_study import make_tiny, write_study

from rmr_sdk.bench import roofline
from rmr_sdk.bench.measure import run_bench
from rmr_sdk.bench.results import (
    BenchResult,
    BundleFacts,
    Conditions,
    Configuration,
    Machine,
    Protocol,
    StudyFacts,
)
from rmr_sdk.bench.samples import describe
from rmr_sdk.bench.settings import BenchSettings

FAST: dict[str, Any] = {"repeats": 2, "warmup": 1, "cold_starts": 0}


@pytest.fixture(scope="session")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Give a folder with the tiny bundle in fp32 and int8, a study, and room for a cache."""
    folder = tmp_path_factory.mktemp("bench")
    make_tiny(folder / "tiny.zip", precisions=("fp32", "int8"))
    write_study(folder / "study")
    return folder


@pytest.fixture(scope="session")
def measured(place: Path) -> BenchResult:
    """Give a benchmark of the tiny bundle in two precisions, with roofs small enough for a test."""
    settings = BenchSettings(
        bundle=str(place / "tiny.zip"),
        engines=("openvino",),
        precisions=("fp32", "int8"),
        threads=1,
        cache_dir=place / "cache",
        **FAST,
    )
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(roofline, "COPY_BYTES", 2**20)
        patch.setattr(roofline, "SIDE", 64)
        return run_bench(place / "study", settings)


@pytest.fixture(scope="session")
def make_configuration() -> Callable[..., Configuration]:
    """Give a function that makes a configuration from the seconds of its studies."""

    def make(seconds: Sequence[float], precision: str = "fp32", **changes: Any) -> Configuration:
        fields: dict[str, Any] = {
            "label": f"openvino {precision}",
            "asked": {"precision": precision},
            "engine": "openvino",
            "engine_version": "1",
            "engine_reason": "asked for",
            "device": "cpu",
            "device_name": "CPU",
            "precision": precision,
            "threads": 2,
            "tiles": 8,
            "tiles_skipped": 0,
            "study_s": describe(seconds),
            "stages_s": {"network": describe([0.9 * value for value in seconds])},
            "tile_s": describe([value / 8 for value in seconds]),
        }
        return Configuration(**{**fields, **changes})

    return make


@pytest.fixture(scope="session")
def make_result(make_configuration: Callable[..., Configuration]) -> Callable[..., BenchResult]:
    """Give a function that makes a result of one or more configurations."""

    def make(*configurations: Configuration, overlap: float = 0.25, **changes: Any) -> BenchResult:
        made = BenchResult(
            date="2026-01-01",
            sdk_version="1",
            study=StudyFacts(demo=True, fingerprint="a" * 64, reference="FLAIR", shape=(2, 2, 2), spacing_mm=(1, 1, 1)),
            bundle=BundleFacts(name="tiny", version="1.0.0", hash="b" * 64, tile_shape=(8, 8, 8)),
            protocol=Protocol(warmup=1, repeats=5, cold_starts=0, overlap=overlap),
            machine=Machine(
                cpu="CPU",
                architecture="x86_64",
                usable_cores=2,
                logical_cores=2,
                instructions=(),
                memory_gib=8.0,
                board="",
                system="Linux",
                versions={"python": "3.11"},
            ),
            conditions=Conditions(),
            configurations=configurations or (make_configuration([1.0] * 5),),
        )
        return msgspec.structs.replace(made, **changes)

    return make
