"""Studies: the contrasts of one head from one session. Owns how they are named and found, not how files are read."""

from __future__ import annotations

import contextlib
import os
import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from rmr_sdk.errors import GeometryError, InputError, StudyError
from rmr_sdk.io.dicom import holds_dicom, read_study
from rmr_sdk.io.nifti import form_warnings, read_volume
from rmr_sdk.volume import Volume

if TYPE_CHECKING:
    import nibabel

    from rmr_sdk.io.dicom import DicomSource

# From the surest to the vaguest name.
_FILE_NAMES: dict[str, tuple[str, ...]] = {
    "T1w": (r"t1w?", r".*_t1w", r"t1.*"),
    "FLAIR": (r"flair", r".*_flair", r"flair.*"),
}
# Made from a contrast, or with a contrast agent, or a map of relaxation times: not the contrast itself.
_PASSED_OVER = re.compile(r"(^|[_-])(mask|seg|lesion|label|prob|fused)|_ce-|t1[_-]?(ce|gd|post|rho|map|km|c$|c[_-])")


@dataclass(frozen=True, slots=True, eq=False, repr=False)
class Study(Mapping[str, Volume]):
    """Contrast names (BIDS suffixes such as "T1w" and "FLAIR") and their volumes, all in memory.

    Attributes:
        volumes: The volume of each contrast.
        warnings: What is odd about the files; what is about one contrast begins with its name.
        notes: Which series each contrast is, where there was a choice.
        frames: Contrast -> the frame of reference of its positions, as an opaque token: positions of contrasts with
            the same token can be compared, up to movement. None where the files do not say.
        source: What the study was read from, for DICOM outputs; never shown. None where it was not DICOM.
    """

    volumes: Mapping[str, Volume]
    warnings: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()
    frames: Mapping[str, str] | None = None
    source: DicomSource | None = None

    def __getitem__(self, contrast: str) -> Volume:
        return self.volumes[contrast]

    def __iter__(self) -> Iterator[str]:
        return iter(self.volumes)

    def __len__(self) -> int:
        return len(self.volumes)

    def __repr__(self) -> str:
        return f"Study({', '.join(f'{name}={volume!r}' for name, volume in self.volumes.items())})"

    def __post_init__(self) -> None:
        if not self.volumes:
            raise StudyError("the study holds no contrast.", "Pass at least one volume, such as T1w and FLAIR.")

    @property
    def contrasts(self) -> tuple[str, ...]:
        """Return the names of the contrasts."""
        return tuple(self.volumes)

    def require(self, contrasts: Iterable[str]) -> None:
        """Make sure that contrasts are there.

        Raises:
            StudyError: One is missing; `contrast` and `found` say which and what there is instead.
        """
        for contrast in contrasts:
            if contrast not in self.volumes:
                raise StudyError(
                    f'contrast "{contrast}" is missing (found: {_quoted(self.contrasts)}).',
                    f"Pass --{contrast.lower().removesuffix('w')} FILE, or {contrast}=FILE to Study.from_files.",
                    contrast=contrast,
                    found=self.contrasts,
                )

    @classmethod
    def from_files(cls, **files: str | os.PathLike[str]) -> Study:
        """Read one NIfTI file per contrast: `Study.from_files(T1w="t1.nii.gz", FLAIR="flair.nii.gz")`.

        Raises:
            FormatError, GeometryError: As `rmr_sdk.io.nifti.read_volume`.
            StudyError: No file is given.
        """
        return read_files(files, {})

    @classmethod
    def from_folder(cls, folder: str | os.PathLike[str]) -> Study:
        """Find and read the NIfTI files of a T1w and a FLAIR in a folder, or in its `anat` folder (BIDS).

        Where there are not both and the folder holds DICOM files at any depth, or where it is a .zip, it is read as
        `from_dicom` does. The names t1, t1w and flair go before BIDS names (`*_T1w`, `*_FLAIR`), and these before
        names that begin with t1 or flair; masks, segmentations and contrast-enhanced T1 are passed over. Messages
        name no file in the folder, since the caller did not.

        Raises:
            StudyError: No such folder, nothing found, or several files that fit equally well.
            FormatError, GeometryError: As `rmr_sdk.io.nifti.read_volume`.
            RmrError: As `from_dicom`, where it is DICOM.
        """
        root = Path(folder)
        try:
            if is_dicom_study(root):
                return cls.from_dicom(root)
            if not os.path.isdir(root):
                raise StudyError(f'"{os.fspath(folder)}" is not a folder.', "Pass the folder that holds one study.")
            files = {contrast: path for contrast in _FILE_NAMES if (path := _find(root, contrast)) is not None}
        except OSError as error:
            raise StudyError(
                f'"{os.fspath(folder)}" cannot be read: {error.strerror or error}.', "Check its permissions."
            ) from error
        if not files:
            raise StudyError(
                "the folder holds no NIfTI file that is named like a T1w or a FLAIR.",
                "Name them t1.nii.gz and flair.nii.gz, or pass them one by one.",
            )
        return read_files(files, {contrast: f"the {contrast} file of the folder" for contrast in files})

    @classmethod
    def from_dicom(
        cls,
        path: str | os.PathLike[str],
        *,
        t1_series: str | int | None = None,
        flair_series: str | int | None = None,
    ) -> Study:
        """Read the T1w and the FLAIR of a DICOM study with any number of series.

        docs/dicom.md has the rules by which series are chosen, and what is refused. Needs the extra `dicom`.

        Args:
            path: A folder, searched at any depth, or a .zip.
            t1_series: Number, key of `rmr study show`, or UID of the series to take; None to let the rules choose.
            flair_series: The same for the FLAIR.

        Raises:
            DeviceUnavailableError: The extra, or the decoder of a compression, is not installed.
            FormatError: Nothing there is DICOM, or images are damaged.
            StudyError: The files are of several patients or studies, or a contrast cannot be chosen.
            GeometryError: The images of a chosen series are no volume: slices missing, irregular or sheared.
        """
        read = read_study(path, {"T1w": t1_series, "FLAIR": flair_series})
        frames = {name: one.frame_of_reference for name, one in read.source.series.items() if one.frame_of_reference}
        return cls(read.volumes, read.warnings, read.notes, frames or None, read.source)

    @classmethod
    def from_arrays(
        cls, arrays: Mapping[str, npt.NDArray[Any]], *, affine: npt.ArrayLike | Mapping[str, npt.ArrayLike]
    ) -> Study:
        """Take over arrays; nothing is copied.

        Args:
            arrays: Contrast name -> (i, j, k) voxels of a real dtype.
            affine: (4, 4), voxel index -> RAS mm, one for all contrasts or one per contrast name.

        Raises:
            StudyError: No array, or voxels that are not real numbers.
            GeometryError: An affine is missing or makes no sense, or an array is not 3-D.
        """
        affines = affine if isinstance(affine, Mapping) else dict.fromkeys(arrays, affine)
        if missing := [contrast for contrast in arrays if contrast not in affines]:
            raise GeometryError(
                f'contrast "{missing[0]}" has no affine (given for: {_quoted(affines)}).',
                "Pass one affine for all contrasts, or one per contrast.",
                contrast=missing[0],
            )
        volumes = {}
        for contrast, array in arrays.items():
            with naming(contrast):
                volumes[contrast] = Volume(array, np.asarray(affines[contrast]))
        return cls(volumes)

    @classmethod
    def from_images(cls, images: Mapping[str, nibabel.spatialimages.SpatialImage]) -> Study:
        """Take over nibabel images, contrast name -> image.

        Raises:
            StudyError, GeometryError: As `from_arrays`.
        """
        from nibabel import Nifti1Header

        volumes, warnings = {}, []
        for contrast, image in images.items():
            with naming(contrast):
                volumes[contrast] = Volume.from_nibabel(image)
            if isinstance(image.header, Nifti1Header):
                warnings += [f"{contrast}: {warning}" for warning in form_warnings(image.header)]
        return cls(volumes, tuple(warnings))


def is_dicom_study(path: Path) -> bool:
    """Tell whether `Study.from_folder` reads this as DICOM: a .zip, or a folder with DICOM and no NIfTI pair."""
    if path.suffix.lower() == ".zip" and os.path.isfile(path):
        return True
    if not os.path.isdir(path) or all(_find(path, contrast) is not None for contrast in _FILE_NAMES):
        return False
    return holds_dicom(path)


def read_files(files: Mapping[str, str | os.PathLike[str]], labels: Mapping[str, str]) -> Study:
    """Read one NIfTI file per contrast; `labels` says what to call those in messages that must not name the path.

    Raises:
        FormatError, GeometryError: As `rmr_sdk.io.nifti.read_volume`.
        StudyError: No file is given.
    """
    volumes, warnings = {}, []
    for contrast, path in files.items():
        volumes[contrast], odd = read_volume(path, label=labels.get(contrast))
        warnings += [f"{contrast}: {warning}" for warning in odd]
    return Study(volumes, tuple(warnings))


def _find(root: Path, contrast: str) -> Path | None:
    """Return the file of a contrast, judged by its name alone."""
    names = [
        (path, path.name.lower().removesuffix(".gz").removesuffix(".nii"))
        for folder in (root, root / "anat")
        if folder.is_dir()
        for path in sorted(folder.iterdir())
        if path.name.lower().endswith((".nii", ".nii.gz")) and not path.name.startswith(".")
    ]
    for pattern in _FILE_NAMES[contrast]:
        fitting = [path for path, name in names if re.fullmatch(pattern, name) and not _PASSED_OVER.search(name)]
        if len(fitting) > 1:
            raise StudyError(
                f"the folder holds {len(fitting)} files that could be its {contrast}.",
                "Keep one study per folder, or pass the files one by one.",
                contrast=contrast,
            )
        if fitting:
            return fitting[0]
    return None


@contextlib.contextmanager
def naming(contrast: str) -> Iterator[None]:
    """Say which contrast an error is about."""
    try:
        yield
    except InputError as error:
        facts = {**error.facts, "contrast": contrast}
        raise type(error)(f'contrast "{contrast}": {error.problem}', error.fix, **facts) from error


def _quoted(names: Iterable[str]) -> str:
    return ", ".join(f'"{name}"' for name in names) or "none"
