"""The errors that only the export side knows."""

from __future__ import annotations

from rmr_sdk.errors import BundleError


class ExportError(BundleError):
    """A network cannot become a bundle: it cannot be traced, or an engine does not compute what torch computes."""


class PrecisionError(ExportError):
    """A network does not fit into a precision: a weight or a tensor of it leaves the range of its numbers."""


class PlanError(ExportError):
    """An engine was built, and what it does cannot be told from its build log."""


class ToleranceError(ExportError):
    """A precision is further from fp32 than the bundle's tolerance, or its golden tile, allows."""
