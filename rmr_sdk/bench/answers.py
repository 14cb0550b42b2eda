"""Which study was measured, and whether all configurations gave the same answer for it."""

from __future__ import annotations

import hashlib

import numpy as np

from rmr_sdk.bench.results import Agreement, StudyFacts
from rmr_sdk.result import Result
from rmr_sdk.study import Study


def agreement(first: Result, other: Result) -> Agreement:
    """Compare two results of the same study."""
    before, after = first.fused.data, other.fused.data
    scale = float(np.sqrt(np.mean(np.square(before, dtype=np.float64)))) or 1.0
    rms = float(np.sqrt(np.mean(np.square(after - before, dtype=np.float64))))
    labels, dice = None, None
    if first.labels is not None and other.labels is not None:
        a, b = first.labels.data, other.labels.data
        either = (a > 0) | (b > 0)
        labels = round(float((a == b)[either].mean()), 6) if either.any() else 1.0
        if first.classes is not None and first.lesion_class is not None:
            dice = _dice(a == (index := first.classes.index(first.lesion_class)), b == index)
    return Agreement(labels=labels, lesion_dice=dice, fused_rms=round(rms / scale, 8))


def _dice(a: np.ndarray, b: np.ndarray) -> float:
    marked = int(np.count_nonzero(a)) + int(np.count_nonzero(b))
    return round(2 * int(np.count_nonzero(a & b)) / marked, 6) if marked else 1.0


def study_facts(study: Study, reference: str, demo: bool) -> StudyFacts:
    """Tell a study by its voxels.

    Args:
        study: What was measured.
        reference: The contrast whose grid is told.
        demo: Whether it is the one that comes with the SDK.
    """
    digest = hashlib.sha256()
    for name in sorted(study):
        volume = study[name]
        digest.update(f"{name} {volume.data.shape} {volume.data.dtype.str}".encode())
        digest.update(np.ascontiguousarray(volume.data).data)
        digest.update(np.ascontiguousarray(volume.affine).data)
    grid = study[reference].grid
    return StudyFacts(
        demo=demo,
        fingerprint=digest.hexdigest(),
        reference=reference,
        shape=tuple(grid.shape),
        spacing_mm=tuple(round(float(mm), 4) for mm in grid.spacing_mm),
    )
