"""The manifest: the same bytes for the same values, every field checked, and a schema that is current."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st
from tiny_bundle import make_manifest

from rmr_sdk.errors import ManifestError
from rmr_sdk.manifest import (
    UNHASHED,
    Accuracy,
    Artifact,
    DataSource,
    GoldenFile,
    Limit,
    Manifest,
    MinMax,
    Robust,
    Training,
    Window,
    decode_manifest,
    encode_manifest,
    json_schema,
)

SCHEMA = Path(__file__).parents[1] / "docs" / "manifest.schema.json"


def as_json(**changes: Any) -> bytes:
    """Give the JSON of a good manifest with top-level fields replaced, or removed where the value is `...`."""
    fields = json.loads(encode_manifest(make_manifest())) | changes
    return json.dumps({name: value for name, value in fields.items() if value is not ...}).encode()


def test_bytes_come_back_as_the_same_values_and_the_same_bytes() -> None:
    manifest = make_manifest(
        normalisation=MinMax(),
        accuracy=(Accuracy(precision="fp32", study_set="held out", studies=2, metric="lesion_dice", value=0.5),),
        tolerance=(Limit(metric="lesion_dice_drop", maximum=0.005),),
        training=Training(recipe="Two stages.", data=(DataSource(name="a", licence="CC0", citation="b"),)),
    )
    data = encode_manifest(manifest)
    assert decode_manifest(data) == manifest
    assert encode_manifest(decode_manifest(data)) == data
    assert data.endswith(b"}\n")
    assert b'\n  "name": "tiny"' in data


sizes = st.integers(1, 1024)
spacings = st.floats(0.01, 100, allow_nan=False)


@given(
    tile_shape=st.tuples(sizes, sizes, sizes),
    spacing_mm=st.tuples(spacings, spacings, spacings),
    normalisation=st.one_of(
        st.just(MinMax()), st.builds(Robust, percentile=st.floats(0.1, 100), high=st.floats(0.1, 10))
    ),
    orientation=st.permutations(["LR", "AP", "IS"]).flatmap(lambda pairs: st.tuples(*map(st.sampled_from, pairs))),
    recipe=st.text(min_size=1),
)
def test_any_good_manifest_survives(
    tile_shape: Any, spacing_mm: Any, normalisation: Any, orientation: Any, recipe: str
) -> None:
    manifest = make_manifest(
        tile_shape=tile_shape,
        spacing_mm=spacing_mm,
        normalisation=normalisation,
        orientation="".join(orientation),
        training=Training(recipe=recipe),
    )
    assert decode_manifest(encode_manifest(manifest)) == manifest


@pytest.mark.parametrize(
    ("changes", "field"),
    [
        ({"tile_shape": [8, "16", 16]}, "tile_shape[1]"),
        ({"tile_shape": [8, 16]}, "tile_shape"),
        ({"tile_shape": [8, 16, 0]}, "tile_shape[2]"),
        ({"tile_shape": [8, 16, 10**12]}, "tile_shape[2]"),
        ({"spacing_mm": [1, 1, -1]}, "spacing_mm[2]"),
        ({"spacing_mm": [1, 1, None]}, "spacing_mm[2]"),
        ({"spacing_tolerance": -0.1}, "spacing_tolerance"),
        ({"orientation": "LRS"}, "orientation"),
        ({"orientation": "RASR"}, "orientation"),
        ({"orientation": "ras"}, "orientation"),
        ({"name": "../tiny"}, "name"),
        ({"name": 7}, "name"),
        ({"version": "1"}, "version"),
        ({"contrasts": []}, "contrasts"),
        ({"contrasts": ["T1w", 2]}, "contrasts[1]"),
        ({"classes": ["background"]}, "classes"),
        ({"normalisation": {"kind": "histogram"}}, "normalisation.kind"),
        ({"normalisation": {"kind": "robust", "percentile": 0}}, "normalisation.percentile"),
        ({"normalisation": {"kind": "minmax", "percentile": 99}}, "normalisation"),
        ({"window": {"sigma_scale": 0}}, "window.sigma_scale"),
        ({"accuracy": [{"precision": "fp32", "study_set": "a", "metric": "dice", "value": 1}]}, "accuracy[0]"),
        ({"licence": ...}, ""),
        ({"colour": "red"}, ""),
    ],
)
def test_a_wrong_field_is_named(changes: dict[str, Any], field: str) -> None:
    with pytest.raises(ManifestError, match="breaks its schema") as caught:
        decode_manifest(as_json(**changes))
    assert caught.value.field == field


BAD_PATHS = ("../a", "/a", "a/../b", "a/./b", ".a", "a\\b", "a//b", "a/", "", "a\n", "C:a", "a b")


@pytest.mark.parametrize("path", BAD_PATHS)
def test_a_path_stays_inside_the_bundle(path: str) -> None:
    with pytest.raises(ManifestError) as caught:
        decode_manifest(as_json(golden={"path": path, "sha256": UNHASHED, "size": 1}))
    assert caught.value.field == "golden.path"


@pytest.mark.parametrize("sha256", ["", "0" * 63, "0" * 65, "G" * 64, "A" * 64, "0" * 64 + "\n"])
def test_a_sha256_is_64_hexadecimal_digits(sha256: str) -> None:
    with pytest.raises(ManifestError) as caught:
        decode_manifest(as_json(golden={"path": "golden.npz", "sha256": sha256, "size": 1}))
    assert caught.value.field == "golden.sha256"


def test_writing_checks_what_python_did_not() -> None:
    manifest = msgspec.structs.replace(make_manifest(), tile_shape=(8, 16, -16))
    with pytest.raises(ManifestError) as caught:
        encode_manifest(manifest)
    assert caught.value.field == "tile_shape[2]"


def test_names_follow_from_contrasts_and_classes() -> None:
    manifest = make_manifest(("fp32", "int8"))
    assert manifest.input_names == ("t1w", "flair")
    assert manifest.output_names == ("fused", "probability")
    assert make_manifest(classes=None).output_names == ("fused",)
    assert manifest.onnx_precisions == ("fp32", "int8")
    assert [file.path for file in manifest.files] == ["model.fp32.onnx", "model.int8.onnx", "golden.npz"]


def test_an_engine_says_what_it_was_built_for() -> None:
    engine = Artifact(
        path="engines/rtx-fp16.engine",
        sha256=UNHASHED,
        size=1,
        precision="fp16",
        kind="engine",
        runtime="tensorrt-rtx",
        version="1.7.1",
        compute_capabilities=(86, 120),
    )
    manifest = make_manifest(artifacts=(*make_manifest().artifacts, engine))
    assert decode_manifest(encode_manifest(manifest)).artifacts[1] == engine
    assert manifest.onnx_precisions == ("fp32",)


def test_structs_are_frozen() -> None:
    with pytest.raises(AttributeError):
        make_manifest().name = "other"  # type: ignore[misc]
    assert Window().sigma_scale == 0.125
    assert Robust() == Robust(percentile=99.0, floor_fraction=0.02, high=1.5)


def test_the_schema_in_docs_is_current() -> None:
    command = 'python -c "import rmr_sdk.manifest as m; print(m.json_schema())" > docs/manifest.schema.json'
    assert SCHEMA.read_text() == json_schema() + "\n", f"run: {command}"
    assert command in (SCHEMA.parent / "bundle-format.md").read_text()


def test_the_schema_lists_every_field() -> None:
    definition = json.loads(json_schema())["$defs"]["Manifest"]
    assert set(definition["properties"]) == set(Manifest.__struct_fields__)
    assert definition["required"][0] == "schema_version"
    assert definition["additionalProperties"] is False


def test_golden_file_is_required() -> None:
    assert GoldenFile(path="golden.npz", sha256=UNHASHED, size=1) == make_manifest().golden
    with pytest.raises(ManifestError, match="golden"):
        decode_manifest(as_json(golden=...))


LIMITS = (Limit(metric="label_agreement", minimum=0.995), Limit(metric="fused_max_error", maximum=0.1))


def figure(precision: str, metric: str, value: float, study: str = "one") -> Accuracy:
    return Accuracy(precision=precision, study_set=study, studies=1, metric=metric, value=value)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("figures", "precision", "problems"),
    [
        ([], "fp32", []),
        ([], "bf16", ["the accuracy of bf16 against fp32 was not measured"]),
        ([], "fp16", ["the accuracy of fp16 against fp32 was not measured"]),
        ([], "int8", ["the accuracy of int8 against fp32 was not measured"]),
        ([("int8", "lesion_dice", 0.1)], "int8", ["the accuracy of int8 against fp32 was not measured"]),
        ([("int8", "label_agreement", 0.995)], "int8", []),
        ([("fp32", "label_agreement", 0.99)], "fp32", []),
        ([("bf16", "label_agreement", 0.99)], "bf16", ["label_agreement on one is 0.99, below 0.995"]),
        (
            [("int8", "label_agreement", 0.999), ("int8", "fused_max_error", 0.25)],
            "int8",
            ["fused_max_error on one is 0.25, above 0.1"],
        ),
        ([("int8", "label_agreement", float("nan"))], "int8", ["label_agreement on one is nan, below 0.995"]),
    ],
)
def test_what_is_within_tolerance(figures: list[tuple[str, str, float]], precision: str, problems: list[str]) -> None:
    manifest = make_manifest(accuracy=tuple(figure(*each) for each in figures), tolerance=LIMITS)
    assert list(manifest.tolerance_problems(precision)) == problems
    assert manifest.within_tolerance(precision) == (not problems)


def test_every_study_must_hold() -> None:
    figures = figure("int8", "label_agreement", 0.999, "one"), figure("int8", "label_agreement", 0.9, "two")
    manifest = make_manifest(accuracy=figures, tolerance=LIMITS)
    assert manifest.tolerance_problems("int8") == ("label_agreement on two is 0.9, below 0.995",)
