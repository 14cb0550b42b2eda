"""A tiny but real bundle: a network of three convolutions that fuses two contrasts and finds what is bright in FLAIR.

The network is written by hand with `onnx.helper`, so that a reader sees what it must give: `fused` is the mean of both
contrasts; `probability` calls dark voxels background, and bright FLAIR lesion. The golden outputs come from ONNX's own
reference evaluator, which shares no code with the engines under test.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper
from onnx.reference import ReferenceEvaluator

from rmr_sdk.bundle import Bundle, write_bundle
from rmr_sdk.golden import FloatArray, GoldenTile, encode_golden, record_golden
from rmr_sdk.manifest import UNHASHED, Artifact, GoldenFile, Manifest, Robust, Training

TILE = (8, 16, 16)
CLASSES = ("background", "csf", "grey_matter", "white_matter", "lesion")
HIDDEN = 8


def make_bundle(
    target: Path, precisions: tuple[str, ...] = ("fp32",), classes: tuple[str, ...] | None = CLASSES, **changes: Any
) -> Bundle:
    """Write the bundle.

    Args:
        target: Folder or `.zip` file.
        precisions: Graphs to write, out of fp32, fp16 and int8.
        classes: None for a network without a segmentation head.
        changes: Fields of the manifest to replace.
    """
    reference = make_graph(classes=classes).SerializeToString()
    files = {f"model.{name}.onnx": make_graph(name, classes).SerializeToString() for name in precisions}
    files["golden.npz"] = encode_golden(make_golden(reference))
    return write_bundle(target, make_manifest(precisions, classes, **changes), files)


def make_manifest(
    precisions: tuple[str, ...] = ("fp32",), classes: tuple[str, ...] | None = CLASSES, **changes: Any
) -> Manifest:
    """Describe the bundle, its hashes apart."""
    unhashed: dict[str, Any] = {"sha256": UNHASHED, "size": 1}
    fields: dict[str, Any] = {
        "name": "tiny",
        "version": "0.1.0",
        "licence": "Apache-2.0",
        "contrasts": ("T1w", "FLAIR"),
        "reference": "FLAIR",
        "orientation": "SAR",
        "spacing_mm": (1.0, 1.0, 1.0),
        "spacing_tolerance": 0.25,
        "normalisation": Robust(),
        "tile_shape": TILE,
        "classes": classes,
        "lesion_class": None if classes is None else "lesion",
        "artifacts": tuple(
            Artifact(path=f"model.{name}.onnx", precision=name, kind="onnx", **unhashed)  # type: ignore[arg-type]
            for name in precisions
        ),
        "golden": GoldenFile(path="golden.npz", **unhashed),
        "training": Training(recipe="Weights written by hand."),
    }
    return Manifest(**{**fields, **changes})


def make_golden(graph: bytes) -> GoldenTile:
    """Run ONNX's reference evaluator on a random tile."""
    evaluator = ReferenceEvaluator(onnx.load_from_string(graph))

    def run(inputs: Mapping[str, FloatArray]) -> dict[str, FloatArray]:
        return dict(zip(evaluator.output_names, evaluator.run(None, dict(inputs)), strict=True))

    return record_golden(random_tile(0), run)


def random_tile(seed: int) -> dict[str, FloatArray]:
    """Draw normalised inputs."""
    rng = np.random.default_rng(seed)
    return {name: rng.uniform(0, 1.5, (1, 1, *TILE)).astype(np.float32) for name in ("t1w", "flair")}


def make_graph(precision: str = "fp32", classes: tuple[str, ...] | None = CLASSES, tile: Any = TILE) -> onnx.ModelProto:
    """Build the network.

    The hidden layer holds the smoothed contrasts in its first two channels, and small random features in the others.
    """
    kind = np.float16 if precision == "fp16" else np.float32
    nodes, constants = [], _weights(kind, classes)
    nodes += [helper.make_node("Concat", ["t1w", "flair"], ["both"], axis=1)]
    source, weight = "both", "hidden.w"
    if precision == "fp16":
        nodes += [helper.make_node("Cast", ["both"], ["both16"], to=TensorProto.FLOAT16)]
        source = "both16"
    quantised = source
    if precision == "int8":
        quantised, weight = _quantise(nodes, constants)
    nodes += [
        helper.make_node("Conv", [quantised, weight, "hidden.b"], ["hidden.y"], kernel_shape=[3] * 3, pads=[1] * 6),
        helper.make_node("Relu", ["hidden.y"], ["hidden"]),
        helper.make_node("Conv", [source, "fused.w"], ["fused.y"], kernel_shape=[1] * 3),
    ]
    outputs = {"fused": ("fused.y", 1)}
    if classes is not None:
        nodes += [
            helper.make_node("Conv", ["hidden", "class.w", "class.b"], ["logits"], kernel_shape=[1] * 3),
            helper.make_node("Softmax", ["logits"], ["probability.y"], axis=1),
        ]
        outputs["probability"] = ("probability.y", len(classes))
    nodes += [helper.make_node("Cast", [last], [name], to=TensorProto.FLOAT) for name, (last, _) in outputs.items()]
    graph = helper.make_graph(
        nodes,
        "tiny",
        [helper.make_tensor_value_info(name, TensorProto.FLOAT, (1, 1, *tile)) for name in ("t1w", "flair")],
        [helper.make_tensor_value_info(name, TensorProto.FLOAT, (1, n, *tile)) for name, (_, n) in outputs.items()],
        [numpy_helper.from_array(array, name) for name, array in constants.items()],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    onnx.checker.check_model(model)
    return model


def _weights(kind: type[np.floating[Any]], classes: tuple[str, ...] | None) -> dict[str, np.ndarray]:
    rng = np.random.default_rng(1)
    hidden = rng.normal(0, 0.05, (HIDDEN, 2, 3, 3, 3))
    hidden[:2] = 0
    hidden[0, 0] = hidden[1, 1] = 1 / 27
    weights = {"hidden.w": hidden, "hidden.b": np.zeros(HIDDEN), "fused.w": np.full((1, 2, 1, 1, 1), 0.5)}
    if classes is not None:
        scores = rng.normal(0, 0.1, (len(classes), HIDDEN, 1, 1, 1))
        scores[:, :2] = 0
        scores[0, :2] = -20.0  # background: dark in both contrasts
        scores[-1, 1] = 30.0  # lesion: bright in FLAIR
        offsets = np.zeros(len(classes))
        offsets[0], offsets[-1] = 10.0, -30.0
        weights |= {"class.w": scores, "class.b": offsets}
    return {name: array.astype(kind) for name, array in weights.items()}


def _quantise(nodes: list[onnx.NodeProto], constants: dict[str, np.ndarray]) -> tuple[str, str]:
    """Put symmetric Q/DQ on the hidden layer: activations per tensor, weights per output channel."""
    weights = constants.pop("hidden.w")
    scales = np.abs(weights).max(axis=(1, 2, 3, 4)) / 127
    constants["hidden.q"] = np.round(weights / scales[:, None, None, None, None]).astype(np.int8)
    constants |= {"hidden.s": scales.astype(np.float32), "hidden.z": np.zeros(HIDDEN, np.int8)}
    constants |= {"both.s": np.float32(1.5 / 127), "both.z": np.int8(0)}
    nodes += [
        helper.make_node("QuantizeLinear", ["both", "both.s", "both.z"], ["both.q"]),
        helper.make_node("DequantizeLinear", ["both.q", "both.s", "both.z"], ["both.dq"]),
        helper.make_node("DequantizeLinear", ["hidden.q", "hidden.s", "hidden.z"], ["hidden.dq"], axis=0),
    ]
    return "both.dq", "hidden.dq"
