"""The last stage of a run: from blended outputs to a result, measured and checked, with what computed it."""

from __future__ import annotations

import platform
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from rmr_sdk._version import __version__
from rmr_sdk.atlas import Placement
from rmr_sdk.bundle import Bundle
from rmr_sdk.engines import EngineInfo
from rmr_sdk.lesion_rule import Applied, LesionRule
from rmr_sdk.location import TissueLabels
from rmr_sdk.manifest import Manifest
from rmr_sdk.measure import find_lesions, measure_tissue, place_atlas
from rmr_sdk.preprocess import Prepared, restore_image, restore_labels
from rmr_sdk.quality import Examined, check_quality, quality_warnings
from rmr_sdk.result import Provenance, QualityCheck, Result
from rmr_sdk.study import Study
from rmr_sdk.tiles import TilePlan
from rmr_sdk.volume import Volume
from rmr_sdk.watch import Stopwatch


@dataclass(frozen=True, slots=True)
class Origin:
    """What computed a result.

    Attributes:
        bundle: The network's bundle.
        engine: What it ran on.
        reason: Why it ran there.
        warnings: What the engine says about how it was opened.
        threads: Threads for measuring.
        rule: What of the lesions is kept.
    """

    bundle: Bundle
    engine: EngineInfo
    reason: str
    warnings: tuple[str, ...]
    threads: int
    rule: LesionRule

    @property
    def manifest(self) -> Manifest:
        """Return the manifest of the bundle."""
        return self.bundle.manifest


@dataclass(frozen=True, slots=True)
class Ran:
    """What was computed: the study, how it was prepared and cut, and what else was done to its geometry."""

    study: Study
    prepared: Prepared
    plan: TilePlan
    overlap: float
    actions: tuple[str, ...] = ()


def conclude(origin: Origin, ran: Ran, arrays: dict[str, npt.NDArray[Any]], clock: Stopwatch) -> Result:
    """Bring outputs back to the reference's own grid, measure and check them.

    Args:
        origin: What computed them.
        ran: What they were computed from.
        arrays: "fused" and, where the network gives them, "labels" and "probability", on the common grid. Each is
            taken out once it is restored, so that its memory can go.
        clock: Takes the seconds of "measure" and "check"; its stages become those of the result.
    """
    prepared = ran.prepared
    with clock("measure"):
        applied = Applied()
        if "probability" in arrays:
            applied = origin.rule.apply(arrays["labels"], arrays["probability"], prepared.grid.voxel_ml)
        fields, placement = _measure(origin, ran.study, prepared, arrays)
    with clock("check"):
        quality = _check(origin, ran.study, prepared, fields, placement)
    return Result(
        **fields,
        reference=prepared.reference,
        intensity=prepared.intensity[prepared.reference],
        quality=quality,
        warnings=(*origin.warnings, *prepared.warnings, *quality_warnings(quality)),
        alignments=prepared.alignments,
        timings=clock.seconds,
        provenance=_provenance(origin, ran, applied),
        source=ran.study.source,
    )


def _measure(
    origin: Origin, study: Study, prepared: Prepared, outputs: dict[str, npt.NDArray[Any]]
) -> tuple[dict[str, Any], Placement | None]:
    """Bring the outputs back to the reference's own grid, find the atlas there and measure the labels."""
    manifest = origin.manifest
    fields: dict[str, Any] = {
        "fused": restore_image(prepared, outputs.pop("fused")),
        "inputs": _on_reference_grid(study, prepared),
    }
    if manifest.classes is None:
        return fields, None
    labels = restore_labels(prepared, outputs.pop("labels"))
    fields |= {"labels": labels, "classes": manifest.classes, "tissue_ml": measure_tissue(labels, manifest)}
    if manifest.lesion_class is None:
        return fields, None
    probability = restore_image(prepared, outputs.pop("probability"))
    placement = place_atlas(labels, manifest)
    fields |= {
        "lesion_class": manifest.lesion_class,
        "lesion_probability": probability,
        "lesions": find_lesions(labels, probability, manifest, placement, origin.threads),
    }
    return fields, placement


def _check(
    origin: Origin, study: Study, prepared: Prepared, found: Mapping[str, Any], placement: Placement | None
) -> tuple[QualityCheck, ...]:
    """Check the quality of what was seen and found."""
    return check_quality(
        Examined(
            contrasts=_in_place(study, prepared),
            inputs=found["inputs"],
            labels=found.get("labels"),
            tissue=TissueLabels.of(origin.manifest.classes or (), origin.manifest.lesion_class or ""),
            placement=placement,
            lesions=found.get("lesions"),
            threads=origin.threads,
        )
    )


def _provenance(origin: Origin, ran: Ran, applied: Applied) -> Provenance:
    info, manifest = origin.engine, origin.manifest
    return Provenance(
        bundle=manifest.name,
        bundle_version=manifest.version,
        bundle_hash=origin.bundle.hash,
        engine=info.name,
        engine_reason=origin.reason,
        device=info.device,
        device_name=info.device_name,
        precision=info.precision,
        threads=info.threads or None,
        overlap=ran.overlap,
        tiles=len(ran.plan.tiles),
        tiles_skipped=ran.plan.skipped,
        least_lesion_probability=origin.rule.least_probability,
        least_white_matter=origin.rule.least_white_matter,
        least_lesion_mm3=origin.rule.least_mm3,
        lesion_threshold=applied.threshold,
        least_piece=origin.rule.least_piece,
        lesions_dropped=applied.lesions,
        geometry=(*ran.study.notes, *ran.prepared.actions, *ran.actions),
        versions={
            "rmr-sdk": __version__,
            info.name: info.version,
            "numpy": np.__version__,
            "python": platform.python_version(),
        },
    )


def _in_place(study: Study, prepared: Prepared) -> dict[str, Volume]:
    """Return the contrasts as they were acquired, moved to where alignment found them."""
    moves = {alignment.contrast: alignment.matrix for alignment in prepared.alignments}
    return {
        name: Volume(study[name].data, moves[name] @ study[name].affine) if name in moves else study[name]
        for name in prepared.arrays
    }


def _on_reference_grid(study: Study, prepared: Prepared) -> dict[str, Volume]:
    """Return the contrasts that the network saw, on the reference's own grid and in their own voxel types."""
    seen = {prepared.reference: study[prepared.reference]}
    for name, array in prepared.arrays.items():
        if name not in seen:
            restored = restore_image(prepared, array)
            seen[name] = Volume(_as_stored(restored.data, study[name].data.dtype), restored.affine)
    return {name: seen[name] for name in prepared.arrays}


def _as_stored(array: npt.NDArray[Any], dtype: np.dtype[Any]) -> npt.NDArray[Any]:
    """Return interpolated intensities in the type they came in, rounded where that holds integers."""
    if dtype.kind not in "iu" or array.dtype.kind in "iu":
        return array
    stored = np.empty_like(array, dtype)
    for plane, rounded in zip(array, stored, strict=True):
        rounded[...] = np.rint(plane)
    return stored
