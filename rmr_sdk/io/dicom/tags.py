"""Header values as plain Python: what is absent, empty or breaks the standard's rules is None or empty, never an error.

Values come from a chain of datasets, the first that has one counts: an image's own groups before those that all
images of a multi-frame file share.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, MutableSequence
from functools import cache
from typing import Any

from rmr_sdk.io.dicom.extra import damage_errors


@cache
def _tag(keyword: str) -> Any:
    """Return the tag of a keyword: pydicom finds an element by it several times as fast."""
    from pydicom.datadict import tag_for_keyword
    from pydicom.tag import Tag

    return Tag(tag_for_keyword(keyword))


class Tags:
    """Values of a chain of pydicom datasets."""

    def __init__(self, *datasets: Any) -> None:
        self._datasets = datasets

    def text(self, keyword: str) -> str:
        """Return a value as text without surrounding blanks; several values are joined as DICOM does."""
        return "\\".join(self.texts(keyword))

    def texts(self, keyword: str) -> tuple[str, ...]:
        """Return each of several values as text."""
        return tuple(text for value in self._values(keyword) if (text := str(value).strip(" \0")))

    def number(self, keyword: str) -> float | None:
        """Return the first value as a finite number."""
        values = self.numbers(keyword)
        return values[0] if values else None

    def numbers(self, keyword: str, count: int | None = None) -> tuple[float, ...] | None:
        """Return all values as finite numbers; None where there are none, or not as many as asked for."""
        try:
            values = tuple(float(value) for value in self._values(keyword))
        except damage_errors():
            return None
        usual = values and all(map(math.isfinite, values)) and count in (None, len(values))
        return values if usual else None

    def integer(self, keyword: str, default: int = 0) -> int:
        """Return the first value as an integer."""
        value = self.number(keyword)
        return default if value is None else int(value)

    def items(self, keyword: str) -> list[Any]:
        """Return the datasets of a sequence."""
        tag = _tag(keyword)
        for dataset in self._datasets:
            try:
                found = dataset[tag].value
            except damage_errors():
                continue
            if found:
                return list(found)
        return []

    def __contains__(self, keyword: str) -> bool:
        """Tell whether there is a value that is not empty."""
        return bool(self.texts(keyword))

    def _values(self, keyword: str) -> Iterator[Any]:
        tag = _tag(keyword)
        for dataset in self._datasets:
            try:
                value = dataset[tag].value
            except damage_errors():
                continue
            if value is None or value == "":
                continue
            yield from value if isinstance(value, MutableSequence) else [value]
            return
