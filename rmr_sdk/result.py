"""The result of a run: volumes on the reference contrast's own grid, what was measured in them, and how.

Owns the values and where `save` puts them. The bytes are written by `rmr_sdk.io`; volumes and lesions are computed by
the pipeline.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from os import PathLike
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from rmr_sdk.errors import ConfigError
from rmr_sdk.io.files import check_outputs, check_tree, output_folder
from rmr_sdk.manifest import INTENDED_USE

if TYPE_CHECKING:
    from rmr_sdk.align import Alignment
    from rmr_sdk.intensity import IntensityMap
    from rmr_sdk.io.dicom import DicomSource
    from rmr_sdk.volume import Volume

VOLUME_FILES = {
    "fused": "fused.nii.gz",
    "labels": "labels.nii.gz",
    "lesion_probability": "lesion_probability.nii.gz",
}
"""Volume field of a result -> file name."""

REPORT_FILES = {"json": "report.json", "html": "report.html", "preview": "preview.png"}
"""Part of the report -> file name."""

OUTPUT_FILES = (*VOLUME_FILES.values(), *REPORT_FILES.values())
"""Every file that `Result.save` may write, DICOM apart."""

LEAST_DIAMETER_MM = 3.0
"""Least largest diameter of what counts as a lesion of multiple sclerosis: Filippi et al., Brain 142, 2019."""

DICOM_FOLDER = "dicom"
"""Where `Result.save` writes DICOM objects."""

_TREES = {DICOM_FOLDER: re.compile(r"(fused/\d{4,}|segmentation|measurements)\.dcm")}


@dataclass(frozen=True, slots=True, kw_only=True)
class Lesion:
    """One connected lesion (26 neighbours).

    Attributes:
        id: 1 for the largest lesion, counting down in volume.
        volume_ml: Volume in millilitres.
        diameter_mm: Greatest extent in any direction.
        centroid_mm: Centre of mass in RAS+ world coordinates.
        mean_probability: Mean lesion probability over its voxels, 0 to 1.
        voxels: Number of voxels.
        location: One of `rmr_sdk.location.LOCATIONS`; None where it cannot be told.
        reaches_cortex: Whether it touches the cerebral cortex, whatever else it touches.
    """

    id: int
    volume_ml: float
    diameter_mm: float
    centroid_mm: tuple[float, float, float]
    mean_probability: float
    voxels: int
    location: str | None = None
    reaches_cortex: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class QualityCheck:
    """One number that says whether a study, or what was found in it, can be trusted.

    Attributes:
        name: What is checked.
        contrast: The contrast it is about; None for the study.
        value: What was measured.
        unit: Its unit; empty for a ratio or a count.
        least: Least value that is fine; None without one.
        most: Greatest value that is fine; None without one.
        status: "ok" or "warn".
        sentence: What the value means.
    """

    name: str
    contrast: str | None = None
    value: float
    unit: str = ""
    least: float | None = None
    most: float | None = None
    status: Literal["ok", "warn"]
    sentence: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Provenance:
    """What computed a result, so that it can be computed again.

    Attributes:
        bundle: Name of the bundle.
        bundle_version: Its version.
        bundle_hash: sha256 of its manifest.
        engine: Inference engine, such as "openvino".
        engine_reason: Why this engine, device and precision were chosen.
        device: Device it ran on, such as "cpu".
        device_name: What the engine calls that device.
        precision: Precision computed in.
        threads: Threads that computed; None where the device is no CPU.
        overlap: Overlap of neighbouring tiles as a fraction of a tile.
        tiles: Tiles that the engine ran.
        tiles_skipped: Tiles left out because they hold no foreground.
        least_lesion_probability: Mean probability from which on lesions were kept; at 0 all were.
        least_white_matter: Share of white matter around them from which on they were kept, likewise.
        least_lesion_mm3: Volume of what these two and the threshold left of them from which on that was kept, likewise.
        lesion_threshold: Probability from which on voxels of lesions were kept, at the load that was found; at 0 all
            were.
        least_piece: Share of the volume of the largest piece from which on others were kept, where that threshold
            parted a lesion; at 0 all were.
        lesions_dropped: Connected lesions, or pieces of them that a threshold parted, of which nothing was kept: not in
            the labels, and in no figure.
        geometry: What was done to bring the contrasts onto one grid, in order, and which were so flat that they were
            stretched.
        versions: Software name -> version.
    """

    bundle: str
    bundle_version: str
    bundle_hash: str
    engine: str
    engine_reason: str
    device: str
    device_name: str = ""
    precision: str
    threads: int | None = None
    overlap: float
    tiles: int
    tiles_skipped: int = 0
    least_lesion_probability: float = 0.0
    least_white_matter: float = 0.0
    least_lesion_mm3: float = 0.0
    lesion_threshold: float = 0.0
    least_piece: float = 0.0
    lesions_dropped: int = 0
    geometry: tuple[str, ...] = ()
    versions: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Result:
    """What a pipeline found in a study.

    A bundle without a segmentation head gives `fused` alone: every field that needs labels is then None.

    Attributes:
        fused: Fused volume, float32 on the intensity scale of the reference contrast.
        labels: Class of each voxel, uint8 indices into `classes`.
        lesion_probability: Probability of the lesion class, float32, 0 to 1.
        lesions: The lesions, largest first; empty when none was found.
        tissue_ml: Class name -> volume in millilitres, lesions and background left out.
        classes: Class names in label order; class 0 is the background.
        lesion_class: Name of the lesion class within `classes`.
        reference: Contrast whose grid and intensity scale the volumes are on.
        intensity: How the network's values and `fused` belong together.
        inputs: Contrast name -> volume on the reference grid, as shown in the preview.
        alignments: How every contrast but the reference came to lie where it lies, and why.
        quality: What was checked about the study and the result.
        warnings: What the reader of the result should know, most important first; what the checks say comes last.
        timings: Stage -> wall-clock seconds.
        provenance: What computed it.
        notice: A sentence that every output must carry, such as "simulated data".
        source: What the study was read from, for DICOM outputs; None where it was not DICOM.
    """

    fused: Volume
    labels: Volume | None = None
    lesion_probability: Volume | None = None
    lesions: tuple[Lesion, ...] | None = None
    tissue_ml: Mapping[str, float] | None = None
    classes: tuple[str, ...] | None = None
    lesion_class: str | None = None
    reference: str
    intensity: IntensityMap | None = None
    inputs: Mapping[str, Volume] = field(default_factory=dict, repr=False)
    alignments: tuple[Alignment, ...] = ()
    quality: tuple[QualityCheck, ...] = ()
    warnings: tuple[str, ...] = ()
    timings: Mapping[str, float] = field(default_factory=dict)
    provenance: Provenance
    notice: str = ""
    source: DicomSource | None = field(default=None, repr=False)

    @property
    def lesion_ml(self) -> float | None:
        """Volume of all lesions in millilitres; None without a segmentation."""
        return None if self.lesions is None else sum(lesion.volume_ml for lesion in self.lesions)

    def save(self, folder: str | PathLike[str], overwrite: bool = False, dicom: bool | None = None) -> tuple[Path, ...]:
        """Write the volumes, the report and the preview into `folder`, all of them or none.

        Args:
            folder: Made when missing; a folder that exists is fine.
            overwrite: Replace files of an earlier result, and remove those that this result does not have.
            dicom: Whether to write DICOM objects too, into `folder/dicom`; None where the study came from DICOM.

        Returns:
            The files written.

        Raises:
            OutputError: A file exists without `overwrite`, or the folder cannot be written; nothing has changed then.
            ConfigError: DICOM is asked for, and the study did not come from DICOM.
            DeviceUnavailableError: DICOM is to be written, and the extra `dicom` is not installed.
        """
        from rmr_sdk.io import dicom_out, outputs  # Jinja2 and Pillow would slow down `import rmr_sdk`

        folder = Path(folder)
        writes_dicom = _writes_dicom(self.source, dicom)
        with output_folder(folder, OUTPUT_FILES, overwrite, _TREES) as staging:
            outputs.write_outputs(staging, self)
            if writes_dicom:
                dicom_out.write_dicom(staging / DICOM_FOLDER, self)
            written = sorted(path.relative_to(staging) for path in staging.rglob("*") if path.is_file())
        return tuple(folder / path for path in written)

    def __str__(self) -> str:
        """Sum the result up in a few lines."""
        grid = self.fused.grid
        size, spacing = " x ".join(map(str, grid.shape)), " x ".join(f"{mm:.2f}" for mm in grid.spacing_mm)
        made = self.provenance
        lines = [
            f"Lesions:  {describe_lesions(self.lesions)}",
            f"Tissue:   {_describe_tissue(self.tissue_ml)}",
            f"Grid:     {size} voxels of {spacing} mm, axes {grid.orientation} ({self.reference})",
            f"Computed: {made.bundle} {made.bundle_version}, {made.engine} on {made.device}, {made.precision}"
            f" ({sum(self.timings.values()):.1f} s)",
            *(f"Warning:  {warning}" for warning in self.warnings),
            *([f"Notice:   {self.notice}"] if self.notice else []),
            INTENDED_USE,
        ]
        return "\n".join(lines)


def check_save(
    folder: str | PathLike[str],
    overwrite: bool = False,
    dicom: bool | None = False,
    source: DicomSource | None = None,
) -> None:
    """Raise now what `Result.save` would raise for `folder` after the run.

    Args:
        folder: As for `Result.save`, like `overwrite` and `dicom`.
        overwrite: Whether files may be replaced.
        dicom: Whether DICOM will be written; False as long as that is not known.
        source: That of the study.

    Raises:
        OutputError: A file exists without `overwrite`, or the folder cannot be written.
        ConfigError, DeviceUnavailableError: As `Result.save`.
    """
    check_outputs(Path(folder), OUTPUT_FILES, overwrite, _TREES)
    if _writes_dicom(source, dicom):
        from rmr_sdk.io import dicom_out

        dicom_out.check_libraries()
        check_tree(Path(folder) / DICOM_FOLDER, _TREES[DICOM_FOLDER])


def _writes_dicom(source: DicomSource | None, dicom: bool | None) -> bool:
    """Tell whether DICOM is written: as asked for, or where the study came from DICOM."""
    if dicom and source is None:
        raise ConfigError(
            "DICOM outputs refer to DICOM inputs, and this study did not come from DICOM.",
            "Read it with Study.from_dicom, or leave dicom out.",
            option="dicom",
        )
    return source is not None if dicom is None else dicom


def describe_lesions(lesions: tuple[Lesion, ...] | None) -> str:
    """Say in one phrase how many lesions there are and how large."""
    if lesions is None:
        return "Lesions not segmented: this bundle only fuses"
    if not lesions:
        return "No lesion found"
    total, largest = sum(lesion.volume_ml for lesion in lesions), max(lesion.volume_ml for lesion in lesions)
    if len(lesions) == 1:
        return f"1 lesion, {format_ml(total)}"
    return f"{len(lesions)} lesions, {format_ml(total)} in all, the largest {format_ml(largest)}"


def display_name(class_name: str) -> str:
    """Return a class name as readers write it."""
    return "CSF" if class_name == "csf" else class_name.replace("_", " ")


def format_ml(volume_ml: float) -> str:
    """Return a volume with as many digits as it deserves."""
    return f"{volume_ml:.0f} ml" if volume_ml >= 100 else f"{volume_ml:.2f} ml"


def _describe_tissue(tissue_ml: Mapping[str, float] | None) -> str:
    if not tissue_ml:
        return "not segmented"
    return ", ".join(f"{display_name(name)} {format_ml(volume)}" for name, volume in tissue_ml.items())
