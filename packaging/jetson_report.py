#!/usr/bin/env python3
"""Measure a machine that runs the SDK, and write the table to send back: a Jetson, or any other Linux machine.

    ~/rmr/bin/python jetson_report.py [--out DIR] [-- OPTIONS OF rmr bench]

Run it with the Python that has the SDK, or pass --rmr COMMAND. It runs `rmr doctor`, then `rmr bench` while tegrastats,
where there is one, notes power, temperature and memory; report.md, report.json and bench.json go into DIR. What is not
there is "unknown". The report holds no name of a host, user or patient. docs/jetson.md says how to prepare the machine.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path

UNKNOWN = "unknown"
_PACKAGES = ("nvidia-jetpack", "nvidia-l4t-core", "libnvinfer10", "python3-libnvinfer")


@dataclass(slots=True)
class Samples:
    """What tegrastats said while the benchmark ran: power of each rail in mW, temperatures in deg C, memory in MB."""

    power_mw: dict[str, list[int]] = field(default_factory=dict)
    temperature_c: dict[str, list[float]] = field(default_factory=dict)
    memory_mb: list[int] = field(default_factory=list)

    @classmethod
    def parse(cls, text: str) -> Samples:
        """Read lines of tegrastats: `RAM 2587/30697MB ... tj@48.2C VDD_IN 4786mW/4786mW`, present and mean power."""
        samples = cls()
        for rail, now in re.findall(r"(\w+) (\d+)mW/\d+mW", text):
            samples.power_mw.setdefault(rail, []).append(int(now))
        for sensor, degrees in re.findall(r"(\w+)@(-?\d+(?:\.\d+)?)C\b", text):
            samples.temperature_c.setdefault(sensor, []).append(float(degrees))
        samples.memory_mb = [int(used) for used in re.findall(r"\bRAM (\d+)/\d+MB", text)]
        return samples

    def rows(self) -> Iterator[tuple[str, str]]:
        """Give one line per rail and sensor for the table."""
        for rail, values in sorted(self.power_mw.items()):
            yield f"power {rail}", f"mean {sum(values) / len(values) / 1000:.2f} W, most {max(values) / 1000:.2f} W"
        if self.temperature_c:
            sensor, degrees = max(self.temperature_c.items(), key=lambda item: max(item[1]))
            yield "hottest sensor", f"{sensor}: {degrees[0]:.1f} deg C at the start, {max(degrees):.1f} at most"
        if self.memory_mb:
            yield "memory of the whole system", f"{self.memory_mb[0]} MB at the start, {max(self.memory_mb)} MB at most"


def machine_facts() -> dict[str, str]:
    """Return what the machine is and how it is set up; what cannot be found out is `UNKNOWN`."""
    versions = {f"package {name}": found for name in _PACKAGES if (found := _package(name))}
    return {
        "machine": _text("/proc/device-tree/model") or _text("/sys/class/dmi/id/product_name") or UNKNOWN,
        "processor": f"{platform.machine()}, {os.cpu_count()} cores",
        "memory": f"{os.sysconf('SC_PAGE_SIZE') * os.sysconf('SC_PHYS_PAGES') / 2**30:.1f} GiB",
        "system": _os_name(),
        "kernel": platform.release(),
        "glibc": platform.libc_ver()[1] or UNKNOWN,
        "Jetson Linux": (_text("/etc/nv_tegra_release").splitlines() or [UNKNOWN])[0].lstrip("# "),
        "python": platform.python_version(),
        "CUDA compiler": _said(["nvcc", "--version"], r"release (\S+),"),
        "GPU and driver": _said(["nvidia-smi", "--query-gpu=name,driver_version", "--format=csv,noheader"], r"(.+)"),
        "power mode": _said(["nvpmodel", "-q"], r"Power Mode: *(.+)"),
        "GPU clock": _said(["jetson_clocks", "--show"], r"^GPU (.+)"),
        **versions,
    }


@contextmanager
def tegrastats(interval_ms: int = 200) -> Iterator[Samples]:
    """Run tegrastats beside what follows; the samples are there at the end, and empty where it is not installed."""
    samples = Samples()
    command = shutil.which("tegrastats")
    if command is None:
        yield samples
        return
    with tempfile.TemporaryFile("w+") as log:
        running = subprocess.Popen([command, "--interval", str(interval_ms)], stdout=log, stderr=subprocess.DEVNULL)
        try:
            yield samples
        finally:
            running.terminate()
            running.wait(timeout=10)
            log.seek(0)
            found = Samples.parse(log.read())
            samples.power_mw, samples.temperature_c = found.power_mw, found.temperature_c
            samples.memory_mb = found.memory_mb


def run_json(command: Sequence[str]) -> tuple[object, str]:
    """Run a command that prints JSON; return it with "", or None with what went wrong."""
    try:
        done = subprocess.run(command, capture_output=True, text=True)
    except OSError as error:
        return None, f"{command[0]} cannot be run: {error.strerror}"
    try:
        return json.loads(done.stdout), ""
    except json.JSONDecodeError:
        lines = done.stderr.strip().splitlines() or [f"exit code {done.returncode}, and no message"]
        return None, lines[-1]


def table(title: str, rows: Iterator[tuple[str, str]] | Sequence[tuple[str, str]]) -> str:
    """Lay rows out as a Markdown table under a heading."""
    lines = "\n".join(f"| {name} | {value} |" for name, value in rows)
    return f"## {title}\n\n| what | value |\n| --- | --- |\n{lines}\n"


def flat(value: object, path: str = "") -> Iterator[tuple[str, str]]:
    """Give the leaves of a JSON value as rows; lists of numbers stay in one."""
    if isinstance(value, dict):
        for name, inner in value.items():
            yield from flat(inner, f"{path}.{name}" if path else name)
    elif isinstance(value, list) and any(isinstance(item, (dict, list)) for item in value):
        for number, inner in enumerate(value):
            yield from flat(inner, f"{path}[{number}]")
    else:
        yield path, str(value)


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure and write; return 0, or 1 where `rmr doctor` or `rmr bench` failed (the report then says how)."""
    options = _parser().parse_args(arguments)
    options.out.mkdir(parents=True, exist_ok=True)
    facts = machine_facts()
    rmr = [options.rmr] if options.rmr else [sys.executable, "-m", "rmr_sdk"]
    doctor, no_doctor = run_json([*rmr, "doctor", "--json"])
    bench_file = options.out / "bench.json"
    bench_file.unlink(missing_ok=True)
    with tegrastats() as samples:
        bench, no_bench = run_json([*rmr, "bench", "--json", "--out", str(bench_file), *options.bench])
    problems = [f"rmr {name}: {problem}" for name, problem in (("doctor", no_doctor), ("bench", no_bench)) if problem]
    report = {"machine": facts, "doctor": doctor, "bench": bench, "tegrastats": asdict(samples), "problems": problems}
    (options.out / "report.json").write_text(json.dumps(report, indent=2) + "\n", encoding="utf-8")
    page = [
        "# RMR SDK on this machine\n",
        table("Machine", list(facts.items())),
        table("While it was measured", [*samples.rows()] or [("tegrastats", "not installed here")]),
        *([table("Problems", [("problem", problem) for problem in problems])] if problems else []),
        table("rmr doctor", flat(doctor)) if doctor is not None else "",
        table("rmr bench", flat(bench)) if bench is not None else "",
    ]
    (options.out / "report.md").write_text("\n".join(filter(None, page)), encoding="utf-8")
    print("\n".join(page[1:3]))
    print("\n".join(problems), file=sys.stderr, end="\n" if problems else "")
    print(f"Send back the folder {options.out}: report.md, report.json and bench.json.")
    return 1 if problems else 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description="Measure a machine that runs the SDK; write the table to send back.")
    parser.add_argument(
        "--rmr", metavar="COMMAND", help="the command rmr (default: that of the Python which runs this)"
    )
    parser.add_argument("--out", type=Path, default=Path("rmr-report"), metavar="DIR", help="(%(default)s)")
    parser.add_argument("bench", nargs="*", metavar="OPTION", help="behind --: options and study for rmr bench")
    return parser


def _text(path: str) -> str:
    try:
        return Path(path).read_text(encoding="utf-8", errors="replace").strip("\0\n ")
    except OSError:
        return ""


def _os_name() -> str:
    found = re.search(r'^PRETTY_NAME="?([^"\n]+)', _text("/etc/os-release"), re.M)
    return found[1] if found else UNKNOWN


def _package(name: str) -> str:
    return "" if (found := _said(["dpkg-query", "-W", "-f=${Version}", name], r"(\S+)")) == UNKNOWN else found


def _said(command: Sequence[str], pattern: str) -> str:
    """Return the first group of a pattern in what a command prints, or `UNKNOWN`: it may need root, or not exist."""
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=30)
    except (OSError, subprocess.TimeoutExpired):
        return UNKNOWN
    found = re.search(pattern, done.stdout, re.M) if done.returncode == 0 else None
    return found[1].strip() if found else UNKNOWN


if __name__ == "__main__":
    sys.exit(main())
