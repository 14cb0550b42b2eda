"""The accuracy gate: every precision against fp32, on studies that it was not calibrated on.

    study ─> tiles ─> fp32 ──────> blend ─> labels, fused ─┐
                 └──> precision ─> blend ─> labels, fused ─┴─> Comparison ─> Accuracy entries of the manifest

Each tile is cut once and computed in every precision. Where a study has a lesion mask, the Dice coefficient of each
precision with it is compared with that of fp32; a mask is looked at for nothing else.
"""

from __future__ import annotations

import logging
from collections.abc import Collection, Mapping, Sequence

import onnx

from rmr_export.parity import Run
from rmr_sdk.cohort.find import CohortStudy
from rmr_sdk.errors import ConfigError, DeviceUnavailableError
from rmr_sdk.manifest import Accuracy, Limit, Manifest

from .lanes import Measured, measure_study
from .runners import EMULATED, open_runner
from .tiles import PreparedStudy, load

logger = logging.getLogger(__name__)

TOLERANCE = (
    Limit(metric="label_agreement", minimum=0.995),
    Limit(metric="lesion_dice_difference", minimum=-0.005),
    Limit(metric="fused_psnr_db", minimum=40.0),
)
"""What a precision must keep where the card of a bundle asks for nothing else."""

DIGITS = 5


def measure(
    graphs: Mapping[str, onnx.ModelProto],
    manifest: Manifest,
    precisions: Sequence[str],
    entries: Sequence[CohortStudy],
    calibrated_on: Collection[str] = (),
    tiles: int | None = None,
    threads: int | None = None,
) -> list[Measured]:
    """Compare precisions with fp32.

    Args:
        graphs: Precision -> graph, with that of fp32.
        manifest: Of the bundle.
        precisions: What to compare; bf16 is left out, and said so, where the processor does not compute in it.
        entries: Studies.
        calibrated_on: Fingerprints of the studies that int8 was calibrated on.
        tiles: Compute only so many tiles of each study; None for whole studies.
        threads: Threads to compute with; None for all cores.

    Raises:
        ConfigError: No study is given, or one was calibrated on.
        InputError: A study cannot be read; it is named.
        PrecisionError: A precision gives values that are not finite.
    """
    if not entries:
        raise ConfigError("no study is given to check the accuracy on.", "Name studies with --check.")
    runners = _open(graphs, precisions, threads)
    found = []
    for entry in entries:
        study = load(entry, manifest)
        refuse_calibrated(study, calibrated_on)
        found += measure_study(study, manifest, runners, tiles)
    return found


def refuse_calibrated(study: PreparedStudy, calibrated_on: Collection[str]) -> None:
    """Refuse to report on a study that was calibrated on.

    Raises:
        ConfigError: It was, under this name or another.
    """
    if study.fingerprint in calibrated_on:
        raise ConfigError(
            f'study "{study.name}" was calibrated on: it cannot be checked on too.',
            "Name other studies with --check, or leave it out of --calibration.",
            study=study.name,
        )


def accuracy_entries(found: Sequence[Measured]) -> tuple[Accuracy, ...]:
    """Return the figures as a manifest states them: one entry for each precision, study and figure."""
    return tuple(
        Accuracy(
            precision=each.precision,  # type: ignore[arg-type]  # one of the precisions of the manifest
            study_set=each.study,
            studies=1,
            metric=metric,
            value=round(value, DIGITS),
            note=_note(each, metric),
        )
        for each in found
        for metric, value in each.figures.items()
    )


def _note(each: Measured, metric: str) -> str:
    extent = "whole study" if each.whole else f"{each.tiles} tiles"
    how = "every float16 tensor rounded" if each.precision in EMULATED else "on OpenVINO"
    against = (
        "minus that of fp32, against the study's lesion mask" if metric == "lesion_dice_difference" else "against fp32"
    )
    return f"{against}; {extent}, {how}"


def _open(graphs: Mapping[str, onnx.ModelProto], precisions: Sequence[str], threads: int | None) -> dict[str, Run]:
    runners = {"fp32": open_runner(graphs, "fp32", threads)}
    for precision in precisions:
        run = open_if_able(graphs, precision, threads)
        if run is not None:
            runners[precision] = run
    return runners


def open_if_able(graphs: Mapping[str, onnx.ModelProto], precision: str, threads: int | None) -> Run | None:
    """Open a runner, or say in the log that this processor does not compute in the precision."""
    try:
        return open_runner(graphs, precision, threads)
    except DeviceUnavailableError as error:
        logger.warning("%s is not measured: %s", precision, error.problem)
        return None
