"""The embedding contract: what a run inside another program must not do, and the example that shows it."""

from __future__ import annotations

import subprocess
import sys
import threading
from pathlib import Path

import pytest
from tiny_study import make_grid, make_study, make_tiny, write_study

from rmr_sdk import Pipeline

ROOT = Path(__file__).parent.parent

EMBEDDED = """
import locale, logging, random, signal, sys, warnings
import numpy as np
seen = []
def state():
    handlers = [signal.getsignal(number) for number in sorted(signal.valid_signals()) if number not in (9, 19)]
    return (handlers, locale.setlocale(locale.LC_ALL), list(warnings.filters), logging.getLogger().handlers[:],
            random.getstate(), np.random.get_state()[1].tolist(), sys.stdout, sys.stderr, sys.excepthook)
import rmr_sdk
from rmr_sdk import Pipeline, Study
study = Study.from_folder(sys.argv[2])
before = state()
FORBIDDEN = ("subprocess.Popen", "os.system", "os.exec", "os.fork", "os.posix_spawn", "socket.connect", "socket.bind")
sys.addaudithook(lambda event, _: seen.append(event) if event in FORBIDDEN else None)
with Pipeline.open(sys.argv[1], cache_dir=sys.argv[3]) as pipeline:
    pipeline.warmup()
    pipeline.plan(study)
    result = pipeline.run(study)
assert state() == before, "the state of the process changed"
assert not seen, seen
assert result.lesions
"""


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Give the path of the tiny bundle."""
    path = tmp_path_factory.mktemp("bundles") / "tiny.zip"
    make_tiny(path)
    return path


def test_a_run_leaves_the_process_as_it_was(bundle: Path, tmp_path: Path) -> None:
    write_study(tmp_path / "study")
    done = subprocess.run(
        [sys.executable, "-c", EMBEDDED, bundle, tmp_path / "study", tmp_path / "cache"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


def test_other_threads_go_on_during_a_run(bundle: Path, tmp_path: Path) -> None:
    study, turns, done = make_study(make_grid(shape=(180, 160, 140))), 0, threading.Event()

    def count() -> None:
        nonlocal turns
        while not done.wait(0.001):
            turns += 1

    with Pipeline.open(bundle, cache_dir=tmp_path) as pipeline:
        other = threading.Thread(target=count)
        other.start()
        try:
            pipeline.run(study, overlap=0.75)
        finally:
            done.set()
            other.join()
    assert turns > 20


@pytest.mark.parametrize(
    ("arguments", "code", "words"),
    [
        (
            (),
            0,
            ("plan: ", "MiB beside the network", "after the last slice", "fused: (20, 24, 22) float32", "lesions: 1"),
        ),
        (("--deadline", "0.001"), 130, ("DeadlineExceeded: the deadline of 0.001 s passed",)),
        (("--max-memory-mib", "0.1"), 5, ("DeviceMemoryError: this study needs",)),
    ],
)
def test_the_example(
    bundle: Path, tmp_path: Path, arguments: tuple[str, ...], code: int, words: tuple[str, ...]
) -> None:
    write_study(tmp_path / "study")
    example = ROOT / "examples" / "scanner_embed.py"
    done = subprocess.run(
        [sys.executable, example, tmp_path / "study", "--bundle", bundle, "--slice-ms", "1", *arguments],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    assert (done.returncode, done.stderr) == (code, "")
    for each in words:
        assert each in done.stdout
