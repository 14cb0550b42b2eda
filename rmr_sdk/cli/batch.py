"""`rmr batch`: all studies of a BIDS data set, a table or a folder, with one line for each and one summary of all."""

from __future__ import annotations

import argparse
from pathlib import Path

from rmr_sdk.cli.run import add_pipeline_options
from rmr_sdk.cli.terminal import progress_bar, say
from rmr_sdk.cohort.find import find_studies
from rmr_sdk.cohort.on_ray import LOCAL, RayExecutor
from rmr_sdk.cohort.run import CohortProgress, output_root, run_cohort
from rmr_sdk.cohort.summary import SUMMARY_FILES, StudyRow, Summary
from rmr_sdk.cohort.worker import Settings
from rmr_sdk.errors import InputError
from rmr_sdk.manifest import INTENDED_USE
from rmr_sdk.result import format_ml
from rmr_sdk.watch import ProgressCallback

SOME_FAILED = InputError.exit_code
"""Exit code where studies failed and the others are done: what a study is given is the usual reason."""


def add_parser(
    commands: argparse._SubParsersAction[argparse.ArgumentParser], everywhere: argparse.ArgumentParser
) -> None:
    """Add the command to the grammar."""
    about = "Run every study of a cohort that is not finished; write one summary of all."
    parser = commands.add_parser("batch", help=about, description=about, parents=[everywhere], allow_abbrev=False)
    parser.add_argument(
        "cohort",
        type=Path,
        metavar="INPUT",
        help="BIDS data set; .csv with study,t1,flair or study,folder; or folder with one folder or .zip per study",
    )
    parser.add_argument("--out", type=Path, required=True, metavar="DIR", help="where the results go")
    parser.add_argument("--overwrite", action="store_true", help="run finished studies again, and replace other files")
    parser.add_argument("--no-dicom", action="store_true", help="write no DICOM objects for DICOM studies")
    parser.add_argument(
        "--ray",
        nargs="?",
        const=LOCAL,
        metavar="ADDRESS",
        help="on a Ray cluster: auto, ray://HOST:PORT, or without an address one on this machine",
    )
    add_pipeline_options(parser)
    parser.add_argument("--json", action="store_true", help="print summary.json instead of a line per study")
    parser.set_defaults(command=_batch)


def _batch(options: argparse.Namespace) -> int:
    cohort = find_studies(options.cohort, leave_out=options.out)
    executor = None if options.ray is None else RayExecutor(options.ray)
    with progress_bar() as show:
        tell = _Teller(show, quiet=options.json)
        summary = run_cohort(cohort, options.out, _settings(options), progress=tell, executor=executor)
    out = output_root(cohort, options.out)
    if options.json:
        say((out / SUMMARY_FILES[1]).read_text(encoding="utf-8").rstrip("\n"))
    else:
        say(f"{_describe(summary)}\nWritten:  {out}: {', '.join(SUMMARY_FILES)}\n{INTENDED_USE}")
    return SOME_FAILED if summary.failed else 0


def _settings(options: argparse.Namespace) -> Settings:
    return Settings(
        bundle=options.bundle,
        engine=options.engine,
        device=options.device,
        precision=options.precision,
        threads=options.threads,
        cache_dir=options.cache_dir,
        max_memory_mib=options.max_memory_mib,
        least_lesion_probability=options.least_lesion_probability,
        least_white_matter=options.least_white_matter,
        lesion_threshold=options.lesion_threshold,
        least_lesion_mm3=options.least_lesion_mm3,
        overlap=options.overlap,
        reference=options.reference,
        align=options.align,
        non_finite=options.non_finite,
        dicom=False if options.no_dicom else None,
        overwrite=options.overwrite,
    )


class _Teller:
    """Shows progress within a study, and prints one line when it is finished."""

    def __init__(self, show: ProgressCallback, quiet: bool) -> None:
        self._show, self._quiet = show, quiet

    def __call__(self, progress: CohortProgress) -> None:
        if progress.within is not None:
            self._show(progress.within)
        if progress.row is not None and not self._quiet:
            say(f"[{progress.done}/{progress.total}] {_line(progress.row)}")


def _line(row: StudyRow) -> str:
    if row.status == "failed":
        return f"{row.study}: failed: {row.error}"
    parts = ["fused"] if row.lesions is None else [_count(row.lesions, "lesion"), format_ml(row.lesion_ml or 0.0)]
    parts += [_count(len(row.warnings), "warning")] if row.warnings else []
    return f"{row.study}: {', '.join(parts)} ({'done before' if row.resumed else f'{row.seconds:.1f} s'})"


def _count(number: int, noun: str) -> str:
    return f"{number} {noun}{'' if number == 1 else 's'}"


def _describe(summary: Summary) -> str:
    earlier = sum(row.resumed for row in summary.studies)
    before = f" ({earlier} of them before)" if earlier else ""
    return f"Studies:  {summary.total}: {summary.done} done{before}, {summary.failed} failed"
