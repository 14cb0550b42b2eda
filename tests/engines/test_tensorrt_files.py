"""Which engine file is used: the bundle's, the cache's or a new one; and every way in which one can be unusable."""

from __future__ import annotations

import gc
import logging
import re
import threading
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import onnx
import pytest
from fake_cuda import FakeCuda
from fake_tensorrt import FakeTensorRt
from onnx import TensorProto, helper, numpy_helper
from run_tiles import compute, expected
from tiny_bundle import TILE, make_golden, make_graph, make_manifest, random_tile

from rmr_sdk.bundle import Bundle, write_bundle
from rmr_sdk.cuda import open_device
from rmr_sdk.engines import Engine, open_engine
from rmr_sdk.engines.onnx_tables import split_tables
from rmr_sdk.errors import (
    BundleError,
    ChecksumError,
    ConfigError,
    DeviceError,
    DeviceMemoryError,
    DeviceUnavailableError,
    EngineError,
    EngineMismatchError,
    RmrError,
)
from rmr_sdk.golden import encode_golden
from rmr_sdk.manifest import UNHASHED, Artifact


@dataclass
class Machine:
    """A machine with a GPU and one of the two runtimes."""

    trt: FakeTensorRt
    cuda: FakeCuda
    cache_dir: Path
    tmp_path: Path

    def open(self, bundle: Bundle, precision: str = "fp32", **options: Any) -> Engine:
        return open_engine(bundle, "tensorrt", precision=precision, **{"cache_dir": self.cache_dir, **options})[0]

    def run(self, bundle: Bundle, **options: Any) -> Engine:
        """Open, check one tile, close."""
        engine = self.open(bundle, **options)
        try:
            np.testing.assert_allclose(compute(engine, range(1))[0]["fused"], expected(0)["fused"], atol=2e-6)
        finally:
            engine.close()
        return engine

    def entries(self) -> list[Path]:
        return sorted((self.cache_dir / "tensorrt").glob("*.bin"))


@pytest.fixture
def machine(trt: FakeTensorRt, cuda: FakeCuda, cache_dir: Path, tmp_path: Path) -> Machine:
    return Machine(trt, cuda, cache_dir, tmp_path)


def expect(error: type[RmrError], words: str, act: Callable[[], object]) -> RmrError:
    with pytest.raises(RmrError, match=re.escape(words)) as caught:
        act()
    assert type(caught.value) is error, caught.value
    assert caught.value.fix, "an error says what to do"
    return caught.value


def with_engine(
    target: Path, machine: Machine, data: bytes | None = None, graph: onnx.ModelProto | None = None, **changes: Any
) -> Bundle:
    """Write the tiny bundle with an engine of its own."""
    model = (graph or make_graph()).SerializeToString()
    promoted, _ = split_tables(model)
    facts: dict[str, Any] = {
        "runtime": machine.trt.runtime,
        "version": machine.trt.version,
        "compute_capabilities": (machine.trt.capability,),
        "precision": "fp32",
    }
    manifest = make_manifest()
    engine = Artifact(path="engines/it.engine", sha256=UNHASHED, size=1, kind="engine", **{**facts, **changes})
    files = {
        "model.fp32.onnx": model,
        "golden.npz": encode_golden(make_golden(model)),
        "engines/it.engine": machine.trt.header() + promoted if data is None else data,
    }
    return write_bundle(target, msgspec.structs.replace(manifest, artifacts=(*manifest.artifacts, engine)), files)


def tabled_graph() -> onnx.ModelProto:
    """Give the tiny network with a table of ones that `fused` is multiplied by, as an input that has a default."""
    model = make_graph()
    table = np.ones((1, 1, *TILE), np.int32)
    model.graph.input.append(helper.make_tensor_value_info("region_ids", TensorProto.INT32, table.shape))
    model.graph.initializer.append(numpy_helper.from_array(table, "region_ids"))
    last = next(node for node in model.graph.node if node.output[0] == "fused")
    last.output[0] = "fused.plain"
    model.graph.node.append(helper.make_node("Cast", ["region_ids"], ["region_ids.f"], to=TensorProto.FLOAT))
    model.graph.node.append(helper.make_node("Mul", ["fused.plain", "region_ids.f"], ["fused"]))
    onnx.checker.check_model(model)
    return model


# Where the engine comes from


def test_an_engine_is_built_once(machine: Machine, bundle: Bundle) -> None:
    assert machine.run(bundle).info.detail.endswith("engine built here")
    assert machine.run(bundle).info.detail.endswith("engine built here before")
    assert machine.trt.built == 1
    assert len(machine.entries()) == 1


def test_the_bundles_own_engine_comes_first(machine: Machine, tmp_path: Path) -> None:
    bundle = with_engine(tmp_path / "bundle", machine)
    for _ in range(2):
        engine = machine.run(bundle)
        assert engine.info.detail.endswith("engine of the bundle")
        assert engine.warnings == ()
    assert machine.trt.built == 0


@pytest.mark.parametrize(
    "changes",
    [{"version": "9.9.9"}, {"compute_capabilities": (120,)}, {"precision": "fp16"}],
    ids=lambda c: next(iter(c)),
)
def test_an_engine_for_something_else_is_passed_over(machine: Machine, tmp_path: Path, changes: dict[str, Any]) -> None:
    engine = machine.run(with_engine(tmp_path / "bundle", machine, **changes))
    assert engine.info.detail.endswith("engine built here")
    assert machine.trt.built == 1


def test_an_engine_that_the_runtime_refuses_is_built_anew_and_told(machine: Machine, tmp_path: Path) -> None:
    engine = machine.run(with_engine(tmp_path / "bundle", machine, data=machine.trt.header() + b"cut off"))
    assert engine.info.detail.endswith("engine built here")
    assert "The engine in the bundle cannot be used here, and one is built instead." in engine.warnings[0]
    assert "unexpected end of the buffer" in engine.warnings[0]


def test_a_truncated_engine_in_the_bundle_is_a_damaged_bundle(machine: Machine, tmp_path: Path) -> None:
    bundle = with_engine(tmp_path / "bundle", machine)
    file = tmp_path / "bundle" / "engines" / "it.engine"
    file.write_bytes(file.read_bytes()[:-100])
    expect(ChecksumError, "engines/it.engine", lambda: machine.open(bundle))


def test_damaged_entries_of_the_cache_are_built_again(machine: Machine, bundle: Bundle) -> None:
    machine.run(bundle)
    (entry,) = machine.entries()
    entry.write_bytes(entry.read_bytes()[:-10])
    machine.run(bundle)
    assert machine.trt.built == 2


def test_an_entry_that_no_longer_loads_is_built_again(machine: Machine, bundle: Bundle) -> None:
    machine.run(bundle)
    (entry,) = machine.entries()
    from rmr_sdk.engines.cache import EngineCache

    EngineCache("tensorrt", machine.cache_dir).store(entry.stem, b"of another world")
    machine.run(bundle)
    assert machine.trt.built == 2


@pytest.mark.parametrize("what", ["version", "driver", "precision"])
def test_another_machine_gets_an_engine_of_its_own(machine: Machine, bundle: Bundle, what: str) -> None:
    machine.run(bundle)
    if what == "driver":
        machine.cuda.configure(version=12080)
    if what == "version":
        machine.trt.version = machine.trt.module.__version__ = "10.9.0"
    if what == "precision":
        machine.open(bundle, precision="fp16").close()
    else:
        machine.run(bundle)
    assert machine.trt.built == 2
    assert len(machine.entries()) == 2


def test_kernels_that_rtx_compiles_are_kept(machine: Machine, bundle: Bundle) -> None:
    machine.run(bundle)
    compiled = machine.trt.jit
    machine.run(bundle)
    assert machine.trt.jit == compiled == (1 if machine.trt.is_rtx else 0)


def test_rtx_builds_for_graphs_and_nothing_uses_tf32(machine: Machine, bundle: Bundle) -> None:
    machine.trt.flags.add("TF32")
    machine.run(bundle)
    assert machine.trt.flags == ({"REQUIRE_USER_ALLOCATION"} if machine.trt.is_rtx else set())


def test_tables_become_inputs_that_are_given_once(machine: Machine, tmp_path: Path) -> None:
    model = tabled_graph().SerializeToString()
    files = {"model.fp32.onnx": model, "golden.npz": encode_golden(make_golden(model))}
    bundle = write_bundle(tmp_path / "tabled", make_manifest(), files)
    machine.run(bundle)


def test_an_engine_with_its_tables_folded_runs_too(machine: Machine, tmp_path: Path) -> None:
    graph = tabled_graph()
    data = machine.trt.header() + graph.SerializeToString()
    assert machine.run(with_engine(tmp_path / "bundle", machine, data, graph)).info.detail.endswith("of the bundle")


def test_two_threads_that_open_at_once_build_once(machine: Machine, bundle: Bundle) -> None:
    together = threading.Barrier(2, timeout=30)
    opened: list[Engine] = []

    def open_it() -> None:
        together.wait()
        opened.append(machine.open(bundle))

    threads = [threading.Thread(target=open_it) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for engine in opened:
        engine.close()
    assert len(opened) == 2
    assert machine.trt.built == 1


def test_a_cache_that_cannot_be_written_means_an_engine_in_memory(
    machine: Machine, bundle: Bundle, tmp_path: Path
) -> None:
    (tmp_path / "file").write_bytes(b"")
    engine = machine.run(bundle, cache_dir=tmp_path / "file" / "cache")
    assert "The engine cache cannot be written" in engine.warnings[0]


def test_two_hundred_sessions_leave_nothing(machine: Machine, bundle: Bundle) -> None:
    engine = machine.open(bundle)
    before = machine.cuda.live()
    tile = random_tile(0)
    for number in range(200):
        if number % 20 == 0:
            with engine.session() as session:
                session.submit(tile)
        with engine.device_session() as queue:  # type: ignore[attr-defined]
            assert queue.inputs(0)["t1w"].pointer
    gc.collect()
    assert machine.cuda.live() == before
    engine.close()
    engine.close()


# What goes wrong


def test_a_wrong_result_refuses_the_engine(machine: Machine, bundle: Bundle) -> None:
    machine.trt.wrong = 0.1
    expect(EngineError, "does not reproduce the golden tile", lambda: machine.open(bundle))
    assert machine.entries() == []
    machine.trt.wrong = 0.0
    machine.run(bundle)


def test_a_wrong_result_refuses_the_bundles_engine(machine: Machine, tmp_path: Path) -> None:
    bundle = with_engine(tmp_path / "bundle", machine)
    machine.trt.wrong = 0.1
    expect(EngineError, "does not reproduce the golden tile", lambda: machine.open(bundle))
    assert machine.trt.built == 0, "a bundle whose engine is wrong is not to be trusted"


@pytest.mark.parametrize(
    ("step", "said", "error", "words"),
    [
        ("start", "CUDA initialization failure with error: 35", DeviceUnavailableError, "cannot start a build"),
        ("start", "", EngineError, "cannot start a build (it does not say why)"),
        ("parse", "the model is too new", EngineError, "cannot read the graph (the model is too new)"),
        ("build", "Could not find any implementation for node x.", EngineError, "builds no engine from the graph"),
        ("build", "Requested amount of GPU memory: out of memory", DeviceMemoryError, "The GPU has too little memory"),
        ("runtime", "no CUDA-capable device is detected", DeviceUnavailableError, "No NVIDIA GPU can be used"),
        ("load", "safeDeserialize: version tag does not match", EngineError, "cannot load the engine"),
        ("load", "OutOfMemory: failed to allocate 100 bytes", DeviceMemoryError, "The GPU has too little memory"),
        ("context", "not enough resources", EngineError, "cannot make an execution context"),
        ("address", "null pointer", EngineError, 'refuses the address of "t1w"'),
        ("execute", "enqueueV3 failed", EngineError, "failed on a tile (enqueueV3 failed)"),
    ],
)
def test_a_step_fails(
    machine: Machine, bundle: Bundle, step: str, said: str, error: type[RmrError], words: str
) -> None:
    machine.trt.refuses[step] = said
    if not said:
        machine.trt.module.Builder = lambda log: None
    expect(error, words, lambda: machine.open(bundle))
    if machine.cuda.live()["host"]:
        gc.collect()  # what the traceback holds
    assert not any(machine.cuda.live().values()), "what failed has given everything back"


@pytest.mark.parametrize("what", ["Builder", "Runtime"])
def test_bindings_raise_where_the_library_gives_nothing(machine: Machine, bundle: Bundle, what: str) -> None:
    def factory(log: Any) -> None:
        raise TypeError("pybind11::init(): factory function returned nullptr")

    setattr(machine.trt.module, what, factory)
    expect(EngineError, "cannot start", lambda: machine.open(bundle))


def test_an_operator_is_refused(machine: Machine, bundle: Bundle) -> None:
    machine.trt.operators = {"Softmax"}
    error = expect(EngineError, "refuses operator Softmax of node", lambda: machine.open(bundle))
    assert error.operator == "Softmax"


def test_too_little_memory_before_a_build(machine: Machine, bundle: Bundle) -> None:
    machine.cuda.configure(mib=0.001)
    expect(DeviceMemoryError, "too little memory to build an engine", lambda: machine.open(bundle))


def test_too_little_memory_for_an_engine(machine: Machine, bundle: Bundle) -> None:
    machine.run(bundle)
    machine.cuda.configure(mib=0.001)
    error = expect(DeviceMemoryError, "the engine needs", lambda: machine.open(bundle))
    assert error.needed > error.free  # type: ignore[operator]


def test_too_little_memory_for_a_session_leaves_the_engine_usable(machine: Machine, bundle: Bundle) -> None:
    engine = machine.open(bundle)
    machine.cuda.configure(mib=0.1)
    for _ in range(200):
        expect(DeviceMemoryError, "The GPU has too little memory: an array needs", engine.session)
    machine.cuda.configure()
    np.testing.assert_allclose(compute(engine, range(1))[0]["fused"], expected(0)["fused"], atol=2e-6)
    engine.close()


def test_a_gpu_that_is_lost_in_a_run(machine: Machine, bundle: Bundle) -> None:
    engine = machine.open(bundle)
    with engine.session() as session:
        session.submit(random_tile(0))
        machine.cuda.fail("cuEventSynchronize", 719)
        expect(DeviceError, "The GPU was lost: launch failure (719)", session.collect)
        machine.cuda.fail("", 0)
    engine.close()


def test_a_gpu_that_is_lost_while_recording(machine: Machine, bundle: Bundle) -> None:
    engine = machine.open(bundle)
    machine.cuda.fail("cuStreamEndCapture", 700)
    expect(DeviceError, "The GPU was lost", lambda: compute(engine, range(4)))
    machine.cuda.fail("", 0)
    engine.close()


def test_an_engine_on_a_lost_gpu_closes(machine: Machine, bundle: Bundle, caplog: pytest.LogCaptureFixture) -> None:
    engine = machine.open(bundle)
    machine.cuda.fail("cuCtxPushCurrent_v2", 700)
    with caplog.at_level(logging.WARNING):
        engine.close()
    machine.cuda.fail("", 0)
    assert "could not be closed in good order" in caplog.text
    gc.collect()
    machine.cuda.forget()


def test_sessions_are_used_as_they_should(machine: Machine, bundle: Bundle) -> None:
    engine = machine.open(bundle)
    with engine.session() as session:
        expect(EngineError, "No tile of the session is in flight", session.collect)
        expect(EngineError, "A tile needs the inputs", lambda: session.submit({}))
        wrong = {name: np.zeros((1, 1, 2, 2, 2), np.float32) for name in ("t1w", "flair")}
        expect(EngineError, "has the shape (1, 1, 2, 2, 2), and the network takes", lambda: session.submit(wrong))
        for seed in range(engine.slots):
            session.submit(random_tile(seed))
        expect(EngineError, "All 2 slots of the session are in use", lambda: session.submit(random_tile(0)))
    expect(EngineError, "The session has been closed", lambda: session.submit(random_tile(0)))
    queue = engine.device_session()  # type: ignore[attr-defined]
    stream = engine.device.stream()  # type: ignore[attr-defined]
    with open_device() as other:
        expect(DeviceError, "The stream belongs to another context", lambda: queue.enqueue(0, other.stream()))
    queue.close()
    expect(EngineError, "The session has been closed", lambda: queue.capturable(stream))
    engine.close()
    expect(EngineError, "The engine has been closed", engine.session)


def test_devices_and_precisions_are_checked(machine: Machine, bundle: Bundle) -> None:
    def refuse(error: type[RmrError], words: str, **options: Any) -> None:
        expect(error, words, lambda: machine.open(bundle, **options))

    refuse(DeviceUnavailableError, 'Engine tensorrt runs on NVIDIA GPUs only, not on "cpu"', device="cpu")
    refuse(DeviceUnavailableError, 'There is no device "cuda:3" (found: cuda:0)', device="cuda:3")
    refuse(ConfigError, 'There is no device "cuda:x"', device="cuda:x")
    refuse(EngineMismatchError, "cannot run in bf16", precision="bf16")


def test_ports_of_a_strange_type(machine: Machine, tmp_path: Path) -> None:
    for number, kind in enumerate((TensorProto.INT64, TensorProto.UINT8)):
        graph = make_graph()
        graph.graph.output[0].type.tensor_type.elem_type = kind
        bundle = with_engine(tmp_path / str(number), machine, machine.trt.header() + graph.SerializeToString())
        assert '"fused" of the engine is' in machine.run(bundle).warnings[0]


def test_an_engine_of_another_graph(machine: Machine, tmp_path: Path) -> None:
    other = make_graph(tile=(4, 4, 4)).SerializeToString()
    warning = machine.run(with_engine(tmp_path / "shape", machine, machine.trt.header() + other)).warnings[0]
    assert "and its manifest promises" in warning
    graph = tabled_graph()
    changed = tabled_graph()
    table = next(port for port in changed.graph.input if port.name == "region_ids")
    table.type.tensor_type.shape.dim[0].dim_value = 2
    data = machine.trt.header() + split_tables(changed.SerializeToString())[0]
    warning = machine.run(with_engine(tmp_path / "table", machine, data, graph)).warnings[0]
    assert 'Table "region_ids" of the engine is int32 (2, 1, 8, 16, 16), and of the graph int32 (1, 1, 8' in warning


@pytest.mark.parametrize("data", [b"", b"\x3a", b"\x3a\x05ab", b"\x3f", b"\xff" * 40, b"\x3a\x04\x2a\x02\x08\x01"])
def test_a_graph_that_is_none(data: bytes) -> None:
    expect(BundleError, "The graph is no ONNX file that can be read", lambda: split_tables(data))


def test_a_graph_without_tables_is_left_alone() -> None:
    model = make_graph().SerializeToString()
    assert split_tables(model) == (model, {})


@pytest.mark.parametrize("kind", ["int32", "int64", "float32", "float16", "uint8"])
def test_tables_are_read_and_taken_out(kind: str) -> None:
    model = make_graph()
    table = np.arange(600).reshape(2, 300).astype(kind)
    elem = helper.np_dtype_to_tensor_dtype(np.dtype(kind))
    model.graph.input.append(helper.make_tensor_value_info("table", elem, table.shape))
    model.graph.initializer.insert(1, numpy_helper.from_array(table, "table"))
    rest, tables = split_tables(model.SerializeToString())
    np.testing.assert_array_equal(tables["table"], table)
    assert tables["table"].dtype == table.dtype
    del model.graph.initializer[1]
    assert onnx.load_from_string(rest) == model


# Where only one of the two can go wrong


@pytest.mark.parametrize("trt", ["tensorrt-rtx"], indirect=True)
@pytest.mark.parametrize(
    ("reasons", "error", "words"),
    [
        (("VERSION_MISMATCH", "UNSUPPORTED_CC"), EngineMismatchError, "version mismatch, unsupported cc"),
        (("OLD_CUDA_DRIVER",), DeviceUnavailableError, "old cuda driver"),
        (("INSUFFICIENT_GPU_MEMORY",), DeviceMemoryError, "insufficient gpu memory"),
    ],
)
def test_rtx_says_why_an_engine_does_not_fit(
    machine: Machine, bundle: Bundle, reasons: tuple[str, ...], error: type[RmrError], words: str
) -> None:
    machine.trt.validity = reasons
    expect(error, f"The engine does not fit this machine: {words}", lambda: machine.open(bundle))


@pytest.mark.parametrize("trt", ["tensorrt-rtx"], indirect=True)
def test_rtx_serves_some_gpus_only(machine: Machine, bundle: Bundle) -> None:
    del machine.trt.module.ComputeCapability.SM86
    words = "No installed TensorRT serves Fake GPU, compute capability 86 (tensorrt-rtx for 75, 120)"
    expect(DeviceUnavailableError, words, lambda: machine.open(bundle))


@pytest.mark.parametrize("trt", ["tensorrt-rtx"], indirect=True)
def test_rtx_builds_only_fp16_for_turing(machine: Machine, bundle: Bundle, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("rmr_sdk.engines.tensorrt_target.HALF_ONLY", 86)
    expect(DeviceUnavailableError, "does not compute in fp32 on Fake GPU", lambda: machine.open(bundle))
    machine.open(bundle, precision="fp16").close()


@pytest.mark.parametrize("trt", ["tensorrt"], indirect=True)
def test_tensorrt_is_too_old(machine: Machine, bundle: Bundle) -> None:
    machine.trt.module.__version__ = "8.6.1"
    expect(
        DeviceUnavailableError, "TensorRT 8.6.1 is too old: the SDK needs 10.3 or newer", lambda: machine.open(bundle)
    )


@pytest.mark.parametrize("trt", ["tensorrt"], indirect=True)
def test_tensorrt_is_half_installed(machine: Machine, bundle: Bundle) -> None:
    del machine.trt.module.__version__
    expect(DeviceUnavailableError, "tensorrt cannot be loaded", lambda: machine.open(bundle))


@pytest.mark.parametrize("trt", ["tensorrt"], indirect=True)
def test_no_tensorrt_is_installed(machine: Machine, bundle: Bundle, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("rmr_sdk.engines.tensorrt_library.find_spec", lambda name: None)
    expect(DeviceUnavailableError, "Engine tensorrt is not installed.", lambda: machine.open(bundle))
