"""What stands for accuracy beside latency: figures of the manifest where they can be compared, else agreement here."""

from __future__ import annotations

from collections.abc import Sequence

from rmr_sdk.bench.results import AccuracyFigure, BenchResult

# Metrics of which more is better, the most telling first, and what fp32 has by definition where others are told
# against it.
_METRICS: dict[str, float | None] = {"lesion_dice": None, "lesion_dice_difference": 0.0, "label_agreement": 1.0}

Values = list[tuple[str, float]]
"""Label of a configuration, and its accuracy."""


def accuracy_values(result: BenchResult) -> tuple[Values, str] | None:
    """Choose what stands for accuracy.

    Returns:
        The value of each configuration that has one, and what it means: a metric of the manifest where two of the
        measured precisions have it on the same studies, otherwise how far the labels agree with those of the first
        configuration; None where there is nothing to compare.
    """
    for metric, of_fp32 in _METRICS.items():
        figures = [figure for figure in result.accuracy if figure.metric == metric]
        means = _means(figures, {each.precision for each in result.configurations})
        if means and of_fp32 is not None:
            means[0].setdefault("fp32", of_fp32)
        measured = {each.precision for each in result.configurations}
        if means and len(measured & means[0].keys()) > 1:
            values = [
                (each.label, means[0][each.precision]) for each in result.configurations if each.precision in means[0]
            ]
            return values, f"{metric.replace('_', ' ')} by the manifest, n = {means[1]}"
    return _agreement(result)


def _means(figures: Sequence[AccuracyFigure], precisions: set[str]) -> tuple[dict[str, float], int] | None:
    """Average each precision over the sets of studies that all of them have; return how many studies that is."""
    known = {
        precision: {figure.study_set: figure for figure in figures if figure.precision == precision}
        for precision in precisions & {figure.precision for figure in figures}
    }
    shared = set.intersection(*map(set, known.values())) if known else set()
    if not shared:
        return None
    studies = sum(next(iter(known.values()))[name].studies for name in shared)
    means = {
        precision: round(sum(sets[name].value * sets[name].studies for name in shared) / studies, 6)
        for precision, sets in known.items()
    }
    return means, studies


def _agreement(result: BenchResult) -> tuple[Values, str] | None:
    first, *others = result.configurations
    values = [(first.label, 1.0)]
    for each in others:
        if each.agreement is None or each.agreement.labels is None:
            return None
        values.append((each.label, each.agreement.labels))
    return (values, f"share of labels equal to {first.label}") if others else None
