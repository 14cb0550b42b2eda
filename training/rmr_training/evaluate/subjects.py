"""What is evaluated: a bundle, run by the product itself, or a checkpoint, run by torch on the product's own tiles.

Both take a study and give fused image and labels on the grid of its reference contrast.
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, Protocol

import msgspec
import numpy as np
import torch
from numpy.typing import NDArray

from rmr_sdk import Pipeline
from rmr_sdk.blend import BlendOutputs
from rmr_sdk.engines.base import Tensors
from rmr_sdk.errors import ConfigError, FormatError
from rmr_sdk.inference import infer, make_blender, plan_study
from rmr_sdk.lesion_rule import LesionRule
from rmr_sdk.manifest import UNHASHED, Artifact, GoldenFile, Manifest, Normalisation, Training
from rmr_sdk.preprocess import Prepared, prepare, restore_image, restore_labels
from rmr_sdk.study import Study
from rmr_sdk.volume import Volume
from rmr_sdk.watch import Stopwatch, Watch

from ..checkpoint import KEEP_ALL, NORMALISATION, LesionLevels, lesion_levels, load_network, read_checkpoint
from ..data import ORIENTATION
from ..models import Preset, RmrFusion

CHECKPOINT_SUFFIXES = (".pth", ".pt")

OVERLAP = 0.25


@dataclass(frozen=True, slots=True, eq=False)
class Outcome:
    """What a network made of a study.

    Attributes:
        fused: On the reference's grid and intensity scale.
        labels: Class of each voxel on that grid; None without a segmentation head.
        seconds: How long it took.
    """

    fused: Volume
    labels: NDArray[np.uint8] | None
    seconds: float


class Subject(Protocol):
    """A network that fuses studies, and segments them if it has a head.

    Attributes:
        manifest: Contrasts, classes, normalisation and grid that it was made for.
        facts: What it is, for the report.
    """

    manifest: Manifest
    facts: dict[str, Any]

    def run(self, study: Study) -> Outcome:
        """Fuse and segment a study."""

    def close(self) -> None:
        """Release it; again is harmless."""


class BundleSubject:
    """A bundle, run by `rmr_sdk.Pipeline`.

    Args:
        pipeline: Open; closed by `close`.
        overlap: Overlap of neighbouring tiles.
    """

    def __init__(self, pipeline: Pipeline, overlap: float = OVERLAP) -> None:
        self.pipeline, self.overlap = pipeline, overlap
        self.manifest = pipeline.manifest
        info = pipeline.engine_info
        self.facts: dict[str, Any] = {
            "name": f"{self.manifest.name} {self.manifest.version}",
            "bundle_hash": pipeline.bundle.hash,
            "engine": info.name,
            "precision": info.precision,
            "overlap": overlap,
            "trained_on": list(self.manifest.training.studies_seen),
        }

    def run(self, study: Study) -> Outcome:
        """Run the product."""
        started = time.perf_counter()
        result = self.pipeline.run(study, overlap=self.overlap)
        labels = None if result.labels is None else result.labels.data
        return Outcome(result.fused, labels, time.perf_counter() - started)

    def close(self) -> None:
        """Close the pipeline."""
        self.pipeline.close()


class NetworkSubject:
    """A network in torch, fed and blended as the runtime feeds and blends an engine.

    Args:
        network: Stays on the device it is on.
        normalisation: Of a checkpoint; by default that of this package's training.
        overlap: Overlap of neighbouring tiles.
        name: What to call it in reports.
        levels: Which lesions are kept.
    """

    def __init__(
        self,
        network: RmrFusion,
        normalisation: Mapping[str, Any] | None = None,
        overlap: float = OVERLAP,
        name: str = "network",
        levels: LesionLevels = KEEP_ALL,
    ) -> None:
        self.network, self.overlap = network.eval(), overlap
        scaling = NORMALISATION if normalisation is None else normalisation
        self.manifest = network_manifest(network.preset, scaling, levels)
        self.facts: dict[str, Any] = {"name": name, "engine": "torch", "precision": "fp32", "overlap": overlap}

    def run(self, study: Study) -> Outcome:
        """Run the network over the tiles of a study."""
        started = time.perf_counter()
        prepared = prepare(study, self.manifest)
        outputs = infer_network(self.network, prepared, self.manifest, self.overlap)
        assert outputs.fused is not None, "every blender makes a fused image"
        if outputs.labels is not None and outputs.probability is not None:
            LesionRule.of(self.manifest).apply(outputs.labels, outputs.probability, prepared.grid.voxel_ml)
        labels = None if outputs.labels is None else restore_labels(prepared, outputs.labels).data
        return Outcome(restore_image(prepared, outputs.fused), labels, time.perf_counter() - started)

    def close(self) -> None:
        """Do nothing: the network belongs to the caller."""


def infer_network(network: RmrFusion, prepared: Prepared, manifest: Manifest, overlap: float = OVERLAP) -> BlendOutputs:
    """Run a network in evaluation mode over the tiles of a study; outputs (D, H, W), no lesion dropped."""
    plan = plan_study(prepared, manifest, overlap, threads=1)
    blender = make_blender(prepared, plan, manifest, threads=1)
    training = network.training
    with TorchSession(network.eval()) as session:
        outputs = infer(session, 1, prepared, plan, blender, Stopwatch(), Watch(), threads=1)
    network.train(training)
    return outputs


class TorchSession:
    """A queue of tiles on a torch network; see `rmr_sdk.engines.base.Session`."""

    def __init__(self, network: RmrFusion) -> None:
        self._network = network
        self._device = next(network.parameters()).device
        self._waiting: deque[Tensors] = deque()

    def submit(self, inputs: Tensors) -> None:
        """Remember a tile."""
        self._waiting.append(inputs)

    def collect(self) -> Tensors:
        """Compute the oldest tile."""
        inputs = self._waiting.popleft()
        t1w, flair = (torch.from_numpy(inputs[name]).to(self._device) for name in ("t1w", "flair"))
        with torch.inference_mode():
            fused = self._network(t1w, flair)
            outputs = {"fused": fused.image}
            if fused.logits is not None:
                outputs["probability"] = fused.logits.softmax(1)
            return {name: np.ascontiguousarray(each.float().cpu().numpy()) for name, each in outputs.items()}

    def close(self) -> None:
        """Forget the tiles that wait."""
        self._waiting.clear()

    def __enter__(self) -> TorchSession:
        """Return the session."""
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Close the session."""
        self.close()


def open_subject(
    model: str, *, precision: str = "auto", overlap: float = OVERLAP, threads: int | None = None
) -> Subject:
    """Open what is to be evaluated.

    Args:
        model: A file that ends in .pth or .pt is a checkpoint of `rmr-train joint`; everything else is the name of a
            bundle that comes with the runtime, or the path of one.
        precision: Of a bundle; checkpoints compute in fp32.
        overlap: Overlap of neighbouring tiles.
        threads: Threads of the engine; torch keeps its own setting.

    Raises:
        ConfigError: A precision was asked of a checkpoint.
        FormatError: The checkpoint is unreadable, or of stage 1, whose fusion is untrained.
        BundleError: There is no such bundle, or it cannot be used.
    """
    path = Path(model)
    if path.suffix not in CHECKPOINT_SUFFIXES:
        return BundleSubject(Pipeline.open(model, precision=precision, threads=threads), overlap)
    if precision not in ("auto", "fp32"):
        raise ConfigError(
            f"a checkpoint is evaluated in fp32, not {precision}.", "Export a bundle to see what a precision costs."
        )
    content = read_checkpoint(path)
    if content.get("stage") == "autoencoder":
        raise FormatError(
            f"{path.name} is of stage 1: its fusion network and its head are untrained.",
            "Name a checkpoint of `rmr-train joint`.",
        )
    levels = lesion_levels(content)
    return NetworkSubject(load_network(path), content.get("normalisation"), overlap, path.name, levels)


def network_manifest(
    preset: Preset,
    normalisation: Mapping[str, Any],
    levels: LesionLevels = KEEP_ALL,
) -> Manifest:
    """Say of a network in memory what a bundle's manifest would; no file stands behind it."""
    classes = preset.classes if preset.head is not None else None
    return Manifest(
        name="checkpoint",
        version="0.0.0",
        licence="unpublished",
        contrasts=("T1w", "FLAIR"),
        reference="FLAIR",
        orientation=ORIENTATION,
        spacing_mm=(1.0, 1.0, 1.0),
        spacing_tolerance=0.25,
        normalisation=msgspec.convert(dict(normalisation), Normalisation),
        tile_shape=preset.tile,
        classes=classes,
        lesion_class="lesion" if classes and "lesion" in classes else None,
        **levels._asdict(),
        artifacts=(Artifact(path="none", sha256=UNHASHED, size=1, precision="fp32", kind="onnx"),),
        golden=GoldenFile(path="golden", sha256=UNHASHED, size=1),
        training=Training(recipe="see the checkpoint"),
    )
