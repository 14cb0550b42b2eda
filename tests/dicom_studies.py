"""DICOM series made from volumes, as scanners write them: classic and enhanced, in order or not.

The geometry is written down anew here, from the standard's formula, so that it can judge the reader's.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pydicom
from pydicom.dataset import Dataset, FileDataset, FileMetaDataset
from pydicom.uid import ExplicitVRLittleEndian, generate_uid

from rmr_sdk.volume import Volume

LPS = np.diag([-1.0, -1.0, 1.0, 1.0])

SUBJECT = {
    "PatientName": "Doppelganger^Jacqueline",
    "PatientID": "SECRET-4711",
    "PatientBirthDate": "19700203",
    "PatientSex": "F",
    "StudyInstanceUID": "2.25.1001",
    "StudyDate": "20260102",
    "StudyTime": "101500",
    "StudyID": "77",
    "AccessionNumber": "ACC9",
    "ReferringPhysicianName": "Housekeeper^Greg",
}
SECRETS = ("Doppelganger", "Jacqueline", "SECRET-4711", "19700203", "Housekeeper")
"""Words that only DICOM objects may repeat."""

T1: dict[str, Any] = {
    "SeriesDescription": "t1_mprage_sag",
    "ScanningSequence": ["GR", "IR"],
    "SequenceVariant": ["SK", "SP", "MP"],
    "MRAcquisitionType": "3D",
    "RepetitionTime": 2300.0,
    "EchoTime": 2.98,
    "InversionTime": 900.0,
    "FlipAngle": 9.0,
}
FLAIR: dict[str, Any] = {
    "SeriesDescription": "t2_flair_tra_dark-fluid",
    "ScanningSequence": ["SE", "IR"],
    "SequenceVariant": ["SK", "SP"],
    "MRAcquisitionType": "2D",
    "RepetitionTime": 9000.0,
    "EchoTime": 120.0,
    "InversionTime": 2500.0,
    "FlipAngle": 150.0,
}

Change = Callable[[int, Dataset], None]


def geometry(volume: Volume) -> tuple[list[float], list[float], np.ndarray, float]:
    """Return cosines, pixel spacing (rows, columns), the position of each slice and the step, in LPS."""
    affine = LPS @ volume.affine
    column, row, step = affine[:3, 0], affine[:3, 1], affine[:3, 2]
    cosines = [*(column / np.linalg.norm(column)), *(row / np.linalg.norm(row))]
    positions = affine[:3, 3] + np.arange(volume.data.shape[2])[:, None] * step
    return cosines, [np.linalg.norm(row), np.linalg.norm(column)], positions, float(np.linalg.norm(step))


def series_header(
    volume: Volume, number: int, parameters: Mapping[str, Any], subject: Mapping[str, str], series: str
) -> Dataset:
    """Return what all images of a series share."""
    header = Dataset()
    header.SpecificCharacterSet = "ISO_IR 192"
    for keyword, value in {**SUBJECT, **subject, **parameters}.items():
        setattr(header, keyword, value)
    header.Modality = parameters.get("Modality", "MR")
    header.Manufacturer = "Test"
    header.SeriesInstanceUID, header.SeriesNumber = series, number
    header.FrameOfReferenceUID = parameters.get("FrameOfReferenceUID", "2.25.2002")
    header.PositionReferenceIndicator = ""
    header.SamplesPerPixel, header.PhotometricInterpretation = 1, "MONOCHROME2"
    header.Rows, header.Columns = volume.data.shape[1], volume.data.shape[0]
    header.BitsAllocated = 8 * volume.data.itemsize
    header.BitsStored, header.HighBit = header.BitsAllocated, header.BitsAllocated - 1
    header.PixelRepresentation = int(volume.data.dtype.kind == "i")
    return header


def write_series(
    folder: Path,
    volume: Volume,
    number: int,
    parameters: Mapping[str, Any],
    *,
    subject: Mapping[str, str] | None = None,
    order: Sequence[int] | None = None,
    change: Change | None = None,
    prefix: str = "IM",
    series: str = "",
) -> Path:
    """Write one file per slice; array axes are (column, row, slice).

    Args:
        folder: Where; made when missing.
        volume: Integer voxels.
        number: Series number.
        parameters: Elements to set.
        subject: Elements of patient and study that differ from `SUBJECT`.
        order: Instance numbers of the slices, from 1; by default ascending.
        change: Called with the slice and its dataset before it is written; sets what a test needs.
        prefix: Begins the file names, which have no suffix.
        series: UID; by default a new one.
    """
    folder.mkdir(parents=True, exist_ok=True)
    cosines, spacing, positions, step = geometry(volume)
    series = series or f"2.25.{3000 + number}"
    for k in range(volume.data.shape[2]):
        image = series_header(volume, number, parameters, subject or {}, series)
        image.SOPClassUID = parameters.get("SOPClassUID", "1.2.840.10008.5.1.4.1.1.4")
        image.SOPInstanceUID = generate_uid(entropy_srcs=[series, prefix, str(k)])
        image.ImageType = parameters.get("ImageType", ["ORIGINAL", "PRIMARY", "M", "ND", "NORM"])
        image.InstanceNumber = order[k] if order is not None else k + 1
        image.ImageOrientationPatient = [f"{value:.10f}" for value in cosines]
        image.ImagePositionPatient = [f"{value:.8f}" for value in positions[k]]
        image.PixelSpacing = [f"{value:.8f}" for value in spacing]
        image.SliceThickness = image.SpacingBetweenSlices = round(step, 6)
        image.PixelData = np.ascontiguousarray(volume.data[:, :, k].T).tobytes()
        if change is not None:
            change(k, image)
        save(folder / f"{prefix}{number:02d}{k:04d}", image)
    return folder


def write_enhanced(
    folder: Path,
    volumes: Sequence[Volume],
    number: int,
    parameters: Mapping[str, Any],
    *,
    echoes: Sequence[float] = (),
    shuffle: bool = False,
    per_frame_orientation: bool = False,
) -> Path:
    """Write one enhanced MR file that holds the slices of one volume, or of several echoes at the same places."""
    folder.mkdir(parents=True, exist_ok=True)
    cosines, spacing, positions, step = geometry(volumes[0])
    hidden = ("EchoTime", "RepetitionTime", "InversionTime", "ScanningSequence", "SequenceVariant", "FlipAngle")
    image = series_header(
        volumes[0], number, {k: v for k, v in parameters.items() if k not in hidden}, {}, f"2.25.{3000 + number}"
    )
    image.SOPClassUID, image.SOPInstanceUID = "1.2.840.10008.5.1.4.1.1.4.1", f"2.25.{4000 + number}"
    image.ImageType, image.InstanceNumber = ["ORIGINAL", "PRIMARY", "M", "NONE"], 1
    image.EchoPulseSequence = "SPIN" if "SE" in parameters["ScanningSequence"] else "GRADIENT"
    shared = Dataset()
    shared.PixelMeasuresSequence = [item(PixelSpacing=[round(mm, 8) for mm in spacing], SliceThickness=round(step, 6))]
    shared.MRTimingAndRelatedParametersSequence = [
        item(RepetitionTime=parameters["RepetitionTime"], FlipAngle=parameters["FlipAngle"])
    ]
    shared.MRModifierSequence = [item(InversionRecovery="YES", InversionTimes=[parameters["InversionTime"]])]
    orientation = [item(ImageOrientationPatient=[f"{value:.10f}" for value in cosines])]
    if not per_frame_orientation:
        shared.PlaneOrientationSequence = orientation
    frames = [(echo, k) for echo in range(len(volumes)) for k in range(volumes[0].data.shape[2])]
    if shuffle:
        frames = [frames[n] for n in np.random.default_rng(0).permutation(len(frames))]
    groups = []
    for echo, k in frames:
        group = Dataset()
        group.PlanePositionSequence = [item(ImagePositionPatient=[f"{value:.8f}" for value in positions[k]])]
        group.MREchoSequence = [item(EffectiveEchoTime=echoes[echo] if echoes else parameters["EchoTime"])]
        group.FrameContentSequence = [item(InStackPositionNumber=k + 1, StackID="1")]
        if per_frame_orientation:
            group.PlaneOrientationSequence = orientation
        groups.append(group)
    image.SharedFunctionalGroupsSequence, image.PerFrameFunctionalGroupsSequence = [shared], groups
    image.NumberOfFrames = len(frames)
    image.PixelData = b"".join(np.ascontiguousarray(volumes[echo].data[:, :, k].T).tobytes() for echo, k in frames)
    save(folder / f"ENH{number:02d}", image)
    return folder


def item(**elements: Any) -> Dataset:
    """Return an item of a sequence."""
    dataset = Dataset()
    for keyword, value in elements.items():
        setattr(dataset, keyword, value)
    return dataset


def save(path: Path, dataset: Dataset) -> None:
    """Write a dataset as a DICOM file."""
    meta = FileMetaDataset()
    meta.MediaStorageSOPClassUID, meta.MediaStorageSOPInstanceUID = dataset.SOPClassUID, dataset.SOPInstanceUID
    meta.TransferSyntaxUID = ExplicitVRLittleEndian
    file = FileDataset(str(path), dataset, file_meta=meta, preamble=b"\0" * 128)
    file.save_as(path, enforce_file_format=True)


def rewrite(path: Path, change: Callable[[pydicom.FileDataset], None]) -> None:
    """Change a file that is there."""
    dataset = pydicom.dcmread(path)
    change(dataset)
    dataset.save_as(path)
