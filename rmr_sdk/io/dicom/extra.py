"""The libraries behind the extra `dicom`: imported when DICOM is read or written, never before, and kept quiet.

pydicom and highdicom quote header values in warnings and log lines, a patient's name among them. Every call of them
belongs into `quiet`.
"""

from __future__ import annotations

import importlib
import logging
import struct
import warnings
import zipfile
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from typing import Any

from rmr_sdk.errors import DeviceUnavailableError

EXTRA = 'Run: pip install "rmr-sdk[dicom]".'
"""How to install what DICOM needs."""

_SILENT = logging.CRITICAL + 1


def load_library(name: str) -> Any:
    """Return `pydicom` or `highdicom`.

    Raises:
        DeviceUnavailableError: It is not installed.
    """
    try:
        return importlib.import_module(name)
    except ImportError as error:
        raise DeviceUnavailableError(f"DICOM needs {name}, which is not installed.", EXTRA, library=name) from error


@cache
def damage_errors() -> tuple[type[Exception], ...]:
    """Return what pydicom and its decoders raise on values, files and archives that are damaged."""
    from pydicom.errors import BytesLengthException, InvalidDicomError

    return (
        *(AttributeError, EOFError, LookupError, NotImplementedError, OverflowError, RuntimeError, TypeError),
        *(ValueError, OSError, struct.error, zipfile.BadZipFile, zlib.error, BytesLengthException, InvalidDicomError),
    )


@contextmanager
def quiet() -> Iterator[None]:
    """Keep the libraries from warning and logging, and let them take values that break the standard's rules."""
    from pydicom.config import disable_value_validation

    loggers = [logging.getLogger(name) for name in ("pydicom", "highdicom")]
    levels = [logger.level for logger in loggers]
    with warnings.catch_warnings(), disable_value_validation():
        warnings.simplefilter("ignore")
        try:
            for logger in loggers:
                logger.setLevel(_SILENT)
            yield
        finally:
            for logger, level in zip(loggers, levels, strict=True):
                logger.setLevel(level)
