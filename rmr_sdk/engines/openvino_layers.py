"""What a compiled OpenVINO network really computes its layers in.

An int8 graph is a request: a layer whose quantisation OpenVINO cannot match runs in floating point, in silence. So the
layers that are run are counted, in the network as it was compiled.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

# Kinds of layers in an executed network, as the CPU plugin names them.
_CONVOLUTIONS = ("Convolution", "Deconvolution", "GroupConvolution", "ConvolutionBackpropData")
_PRODUCTS = ("FullyConnected", "FullyConnectedQuantized", "FullyConnectedQuantizedLegacy", "MatMul")
_INTEGERS = ("i8", "u8")


@dataclass(frozen=True, slots=True)
class LayerCount:
    """How many convolutions and matrix products a network has, and how many of them compute in int8."""

    convolutions: int = 0
    int8_convolutions: int = 0
    products: int = 0
    int8_products: int = 0

    @property
    def int8(self) -> int:
        """Give the layers that compute in int8."""
        return self.int8_convolutions + self.int8_products

    def __str__(self) -> str:
        """Say it in a line."""
        return (
            f"{self.int8_convolutions} of {self.convolutions} convolutions and {self.int8_products} of {self.products} "
            "matrix products in int8"
        )


def count_layers(compiled: Any) -> LayerCount:
    """Count the layers of a compiled network; fused attention is neither a convolution nor a matrix product.

    Args:
        compiled: An `openvino.CompiledModel`.
    """
    counts = [0, 0, 0, 0]
    for node in compiled.get_runtime_model().get_ops():
        facts = node.get_rt_info()
        kind, precision = (facts[key].astype(str) for key in ("layerType", "runtimePrecision"))
        if kind in _CONVOLUTIONS or kind in _PRODUCTS:
            first = 0 if kind in _CONVOLUTIONS else 2
            counts[first] += 1
            counts[first + 1] += precision in _INTEGERS
    return LayerCount(*counts)
