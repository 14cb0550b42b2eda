"""What each rewrite of the graph is worth: an engine is built after each, and its plan is read."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import torch

from rmr_sdk.engines.tensorrt_library import load_library
from rmr_training.models import PRESETS, RmrFusion, find_preset
from rmr_training.models.swin import Triple

from .checkpoint import load_own
from .engine import BuildOptions, build_engine
from .graph.steps import rewrite_steps
from .precision.fp16 import to_fp16

HEADER = ("step, each exact", "kernels", "attentions fused", "PReLU alone", "modelled traffic", "engine")


@dataclass(frozen=True, slots=True)
class Worth:
    """What an engine looks like after a step.

    Attributes:
        step: What the last rewrite does.
        kernels: How many.
        fused: Attentions that run as one kernel.
        attentions: Attentions in all.
        lone_prelus: Kernels that compute a PReLU and nothing else.
        traffic: Modelled bytes read and written for one tile.
        size: Bytes of the engine.
    """

    step: str
    kernels: int
    fused: int
    attentions: int
    lone_prelus: int
    traffic: int
    size: int

    def cells(self) -> tuple[str, ...]:
        """Give a row of a table under `HEADER`."""
        return (
            self.step,
            str(self.kernels),
            f"{self.fused} of {self.attentions}",
            str(self.lone_prelus),
            f"{self.traffic / 1e9:.2f} GB",
            f"{self.size / 1e6:.0f} MB",
        )


def open_network(name: str, with_head: bool = True) -> RmrFusion:
    """Open a checkpoint of `rmr-train`, or build a preset with random weights: plans do not depend on them.

    Args:
        name: A file, or the name of a preset.
        with_head: Whether the segmentation head belongs to it; a checkpoint keeps its own.

    Raises:
        FormatError: It is neither a preset nor a checkpoint that can be read.
    """
    if name not in PRESETS:
        return load_own(Path(name)).network
    torch.manual_seed(0)
    preset = find_preset(name)
    return RmrFusion(preset if with_head else replace(preset, head=None)).eval()


def measure_rewrites(network: RmrFusion, tile: Triple | None, target: int) -> Iterator[Worth]:
    """Build an fp16 engine after each rewrite.

    Args:
        network: The network.
        tile: (D, H, W) in voxels; None for that of its preset.
        target: Compute capability.

    Yields:
        One row a step.

    Raises:
        DeviceUnavailableError: TensorRT-RTX is not installed.
        EngineMismatchError: It does not build for the target.
        ExportError: The network cannot be traced on such a tile.
    """
    library, options = load_library("tensorrt-rtx"), BuildOptions(targets=(target,))
    for step in rewrite_steps(network, tile or network.preset.tile):
        built = build_engine(to_fp16(step.model), library, options)
        plan = built.plan
        yield Worth(
            step.name,
            len(plan.kernels),
            plan.fused_attentions,
            len(plan.attentions),
            len(plan.lone_prelus),
            plan.traffic,
            len(built.engine),
        )
