"""A cohort on the machines of a Ray cluster: one worker per so many cores, each with its own pipeline.

Ray hands out the studies and looks after its workers; there is no scheduler here. All machines must see the studies and
the output folder under the same paths, and have the SDK installed.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from rmr_sdk.cohort.find import CohortStudy
from rmr_sdk.cohort.summary import StudyRow
from rmr_sdk.cohort.worker import Settings, Worker, located
from rmr_sdk.errors import DeviceUnavailableError, EngineError, RmrError
from rmr_sdk.watch import Progress

LOCAL = "local"
"""In the place of an address: a cluster on this machine alone, for as long as the run takes."""

_THREADS = 4


@dataclass(frozen=True, slots=True)
class RayExecutor:
    """Runs studies on a Ray cluster; pass it to `run_cohort`.

    Each worker takes `Settings.threads` cores, four where that is not set, and there are as many workers as the
    cluster's cores allow.

    Attributes:
        address: "auto" for the cluster that this machine belongs to, `ray://HOST:PORT`, or "local".
    """

    address: str = LOCAL

    def __call__(
        self,
        settings: Settings,
        out: Path,
        studies: Sequence[CohortStudy],
        step: Callable[[CohortStudy, Progress], object],
    ) -> Iterator[StudyRow]:
        """Give the rows of the studies as they are finished, in any order.

        Raises:
            DeviceUnavailableError: Ray is not installed, or there is no cluster at the address.
            EngineError: A worker died.
            RmrError: As `Settings.open` and `Worker.run`, from the worker that met it first.
        """
        ray, pool_of_actors = _load_ray()
        self._connect(ray)
        try:
            cores = int(ray.cluster_resources().get("CPU", 1))
            threads = min(settings.threads or _THREADS, cores)
            actor = ray.remote(num_cpus=threads)(_RayWorker)
            count = max(1, min(len(studies), cores // threads))
            pool = pool_of_actors([actor.remote(_there(settings, threads), out.absolute()) for _ in range(count)])
            here = [located(study) for study in studies]
            for answer in pool.map_unordered(lambda worker, study: worker.run.remote(study), here):
                if isinstance(answer, RmrError):
                    raise answer
                yield answer
        except ray.exceptions.RayError as error:
            raise EngineError(
                f"a worker of the Ray cluster died ({type(error).__name__}).",
                "Check that its machine has this SDK and memory left; Ray's log there says more. Then run again: "
                "finished studies are kept.",
            ) from error
        finally:
            ray.shutdown()

    def _connect(self, ray: Any) -> None:
        try:
            address = None if self.address == LOCAL else self.address
            own = {"include_dashboard": False} if address is None else {}
            ray.init(address=address or LOCAL, log_to_driver=False, logging_level="ERROR", **own)
        except (ConnectionError, OSError, ValueError, RuntimeError) as error:
            raise DeviceUnavailableError(
                "no Ray cluster answers at the address given.", "Start one with `ray start`, or pass --ray alone."
            ) from error


class _RayWorker:
    """A worker in a process of its own: it opens its pipeline once, for the first study.

    What is raised here would reach the other process as a traceback, so errors are answers.
    """

    def __init__(self, settings: Settings, out: Path) -> None:
        self._settings, self._out = settings, out
        self._worker: Worker | None = None

    def run(self, study: CohortStudy) -> StudyRow | RmrError:
        """Run one study; give the error that ends the cohort where there is one."""
        try:
            if self._worker is None:
                self._worker = Worker(self._settings, self._out, self._settings.open())
            return self._worker.run(study)
        except RmrError as error:
            return error


def _load_ray() -> tuple[Any, Any]:
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")  # a study must not make a clinic's machine call home
    try:
        import ray
        from ray.util import ActorPool
    except ImportError as error:
        raise DeviceUnavailableError(
            "Ray is not installed.", 'Install it with: pip install "rmr-sdk[ray]"', extra="ray"
        ) from error
    return ray, ActorPool


def _there(settings: Settings, threads: int) -> Settings:
    """Return settings that hold in another working folder, for a worker of so many threads."""
    bundle = os.path.abspath(settings.bundle) if os.path.exists(settings.bundle) else settings.bundle
    cache = None if settings.cache_dir is None else os.path.abspath(settings.cache_dir)
    return replace(settings, bundle=bundle, cache_dir=cache, threads=threads)
