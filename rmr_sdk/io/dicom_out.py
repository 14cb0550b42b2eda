"""DICOM objects of a result that came from DICOM, in a folder of their own beside the NIfTI files.

    dicom/fused/0001.dcm ...   the fused volume, a derived MR series
    dicom/segmentation.dcm     labels, where the bundle segments
    dicom/measurements.dcm     volumes and places of lesions, likewise

These are the only outputs that repeat the patient's data, because DICOM requires it.
"""

from __future__ import annotations

from pathlib import Path

from rmr_sdk.io.dicom.extra import load_library, quiet
from rmr_sdk.io.dicom_fused import write_fused
from rmr_sdk.io.dicom_object import find_origin
from rmr_sdk.io.dicom_seg import write_segmentation
from rmr_sdk.io.dicom_sr import write_measurements
from rmr_sdk.result import Result


def check_libraries() -> None:
    """Make sure that DICOM can be written.

    Raises:
        DeviceUnavailableError: A library is not installed.
    """
    for library in ("pydicom", "highdicom"):
        load_library(library)


def write_dicom(folder: Path, result: Result) -> None:
    """Write all objects into a folder that does not exist yet.

    Args:
        folder: Made.
        result: Of a study that was read from DICOM.

    Raises:
        DeviceUnavailableError: A library is not installed.
        OSError: A file cannot be written.
    """
    check_libraries()
    (folder / "fused").mkdir(parents=True)
    with quiet():
        origin = find_origin(result)
        write_fused(folder / "fused", origin)
        if result.labels is not None:
            segmentation = write_segmentation(folder / "segmentation.dcm", origin)
            write_measurements(folder / "measurements.dcm", origin, segmentation)
