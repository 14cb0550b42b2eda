"""JSON Schemas of what the SDK reads and writes, as docs/ has them."""

from __future__ import annotations

import inspect
import json
from typing import Any

import msgspec


def schema_of(kind: type) -> dict[str, Any]:
    """Return the JSON Schema of a struct; descriptions without the indentation of the docstrings they come from."""
    schema = msgspec.json.schema(kind)
    for definition in schema["$defs"].values():
        if "description" in definition:
            definition["description"] = inspect.cleandoc(definition["description"])
    return schema


def schema_text(kind: type) -> str:
    """Return the JSON Schema of a struct as pretty JSON."""
    return json.dumps(schema_of(kind), indent=2, ensure_ascii=False)
