"""Workers of a cluster that fail: the error of the caller's own process, not a traceback. The cluster is made up."""

from __future__ import annotations

import pickle
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import msgspec
import pytest
from tiny_study import make_tiny, write_study

from rmr_sdk.cohort import Settings, Summary, find_studies, on_ray, run_cohort
from rmr_sdk.errors import ConfigError, DeviceUnavailableError, EngineError, OutputError


class RayError(Exception):
    """What Ray raises where a call could not be answered."""


class ActorDiedError(RayError):
    """What it raises where the actor could not be made, or is gone."""


class Actor:
    """An actor whose calls are answered through pickles, and whose own errors end it."""

    def __init__(self, make: Callable[[], Any]) -> None:
        self._make = make
        self.run = SimpleNamespace(remote=self._run)

    def _run(self, study: Any) -> Callable[[], Any]:
        def answer() -> Any:
            try:
                self._make = (lambda made: lambda: made)(self._make())
                found = self._make().run(pickle.loads(pickle.dumps(study)))
            except Exception as error:
                raise ActorDiedError("a traceback") from error
            return pickle.loads(pickle.dumps(found))

        return answer


class Pool:
    """Answers in order."""

    def __init__(self, actors: list[Actor]) -> None:
        self._actors = actors

    def map_unordered(self, call: Callable[[Actor, Any], Callable[[], Any]], values: list[Any]) -> Iterator[Any]:
        for number, value in enumerate(values):
            yield call(self._actors[number % len(self._actors)], value)()


class Ray:
    """A cluster of two cores."""

    exceptions = SimpleNamespace(RayError=RayError)

    def __init__(self) -> None:
        self.up = False

    def init(self, **_: Any) -> None:
        self.up = True

    def shutdown(self) -> None:
        self.up = False

    def cluster_resources(self) -> dict[str, float]:
        return {"CPU": 2.0}

    def remote(self, num_cpus: int) -> Callable[[type], Any]:
        return lambda kind: SimpleNamespace(remote=lambda *given: Actor(lambda: kind(*given)))


@pytest.fixture
def ray(monkeypatch: pytest.MonkeyPatch) -> Iterator[Ray]:
    """Put a cluster in the place of Ray's; it must be left in the end."""
    cluster = Ray()
    monkeypatch.setattr(on_ray, "_load_ray", lambda: (cluster, Pool))
    yield cluster
    assert not cluster.up


def run(folder: Path, executor: Any = None, **options: Any) -> Summary:
    """Run two studies."""
    if not (folder / "tiny.zip").exists():
        make_tiny(folder / "tiny.zip")
        for name in ("a", "b"):
            write_study(folder / "in" / name)
    settings = Settings(bundle=folder / "tiny.zip", cache_dir=folder / "cache", threads=1, **options)
    out = folder / ("turn" if executor is None else "ray")
    return run_cohort(find_studies(folder / "in"), out, settings, executor=executor)


def test_a_cluster_gives_what_one_process_gives(tmp_path: Path, ray: Ray) -> None:
    first, second = (
        [msgspec.structs.replace(row, seconds=0) for row in run(tmp_path, executor).studies]
        for executor in (None, on_ray.RayExecutor())
    )
    assert first == second


@pytest.mark.parametrize(
    ("options", "kind"),
    [
        ({"lesion_threshold": 2.0}, ConfigError),
        ({"engine": "no such"}, ConfigError),
        ({"engine": "openvino", "device": "npu"}, DeviceUnavailableError),
    ],
)
def test_what_a_worker_cannot_open(tmp_path: Path, ray: Ray, options: dict[str, Any], kind: type[Exception]) -> None:
    with pytest.raises(kind) as alone:
        run(tmp_path, **options)
    with pytest.raises(kind) as there:
        run(tmp_path, on_ray.RayExecutor(), **options)
    assert type(there.value) is type(alone.value) is kind
    assert str(there.value) == str(alone.value)


@pytest.mark.parametrize(
    ("error", "kind", "words"),
    [
        (OutputError("the disk is full."), OutputError, "the disk is full."),
        (
            ZeroDivisionError(),
            EngineError,
            r"a worker of the Ray cluster died \(ActorDiedError\)\. Check that its machine",
        ),
    ],
)
def test_what_ends_a_worker(
    tmp_path: Path, ray: Ray, monkeypatch: pytest.MonkeyPatch, error: Exception, kind: type[Exception], words: str
) -> None:
    def fail(*_: Any) -> None:
        raise error

    monkeypatch.setattr("rmr_sdk.cohort.worker.Worker.run", fail)
    with pytest.raises(kind, match=words):
        run(tmp_path, on_ray.RayExecutor())
