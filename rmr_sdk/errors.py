"""The errors of the SDK: what went wrong with which value, where, and what to do about it.

Every error that a caller can cause derives from `RmrError`, carries the exit code that the command line returns for
it, and keeps the facts behind its message as attributes. Messages name no patient, date or path content beyond what
the caller passed in as a file argument.
"""

from __future__ import annotations

from typing import ClassVar


class RmrError(Exception):
    """Base of all errors that the SDK raises on purpose.

    Args:
        problem: What is wrong with the value, and where.
        fix: What the caller can do, as one sentence.
        facts: The values behind the message; each is also an attribute of the error.
    """

    exit_code: ClassVar[int] = 1

    def __init__(self, problem: str, fix: str = "", **facts: object) -> None:
        super().__init__(f"{problem} {fix}".strip())
        self.problem = problem
        self.fix = fix
        self.facts = facts

    def __getattr__(self, name: str) -> object:
        facts = self.__dict__.get("facts", {})
        if name in facts:
            return facts[name]
        raise AttributeError(f"{type(self).__name__} has no attribute {name!r}")

    def __reduce__(self) -> tuple[object, ...]:
        return _rebuild, (type(self), self.problem, self.fix, self.facts)


def _rebuild(kind: type[RmrError], problem: str, fix: str, facts: dict[str, object]) -> RmrError:
    return kind(problem, fix, **facts)


class InputError(RmrError):
    """What the caller gave cannot be used."""

    exit_code = 3


class StudyError(InputError):
    """A study lacks a contrast, or its contrasts do not belong together."""


class GeometryError(InputError):
    """An affine or a grid makes no sense."""


class FormatError(InputError):
    """A file is not what its name or its header promises."""


class ConfigError(InputError):
    """An option has a value outside its range."""


class BundleError(RmrError):
    """A bundle cannot be used."""

    exit_code = 4


class ManifestError(BundleError):
    """The manifest of a bundle breaks its schema."""


class ChecksumError(BundleError):
    """A file of a bundle is not the one that its manifest describes."""


class EngineMismatchError(BundleError):
    """No artifact of the bundle fits the engine, the device or the precision asked for."""


class EngineError(RmrError):
    """An inference engine failed, or gave a result that the golden tile refutes."""

    exit_code = 5


class DeviceError(RmrError):
    """A device cannot do what was asked of it."""

    exit_code = 5


class DeviceUnavailableError(DeviceError):
    """The device, its driver or its runtime is not there."""


class DeviceMemoryError(DeviceError):
    """The device has too little memory."""


class OutputError(RmrError):
    """A result cannot be written where it was asked for."""

    exit_code = 6


class Cancelled(RmrError):  # noqa: N818 - the caller asked for it: not an error by name
    """The caller cancelled the run."""

    exit_code = 130


class DeadlineExceeded(Cancelled):
    """The run was not done by the deadline that the caller set."""
