"""What a benchmark found: typed structs, and the JSON file they are kept in.

docs/schemas/bench.schema.json is generated:

    python -c "from rmr_sdk.bench.results import json_schema; print(json_schema())" > docs/schemas/bench.schema.json
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import Literal

import msgspec

from rmr_sdk.errors import FormatError
from rmr_sdk.json_schema import schema_text

SCHEMA_VERSION: Literal[1] = 1
KIND: Literal["rmr-bench"] = "rmr-bench"
MAX_FILE_BYTES = 64 * 2**20
"""Largest result file that is read."""


class Distribution(msgspec.Struct, frozen=True, kw_only=True):
    """Seconds of the same thing done several times, in the order in which they were measured.

    Percentiles are nearest-rank. One that would be the largest sample by another name is null: p95 takes 20 samples,
    p99 takes 100.
    """

    samples: int
    values_s: tuple[float, ...]
    min_s: float
    p50_s: float
    p95_s: float | None
    p99_s: float | None
    max_s: float


class ColdStart(msgspec.Struct, frozen=True, kw_only=True):
    """A fresh process up to its first tile, medians over `processes` of them.

    `interpreter_s` is the start of Python, `import_s` that of `rmr_sdk`, `open_s` that of the bundle, `first_tile_s`
    the first tile after that; `ready_s` is import + open + first tile. Files come from the page cache.
    """

    processes: int
    engine_cache: Literal["warm", "empty"]
    interpreter_s: float
    import_s: float
    open_s: float
    first_tile_s: float
    ready_s: float


class Memory(msgspec.Struct, frozen=True, kw_only=True):
    """Peak memory of a process that does one study, in MiB, read after each stage.

    `host_mib` counts up: imported, opened, read, ran. `device_mib` is what the driver says that this process holds on
    the GPU after the run; null on a CPU or where NVML does not say.
    """

    host_mib: Mapping[str, float]
    device_mib: float | None = None


class Energy(msgspec.Struct, frozen=True, kw_only=True):
    """Energy while studies ran, from the counter that `source` names; it counts the whole chip or board."""

    source: str
    joules_per_study: float
    mean_watts: float


class Agreement(msgspec.Struct, frozen=True, kw_only=True):
    """How far the labels agree with those of the first configuration.

    `labels` is the share of equal voxels among those that are not background in both, `lesion_dice` the overlap of
    the lesions; both are null where the bundle does not segment. `fused_rms` is the difference of the fused images,
    root mean square, over the root mean square of the first.
    """

    labels: float | None
    lesion_dice: float | None
    fused_rms: float


class Configuration(msgspec.Struct, frozen=True, kw_only=True):
    """One way to run the study, and what it took.

    `asked` holds the options as given; engine, device, precision and threads are what they came to. `tile_s` is one
    tile at a time with nothing else in flight. `other` among the stages is what no stage accounts for.
    """

    label: str
    asked: Mapping[str, str]
    engine: str
    engine_version: str
    engine_reason: str
    device: str
    device_name: str
    precision: str
    threads: int | None
    tiles: int
    tiles_skipped: int
    study_s: Distribution
    stages_s: Mapping[str, Distribution]
    tile_s: Distribution
    cold_starts: tuple[ColdStart, ...] = ()
    memory: Memory | None = None
    energy: Energy | None = None
    agreement: Agreement | None = None
    warnings: tuple[str, ...] = ()


class StudyFacts(msgspec.Struct, frozen=True, kw_only=True):
    """The study, told by its voxels: `fingerprint` is a sha256 over them, so that two results can be matched."""

    demo: bool
    fingerprint: str
    reference: str
    shape: tuple[int, ...]
    spacing_mm: tuple[float, ...]


class BundleFacts(msgspec.Struct, frozen=True, kw_only=True):
    """The weights."""

    name: str
    version: str
    hash: str
    tile_shape: tuple[int, int, int]


class Protocol(msgspec.Struct, frozen=True, kw_only=True):
    """How it was measured: rounds that do not count, rounds that do, and the options of every run."""

    warmup: int
    repeats: int
    cold_starts: int
    overlap: float


class Gpu(msgspec.Struct, frozen=True, kw_only=True):
    """An NVIDIA GPU as NVML tells of it."""

    name: str
    memory_mib: float
    driver: str


class Machine(msgspec.Struct, frozen=True, kw_only=True):
    """The machine; it names no host, user or path."""

    cpu: str
    architecture: str
    usable_cores: int
    logical_cores: int
    instructions: tuple[str, ...]
    memory_gib: float | None
    board: str
    system: str
    versions: Mapping[str, str]
    gpus: tuple[Gpu, ...] = ()


class Conditions(msgspec.Struct, frozen=True, kw_only=True):
    """What else was going on; null where this machine does not tell.

    `others_share` and `stolen_share` are the parts of all CPU time that other processes and the hypervisor took while
    studies ran. `throttle_events` counts how often the CPU slowed itself down, `gpu_limits` names what held the GPU's
    clocks down.
    """

    power_mode: str | None = None
    governor: str | None = None
    cpu_mhz: float | None = None
    cpu_max_mhz: float | None = None
    hottest_celsius: float | None = None
    throttle_events: int | None = None
    others_share: float | None = None
    stolen_share: float | None = None
    load_before: float | None = None
    gpu_mhz: float | None = None
    gpu_max_mhz: float | None = None
    gpu_limits: tuple[str, ...] = ()


class Roof(msgspec.Struct, frozen=True, kw_only=True):
    """The fastest matrix product measured here in one precision."""

    precision: str
    gflop_per_s: float
    how: str


class Point(msgspec.Struct, frozen=True, kw_only=True):
    """A part of the pipeline under the roof: arithmetic and traffic it cannot do without, and the seconds it took."""

    name: str
    precision: str
    gflop: float
    gigabytes: float
    seconds: float
    how: str

    @property
    def intensity(self) -> float:
        """Operations per byte."""
        return self.gflop / self.gigabytes

    @property
    def gflop_per_s(self) -> float:
        """Operations per second."""
        return self.gflop / self.seconds


class Roofline(msgspec.Struct, frozen=True, kw_only=True):
    """What this machine could do at most, and where the pipeline is; `left_out` says what is not shown and why."""

    copy_gb_per_s: float
    roofs: tuple[Roof, ...]
    points: tuple[Point, ...]
    left_out: tuple[str, ...] = ()


class AccuracyFigure(msgspec.Struct, frozen=True, kw_only=True):
    """What the bundle's manifest says of a precision: a metric of a set of studies."""

    precision: str
    metric: str
    study_set: str
    value: float
    studies: int


class BenchResult(msgspec.Struct, frozen=True, kw_only=True):
    """One benchmark of one study on one machine."""

    schema_version: Literal[1] = SCHEMA_VERSION
    kind: Literal["rmr-bench"] = KIND
    date: str
    sdk_version: str
    study: StudyFacts
    bundle: BundleFacts
    protocol: Protocol
    machine: Machine
    conditions: Conditions
    configurations: tuple[Configuration, ...]
    roofline: Roofline | None = None
    accuracy: tuple[AccuracyFigure, ...] = ()
    notes: tuple[str, ...] = ()


class _Header(msgspec.Struct):
    kind: str = ""
    schema_version: int = 0


def encode_result(result: BenchResult) -> bytes:
    """Return a result as indented JSON."""
    return msgspec.json.format(msgspec.json.encode(result), indent=2) + b"\n"


def decode_result(data: bytes, name: str = "The file") -> BenchResult:
    """Read a result back.

    Args:
        data: The bytes of a result file.
        name: What to call it in an error.

    Raises:
        FormatError: It is no result of `rmr bench`, one of another schema version, or breaks the schema.
    """
    fix = "Pass a file that `rmr bench --out` wrote."
    try:
        header = msgspec.json.decode(data, type=_Header)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise FormatError(f"{name} is no result of `rmr bench`: {error}.", fix) from error
    if header.kind != KIND:
        raise FormatError(f'{name} is no result of `rmr bench`: its kind is "{header.kind[:64]}".', fix)
    if header.schema_version != SCHEMA_VERSION:
        raise FormatError(
            f"{name} has schema version {header.schema_version}; this rmr_sdk reads version {SCHEMA_VERSION}.",
            "Measure again with this version, or compare with the version that wrote it.",
            found=header.schema_version,
        )
    try:
        return msgspec.json.decode(data, type=BenchResult)
    except (msgspec.DecodeError, RecursionError) as error:
        raise FormatError(f"{name} breaks its schema: {error}.", fix) from error


def read_result(path: str | os.PathLike[str]) -> BenchResult:
    """Read a result file.

    Raises:
        FormatError: It does not exist, is too large, or as `decode_result`.
    """
    name = f'"{os.fspath(path)}"'
    try:
        with open(path, "rb") as file:
            data = file.read(MAX_FILE_BYTES + 1)
    except OSError as error:
        raise FormatError(f"{name} cannot be read: {error.strerror}.", "Pass a file of `rmr bench --out`.") from error
    if len(data) > MAX_FILE_BYTES:
        raise FormatError(f"{name} is larger than any result of `rmr bench`.", "Pass a file of `rmr bench --out`.")
    return decode_result(data, name)


def json_schema() -> str:
    """Return the JSON Schema of a result."""
    return schema_text(BenchResult)
