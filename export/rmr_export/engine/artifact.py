"""Engines as files of a bundle: which graph they are built from, what they are called, and how they get in."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal, cast

import onnx
from msgspec.structs import replace
from onnx import TensorProto

from rmr_export.graph.device import for_device
from rmr_export.precision.fp16 import to_fp16
from rmr_sdk.bundle import Bundle, write_bundle
from rmr_sdk.engines.tensorrt_library import load_library
from rmr_sdk.errors import OutputError
from rmr_sdk.manifest import UNHASHED, Artifact, Precision

from .build import BuildOptions, Built, build_engine


@dataclass(frozen=True, slots=True)
class EngineRequest:
    """Which engine of a bundle to build.

    Attributes:
        runtime: "tensorrt" or "tensorrt-rtx".
        precision: Of the graph.
        options: How to build.
    """

    runtime: str
    precision: Precision
    options: BuildOptions = field(default_factory=BuildOptions)


def engine_graph(bundle: Bundle, precision: str) -> onnx.ModelProto:
    """Give the graph that an engine of a precision is built from.

    It has the rewrites for GPUs. Around int8 layers it is fp16: attention runs as one kernel in fp16 only.

    Raises:
        EngineMismatchError: The bundle has no graph of that precision.
    """
    model = for_device(onnx.load_model_from_string(bundle.graph(precision)))
    return to_fp16(model) if precision == "int8" and not _has_halves(model) else model


def build_for_bundle(bundle: Bundle, request: EngineRequest) -> Built:
    """Build an engine from a graph of a bundle; see `build_engine` for what may go wrong.

    Raises:
        EngineMismatchError: The bundle has no graph of that precision, or the runtime does not build for a target.
        DeviceUnavailableError: The runtime is not installed, or needs a GPU that is not here.
    """
    model = engine_graph(bundle, request.precision)
    return build_engine(model, load_library(request.runtime), request.options)


def refuse_existing(bundle: Bundle, request: EngineRequest, overwrite: bool) -> None:
    """Say before a build that a bundle has an engine for one of its targets already.

    Raises:
        OutputError: It has, and shall not be replaced.
    """
    for artifact in bundle.manifest.artifacts:
        if artifact.kind == "engine" and _answers(artifact, request) and not overwrite:
            raise OutputError(
                f'the bundle has an engine already: "{artifact.path}".',
                "Pass --overwrite to replace it.",
                path=artifact.path,
            )


def add_engine(bundle: Bundle, target: Path, built: Built, precision: Precision) -> Bundle:
    """Write a bundle with one more engine; one of the same name is replaced.

    Args:
        bundle: Where everything else comes from.
        target: The bundle itself, a new folder, or a new `.zip` file; an existing one is replaced in one step.
        built: The engine.
        precision: Of the graph that it was built from.

    Returns:
        The bundle at `target`.

    Raises:
        OutputError: It cannot be written, or `target` is a folder that holds more than a bundle.
        BundleError: A file of the bundle is missing or changed.
    """
    path = engine_path(built, precision)
    artifact = Artifact(
        path=path,
        sha256=UNHASHED,
        size=1,
        precision=precision,
        kind="engine",
        runtime=cast(Literal["tensorrt", "tensorrt-rtx"], built.runtime),  # the manifest's schema checks it
        version=built.version,
        compute_capabilities=built.targets,
    )
    others = tuple(known for known in bundle.manifest.artifacts if known.path != path)
    manifest = replace(bundle.manifest, artifacts=(*others, artifact))
    files = {file.path: bundle.read(file.path) for file in manifest.files if file is not artifact}
    return write_bundle(target, manifest, files | {path: built.engine}, overwrite=True)


def engine_path(built: Built, precision: str) -> str:
    """Name the file of an engine inside its bundle, such as "engines/tensorrt-rtx-fp16-sm86+120.engine"."""
    return f"engines/{built.runtime}-{precision}-sm{'+'.join(map(str, built.targets))}.engine"


def _answers(artifact: Artifact, request: EngineRequest) -> bool:
    wanted = request.options.targets
    shared = not wanted or set(wanted) & set(artifact.compute_capabilities or ())
    return artifact.runtime == request.runtime and artifact.precision == request.precision and bool(shared)


def _has_halves(model: onnx.ModelProto) -> bool:
    return any(tensor.data_type == TensorProto.FLOAT16 for tensor in model.graph.initializer)
