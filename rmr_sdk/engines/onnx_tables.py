"""Tables of a graph: inputs that carry their own value, such as the region ids of shifted windows.

In ONNX an initializer with the name of an input is that input's default, so such a file runs as it is everywhere. The
parsers of TensorRT and TensorRT-RTX take it for a constant and fold it, which unfolds small tables into masks as large
as the network. Without the initializer they see an input, which the engine is given once.

This takes the initializers out of the serialised file and reads their values. It knows the wire format of protobuf and
a handful of field numbers, so the runtime needs no ONNX package.

Source: https://protobuf.dev/programming-guides/encoding and the field numbers of onnx.proto (ONNX 1.0 to 1.20).
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from rmr_sdk.errors import BundleError

_GRAPH = 7  # ModelProto
_INITIALIZER, _INPUT = 5, 11  # GraphProto
_INPUT_NAME = 1  # ValueInfoProto
_DIMS, _DATA_TYPE, _NAME, _RAW_DATA = 1, 2, 8, 9  # TensorProto
_VARINT, _FIXED64, _BYTES, _FIXED32 = 0, 1, 2, 5
_DTYPES = {1: "f4", 2: "u1", 3: "i1", 6: "i4", 7: "i8", 9: "?", 10: "f2"}
_MAX_SHIFT = 63


@dataclass(frozen=True, slots=True)
class _Field:
    """One field of a message: where it, its value and both end; `value` holds that of a number."""

    number: int
    wire: int
    start: int
    begin: int
    end: int
    value: int


def split_tables(model: bytes) -> tuple[bytes, dict[str, NDArray[Any]]]:
    """Turn the inputs that have a default into inputs without one.

    Args:
        model: A serialised ONNX model.

    Returns:
        The model without the defaults, and their values by name. The model itself where it has none.

    Raises:
        BundleError: The bytes are no ONNX model, or a default is stored in a form that exporters do not write.
    """
    try:
        graph = next(field for field in _fields(model, 0, len(model)) if field.number == _GRAPH)
        fields = list(_fields(model, graph.begin, graph.end))
        inputs = {_text(model, _find(model, field, _INPUT_NAME)) for field in fields if field.number == _INPUT}
        named = [(field, _text(model, _find(model, field, _NAME))) for field in fields if field.number == _INITIALIZER]
        tables = [(field, name) for field, name in named if name in inputs]
        values = {name: _value(model, field) for field, name in tables}
    except (IndexError, StopIteration, UnicodeDecodeError, ValueError, KeyError) as error:
        raise BundleError(f"The graph is no ONNX file that can be read ({error!r}).", "Export it again.") from error
    return (_without(model, graph, [field for field, _ in tables]), values) if tables else (model, {})


def _without(model: bytes, graph: _Field, dropped: list[_Field]) -> bytes:
    kept, position = [], graph.begin
    for field in dropped:
        kept.append(model[position : field.start])
        position = field.end
    kept.append(model[position : graph.end])
    body = b"".join(kept)
    head = _varint(_GRAPH << 3 | _BYTES) + _varint(len(body))
    return b"".join((model[: graph.start], head, body, model[graph.end :]))


def _value(model: bytes, tensor: _Field) -> NDArray[Any]:
    shape: list[int] = []
    for field in _fields(model, tensor.begin, tensor.end):
        if field.number == _DIMS and field.wire == _VARINT:
            shape.append(field.value)
        elif field.number == _DIMS:  # packed
            position = field.begin
            while position < field.end:
                length, position = _read_varint(model, position)
                shape.append(length)
    raw = _find(model, tensor, _RAW_DATA)
    dtype = np.dtype(_DTYPES[_find(model, tensor, _DATA_TYPE).value]).newbyteorder("<")
    return np.frombuffer(model[raw.begin : raw.end], dtype).reshape(shape)


def _find(model: bytes, message: _Field, number: int) -> _Field:
    return next(field for field in _fields(model, message.begin, message.end) if field.number == number)


def _text(model: bytes, field: _Field) -> str:
    return model[field.begin : field.end].decode()


def _fields(model: bytes, position: int, end: int) -> Iterator[_Field]:
    while position < end:
        start = position
        tag, position = _read_varint(model, position)
        number, wire, value = tag >> 3, tag & 7, 0
        begin = position
        if wire == _VARINT:
            value, position = _read_varint(model, position)
        elif wire == _BYTES:
            length, begin = _read_varint(model, position)
            position = begin + length
        elif wire in (_FIXED32, _FIXED64):
            position += 4 if wire == _FIXED32 else 8
        else:
            raise ValueError(f"wire type {wire}")
        if position > end:
            raise ValueError("a field ends behind its message")
        yield _Field(number, wire, start, begin, position, value)


def _read_varint(model: bytes, position: int) -> tuple[int, int]:
    value = shift = 0
    while True:
        byte = model[position]
        position += 1
        value |= (byte & 0x7F) << shift
        if byte < 0x80:
            return value, position
        shift += 7
        if shift > _MAX_SHIFT:
            raise ValueError("a number that does not end")


def _varint(value: int) -> bytes:
    written = bytearray()
    while value > 0x7F:
        written.append(value & 0x7F | 0x80)
        value >>= 7
    written.append(value)
    return bytes(written)
