"""What all DICOM outputs of a result share: patient and study, equipment, identifiers, and references to the input.

The patient and study modules repeat what the input says, as DICOM requires, without elements that break the
standard's rules. All objects of one result have one time, one frame of reference and UIDs of their own (2.25, from
random UUIDs). The world is LPS from here on, by `rmr_sdk.io.dicom.world` alone.
"""

from __future__ import annotations

import datetime
import re
import uuid
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt

from rmr_sdk._version import __version__
from rmr_sdk.io.dicom.extra import load_library
from rmr_sdk.io.dicom.source import DicomSource, ImageReference, SeriesSource
from rmr_sdk.io.dicom.world import swap_lps_ras
from rmr_sdk.manifest import INTENDED_USE
from rmr_sdk.result import Result

MANUFACTURER = "RMR SDK"
RESEARCH = "RESEARCH"
"""How every object says that it is not for diagnosis: ContentQualification, and the beginning of its description."""

CLASSIC_MR = "1.2.840.10008.5.1.4.1.1.4"
SEGMENTATION = "1.2.840.10008.5.1.4.1.1.66.4"
COMPREHENSIVE_SR = "1.2.840.10008.5.1.4.1.1.88.33"

_VALID = {
    "PatientSex": r"[MFO]",
    "PatientBirthDate": r"\d{8}",
    "PatientAge": r"\d{3}[DWMY]",
    "PatientSize": r"[\d.]{1,16}",
    "PatientWeight": r"[\d.]{1,16}",
    "PatientIdentityRemoved": r"YES|NO",
    "StudyDate": r"\d{8}",
    "StudyTime": r"\d{2}(\d{2}(\d{2}(\.\d{1,6})?)?)?",
    "StudyInstanceUID": r"(?=.{1,64}$)(0|[1-9]\d*)(\.(0|[1-9]\d*))+",
    "StudyID": r".{1,16}",
    "AccessionNumber": r".{1,16}",
    "StudyDescription": r".{1,64}",
}
_REQUIRED = (
    "PatientName", "PatientID", "PatientBirthDate", "PatientSex", "StudyInstanceUID", "StudyDate", "StudyTime",
    "StudyID", "AccessionNumber", "ReferringPhysicianName",
)  # fmt: skip


def new_uid() -> str:
    """Return a UID that no one else has."""
    return f"2.25.{uuid.uuid4().int}"


@dataclass(frozen=True, slots=True, kw_only=True, repr=False, eq=False)
class Origin:
    """Where a result came from and what its objects have in common.

    Attributes:
        result: The result.
        source: What the study was read from.
        series: The series of the result's reference contrast, on whose grid its volumes are.
        subject: The patient and study modules, valid.
        frame_of_reference: Of the input; a new one where it has none.
        now: When the objects were made.
    """

    result: Result
    source: DicomSource
    series: SeriesSource
    subject: Mapping[str, str]
    frame_of_reference: str
    now: datetime.datetime = field(default_factory=datetime.datetime.now)

    @property
    def equipment(self) -> dict[str, str]:
        """Return what made the objects, by highdicom's names."""
        made = self.result.provenance
        return {
            "manufacturer": MANUFACTURER,
            "manufacturer_model_name": f"RMR SDK, {made.bundle}"[:64],
            "software_versions": f"{__version__}, bundle {made.bundle_version}"[:64],
            "device_serial_number": made.bundle_hash[:32] or "none",
        }

    @property
    def comment(self) -> str:
        """Return the sentences that every object carries."""
        return f"{INTENDED_USE} {self.result.notice}".strip()

    def positions(self) -> npt.NDArray[np.float64]:
        """Return the centre of the first voxel of each slice, (slices, 3) in LPS mm."""
        grid = self.result.fused.grid
        return swap_lps_ras(grid.world([(0, 0, k) for k in range(grid.shape[2])]))

    def cosines(self) -> list[float]:
        """Return the directions of a row and of a column, LPS."""
        affine = self.result.fused.affine
        directions = swap_lps_ras((affine[:3, :2] / np.linalg.norm(affine[:3, :2], axis=0)).T)
        return [float(value) for value in directions.ravel()]

    def spacing(self) -> tuple[list[float], float]:
        """Return the distances between rows and between columns, and between slices, in mm."""
        columns_mm, rows_mm, slices_mm = self.result.fused.grid.spacing_mm
        return [rows_mm, columns_mm], slices_mm


def find_origin(result: Result) -> Origin:
    """Collect what the objects of a result share; it must have come from DICOM."""
    source = result.source
    assert source is not None, "the caller has looked"
    series = source.series[result.reference]
    return Origin(
        result=result,
        source=source,
        series=series,
        subject=_valid_subject(source.subject),
        frame_of_reference=series.frame_of_reference or new_uid(),
    )


def _valid_subject(subject: Mapping[str, str]) -> dict[str, str]:
    valid = {
        keyword: value
        for keyword, value in subject.items()
        if value and re.fullmatch(_VALID.get(keyword, r"(?s).*"), value)
    }
    if valid.get("PatientIdentityRemoved") == "YES":
        valid.setdefault("DeidentificationMethod", "As stated in the source images")
    valid.setdefault("StudyInstanceUID", new_uid())
    return {**dict.fromkeys(_REQUIRED, ""), **valid}


def new_dataset(elements: Mapping[str, Any]) -> Any:
    """Return a pydicom dataset of these elements."""
    dataset = load_library("pydicom").Dataset()
    for keyword, value in elements.items():
        setattr(dataset, keyword, value)
    return dataset


def image_headers(origin: Origin, uids: Iterable[str]) -> list[Any]:
    """Return the header of one image per slice of the reference, as highdicom wants it of its sources.

    The geometry is that of the result's grid, free of the rounding of the input.

    Args:
        origin: Where the result came from.
        uids: SOP instance UID of each slice.
    """
    columns, rows, _ = origin.result.fused.grid.shape
    spacing, step = origin.spacing()
    shared = {
        **origin.subject,
        "SpecificCharacterSet": "ISO_IR 192",
        "SOPClassUID": CLASSIC_MR,
        "Modality": "MR",
        "SeriesInstanceUID": origin.series.series,
        "FrameOfReferenceUID": origin.frame_of_reference,
        "PositionReferenceIndicator": origin.series.position_indicator,
        "Rows": rows,
        "Columns": columns,
        "PixelSpacing": [decimal(mm) for mm in spacing],
        "SliceThickness": decimal(step),
        "SpacingBetweenSlices": decimal(step),
        "ImageOrientationPatient": [decimal(value) for value in origin.cosines()],
        **lossy_elements(origin.series.lossy),
    }
    return [
        new_dataset({**shared, "SOPInstanceUID": uid, "ImagePositionPatient": [decimal(mm) for mm in position]})
        for uid, position in zip(uids, origin.positions(), strict=True)
    ]


def lossy_elements(lossy: tuple[str, str] | None) -> dict[str, str]:
    """Return the elements that say whether pixels have ever been compressed with loss."""
    if lossy is None:
        return {"LossyImageCompression": "00"}
    ratio, method = lossy
    return {
        "LossyImageCompression": "01",
        "LossyImageCompressionRatio": ratio or "1",
        "LossyImageCompressionMethod": method or "ISO_10918_1",
    }


def decimal(value: float) -> str:
    """Return a number as a decimal string of at most 16 characters, with all the digits that fit."""
    number = float(value) + 0.0  # without the sign of minus zero
    for digits in range(15, 0, -1):
        if len(text := f"{number:.{digits}g}") <= 16:
            return text
    return "0"


def reference_items(image: ImageReference) -> dict[str, Any]:
    """Return the elements that refer to one image of the input."""
    elements = {"ReferencedSOPClassUID": image.sop_class, "ReferencedSOPInstanceUID": image.sop_instance}
    return elements if image.frame is None else {**elements, "ReferencedFrameNumber": image.frame}


def referenced_series(series: str, images: Iterable[ImageReference]) -> Any:
    """Return an item of the Referenced Series Sequence: each object once."""
    objects = {(image.sop_class, image.sop_instance): None for image in images}
    items = [
        new_dataset({"ReferencedSOPClassUID": sop_class, "ReferencedSOPInstanceUID": sop_instance})
        for sop_class, sop_instance in objects
    ]
    return new_dataset({"SeriesInstanceUID": series, "ReferencedInstanceSequence": items})


def resolve_references(dataset: Any, images: Mapping[str, ImageReference]) -> None:
    """Put references to images of the input in the place of stand-ins, at any depth.

    Args:
        dataset: Changed in place.
        images: SOP instance UID of a stand-in -> the image.
    """
    for item in list(_items(dataset)):
        image = images.get(str(item.get("ReferencedSOPInstanceUID", "")))
        if image is not None:
            for keyword, value in reference_items(image).items():
                setattr(item, keyword, value)


def _items(dataset: Any) -> Iterator[Any]:
    for element in dataset:
        if element.VR == "SQ":
            for item in element.value:
                yield item
                yield from _items(item)
