"""The licences of what a folder delivers: texts copied out of the wheels, and one table of all of them.

Owns what counts as a licence text and as a named licence. A package that lacks one of the two is reported by name:
nobody may redistribute what nobody licensed.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from wheel_file import WheelFile, WheelhouseError

TEXTS = r"(?i)(^|/)((licen[cs]e|copying|notice|authors|copyright)[^/]*|[^/]*third[-_ ]?party[^/]*)$"
"""Names of files that hold a licence, a notice or the licences of what is compiled in."""

_CODE = (".py", ".pyc", ".pyi", ".so", ".h", ".hpp")


@dataclass(frozen=True, slots=True)
class Notice:
    """A part of the delivery, who may do what with it, and the texts that say so.

    Attributes:
        name: Name of the package or part.
        version: Its version.
        licence: SPDX expression where the part gives one, else the licence's name as it stands in the metadata.
        source: Web page of the part, or empty.
        texts: Contents of the licence files, by relative path.
        kind: "wheel", "compiled in" or "bundle".
    """

    name: str
    version: str
    licence: str
    source: str
    texts: dict[str, bytes]
    kind: str = "wheel"

    @property
    def folder(self) -> str:
        """Name of the folder that holds the texts."""
        return f"{self.name}-{self.version}"


def wheel_notice(wheel: WheelFile) -> Notice:
    """Read the licence of a wheel from its metadata and its files."""
    found = {_short(name): text for name, text in wheel.texts(TEXTS).items() if PurePosixPath(name).suffix not in _CODE}
    return Notice(wheel.name, wheel.version, _licence(wheel), _source(wheel), found)


def check_notices(notices: Iterable[Notice], accepted: Sequence[str] = ()) -> None:
    """Refuse parts without a named licence or without its text.

    Args:
        notices: The parts.
        accepted: Names of packages whose licence a person has looked up and accepts.

    Raises:
        WheelhouseError: Some part lacks a licence or its text; all are named.
    """
    problems = []
    for notice in notices:
        facts = {"a named licence": notice.licence, "a licence text": notice.texts}
        lacks = [word for word, there in facts.items() if not there]
        if lacks and notice.name not in accepted:
            problems.append(f"{notice.name} {notice.version} has not {' or '.join(lacks)}")
    if problems:
        raise WheelhouseError(
            f"Licences are missing: {'; '.join(problems)}. "
            "Look the licence up and pass --accept-licence NAME, or leave the package out."
        )


def write_notices(notices: Sequence[Notice], folder: Path) -> None:
    """Write the texts of every part into a folder of its own, and README.md with the table."""
    for notice in notices:
        for name, text in notice.texts.items():
            path = folder / notice.folder / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(text)
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "README.md").write_text(licence_table(notices), encoding="utf-8")


def licence_table(notices: Sequence[Notice]) -> str:
    """Lay all parts out as a Markdown page."""
    rows = [
        f"| {notice.name} | {notice.version} | {notice.kind} | {notice.licence or 'not given'} | "
        f"{f'[{len(notice.texts)}]({notice.folder}/)' if notice.texts else 'none'} | {notice.source} |"
        for notice in notices
    ]
    return "\n".join(
        [
            "# Licences of this delivery\n",
            "Each part with the licence that its own metadata give, and the texts that came with it.\n",
            "| part | version | kind | licence | texts | source |",
            "| --- | --- | --- | --- | --- | --- |",
            *rows,
            "",
        ]
    )


def _short(name: str) -> str:
    """Leave out the folders that wheels keep licences in; other paths stay, so that names do not meet."""
    return re.sub(r"^[^/]+\.dist-info/(licenses/)?", "", name)


def _licence(wheel: WheelFile) -> str:
    expression = wheel.metadata["License-Expression"]
    if expression:
        return str(expression)
    named = str(wheel.metadata["License"] or "").strip()
    if named and "\n" not in named and len(named) <= 60:
        return named.split(" :: ")[-1]
    classifiers = [line for line in wheel.metadata.get_all("Classifier") or [] if line.startswith("License :: ")]
    return " AND ".join(dict.fromkeys(line.split(" :: ")[-1] for line in classifiers))


def _source(wheel: WheelFile) -> str:
    links = dict(line.split(", ", 1) for line in wheel.metadata.get_all("Project-URL") or [] if ", " in line)
    lower = {name.strip().lower(): link for name, link in links.items()}
    for name in ("source", "source code", "repository", "github", "homepage", "home"):
        if name in lower:
            return lower[name]
    return str(wheel.metadata["Home-page"] or next(iter(links.values()), ""))
