"""Where the project raises its errors, and which of these places the tests of a session have reached.

A place is a `raise` statement. It has been reached once an `RmrError` was made while it ran: by itself, or by a
function that it calls to make its error.
"""

from __future__ import annotations

import ast
import builtins
import importlib.util
import linecache
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rmr_sdk.errors import RmrError

PACKAGES = ("rmr_sdk", "rmr_training", "rmr_export")

_reached: set[tuple[str, int]] = set()


@dataclass(frozen=True, slots=True)
class RaiseSite:
    """One `raise` statement, from its first to its last line."""

    file: str
    first: int
    last: int

    @property
    def reached(self) -> bool:
        """Tell whether an error was made here since `start_recording`."""
        return any((self.file, line) in _reached for line in range(self.first, self.last + 1))

    def __str__(self) -> str:
        line = linecache.getline(self.file, self.first).strip()
        return f"{Path(self.file).parent.name}/{Path(self.file).name}:{self.first}: {line}"


def start_recording() -> None:
    """Note from now on, for every `RmrError` that is made, the lines of the project that are running."""
    original = RmrError.__init__

    def record(self: RmrError, *arguments: Any, **facts: Any) -> None:
        frame = sys._getframe(1)
        while frame is not None:
            _reached.add((frame.f_code.co_filename, frame.f_lineno))
            frame = frame.f_back  # type: ignore[assignment]
        original(self, *arguments, **facts)

    RmrError.__init__ = record  # type: ignore[method-assign]


def installed_packages() -> Iterator[Path]:
    """Give the folders of the project's packages that are installed, wherever they are imported from."""
    for package in PACKAGES:
        spec = importlib.util.find_spec(package)
        if spec is not None and spec.origin is not None:
            yield Path(spec.origin).parent


def raise_sites() -> Iterator[RaiseSite]:
    """Find the places, leaving out those that pass an error on or raise one of Python's own."""
    for folder in installed_packages():
        for file in sorted(folder.rglob("*.py")):
            for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
                if isinstance(node, ast.Raise) and isinstance(node.exc, ast.Call) and not _is_builtin(node.exc.func):
                    yield RaiseSite(str(file), node.lineno, node.end_lineno or node.lineno)


def _is_builtin(function: ast.expr) -> bool:
    return isinstance(function, ast.Name) and hasattr(builtins, function.id)
