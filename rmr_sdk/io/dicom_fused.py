"""The fused volume as a derived MR series: one classic MR Image object per slice, which every PACS takes.

Voxels are 16-bit with one slope and intercept for the whole volume, so that the error is at most half of 1/65535 of
its range. The window is in real values, after slope and intercept, as the standard has it and as scanners with such
images (Philips) write it.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from rmr_sdk.io.dicom.extra import load_library
from rmr_sdk.io.dicom.source import ImageReference, SeriesSource
from rmr_sdk.io.dicom_object import (
    CLASSIC_MR,
    RESEARCH,
    Origin,
    decimal,
    lossy_elements,
    new_dataset,
    new_uid,
    reference_items,
    referenced_series,
)
from rmr_sdk.result import Result

SERIES_NUMBER = 9001
_MOST = 2**16 - 1
_WINDOW = (1.0, 99.5)  # percentiles of the voxels above the lowest that the suggested window spans
_SOURCE_IMAGE = ("121322", "DCM", "Source image for image processing operation")


def write_fused(folder: Path, origin: Origin) -> None:
    """Write `0001.dcm` and so on into a folder that exists.

    Raises:
        OSError: A file cannot be written.
    """
    stored, slope, intercept = to_stored(origin.result.fused.data)
    image = new_dataset(_shared_elements(origin, slope, intercept))
    positions, normal = origin.positions(), np.cross(*np.reshape(origin.cosines(), (2, 3)))
    for k, position in enumerate(positions):
        sources = dict(_sources(origin, k))
        image.SOPInstanceUID = new_uid()
        image.InstanceNumber = k + 1
        image.ImagePositionPatient = [decimal(mm) for mm in position]
        image.SliceLocation = decimal(float(position @ normal))
        image.SourceImageSequence = [_source_item(one) for images in sources.values() for one in images]
        image.ReferencedSeriesSequence = [referenced_series(uid, images) for uid, images in sources.items()]
        image.PixelData = np.ascontiguousarray(stored[:, :, k].T).tobytes()
        save_object(folder / f"{k + 1:04d}.dcm", image)


def to_stored(fused: npt.NDArray[Any]) -> tuple[npt.NDArray[np.uint16], float, float]:
    """Return 16-bit values with the slope and intercept that give the real ones back.

    Slope and intercept are rounded to what DICOM can write before anything is computed with them.
    """
    low, high = float(fused.min()), float(fused.max())
    slope = float(decimal((high - low) / _MOST)) or 1.0
    intercept = float(decimal(low))
    stored = np.clip(np.rint((fused.astype(np.float64) - intercept) / slope), 0, _MOST)
    return stored.astype(np.uint16), slope, intercept


def save_object(path: Path, dataset: Any) -> None:
    """Write a dataset as a DICOM file, Explicit VR Little Endian.

    Raises:
        OSError: It cannot be written.
    """
    pydicom = load_library("pydicom")
    meta = pydicom.dataset.FileMetaDataset()
    meta.MediaStorageSOPClassUID, meta.MediaStorageSOPInstanceUID = dataset.SOPClassUID, dataset.SOPInstanceUID
    meta.TransferSyntaxUID = pydicom.uid.ExplicitVRLittleEndian
    dataset.file_meta = meta
    with open(path, "xb") as file:
        dataset.save_as(file, enforce_file_format=True)


def _shared_elements(origin: Origin, slope: float, intercept: float) -> dict[str, Any]:
    """Return what all images of the series have in common."""
    result, (spacing, step) = origin.result, origin.spacing()
    columns, rows, _ = result.fused.grid.shape
    low, high = _window(result)
    date, time = origin.now.strftime("%Y%m%d"), origin.now.strftime("%H%M%S")
    made = origin.equipment
    return {
        **origin.subject,
        "SpecificCharacterSet": "ISO_IR 192",
        "SOPClassUID": CLASSIC_MR,
        "Modality": "MR",
        "ImageType": ["DERIVED", "SECONDARY", "OTHER", "FUSED"],
        "SeriesInstanceUID": new_uid(),
        "SeriesNumber": SERIES_NUMBER,
        "SeriesDescription": f"{RESEARCH}: fused {' and '.join(result.inputs)}"[:64],
        "SeriesDate": date, "SeriesTime": time, "ContentDate": date, "ContentTime": time,
        "InstanceCreationDate": date, "InstanceCreationTime": time, "AcquisitionNumber": None,
        "Manufacturer": made["manufacturer"], "ManufacturerModelName": made["manufacturer_model_name"],
        "SoftwareVersions": made["software_versions"], "DeviceSerialNumber": made["device_serial_number"],
        "FrameOfReferenceUID": origin.frame_of_reference,
        "PositionReferenceIndicator": origin.series.position_indicator,
        "PatientPosition": origin.series.patient_position,
        "BodyPartExamined": "BRAIN",
        "ContentQualification": RESEARCH,
        "BurnedInAnnotation": "NO",
        "DerivationDescription": f"{' and '.join(result.inputs)} fused by a neural network. {origin.comment}"[:1024],
        "ImageComments": origin.comment,
        "ScanningSequence": "RM", "SequenceVariant": "NONE", "ScanOptions": "", "MRAcquisitionType": "",
        "RepetitionTime": None, "EchoTime": None, "EchoTrainLength": None,
        "PixelSpacing": [decimal(mm) for mm in spacing],
        "SliceThickness": decimal(step), "SpacingBetweenSlices": decimal(step),
        "ImageOrientationPatient": [decimal(value) for value in origin.cosines()],
        "SamplesPerPixel": 1, "PhotometricInterpretation": "MONOCHROME2", "Rows": rows, "Columns": columns,
        "BitsAllocated": 16, "BitsStored": 16, "HighBit": 15, "PixelRepresentation": 0,
        "RescaleSlope": decimal(slope), "RescaleIntercept": decimal(intercept), "RescaleType": "US",
        "WindowCenter": decimal((low + high) / 2), "WindowWidth": decimal(max(high - low, slope)),
        **lossy_elements(origin.series.lossy),
    }  # fmt: skip


def _window(result: Result) -> tuple[float, float]:
    """Return the range of intensities to show at first."""
    fused = result.fused.data
    above = fused[fused > fused.min()]
    low, high = np.percentile(above, _WINDOW) if above.size else (0.0, 1.0)
    return float(low), float(high)


def _sources(origin: Origin, k: int) -> Iterator[tuple[str, list[ImageReference]]]:
    """Give, per series, the images that slice k was computed from: those whose slices touch it."""
    own = origin.series
    for series in origin.source.series.values():
        images = [own.images[k]] if series is own else _touching(own, k, series)
        if images:
            yield series.series, images


def _touching(own: SeriesSource, k: int, other: SeriesSource) -> list[ImageReference]:
    """Return the images of another series whose slices reach into slice k."""
    row = np.linalg.solve(own.affine, other.affine)[2]  # the slice index here of an index there
    reach = [0.0, *(row[axis] * (other.shape[axis] - 1) for axis in (0, 1))]
    centres = row[3] + row[2] * np.arange(other.shape[2])
    half = (1 + abs(row[2])) / 2
    low = centres + min(reach[1], 0) + min(reach[2], 0) - half
    high = centres + max(reach[1], 0) + max(reach[2], 0) + half
    return [other.images[n] for n in np.flatnonzero((low < k) & (k < high))]


def _source_item(image: ImageReference) -> Any:
    value, scheme, meaning = _SOURCE_IMAGE
    code = new_dataset({"CodeValue": value, "CodingSchemeDesignator": scheme, "CodeMeaning": meaning})
    return new_dataset({**reference_items(image), "PurposeOfReferenceCodeSequence": [code]})
