"""`rmr run`: a study in, its files and a few lines out. The options and steps of a run serve `rmr demo` too."""

from __future__ import annotations

import argparse
import dataclasses
from collections import Counter
from collections.abc import Callable
from pathlib import Path

from rmr_sdk.cli.terminal import progress_bar, say
from rmr_sdk.engines import DEVICES, ENGINES
from rmr_sdk.engines.base import PRECISIONS
from rmr_sdk.io.nifti import read_volume
from rmr_sdk.pipeline import DEFAULT_BUNDLE, Pipeline
from rmr_sdk.result import Result, check_save
from rmr_sdk.study import Study
from rmr_sdk.watch import Progress


def add_parser(
    commands: argparse._SubParsersAction[argparse.ArgumentParser], everywhere: argparse.ArgumentParser
) -> None:
    """Add the command to the grammar."""
    about = "Fuse and segment one study; write volumes, a report and a preview."
    parser = commands.add_parser("run", help=about, description=about, parents=[everywhere], allow_abbrev=False)
    parser.add_argument(
        "study",
        nargs="?",
        type=Path,
        metavar="STUDY_DIR",
        help="folder with one T1 and one FLAIR, such as t1.nii.gz; or folder or .zip of one DICOM study",
    )
    parser.add_argument("--t1", type=Path, metavar="FILE", help="T1-weighted volume (.nii, .nii.gz)")
    parser.add_argument("--flair", type=Path, metavar="FILE", help="FLAIR volume (.nii, .nii.gz)")
    parser.add_argument("--t1-series", metavar="SERIES", help="DICOM: number, key or UID of the T1 (`rmr study show`)")
    parser.add_argument("--flair-series", metavar="SERIES", help="DICOM: number, key or UID of the FLAIR")
    parser.add_argument("--no-dicom", action="store_true", help="write no DICOM objects for a DICOM study")
    parser.add_argument("--out", type=Path, required=True, metavar="DIR", help="where the files go; made when missing")
    parser.add_argument("--overwrite", action="store_true", help="replace the files of an earlier run in --out")
    add_run_options(parser)
    parser.set_defaults(command=_run, refuse=parser.error)


def add_run_options(parser: argparse.ArgumentParser) -> None:
    """Add the options that say how one study is run and what is printed."""
    add_pipeline_options(parser)
    parser.add_argument("--brain-mask", type=Path, metavar="FILE", help="NIfTI that is not 0 where the brain is")
    parser.add_argument("--json", action="store_true", help="print report.json instead of a summary")


def add_pipeline_options(parser: argparse.ArgumentParser) -> None:
    """Add the options that say how any study is run.

    Their values are checked where they are used, not here, so that a wrong one is an input error and not a command
    line that cannot be parsed.
    """
    parser.add_argument(
        "--bundle", default=DEFAULT_BUNDLE, metavar="NAME", help="shipped name, folder or .zip (default %(default)s)"
    )
    parser.add_argument("--engine", default="auto", help=f"auto, {', '.join(ENGINES)} (default %(default)s)")
    parser.add_argument("--device", default="auto", help=f"auto, {', '.join(DEVICES)} (default %(default)s)")
    parser.add_argument("--precision", default="auto", help=f"auto, {', '.join(PRECISIONS)} (default %(default)s)")
    parser.add_argument("--threads", type=int, metavar="N", help="threads to compute with (default: all cores)")
    parser.add_argument(
        "--max-memory-mib", type=float, metavar="MIB", help="most memory for outputs, tiles and blending"
    )
    parser.add_argument(
        "--least-lesion-probability",
        type=float,
        metavar="P",
        help="mean probability from which on a lesion is kept; 0 keeps all (default: the bundle's)",
    )
    parser.add_argument(
        "--least-white-matter",
        type=float,
        metavar="SHARE",
        help="share of white matter around a lesion from which on it is kept; 0 keeps all (default: the bundle's)",
    )
    parser.add_argument(
        "--lesion-threshold",
        type=float,
        metavar="P",
        help="probability from which on a voxel of a lesion is kept; 0 keeps all (default: the bundle's, by the load)",
    )
    parser.add_argument(
        "--least-lesion-mm3",
        type=float,
        metavar="MM3",
        help="volume of what these leave of a lesion from which on it is kept; 0 keeps all (default: the bundle's)",
    )
    parser.add_argument("--cache-dir", type=Path, metavar="DIR", help="where compiled networks are kept")
    parser.add_argument(
        "--overlap", type=float, default=0.25, metavar="X", help="of neighbouring tiles, 0 to 0.9 (default %(default)s)"
    )
    parser.add_argument("--reference", metavar="CONTRAST", help="contrast whose grid results come back on")
    parser.add_argument("--align", default="auto", help="auto, header, rigid, none: how contrasts come together")
    parser.add_argument("--non-finite", default="error", help="NaN and infinite voxels: error, or zero for background")


def run_study(
    load: Callable[[], Study],
    options: argparse.Namespace,
    *,
    overwrite: bool,
    notice: str = "",
    dicom: bool | None = None,
) -> Result:
    """Run a study from reading it to writing its files, and print what came out.

    Args:
        load: Reads the study.
        options: Those of `add_run_options`, and `out`.
        overwrite: Whether files of an earlier run may be replaced.
        notice: A sentence that every output must carry.
        dicom: Whether DICOM objects are written; None where the study is DICOM.

    Raises:
        RmrError: As `Study`, `Pipeline` and `Result.save`; the output folder is checked before anything is computed.
    """
    check_save(options.out, overwrite)
    with progress_bar() as report:
        report(Progress("read", 0, 1))
        study = load()
        brain_mask = None if options.brain_mask is None else read_volume(options.brain_mask)[0]
        check_save(options.out, overwrite, dicom, study.source)
        report(Progress("open", 0, 1))
        with Pipeline.open(
            options.bundle,
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
        ) as pipeline:
            result = pipeline.run(
                study,
                overlap=options.overlap,
                reference=options.reference,
                align=options.align,
                non_finite=options.non_finite,
                brain_mask=brain_mask,
                progress=report,
            )
        result = dataclasses.replace(result, notice=notice)
        report(Progress("save", 0, 1))
        files = result.save(options.out, overwrite, dicom)
    if options.json:
        say((options.out / "report.json").read_text(encoding="utf-8").rstrip("\n"))
    else:
        say(f"{result}\nWritten:  {options.out}: {_name_files(files, options.out)}")
    return result


def _name_files(files: tuple[Path, ...], folder: Path) -> str:
    """Name files, and folders with how many files they hold."""
    paths = [file.relative_to(folder) for file in files]
    inside = Counter(path.parts[0] for path in paths if len(path.parts) > 1)
    names = [str(path) for path in paths if len(path.parts) == 1]
    return ", ".join([*names, *(f"{name}/ ({count} files)" for name, count in inside.items())])


def _run(options: argparse.Namespace) -> int:
    files = {name: file for name, file in (("T1w", options.t1), ("FLAIR", options.flair)) if file is not None}
    if (options.study is None) == (not files):
        options.refuse("pass either STUDY_DIR, or --t1 FILE and --flair FILE")
    series = {"t1_series": options.t1_series, "flair_series": options.flair_series}
    if files and any(series.values()):
        options.refuse("--t1-series and --flair-series are for a DICOM STUDY_DIR")

    def load() -> Study:
        if files:
            return Study.from_files(**files)
        return Study.from_dicom(options.study, **series) if any(series.values()) else Study.from_folder(options.study)

    run_study(load, options, overwrite=options.overwrite, dicom=False if options.no_dicom else None)
    return 0
