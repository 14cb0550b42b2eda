"""`rmr bundle list | show | verify`: what a bundle holds, and whether it still is what its manifest says."""

from __future__ import annotations

import argparse
from collections.abc import Iterator

from rmr_sdk.bundle import Bundle, list_bundles
from rmr_sdk.cli.terminal import say
from rmr_sdk.manifest import Manifest, encode_manifest


def add_parser(
    commands: argparse._SubParsersAction[argparse.ArgumentParser], everywhere: argparse.ArgumentParser
) -> None:
    """Add the command to the grammar."""
    about = "List, show or verify bundles: a network with everything that is known about it."
    parser = commands.add_parser("bundle", help=about, description=about, parents=[everywhere], allow_abbrev=False)
    actions = parser.add_subparsers(metavar="ACTION", required=True)
    for name, action, does in (
        ("list", _list, "name the bundles that come with the package"),
        ("show", _show, "say what a bundle is, what it was trained on and how well it does"),
        ("verify", _verify, "check every file of a bundle against its manifest"),
    ):
        sub = actions.add_parser(name, help=does, description=does, parents=[everywhere], allow_abbrev=False)
        sub.set_defaults(command=action)
        if name != "list":
            sub.add_argument("bundle", metavar="NAME", help="shipped name, folder or .zip")
        if name == "show":
            sub.add_argument("--json", action="store_true", help="print the manifest")


def _list(options: argparse.Namespace) -> int:
    for name in list_bundles():
        say(_headline(Bundle.open(name).manifest))
    return 0


def _show(options: argparse.Namespace) -> int:
    bundle = Bundle.open(options.bundle)
    if options.json:
        say(encode_manifest(bundle.manifest).decode().rstrip("\n"))
    else:
        say("\n".join((*_describe(bundle.manifest), f"Hash:      {bundle.hash}", bundle.manifest.intended_use)))
    return 0


def _verify(options: argparse.Namespace) -> int:
    bundle = Bundle.open(options.bundle)
    bundle.verify()
    manifest = bundle.manifest
    say(f"{manifest.name} {manifest.version}: all {len(manifest.files)} files are as the manifest describes them")
    return 0


def _headline(manifest: Manifest) -> str:
    size = sum(file.size for file in manifest.files) / 1e6
    return f"{manifest.name} {manifest.version}  {', '.join(manifest.onnx_precisions)}  {size:.1f} MB"


def _describe(manifest: Manifest) -> Iterator[str]:
    yield _headline(manifest)
    yield f"Licence:   {manifest.licence}"
    yield f"Contrasts: {', '.join(manifest.contrasts)} (results on the grid of the {manifest.reference})"
    yield f"Tile:      {_times(manifest.tile_shape)} voxels of {_times(manifest.spacing_mm)} mm, {manifest.orientation}"
    yield f"Classes:   {', '.join(manifest.classes) if manifest.classes else 'none: it only fuses'}"
    for artifact in manifest.artifacts:
        yield f"File:      {artifact.path} ({artifact.kind}, {artifact.precision}, {artifact.size / 1e6:.1f} MB)"
    for figure in manifest.accuracy:
        studies = f"{figure.studies} {'study' if figure.studies == 1 else 'studies'}"
        measured = f"{figure.study_set} ({studies}{f'; {figure.note}' if figure.note else ''})"
        yield f"Accuracy:  {figure.metric} {figure.value:.3g} in {figure.precision} on {measured}"
    yield f"Training:  {manifest.training.recipe}"
    for data in manifest.training.data:
        yield f"Data:      {data.name} ({data.licence}). {data.citation}"
    if manifest.training.studies_seen:
        yield f"Seen:      {', '.join(manifest.training.studies_seen)}"


def _times(lengths: tuple[float, float, float]) -> str:
    return " x ".join(f"{length:g}" for length in lengths)
