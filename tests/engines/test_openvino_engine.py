"""What only OpenVINO promises: any number of threads, the compiled-model cache, precisions, and no telemetry."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from run_tiles import compute
from tiny_bundle import make_bundle, make_graph, random_tile

import rmr_sdk.engines.openvino as engine_module
from rmr_sdk.bundle import Bundle
from rmr_sdk.engines import open_engine
from rmr_sdk.engines.cache import EngineCache
from rmr_sdk.engines.openvino import MAX_STREAMS, import_openvino, openvino_core
from rmr_sdk.errors import DeviceUnavailableError
from rmr_sdk.manifest import Accuracy, Limit


@pytest.fixture(scope="module")
def capabilities() -> list[str]:
    return list(openvino_core().get_property("CPU", "OPTIMIZATION_CAPABILITIES"))


@pytest.mark.parametrize("precision", ["fp32", "bf16", "int8"])
def test_any_number_of_threads_gives_the_same_bits(
    precision: str, bundle: Bundle, cache_dir: Path, capabilities: list[str]
) -> None:
    if precision == "bf16" and "BF16" not in capabilities:
        pytest.skip("this CPU has no bf16")
    alone, _ = open_engine(bundle, precision=precision, threads=1, cache_dir=cache_dir)
    for threads in (2, 3, None):
        engine, _ = open_engine(bundle, precision=precision, threads=threads, cache_dir=cache_dir)
        for one, other in zip(compute(alone, range(7)), compute(engine, range(7)), strict=True):
            for name in one:
                np.testing.assert_array_equal(one[name], other[name])


def test_there_is_a_slot_for_each_thread(bundle: Bundle, cache_dir: Path) -> None:
    for threads in (1, 2):
        engine, _ = open_engine(bundle, threads=threads, cache_dir=cache_dir)
        assert engine.slots == engine.info.threads <= threads
    engine, _ = open_engine(bundle, threads=1000, cache_dir=cache_dir)
    assert engine.slots <= MAX_STREAMS


def test_opening_again_neither_reads_nor_compiles_the_graph(
    bundle: Bundle, cache_dir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    first, _ = open_engine(bundle, cache_dir=cache_dir)
    expected = compute(first, range(3))
    monkeypatch.setattr(Bundle, "graph", lambda bundle, precision: pytest.fail("the graph was read again"))
    second, _ = open_engine(bundle, cache_dir=cache_dir)
    assert second.info == first.info
    assert second.slots == first.slots
    for one, other in zip(expected, compute(second, range(3)), strict=True):
        np.testing.assert_array_equal(one["probability"], other["probability"])


@pytest.mark.parametrize("damage", ["truncate", "flip", "empty", "foreign"])
def test_a_damaged_cache_entry_is_made_again(damage: str, bundle: Bundle, cache_dir: Path) -> None:
    open_engine(bundle, cache_dir=cache_dir)
    (entry,) = cache_dir.rglob("*.bin")
    whole = entry.read_bytes()
    flipped = whole[:100] + bytes([whole[100] ^ 1]) + whole[101:]
    entry.write_bytes({"truncate": whole[:-9], "flip": flipped, "empty": b"", "foreign": b"x" * 99}[damage])
    engine, _ = open_engine(bundle, cache_dir=cache_dir)
    assert len(compute(engine, range(1))) == 1
    assert EngineCache("openvino", cache_dir).load(entry.stem) is not None


def test_an_entry_that_openvino_refuses_is_made_again(bundle: Bundle, cache_dir: Path) -> None:
    open_engine(bundle, cache_dir=cache_dir)
    (entry,) = cache_dir.rglob("*.bin")
    EngineCache("openvino", cache_dir).store(entry.stem, b"not a compiled network")
    engine, _ = open_engine(bundle, cache_dir=cache_dir)
    assert len(compute(engine, range(1))) == 1


def test_the_cache_tells_apart_what_differs(bundle: Bundle, cache_dir: Path, tmp_path: Path) -> None:
    openvino = import_openvino()
    other_graph = make_bundle(tmp_path / "two", ("fp32",), classes=("background", "lesion"))
    options: list[dict[str, Any]] = [{}, {"precision": "int8"}, {"threads": 1}, {"bundle": other_graph}]
    for count, changed in enumerate(options, start=1):
        open_engine(**{"bundle": bundle, "threads": 2, "cache_dir": cache_dir} | changed)
        assert len(list(cache_dir.rglob("*.bin"))) == count
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(openvino, "get_version", lambda: "2099.0.0")
        open_engine(bundle, threads=2, cache_dir=cache_dir)
    assert len(list(cache_dir.rglob("*.bin"))) == len(options) + 1


def test_bf16_is_computed_where_the_cpu_has_it(bundle: Bundle, cache_dir: Path, capabilities: list[str]) -> None:
    if "BF16" not in capabilities:
        pytest.skip("this CPU has no bf16")
    engine, _ = open_engine(bundle, precision="bf16", cache_dir=cache_dir)
    assert engine.info.precision == "bf16"
    exact, _ = open_engine(bundle, precision="fp32", cache_dir=cache_dir)
    one, other = compute(engine, range(1))[0], compute(exact, range(1))[0]
    assert 1e-5 < np.abs(one["probability"] - other["probability"]).max() < 0.05


def test_int8_runs_the_int8_graph(bundle: Bundle, cache_dir: Path, capabilities: list[str]) -> None:
    engine, reason = open_engine(bundle, precision="int8", cache_dir=cache_dir)
    exact, _ = open_engine(bundle, precision="fp32", cache_dir=cache_dir)
    rest = "bf16" if "BF16" in capabilities else "fp32"
    assert engine.info.precision == "int8"
    assert engine.info.detail == f"1 of 3 convolutions and 0 of 0 matrix products in int8, the rest in {rest}"
    assert reason.endswith(f"int8 (asked for; {engine.info.detail})")
    assert exact.info.detail == ""
    one, other = compute(engine, range(1))[0], compute(exact, range(1))[0]
    assert 1e-6 < np.abs(one["probability"] - other["probability"]).max() < 0.05


def test_int8_layers_are_counted_in_a_cached_network_too(bundle: Bundle, cache_dir: Path) -> None:
    first, _ = open_engine(bundle, precision="int8", cache_dir=cache_dir)
    again, _ = open_engine(bundle, precision="int8", cache_dir=cache_dir)
    assert again.info == first.info


def test_without_bf16_the_rest_of_int8_is_fp32(
    bundle: Bundle, cache_dir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(engine_module, "_capabilities", lambda core, device: ("fp32", "int8"))
    engine, _ = open_engine(bundle, precision="int8", cache_dir=cache_dir)
    assert engine.info.detail.endswith("the rest in fp32")


def test_an_int8_graph_that_runs_in_floating_point_is_refused(
    bundle: Bundle, cache_dir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Bundle, "graph", lambda bundle, precision: make_graph("fp32").SerializeToString())
    with pytest.raises(
        DeviceUnavailableError, match=r"runs nothing of the int8 graph in int8 .* \(0 of 3 convolutions"
    ):
        open_engine(bundle, precision="int8", cache_dir=cache_dir)


def test_auto_measures_the_precisions_of_a_gated_bundle_once(tmp_path: Path, cache_dir: Path) -> None:
    names: tuple[Any, ...] = ("bf16", "int8")
    figures = [Accuracy(precision=n, study_set="x", studies=1, metric="label_agreement", value=0.999) for n in names]
    limits = (Limit(metric="label_agreement", minimum=0.995),)
    gated = make_bundle(tmp_path / "gated", ("fp32", "int8"), accuracy=tuple(figures), tolerance=limits)
    first, reason = open_engine(gated, threads=1, cache_dir=cache_dir)
    assert "that passed the accuracy gate" in reason
    again, cached = open_engine(gated, threads=1, cache_dir=cache_dir)
    assert again.info == first.info
    assert cached == reason.replace(", now", ", cached")
    by_name, _ = open_engine(gated, precision=first.info.precision, threads=1, cache_dir=cache_dir)
    for one, other in zip(compute(again, range(2)), compute(by_name, range(2)), strict=True):
        np.testing.assert_array_equal(one["probability"], other["probability"])


@pytest.mark.parametrize("before", ["", "import openvino_telemetry\n"])
def test_importing_openvino_calls_nobody_and_writes_nothing(before: str, tmp_path: Path) -> None:
    if before:
        pytest.importorskip("openvino_telemetry")
    code = (
        f"{before}"
        "import socket, sys\n"
        "def refuse(*arguments): sys.exit('a socket was opened')\n"
        "socket.socket.connect = socket.create_connection = socket.getaddrinfo = refuse\n"
        "from rmr_sdk.engines.openvino import import_openvino\n"
        "import_openvino()\n"
        "assert 'openvino' in sys.modules\n"
        f"assert ('openvino_telemetry' in sys.modules) is {bool(before)}\n"
    )
    environment = {name: value for name, value in os.environ.items() if name != "CI"} | {"HOME": str(tmp_path)}
    subprocess.run([sys.executable, "-c", code], check=True, env=environment)
    assert list(tmp_path.iterdir()) == []


def test_an_interrupted_wait_leaves_nothing_computing(bundle: Bundle, cache_dir: Path) -> None:
    openvino = import_openvino()

    def interrupt(request: Any) -> None:
        raise KeyboardInterrupt

    engine, _ = open_engine(bundle, cache_dir=cache_dir)
    session = engine.session()
    session.submit(random_tile(0))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(openvino.InferRequest, "wait", interrupt)
        with pytest.raises(KeyboardInterrupt):
            session.collect()
    session.close()
    assert len(compute(engine, range(2))) == 2


SIGNALLED = """
import os, signal, sys
from rmr_sdk import Pipeline
signal.signal(signal.SIGTERM, lambda *_: print("handled"))
first = Pipeline.open(sys.argv[1], cache_dir=sys.argv[2], precision="fp32")
second = Pipeline.open(sys.argv[1], cache_dir=sys.argv[2], precision="fp32", threads=1)
first.close()
del first
second.close()
del second
import gc
gc.collect()
os.kill(os.getpid(), signal.SIGTERM)
"""


def test_signals_are_handled_after_pipelines_that_overlapped(tmp_path: Path) -> None:
    make_bundle(tmp_path / "tiny.zip")
    command = [sys.executable, "-X", "faulthandler", "-c", SIGNALLED, str(tmp_path / "tiny.zip"), str(tmp_path)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout) == (0, "handled\n")
