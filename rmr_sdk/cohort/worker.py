"""One study of a cohort: run it, write its files, and note what a later run needs to know about it."""

from __future__ import annotations

import hashlib
import logging
import os
import re
import time
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path, PurePosixPath
from typing import Any

from rmr_sdk._version import __version__
from rmr_sdk.cohort.find import CohortStudy, printable
from rmr_sdk.cohort.summary import Record, StudyRow, make_row, read_record, write_record
from rmr_sdk.errors import Cancelled, OutputError, RmrError
from rmr_sdk.pipeline import DEFAULT_BUNDLE, Pipeline
from rmr_sdk.preprocess import Align, NonFinite
from rmr_sdk.result import check_save
from rmr_sdk.watch import ProgressCallback

logger = logging.getLogger(__name__)


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
        self._settings, self._out, self._pipeline = settings, out.absolute(), pipeline

    def run(self, study: CohortStudy, progress: ProgressCallback | None = None) -> StudyRow:
        """Run a study; what is wrong with it becomes a row and not an error.

        Raises:
            Cancelled: `progress` returned False.
            OutputError: The record cannot be written.
        """
        started = time.perf_counter()
        study = located(study)
        mark = fingerprint(study, self._settings, self._pipeline.bundle.hash)
        earlier = read_record(self._out, study.name)
        ours = earlier is not None and (earlier.ours or bool(earlier.files))
        lying = earlier.files if earlier is not None else ()
        refusal = None if ours else self._refusal(study)
        write_record(self._out, study.name, Record(fingerprint=mark, files=lying, ours=refusal is None))
        try:
            if refusal is not None and not self._settings.overwrite:
                raise refusal
            row, files = self._run(study, ours or self._settings.overwrite, progress, started)
            names = tuple(file.relative_to(self._out).as_posix() for file in files)
            self._remove(set(lying).difference(names))
            lying, ours = names, True
        except Cancelled:
            raise
        except (RmrError, MemoryError) as error:
            seconds = round(time.perf_counter() - started, 2)
            row = StudyRow(study=study.name, status="failed", seconds=seconds, error=_describe(error, study, self._out))
        write_record(self._out, study.name, Record(fingerprint=mark, row=row, files=lying, ours=ours))
        return row

    def _remove(self, names: Iterable[str]) -> None:
        """Remove files of the last run that this one did not replace: volumes on the grid of another reference."""
        for name in names:
            if ".." in PurePosixPath(name).parts or PurePosixPath(name).is_absolute():
                continue
            try:
                (self._out / name).unlink(missing_ok=True)
            except OSError as error:
                logger.warning("%s of an earlier run cannot be removed: %s", name, error.strerror)

    def _refusal(self, study: CohortStudy) -> OutputError | None:
        """Return what speaks against the place of the results when no record calls it its own."""
        from rmr_sdk.io.bids import check_derivatives

        try:
            if study.entities:
                reference = self._settings.reference or self._pipeline.bundle.manifest.reference
                check_derivatives(self._out, study.entities, reference)
            else:
                check_save(self._out / study.name)
        except OutputError as error:
            return error
        return None

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


def located(study: CohortStudy) -> CohortStudy:
    """Return a study of absolute paths: they hold in any working folder, and no word of a message is one."""
    return replace(
        study,
        folder=None if study.folder is None else study.folder.absolute(),
        files=None if study.files is None else {name: path.absolute() for name, path in study.files.items()},
    )


def _describe(error: RmrError | MemoryError, study: CohortStudy, out: Path) -> str:
    """Return an error in one line without the paths of the study and of the results."""
    if isinstance(error, MemoryError):
        return "DeviceMemoryError: the study does not fit in memory."
    hidden: Mapping[Path, str] = {
        **{path: f"the {contrast} file" for contrast, path in (study.files or {}).items()},
        study.folder or Path(): "the folder of the study",
        out: "the output folder",
    }
    text = _hide(f"{type(error).__name__}: {error}", {os.fspath(path): hidden[path] for path in hidden if path.name})
    return " ".join(printable(text).split())


def _hide(text: str, hidden: Mapping[str, str]) -> str:
    """Put names in the place of paths, the longest first; a path that is only a part of a name stays."""
    paths = "|".join(re.escape(path) for path in sorted(hidden, key=len, reverse=True))
    if not paths:
        return text
    return re.sub(rf"(?<![\w./\\-])(?:{paths})(?![\w-]|\.\w)", lambda match: hidden[match.group()], text)
