"""Building engines: one code path for every version, progress, limits, and every way in which it is refused."""

from __future__ import annotations

import ast
import contextlib
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import onnx
import pytest
from fake_builder import API, FakeBuilder
from onnx import TensorProto, helper, numpy_helper

import rmr_export.engine
from rmr_export.engine import BuildOptions, build_engine
from rmr_export.engine import build as build_module
from rmr_export.errors import PlanError
from rmr_sdk.engines.tensorrt_library import load_library
from rmr_sdk.errors import (
    ConfigError,
    DeviceMemoryError,
    DeviceUnavailableError,
    EngineError,
    EngineMismatchError,
    OutputError,
)

RTX = "tensorrt-rtx 1.7.1"
ON_DEVICE = [version for version in API if version != RTX]


@pytest.fixture
def model() -> onnx.ModelProto:
    """Give a graph of one node."""
    ports = [helper.make_tensor_value_info(name, TensorProto.FLOAT16, [1, 2, 4]) for name in "xy"]
    graph = helper.make_graph([helper.make_node("Relu", ["x"], ["y"], "node")], "made", ports[:1], ports[1:])
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)])


@pytest.fixture
def gpu(monkeypatch: pytest.MonkeyPatch) -> SimpleNamespace:
    """Pretend that there is a GPU of compute capability 87, and note whether it was given back."""
    found = SimpleNamespace(info=SimpleNamespace(compute_capability=87), closed=False, active=0)

    @contextlib.contextmanager
    def activate() -> Iterator[None]:
        found.active += 1
        yield

    found.activate = activate
    found.close = lambda: setattr(found, "closed", True)
    monkeypatch.setattr(build_module, "open_device", lambda: found)
    return found


def test_every_name_that_is_used_is_in_every_version() -> None:
    """Read the names off the source: `trt.CLASS.MEMBER`, and members of a builder's configuration and its cache."""
    used: set[tuple[str, str]] = set()
    for file in Path(rmr_export.engine.__path__[0]).glob("*.py"):
        for node in ast.walk(ast.parse(file.read_text())):
            match ast.unparse(node).split(".") if isinstance(node, ast.Attribute) else []:
                case [*_, "trt", name, member]:
                    used.add((name, member))
                case ["trt", name]:
                    used.add((name, ""))
                case ["config", member] | ["self", "config", member] if file.stem == "build" and member != "adjust":
                    used.add(("IBuilderConfig", member))
    assert {("ProfilingVerbosity", "DETAILED"), ("IBuilderConfig", "progress_monitor"), ("ILogger", "ERROR")} <= used
    for version, exported in API.items():
        for name, member in used - {("IBuilderConfig", "keep_times")}:
            assert name in exported, (version, name)
            assert not member or member.startswith("_") or member in exported[name].split(), (version, name, member)
        assert {"phase_start", "step_complete", "phase_finish"} <= set(exported["IProgressMonitor"].split())
        assert "serialize" in exported["ITimingCache"].split()


@pytest.mark.parametrize("version", API)
def test_one_code_path(version: str, model: onnx.ModelProto, gpu: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    FakeBuilder(version, monkeypatch)
    told: list[tuple[str, int, int]] = []
    options = BuildOptions(workspace_mib=64, progress=lambda *step: told.append(step))
    built = build_engine(model, load_library(version.split()[0]), options)
    assert built.engine == b"engine"
    assert (built.runtime, built.version) == tuple(version.split())
    assert built.targets == ((86, 89, 120) if version == RTX else (87,))
    assert gpu.active == gpu.closed == (version != RTX)
    assert told == [("Building", 0, 2), ("Building", 1, 2), ("Building", 2, 2), ("Building", 2, 2)]
    assert [kernel.name for kernel in built.plan.kernels] == ["conv"]


def test_configuration(model: onnx.ModelProto, monkeypatch: pytest.MonkeyPatch) -> None:
    fake = FakeBuilder(RTX, monkeypatch)
    build_engine(model, load_library("tensorrt-rtx"), BuildOptions(targets=(120, 86, 86), workspace_mib=64))
    (config,) = fake.configs
    assert config.profiling_verbosity.name == "DETAILED"
    assert config.num_compute_capabilities == 2
    assert config.flags == ("WORKSPACE", 64 * 2**20)


def test_timing_cache_is_kept_from_build_to_build(
    model: onnx.ModelProto, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    FakeBuilder(RTX, monkeypatch)
    file = tmp_path / "times"
    for expected in (b"!", b"!!"):
        build_engine(model, load_library("tensorrt-rtx"), BuildOptions(timing_cache=file))
        assert file.read_bytes() == expected
    with pytest.raises(OutputError, match='the timing cache "absent" cannot be used') as caught:
        build_engine(model, load_library("tensorrt-rtx"), BuildOptions(timing_cache=tmp_path / "no" / "absent"))
    assert caught.value.exit_code == 6


def test_tables_become_inputs(model: onnx.ModelProto, monkeypatch: pytest.MonkeyPatch) -> None:
    fake = FakeBuilder(RTX, monkeypatch)
    seen: list[onnx.ModelProto] = []
    inner = fake.module.OnnxParser

    def parser(network: Any, log: Any) -> Any:
        made = inner(network, log)
        parse = made.parse
        made.parse = lambda data, path=None: seen.append(onnx.load_from_string(data)) or parse(data)
        return made

    fake.module.OnnxParser = parser
    model.graph.input.append(helper.make_tensor_value_info("regions_0", TensorProto.INT32, [1]))
    model.graph.initializer.append(numpy_helper.from_array(onnx.numpy_helper.np.array([3], "i4"), "regions_0"))
    build_engine(model, load_library("tensorrt-rtx"))
    assert [port.name for port in seen[0].graph.input] == ["x", "regions_0"]
    assert not seen[0].graph.initializer


@pytest.mark.parametrize(
    ("fails", "kind", "words"),
    [
        (
            "Requested amount of GPU memory could not be allocated: out of memory",
            DeviceMemoryError,
            "too little memory",
        ),
        ("CUDA initialization failure with error: 100", DeviceUnavailableError, "No NVIDIA GPU can be used"),
        ("Error Code 10: Could not find any implementation for node", EngineError, "Could not find any implementation"),
    ],
)
def test_a_build_that_fails(
    fails: str, kind: type[Exception], words: str, model: onnx.ModelProto, gpu: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    fake = FakeBuilder("tensorrt 10.3.0", monkeypatch)
    fake.fails = fails
    with pytest.raises(kind, match=words) as caught:
        build_engine(model, load_library("tensorrt"))
    assert caught.value.exit_code == 5
    assert caught.value.fix.endswith(".")
    assert gpu.closed


def test_an_operator_that_the_parser_refuses(model: onnx.ModelProto, monkeypatch: pytest.MonkeyPatch) -> None:
    fake = FakeBuilder(RTX, monkeypatch)
    fake.refuses = "Relu"
    with pytest.raises(EngineError, match='refuses operator Relu of node "node": no importer') as caught:
        build_engine(model, load_library("tensorrt-rtx"))
    assert (caught.value.operator, caught.value.node) == ("Relu", "node")


def test_a_gpu_that_is_not_in_the_list(model: onnx.ModelProto, monkeypatch: pytest.MonkeyPatch) -> None:
    FakeBuilder(RTX, monkeypatch)
    with pytest.raises(EngineMismatchError, match=r"does not build for compute capability 87 \(it does for 75, 80"):
        build_engine(model, load_library("tensorrt-rtx"), BuildOptions(targets=(86, 87)))


@pytest.mark.parametrize("version", ON_DEVICE)
def test_another_gpu_than_the_one_at_hand(
    version: str, model: onnx.ModelProto, gpu: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    FakeBuilder(version, monkeypatch)
    with pytest.raises(EngineMismatchError, match="the GPU at hand, which is SM 87, and SM 86 was asked for"):
        build_engine(model, load_library("tensorrt"), BuildOptions(targets=(86,)))
    assert gpu.closed
    assert build_engine(model, load_library("tensorrt"), BuildOptions(targets=(87,))).targets == (87,)


def test_no_gpu(model: onnx.ModelProto, monkeypatch: pytest.MonkeyPatch) -> None:
    FakeBuilder("tensorrt 11.4.0", monkeypatch)

    def no_device() -> None:
        raise DeviceUnavailableError("There is no NVIDIA driver.", "Install one.")

    monkeypatch.setattr(build_module, "open_device", no_device)
    with pytest.raises(
        DeviceUnavailableError, match=r"none can be used here \(There is no NVIDIA driver\.\)"
    ) as caught:
        build_engine(model, load_library("tensorrt"))
    assert "--runtime tensorrt-rtx" in caught.value.fix


def test_a_log_without_a_plan(model: onnx.ModelProto, monkeypatch: pytest.MonkeyPatch) -> None:
    FakeBuilder(RTX, monkeypatch).silent = True
    with pytest.raises(PlanError, match="the build log holds no plan"):
        build_engine(model, load_library("tensorrt-rtx"))


def test_no_workspace(model: onnx.ModelProto, monkeypatch: pytest.MonkeyPatch) -> None:
    FakeBuilder(RTX, monkeypatch)
    with pytest.raises(ConfigError, match="a workspace of 0 MiB is none"):
        build_engine(model, load_library("tensorrt-rtx"), BuildOptions(workspace_mib=0))
