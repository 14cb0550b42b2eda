"""Cold starts and peak memory: the same work in processes of its own, from their start to their first tile.

parent --spawn--> interpreter --import rmr_sdk--> open --first tile--> (study, memory)
"""

from __future__ import annotations

import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Literal

import msgspec

from rmr_sdk.bench.results import ColdStart, Memory
from rmr_sdk.bench.settings import Asked, BenchSettings
from rmr_sdk.errors import EngineError

TIMEOUT_S = 1800.0

# The clock is the system's own, so that the parent's reading before the start and the child's after it compare.
_CHILD = (
    "import time; started = time.monotonic(); import rmr_sdk; imported = time.monotonic(); "
    "from rmr_sdk.bench.child import main; main(started, imported)"
)


def measure_cold_starts(
    settings: BenchSettings, asked: Asked, study: Path, tell: Callable[[], object]
) -> tuple[tuple[ColdStart, ...], Memory | None]:
    """Start fresh processes for one configuration.

    Args:
        settings: How many, and what to open.
        asked: The configuration; its network is in the cache already.
        study: Folder; the first process runs it, for its memory.
        tell: Called after each process.

    Returns:
        The start with the cache of compiled networks and one without, and the memory of the first process; nothing
        where no cold start is wanted.

    Raises:
        EngineError: A process failed or did not end.
    """
    if settings.cold_starts == 0:
        return (), None
    options = settings.open_options(asked)
    warm = []
    for index in range(settings.cold_starts):
        warm.append(_spawn(options, study if index == 0 else None, settings.overlap))
        tell()
    with tempfile.TemporaryDirectory(prefix="rmr-bench-") as cache:
        empty = _spawn({**options, "cache_dir": cache}, None, settings.overlap)
        tell()
    memory = Memory(host_mib=warm[0]["host_mib"], device_mib=warm[0]["device_mib"])
    return (_sum_up("warm", warm), _sum_up("empty", [empty])), memory


def _spawn(options: dict[str, Any], study: Path | None, overlap: float) -> dict[str, Any]:
    """Run one process; return its times since it was started, and its memory."""
    cache = options["cache_dir"]
    task = {
        "open": {**options, "cache_dir": None if cache is None else str(cache)},
        "study": None if study is None else str(study),
        "overlap": overlap,
    }
    began = time.monotonic()
    try:
        done = subprocess.run(
            [sys.executable, "-c", _CHILD],
            input=msgspec.json.encode(task),
            capture_output=True,
            check=True,
            timeout=TIMEOUT_S,
        )
        found: dict[str, Any] = msgspec.json.decode(done.stdout.splitlines()[-1])
    except (OSError, subprocess.SubprocessError, IndexError, msgspec.DecodeError) as error:
        raise EngineError(
            f"a fresh process of the benchmark failed: {_last_words(error)}.",
            "Try `rmr doctor`, or measure without cold starts: --cold-starts 0.",
        ) from error
    return {
        **found,
        "interpreter_s": found["started"] - began,
        "import_s": found["imported"] - found["started"],
    }


def _last_words(error: Exception) -> str:
    """Return the last line that the process said, or what became of it."""
    said = getattr(error, "stderr", None) or b""
    lines = said.decode(errors="replace").strip().splitlines()
    return (lines[-1] if lines else type(error).__name__).rstrip(".")


def _sum_up(cache: Literal["warm", "empty"], runs: Sequence[dict[str, Any]]) -> ColdStart:
    def median(*names: str) -> float:
        return round(float(statistics.median(sum(run[name] for name in names) for run in runs)), 4)

    return ColdStart(
        processes=len(runs),
        engine_cache=cache,
        interpreter_s=median("interpreter_s"),
        import_s=median("import_s"),
        open_s=median("open_s"),
        first_tile_s=median("first_tile_s"),
        ready_s=median("import_s", "open_s", "first_tile_s"),
    )
