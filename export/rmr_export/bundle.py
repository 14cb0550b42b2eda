"""From a network to a bundle: graph, proof, golden tile, manifest, in that order; written last and at once."""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from pathlib import Path

import msgspec

from rmr_sdk.bundle import Bundle, write_bundle
from rmr_sdk.errors import ConfigError, FormatError
from rmr_sdk.golden import encode_golden, record_golden
from rmr_sdk.manifest import (
    INTENDED_USE,
    UNHASHED,
    Accuracy,
    Artifact,
    DataSource,
    GoldenFile,
    Limit,
    Manifest,
    Training,
    encode_manifest,
)
from rmr_training.models.swin import Triple

from .checkpoint import Source
from .graph import build_graph
from .parity import prove, random_tile, torch_runner
from .phantom import phantom
from .precision.apply import graph_file, refuse_existing, serialise, with_precisions
from .precision.make import Made, Recipe, make_precisions

logger = logging.getLogger(__name__)

GRAPH, GOLDEN = graph_file("fp32"), "golden.npz"


class Card(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What a person knows about a network and no checkpoint says; a TOML file.

    Fields that are left out are taken from the checkpoint, or are not stated. `limits`, what users should know before
    they rely on it, is for the model card: no manifest has it.
    """

    licence: str = "not stated"
    intended_use: str = INTENDED_USE
    spacing_mm: tuple[float, float, float] | None = None
    spacing_tolerance: float | None = None
    orientation: str | None = None
    recipe: str | None = None
    limits: tuple[str, ...] = ()
    data: tuple[DataSource, ...] = ()
    studies_seen: tuple[str, ...] = ()
    accuracy: tuple[Accuracy, ...] = ()
    tolerance: tuple[Limit, ...] = ()


def read_card(path: Path) -> Card:
    """Read a card.

    Raises:
        FormatError: The file cannot be read, is not TOML, or has a field that a card does not have.
    """
    try:
        return msgspec.toml.decode(path.read_bytes(), type=Card)
    except (OSError, msgspec.MsgspecError) as error:
        raise FormatError(f'the card "{path.name}" cannot be used: {error}.', "See docs/export.md.") from error


class _Figures(msgspec.Struct, frozen=True, kw_only=True):
    """What an export wants of a result of `benchmarks/bench_accuracy.py`."""

    accuracy: tuple[Accuracy, ...]


def read_accuracy(path: Path) -> tuple[Accuracy, ...]:
    """Read what was measured: the entry `accuracy` of a JSON file, as `benchmarks/bench_accuracy.py` writes it.

    Raises:
        FormatError: The file cannot be read, is not JSON, or its entry is missing or not a list of figures.
    """
    try:
        return msgspec.json.decode(path.read_bytes(), type=_Figures).accuracy
    except (OSError, msgspec.MsgspecError, UnicodeDecodeError) as error:
        raise FormatError(
            f'the figures in "{path.name}" cannot be used: {error}.', "Name a result of bench_accuracy.py."
        ) from error


def export_bundle(
    source: Source,
    target: Path,
    tile: Triple | None = None,
    name: str = "rmr-fusion",
    version: str = "0.1.0",
    card: Card | None = None,
    overwrite: bool = False,
    proof: bool = True,
    precisions: Sequence[str] = ("fp32",),
    recipe: Recipe | None = None,
    told: Callable[[Made], object] | None = None,
) -> Bundle:
    """Export a network.

    Args:
        source: The network and what is known about it.
        target: A `.zip` file, otherwise a folder.
        tile: (D, H, W) in voxels; None for the tile of the preset.
        name: Name of the bundle.
        version: Version of the bundle.
        card: What else is known.
        overwrite: Replace an existing bundle.
        proof: Compare engines with torch on two whole tiles. Without it, for a bundle that is thrown away again, the
            golden tile alone is left to tell.
        precisions: What else to make or to measure beside fp32, which every bundle has.
        recipe: How precisions are made and measured.
        told: Called with what was measured, where there are other precisions than fp32.

    Returns:
        The bundle, opened.

    Raises:
        ExportError: The network cannot be traced, or an engine differs from torch; nothing is written.
        ConfigError: The network cannot be computed on such a tile, or int8 has nothing to be calibrated or checked on.
        ToleranceError: A precision is out of tolerance, and is not forced.
        InputError: A study to calibrate or to check on cannot be used.
        ManifestError: Name, version or a field of the card breaks the manifest's schema.
        OutputError: `target` exists or cannot be written.
    """
    refuse_existing(target, overwrite)
    tile = tile or source.network.preset.tile
    manifest = _manifest(source, tile, name, version, card or Card())
    encode_manifest(manifest)  # checks it, before minutes of work
    run = torch_runner(source.network)
    inputs = {"golden": phantom(tile)} | ({"random": random_tile(tile)} if proof else {})
    try:
        tiles = {name: (arrays, run(arrays)) for name, arrays in inputs.items()}
    except (RuntimeError, ValueError) as error:
        raise ConfigError(
            f"the network cannot be computed on a tile of {' x '.join(map(str, tile))}: {_first_line(error)}.",
            "Choose sides that are multiples of what encoder and head need, such as 32.",
            tile=tile,
        ) from error
    graph = build_graph(source.network, tile)
    logger.info("graph of %d nodes, %.1f MB", len(graph.graph.node), graph.ByteSize() / 1e6)
    if proof:
        prove(graph, tiles, source.network)
    golden = record_golden(inputs["golden"], lambda _: tiles["golden"][1])
    files = {GRAPH: graph.SerializeToString(deterministic=True), GOLDEN: encode_golden(golden)}
    if set(precisions) - {"fp32"}:
        made = make_precisions(graph, manifest, golden, precisions, recipe or Recipe())
        manifest, files = with_precisions(manifest, made), files | serialise(made)
        if told is not None:
            told(made)
    return write_bundle(target, manifest, files, overwrite=overwrite)


def _manifest(source: Source, tile: Triple, name: str, version: str, card: Card) -> Manifest:
    classes = source.network.preset.classes if source.network.head is not None else None
    return Manifest(
        name=name,
        version=version,
        licence=card.licence,
        intended_use=card.intended_use,
        contrasts=("T1w", "FLAIR"),
        reference="FLAIR",
        orientation=card.orientation or source.orientation,
        spacing_mm=card.spacing_mm or source.spacing_mm,
        spacing_tolerance=source.spacing_tolerance if card.spacing_tolerance is None else card.spacing_tolerance,
        normalisation=source.normalisation,
        tile_shape=tile,
        classes=classes,
        lesion_class="lesion" if classes and "lesion" in classes else None,
        **source.levels._asdict(),
        artifacts=(Artifact(path=GRAPH, sha256=UNHASHED, size=1, precision="fp32", kind="onnx"),),
        golden=GoldenFile(path=GOLDEN, sha256=UNHASHED, size=1),
        accuracy=card.accuracy,
        tolerance=card.tolerance,
        training=Training(
            recipe=card.recipe or source.recipe,
            data=card.data,
            studies_seen=tuple(sorted({*card.studies_seen, *source.studies})),
        ),
    )


def _first_line(error: Exception) -> str:
    return str(error).splitlines()[0].rstrip(".")
