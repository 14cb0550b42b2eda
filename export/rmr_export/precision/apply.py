"""Precisions of a bundle that exists: read, made, measured, and written as a new bundle in one step."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import onnx
from msgspec.structs import replace

from rmr_sdk.bundle import Bundle, write_bundle
from rmr_sdk.errors import ConfigError, OutputError
from rmr_sdk.manifest import UNHASHED, Artifact, Manifest

from .make import GRAPHED, Made, Recipe, make_precisions


def graph_file(precision: str) -> str:
    """Return the name of the graph of a precision in a bundle."""
    return f"model.{precision}.onnx"


def with_precisions(manifest: Manifest, made: Made) -> Manifest:
    """Return a manifest that lists the graphs and states the figures; those of the same precisions give way."""
    measured = {each.precision for each in made.measured}
    kept = [
        artifact for artifact in manifest.artifacts if artifact.kind == "onnx" and artifact.precision not in made.graphs
    ]
    added = [
        Artifact(path=graph_file(name), sha256=UNHASHED, size=1, precision=name, kind="onnx")  # type: ignore[arg-type]
        for name in made.graphs
    ]
    others = [figure for figure in manifest.accuracy if figure.precision not in measured]
    return replace(manifest, artifacts=(*kept, *added), accuracy=(*others, *made.accuracy), tolerance=made.tolerance)


def serialise(made: Made) -> dict[str, bytes]:
    """Return the files of the graphs."""
    return {graph_file(name): graph.SerializeToString(deterministic=True) for name, graph in made.graphs.items()}


def quantise_bundle(
    bundle: Bundle, precisions: Sequence[str], recipe: Recipe, target: Path, overwrite: bool = False
) -> tuple[Bundle, Made]:
    """Add precisions to a bundle.

    Prebuilt engines are left out of the new bundle: they are built from its graphs once these are settled.

    Args:
        bundle: Has a graph in fp32.
        precisions: Some of "bf16", "fp16" and "int8".
        recipe: How.
        target: A `.zip` file, otherwise a folder; may be that of `bundle`.
        overwrite: Replace what is there, and a graph that the bundle has already.

    Returns:
        The new bundle, opened, and what was measured.

    Raises:
        OutputError: The target exists, or cannot be written.
        ConfigError: The bundle has a graph of such a precision already, or an option is out of range.
        EngineMismatchError: The bundle has no graph in fp32.
        ToleranceError, ExportError, InputError: As `make_precisions` says; nothing is written.
    """
    refuse_existing(target, overwrite)
    present = [name for name in precisions if name in GRAPHED and name in bundle.manifest.onnx_precisions]
    if present and not overwrite:
        raise ConfigError(
            f'bundle "{bundle.manifest.name}" has a graph in {present[0]} already.',
            "Pass --overwrite to make it anew, or leave it out of --precision.",
            precision=present[0],
        )
    data = bundle.graph("fp32")
    made = make_precisions(onnx.load_from_string(data), bundle.manifest, bundle.golden(), precisions, recipe)
    manifest = with_precisions(bundle.manifest, made)
    files = {file.path: bundle.read(file.path) for file in manifest.files if file.path not in serialise(made)}
    return write_bundle(target, manifest, {**files, **serialise(made)}, overwrite=overwrite), made


def refuse_existing(target: Path, overwrite: bool) -> None:
    """Say at once what `write_bundle` would say after minutes of work.

    Raises:
        OutputError: The target exists.
    """
    if not overwrite and (target.is_file() or (target.is_dir() and any(target.iterdir()))):
        raise OutputError(f'"{target}" exists.', "Choose another name, or pass --overwrite.")
