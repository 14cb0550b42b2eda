"""`rmr doctor` and `rmr_sdk.doctor`: what it finds on a machine that works, and on machines that do not."""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import msgspec
import pytest
from tiny_study import make_tiny

from rmr_sdk import __version__, doctor
from rmr_sdk import bundle as bundle_module
from rmr_sdk.cuda import DeviceInfo
from rmr_sdk.doctor import Checkup, encode_checkup, examine
from rmr_sdk.engines.openvino import import_openvino
from rmr_sdk.engines.tensorrt_library import Library
from rmr_sdk.errors import DeviceUnavailableError

Rmr = Callable[..., int]


@pytest.fixture
def machine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Give a home folder without a cache, and a folder of shipped bundles that holds a small `ms-edge`."""
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    monkeypatch.delenv("XDG_CACHE_HOME", raising=False)
    make_tiny(tmp_path / "bundles" / "ms-edge.zip", name="ms-edge")
    monkeypatch.setattr(bundle_module, "_SHIPPED", tmp_path / "bundles")
    return tmp_path


def test_a_machine_that_works(rmr: Rmr, machine: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert rmr("doctor") == 0
    printed = capsys.readouterr()
    assert printed.err == ""
    assert printed.out.endswith("The default pipeline runs.\n")
    for words in (
        f"rmr-sdk {__version__}",
        "Engine:   openvino 20",
        "Kernels:  ",
        "Bundle:   ms-edge 0.1.0 runs: openvino",
    ):
        assert words in printed.out
    assert re.search(r"Cache:    ~/\.cache/rmr-sdk, writable, 1 networks?, 0\.0 MiB of at most 4096 MiB", printed.out)
    assert str(machine) not in printed.out


def test_json_says_the_same(rmr: Rmr, machine: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert rmr("doctor", "--json") == 0
    found = json.loads(capsys.readouterr().out)
    assert found["healthy"] is True
    assert found["bundles"][0]["bundle"] == "ms-edge"
    assert (found["bundles"][0]["engine"], found["bundles"][0]["precision"]) == ("openvino", "fp32")
    assert 1 <= found["cpu"]["usable_cores"] <= found["cpu"]["logical_cores"]
    engines = {engine["engine"]: engine for engine in found["engines"]}
    assert set(engines) == {"openvino", "tensorrt", "onnxruntime"}
    assert engines["openvino"]["devices"][0]["device"] == "cpu"
    assert "fp32" in engines["openvino"]["devices"][0]["precisions"]
    checkup = msgspec.json.decode(json.dumps(found).encode(), type=Checkup)
    assert json.loads(encode_checkup(checkup)) == found


def test_without_the_default_bundle_it_ends_with_5(rmr: Rmr, machine: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (machine / "bundles" / "ms-edge.zip").rename(machine / "bundles" / "other.zip")
    assert rmr("doctor") == 5
    printed = capsys.readouterr().out
    assert 'Bundle:   ms-edge does not run. BundleError: There is no bundle "ms-edge" (shipped: "other").' in printed
    assert "Bundle:   other 0.1.0 runs: " in printed
    assert printed.endswith("The default pipeline does NOT run.\n")


def test_a_damaged_bundle_does_not_stop_the_examination(machine: Path) -> None:
    (machine / "bundles" / "broken.zip").write_bytes(b"PK")
    checkup = examine()
    problems = {check.bundle: check.problem for check in checkup.bundles}
    assert problems["ms-edge"] is None
    assert "BundleError: Cannot unpack" in str(problems["broken"])
    assert checkup.healthy


def test_an_engine_that_is_missing_is_named_with_what_to_install(
    machine: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    lines = str(examine())
    assert "Engine:   onnxruntime: not available. Engine onnxruntime is not installed" in lines
    assert 'pip install "rmr-sdk[onnxruntime]"' in lines


def test_without_a_driver_the_nvidia_engine_says_so(machine: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("rmr_sdk.cuda.libcuda._LIBRARY", "libthere-is-no-such-driver.so.1")
    lines = str(examine())
    assert "Engine:   tensorrt: not available. There is no NVIDIA driver" in lines
    assert "Install an NVIDIA driver for CUDA 12.0 or newer" in lines


def test_a_gpu_is_described(machine: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    gpus = (
        DeviceInfo(0, "NVIDIA RTX A4000", 86, 48, False, 16 * 2**30, "13.0"),
        DeviceInfo(1, "Orin", 87, 16, True, 61 * 2**30, "12.6"),
    )
    rtx = Library("tensorrt-rtx", "1.7.1", SimpleNamespace(ComputeCapability=SimpleNamespace(SM86=1)))  # type: ignore[arg-type]
    monkeypatch.setattr(doctor, "list_devices", lambda: gpus)
    monkeypatch.setattr("rmr_sdk.engines.tensorrt_library.find_libraries", lambda: (rtx,))
    lines = str(examine())
    assert "Engine:   tensorrt tensorrt-rtx 1.7.1\n          cuda:0: NVIDIA RTX A4000 (fp32, fp16, int8)\n" in lines
    assert (
        "compute capability 86, 48 multiprocessors, 16.0 GiB of its own, driver 13.0, served by tensorrt-rtx" in lines
    )
    assert "cuda:1: Orin ()" in lines
    assert "61.0 GiB shared with the CPU, driver 12.6, served by no TensorRT that is installed" in lines


def test_an_engine_that_breaks_says_how(machine: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    class Broken:
        def __init__(self) -> None:
            raise RuntimeError("Exception from core.cpp:1:\nthe driver is too old")

    monkeypatch.setattr(import_openvino(), "Core", Broken)
    monkeypatch.setattr("rmr_sdk.engines.openvino._cores", {})

    def refuse(*_: Any, **__: Any) -> None:
        raise DeviceUnavailableError("OpenVINO does not start.", "Update the driver.")

    monkeypatch.setattr(doctor.Pipeline, "open", refuse)
    checkup = examine()
    assert checkup.engines[0].problem == "the driver is too old"
    assert not checkup.healthy


def test_a_cache_that_cannot_be_written_shows(machine: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", "/proc/nothing")
    lines = str(examine())
    assert "Cache:    /proc/nothing/rmr-sdk, " in lines
    (machine / "file").touch()
    monkeypatch.setenv("XDG_CACHE_HOME", str(machine / "file"))
    assert "NOT writable, 0 networks" in str(examine())


@pytest.mark.parametrize(
    ("flags", "expected"),
    [
        ("flags : fpu avx2 avx512f amx_bf16 amx_int8", ("avx2", "avx512f", "amx_bf16", "amx_int8")),
        ("Features : fp asimd asimddp bf16", ("asimd", "asimddp", "bf16")),
        ("", ()),
    ],
)
def test_instructions_come_from_the_cpu(flags: str, expected: tuple[str, ...], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(doctor, "cpu_identity", lambda: ["x86_64", flags])
    assert doctor._cpu().instructions == expected


def test_a_package_without_metadata_is_unknown(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(doctor, "_PACKAGES", ("numpy", "no-such-package"))
    versions = doctor._versions()
    assert versions["no-such-package"] == "unknown"
    assert versions["numpy"][0].isdigit()
