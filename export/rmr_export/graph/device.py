"""Rewrites that make a graph faster on a GPU, and slower or less exact elsewhere: named passes, each exact.

The fp32 graph of a bundle is for every engine. What is typed fp16, and what is built for TensorRT, goes through these
first. Each pass takes an onnx-graphsurgeon graph and changes it in place; a graph in which it finds nothing to do, such
as one that has been through it, is left as it is.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
import onnx
import onnx_graphsurgeon as gs
from numpy.typing import NDArray

from .passes import apply_passes

Array = NDArray[np.generic]

NARROWEST = 9
"""TensorRT fuses attention for this head width and wider ones."""

STEP = 16
"""Head widths are rounded up to a multiple: what its kernels compute in anyway."""

QUANTISERS = ("QuantizeLinear", "DequantizeLinear", "Max")
"""What may stand between a tensor and the int8 layer that reads it: `rmr_export.precision.int8` says why."""


def pad_heads(graph: gs.Graph) -> None:
    """Widen attention heads of up to 8 channels with zeros, so that their attention runs as one kernel.

    Zero channels of q and k add nothing to a score; those of v give zeros, which zero rows of the projection take. The
    scale is in the weights of q and stays that of the true width.
    """
    for split in [node for node in graph.nodes if node.op == "Split"]:
        found = _find_heads(split)
        if found is not None:
            _widen(*found)


def mask_padding(graph: gs.Graph) -> None:
    """Zero the places of padding behind the Gather that fills windows, in place of a row of zeros before qkv.

    Appending a row would be a pass over all tokens of its own; the factor is part of the pass that gathers.
    """
    for concat in [node for node in graph.nodes if node.op == "Concat"]:
        gather = _after(_after(_after(concat, "MatMul"), "Add"), "Gather")
        zeros = _constant(concat, len(concat.inputs) - 1)
        if gather is not None and len(concat.inputs) == 2 and zeros is not None and not zeros.any():
            _mask(graph, concat, gather)


def upsample_by_convolution(graph: gs.Graph) -> None:
    """Turn transposed convolutions with few output channels, whose stride is their kernel, into 1x1x1 convolutions.

    Such a layer gives each voxel of its input to a block of its output. TensorRT computes it with channels padded to a
    multiple of 8 and throws the padding away in passes over the whole output. A convolution to (block * channels), and
    one transposition behind it, computes the same.
    """
    for node in [node for node in graph.nodes if node.op == "ConvTranspose"]:
        if _is_block_upsampling(node) and node.inputs[1].values.shape[1] < STEP // 2:
            _convolve(graph, node)


PASSES: tuple[Callable[[gs.Graph], None], ...] = (mask_padding, pad_heads, upsample_by_convolution)
"""In the order in which `for_device` applies them."""


def for_device(model: onnx.ModelProto, passes: tuple[Callable[[gs.Graph], None], ...] = PASSES) -> onnx.ModelProto:
    """Apply passes to a graph.

    Args:
        model: As `build_graph` gives it, or with Q/DQ nodes.
        passes: What to apply.

    Returns:
        A new model with the same inputs, outputs and defaults; types of tensors between are those of `model`.
    """
    defaults, bare = _take_defaults(model)
    changed = apply_passes(bare, passes)
    changed.graph.initializer.extend(defaults)
    changed.ir_version = model.ir_version
    changed.producer_name, changed.producer_version = model.producer_name, model.producer_version
    del changed.graph.value_info[:]
    return onnx.shape_inference.infer_shapes(changed, check_type=True, strict_mode=True)


def _take_defaults(model: onnx.ModelProto) -> tuple[list[onnx.TensorProto], onnx.ModelProto]:
    """Part a graph from the initializers of its inputs, which graphsurgeon would take for constants."""
    bare = onnx.ModelProto()
    bare.CopyFrom(model)
    ports = {port.name for port in model.graph.input}
    kept = [tensor for tensor in model.graph.initializer if tensor.name not in ports]
    del bare.graph.initializer[:]
    bare.graph.initializer.extend(kept)
    return [tensor for tensor in model.graph.initializer if tensor.name in ports], bare


def _find_heads(split: gs.Node) -> tuple[gs.Node, gs.Node, gs.Node, gs.Node, gs.Node] | None:
    """Find the attention around a Split into q, k and v.

    Returns:
        Product and sum of qkv, the Reshape into heads, the Reshape out of them, and the product of the projection; None
        where it is no attention, or one whose heads are wide enough.
    """
    apart = _before(_before(split, "Transpose"), "Reshape")
    gather = _before(_before(apart, "Mul") or apart, "Gather")
    total = _before(gather or apart, "Add")
    product = _before(total, "MatMul")
    values = _after(split, "MatMul", output=2)
    together = _after(_after(values, "Transpose"), "Reshape")
    projection = _after(_after(together, "Gather") or together, "MatMul")
    if apart is None or total is None or product is None or together is None or projection is None:
        return None
    shape = _constant(apart, 1)
    fixed = (_weight(product), _constant(total, 1), _weight(projection))
    if shape is None or shape.size != 4 or shape[3] >= NARROWEST or any(values is None for values in fixed):
        return None
    return product, total, apart, together, projection


def _widen(product: gs.Node, total: gs.Node, apart: gs.Node, together: gs.Node, projection: gs.Node) -> None:
    *places, heads, width = (int(length) for length in apart.inputs[1].values)
    wide = -(-width // STEP) * STEP
    channels = heads // 3 * wide
    for node, axis in ((product, 1), (total, 0), (projection, 0)):
        restored = _maker(node.inputs[1], "DequantizeLinear")
        reader, place = (restored, 0) if restored else (node, 1)
        _replace(reader, place, _pad(reader.inputs[place].values, axis, width, wide))
        if restored and restored.attrs.get("axis", 1) == axis:  # a scale, never 0, and a zero point for each channel
            _replace(restored, 1, _pad(restored.inputs[1].values, 0, width, wide, fill=1))
            _replace(restored, 2, _pad(restored.inputs[2].values, 0, width, wide))
    _replace(apart, 1, np.array([*places, heads, wide]))
    _replace(together, 1, np.array([-1, channels]))


def _pad(values: Array, axis: int, width: int, wide: int, fill: int = 0) -> Array:
    """Fill up each group of `width` along an axis to `wide`."""
    before, after = values.shape[:axis], values.shape[axis + 1 :]
    groups = values.reshape(*before, -1, width, *after)
    padding = [(0, 0)] * groups.ndim
    padding[axis + 1] = (0, wide - width)
    return np.pad(groups, padding, constant_values=fill).reshape(*before, -1, *after)


def _mask(graph: gs.Graph, concat: gs.Node, gather: gs.Node) -> None:
    kind = concat.inputs[1].values.dtype
    places = gather.inputs[1].values
    source, target = concat.inputs[0], gather.outputs[0]
    padding = places == places.max()
    _replace(gather, 1, np.where(padding, 0, places))
    gathered = gs.Variable(f"{gather.name}.unmasked", np.float32)
    gather.outputs = [gathered]
    real = _make_constant(gather, "real", (~padding).astype(kind)[:, None])
    graph.nodes.append(gs.Node("Mul", f"{gather.name}.mask", inputs=[gathered, real], outputs=[target]))
    for reader in list(concat.outputs[0].outputs):
        reader.inputs[0] = source
    concat.outputs.clear()


def _is_block_upsampling(node: gs.Node) -> bool:
    weight, attributes = _constant(node, 1), node.attrs
    return (
        weight is not None
        and weight.ndim == 5
        and list(attributes.get("strides", ())) == list(weight.shape[2:])
        and not any(attributes.get("pads", ()))
        and not any(attributes.get("output_padding", ()))
        and set(attributes.get("dilations", (1,))) == {1}
        and attributes.get("group", 1) == 1
        and node.inputs[0].shape is not None
    )


def _convolve(graph: gs.Graph, node: gs.Node) -> None:
    source, target, weight = node.inputs[0], node.outputs[0], node.inputs[1].values
    channels, block = weight.shape[1], weight.shape[2:]
    grid = tuple(source.shape[2:])
    count = math.prod(block)
    inputs = [
        source,
        _make_constant(node, "weight", weight.transpose(2, 3, 4, 1, 0).reshape(-1, weight.shape[0], 1, 1, 1)),
    ]
    if len(node.inputs) > 2:
        inputs.append(_make_constant(node, "bias", np.tile(node.inputs[2].values, count)))
    node.outputs.clear()
    # (block, channels) of each voxel first, then the block's axes move behind those of the grid.
    scores = _add(graph, node, "blocks", "Conv", inputs, {"kernel_shape": [1, 1, 1]})
    shapes = [(*block, channels, *grid), (1, channels, *(b * g for b, g in zip(block, grid, strict=True)))]
    apart, together = (np.array(shape) for shape in shapes)
    parts = _add(graph, node, "apart", "Reshape", [scores, _make_constant(node, "apart", apart)])
    moved = _add(graph, node, "moved", "Transpose", [parts], {"perm": [3, 4, 0, 5, 1, 6, 2]})
    graph.nodes.append(
        gs.Node(
            "Reshape",
            f"{node.name}.together",
            inputs=[moved, _make_constant(node, "together", together)],
            outputs=[target],
        )
    )


def _add(
    graph: gs.Graph, node: gs.Node, name: str, op: str, inputs: list[gs.Tensor], attrs: dict[str, object] | None = None
) -> gs.Tensor:
    made = gs.Variable(f"{node.name}.{name}", np.float32)
    graph.nodes.append(gs.Node(op, f"{node.name}.{name}", attrs or {}, inputs, [made]))
    return made


def _make_constant(node: gs.Node, name: str, values: Array) -> gs.Constant:
    return gs.Constant(f"{node.name}.{name}.values", np.ascontiguousarray(values))


def _replace(node: gs.Node, place: int, values: Array) -> None:
    """Give a node a constant of its own: another may read the old one."""
    node.inputs[place] = gs.Constant(f"{node.name}.{node.inputs[place].name}", np.ascontiguousarray(values))


def _before(node: gs.Node | None, op: str) -> gs.Node | None:
    """Return the node that makes the first input of another, where it is of that operator."""
    return _maker(node.inputs[0], op) if node is not None else None


def _maker(tensor: gs.Tensor, op: str) -> gs.Node | None:
    return tensor.inputs[0] if tensor.inputs and tensor.inputs[0].op == op else None


def _after(node: gs.Node | None, op: str, output: int = 0) -> gs.Node | None:
    """Return the only node that reads an output of another, quantised or not, where it is of that operator."""
    readers = node.outputs[output].outputs if node is not None and output < len(node.outputs) else []
    if len(readers) != 1:
        return None
    return _after(readers[0], op) if readers[0].op in QUANTISERS else readers[0] if readers[0].op == op else None


def _constant(node: gs.Node, place: int) -> Array | None:
    tensor = node.inputs[place] if place < len(node.inputs) else None
    return tensor.values if isinstance(tensor, gs.Constant) else None


def _weight(node: gs.Node) -> Array | None:
    """Return what a product multiplies by: its constant in float, or in int8 before the node that restores it."""
    restored = _maker(node.inputs[1], "DequantizeLinear")
    return _constant(restored or node, 0 if restored else 1)
