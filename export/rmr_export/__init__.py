"""Export side of RMR SDK: from a checkpoint to a bundle that the runtime runs."""

from __future__ import annotations

from .bundle import Card, export_bundle, read_accuracy, read_card
from .checkpoint import Source, load_authors, load_own
from .errors import ExportError
from .graph import build_graph

__all__ = [
    "Card",
    "ExportError",
    "Source",
    "build_graph",
    "export_bundle",
    "load_authors",
    "load_own",
    "read_accuracy",
    "read_card",
]
