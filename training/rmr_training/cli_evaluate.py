"""The sub-command `rmr-train evaluate`."""

from __future__ import annotations

import argparse
import sys
from itertools import chain
from pathlib import Path

import torch
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from rmr_sdk.engines.cores import usable_cores

from .evaluate.assessment import CONTRASTS, Evaluation, Plan, assess
from .evaluate.baselines import BASELINES
from .evaluate.conditions import CLEAN, CONDITIONS
from .evaluate.report import check_report, to_document, to_json, to_text, write_report
from .evaluate.subjects import OVERLAP, Subject, open_subject

FIGURES = ("segmentation", "fusion")

ABOUT = "assess a bundle or a checkpoint: segmentation against ground truth, fusion beside baselines"


def add_evaluate(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add the sub-command; `options.command(options)` runs it."""
    parser = commands.add_parser("evaluate", help=ABOUT, description=ABOUT)
    parser.add_argument("model", help="checkpoint (.pth) of the joint stage, or the name or path of a bundle")
    parser.add_argument("studies", type=Path, nargs="+", help="folders with T1 and FLAIR, and ground truth if there is")
    parser.add_argument("--out", type=Path, help="folder for evaluation.json, the tables and the figure")
    parser.add_argument("--overwrite", action="store_true", help="replace an earlier evaluation in --out")
    parser.add_argument("--json", action="store_true", help="print the whole evaluation as JSON")
    parser.add_argument(
        "--conditions",
        nargs="+",
        default=[CLEAN],
        metavar="NAME",
        help=f"what to do to the studies: {', '.join((CLEAN, *CONDITIONS))}, or all (default: clean)",
    )
    parser.add_argument("--strengths", type=int, nargs="+", default=[1, 2, 3], metavar="N", help="1 mild to 3 strong")
    parser.add_argument("--only", action="append", metavar="CONTRAST", help=f"damage only {' or '.join(CONTRASTS)}")
    parser.add_argument(
        "--baselines", nargs="*", default=list(BASELINES), metavar="NAME", help=f"out of {', '.join(BASELINES)}"
    )
    parser.add_argument(
        "--figures", nargs="+", choices=FIGURES, help="what to assess; without it, all that the studies allow"
    )
    parser.add_argument("--seed", type=int, default=0, help="of all random damage (default %(default)s)")
    parser.add_argument("--overlap", type=float, default=OVERLAP, help="of neighbouring tiles (default %(default)s)")
    parser.add_argument("--precision", default="auto", help="of a bundle (default %(default)s)")
    parser.add_argument("--threads", type=int, default=None, help="of the engine and the figures (default: all cores)")
    parser.set_defaults(command=_evaluate)


def _evaluate(options: argparse.Namespace) -> None:
    plan = _plan(options)
    if options.threads:
        torch.set_num_threads(options.threads)
    if options.out is not None:
        check_report(options.out, options.overwrite)
    subject = open_subject(options.model, precision=options.precision, overlap=options.overlap, threads=options.threads)
    try:
        evaluation = _assess(subject, options.studies, plan)
    finally:
        subject.close()
    if options.out is not None:
        write_report(evaluation, options.out, options.overwrite)
    print(to_json(to_document(evaluation)) if options.json else to_text(evaluation))


def _plan(options: argparse.Namespace) -> Plan:
    every = (CLEAN, *CONDITIONS)
    asked = [every if name == "all" else (name,) for name in options.conditions]
    wanted = options.figures or ("fusion",)
    return Plan(
        conditions=tuple(chain.from_iterable(asked)),
        strengths=tuple(options.strengths),
        damaged=tuple(options.only or ()),
        baselines=tuple(options.baselines),
        segmentation=None if options.figures is None else "segmentation" in wanted,
        fusion="fusion" in wanted,
        seed=options.seed,
        threads=options.threads or usable_cores(),
    )


def _assess(subject: Subject, studies: list[Path], plan: Plan) -> Evaluation:
    """Evaluate with a progress bar where stderr is a terminal."""
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    console = Console(stderr=True)
    with Progress(*columns, console=console, transient=True, disable=not sys.stderr.isatty()) as progress:
        task = progress.add_task("")
        return assess(
            subject,
            studies,
            plan,
            lambda study, done, total: progress.update(task, description=study, completed=done, total=total),
        )
