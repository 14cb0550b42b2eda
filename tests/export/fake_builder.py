"""The builders of every supported version: the very attributes that its bindings have, and a short plan.

A name that a version does not export raises AttributeError here, as it would there.
"""

from __future__ import annotations

import enum
import json
import sys
import types
from pathlib import Path
from typing import Any

import onnx
import pytest

API: dict[str, dict[str, str]] = json.loads((Path(__file__).parent / "data" / "builder_api.json").read_text())

PLAN = (
    "Layers:\nName: conv, LayerType: correlation, Inputs: [ { Name: x, Dimensions: [1,2,4], Strides: [8,4,1], "
    "Datatype: Half, Format: (Linear) Row major }], Outputs: [ { Name: y, Dimensions: [1,2,4], Strides: [8,4,1], "
    "Datatype: Half, Format: (Linear) Row major }], TacticName: t, StreamId: 0, Metadata: [ONNX Layer: node]\n"
)


class FakeBuilder:
    """The module of one version, and what a test wants of it.

    Attributes:
        module: To be found as `tensorrt` or `tensorrt_rtx`.
        fails: What the builder logs when it gives no engine; None where it builds.
        refuses: Operator that the parser refuses.
        silent: Whether the log holds no plan.
        configs: Configuration of each build.
    """

    def __init__(self, version: str, monkeypatch: pytest.MonkeyPatch) -> None:
        runtime, _, number = version.partition(" ")
        self.api, self.runtime = API[version], runtime
        self.fails: str | None = None
        self.refuses: str | None = None
        self.silent = False
        self.configs: list[Any] = []
        self.module = self._module(number)
        for name in ("tensorrt", "tensorrt_rtx"):
            monkeypatch.setitem(sys.modules, name, None)
        monkeypatch.setitem(sys.modules, runtime.replace("-", "_"), self.module)

    def _module(self, number: str) -> Any:
        module: Any = types.ModuleType(self.runtime)
        module.__version__ = number
        for name in ("BuilderFlag", "MemoryPoolType", "NetworkDefinitionCreationFlag", "ProfilingVerbosity"):
            setattr(module, name, enum.IntEnum(name, self.api[name], start=0))
        if "ComputeCapability" in self.api:
            members = {name: name for name in self.api["ComputeCapability"].split()}
            module.ComputeCapability = type("ComputeCapability", (), members)
        module.ILogger = type("ILogger", (), {"VERBOSE": 0, "INFO": 1, "WARNING": 2, "ERROR": 3, "INTERNAL_ERROR": 4})
        module.IProgressMonitor = type("IProgressMonitor", (), {})
        module.Builder = lambda log: self._builder(log)
        module.OnnxParser = lambda network, log: self._parser(log)
        return module

    def strict(self, name: str, **members: Any) -> Any:
        """Make an object that has no attribute beyond those of a class of this version."""
        known = self.api[name].split()
        assert set(members) <= set(known), (name, members)
        kind = type(name, (), {"__slots__": known})
        made = kind()
        for key, value in members.items():
            setattr(made, key, value)
        return made

    def _parser(self, log: Any) -> Any:
        def parse(model: bytes, path: str | None = None) -> bool:
            graph = onnx.load_from_string(model).graph
            found = [node for node in graph.node if node.op_type == self.refuses]
            parser.num_errors = len(found)
            parser.get_error = lambda index: self.strict(
                "ParserError",
                desc=lambda: "no importer",
                node_name=lambda: found[index].name,
                node_operator=lambda: found[index].op_type,
            )
            return not found

        parser = self.strict("OnnxParser", parse=parse)
        return parser

    def _builder(self, log: Any) -> Any:
        return self.strict(
            "Builder",
            create_network=lambda flags: self.strict("INetworkDefinition", flags=flags),
            create_builder_config=self._config,
            build_serialized_network=lambda network, config: self._build(log, config),
        )

    def _config(self) -> Any:
        flags: set[Any] = set()
        config = self.strict(
            "IBuilderConfig",
            set_flag=flags.add,
            clear_flag=flags.discard,
            set_memory_pool_limit=lambda pool, size: setattr(config, "flags", (pool.name, size)),
            create_timing_cache=lambda data: self.strict("ITimingCache", serialize=lambda: data + b"!"),
            set_timing_cache=lambda cache, ignore_mismatch: setattr(config, "get_timing_cache", lambda: cache) or True,
        )
        if "set_compute_capability" in self.api["IBuilderConfig"].split():
            config.set_compute_capability = lambda target, index: True
        self.configs.append(config)
        return config

    def _build(self, log: Any, config: Any) -> bytes | None:
        if self.fails is not None:
            log.log(self.module.ILogger.ERROR, self.fails)
            return None
        monitor = getattr(config, "progress_monitor", None)
        if monitor is not None:
            monitor.phase_start("Building", None, 2)
            for step in range(2):
                assert monitor.step_complete("Building", step) is True
            monitor.phase_finish("Building")
        if not self.silent:
            log.log(self.module.ILogger.VERBOSE, PLAN)
        return b"engine"
