"""The script that measures a Jetson, run here on the CPU and with stand-ins for the board's own commands."""

from __future__ import annotations

import json
import os
import stat
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import jetson_report
import nibabel
import pytest

from rmr_sdk.demo import demo_study_folder

ROOT = Path(__file__).parents[2]
LINES = (
    "11-23-2026 10:00:00 RAM 2587/30697MB (lfb 5x4MB) SWAP 0/15348MB (cached 0MB) CPU [0%@729,1%@729] EMC_FREQ 0%@2133 "
    "GR3D_FREQ 0%@[305,305] cpu@45.9C soc2@-1.5C tj@48.25C VDD_GPU_SOC 2394mW/2394mW VDD_CPU_CV 400mW/400mW\n"
    "11-23-2026 10:00:01 RAM 3100/30697MB (lfb 5x4MB) SWAP 0/15348MB (cached 0MB) CPU [9%@2201,off] EMC_FREQ 0%@2133 "
    "GR3D_FREQ 98%@[1300,1300] cpu@55C soc2@-1.5C tj@61.5C VDD_GPU_SOC 12394mW/7394mW VDD_CPU_CV 600mW/500mW\n"
)


@pytest.fixture
def command(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[str, str], Path]:
    """Give a function that puts a shell script of some name first on PATH."""
    folder = tmp_path / "bin"
    folder.mkdir()
    monkeypatch.setenv("PATH", f"{folder}{os.pathsep}{os.environ['PATH']}")

    def make(name: str, script: str) -> Path:
        path = folder / name
        path.write_text(f"#!/bin/sh\n{script}\n")
        path.chmod(path.stat().st_mode | stat.S_IXUSR)
        return path

    return make


def test_lines_of_tegrastats() -> None:
    samples = jetson_report.Samples.parse(LINES)
    assert samples.power_mw == {"VDD_GPU_SOC": [2394, 12394], "VDD_CPU_CV": [400, 600]}
    assert samples.temperature_c["tj"] == [48.25, 61.5]
    assert samples.temperature_c["soc2"] == [-1.5, -1.5]
    assert dict(samples.rows()) == {
        "power VDD_CPU_CV": "mean 0.50 W, most 0.60 W",
        "power VDD_GPU_SOC": "mean 7.39 W, most 12.39 W",
        "hottest sensor": "tj: 48.2 deg C at the start, 61.5 at most",
        "memory of the whole system": "2587 MB at the start, 3100 MB at most",
    }
    assert list(jetson_report.Samples.parse("").rows()) == []


def test_board_commands_are_asked(command: Callable[[str, str], Path]) -> None:
    command("nvpmodel", "echo 'NV Power Mode: MAXN_SUPER'; echo 2")
    command("nvcc", "echo 'Cuda compilation tools, release 12.6, V12.6.68'")
    command("dpkg-query", '[ "$3" = nvidia-jetpack ] || exit 1; printf 6.2.1+b38')
    command("jetson_clocks", "echo needs root; exit 1")
    facts = jetson_report.machine_facts()
    assert facts["power mode"] == "MAXN_SUPER"
    assert facts["CUDA compiler"] == "12.6"
    assert facts["package nvidia-jetpack"] == "6.2.1+b38"
    assert "package libnvinfer10" not in facts
    assert facts["GPU clock"] == jetson_report.UNKNOWN


def test_tegrastats_runs_beside_the_benchmark_and_ends_with_it(command: Callable[[str, str], Path]) -> None:
    command("tegrastats", f"printf '%s' '{LINES}'; exec sleep 100")
    with jetson_report.tegrastats() as samples:
        subprocess.run(["sleep", "0.5"], check=True)
    assert samples.memory_mb == [2587, 3100]


def test_report_of_a_run(
    command: Callable[[str, str], Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    rmr = command(
        "rmr",
        'if [ "$1" = doctor ]; then echo \'{"healthy": true, "cpu": {"name": "Cortex"}}\'; exit; fi\n'
        'echo "$@" >&2; printf \'{"runs": [{"p50_s": 1.5}], "sizes": [1, 2]}\' | tee "$4"',
    )
    out = tmp_path / "report"
    assert jetson_report.main(["--rmr", str(rmr), "--out", str(out), "--", "--repeats", "3"]) == 0
    assert "## Machine" in capsys.readouterr().out
    report = json.loads((out / "report.json").read_text())
    assert report["doctor"]["cpu"]["name"] == "Cortex"
    assert report["bench"] == json.loads((out / "bench.json").read_text())
    assert report["problems"] == []
    page = (out / "report.md").read_text()
    for row in ("| cpu.name | Cortex |", "| runs[0].p50_s | 1.5 |", "| sizes | [1, 2] |"):
        assert row in page
    assert os.uname().nodename not in page.replace("unknown", "") or len(os.uname().nodename) < 4
    assert str(Path.home()) not in page


def test_problems_stand_in_the_report(
    command: Callable[[str, str], Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    rmr = command("rmr", 'if [ "$1" = doctor ]; then exit 5; fi; echo "rmr: EngineError: no engine." >&2; exit 5')
    assert jetson_report.main(["--rmr", str(rmr), "--out", str(tmp_path / "report")]) == 1
    assert "rmr bench: rmr: EngineError: no engine." in capsys.readouterr().err
    page = (tmp_path / "report" / "report.md").read_text()
    assert "| problem | rmr doctor: exit code 5, and no message |" in page
    assert jetson_report.main(["--rmr", "/nowhere/rmr", "--out", str(tmp_path / "report")]) == 1
    assert "/nowhere/rmr cannot be run: No such file or directory" in capsys.readouterr().err


@pytest.mark.slow
def test_this_machine(tmp_path: Path) -> None:
    study = tmp_path / "study"
    study.mkdir()
    for contrast in ("T1w", "FLAIR"):
        image = nibabel.load(demo_study_folder() / f"sub-demo_{contrast}.nii.gz")
        middle = tuple(slice((size - 96) // 2, (size - 96) // 2 + 96) for size in image.shape)
        nibabel.save(image.slicer[middle], study / f"sub-demo_{contrast}.nii.gz")
    script = [sys.executable, str(ROOT / "packaging" / "jetson_report.py"), "--out", str(tmp_path / "report")]
    quick = ["--repeats", "1", "--warmup", "0", "--cold-starts", "0", "--no-roofline", str(study)]
    done = subprocess.run([*script, "--", *quick], capture_output=True, text=True, timeout=280)
    assert done.returncode == 0, done.stderr
    report = json.loads((tmp_path / "report" / "report.json").read_text())
    assert report["doctor"]["healthy"]
    assert report["bench"] == json.loads((tmp_path / "report" / "bench.json").read_text())
