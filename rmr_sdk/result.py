"""The result of a run: volumes on the reference contrast's own grid, what was measured in them, and how.

Owns the values and where `save` puts them. The bytes are written by `rmr_sdk.io`; volumes and lesions are computed by
the pipeline.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from os import PathLike
from pathlib import Path
from typing import TYPE_CHECKING

from rmr_sdk.io.files import check_outputs, output_folder
from rmr_sdk.manifest import INTENDED_USE

if TYPE_CHECKING:
    from rmr_sdk.intensity import IntensityMap
    from rmr_sdk.volume import Volume

VOLUME_FILES = {
    "fused": "fused.nii.gz",
    "labels": "labels.nii.gz",
    "lesion_probability": "lesion_probability.nii.gz",
}
"""Volume field of a result -> file name."""

OUTPUT_FILES = (*VOLUME_FILES.values(), "report.json", "report.html", "preview.png")
"""Every file that `Result.save` may write."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Lesion:
    """One connected lesion (26 neighbours).

    Attributes:
        id: 1 for the largest lesion, counting down in volume.
        volume_ml: Volume in millilitres.
        centroid_mm: Centre of mass in RAS+ world coordinates.
        mean_probability: Mean lesion probability over its voxels, 0 to 1.
        voxels: Number of voxels.
    """

    id: int
    volume_ml: float
    centroid_mm: tuple[float, float, float]
    mean_probability: float
    voxels: int


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
        geometry: What was done to bring the contrasts onto one grid, in order.
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
        warnings: What the reader of the result should know, most important first.
        timings: Stage -> wall-clock seconds.
        provenance: What computed it.
        notice: A sentence that every output must carry, such as "simulated data".
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
    warnings: tuple[str, ...] = ()
    timings: Mapping[str, float] = field(default_factory=dict)
    provenance: Provenance
    notice: str = ""

    @property
    def lesion_ml(self) -> float | None:
        """Volume of all lesions in millilitres; None without a segmentation."""
        return None if self.lesions is None else sum(lesion.volume_ml for lesion in self.lesions)

    def save(self, folder: str | PathLike[str], overwrite: bool = False) -> tuple[Path, ...]:
        """Write the volumes, the report and the preview into `folder`, all of them or none.

        Args:
            folder: Made when missing; a folder that exists is fine.
            overwrite: Replace files of an earlier result, and remove those that this result does not have.

        Returns:
            The files written.

        Raises:
            OutputError: A file exists without `overwrite`, or the folder cannot be written; nothing has changed then,
                except where a rename failed between two files of an earlier result.
        """
        from rmr_sdk.io import nifti, report  # Jinja2 and Pillow would slow down `import rmr_sdk`

        folder = Path(folder)
        with output_folder(folder, OUTPUT_FILES, overwrite) as staging:
            for name, file_name in VOLUME_FILES.items():
                volume: Volume | None = getattr(self, name)
                if volume is not None:
                    with open(staging / file_name, "xb") as file:
                        nifti.write_stream(file, volume, gzipped=True, description=self.notice)
            report.write_report(staging, self)
            written = sorted(path.name for path in staging.iterdir())
        return tuple(folder / name for name in written)

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


def check_save(folder: str | PathLike[str], overwrite: bool = False) -> None:
    """Raise now what `Result.save` would raise for `folder` after the run.

    Raises:
        OutputError: A file exists without `overwrite`, or the folder cannot be written.
    """
    check_outputs(Path(folder), OUTPUT_FILES, overwrite)


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
