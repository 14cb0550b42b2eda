"""Running a cohort: each study as `Pipeline.run` would, one pipeline for all; what fails is noted and left behind.

studies -> finished before? -> Worker.run -> files, record -> summary, after every study
                 |  yes                                          ^
                 +-----------------------------------------------+
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TypeAlias

import msgspec

from rmr_sdk.bundle import Bundle
from rmr_sdk.cohort.find import Cohort, CohortStudy
from rmr_sdk.cohort.summary import RECORDS, SUMMARY_FILES, StudyRow, Summary, read_record, write_summary
from rmr_sdk.cohort.worker import Settings, Worker, fingerprint
from rmr_sdk.errors import Cancelled, ConfigError
from rmr_sdk.io.files import atomic_file, check_outputs, make_folder
from rmr_sdk.watch import Progress

DERIVATIVES = Path("derivatives") / "rmr-sdk"
"""Where the results of a BIDS data set go when they are sent to the data set itself."""


@dataclass(frozen=True, slots=True, kw_only=True)
class CohortProgress:
    """How far a cohort has come.

    Attributes:
        study: The study it is about.
        done: Studies that are finished, failed ones included.
        total: Studies in all.
        within: How far the study has come, where that is known.
        row: What came out of the study, once it is finished.
    """

    study: str
    done: int
    total: int
    within: Progress | None = None
    row: StudyRow | None = None


Report: TypeAlias = Callable[[CohortProgress], object]
Executor: TypeAlias = Callable[
    [Settings, Path, Sequence[CohortStudy], Callable[[CohortStudy, Progress], object]], Iterator[StudyRow]
]


def run_cohort(
    cohort: Cohort,
    out: str | os.PathLike[str],
    settings: Settings | None = None,
    *,
    progress: Report | None = None,
    executor: Executor | None = None,
) -> Summary:
    """Run every study of a cohort that is not finished, and sum up all of them.

    A study is finished when an earlier run wrote its files, and its input files (by size and time), the settings and
    the bundle are still the same. The summary is replaced after every study, so that an interrupt loses one study.

    Args:
        cohort: From `find_studies`.
        out: Where results go: BIDS derivatives for a BIDS data set, otherwise one folder per study.
        settings: How each study is run; None for the defaults.
        progress: Called as studies go on and finish; when it returns False, and only then, the run stops.
        executor: Runs the studies; by default one after the other in this process.

    Returns:
        What came out; a failed study is a row with its error.

    Raises:
        RmrError: As `Settings.open`: no study has been run.
        ConfigError: Results would go among the studies.
        OutputError: The output folder, the summary or a record cannot be written, or a file of another origin is in
            the place of the summary.
        Cancelled: `progress` returned False.
    """
    settings, root = settings or Settings(), output_root(cohort, out)
    check_outputs(root, (), overwrite=True)
    bundle = Bundle.open(settings.bundle)
    prepare_output(root, cohort, bundle.manifest.classes, settings.overwrite)
    board = Board(cohort, root, bundle, progress)
    todo = [study for study in cohort.studies if not board.resume(study, settings)]
    if todo:
        for row in (executor or run_in_turn)(settings, root, todo, board.step):
            board.finish(row)
    return board.summary()


def run_in_turn(
    settings: Settings, out: Path, studies: Sequence[CohortStudy], step: Callable[[CohortStudy, Progress], object]
) -> Iterator[StudyRow]:
    """Run studies one after the other in this process, on one pipeline.

    Raises:
        RmrError: As `Settings.open`, and as `Worker.run`.
    """
    with settings.open() as pipeline:
        worker = Worker(settings, out, pipeline)
        for study in studies:
            yield worker.run(study, partial(step, study))


class Board:
    """What is known about the studies of a run so far; tells who wants to know, and keeps the summary on the disk."""

    def __init__(self, cohort: Cohort, out: Path, bundle: Bundle, progress: Report | None) -> None:
        self._cohort, self._out, self._bundle, self._progress = cohort, out, bundle, progress
        self._rows: dict[str, StudyRow] = {}

    def resume(self, study: CohortStudy, settings: Settings) -> bool:
        """Take over a study that an earlier run has finished; tell whether there was one."""
        record = None if settings.overwrite else read_record(self._out, study.name)
        if record is None or record.row is None or record.row.status != "done":
            return False
        if record.fingerprint != fingerprint(study, settings, self._bundle.hash):
            return False
        if not all((self._out / name).is_file() for name in record.files):
            return False
        self.finish(msgspec.structs.replace(record.row, resumed=True))
        return True

    def step(self, study: CohortStudy, within: Progress) -> object:
        """Pass on how far a study has come; the answer is False to stop."""
        return self._tell(CohortProgress(study=study.name, done=len(self._rows), total=self._total, within=within))

    def finish(self, row: StudyRow) -> None:
        """Note what came out of a study.

        Raises:
            Cancelled: The callback returned False.
            OutputError: The summary cannot be written.
        """
        self._rows[row.study] = row
        write_summary(self._out, self.summary())
        if self._tell(CohortProgress(study=row.study, done=len(self._rows), total=self._total, row=row)) is False:
            raise Cancelled(f"the cohort was cancelled ({len(self._rows)} of {self._total} studies).")

    def summary(self) -> Summary:
        """Sum up what is known."""
        rows = tuple(self._rows[study.name] for study in self._cohort.studies if study.name in self._rows)
        return Summary(
            bundle=self._bundle.manifest.name,
            bundle_version=self._bundle.manifest.version,
            bundle_hash=self._bundle.hash,
            total=self._total,
            done=sum(row.status == "done" for row in rows),
            failed=sum(row.status == "failed" for row in rows),
            studies=rows,
        )

    @property
    def _total(self) -> int:
        return len(self._cohort.studies)

    def _tell(self, progress: CohortProgress) -> object:
        return None if self._progress is None else self._progress(progress)


def output_root(cohort: Cohort, out: str | os.PathLike[str]) -> Path:
    """Return where results go: for a BIDS data set sent to itself, its derivatives.

    Raises:
        ConfigError: It is the folder of the studies, or results would go into the folder of a study or around it.
    """
    root = Path(out)
    itself = root.resolve() == cohort.root.resolve()
    if cohort.kind == "bids":
        return root / DERIVATIVES if itself else root
    if _meets_studies(cohort, root) if cohort.kind == "csv" else itself:
        raise ConfigError("results would go among the studies.", "Give another output folder.", option="out")
    return root


def _meets_studies(cohort: Cohort, root: Path) -> bool:
    """Tell whether the folder of a result is, lies in, or holds the folder of any study, or holds a file of one."""
    folders = {study.folder.resolve() for study in cohort.studies if study.folder is not None}
    files = {path.resolve() for study in cohort.studies for path in (study.files or {}).values()}
    around = {parent for path in folders | files for parent in path.parents}
    places = [(root / study.name).resolve() for study in cohort.studies]
    return any(place in around or not folders.isdisjoint((place, *place.parents)) for place in places)


def prepare_output(root: Path, cohort: Cohort, classes: Sequence[str] | None, overwrite: bool) -> None:
    """Make the folders and, for BIDS, describe the data set of derivatives.

    Raises:
        OutputError: They cannot be written, or without `overwrite` and without the records of an earlier run, a file
            is in the place of the summary or of the description.
    """
    from rmr_sdk.io.bids import dataset_files

    files = dataset_files(classes) if cohort.kind == "bids" else {}
    check_outputs(root, (*files, *SUMMARY_FILES), overwrite or (root / RECORDS).is_dir())
    make_folder(root / RECORDS)
    for name, content in files.items():
        with atomic_file(root / name) as file:
            file.write(content)
