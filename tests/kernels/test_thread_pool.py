"""The kernels' threads: shared, sleeping, and gone cleanly after a fork."""

from __future__ import annotations

import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest

from rmr_sdk import _C

ROOT = Path(__file__).parents[2]
FORK = """
import os, sys, warnings
import numpy as np
from rmr_sdk import _C
warnings.simplefilter("ignore")
def sums():
    out = np.zeros((16, 16, 16), np.float32)
    source = np.ones((16, 16, 16), np.int16)
    _C.extract(source, out, origin=(0, 0, 0), scale=1.0, offset=0.0, low=0.0, high=2.0, threads=4)
    return out.sum()
assert sums() == 4096
child = os.fork()
if child == 0:
    os._exit(0 if sums() == 4096 else 1)
sys.exit(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))
"""


def extract(source: np.ndarray, threads: int) -> np.ndarray:
    out = np.empty(source.shape, np.float32)
    _C.extract(source, out, origin=(0, 0, 0), scale=0.5, offset=0.0, low=0.0, high=1e9, threads=threads)
    return out


def test_calls_from_several_threads_do_not_mix(rng: np.random.Generator) -> None:
    sources = [rng.integers(0, 1000, (20, 20, 20)).astype(np.int16) for _ in range(64)]
    with ThreadPoolExecutor(8) as callers:
        results = list(callers.map(extract, sources, [1, 2, 3, 4] * 16))
    for source, result in zip(sources, results, strict=True):
        np.testing.assert_array_equal(result, source * np.float32(0.5))


def test_threads_sleep_between_calls() -> None:
    extract(np.ones((64, 64, 64), np.int16), 4)
    used = time.process_time()
    time.sleep(0.3)
    assert time.process_time() - used < 0.1


@pytest.mark.skipif(sys.platform == "win32", reason="there is no fork on Windows")
def test_a_forked_child_has_its_own_threads() -> None:
    run = subprocess.run([sys.executable, "-c", FORK], cwd=ROOT, timeout=60, capture_output=True, text=True)
    assert run.returncode == 0, run.stderr
