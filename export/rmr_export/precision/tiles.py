"""Tiles to calibrate and to check with, one at a time: from real studies, or synthesised from label maps.

Owns which studies are meant, how they are told apart, and which of their tiles are taken. A study is read when its turn
comes and let go before the next.
"""

from __future__ import annotations

import hashlib
from collections.abc import Collection, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from rmr_sdk.cohort.find import CohortStudy, find_studies
from rmr_sdk.errors import ConfigError, InputError, StudyError
from rmr_sdk.inference import plan_study
from rmr_sdk.manifest import Manifest, MinMax
from rmr_sdk.preprocess import Prepared, prepare
from rmr_sdk.study import Study
from rmr_sdk.tiles import TilePlan, extract_tile

FloatArray = NDArray[np.float32]
Tile = dict[str, FloatArray]

OVERLAP = 0.25
"""Of neighbouring tiles, as `Pipeline.run` has it."""


@dataclass(frozen=True, slots=True, eq=False)
class PreparedStudy:
    """A study as the network sees it.

    Attributes:
        name: Of its folder.
        fingerprint: Of the voxels as they were read; the same for a copy under another name.
        study: As it was read.
        prepared: On the network's grid.
        plan: Its tiles.
        folder: Where it was found; None where it is a row of a table.
    """

    name: str
    fingerprint: str
    study: Study
    prepared: Prepared
    plan: TilePlan
    folder: Path | None

    def tile(self, index: int) -> Tile:
        """Cut out a tile: name of the input -> float32 (1, 1, D, H, W)."""
        made = {}
        for contrast, source in self.prepared.arrays.items():
            buffer = np.empty((1, 1, *self.plan.tile_shape), np.float32)
            extract_tile(source, self.plan.tiles[index].origin, buffer, self.prepared.intensity[contrast])
            made[contrast.lower()] = buffer
        return made

    def spread(self, count: int) -> list[int]:
        """Choose `count` tiles, evenly spread over the head; all of them where there are no more."""
        total = len(self.plan.tiles)
        return [int((number + 0.5) * total / count) for number in range(count)] if count < total else list(range(total))


def find_all(paths: Sequence[Path]) -> list[CohortStudy]:
    """Find the studies that paths mean: each a study, or a cohort as `rmr batch` takes it.

    Raises:
        StudyError: A path holds no study.
        FormatError: A table cannot be read.
    """
    found: list[CohortStudy] = []
    for path in paths:
        if path.is_dir() and any(path.glob("*.nii*")):
            found.append(CohortStudy(name=path.resolve().name, folder=path))
        else:
            found += find_studies(path).studies
    return found


def load(entry: CohortStudy, manifest: Manifest) -> PreparedStudy:
    """Read a study and bring it to the network's grid.

    Raises:
        InputError: It cannot be read, lacks a contrast, or has voxels that are not finite; the study is named.
    """
    with naming(entry.name):
        study = entry.load()
        study.require(manifest.contrasts)
        fingerprint = _fingerprint(study, manifest.contrasts)
        prepared = prepare(study, manifest)
        plan = plan_study(prepared, manifest, OVERLAP, threads=1)
    return PreparedStudy(entry.name, fingerprint, study, prepared, plan, entry.folder)


@contextmanager
def naming(name: str) -> Iterator[None]:
    """Say which study an error is about."""
    try:
        yield
    except InputError as error:
        raise type(error)(f'study "{name}": {error.problem}', error.fix, **{**error.facts, "study": name}) from error


@dataclass(slots=True)
class StudyTiles:
    """Some tiles of each of several studies.

    Attributes:
        entries: The studies.
        manifest: Says how they are prepared.
        per_study: Tiles of each.
        fingerprints: Of the studies that have been read.
    """

    entries: Sequence[CohortStudy]
    manifest: Manifest
    per_study: int
    fingerprints: set[str]

    @property
    def names(self) -> tuple[str, ...]:
        """Return the names of the studies."""
        return tuple(entry.name for entry in self.entries)

    def __iter__(self) -> Iterator[tuple[str, Tile]]:
        """Give the name of a study and a tile of it."""
        for entry in self.entries:
            study = load(entry, self.manifest)
            self.fingerprints.add(study.fingerprint)
            for index in study.spread(self.per_study):
                yield study.name, study.tile(index)


@dataclass(frozen=True, slots=True)
class SyntheticTiles:
    """Tiles synthesised from the label maps of a folder, as `rmr-train` makes its patches.

    Attributes:
        folder: Label maps, *.nii.gz.
        manifest: Says the shape and the normalisation of a tile.
        count: Tiles in all; a tile of each map in turn.
        leave_out: Lesion donors whose maps are not used.
        seed: Of all randomness.
    """

    folder: Path
    manifest: Manifest
    count: int
    leave_out: Collection[str] = ()
    seed: int = 0

    def __iter__(self) -> Iterator[tuple[str, Tile]]:
        """Give the name of a label map and a tile made from it."""
        from rmr_training.data import load_label_maps
        from rmr_training.sampling import keyed_generator
        from rmr_training.synthesis import synthesise

        shape = self.manifest.tile_shape
        maps = [item for item in load_label_maps(self.folder) if item.donor not in self.leave_out]
        if not maps:
            raise StudyError("no label map is left to synthesise from.", "Leave fewer donors out.")
        for number in range(self.count):
            chosen = maps[number * len(maps) // self.count if self.count < len(maps) else number % len(maps)]
            made = synthesise(chosen.labels, chosen.lesions, max(shape), keyed_generator(self.seed, number))
            images = {"t1w": made.t1w.numpy(), "flair": made.flair.numpy()}
            yield chosen.name, {name: _crop(image[0], shape, self.manifest) for name, image in images.items()}


def check_count(count: int, what: str) -> int:
    """Refuse a number of tiles that makes no sense.

    Raises:
        ConfigError: It is less than 1.
    """
    if count < 1:
        raise ConfigError(f"{count} {what} are no tiles at all.", "Give a number from 1.", value=count)
    return count


def _crop(image: FloatArray, shape: Sequence[int], manifest: Manifest) -> FloatArray:
    """Cut the middle out of a cube; a network that was trained on min-max images gets their scale."""
    starts = [(length - side) // 2 for length, side in zip(image.shape, shape, strict=True)]
    cut = image[tuple(slice(start, start + side) for start, side in zip(starts, shape, strict=True))]
    if isinstance(manifest.normalisation, MinMax):
        np.divide(np.maximum(cut, 0), max(float(cut.max()), 1e-6), out=cut)
    return np.ascontiguousarray(cut[None, None], np.float32)


def _fingerprint(study: Study, contrasts: Sequence[str]) -> str:
    digest = hashlib.sha256()
    for contrast in contrasts:
        voxels: NDArray[Any] = study[contrast].data
        # Of integers or floats alike, and of any file type they were kept in.
        digest.update(np.ascontiguousarray(voxels, np.float32).tobytes())
    return digest.hexdigest()
