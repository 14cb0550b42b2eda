"""One real delivery: made from this tree, checked file by file, installed and run without a network."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import tarfile
import zipfile
from collections.abc import Callable
from hashlib import sha256
from pathlib import Path

import nibabel
import numpy as np
import pytest
from building import Index, clean_copy
from wheel_file import WheelFile
from wheelhouse import Wish, make_wheelhouse

from rmr_sdk import __version__
from rmr_sdk.demo import demo_study_folder

ROOT = Path(__file__).parents[2]
DEPENDENCIES = ROOT / "build" / "dependency-wheels"
MOST_MIB = 20
"""What docs/offline.md promises as the most that the SDK's wheel weighs."""

pytestmark = pytest.mark.slow

NO_SOCKETS = """import socket

class Refused(socket.socket):
    def __init__(self, *arguments, **options):
        raise OSError("a socket was asked for where there is no network")

def refuse(*arguments, **options):
    raise OSError("a name was to be looked up where there is no network")

socket.socket, socket.create_connection, socket.getaddrinfo = Refused, refuse, refuse
"""


@pytest.fixture(scope="session")
def tree(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Give a copy of this tree as git would have it."""
    return clean_copy(ROOT, tmp_path_factory.mktemp("source") / "tree")


@pytest.fixture(scope="session")
def delivery(tree: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Make the folder from the tree and the dependency wheels that `make test` brings; no network."""
    if not any(DEPENDENCIES.glob("openvino-*.whl")):
        pytest.skip("build/dependency-wheels is empty: `make test` fills it")
    out = tmp_path_factory.mktemp("delivery") / "rmr sdk"
    return make_wheelhouse(Wish(out, cuda="OFF", index=Index(DEPENDENCIES)), tree)


@pytest.fixture(scope="session")
def wheel(delivery: Path) -> WheelFile:
    """Give the SDK's own wheel of the delivery."""
    (path,) = (delivery / "wheels").glob("rmr_sdk-*.whl")
    return WheelFile.read(path)


def files_of(tree: Path, folder: str) -> dict[str, bytes]:
    """Read the files of a folder of the tree, by path from its root."""
    paths = [path for path in (tree / folder).rglob("*") if path.is_file()]
    return {path.relative_to(tree).as_posix(): path.read_bytes() for path in paths}


def test_everything_is_there(delivery: Path) -> None:
    names = {path.relative_to(delivery).as_posix() for path in delivery.rglob("*") if path.is_file()}
    assert {"README.md", "install.sh", "verify.sh", "SHA256SUMS", "requirements.txt", "sbom.cdx.json"} <= names
    assert {"LICENSE", "NOTICE", "THIRD_PARTY_LICENSES/README.md", "docs/offline.md", "jetson_report.py"} <= names
    assert (delivery / "bundles" / "ms-edge.zip").read_bytes() == (ROOT / "rmr_sdk/bundles/ms-edge.zip").read_bytes()
    pins = dict(
        re.findall(r"^(\S+)==\S+ --hash=sha256:([0-9a-f]{64})$", (delivery / "requirements.txt").read_text(), re.M)
    )
    assert {"numpy", "nibabel", "msgspec", "openvino", "rich", "jinja2", "pillow"} <= set(pins)
    assert "torch" not in pins
    wheels = {WheelFile.read(path).name: path for path in (delivery / "wheels").glob("*.whl")}
    assert {name: sha256(wheels[name].read_bytes()).hexdigest() for name in pins} == pins
    assert set(wheels) - set(pins) == {"rmr-sdk"}


def test_wheel_is_for_every_linux_that_its_symbols_allow(wheel: WheelFile) -> None:
    assert {tag.platform.rpartition("_2_")[0] for tag in wheel.tags} == {"manylinux"}
    assert 17 <= wheel.glibc <= int(os.confstr("CS_GNU_LIBC_VERSION").split(".")[1])  # type: ignore[union-attr]


def test_wheel_holds_the_package_and_nothing_else(wheel: WheelFile, tree: Path) -> None:
    assert wheel.path.stat().st_size < MOST_MIB * 2**20
    with zipfile.ZipFile(wheel.path) as archive:
        inside = {name: archive.read(name) for name in archive.namelist() if not name.endswith("/")}
    info = f"rmr_sdk-{__version__}.dist-info"
    assert {f"{info}/licenses/LICENSE", f"{info}/licenses/NOTICE", f"{info}/entry_points.txt"} <= set(inside)
    package = {name: data for name, data in inside.items() if not name.startswith(info)}
    (module,) = (name for name in package if name.endswith(".so"))
    assert re.fullmatch(r"rmr_sdk/_C\.cpython-\d+-\w+-linux-gnu\.so", module)
    del package[module]
    known = files_of(tree, "rmr_sdk")
    assert set(package) == set(known), "the wheel and the tree hold the same files"
    assert [name for name in known if known[name] != package[name]] == []
    assert not any("torch" in line for line in wheel.metadata.get_all("Requires-Dist") or [])


def test_source_archive_has_what_the_build_needs(delivery: Path, tree: Path) -> None:
    (path,) = (delivery / "sdist").glob("*.tar.gz")
    with tarfile.open(path) as archive:
        names = {name.partition("/")[2] for name in archive.getnames()}
    assert {"CMakeLists.txt", "pyproject.toml", "setup.py", "LICENSE", "NOTICE", "README.md"} <= names
    for folder in ("rmr_sdk", "csrc", "include"):
        assert set(files_of(tree, folder)) <= names
    assert not [name for name in names if name.startswith(("tests", "training", "export", "benchmarks", "models"))]


def test_parts_are_named_alike_everywhere(delivery: Path) -> None:
    bill = json.loads((delivery / "sbom.cdx.json").read_text())
    parts = {part["name"]: part["version"] for part in bill["components"]}
    wheels = [WheelFile.read(path) for path in (delivery / "wheels").glob("*.whl")]
    assert {wheel.name: wheel.version for wheel in wheels}.items() <= (parts | {"rmr-sdk": __version__}).items()
    assert {"ms-edge", "pybind11"} <= set(parts)
    assert "nvidia-cuda-runtime" not in parts, "this wheel has no CUDA kernels"
    page = (delivery / "THIRD_PARTY_LICENSES" / "README.md").read_text()
    for name, version in parts.items():
        assert f"| {name} | {version} |" in page
        assert any((delivery / "THIRD_PARTY_LICENSES" / f"{name}-{version}").rglob("*"))


@pytest.fixture(scope="session")
def offline(tmp_path_factory: pytest.TempPathFactory) -> Callable[..., subprocess.CompletedProcess[str]]:
    """Give a function that runs a command where no socket can be made.

    Python processes find a module that refuses sockets; where this system lets us, the command also gets a network
    namespace of its own, which has no interface but a loopback that is down.
    """
    home = tmp_path_factory.mktemp("home")
    (home / "sitecustomize.py").write_text(NO_SOCKETS)
    alone = ["unshare", "--map-root-user", "--net"]
    try:
        permitted = subprocess.run([*alone, "true"], capture_output=True).returncode == 0
    except OSError:
        permitted = False
    print(f"network namespace: {'none but its own' if permitted else 'not permitted here, sockets are refused'}")
    kept = {name: os.environ[name] for name in ("PATH", "LD_LIBRARY_PATH", "OMP_WAIT_POLICY") if name in os.environ}
    variables = {**kept, "HOME": str(home), "PYTHONPATH": str(home), "PIP_INDEX_URL": "https://index.invalid/simple"}

    def run(*command: str | Path) -> subprocess.CompletedProcess[str]:
        words = [*(alone if permitted else []), *map(str, command)]
        return subprocess.run(words, env=variables, cwd=home, capture_output=True, text=True, timeout=600)

    return run


def test_sockets_are_refused_indeed(offline: Callable[..., subprocess.CompletedProcess[str]]) -> None:
    done = offline(sys.executable, "-c", "import socket; socket.socket()")
    assert "a socket was asked for" in done.stderr


def test_installs_and_runs_without_a_network(
    delivery: Path, offline: Callable[..., subprocess.CompletedProcess[str]], tmp_path: Path
) -> None:
    venv = tmp_path / "an environment"
    done = offline("sh", delivery / "install.sh", "--python", sys.executable, "--venv", venv)
    assert done.returncode == 0, done.stderr
    assert f"rmr-sdk {__version__}" in done.stdout
    assert "The default pipeline runs." in done.stdout
    assert done.stdout.splitlines()[-1] == f"install: done. The command is {venv}/bin/rmr"
    there = offline(venv / "bin" / "python", "-c", "import rmr_sdk; print(rmr_sdk.__file__)").stdout
    assert there.startswith(str(venv)), "not the tree's own"

    for contrast in ("T1w", "FLAIR"):
        image = nibabel.load(demo_study_folder() / f"sub-demo_{contrast}.nii.gz")
        middle = tuple(slice((size - 96) // 2, (size - 96) // 2 + 96) for size in image.shape)
        nibabel.save(image.slicer[middle], tmp_path / f"{contrast}.nii.gz")
    out = tmp_path / "out"
    t1, flair = tmp_path / "T1w.nii.gz", tmp_path / "FLAIR.nii.gz"
    done = offline(venv / "bin" / "rmr", "run", "--t1", t1, "--flair", flair, "--out", out)
    assert done.returncode == 0, done.stderr
    labels = np.asarray(nibabel.load(out / "labels.nii.gz").dataobj)
    assert labels.shape == (96, 96, 96)
    assert len(np.unique(labels)) > 3
    assert (out / "report.html").stat().st_size > 10_000
    done = offline(venv / "bin" / "rmr", "bundle", "verify", delivery / "bundles" / "ms-edge.zip")
    assert done.returncode == 0, done.stderr
