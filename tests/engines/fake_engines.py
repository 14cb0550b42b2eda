"""Engines that compute nothing and take as long as a test says, on a clock that only they move."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from types import TracebackType

from rmr_sdk.bundle import Bundle
from rmr_sdk.engines.base import Engine, EngineInfo, EngineKind, EngineRequest, Offer, Tensors
from rmr_sdk.errors import DeviceUnavailableError, EngineError


class FakeClock:
    """Seconds that stand still unless an engine computes."""

    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


class FakeEngine:
    """Takes the next of `seconds` for each tile; the last one for ever."""

    def __init__(self, clock: FakeClock, seconds: Iterable[float], precision: str = "fp32", slots: int = 1) -> None:
        self.info = EngineInfo("fake", "1.0", "cpu", "a CPU", precision, slots)
        self.slots = slots
        self.warnings: tuple[str, ...] = ()
        self.tiles = 0
        self.closed = False
        self._clock = clock
        self._seconds: Iterator[float] = iter(seconds)
        self._last = 0.0

    def session(self) -> FakeSession:
        return FakeSession(self)

    def close(self) -> None:
        self.closed = True

    def compute(self) -> None:
        self._last = next(self._seconds, self._last)
        self._clock.now += self._last
        self.tiles += 1


class FakeSession:
    """Computes when a tile is collected."""

    def __init__(self, engine: FakeEngine) -> None:
        self._engine = engine

    def submit(self, inputs: Tensors) -> None:
        assert set(inputs) == {"t1w", "flair"}

    def collect(self) -> Tensors:
        self._engine.compute()
        return {}

    def close(self) -> None:
        pass

    def __enter__(self) -> FakeSession:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, _: TracebackType | None) -> None:
        self.close()


class FakeMaker:
    """Makes engines of one kind: precision -> seconds a tile, or the words of the error that opening it gives."""

    def __init__(self, clock: FakeClock, speeds: dict[str, float | str], name: str = "fake", missing: str = "") -> None:
        self.speeds = speeds
        self.opened: list[FakeEngine] = []
        self.version = "1.0"
        self.kind = EngineKind(name, self._offer, self._open)
        self._clock, self._missing = clock, missing

    def _offer(self, bundle: Bundle, request: EngineRequest) -> Offer:
        if self._missing:
            raise DeviceUnavailableError(self._missing, "Install it.")
        return Offer("cpu", tuple(self.speeds), {"version": self.version})

    def _open(self, bundle: Bundle, request: EngineRequest) -> Engine:
        speed = self.speeds.get(request.precision, "it does not compute in that")
        if isinstance(speed, str):
            raise EngineError(speed, "Choose another.")
        self.opened.append(FakeEngine(self._clock, [speed], request.precision))
        return self.opened[-1]
