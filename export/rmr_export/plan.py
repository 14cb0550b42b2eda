"""The plan of an engine: which kernels run in which types, read from the log of its build.

A verbose build log holds one line a kernel, also on a machine without a GPU. That an engine was built says nothing
about its precision or about what was fused: this does.

    Name: _gemm_mha_v2_myl0_9, LayerType: kgen, Inputs: [ { Name: ..., Dimensions: [756,64,16], ..., Datatype: Half,
    Format: ... }], Constants: [ ... ], Outputs: [ ... ], TacticName: ..., Metadata: [ONNX Layer: node_matmul_2]...

Traffic is modelled: every kernel reads its inputs and constants once and writes its outputs once. Caches make the
real figure smaller, convolutions that read their input more than once make it larger; it ranks forms of one graph.
"""

from __future__ import annotations

import math
import re
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass

import onnx

from .errors import PlanError

PRECISIONS: Mapping[str, str] = {"Half": "fp16", "Float": "fp32", "BFloat16": "bf16", "Int8": "int8", "FP8": "fp8"}
"""Data types that are computed with, as logs name them -> as the product names them."""

_BYTES = {"Half": 2, "BFloat16": 2, "Int8": 1, "Bool": 1, "UInt8": 1, "FP8": 1, "Int64": 8}  # any other: 4
_PRELU_CORE = frozenset({"Relu", "Min", "Max", "PRelu", "Abs"})
_PRELU_REST = frozenset({"Neg", "Mul", "Sub", "Add"})
_KEYS = ("Inputs", "Constants", "Outputs", "TacticName", "ParameterType", "Tactic", "StreamId", "Metadata")

_KERNEL = re.compile(r"Name: (?P<name>.+?), LayerType: (?P<type>\w+), ")
_TENSOR = re.compile(
    r"\{ Name: (?P<name>.*?), (?:Location: \w+, )?Dimensions: \[(?P<shape>[\d,]*)\], .*?"
    r"(?:Format/)?Datatype: (?P<dtype>[^,}]+)(?:, Format: (?P<layout>[^}]*?))?\s*\}"
)
_DTYPES = {"FP16": "Half", "FP32": "Float", "BF16": "BFloat16", "INT8": "Int8", "INT32": "Int32", "INT64": "Int64"}
"""As part of a format, in older logs -> as a type of its own."""
_NODE = re.compile(r"\[ONNX Layer: ([^\]]*)\]")
_TACTIC = re.compile(r"TacticName: ([^,]*),")


@dataclass(frozen=True, slots=True)
class PlanTensor:
    """A tensor that a kernel reads or writes.

    Attributes:
        name: As the builder names it.
        shape: In elements.
        dtype: As the builder names it, such as "Half".
        layout: Such as "(NDHWC) ..."; empty where the log does not say.
    """

    name: str
    shape: tuple[int, ...]
    dtype: str
    layout: str = ""

    @property
    def nbytes(self) -> int:
        """Bytes, without padding."""
        return math.prod(self.shape) * _BYTES.get(self.dtype, 4)


@dataclass(frozen=True, slots=True)
class Kernel:
    """One step of an engine.

    Attributes:
        name: As the builder names it.
        type: Such as "kgen", "gemm", "correlation" (a convolution) or "runtime_fusion".
        inputs: Tensors that an earlier kernel or the caller made.
        constants: Weights, and whatever else was computed at build time.
        outputs: Tensors that it writes.
        tactic: Which implementation, where the log says.
        nodes: Names of the ONNX nodes that it computes, or computes part of.
    """

    name: str
    type: str
    inputs: tuple[PlanTensor, ...]
    constants: tuple[PlanTensor, ...]
    outputs: tuple[PlanTensor, ...]
    tactic: str
    nodes: tuple[str, ...]

    @property
    def traffic(self) -> int:
        """Bytes read and written, each tensor once."""
        return sum({(t.name, t.shape): t.nbytes for t in (*self.inputs, *self.constants, *self.outputs)}.values())

    @property
    def precision(self) -> str:
        """What it computes in: the narrowest type of what it multiplies, or "other" where it only moves integers."""
        found = {PRECISIONS[t.dtype] for t in (*self.inputs, *self.constants) if t.dtype in PRECISIONS and t.shape}
        found = found or {PRECISIONS[t.dtype] for t in self.outputs if t.dtype in PRECISIONS}
        return next((name for name in ("int8", "fp8", "fp16", "bf16", "fp32") if name in found), "other")


@dataclass(frozen=True, slots=True)
class Plan:
    """All kernels of an engine in the order in which they run, beside the graph that it was built from.

    Attributes:
        kernels: One or more.
        operators: Name of each ONNX node -> its operator.
        attentions: For each attention of the graph the names of its two products and of the softmax between them.
    """

    kernels: tuple[Kernel, ...]
    operators: Mapping[str, str]
    attentions: tuple[frozenset[str], ...]

    @property
    def traffic(self) -> int:
        """Modelled bytes read and written for one tile."""
        return sum(kernel.traffic for kernel in self.kernels)

    @property
    def fused_attentions(self) -> int:
        """How many attentions run as one kernel each."""
        covered = [set(kernel.nodes) for kernel in self.kernels]
        return sum(any(nodes <= kernel for kernel in covered) for nodes in self.attentions)

    @property
    def lone_prelus(self) -> tuple[Kernel, ...]:
        """Kernels that compute a PReLU and nothing else: they read and write a whole feature map for it."""
        return tuple(kernel for kernel in self.kernels if self._is_prelu(kernel))

    def _is_prelu(self, kernel: Kernel) -> bool:
        found = {self.operators.get(node, "") for node in kernel.nodes}
        return bool(found & _PRELU_CORE) and found <= _PRELU_CORE | _PRELU_REST

    def precisions(self, *operators: str) -> dict[str, str]:
        """Give the precision in which each node of some operators is computed; a node without a kernel is left out."""
        found: dict[str, str] = {}
        # Generated kernels only prepare a convolution or finish it, and are named after it all the same.
        for kernel in sorted(self.kernels, key=lambda kernel: kernel.type == "kgen"):
            for node in kernel.nodes:
                if self.operators.get(node) in operators:
                    found.setdefault(node, kernel.precision)
        return found

    @property
    def convolutions(self) -> dict[str, str]:
        """Name of each convolution, transposed ones included -> its precision."""
        return self.precisions("Conv", "ConvTranspose")

    def explain(self) -> Iterator[str]:
        """Say in a few lines what the engine does, each with its heading."""
        types = Counter(kernel.type for kernel in self.kernels)
        yield f"kernels: {len(self.kernels)} ({_listing(types)})"
        yield f"attention: {self.fused_attentions} of {len(self.attentions)} fused"
        yield f"prelu: {len(self.lone_prelus)} alone, the others fused"
        yield f"convolutions: {_listing(Counter(self.convolutions.values())) or 'none'}"
        yield f"products: {_listing(Counter(self.precisions('MatMul', 'Gemm').values())) or 'none'}"
        yield f"traffic: {self.traffic / 1e9:.3f} GB a tile, modelled"
        for kernel in sorted(self.kernels, key=lambda kernel: -kernel.traffic)[:5]:
            yield f"  {kernel.traffic / 1e6:8.1f} MB  {kernel.precision:5} {kernel.name}"


def read_plan(log: Iterable[str], model: onnx.ModelProto) -> Plan:
    """Read a verbose build log.

    Args:
        log: Its messages; one may hold several lines.
        model: The graph that was built.

    Raises:
        PlanError: The log holds no plan: it is not verbose, or of a runtime that writes another format.
    """
    lines = (line for message in log for line in message.splitlines())
    kernels = tuple(kernel for line in lines if (kernel := _read_kernel(line)) is not None)
    if not kernels:
        raise PlanError(
            "the build log holds no plan.",
            "Report it with the version of the runtime; the engine itself is not in doubt.",
        )
    return Plan(kernels, {node.name: node.op_type for node in model.graph.node}, find_attentions(model))


def find_attentions(model: onnx.ModelProto) -> tuple[frozenset[str], ...]:
    """Find each softmax between two products, with additions before it: the names of the three nodes."""
    makers = {name: node for node in model.graph.node for name in node.output}
    readers: dict[str, list[onnx.NodeProto]] = {}
    for node in model.graph.node:
        for name in node.input:
            readers.setdefault(name, []).append(node)
    found = []
    for node in model.graph.node:
        if node.op_type == "Softmax":
            before = _first_product([node.input[0]], makers)
            after = _next_product(node.output[0], readers)
            if before and after:
                found.append(frozenset({node.name, before, after}))
    return tuple(found)


def _next_product(name: str, readers: Mapping[str, list[onnx.NodeProto]]) -> str | None:
    """Follow casts to a MatMul."""
    for reader in readers.get(name, ()):
        if reader.op_type == "MatMul":
            return reader.name
        if reader.op_type == "Cast":
            return _next_product(reader.output[0], readers)
    return None


def _first_product(names: list[str], makers: Mapping[str, onnx.NodeProto]) -> str | None:
    """Follow additions, masks, scales and casts back to a MatMul."""
    while names:
        maker = makers.get(names.pop())
        if maker is not None and maker.op_type == "MatMul":
            return maker.name
        if maker is not None and maker.op_type in ("Add", "Mul", "Div", "Cast", "Reshape", "Where"):
            names.extend(reversed(maker.input))
    return None


def _read_kernel(line: str) -> Kernel | None:
    head = _KERNEL.match(line)
    if head is None:
        return None
    tactic = _TACTIC.search(line)
    inputs, constants, outputs = (_read_tensors(line, key) for key in ("Inputs", "Constants", "Outputs"))
    nodes = tuple(dict.fromkeys(_NODE.findall(line)))
    return Kernel(head["name"], head["type"], inputs, constants, outputs, tactic[1] if tactic else "", nodes)


def _read_tensors(line: str, key: str) -> tuple[PlanTensor, ...]:
    start = line.find(f" {key}: [")
    if start < 0:
        return ()
    # The list ends where the next key begins; strides and shapes hold brackets of their own.
    ends = [place for end in _KEYS if (place := line.find(f"], {end}: ", start)) > 0]
    text = line[start : min(ends, default=len(line))]
    return tuple(
        PlanTensor(
            found["name"],
            tuple(int(length) for length in found["shape"].split(",") if length),
            _read_dtype(found["dtype"]),
            (found["layout"] or "").strip(),
        )
        for found in _TENSOR.finditer(text)
    )


def _read_dtype(text: str) -> str:
    """Read "Half", or "Channel major FP16 format" as older logs have it."""
    words = text.split()
    return next((_DTYPES[word] for word in words if word in _DTYPES), words[0])


def _listing(counts: Mapping[str, int]) -> str:
    return ", ".join(f"{count} {name}" for name, count in sorted(counts.items(), key=lambda item: -item[1]))
