"""The pipeline: a bundle made ready on an engine, and studies that run through it.

study -> check -> common grid -> normalise -> tiles -> engine -> blend -> labels -> native grid -> result
"""

from __future__ import annotations

import logging
import math
import os
import platform
from collections.abc import Mapping
from types import TracebackType
from typing import Any

import numpy as np
import numpy.typing as npt

from rmr_sdk._version import __version__
from rmr_sdk.atlas import Placement
from rmr_sdk.blend import Blender, BlendOutputs
from rmr_sdk.brain_mask import forget_outside
from rmr_sdk.bundle import Bundle
from rmr_sdk.engines import Engine, EngineInfo, open_engine
from rmr_sdk.engines.cores import usable_cores
from rmr_sdk.errors import ConfigError, DeviceMemoryError
from rmr_sdk.inference import ProgressCallback, Stopwatch, infer, make_blender, plan_study, tell
from rmr_sdk.location import TissueLabels
from rmr_sdk.manifest import Manifest
from rmr_sdk.measure import find_lesions, measure_tissue, place_atlas
from rmr_sdk.preprocess import Align, NonFinite, Prepared, prepare, restore_image, restore_labels
from rmr_sdk.quality import Examined, check_quality, quality_warnings
from rmr_sdk.result import Provenance, QualityCheck, Result
from rmr_sdk.study import Study
from rmr_sdk.tiles import TilePlan, check_overlap
from rmr_sdk.volume import Volume

logger = logging.getLogger(__name__)

KERNEL_THREADS = 4
"""Most threads that extraction and blending use: they wait for memory, not for cores."""

DEFAULT_BUNDLE = "ms-edge"
"""The bundle that comes with the package and runs when none is named."""

MIB = 1024 * 1024


class Pipeline:
    """A bundle on an engine, ready for any number of studies; safe from several threads.

    Use `Pipeline.open`, as a context manager or with `close`.
    """

    def __init__(self, bundle: Bundle, engine: Engine, reason: str, max_memory_mib: float | None = None) -> None:
        self.bundle = bundle
        self.reason = reason
        self._engine = engine
        self._max_memory_mib = max_memory_mib
        self._threads = min(KERNEL_THREADS, engine.info.threads or usable_cores())

    @classmethod
    def open(
        cls,
        bundle: str | os.PathLike[str] = DEFAULT_BUNDLE,
        *,
        engine: str = "auto",
        device: str = "auto",
        precision: str = "auto",
        threads: int | None = None,
        cache_dir: str | os.PathLike[str] | None = None,
        max_memory_mib: float | None = None,
    ) -> Pipeline:
        """Open a bundle and make its network ready.

        Args:
            bundle: Name of a bundle that comes with the package, or the path of a folder or .zip.
            engine: "auto", or one of `rmr_sdk.engines.ENGINES`.
            device: "auto", or one of `rmr_sdk.engines.DEVICES`.
            precision: "auto", "fp32", "bf16", "fp16" or "int8".
            threads: Threads to compute with; None for all cores.
            cache_dir: Where compiled networks are kept; None for the user's cache.
            max_memory_mib: Most memory, in MiB, that a run may plan for its outputs, tiles and blending; the
                network's own memory comes on top. None for no limit.

        Raises:
            BundleError: The bundle does not exist, is damaged, or has no graph for the engine and the precision.
            ConfigError: An option has a value that does not exist.
            DeviceUnavailableError: The engine, the device or its precision is not there.
            EngineError: The engine does not reproduce the golden tile.
        """
        if max_memory_mib is not None and not 0 < max_memory_mib < math.inf:
            raise ConfigError(f"max_memory_mib is {max_memory_mib}.", "Pass a positive number, or None for no limit.")
        opened = Bundle.open(bundle)
        ready, reason = open_engine(opened, engine, device, precision, threads, cache_dir)
        logger.info("opened %s: %s", opened.manifest.name, reason)
        return cls(opened, ready, reason, max_memory_mib)

    @property
    def manifest(self) -> Manifest:
        """Return the manifest of the bundle."""
        return self.bundle.manifest

    @property
    def engine_info(self) -> EngineInfo:
        """Return what the network runs on."""
        return self._engine.info

    def run(
        self,
        study: Study,
        *,
        overlap: float = 0.25,
        reference: str | None = None,
        align: Align = "auto",
        non_finite: NonFinite = "error",
        brain_mask: Volume | None = None,
        progress: ProgressCallback | None = None,
    ) -> Result:
        """Fuse and segment a study.

        Args:
            study: Holds at least the contrasts of the bundle.
            overlap: Least part of a tile that it shares with the next, 0 to 0.9.
            reference: The contrast whose grid and intensity scale results come back on; by default the manifest's.
            align: "auto" registers a contrast rigidly where its header and what it shows disagree (docs/alignment.md),
                "rigid" always, "header" never; "none" refuses contrasts on different grids.
            non_finite: "error" refuses NaN and infinite voxels, "zero" takes them as background.
            brain_mask: Where the brain is, not 0, on any grid; elsewhere the network sees 0, nothing is labelled, and
                no tile is computed.
            progress: Called between steps with a `Progress`; when it returns False, and only then, the run stops.

        Raises:
            InputError: The study or an option cannot be used; nothing has been computed.
            DeviceMemoryError: The run needs more than `max_memory_mib`.
            EngineError: The engine failed, or has been closed.
            Cancelled: `progress` returned False.
        """
        check_overlap(overlap)
        clock = Stopwatch()
        tell(progress, "prepare", 0, 1)
        with clock("prepare"):
            prepared = prepare(
                study,
                self.manifest,
                reference=reference,
                align=align,
                non_finite=non_finite,
                brain_mask=brain_mask,
                threads=self._threads,
            )
            plan = plan_study(prepared, self.manifest, overlap, self._threads)
            blender = make_blender(prepared, plan, self.manifest, self._threads)
            slots = self._affordable_slots(plan, blender)
        with self._engine.session() as session:
            outputs = infer(session, slots, prepared, plan, blender, clock, progress, self._threads)
        if prepared.brain is not None:
            forget_outside(prepared.brain, outputs.labels, outputs.probability)
        arrays = _arrays_of(outputs)
        del blender, outputs  # each array is let go of once it is restored onto the reference's grid
        tell(progress, "measure", 0, 1)
        with clock("measure"):
            fields, placement = self._measure(study, prepared, arrays)
        with clock("check"):
            quality = self._check(study, prepared, fields, placement)
        return Result(
            **fields,
            reference=prepared.reference,
            intensity=prepared.intensity[prepared.reference],
            quality=quality,
            warnings=(*self._engine.warnings, *prepared.warnings, *quality_warnings(quality)),
            alignments=prepared.alignments,
            timings=clock.seconds,
            provenance=self._provenance(study, prepared, plan, overlap),
            source=study.source,
        )

    def warmup(self) -> None:
        """Run one empty tile, so that the first study does not pay for first use."""
        shape = (1, 1, *self.manifest.tile_shape)
        with self._engine.session() as session:
            session.submit({name: np.zeros(shape, np.float32) for name in self.manifest.input_names})
            session.collect()

    def close(self) -> None:
        """Release the network; again is harmless."""
        self._engine.close()

    def __enter__(self) -> Pipeline:
        """Return the pipeline."""
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Close the pipeline."""
        self.close()

    def __repr__(self) -> str:
        info = self.engine_info
        return f"Pipeline({self.manifest.name!r}, {info.name} on {info.device}, {info.precision})"

    def _affordable_slots(self, plan: TilePlan, blender: Blender) -> int:
        """Return how many tiles may be in flight.

        Raises:
            DeviceMemoryError: Even one is too many.
        """
        if self._max_memory_mib is None:
            return self._engine.slots
        voxels = int(np.prod(plan.tile_shape))
        channels = len(self.manifest.contrasts) + 1 + len(self.manifest.classes or ())
        per_tile = 4 * voxels * channels
        fixed = blender.memory_bytes + blender.outputs.nbytes
        # An engine keeps the outputs last collected beside the tiles in flight.
        slots = int((self._max_memory_mib * MIB - fixed) // per_tile) - 1
        if slots < 1:
            needed = -(-(fixed + 2 * per_tile) // MIB)
            raise DeviceMemoryError(
                f"this study needs {needed} MiB beside the network, and max_memory_mib is {self._max_memory_mib:g}.",
                "Raise max_memory_mib, or choose a bundle with smaller tiles.",
                needed_mib=needed,
                max_memory_mib=self._max_memory_mib,
            )
        return min(slots, self._engine.slots)

    def _measure(
        self, study: Study, prepared: Prepared, outputs: dict[str, npt.NDArray[Any]]
    ) -> tuple[dict[str, Any], Placement | None]:
        """Bring the outputs back to the reference's own grid, find the atlas there and measure the labels."""
        manifest = self.manifest
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
            "lesions": find_lesions(labels, probability, manifest, placement, self._threads),
        }
        return fields, placement

    def _check(
        self, study: Study, prepared: Prepared, found: Mapping[str, Any], placement: Placement | None
    ) -> tuple[QualityCheck, ...]:
        """Check the quality of what was seen and found."""
        return check_quality(
            Examined(
                contrasts=_in_place(study, prepared),
                inputs=found["inputs"],
                labels=found.get("labels"),
                tissue=TissueLabels.of(self.manifest.classes or (), self.manifest.lesion_class or ""),
                placement=placement,
                lesions=found.get("lesions"),
                threads=self._threads,
            )
        )

    def _provenance(self, study: Study, prepared: Prepared, plan: TilePlan, overlap: float) -> Provenance:
        info, manifest = self.engine_info, self.manifest
        return Provenance(
            bundle=manifest.name,
            bundle_version=manifest.version,
            bundle_hash=self.bundle.hash,
            engine=info.name,
            engine_reason=self.reason,
            device=info.device,
            device_name=info.device_name,
            precision=info.precision,
            threads=info.threads or None,
            overlap=float(overlap),
            tiles=len(plan.tiles),
            tiles_skipped=plan.skipped,
            geometry=(*study.notes, *prepared.actions),
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


def _arrays_of(outputs: BlendOutputs) -> dict[str, npt.NDArray[Any]]:
    """Return the arrays that the blender filled in; whoever takes one out is the only one that holds it."""
    found = {name: getattr(outputs, name) for name in ("fused", "labels", "probability")}
    return {name: array for name, array in found.items() if array is not None}
