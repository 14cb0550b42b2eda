"""The C interface as others build against it: header, symbols, layout, the example, and the installed package."""

from __future__ import annotations

import ctypes
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from capi_tools import ROOT, Tools
from rmr_ctypes import STRUCTS
from tiny_study import make_grid, make_study

from rmr_sdk import Pipeline, Study

HEADER = ROOT / "include" / "rmr_sdk" / "rmr.h"
STRICT = ("-Wall", "-Wextra", "-Wpedantic", "-Wconversion", "-Wshadow", "-Werror", f"-I{ROOT / 'include'}")


def run(*command: str | Path, **options: object) -> subprocess.CompletedProcess[str]:
    """Run a command and return what it printed; its output is the message of a failure."""
    done = subprocess.run(list(map(str, command)), capture_output=True, text=True, check=False, **options)  # type: ignore[call-overload]
    assert done.returncode == 0, done.stdout + done.stderr
    return done


@pytest.mark.parametrize(
    "standard", [("c", "c99"), ("c", "c17"), ("c++", "c++11"), ("c++", "c++17")], ids=lambda pair: pair[1]
)
def test_the_header_compiles_without_a_warning(tools: Tools, tmp_path: Path, standard: tuple[str, str]) -> None:
    source = tmp_path / "uses.c"
    source.write_text(
        "#include <rmr_sdk/rmr.h>\n"
        "int main(void) { rmr_outputs outputs; rmr_outputs_init(&outputs); return (int)outputs.lesion_count; }\n"
    )
    run(tools.compiler, "-x", standard[0], f"-std={standard[1]}", *STRICT, "-fsyntax-only", source)


def probes() -> Iterator[tuple[str, int]]:
    """Give every size and offset of the structs, as C writes it and as ctypes has it."""
    for name, struct in STRUCTS.items():
        yield f"sizeof({name})", ctypes.sizeof(struct)
        for field in struct._fields_:
            yield f"offsetof({name}, {field[0]})", getattr(struct, field[0]).offset


def test_structs_are_laid_out_as_in_version_1(tools: Tools, tmp_path: Path) -> None:
    expected = dict(probes())
    lines = "\n".join(f'  printf("%zu\\n", {probe});' for probe in expected)
    source = tmp_path / "layout.c"
    source.write_text(f"#include <rmr_sdk/rmr.h>\n#include <stdio.h>\nint main(void) {{\n{lines}\n  return 0;\n}}\n")
    run(tools.compiler, "-x", "c", "-std=c99", *STRICT, source, "-o", tmp_path / "layout")
    found = [int(line) for line in run(tmp_path / "layout").stdout.split()]
    assert dict(zip(expected, found, strict=True)) == expected


def test_every_function_of_the_header_is_exported_and_nothing_else(build: Path) -> None:
    if (nm := shutil.which("nm")) is None:
        pytest.skip("nm is missing")
    declared = set(re.findall(r"^RMR_API [^(]*?(rmr_\w+)\(", HEADER.read_text(), flags=re.M))
    lines = run(nm, "-D", "--defined-only", build / "librmr.so").stdout.splitlines()
    exported = {line.split()[2].split("@")[0] for line in lines if line.split()[1] != "A"}
    assert exported == declared
    assert len(declared) == 10


def test_the_library_needs_no_python(build: Path) -> None:
    if (readelf := shutil.which("readelf")) is None:
        pytest.skip("readelf is missing")
    dynamic = run(readelf, "-d", build / "librmr.so").stdout
    needed = re.findall(r"NEEDED.*\[(.+)\]", dynamic)
    assert any(name.startswith("libopenvino.so") for name in needed)
    assert not any("python" in name for name in needed)
    assert "NODELETE" in dynamic
    assert "librmr.so.1" in dynamic


def bare_environment() -> dict[str, str]:
    """Return an environment in which nothing points to Python."""
    return {"PATH": "/usr/bin:/bin"}


def test_the_example_gives_what_python_gives(build: Path, bundle: Path, tmp_path: Path) -> None:
    study = make_study(make_grid("RAS"), np.int16)
    for name, volume in study.items():
        (tmp_path / f"{name}.raw").write_bytes(np.ascontiguousarray(volume.data).tobytes())
    shape = study["FLAIR"].data.shape
    volumes = (tmp_path / "T1w.raw", tmp_path / "FLAIR.raw", "int16", *shape, "1.0", tmp_path / "out")
    done = run(build / "c_embed", bundle, *volumes, env=bare_environment())
    with Pipeline.open(bundle, engine="openvino", precision="fp32", cache_dir=tmp_path) as twin:
        expected = twin.run(
            Study.from_arrays({name: each.data for name, each in study.items()}, affine=np.eye(4)), align="none"
        )
    for name, volume in (
        ("fused", expected.fused),
        ("labels", expected.labels),
        ("probability", expected.lesion_probability),
    ):
        found = np.fromfile(tmp_path / f"out.{name}", volume.data.dtype).reshape(shape)
        assert np.array_equal(found, volume.data)
    assert done.stdout.startswith(f"{len(expected.lesions)} lesions, {expected.provenance.tiles} tiles\n1: ")
    tiles = expected.provenance.tiles
    assert f"tile {tiles} of {tiles}" in done.stderr


def test_the_example_passes_on_status_and_message(build: Path, bundle: Path, tmp_path: Path) -> None:
    def call(*arguments: str | Path) -> tuple[int, str]:
        done = subprocess.run(
            [str(build / "c_embed"), *map(str, arguments)],
            capture_output=True,
            text=True,
            check=False,
            env=bare_environment(),
        )
        assert done.stdout == ""
        return done.returncode, done.stderr

    (tmp_path / "short.raw").write_bytes(b"\0" * 10)
    volumes = (tmp_path / "short.raw", tmp_path / "short.raw", "int16", "20", "24", "22", "1.0", tmp_path / "out")
    assert call()[0] == 2
    status, said = call(tmp_path / "nothing", *volumes)
    assert status == 4
    assert said.startswith("BundleError: There is no bundle")
    status, said = call(bundle, *volumes)
    assert status == 3
    assert said.startswith('StudyError: contrast "T1w": its shape and strides span 21120 bytes, and it has 10.')


def test_the_installed_package_is_found_and_linked(tools: Tools, build: Path, tmp_path: Path) -> None:
    prefix = tmp_path / "prefix"
    tools.run("--install", build, "--prefix", prefix)
    project = tmp_path / "scanner"
    project.mkdir()
    (project / "main.c").write_text(
        '#include <rmr_sdk/rmr.h>\n#include <stdio.h>\nint main(void) {\n  printf("%s %u\\n", rmr_version(),'
        " (unsigned)rmr_abi_version());\n  return rmr_open(NULL, NULL, NULL) == RMR_USAGE ? 0 : 1;\n}\n"
    )
    (project / "CMakeLists.txt").write_text(
        "cmake_minimum_required(VERSION 3.25)\nproject(scanner LANGUAGES C)\nfind_package(rmr 0.1 REQUIRED)\n"
        "add_executable(scanner main.c)\ntarget_link_libraries(scanner PRIVATE rmr::rmr)\n"
    )
    make_program = [option for option in tools.options if "MAKE_PROGRAM" in option]
    tools.run("-S", project, "-B", project / "build", "-G", "Ninja", *make_program, f"-DCMAKE_PREFIX_PATH={prefix}")
    tools.run("--build", project / "build")
    assert run(project / "build" / "scanner").stdout.endswith(" 1\n")

    if (pkg_config := shutil.which("pkg-config")) is None:
        pytest.skip("pkg-config is missing; find_package was tested")
    (described,) = prefix.rglob("rmr.pc")
    environment = {**os.environ, "PKG_CONFIG_PATH": str(described.parent)}
    flags = run(pkg_config, "--cflags", "--libs", "rmr", env=environment).stdout.split()
    program = tmp_path / "linked"
    library = next(prefix.rglob("librmr.so"))
    run(
        tools.compiler,
        "-x",
        "c",
        project / "main.c",
        "-x",
        "none",
        *flags,
        f"-Wl,-rpath,{library.parent}",
        "-o",
        program,
    )
    assert run(program).stdout.endswith(" 1\n")


def test_the_process_of_the_library_is_left_alone(build: Path, bundle: Path) -> None:
    """No output, no signal handler, no change of the locale or of the environment, in a process without the SDK."""
    code = """
import ctypes, locale, os, signal, sys

def state():
    lines = [line.split() for line in open("/proc/self/status") if line.startswith(("SigCgt", "SigIgn", "SigBlk"))]
    own_of_libc = 3 << 31  # signals 32 and 33, which it sets up with the first thread
    handlers = {name: signal.getsignal(name) for name in signal.valid_signals()}
    masks = {name: int(mask, 16) & ~own_of_libc for name, mask in lines}
    return handlers, masks, dict(os.environ), locale.setlocale(locale.LC_ALL), os.getcwd()

before = state()
dll = ctypes.CDLL(sys.argv[1])
handle = ctypes.c_void_p()
assert dll.rmr_open(sys.argv[2].encode(), None, ctypes.byref(handle)) == 0
assert dll.rmr_close(ctypes.byref(handle)) == 0
assert state() == before
assert not any(name.startswith(("rmr_sdk", "openvino", "numpy")) for name in sys.modules)
"""
    done = run(sys.executable, "-c", code, build / "librmr.so", bundle)
    assert (done.stdout, done.stderr) == ("", "")
