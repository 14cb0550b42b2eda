"""One study of a cohort: run it, write its files, and note what a later run needs to know about it."""

from __future__ import annotations

import hashlib
import os
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rmr_sdk._version import __version__
from rmr_sdk.cohort.find import CohortStudy
from rmr_sdk.cohort.summary import Record, StudyRow, make_row, read_record, write_record
from rmr_sdk.errors import Cancelled, RmrError
from rmr_sdk.pipeline import DEFAULT_BUNDLE, Pipeline
from rmr_sdk.preprocess import Align, NonFinite
from rmr_sdk.watch import ProgressCallback


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """How every study of a cohort is run: the options of `Pipeline.open`, `Pipeline.run` and `Result.save`."""

    bundle: str | os.PathLike[str] = DEFAULT_BUNDLE
    engine: str = "auto"
    device: str = "auto"
    precision: str = "auto"
    threads: int | None = None
    cache_dir: str | os.PathLike[str] | None = None
    max_memory_mib: float | None = None
    least_lesion_probability: float | None = None
    least_white_matter: float | None = None
    lesion_threshold: float | None = None
    least_lesion_mm3: float | None = None
    overlap: float = 0.25
    reference: str | None = None
    align: Align = "auto"
    non_finite: NonFinite = "error"
    dicom: bool | None = None
    overwrite: bool = False

    def open(self) -> Pipeline:
        """Open the pipeline.

        Raises:
            RmrError: As `Pipeline.open`.
        """
        return Pipeline.open(
            self.bundle,
            engine=self.engine,
            device=self.device,
            precision=self.precision,
            threads=self.threads,
            cache_dir=self.cache_dir,
            max_memory_mib=self.max_memory_mib,
            least_lesion_probability=self.least_lesion_probability,
            least_white_matter=self.least_white_matter,
            lesion_threshold=self.lesion_threshold,
            least_lesion_mm3=self.least_lesion_mm3,
        )


class Worker:
    """Runs single studies on its pipeline and writes their files and records."""

    def __init__(self, settings: Settings, out: Path, pipeline: Pipeline) -> None:
        self._settings, self._out, self._pipeline = settings, out, pipeline

    def run(self, study: CohortStudy, progress: ProgressCallback | None = None) -> StudyRow:
        """Run a study; what is wrong with it becomes a row and not an error.

        Raises:
            Cancelled: `progress` returned False.
            OutputError: The record cannot be written.
        """
        started = time.perf_counter()
        mark = fingerprint(study, self._settings, self._pipeline.bundle.hash)
        ours = read_record(self._out, study.name) is not None
        write_record(self._out, study.name, Record(fingerprint=mark))
        files: tuple[Path, ...] = ()
        try:
            row, files = self._run(study, ours or self._settings.overwrite, progress, started)
        except Cancelled:
            raise
        except (RmrError, MemoryError) as error:
            seconds = round(time.perf_counter() - started, 2)
            row = StudyRow(study=study.name, status="failed", seconds=seconds, error=_describe(error, study, self._out))
        names = tuple(file.relative_to(self._out).as_posix() for file in files)
        write_record(self._out, study.name, Record(fingerprint=mark, row=row, files=names))
        return row

    def _run(
        self, study: CohortStudy, overwrite: bool, progress: ProgressCallback | None, started: float
    ) -> tuple[StudyRow, tuple[Path, ...]]:
        from rmr_sdk.io.bids import save_derivatives

        settings = self._settings
        result = self._pipeline.run(
            study.load(),
            overlap=settings.overlap,
            reference=settings.reference,
            align=settings.align,
            non_finite=settings.non_finite,
            progress=progress,
        )
        if study.entities:
            files = save_derivatives(result, self._out, study.entities, overwrite)
        else:
            files = result.save(self._out / study.name, overwrite, settings.dicom)
        page = next(file for file in files if file.name.endswith("report.html"))
        seconds = time.perf_counter() - started
        return make_row(study.name, result, seconds, page.relative_to(self._out).as_posix()), files


def fingerprint(study: CohortStudy, settings: Settings, bundle_hash: str) -> str:
    """Return a digest of all that the results of a study depend on: input files by size and time, settings, bundle."""
    seen: list[Any] = [__version__, bundle_hash, settings.engine, settings.device, settings.precision]
    seen += [settings.overlap, settings.reference, settings.align, settings.non_finite, settings.dicom]
    seen += [settings.least_lesion_probability, settings.least_white_matter, settings.lesion_threshold]
    seen += [settings.least_lesion_mm3]
    seen += [_state(path) for path in study.inputs()]
    return hashlib.sha256(repr(seen).encode("utf-8", "surrogateescape")).hexdigest()


def _state(path: Path) -> tuple[str, int | None, int | None]:
    """Return what tells whether a file has changed; no size and no time where it is not there."""
    name = os.path.abspath(path)
    try:
        status = path.stat()
    except OSError:
        return name, None, None
    return name, status.st_size, status.st_mtime_ns


def _describe(error: RmrError | MemoryError, study: CohortStudy, out: Path) -> str:
    """Return an error in one line without the paths of the study and of the results."""
    if isinstance(error, MemoryError):
        return "DeviceMemoryError: the study does not fit in memory."
    hidden: Mapping[str, str] = {
        **{os.fspath(path): f"the {contrast} file" for contrast, path in (study.files or {}).items()},
        os.fspath(study.folder or "\0"): "the folder of the study",
        os.fspath(out): "the output folder",
    }
    text = f"{type(error).__name__}: {error}"
    for path, name in sorted(hidden.items(), key=lambda item: -len(item[0])):
        text = text.replace(path, name)
    return " ".join(text.split())
