"""What is read of the header of each image, as plain values: which file, where in space, acquired how.

    files -> FileHeader (one a file) and Frame (one an image; a multi-frame file has many)

Only the elements named here are read, so private ones and most of what could name a person never enter memory.
Geometry is as DICOM has it (LPS) until `stack` turns it into a grid.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from rmr_sdk.io.dicom.extra import damage_errors, load_library, quiet
from rmr_sdk.io.dicom.files import Entry
from rmr_sdk.io.dicom.parameters import Parameters, read_parameters
from rmr_sdk.io.dicom.tags import Tags

ENHANCED_MR = ("1.2.840.10008.5.1.4.1.1.4.1", "1.2.840.10008.5.1.4.1.1.4.4")
"""Enhanced MR Image Storage, and its form converted from classic images."""

CLASSIC_MR = "1.2.840.10008.5.1.4.1.1.4"
"""MR Image Storage: one image a file."""

SUBJECT = (
    "PatientName", "PatientID", "IssuerOfPatientID", "PatientBirthDate", "PatientSex", "PatientAge", "PatientSize",
    "PatientWeight", "PatientIdentityRemoved", "DeidentificationMethod", "StudyInstanceUID", "StudyDate",
    "StudyTime", "StudyID", "AccessionNumber", "ReferringPhysicianName", "StudyDescription",
)  # fmt: skip
"""The elements of the patient and study modules that DICOM outputs repeat."""

_FILE = (
    "SpecificCharacterSet", "SOPClassUID", "SOPInstanceUID", "SeriesInstanceUID", "SeriesNumber",
    "SeriesDescription", "ProtocolName", "Modality", "ImageType", "InstanceNumber", "AcquisitionNumber",
    "FrameOfReferenceUID", "PositionReferenceIndicator", "PatientPosition", "BodyPartExamined", "NumberOfFrames",
    "Rows", "Columns", "SamplesPerPixel", "PhotometricInterpretation", "BitsAllocated", "BitsStored", "HighBit",
    "PixelRepresentation", "LossyImageCompression", "LossyImageCompressionRatio", "LossyImageCompressionMethod",
)  # fmt: skip
_IMAGE = (
    "ImagePositionPatient", "ImageOrientationPatient", "PixelSpacing", "SliceThickness", "SpacingBetweenSlices",
    "RescaleSlope", "RescaleIntercept", "RepetitionTime", "EchoTime", "InversionTime", "FlipAngle",
    "ScanningSequence", "SequenceVariant", "MRAcquisitionType", "SequenceName", "PulseSequenceName",
    "EchoPulseSequence", "EchoPlanarPulseSequence", "AngioFlag", "ContrastBolusAgent", "ContrastBolusAgentSequence",
    "DiffusionBValue", "TemporalPositionIdentifier", "TriggerTime", "ComplexImageComponent",
    "SharedFunctionalGroupsSequence", "PerFrameFunctionalGroupsSequence",
)  # fmt: skip
_PHILIPS_SCALE = 0x2005100E
_GROUPS = (
    "PixelMeasuresSequence", "PlanePositionSequence", "PlaneOrientationSequence",
    "PixelValueTransformationSequence", "MREchoSequence", "MRTimingAndRelatedParametersSequence",
    "MRModifierSequence", "MRImageFrameTypeSequence", "MRDiffusionSequence", "FrameContentSequence",
    "UnassignedPerFrameConvertedAttributesSequence", "UnassignedSharedConvertedAttributesSequence",
)  # fmt: skip


@dataclass(frozen=True, slots=True, kw_only=True, repr=False, eq=False)
class FileHeader:
    """What is the same for all images of a file.

    Attributes:
        entry: Where the file is.
        sop_class, sop_instance: What kind of object it is, and which.
        series, study: UIDs.
        number: Series number; None where it is not given.
        text: Series description, protocol and sequence name: for choosing and for `rmr study show` alone.
        description: Series description.
        subject: The elements `SUBJECT` that are there.
        frame_of_reference, position_indicator: Which coordinate system positions are in.
        patient_position: How the patient lay, such as HFS.
        frames: Images in the file.
        shape: Rows and columns.
        samples: 1 for grey, 3 for colour.
        inverted: Whether large values are dark (MONOCHROME1).
        transfer_syntax: UID of how the pixels are encoded.
        lossy: Ratio and method of lossy compression, where there was any.
        private_scaling: Whether Philips' private scale factors are there.
    """

    entry: Entry
    sop_class: str
    sop_instance: str
    series: str
    study: str
    number: int | None
    modality: str
    description: str
    text: str
    body_part: str
    subject: Mapping[str, str]
    frame_of_reference: str
    position_indicator: str
    patient_position: str
    frames: int
    shape: tuple[int, int]
    samples: int
    inverted: bool
    transfer_syntax: str
    lossy: tuple[str, str] | None
    private_scaling: bool

    @property
    def is_mr_image(self) -> bool:
        """Tell whether it holds MR images."""
        return self.sop_class in (CLASSIC_MR, *ENHANCED_MR) and self.modality in ("MR", "")


@dataclass(frozen=True, slots=True, kw_only=True, repr=False, eq=False)
class Frame:
    """One image.

    Attributes:
        file: The file it is in.
        index: Its place in the file, from 0.
        instance: Number that the scanner gave the image.
        position: Centre of the first voxel in mm, LPS; None where it is not given, as for the next two.
        cosines: Direction of a row and of a column, LPS.
        pixel_mm: Distance between rows and between columns.
        thickness_mm, step_mm: Slice thickness, and distance between slices as the header has it.
        slope, intercept: From stored to real values.
        image_type: Such as ("ORIGINAL", "PRIMARY", "M").
        component: "MAGNITUDE", "PHASE" and so on, where it is given.
        temporal, acquisition, trigger: What tells repetitions apart; None where it is not given.
        parameters: How it was acquired.
    """

    file: FileHeader
    index: int
    instance: int | None
    position: tuple[float, ...] | None
    cosines: tuple[float, ...] | None
    pixel_mm: tuple[float, ...] | None
    thickness_mm: float | None
    step_mm: float | None
    slope: float
    intercept: float
    image_type: tuple[str, ...]
    component: str
    temporal: float | None
    acquisition: float | None
    trigger: float | None
    parameters: Parameters

    @property
    def name(self) -> str:
        """Return what to call it in messages: the scanner's number."""
        return "?" if self.instance is None else str(self.instance)


@dataclass(slots=True, repr=False)
class Headers:
    """All images found, and how many files could not be taken.

    Attributes:
        frames: The images, in the order of the files.
        files: DICOM files read.
        not_dicom: Files that are named like DICOM and are something else.
        damaged: Files that begin like DICOM and cannot be read.
    """

    frames: list[Frame] = field(default_factory=list)
    files: int = 0
    not_dicom: int = 0
    damaged: int = 0


def read_headers(entries: Iterable[Entry]) -> Headers:
    """Read the headers of all DICOM files.

    Raises:
        DeviceUnavailableError: pydicom is not installed.
    """
    pydicom, found = load_library("pydicom"), Headers()
    wanted: list[Any] = [*_FILE, *_IMAGE, *SUBJECT, _PHILIPS_SCALE]
    with quiet():
        for entry in entries:
            try:
                if not entry.looks_like_dicom:
                    found.not_dicom += entry.named_like_dicom
                    continue
                with entry.open() as file:
                    dataset = pydicom.dcmread(file, stop_before_pixels=True, force=True, specific_tags=wanted)
                if not (frames := list(_read_frames(entry, dataset))):
                    raise ValueError("no image")
            except damage_errors():
                found.damaged += 1
                continue
            found.files += 1
            found.frames += frames
    return found


def _read_frames(entry: Entry, dataset: Any) -> Iterator[Frame]:
    tags = Tags(dataset)
    header = _read_file(entry, dataset, tags)
    if header.sop_class not in ENHANCED_MR:
        yield _read_frame(header, 0, tags)
        return
    shared = _groups(tags.items("SharedFunctionalGroupsSequence")[:1])
    for index, groups in enumerate(tags.items("PerFrameFunctionalGroupsSequence")[: header.frames]):
        yield _read_frame(header, index, Tags(*_groups([groups]), *shared, dataset))


def _groups(items: list[Any]) -> list[Any]:
    """Return the first item of every functional group that says something about the image."""
    return [first for item in items for name in _GROUPS for first in Tags(item).items(name)[:1]]


def _read_file(entry: Entry, dataset: Any, tags: Tags) -> FileHeader:
    number = tags.number("SeriesNumber")
    names = ("SeriesDescription", "ProtocolName", "SequenceName", "PulseSequenceName")
    lossy = (tags.text("LossyImageCompressionRatio"), tags.text("LossyImageCompressionMethod"))
    if "SOPClassUID" not in tags:
        raise ValueError("no SOP class")
    return FileHeader(
        entry=entry,
        sop_class=tags.text("SOPClassUID"),
        sop_instance=tags.text("SOPInstanceUID"),
        series=tags.text("SeriesInstanceUID"),
        study=tags.text("StudyInstanceUID"),
        number=None if number is None else int(number),
        modality=tags.text("Modality"),
        description=tags.text("SeriesDescription"),
        text="\n".join(tags.text(name) for name in names).lower(),
        body_part=tags.text("BodyPartExamined").lower(),
        subject={keyword: tags.text(keyword) for keyword in SUBJECT if keyword in tags},
        frame_of_reference=tags.text("FrameOfReferenceUID"),
        position_indicator=tags.text("PositionReferenceIndicator"),
        patient_position=tags.text("PatientPosition"),
        frames=tags.integer("NumberOfFrames", 1),
        shape=(tags.integer("Rows"), tags.integer("Columns")),
        samples=tags.integer("SamplesPerPixel", 1),
        inverted=tags.text("PhotometricInterpretation") == "MONOCHROME1",
        transfer_syntax=str(dataset.file_meta.get("TransferSyntaxUID", "")),
        lossy=lossy if tags.text("LossyImageCompression") == "01" else None,
        private_scaling=_PHILIPS_SCALE in dataset,
    )


def _read_frame(header: FileHeader, index: int, tags: Tags) -> Frame:
    instance = tags.number("InstanceNumber")
    slope = tags.number("RescaleSlope")
    return Frame(
        file=header,
        index=index,
        instance=index + 1 if header.frames > 1 else None if instance is None else int(instance),
        position=tags.numbers("ImagePositionPatient", 3),
        cosines=tags.numbers("ImageOrientationPatient", 6),
        pixel_mm=tags.numbers("PixelSpacing", 2),
        thickness_mm=tags.number("SliceThickness"),
        step_mm=tags.number("SpacingBetweenSlices"),
        slope=1.0 if slope in (None, 0.0) else float(slope),
        intercept=tags.number("RescaleIntercept") or 0.0,
        image_type=tags.texts("FrameType") or tags.texts("ImageType"),
        component=tags.text("ComplexImageComponent"),
        temporal=tags.number("TemporalPositionIndex") or tags.number("TemporalPositionIdentifier"),
        acquisition=tags.number("AcquisitionNumber"),
        trigger=tags.number("TriggerTime"),
        parameters=read_parameters(tags),
    )
