"""What the SDK uses of TensorRT exists in every version that it supports.

`data/tensorrt_api.json` holds what the bindings of each version export, read from the bindings themselves. Where the
bindings are installed, their own signatures are compared too: those of TensorRT-RTX as they are, those of TensorRT 11
without its libraries, over empty ones.
"""

from __future__ import annotations

import inspect
import json
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest
from fake_cuda import compiler

from rmr_sdk.engines import tensorrt_api as api

VERSIONS: dict[str, dict[str, str]] = json.loads((Path(__file__).parent / "data" / "tensorrt_api.json").read_text())

COMMON = {
    "Builder": api.Builder,
    "IBuilderConfig": api.BuilderConfig,
    "INetworkDefinition": api.NetworkDefinition,
    "ITensor": api.Tensor,
    "IHostMemory": api.HostMemory,
    "OnnxParser": api.OnnxParser,
    "ParserError": api.ParserError,
    "Runtime": api.Runtime,
    "ICudaEngine": api.CudaEngine,
    "IExecutionContext": api.ExecutionContext,
    "ILogger": api.ILogger,
    "BuilderFlag": api.BuilderFlag,
    "NetworkDefinitionCreationFlag": api.NetworkDefinitionCreationFlag,
    "MemoryPoolType": api.MemoryPoolType,
    "TensorIOMode": api.TensorIOMode,
    "DataType": api.DataType,
    "ExecutionContextAllocationStrategy": api.ExecutionContextAllocationStrategy,
}
RTX = {
    "IBuilderConfig": api.RtxBuilderConfig,
    "Runtime": api.RtxRuntime,
    "ICudaEngine": api.RtxCudaEngine,
    "IExecutionContext": api.RtxExecutionContext,
    "IRuntimeConfig": api.RtxRuntimeConfig,
    "IRuntimeCache": api.RuntimeCache,
}

DUMP = """
import ctypes, importlib.util, json, os, sys
for library in sys.argv[3:]:
    ctypes.CDLL(library, mode=ctypes.RTLD_GLOBAL)
sys.setdlopenflags(os.RTLD_LAZY | os.RTLD_GLOBAL)
spec = importlib.util.spec_from_file_location(sys.argv[1], sys.argv[2])
module = importlib.util.module_from_spec(spec)
spec.loader.exec_module(module)
classes = {name: kind for name, kind in vars(module).items() if isinstance(kind, type)}
print(json.dumps({name: {m: getattr(kind, m).__doc__ or "" for m in dir(kind)} for name, kind in classes.items()}))
"""


def members(protocol: Any) -> set[str]:
    """Give what a protocol promises, what it inherits included."""
    bases = [base for base in protocol.__mro__ if base.__module__ == api.__name__]
    names = {name for base in bases for name in (*vars(base), *getattr(base, "__annotations__", {}))}
    return {name for name in names if not name.startswith("_")}


def is_rtx(version: str) -> bool:
    return version.startswith("tensorrt-rtx")


@pytest.mark.parametrize("version", VERSIONS)
def test_every_name_is_in_every_version(version: str) -> None:
    exported = {name: set(listing.split()) for name, listing in VERSIONS[version].items()}
    for name, protocol in (*COMMON.items(), *(RTX.items() if is_rtx(version) else ())):
        assert members(protocol) <= exported[name], name


def test_what_is_asked_for_by_hasattr_tells_the_two_apart() -> None:
    for version, exported in VERSIONS.items():
        for name, member in api.RTX_ONLY:
            assert (member in exported.get(name, "").split()) == is_rtx(version), (version, member)
        assert ("is_stream_capturable" in exported["IExecutionContext"].split()) == is_rtx(version)
        assert ("get_engine_validity" in exported["Runtime"].split()) == is_rtx(version)


def test_what_tensorrt_11_removed_is_not_used() -> None:
    used = {name: members(protocol) for name, protocol in COMMON.items()}
    removed = {
        "NetworkDefinitionCreationFlag": {"EXPLICIT_BATCH"},
        "BuilderFlag": {"FP16", "INT8", "BF16"},
        "ICudaEngine": {"device_memory_size", "create_execution_context_without_device_memory"},
        "OnnxParser": {"supports_model", "parse_with_weight_descriptors"},
        "IBuilderConfig": {"int8_calibrator"},
    }
    for name, names in removed.items():
        assert names <= set(VERSIONS["tensorrt 10.3.0"][name].split()), "they were there"
        assert not names & set(VERSIONS["tensorrt 11.4.0"][name].split())
        assert not names & used[name]


def check_signatures(exported: dict[str, dict[str, str]], protocols: dict[str, Any]) -> int:
    """Compare the methods of protocols with what the bindings say of themselves; return how many."""
    compared = 0
    for name, protocol in protocols.items():
        assert members(protocol) <= set(exported[name]), name
        for method in members(protocol):
            ours = getattr(protocol, method, None)
            if not inspect.isfunction(ours):
                continue
            theirs = signatures(exported[name][method], method)
            wanted = [parameter for parameter in inspect.signature(ours).parameters if parameter != "self"]
            assert any(given[: len(wanted)] == wanted for given in theirs), (name, method, theirs)
            compared += 1
    return compared


def signatures(doc: str, method: str) -> list[list[str]]:
    """Read the parameters' names of every overload from the docstring that pybind11 writes."""
    lines = re.findall(rf"(?:^|\d\. ){method}\((.*)\)(?: ->.*)?$", doc, flags=re.MULTILINE)
    return [[n for n in re.findall(r"(?:^|, )(\w+): ", line) if n != "self"] for line in lines]


def test_signatures_are_those_of_tensorrt_rtx() -> None:
    trt = pytest.importorskip("tensorrt_rtx")
    names = {*COMMON, *RTX}
    exported = {
        name: {member: getattr(getattr(trt, name), member).__doc__ or "" for member in dir(getattr(trt, name))}
        for name in names
    }
    assert check_signatures(exported, COMMON) + check_signatures(exported, RTX) > 40
    for name, member in api.RTX_ONLY:
        assert hasattr(getattr(trt, name), member)
    assert {name for name in members(api.TensorRt) if not hasattr(trt, name)} == set()


@pytest.fixture(scope="module")
def tensorrt_bindings(tmp_path_factory: pytest.TempPathFactory) -> dict[str, dict[str, str]]:
    """Read the bindings of TensorRT itself; its libraries are replaced by empty ones, since importing calls nothing."""
    spec = find_spec("tensorrt_bindings")
    if spec is None or spec.origin is None:
        pytest.skip("the bindings of TensorRT (tensorrt_cu13_bindings) are not installed")
    if compiler() is None:
        pytest.skip("there is no C compiler for empty libraries")
    bindings = Path(spec.origin).with_name("tensorrt.so")
    libraries = list(empty_libraries(bindings, tmp_path_factory.mktemp("empty")))
    command = [sys.executable, "-c", DUMP, "tensorrt", str(bindings), *libraries]
    printed = subprocess.run(command, capture_output=True, text=True, check=True, timeout=120).stdout
    found: dict[str, dict[str, str]] = json.loads(printed)
    return found


def empty_libraries(bindings: Path, folder: Path) -> Iterator[str]:
    """Make the libraries that the bindings want, with the functions whose addresses they take."""
    content = bindings.read_bytes()
    wanted = sorted(
        {name.decode() for name in re.findall(rb"libnv(?:infer|infer_plugin|onnxparser)\.so\.\d+", content)}
    )
    functions = {name.decode() for name in re.findall(rb"\0((?:create|get|init)[A-Z]\w{5,60})(?=\0)", content)}
    source = folder / "empty.c"
    source.write_text("".join(f"void *{name}(void) {{ return 0; }}\n" for name in sorted(functions)))
    for name in wanted:
        flags = ["-shared", "-fPIC", "-w", f"-Wl,-soname,{name}", "-o", os.fspath(folder / name), os.fspath(source)]
        subprocess.run([compiler() or "cc", *flags], check=True, timeout=60)
        yield os.fspath(folder / name)


def test_signatures_are_those_of_tensorrt(tensorrt_bindings: dict[str, dict[str, str]]) -> None:
    assert check_signatures(tensorrt_bindings, COMMON) > 20
    assert "REQUIRE_USER_ALLOCATION" not in tensorrt_bindings["BuilderFlag"]
