"""Run a bundle's golden tile on every engine at hand."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass

from rmr_sdk.bundle import Bundle
from rmr_sdk.engines import ENGINES, open_engine
from rmr_sdk.engines.base import PRECISIONS
from rmr_sdk.errors import DeviceError, EngineError, EngineMismatchError
from rmr_sdk.golden import Deviation


@dataclass(frozen=True, slots=True)
class Verdict:
    """What one engine makes of the golden tile.

    Attributes:
        engine: Name of the engine.
        precision: Precision asked for.
        deviation: How far it is from the golden outputs, or None where it could not run.
        problem: Why it could not run, or why it failed; None where all is well.
        failed: Whether it ran, or should have, and is wrong.
    """

    engine: str
    precision: str
    deviation: Deviation | None = None
    problem: str | None = None
    failed: bool = False


def verify_bundle(bundle: Bundle, engines: tuple[str, ...] = ENGINES) -> Iterator[Verdict]:
    """Check every file of a bundle, then compute its golden tile on every engine and in every precision.

    Compiled networks of earlier runs are not used.

    Args:
        bundle: The bundle.
        engines: Engines to try.

    Yields:
        One verdict an engine and precision, as soon as it is there.

    Raises:
        ChecksumError: A file is not the one that the manifest describes.
        BundleError: A file is missing, or the golden tile does not fit the manifest.
    """
    bundle.verify()
    for engine in engines:
        for precision in PRECISIONS:
            yield _try(bundle, engine, precision)


def _try(bundle: Bundle, engine: str, precision: str) -> Verdict:
    with tempfile.TemporaryDirectory() as cache:
        try:
            return Verdict(engine, precision, _deviation(bundle, engine, precision, cache))
        except (DeviceError, EngineMismatchError) as error:
            return Verdict(engine, precision, problem=error.problem)
        except EngineError as error:
            return Verdict(engine, precision, problem=error.problem, failed=True)


def _deviation(bundle: Bundle, engine: str, precision: str, cache: str | os.PathLike[str]) -> Deviation:
    opened, _ = open_engine(bundle, engine, precision=precision, cache_dir=cache)
    golden = bundle.golden()
    try:
        with opened.session() as session:
            session.submit(golden.network_inputs())
            return golden.deviation(session.collect())
    finally:
        opened.close()
