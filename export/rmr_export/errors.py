"""The error that only the export side knows."""

from __future__ import annotations

from rmr_sdk.errors import BundleError


class ExportError(BundleError):
    """A network cannot become a bundle: it cannot be traced, or an engine does not compute what torch computes."""
