"""What a machine says of itself: power, clocks, energy and its GPU, from folders and a library made for the test."""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest

from rmr_sdk.bench import energy
from rmr_sdk.bench.energy import Metered, NvmlMeter, RailMeter, RaplMeter, open_meter
from rmr_sdk.bench.machine import Observer, describe_machine, remarks
from rmr_sdk.bench.nvml import Nvml
from rmr_sdk.bench.results import Conditions


def write(root: Path, files: dict[str, object]) -> Path:
    for name, content in files.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(f"{content}\n")
    return root


def package(root: Path, number: int, name: str, microjoules: int) -> None:
    zone = f"sys/class/powercap/intel-rapl:{number}"
    write(root, {f"{zone}/name": name, f"{zone}/energy_uj": microjoules, f"{zone}/max_energy_range_uj": 1_000_000})


@pytest.fixture
def jetson(tmp_path: Path) -> Path:
    """Give the folders of an Orin: one chip with three rails, one of them the whole module."""
    chip = "sys/class/hwmon/hwmon1"
    rails = {1: ("VDD_IN", 5000, 2000), 2: ("VDD_CPU_GPU_CV", 5000, 1000), 3: ("VDD_SOC", 5000, 500)}
    files: dict[str, object] = {f"{chip}/name": "ina3221", "sys/class/hwmon/hwmon0/name": "nvme"}
    for number, (label, millivolts, milliamperes) in rails.items():
        files |= {
            f"{chip}/in{number}_label": label,
            f"{chip}/in{number}_input": millivolts,
            f"{chip}/curr{number}_input": milliamperes,
        }
    return write(tmp_path, files)


class FakeError(Exception):
    """What the fake library raises where a board keeps a figure to itself."""


@pytest.fixture
def nvml(monkeypatch: pytest.MonkeyPatch) -> Iterator[SimpleNamespace]:
    """Give a fake `pynvml`; a value of None is a question that the board does not answer."""
    facts = SimpleNamespace(
        energy=5000, reasons=0x4 | 0x40 | 0x1, clock=1200, most=1800, celsius=61, pid=os.getpid(), used=300 * 2**20
    )
    library = ModuleType("pynvml")

    def answer(name: str) -> Callable[..., Any]:
        def ask(*_: object) -> Any:
            value = getattr(facts, name)
            if value is None:
                raise FakeError
            return value

        return ask

    def processes(*_: object) -> list[Any]:
        return [SimpleNamespace(pid=1, usedGpuMemory=1), SimpleNamespace(pid=facts.pid, usedGpuMemory=facts.used)]

    members = {
        "NVMLError": FakeError,
        "NVML_CLOCK_SM": 1,
        "NVML_TEMPERATURE_GPU": 0,
        "nvmlInit": lambda: None,
        "nvmlDeviceGetHandleByIndex": lambda index: index,
        "nvmlDeviceGetName": lambda handle: b"NVIDIA Test",
        "nvmlDeviceGetMemoryInfo": lambda handle: SimpleNamespace(total=8 * 2**30),
        "nvmlSystemGetDriverVersion": lambda: "600.1",
        "nvmlDeviceGetTotalEnergyConsumption": answer("energy"),
        "nvmlDeviceGetComputeRunningProcesses": processes,
        "nvmlDeviceGetClockInfo": answer("clock"),
        "nvmlDeviceGetMaxClockInfo": answer("most"),
        "nvmlDeviceGetCurrentClocksThrottleReasons": answer("reasons"),
        "nvmlDeviceGetTemperature": answer("celsius"),
    }
    for name, member in members.items():
        setattr(library, name, member)
    monkeypatch.setitem(sys.modules, "pynvml", library)
    return facts


def test_rapl_counts_packages_and_memory_over_their_wrap(tmp_path: Path) -> None:
    for number, (name, start) in enumerate([("package-0", 900_000), ("core", 5), ("dram", 100), ("psys", 7)]):
        package(tmp_path, number, name, start)
    meter = open_meter("cpu", tmp_path)
    assert isinstance(meter, RaplMeter)
    assert meter.source == "RAPL: package-0, dram"
    assert meter.joules() == 0
    package(tmp_path, 0, "package-0", 100_000)  # 200,000 more, over the end of its range
    package(tmp_path, 2, "dram", 50_100)
    assert meter.joules() == pytest.approx(0.25)
    assert meter.joules() == pytest.approx(0.25)
    meter.close()


def test_a_counter_that_is_not_for_us_is_left_alone(tmp_path: Path) -> None:
    package(tmp_path, 0, "package-0", 1)
    (tmp_path / "sys/class/powercap/intel-rapl:0/energy_uj").unlink()
    assert open_meter("cpu", tmp_path) is None
    assert open_meter("cpu", tmp_path / "nothing") is None


def test_the_rail_of_the_whole_module_is_integrated(jetson: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(energy, "SAMPLING_S", 0.005)
    meter = open_meter("cpu", jetson)
    assert isinstance(meter, RailMeter)
    assert meter.source == "INA3221: VDD_IN"
    began, first = time.perf_counter(), meter.joules()
    time.sleep(0.1)
    seconds, joules = time.perf_counter() - began, meter.joules() - first
    assert joules == pytest.approx(10.0 * seconds, rel=0.2)  # 5 V, 2 A
    meter.close()
    assert not meter._thread.is_alive()


def test_rails_without_a_whole_are_added_up(jetson: Path) -> None:
    (jetson / "sys/class/hwmon/hwmon1/in1_label").write_text("VDD_GPU\n")
    meter = open_meter("cpu", jetson)
    assert isinstance(meter, RailMeter)
    assert meter.source == "INA3221: VDD_GPU, VDD_CPU_GPU_CV, VDD_SOC"
    assert meter._watts() == pytest.approx(17.5)
    meter.close()


def test_a_chip_without_a_name_is_passed_over(jetson: Path) -> None:
    (jetson / "sys/class/hwmon/hwmon1/name").unlink()
    assert open_meter("cpu", jetson) is None


def test_the_gpu_counts_for_itself_on_cuda_alone(nvml: SimpleNamespace, tmp_path: Path) -> None:
    package(tmp_path, 0, "package-0", 1)
    gpu = Nvml.open()
    meter = open_meter("cuda:0", tmp_path, gpu)
    assert isinstance(meter, NvmlMeter)
    nvml.energy += 2500
    assert meter.joules() == pytest.approx(2.5)
    nvml.energy = None
    assert meter.joules() == pytest.approx(2.5)
    meter.close()
    assert isinstance(open_meter("cpu", tmp_path, gpu), RaplMeter)
    assert open_meter("cuda:0", tmp_path, gpu) is None  # the CPU's counter says nothing about a GPU


def test_energy_is_counted_inside_blocks_alone(tmp_path: Path) -> None:
    package(tmp_path, 0, "package-0", 0)
    metered = Metered(open_meter("cpu", tmp_path))
    for start in (0, 100_000):
        package(tmp_path, 0, "package-0", start)
        with metered:
            package(tmp_path, 0, "package-0", start + 20_000)
    assert metered.joules == pytest.approx(0.04)
    assert metered.blocks == 2
    assert metered.seconds > 0
    with Metered(None) as nothing:
        assert nothing.source is None
    assert nothing.blocks == 0


def test_a_gpu_is_described(nvml: SimpleNamespace) -> None:
    gpu = Nvml.open()
    assert gpu is not None
    facts = gpu.describe()
    assert facts is not None
    assert (facts.name, facts.memory_mib, facts.driver) == ("NVIDIA Test", 8192, "600.1")
    assert gpu.memory_of_this_process_mib() == 300.0
    assert gpu.limits() == ("power cap", "hardware thermal slowdown")
    nvml.pid = -1
    assert gpu.memory_of_this_process_mib() is None
    assert describe_machine(gpu=gpu).gpus == (facts,)


def test_a_board_that_tells_nothing_is_no_error(nvml: SimpleNamespace, monkeypatch: pytest.MonkeyPatch) -> None:
    nvml.energy = nvml.reasons = nvml.clock = nvml.most = nvml.celsius = nvml.used = None
    gpu = Nvml.open()
    assert gpu is not None
    assert (gpu.joules(), gpu.limits(), gpu.clocks_mhz(), gpu.celsius()) == (None, (), (None, None), None)
    assert gpu.memory_of_this_process_mib() is None

    def refuse(*_: object) -> None:
        raise FakeError

    monkeypatch.setattr(sys.modules["pynvml"], "nvmlDeviceGetName", refuse)
    assert gpu.describe() is None
    monkeypatch.setattr(sys.modules["pynvml"], "nvmlInit", refuse)
    assert Nvml.open() is None
    monkeypatch.setitem(sys.modules, "pynvml", None)
    assert Nvml.open() is None


def test_conditions_of_a_machine_that_tells_everything(tmp_path: Path, nvml: SimpleNamespace) -> None:
    cpu = "sys/devices/system/cpu"
    write(
        tmp_path,
        {
            "proc/stat": "cpu  0 0 0 0 0 0 0 0 0 0\ncpu0 0",
            "proc/loadavg": "1.25 1 1 1/1 1",
            f"{cpu}/cpu0/cpufreq/scaling_governor": "powersave",
            f"{cpu}/cpu0/cpufreq/scaling_cur_freq": 2_000_000,
            f"{cpu}/cpu1/cpufreq/scaling_cur_freq": 3_000_000,
            f"{cpu}/cpu0/cpufreq/cpuinfo_max_freq": 3_500_000,
            f"{cpu}/cpu0/thermal_throttle/core_throttle_count": 3,
            "sys/class/thermal/thermal_zone0/temp": 48_500,
            "sys/class/thermal/thermal_zone1/temp": "n/a",
            "var/lib/nvpmodel/status": "pmode:0002",
            "etc/nvpmodel.conf": "< POWER_MODEL ID=0 NAME=MAXN >\n< POWER_MODEL ID=2 NAME=MODE_30W >",
        },
    )
    observer = Observer(tmp_path, Nvml.open())
    observer.look()
    ticks = os.sysconf("SC_CLK_TCK")
    busy = 1000 * ticks  # far more than this process can have used in between
    write(
        tmp_path,
        {
            "proc/stat": f"cpu  {busy} 0 0 {busy} 0 0 0 {busy // 4} 0 0",
            f"{cpu}/cpu0/thermal_throttle/core_throttle_count": 5,
        },
    )
    found = observer.finish()
    assert (found.power_mode, found.governor) == ("MODE_30W (2)", "powersave")
    assert (found.cpu_mhz, found.cpu_max_mhz, found.hottest_celsius) == (2500, 3500, 61.0)
    assert (found.throttle_events, found.load_before) == (2, 1.25)
    assert found.others_share == pytest.approx(1000 / 2250, abs=0.01)
    assert found.stolen_share == pytest.approx(250 / 2250, abs=1e-3)
    assert (found.gpu_mhz, found.gpu_max_mhz) == (1200, 1800)
    assert found.gpu_limits == ("power cap", "hardware thermal slowdown")
    assert [remark.partition(" ")[2][:18] for remark in remarks(found)] == [
        "processes took 44%",
        "hypervisor took 11",
        "CPU slowed itself ",
        "GPU's clocks were ",
        "CPU frequency gove",
    ]


def test_conditions_of_a_machine_that_tells_nothing(tmp_path: Path) -> None:
    assert Observer(tmp_path).finish() == Conditions()
    assert remarks(Conditions()) == ()
    (tmp_path / "var/lib/nvpmodel").mkdir(parents=True)
    (tmp_path / "var/lib/nvpmodel/status").write_text("pmode:0003\n")
    assert Observer(tmp_path).finish().power_mode == "mode 3"


def test_a_machine_is_described_without_names(tmp_path: Path) -> None:
    write(
        tmp_path,
        {
            "proc/cpuinfo": "processor : 0\nmodel name\t: Test CPU\n",
            "proc/meminfo": "MemTotal:       8388608 kB",
            "proc/device-tree/model": "NVIDIA Jetson AGX Orin\0",
        },
    )
    found = describe_machine(tmp_path)
    assert (found.cpu, found.memory_gib, found.board) == ("Test CPU", 8.0, "NVIDIA Jetson AGX Orin")
    assert found.gpus == ()
    assert found.versions["python"]
    empty = describe_machine(tmp_path / "nothing")
    assert empty.memory_gib is None
    assert empty.cpu
    assert os.uname().nodename not in str(found)
