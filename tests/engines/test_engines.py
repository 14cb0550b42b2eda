"""What holds for every engine: values, the order of tiles, whose memory is whose, threads, and silence."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from run_tiles import compute, expected
from tiny_bundle import make_bundle, random_tile

from rmr_sdk.bundle import Bundle
from rmr_sdk.engines import Engine, open_engine
from rmr_sdk.errors import EngineError

Opener = Callable[..., tuple[Engine, str]]


@pytest.fixture(params=["openvino", "onnxruntime"])
def open_one(request: pytest.FixtureRequest, cache_dir: Path, bundle: Bundle) -> Iterator[Opener]:
    """Give a function that opens the engine under test on the tiny bundle."""
    if request.param == "onnxruntime":
        pytest.importorskip("onnxruntime")
    opened: list[Engine] = []

    def open_it(bundle: Bundle = bundle, **options: Any) -> tuple[Engine, str]:
        engine, reason = open_engine(bundle, request.param, cache_dir=cache_dir, **options)
        opened.append(engine)
        return engine, reason

    yield open_it
    for engine in opened:
        engine.close()


def test_tiles_come_back_in_order_with_the_networks_values(open_one: Opener) -> None:
    engine, _ = open_one()
    for seed, outputs in enumerate(compute(engine, range(9))):
        assert set(outputs) == {"fused", "probability"}
        for name, array in outputs.items():
            np.testing.assert_allclose(array, expected(seed)[name], atol=2e-6)
            assert array.dtype == np.float32


def test_a_bundle_without_classes_gives_only_fused(open_one: Opener, tmp_path: Path) -> None:
    engine, _ = open_one(make_bundle(tmp_path / "fusion", classes=None))
    np.testing.assert_allclose(compute(engine, range(1))[0]["fused"], expected(0)["fused"], atol=2e-6)


def test_results_are_bit_identical_from_run_to_run(open_one: Opener) -> None:
    engine, _ = open_one()
    for one, other in zip(compute(engine, range(6)), compute(engine, range(6)), strict=True):
        for name in one:
            np.testing.assert_array_equal(one[name], other[name])


def test_several_threads_share_an_engine(open_one: Opener) -> None:
    engine, _ = open_one()
    alone = compute(engine, range(8))
    with ThreadPoolExecutor(4) as pool:
        for together in pool.map(lambda _: compute(engine, range(8)), range(4)):
            for one, other in zip(alone, together, strict=True):
                np.testing.assert_array_equal(one["probability"], other["probability"])


def test_outputs_stay_valid_until_the_next_collect(open_one: Opener) -> None:
    engine, _ = open_one()
    with engine.session() as session:
        session.submit(random_tile(0))
        first = session.collect()
        for seed in range(1, engine.slots + 1):
            session.submit(random_tile(seed))
        np.testing.assert_allclose(first["fused"], expected(0)["fused"], atol=2e-6)
        np.testing.assert_allclose(session.collect()["fused"], expected(1)["fused"], atol=2e-6)


def test_inputs_are_left_as_they_were(open_one: Opener) -> None:
    engine, _ = open_one()
    tile = random_tile(0)
    with engine.session() as session:
        session.submit(tile)
        session.collect()
    for name, array in random_tile(0).items():
        np.testing.assert_array_equal(tile[name], array)


def test_a_session_closes_with_tiles_in_flight(open_one: Opener) -> None:
    engine, _ = open_one()
    with engine.session() as session:
        for seed in range(engine.slots):
            session.submit(random_tile(seed))
    session.close()
    assert len(compute(engine, range(2))) == 2


def test_info_and_reason_say_what_runs(open_one: Opener) -> None:
    engine, reason = open_one(precision="fp32", threads=1)
    assert engine.info.precision == "fp32"
    assert engine.info.threads == 1
    assert engine.info.device
    assert engine.info.version[0].isdigit()
    assert reason.startswith(f"{engine.info.name} (asked for), cpu (")
    assert reason.endswith("fp32 (asked for)")
    assert engine.warnings == ()


def test_nothing_is_printed(open_one: Opener, capfd: pytest.CaptureFixture[str]) -> None:
    engine, _ = open_one()
    compute(engine, range(2))
    assert capfd.readouterr() == ("", "")


def test_the_golden_tile_runs_once(open_one: Opener, monkeypatch: pytest.MonkeyPatch) -> None:
    open_one()
    monkeypatch.setattr(Bundle, "golden", lambda bundle: pytest.fail("the golden tile was read again"))
    open_one()


def test_a_cache_that_cannot_be_written_is_a_warning(open_one: Opener, cache_dir: Path) -> None:
    cache_dir.write_text("a file in the way")
    engine, _ = open_one()
    assert "cache cannot be written" in engine.warnings[0]
    assert str(cache_dir) not in engine.warnings[0]
    assert len(compute(engine, range(1))) == 1


def test_auto_is_openvino_on_the_cpu_in_fp32_where_nothing_else_was_measured(bundle: Bundle, cache_dir: Path) -> None:
    engine, reason = open_engine(bundle, cache_dir=cache_dir)
    assert (engine.info.name, engine.info.precision) == ("openvino", "fp32")
    assert reason.startswith("openvino (the default engine), cpu (the default device), fp32 (the only precision")
    assert "int8 left out" in reason
    assert engine.warnings == ()


def test_an_engine_asked_for_by_name_chooses_among_its_own_precisions(bundle: Bundle, cache_dir: Path) -> None:
    pytest.importorskip("onnxruntime")
    engine, reason = open_engine(bundle, "onnxruntime", cache_dir=cache_dir)
    assert engine.info.precision == "fp32"
    assert reason == (
        "onnxruntime (asked for), cpu (the only device of this engine), "
        "fp32 (the only precision that may be chosen here)"
    )


def test_without_openvino_auto_is_onnxruntime_and_says_so(
    bundle: Bundle, cache_dir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("onnxruntime")
    monkeypatch.setitem(sys.modules, "openvino", None)
    engine, reason = open_engine(bundle, cache_dir=cache_dir)
    assert engine.info.name == "onnxruntime"
    assert reason.startswith("onnxruntime (the default engine; Engine openvino is not installed")


def test_a_closed_engine_opens_no_session(open_one: Opener) -> None:
    engine, _ = open_one()
    engine.close()
    engine.close()
    with pytest.raises(EngineError, match="closed"):
        engine.session()


def test_importing_the_choice_imports_no_engine() -> None:
    code = "import sys, rmr_sdk.engines; print({'openvino', 'onnxruntime', 'onnx', 'torch'} & set(sys.modules))"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout == "set()\n"
