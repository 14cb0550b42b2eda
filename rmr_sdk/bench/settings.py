"""What a benchmark is asked to do, checked before anything is measured."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rmr_sdk.errors import ConfigError
from rmr_sdk.pipeline import DEFAULT_BUNDLE
from rmr_sdk.tiles import check_overlap

MOST_ROUNDS = 10_000


@dataclass(frozen=True, slots=True, kw_only=True)
class Asked:
    """One configuration as it was asked for; any of its values may be "auto"."""

    engine: str
    device: str
    precision: str


@dataclass(frozen=True, slots=True, kw_only=True)
class BenchSettings:
    """How to measure.

    Attributes:
        bundle: As for `Pipeline.open`.
        engines: Engines to measure, each with every precision.
        device: As for `Pipeline.open`.
        precisions: Precisions to measure; labels are compared with those of the first configuration.
        threads: As for `Pipeline.open`.
        overlap: As for `Pipeline.run`.
        repeats: Rounds that count; each runs every configuration once.
        warmup: Rounds before them that do not count.
        cold_starts: Fresh processes per configuration; 0 for none, and then no figures of memory either.
        cache_dir: As for `Pipeline.open`.
        roofline: Whether to measure what the machine could do at most.
    """

    bundle: str = DEFAULT_BUNDLE
    engines: tuple[str, ...] = ("auto",)
    device: str = "auto"
    precisions: tuple[str, ...] = ("auto",)
    threads: int | None = None
    overlap: float = 0.25
    repeats: int = 5
    warmup: int = 1
    cold_starts: int = 3
    cache_dir: Path | None = None
    roofline: bool = True

    def __post_init__(self) -> None:
        """Check what opening a pipeline does not.

        Raises:
            ConfigError: A number is out of its range, or there is no configuration.
        """
        _check_count("repeats", self.repeats, 1)
        _check_count("warmup", self.warmup, 0)
        _check_count("cold_starts", self.cold_starts, 0)
        check_overlap(self.overlap)
        if not self.engines or not self.precisions:
            raise ConfigError("There is no configuration to measure.", "Name at least one engine and one precision.")

    @property
    def configurations(self) -> Iterator[Asked]:
        """Give every engine with every precision."""
        for engine in self.engines:
            for precision in self.precisions:
                yield Asked(engine=engine, device=self.device, precision=precision)

    def open_options(self, asked: Asked) -> dict[str, Any]:
        """Return the options of `Pipeline.open` for one configuration."""
        return {
            "bundle": self.bundle,
            "engine": asked.engine,
            "device": asked.device,
            "precision": asked.precision,
            "threads": self.threads,
            "cache_dir": self.cache_dir,
        }


def _check_count(option: str, value: int, least: int) -> None:
    if not least <= value <= MOST_ROUNDS:
        raise ConfigError(
            f"{option} is {value}.", f"Pass a whole number from {least} to {MOST_ROUNDS}.", option=option, value=value
        )
