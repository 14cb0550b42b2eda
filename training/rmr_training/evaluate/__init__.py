"""Evaluation: segmentation against ground truth, fusion against both inputs and beside baselines, clean and damaged.

`rmr-train evaluate` is its command; docs/evaluation.md says what every figure means and where it comes from.
"""

from .assessment import Evaluation, Plan, assess
from .baselines import BASELINES
from .cases import Case, load_case
from .conditions import CLEAN, CONDITIONS, damage_study
from .fusion_quality import FusionFigures, FusionReference
from .limits import RESOLUTION, damaged_truth
from .network import evaluate, load_study, predict, to_table
from .report import to_document, write_report
from .segmentation import (
    SMALLEST_LESION_MM3,
    ClassFigures,
    LesionFigures,
    SizeCounts,
    compare_lesions,
    compare_masks,
    count_by_size,
)
from .subjects import BundleSubject, NetworkSubject, Outcome, Subject, open_subject

__all__ = [
    "BASELINES",
    "CLEAN",
    "CONDITIONS",
    "RESOLUTION",
    "SMALLEST_LESION_MM3",
    "BundleSubject",
    "Case",
    "ClassFigures",
    "Evaluation",
    "FusionFigures",
    "FusionReference",
    "LesionFigures",
    "NetworkSubject",
    "Outcome",
    "Plan",
    "SizeCounts",
    "Subject",
    "assess",
    "compare_lesions",
    "compare_masks",
    "count_by_size",
    "damage_study",
    "damaged_truth",
    "evaluate",
    "load_case",
    "load_study",
    "open_subject",
    "predict",
    "to_document",
    "to_table",
    "write_report",
]
