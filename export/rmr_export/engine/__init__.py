"""Engines of TensorRT and TensorRT-RTX: from a graph of a bundle to a file that a GPU runs.

monitor      the log and the progress of a build
build        graph -> engine and plan
artifact     into a bundle
"""

from __future__ import annotations

from .artifact import EngineRequest, add_engine, build_for_bundle, engine_graph, engine_path, refuse_existing
from .build import DEFAULT_TARGETS, BuildOptions, Built, build_engine

__all__ = [
    "DEFAULT_TARGETS",
    "BuildOptions",
    "Built",
    "EngineRequest",
    "add_engine",
    "build_engine",
    "build_for_bundle",
    "engine_graph",
    "engine_path",
    "refuse_existing",
]
