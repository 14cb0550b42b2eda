"""The measurements as a DICOM Comprehensive SR, template TID 1500: what was found, how large and where.

One group per class refers to its segment and holds its volume, that of the lesions their number too. One group per
lesion (`dicom_lesions`) holds its volume, greatest extent, mean probability, location where it is known, and its
centre: as a point on the slice it lies in, which workstations show, and as patient coordinates in mm (LPS, as
everywhere in DICOM).
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from rmr_sdk.io.dicom.extra import load_library
from rmr_sdk.io.dicom_lesions import MILLILITRE, NO_UNIT, SUM_OF_VOXELS, VOLUME, lesion_group, significant
from rmr_sdk.io.dicom_object import MANUFACTURER, RESEARCH, Origin, new_dataset, new_uid
from rmr_sdk.io.dicom_seg import BRAIN, PRIVATE_SCHEME, Term, class_term, code, segment_classes

SERIES_NUMBER = 9003

_COUNT: Term = ("246206008", "SCT", "Number of lesions")
_MRI_OF_BRAIN: Term = ("24590-2", "LN", "Brain MRI")
_DEVICE: Term = ("121007", "DCM", "Device")
_CONTENT_SEQUENCE = 0x0040A730
_MEASUREMENTS = "126010"  # the container of all groups


def write_measurements(path: Path, origin: Origin, segmentation: Any) -> None:
    """Write the report.

    Args:
        path: The file.
        origin: Where the result came from.
        segmentation: What `write_segmentation` gave: its segments are referred to.

    Raises:
        OSError: The file cannot be written.
    """
    hd = load_library("highdicom")
    made = origin.equipment
    observer = hd.sr.ObserverContext(
        observer_type=code(_DEVICE),
        observer_identifying_attributes=hd.sr.DeviceObserverIdentifyingAttributes(
            uid=new_uid(),
            name=made["manufacturer_model_name"],
            manufacturer_name=MANUFACTURER,
            model_name=made["manufacturer_model_name"],
            serial_number=made["device_serial_number"],
        ),
    )
    content = hd.sr.MeasurementReport(
        observation_context=hd.sr.ObservationContext(observer_device_context=observer),
        procedure_reported=code(_MRI_OF_BRAIN),
        imaging_measurements=list(_class_groups(origin, segmentation)),
    )
    report = hd.sr.ComprehensiveSR(
        evidence=[segmentation],
        content=content[0],
        series_instance_uid=new_uid(),
        series_number=SERIES_NUMBER,
        sop_instance_uid=new_uid(),
        instance_number=1,
        is_complete=True,
        series_description=f"{RESEARCH}: lesion and tissue volumes",
        content_qualification=hd.ContentQualificationValues.RESEARCH,
        coding_schemes=[
            load_library("highdicom.coding_schemes").CodingSchemeIdentificationItem(
                designator=PRIVATE_SCHEME, name="RMR SDK terms", version="1", responsible_organization=MANUFACTURER
            )
        ],
        **made,
    )
    report.CompletionFlagDescription = f"{RESEARCH}: not for diagnosis"
    report.CurrentRequestedProcedureEvidenceSequence = [_evidence(origin, segmentation)]
    groups = next(one for one in report.ContentSequence if one.ConceptNameCodeSequence[0].CodeValue == _MEASUREMENTS)
    lesions = [lesion_group(origin, lesion) for lesion in origin.result.lesions or ()]
    groups.add_new(_CONTENT_SEQUENCE, "SQ", [*groups.ContentSequence, *lesions])  # by name highdicom takes its own only
    with open(path, "xb") as file:
        report.save_as(file)


def _class_groups(origin: Origin, segmentation: Any) -> Iterator[Any]:
    """Give a group per class, in the order of the segments."""
    hd, result = load_library("highdicom"), origin.result
    for number, name in enumerate(segment_classes(result), start=1):
        is_lesion = name == result.lesion_class
        volume_ml = result.lesion_ml if is_lesion else (result.tissue_ml or {}).get(name)
        volume = hd.sr.Measurement(
            name=code(VOLUME), value=significant(volume_ml or 0.0), unit=code(MILLILITRE), method=code(SUM_OF_VOXELS)
        )
        number_of = hd.sr.Measurement(name=code(_COUNT), value=len(result.lesions or ()), unit=code(NO_UNIT))
        segment = segmentation.SegmentSequence[number - 1]
        yield hd.sr.VolumetricROIMeasurementsAndQualitativeEvaluations(
            tracking_identifier=hd.sr.TrackingIdentifier(uid=segment.TrackingUID, identifier=segment.TrackingID),
            referenced_segment=hd.sr.ReferencedSegment(
                sop_class_uid=segmentation.SOPClassUID,
                sop_instance_uid=segmentation.SOPInstanceUID,
                segment_number=number,
                source_series=hd.sr.SourceSeriesForSegmentation(origin.series.series),
            ),
            finding_type=code(class_term(result, name)[1]),
            finding_sites=[hd.sr.FindingSite(anatomic_location=code(BRAIN))],
            algorithm_id=_algorithm(origin),
            measurements=[volume, number_of] if is_lesion else [volume],
        )


def _algorithm(origin: Origin) -> Any:
    made = origin.result.provenance
    return load_library("highdicom").sr.AlgorithmIdentification(
        name=f"RMR SDK {made.bundle}"[:64],
        version=origin.equipment["software_versions"],
        parameters=[origin.comment],
    )


def _evidence(origin: Origin, segmentation: Any) -> Any:
    """Return the references to all objects that the report refers to."""
    series = []
    for uid, objects in (
        (origin.series.series, {image.sop_instance: image.sop_class for image in origin.series.images}),
        (segmentation.SeriesInstanceUID, {segmentation.SOPInstanceUID: segmentation.SOPClassUID}),
    ):
        items = [
            new_dataset({"ReferencedSOPClassUID": sop_class, "ReferencedSOPInstanceUID": instance})
            for instance, sop_class in objects.items()
        ]
        series.append(new_dataset({"SeriesInstanceUID": uid, "ReferencedSOPSequence": items}))
    study = origin.subject["StudyInstanceUID"]
    return new_dataset({"StudyInstanceUID": study, "ReferencedSeriesSequence": series})
