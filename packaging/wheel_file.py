"""Wheels as files: their metadata, what they need, and which machines take them.

Owns what can be read from a wheel without installing it, and the machine that a folder of wheels is made for.
"""

from __future__ import annotations

import email.message
import email.parser
import re
import tarfile
import zipfile
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from packaging.markers import Environment, default_environment
from packaging.requirements import Requirement
from packaging.tags import Tag, compatible_tags, cpython_tags
from packaging.utils import canonicalize_name, parse_wheel_filename

OLDEST_GLIBC = 5
"""Minor version of the oldest glibc 2 that a manylinux tag names."""

_OLD_NAMES = {5: "manylinux1", 12: "manylinux2010", 17: "manylinux2014"}


class WheelhouseError(Exception):
    """A folder for offline delivery cannot be made, or what is in it does not fit together."""


@dataclass(frozen=True, slots=True)
class Target:
    """The machines that a folder is made for: Linux, CPython.

    Attributes:
        python: Version such as "3.11".
        machine: "x86_64" or "aarch64".
        glibc: Minor version of glibc 2 that the machine has at least.
    """

    python: str
    machine: str
    glibc: int

    @property
    def name(self) -> str:
        """Name the target as file names do."""
        return f"cp{self.python.replace('.', '')}-manylinux_2_{self.glibc}_{self.machine}"

    @property
    def platforms(self) -> list[str]:
        """List the platform tags that the machine takes, best first."""
        levels = range(self.glibc, OLDEST_GLIBC - 1, -1)
        names = (name for level in levels for name in (f"manylinux_2_{level}", _OLD_NAMES.get(level)) if name)
        return [f"{name}_{self.machine}" for name in names]

    def takes(self, tags: Iterable[Tag]) -> bool:
        """Tell whether a wheel with these tags installs here."""
        major, minor = (int(part) for part in self.python.split("."))
        known = {
            *cpython_tags((major, minor), platforms=self.platforms),
            *compatible_tags((major, minor), f"cp{major}{minor}", self.platforms),
        }
        return not known.isdisjoint(tags)

    def environment(self, extra: str = "") -> dict[str, str]:
        """Give the values of the environment markers on the target."""
        here: Environment = default_environment()
        return {
            **{key: str(value) for key, value in here.items()},
            "python_version": self.python,
            "python_full_version": f"{self.python}.0",
            "implementation_version": f"{self.python}.0",
            "platform_machine": self.machine,
            "sys_platform": "linux",
            "platform_system": "Linux",
            "os_name": "posix",
            "extra": extra,
        }


@dataclass(frozen=True, slots=True)
class WheelFile:
    """A wheel and what its metadata say."""

    path: Path
    metadata: email.message.Message

    @classmethod
    def read(cls, path: Path) -> WheelFile:
        """Read the metadata of a wheel.

        Raises:
            WheelhouseError: The file is no wheel, or is damaged.
        """
        try:
            with zipfile.ZipFile(path) as archive:
                name = next(name for name in archive.namelist() if re.fullmatch(r"[^/]+\.dist-info/METADATA", name))
                text = archive.read(name).decode("utf-8")
        except (zipfile.BadZipFile, StopIteration) as error:
            raise WheelhouseError(f"{path.name} is not a wheel: it is damaged, or has no metadata.") from error
        return cls(path, email.parser.Parser().parsestr(text))

    @classmethod
    def of_sdist(cls, path: Path) -> WheelFile:
        """Read the metadata of a source archive in the place of those of the wheel that it will become."""
        with tarfile.open(path) as archive:
            member = next(name for name in archive.getnames() if re.fullmatch(r"[^/]+/PKG-INFO", name))
            file = archive.extractfile(member)
            text = file.read().decode("utf-8") if file else ""
        return cls(path, email.parser.Parser().parsestr(text))

    @property
    def name(self) -> str:
        """Name of the package, normalised."""
        return canonicalize_name(self.metadata["Name"])

    @property
    def version(self) -> str:
        """Version of the package."""
        return str(self.metadata["Version"])

    @property
    def tags(self) -> frozenset[Tag]:
        """Tags of the file name."""
        return parse_wheel_filename(self.path.name)[3]

    @property
    def extras(self) -> list[str]:
        """Names of the extras that the package has."""
        return [canonicalize_name(extra) for extra in self.metadata.get_all("Provides-Extra") or []]

    @property
    def glibc(self) -> int:
        """Minor version of the oldest glibc 2 that takes the wheel; `OLDEST_GLIBC` for a wheel of pure Python."""
        levels = (int(found[1]) for tag in self.tags if (found := re.match(r"manylinux_2_(\d+)_", tag.platform)))
        return min(levels, default=OLDEST_GLIBC)

    def requirements(self, target: Target, extras: Iterable[str] = ()) -> Iterator[Requirement]:
        """Give what the package needs on a target with some of its extras; markers are evaluated and dropped."""
        unknown = sorted({canonicalize_name(extra) for extra in extras} - set(self.extras))
        if unknown:
            raise WheelhouseError(f"{self.name} has no extra {', '.join(unknown)}. It has: {', '.join(self.extras)}.")
        for line in self.metadata.get_all("Requires-Dist") or []:
            requirement = Requirement(line)
            marker = requirement.marker
            if marker is None or any(marker.evaluate(target.environment(extra)) for extra in ("", *extras)):
                requirement.marker = None
                yield requirement

    def texts(self, pattern: str) -> dict[str, bytes]:
        """Return the files whose names in the wheel match a regular expression, by name."""
        with zipfile.ZipFile(self.path) as archive:
            names = [name for name in archive.namelist() if not name.endswith("/") and re.search(pattern, name)]
            return {name: archive.read(name) for name in names}


def read_wheels(folder: Path) -> list[WheelFile]:
    """Read every wheel of a folder, in order of their names."""
    return [WheelFile.read(path) for path in sorted(folder.glob("*.whl"))]


def closure(
    roots: Sequence[Requirement], wheels: Iterable[WheelFile], target: Target
) -> tuple[list[WheelFile], list[Requirement]]:
    """Follow requirements through the wheels that are there.

    Returns:
        The wheels that are needed, and the requirements that none of the wheels meets on the target.
    """
    usable = [wheel for wheel in wheels if target.takes(wheel.tags)]
    needed: dict[str, WheelFile] = {}
    missing: dict[str, Requirement] = {}
    done: set[tuple[str, frozenset[str]]] = set()
    queue = list(roots)
    while queue:
        wanted = queue.pop()
        found = next((wheel for wheel in usable if _meets(wheel, wanted)), None)
        if found is None:
            missing[str(wanted)] = wanted
        elif (found.name, frozenset(wanted.extras)) not in done:
            done.add((found.name, frozenset(wanted.extras)))
            needed[found.name] = found
            queue.extend(found.requirements(target, wanted.extras))
    return [needed[name] for name in sorted(needed)], [missing[text] for text in sorted(missing)]


def _meets(wheel: WheelFile, wanted: Requirement) -> bool:
    return wheel.name == canonicalize_name(wanted.name) and wanted.specifier.contains(wheel.version, prereleases=True)
