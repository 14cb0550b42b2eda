"""Series and the volumes in them: which images belong together.

A volume has one image at each position. A series that has several there (echoes, magnitude and phase, repetitions) is
split by the first of `_SPLITS` that tells them apart; images of different orientation or size never share a volume.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Hashable, Iterable, Sequence
from dataclasses import dataclass

import numpy as np

from rmr_sdk.io.dicom.headers import FileHeader, Frame
from rmr_sdk.io.dicom.parameters import Parameters
from rmr_sdk.io.dicom.stack import SAME_DIRECTION, Stack, build_stack

_SPLITS: dict[str, Callable[[Frame], Hashable]] = {
    "echo time": lambda frame: frame.parameters.echo_ms,
    "image type": lambda frame: (frame.image_type, frame.component),
    "inversion time": lambda frame: frame.parameters.inversion_ms,
    "diffusion weighting": lambda frame: frame.parameters.b_value,
    "temporal position": lambda frame: frame.temporal,
    "acquisition": lambda frame: frame.acquisition,
    "trigger time": lambda frame: frame.trigger,
}
_NO_NUMBER = 10**9


@dataclass(frozen=True, slots=True, kw_only=True, repr=False, eq=False)
class DicomVolume:
    """The images of a series that make one volume.

    Attributes:
        key: How to name it on the command line: the series number, or the UID where the number is not unique, with
            ".1", ".2" and so on where the series holds several volumes.
        stack: The images in order, with their grid.
    """

    key: str
    stack: Stack

    @property
    def frame(self) -> Frame:
        """Return its first image."""
        return self.stack.frames[0]

    @property
    def file(self) -> FileHeader:
        """Return the header of its first file."""
        return self.frame.file

    @property
    def parameters(self) -> Parameters:
        """Return how it was acquired."""
        return self.frame.parameters

    @property
    def images(self) -> int:
        """Return how many images it has, copies too."""
        return len(self.stack.frames) + len(self.stack.copies)


def group_volumes(frames: Iterable[Frame]) -> list[DicomVolume]:
    """Sort images into series, and these into volumes, in the order of series numbers."""
    series: defaultdict[tuple[str, str], list[Frame]] = defaultdict(list)
    for frame in frames:
        series[frame.file.study, frame.file.series].append(frame)
    ordered = sorted(series.items(), key=lambda item: (_number(item[1][0].file), item[0]))
    numbers = [_number(images[0].file) for _, images in ordered]
    volumes = []
    for (_, uid), images in ordered:
        number = _number(images[0].file)
        unique = number != _NO_NUMBER and numbers.count(number) == 1
        name = str(number) if unique else uid or "without UID"
        stacks = [build_stack(part) for part in split_series(images)] if images[0].file.is_mr_image else []
        stacks = stacks or [Stack(frames=tuple(images))]
        volumes += [
            DicomVolume(key=name if len(stacks) == 1 else f"{name}.{part}", stack=stack)
            for part, stack in enumerate(stacks, start=1)
        ]
    return volumes


def split_series(frames: Sequence[Frame]) -> list[list[Frame]]:
    """Split the images of a series into those of its volumes."""
    parts: list[list[Frame]] = []
    for part in _same_plane(frames):
        parts += _one_a_position(part, list(_SPLITS.values()))
    return parts


def _same_plane(frames: Sequence[Frame]) -> list[list[Frame]]:
    """Group images that lie in parallel planes and have the same size and spacing."""
    groups: list[list[Frame]] = []
    for frame in frames:
        for group in groups:
            if _alike(group[0], frame):
                group.append(frame)
                break
        else:
            groups.append([frame])
    return groups


def _alike(first: Frame, other: Frame) -> bool:
    if first.file.shape != other.file.shape or not _close(first.pixel_mm, other.pixel_mm):
        return False
    return _close(first.cosines, other.cosines)


def _close(values: tuple[float, ...] | None, others: tuple[float, ...] | None) -> bool:
    if values is None or others is None:
        return values is others
    return bool(np.abs(np.subtract(values, others)).max() < SAME_DIRECTION)


def _one_a_position(frames: list[Frame], splits: list[Callable[[Frame], Hashable]]) -> list[list[Frame]]:
    """Split by the first property that tells images at one place apart, and so on, until none does."""
    places: defaultdict[Hashable, list[Frame]] = defaultdict(list)
    for frame in frames:
        places[tuple(round(mm, 2) for mm in frame.position or ())].append(frame)
    for number, split in enumerate(splits):
        if any(len({split(frame) for frame in shared}) > 1 for shared in places.values()):
            parts: defaultdict[Hashable, list[Frame]] = defaultdict(list)
            for frame in frames:
                parts[split(frame)].append(frame)
            ordered = sorted(parts.items(), key=lambda item: _order(item[0]))
            return [deeper for _, part in ordered for deeper in _one_a_position(part, splits[number + 1 :])]
    return [frames]


def _order(value: Hashable) -> tuple[bool, float, str]:
    """Sort numbers by size, then what is not given, then texts."""
    return value is None, value if isinstance(value, float) else 0.0, str(value)


def _number(file: FileHeader) -> int:
    return _NO_NUMBER if file.number is None else file.number
