"""Clean-up of a traced graph: named passes, each exact, each in its own place.

A pass takes an onnx-graphsurgeon graph and changes it in place. What belongs to the arithmetic of a network (windows,
biases, PReLUs) is rewritten before tracing, in `network`; what tracing leaves behind is removed here.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
import onnx
import onnx_graphsurgeon as gs
from onnx_graphsurgeon.logger import G_LOGGER

from rmr_sdk._version import __version__

IR_VERSION = 10
"""Of the file format; the newest that TensorRT 10.3 and ONNX Runtime 1.18 read."""


def fold_constants(graph: gs.Graph) -> None:
    """Compute what depends on constants only, such as reshaped index tables."""
    graph.fold_constants(error_ok=False)


def drop_identities(graph: gs.Graph) -> None:
    """Remove Identity nodes, and Reshape and Transpose nodes that change nothing."""
    for node in graph.nodes:
        if not _is_identity(node) or node.outputs[0] in graph.outputs:
            continue
        source, gone = node.inputs[0], node.outputs[0]
        for reader in list(gone.outputs):
            reader.inputs = [source if tensor is gone else tensor for tensor in reader.inputs]
        node.outputs.clear()


def narrow_indices(graph: gs.Graph) -> None:
    """Keep the indices of Gather nodes as int32: half the size, and what engines compute with."""
    narrowed: dict[str, gs.Constant] = {}
    for node in graph.nodes:
        if node.op == "Gather" and isinstance(node.inputs[1], gs.Constant) and node.inputs[1].dtype == np.int64:
            name, values = f"{node.inputs[1].name}.int32", node.inputs[1].values
            node.inputs[1] = narrowed.setdefault(name, gs.Constant(name, values.astype(np.int32)))


def share_constants(graph: gs.Graph) -> None:
    """Keep one of all constants that are equal bit for bit: both encoders use the same index tables."""
    first: dict[tuple[str, tuple[int, ...], bytes], gs.Constant] = {}
    for node in graph.nodes:
        for place, tensor in enumerate(node.inputs):
            if isinstance(tensor, gs.Constant):
                values = tensor.values
                key = (values.dtype.str, values.shape, values.tobytes())
                node.inputs[place] = first.setdefault(key, tensor)


PASSES: tuple[Callable[[gs.Graph], None], ...] = (fold_constants, drop_identities, narrow_indices, share_constants)
"""In the order in which `tidy` applies them."""


def apply_passes(model: onnx.ModelProto, passes: Sequence[Callable[[gs.Graph], None]]) -> onnx.ModelProto:
    """Apply passes to a graph, and drop what nothing reads any more after each.

    Args:
        model: Left unchanged; none of its inputs has an initializer.
        passes: In this order.
    """
    with G_LOGGER.suppress(G_LOGGER.ERROR):  # its warnings go to stdout, which belongs to the command line
        graph = gs.import_onnx(model)
        for apply in passes:
            apply(graph)
            graph.cleanup().toposort()
        return gs.export_onnx(graph, do_type_check=False)


def tidy(model: onnx.ModelProto) -> onnx.ModelProto:
    """Apply all passes, and leave nothing in the file that is not needed to run it.

    Tracing notes where in which source file every node comes from; paths of the machine do not belong in a bundle.

    Args:
        model: As traced.

    Returns:
        A new model with the same inputs and outputs.
    """
    tidied = apply_passes(model, PASSES)
    tidied.ir_version = IR_VERSION
    tidied.producer_name, tidied.producer_version = "rmr-export", __version__
    tidied.doc_string = tidied.graph.doc_string = ""
    del tidied.metadata_props[:], tidied.graph.metadata_props[:]
    for item in (*tidied.graph.node, *tidied.graph.input, *tidied.graph.output, *tidied.graph.value_info):
        item.doc_string = ""
        del item.metadata_props[:]
    tidied.graph.name = "rmr-fusion"
    return tidied


def _is_identity(node: gs.Node) -> bool:
    if node.op == "Reshape":
        before, after = node.inputs[0].shape, node.outputs[0].shape
        return before is not None and before == after
    return node.op == "Identity" or (node.op == "Transpose" and node.attrs["perm"] == sorted(node.attrs["perm"]))
