"""The manifest: the one contract between what is exported and what runs.

Owns the typed structs behind `manifest.json`, their limits, and the conversion from and to bytes. Does not open
files: `rmr_sdk.bundle` does. The structs are checked by msgspec; only what a schema cannot say is checked here.

    manifest.json bytes --decode_manifest--> Manifest --encode_manifest--> the same bytes

The JSON Schema in `docs/manifest.schema.json` is generated from these structs; `docs/bundle-format.md` has the command.
"""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from typing import Annotated, Literal, TypeVar, Union

import msgspec
from msgspec import Meta

from rmr_sdk.errors import ManifestError
from rmr_sdk.json_schema import schema_of

SCHEMA_VERSION: Literal[1] = 1
MANIFEST_NAME = "manifest.json"
UNHASHED = "0" * 64
"""Stands for the sha256 of a file that is still to be written; `rmr_sdk.bundle.write_bundle` fills it in."""
MAX_FILE_BYTES = 2**31 - 1
"""Largest file of a bundle: protobuf, and with it ONNX, ends at 2 GiB."""

MOST_ML = 10_000.0
"""No head has more."""

INTENDED_USE = "Research software, not a medical device. Not for diagnosis or for decisions about treatment."

_Kind = TypeVar("_Kind")

Precision = Literal["fp32", "bf16", "fp16", "int8"]

# A regular expression's `$` also matches before a final line feed; JSON Schema knows no `\Z`.
_END = r"$(?!\n)"

Name = Annotated[str, Meta(pattern=r"^[a-z0-9][a-z0-9._-]*" + _END, max_length=64)]
Text = Annotated[str, Meta(min_length=1)]
Label = Annotated[str, Meta(pattern=r"^[a-z][a-z0-9_]*" + _END, max_length=64)]
Contrast = Annotated[str, Meta(pattern=r"^[A-Za-z][A-Za-z0-9]*" + _END, max_length=32)]
Orientation = Annotated[str, Meta(pattern=r"^(?=.*[LR])(?=.*[AP])(?=.*[IS])[LRAPIS]{3}" + _END)]
Sha256 = Annotated[str, Meta(pattern=r"^[0-9a-f]{64}" + _END)]
Size = Annotated[int, Meta(ge=1, le=MAX_FILE_BYTES)]
RelativePath = Annotated[
    str,
    Meta(
        pattern=r"^[A-Za-z0-9][A-Za-z0-9._+-]*(/[A-Za-z0-9][A-Za-z0-9._+-]*)*" + _END,
        max_length=200,
        description="Inside the bundle, with forward slashes; no part starts with a dot.",
    ),
]
Probability = Annotated[
    float, Meta(ge=0, le=1, description="Mean probability from which on a connected lesion is kept; at 0 all are.")
]
Volume = Annotated[float, Meta(gt=0, le=MOST_ML, description="In millilitres.")]
WHITE_MATTER = "white_matter"
"""Name of the class that `least_white_matter` goes by."""

Share = Annotated[
    float,
    Meta(ge=0, le=1, description="Least share of white matter around a connected lesion that is kept; at 0 all are."),
]
MOST_MM3 = 1000.0
"""Largest least volume of a lesion."""

LeastVolume = Annotated[
    float,
    Meta(ge=0, le=MOST_MM3, description="Least volume, in mm3, of a connected lesion that is kept; at 0 all are."),
]
Extent = Annotated[int, Meta(ge=1, le=1024)]
Spacing = Annotated[float, Meta(gt=0, le=100)]


class MinMax(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True, tag_field="kind", tag="minmax"):
    """Map a contrast as the authors do: clamp at 0, subtract the minimum, divide by the maximum."""


class Robust(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True, tag_field="kind", tag="robust"):
    """Map a percentile of the foreground to 1 and clip.

    Foreground is every voxel above `floor_fraction` of the 99th percentile of the positive ones. A contrast whose
    median is above `most_median` is flat, and is stretched until its median is that.
    """

    percentile: Annotated[float, Meta(gt=0, le=100)] = 99.0
    floor_fraction: Annotated[float, Meta(ge=0, lt=1)] = 0.02
    high: Annotated[float, Meta(gt=0, description="Upper clip, in units of the percentile.")] = 1.5
    most_median: Annotated[
        float, Meta(gt=0, le=1, description="Largest median of the foreground, in the same units; at 1 any.")
    ] = 1.0


Normalisation = Union[MinMax, Robust]  # noqa: UP007 - an alias that msgspec also resolves on Python 3.10


class Window(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The blending window of a tile: one Gaussian per axis."""

    sigma_scale: Annotated[float, Meta(gt=0, le=1, description="Standard deviation over the tile's length.")] = 0.125


class Artifact(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """One executable form of the network."""

    path: RelativePath
    sha256: Sha256
    size: Size
    precision: Precision
    kind: Literal["onnx", "engine"]
    runtime: Literal["tensorrt", "tensorrt-rtx"] | None = None
    version: Text | None = None
    compute_capabilities: tuple[Annotated[int, Meta(ge=50, le=999)], ...] | None = None


class GoldenFile(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The tile and its outputs that every engine must reproduce when first opened."""

    path: RelativePath
    sha256: Sha256
    size: Size


class Accuracy(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """One measured figure, with the number of studies behind it."""

    precision: Precision
    study_set: Text
    studies: Annotated[int, Meta(ge=1)]
    metric: Label
    value: float
    note: str = ""


class Limit(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The range that a metric must stay in for a precision to be chosen automatically."""

    metric: Label
    minimum: float | None = None
    maximum: float | None = None

    def problem(self, figure: Accuracy) -> str | None:
        """Say how a figure of this metric breaks the limit, or None where it holds; NaN never holds."""
        where = f"{figure.metric} on {figure.study_set} is {figure.value:.5g}"
        if self.minimum is not None and not figure.value >= self.minimum:
            return f"{where}, below {self.minimum:g}"
        if self.maximum is not None and not figure.value <= self.maximum:
            return f"{where}, above {self.maximum:g}"
        return None


class LesionThreshold(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Probability from which on a voxel of a lesion is kept, by the lesion volume found before.

    Where there is little lesion, most of what a network is not sure of is none; where there is much, most of it is. Up
    to `small_ml` the probability is `small`, from `large_ml` on `large`; between them it follows the logarithm of the
    volume along a straight line. Where that parts a lesion, its small pieces are dropped: a piece needs the share
    `least_piece` of the volume of the largest.
    """

    small_ml: Volume
    small: Annotated[float, Meta(ge=0, le=1)]
    large_ml: Volume
    large: Annotated[float, Meta(ge=0, le=1)]
    least_piece: Annotated[float, Meta(ge=0, le=1)] = 0.0

    def at(self, found_ml: float) -> float:
        """Return the probability for that volume in millilitres."""
        if found_ml <= self.small_ml:
            return self.small
        if found_ml >= self.large_ml:
            return self.large
        share = math.log(found_ml / self.small_ml) / math.log(self.large_ml / self.small_ml)
        return self.small + share * (self.large - self.small)


class DataSource(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A data set behind the weights."""

    name: Text
    licence: Text
    citation: Text


class Training(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """How the weights were made, and what they have seen."""

    recipe: Text
    data: tuple[DataSource, ...] = ()
    studies_seen: tuple[Text, ...] = ()


class Manifest(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """All that the runtime needs to know about a bundle.

    `tile_shape` and `spacing_mm` follow the network axes (D, H, W), whose directions `orientation` names. Class 0 is
    the background: a tile without foreground counts as certainly that.
    """

    schema_version: Literal[1] = SCHEMA_VERSION
    name: Name
    version: Annotated[str, Meta(pattern=r"^[0-9]+\.[0-9]+\.[0-9]+([.+-][A-Za-z0-9.+-]+)?" + _END, max_length=64)]
    licence: Text
    intended_use: Text = INTENDED_USE
    contrasts: Annotated[tuple[Contrast, ...], Meta(min_length=1, max_length=8)]
    reference: Contrast
    orientation: Orientation
    spacing_mm: tuple[Spacing, Spacing, Spacing]
    spacing_tolerance: Annotated[
        float, Meta(ge=0, le=1, description="Relative difference of spacing that needs no resampling.")
    ]
    normalisation: Normalisation
    tile_shape: tuple[Extent, Extent, Extent]
    window: Window = Window()
    classes: Annotated[tuple[Label, ...], Meta(min_length=2, max_length=256)] | None = None
    lesion_class: Label | None = None
    least_lesion_probability: Probability = 0.0
    least_white_matter: Share = 0.0
    least_lesion_mm3: LeastVolume = 0.0
    lesion_threshold: LesionThreshold | None = None
    artifacts: Annotated[tuple[Artifact, ...], Meta(min_length=1, max_length=256)]
    golden: GoldenFile
    accuracy: tuple[Accuracy, ...] = ()
    tolerance: tuple[Limit, ...] = ()
    training: Training

    @property
    def input_names(self) -> tuple[str, ...]:
        """Names of the graph inputs, in the order of `contrasts`."""
        return tuple(contrast.lower() for contrast in self.contrasts)

    @property
    def output_channels(self) -> dict[str, int]:
        """Name of each graph output -> its channels."""
        return {"fused": 1} if self.classes is None else {"fused": 1, "probability": len(self.classes)}

    @property
    def output_names(self) -> tuple[str, ...]:
        """Names of the graph outputs."""
        return tuple(self.output_channels)

    @property
    def files(self) -> tuple[Artifact | GoldenFile, ...]:
        """Every file of the bundle except the manifest."""
        return (*self.artifacts, self.golden)

    @property
    def onnx_precisions(self) -> tuple[str, ...]:
        """Precisions that the bundle has an ONNX graph for."""
        return tuple(artifact.precision for artifact in self.artifacts if artifact.kind == "onnx")

    def tolerance_problems(self, precision: str) -> tuple[str, ...]:
        """Say why a precision must not be chosen unless it is asked for by name; empty where it may be.

        fp32 is what the others are measured against. Every figure of another whose metric `tolerance` limits must
        hold, and there must be at least one: what was never measured is not within anything.
        """
        if precision == "fp32":
            return ()
        figures = [figure for figure in self.accuracy if figure.precision == precision]
        pairs = [(limit, figure) for figure in figures for limit in self.tolerance if limit.metric == figure.metric]
        if not pairs:
            return (f"the accuracy of {precision} against fp32 was not measured",)
        problems = (limit.problem(figure) for limit, figure in pairs)
        return tuple(problem for problem in problems if problem is not None)

    def within_tolerance(self, precision: str) -> bool:
        """Tell whether a precision may be chosen automatically; `tolerance_problems` says why not."""
        return not self.tolerance_problems(precision)

    def __post_init__(self) -> None:
        """Check what the schema cannot say.

        Raises:
            ManifestError: Two fields contradict each other.
        """
        _check_contrasts(self)
        _check_classes(self)
        _check_artifacts(self)
        _check_files(self)
        if "not a medical device" not in self.intended_use.lower():
            raise _contradiction("intended_use", f'must say "not a medical device", as in "{INTENDED_USE}"')


def decode_manifest(data: bytes) -> Manifest:
    """Read and check a manifest.

    Args:
        data: The bytes of `manifest.json`.

    Returns:
        The manifest; every field has been checked.

    Raises:
        ManifestError: Not JSON, another schema version, or a field that breaks the schema; `field` names it.
    """
    _check_schema_version(data)
    return _decode(data, Manifest)


def encode_manifest(manifest: Manifest) -> bytes:
    """Write a manifest as pretty JSON, the same bytes for the same values.

    Args:
        manifest: May have been built in Python, so its types are checked here.

    Returns:
        UTF-8 JSON, two spaces per level, ending in a line feed.

    Raises:
        ManifestError: A field breaks the schema; `field` names it.
    """
    data = msgspec.json.format(msgspec.json.encode(manifest), indent=2) + b"\n"
    decode_manifest(data)
    return data


def json_schema() -> str:
    """Give the JSON Schema (2020-12) of a manifest as pretty JSON."""
    schema = schema_of(Manifest)
    schema["$defs"]["Manifest"]["required"].insert(0, "schema_version")
    return json.dumps({"$schema": "https://json-schema.org/draft/2020-12/schema", **schema}, indent=2)


class _Header(msgspec.Struct):
    schema_version: Annotated[int, Meta(ge=1)]


def _check_schema_version(data: bytes) -> None:
    found = _decode(data, _Header).schema_version
    if found != SCHEMA_VERSION:
        raise ManifestError(
            f"{MANIFEST_NAME} has schema version {found}; this rmr_sdk reads version {SCHEMA_VERSION}.",
            "Update rmr-sdk, or export the bundle again with the matching rmr-export.",
            field="schema_version",
            found=found,
            supported=SCHEMA_VERSION,
        )


def _decode(data: bytes, kind: type[_Kind]) -> _Kind:
    try:
        return msgspec.json.decode(data, type=kind)
    except msgspec.ValidationError as error:
        problem, _, path = str(error).partition(" - at ")
        field = path.strip("`").removeprefix("$").removeprefix(".")
        where = f" at {field}" if field else ""
        raise ManifestError(
            f"{MANIFEST_NAME} breaks its schema{where}: {problem}.", "See docs/bundle-format.md.", field=field
        ) from error
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise ManifestError(
            f"{MANIFEST_NAME} is not readable JSON: {error}.", "Export the bundle again or restore the file.", field=""
        ) from error


def _contradiction(field: str, problem: str) -> ManifestError:
    return ManifestError(f"{MANIFEST_NAME}: {field} {problem}.", "See docs/bundle-format.md.", field=field)


def _check_contrasts(manifest: Manifest) -> None:
    if len(set(manifest.input_names)) < len(manifest.contrasts):
        raise _contradiction("contrasts", f"must differ, also in lower case, but are {_quote(manifest.contrasts)}")
    if manifest.reference not in manifest.contrasts:
        raise _contradiction(
            "reference", f'is "{manifest.reference}", which is none of the contrasts {_quote(manifest.contrasts)}'
        )


def _check_classes(manifest: Manifest) -> None:
    classes = manifest.classes
    if classes is not None and (classes[0] != "background" or len(set(classes)) < len(classes)):
        raise _contradiction("classes", f'must begin with "background" and differ, but are {_quote(classes)}')
    if manifest.lesion_class is not None and manifest.lesion_class not in (classes or ())[1:]:
        raise _contradiction(
            "lesion_class", f'is "{manifest.lesion_class}", which is no foreground class of {_quote(classes or ())}'
        )

    threshold = manifest.lesion_threshold
    if threshold is not None and threshold.large_ml <= threshold.small_ml:
        raise _contradiction("lesion_threshold", "needs a large_ml above its small_ml")
    if threshold is not None and manifest.lesion_class is None:
        raise _contradiction("lesion_threshold", "is there, but there is no lesion_class")
    for field in ("least_lesion_probability", "least_white_matter", "least_lesion_mm3"):
        if getattr(manifest, field) > 0 and manifest.lesion_class is None:
            raise _contradiction(field, "is above 0, but there is no lesion_class")
    if manifest.least_white_matter > 0 and WHITE_MATTER not in (classes or ()):
        raise _contradiction("least_white_matter", f'is above 0, but there is no class "{WHITE_MATTER}"')


def _check_artifacts(manifest: Manifest) -> None:
    precisions = manifest.onnx_precisions
    if not precisions:
        raise _contradiction("artifacts", 'must hold at least one of kind "onnx"')
    if len(set(precisions)) < len(precisions):
        raise _contradiction("artifacts", f"hold more than one ONNX graph of a precision: {_quote(precisions)}")
    for index, artifact in enumerate(manifest.artifacts):
        facts = (artifact.runtime, artifact.version, artifact.compute_capabilities)
        if artifact.kind == "engine" and not all(facts):
            raise _contradiction(f"artifacts[{index}]", "is an engine and needs runtime, version, compute_capabilities")
        if artifact.kind == "onnx" and facts != (None, None, None):
            raise _contradiction(
                f"artifacts[{index}]", "is a graph, which has no runtime, version, compute_capabilities"
            )


def _check_files(manifest: Manifest) -> None:
    seen = {MANIFEST_NAME}
    for file in manifest.files:
        if file.path.lower() in seen:
            raise _contradiction("path", f'"{file.path}" is named twice, or is the manifest itself')
        seen.add(file.path.lower())


def _quote(names: Sequence[str]) -> str:
    return ", ".join(f'"{name}"' for name in names) or "(none)"
