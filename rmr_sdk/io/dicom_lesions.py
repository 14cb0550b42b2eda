"""One lesion as a group of measurements in a structured report (PS3.16 TID 1410), as plain content items.

highdicom would build the same tree, with checks on every item that take 25 ms a lesion and, with hundreds of lesions,
longer than everything else but the network. What is built here does not vary; tests read it back with highdicom.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from rmr_sdk.io.dicom.world import swap_lps_ras
from rmr_sdk.io.dicom_object import Origin, new_dataset, new_uid, reference_items
from rmr_sdk.io.dicom_seg import BRAIN, LESION, PRIVATE_SCHEME, Term
from rmr_sdk.result import Lesion

_GROUP: Term = ("125007", "DCM", "Measurement Group")
_TRACKING_ID: Term = ("112039", "DCM", "Tracking Identifier")
_TRACKING_UID: Term = ("112040", "DCM", "Tracking Unique Identifier")
_FINDING: Term = ("121071", "DCM", "Finding")
_FINDING_SITE: Term = ("363698007", "SCT", "Finding Site")
_METHOD: Term = ("370129005", "SCT", "Measurement Method")
_DERIVATION: Term = ("121401", "DCM", "Derivation")
_PURPOSE: Term = ("130400", "DCM", "Geometric purpose of region")
_REGION: Term = ("111030", "DCM", "Image Region")
_SOURCE: Term = ("260753009", "SCT", "Source")

VOLUME: Term = ("118565006", "SCT", "Volume")
SUM_OF_VOXELS: Term = ("126030", "DCM", "Sum of segmented voxel method for volume")
_LONG_AXIS: Term = ("103339001", "SCT", "Long Axis")
_PROBABILITY: Term = ("122157", "DCM", "Probability")
_MEAN: Term = ("373098007", "SCT", "Mean")
_CENTRE: Term = ("128138", "DCM", "Center of Mass")
_LOCATION: Term = ("location", PRIVATE_SCHEME, "Location, by rule from the segments")
_COORDINATES: tuple[Term, ...] = tuple(
    (f"centroid_{axis}", PRIVATE_SCHEME, f"Centroid {axis}, patient coordinates (towards {end})")
    for axis, end in (("x", "left"), ("y", "posterior"), ("z", "superior"))
)
MILLILITRE: Term = ("ml", "UCUM", "ml")
_MILLIMETRE: Term = ("mm", "UCUM", "mm")
NO_UNIT: Term = ("1", "UCUM", "no units")


def lesion_group(origin: Origin, lesion: Lesion) -> Any:
    """Return the content item that says how large a lesion is, and where."""
    group = _item(
        "CONTAINS",
        "CONTAINER",
        _GROUP,
        ContinuityOfContent="CONTINUOUS",
        ContentTemplateSequence=[new_dataset({"MappingResource": "DCMR", "TemplateIdentifier": "1410"})],
    )
    group.ContentSequence = [
        _item("HAS OBS CONTEXT", "TEXT", _TRACKING_ID, TextValue=f"lesion {lesion.id}"),
        _item("HAS OBS CONTEXT", "UIDREF", _TRACKING_UID, UID=new_uid()),
        _coded("CONTAINS", _FINDING, LESION),
        _coded("HAS CONCEPT MOD", _FINDING_SITE, BRAIN),
        _number(VOLUME, lesion.volume_ml, MILLILITRE, _coded("HAS CONCEPT MOD", _METHOD, SUM_OF_VOXELS)),
        _number(_LONG_AXIS, lesion.diameter_mm, _MILLIMETRE),
        _number(_PROBABILITY, lesion.mean_probability, NO_UNIT, _coded("HAS CONCEPT MOD", _DERIVATION, _MEAN)),
        *(
            _number(name, float(mm), _MILLIMETRE)
            for name, mm in zip(_COORDINATES, swap_lps_ras(lesion.centroid_mm), strict=True)
        ),
        *_location(lesion),
        _coded("CONTAINS", _PURPOSE, _CENTRE),
        _centre_point(origin, lesion),
    ]
    return group


def significant(value: float) -> float:
    """Return a measurement with six digits: a decimal string holds 16 characters, and no volume is known better."""
    return float(f"{value:.6g}")


def _centre_point(origin: Origin, lesion: Lesion) -> Any:
    """Return the centre of a lesion on the slice nearest to it.

    DICOM counts columns and rows from the corner of the first voxel, not from its centre.
    """
    grid = origin.result.fused.grid
    column, row, k = grid.index(lesion.centroid_mm)
    image = origin.series.images[int(np.clip(np.rint(k), 0, grid.shape[2] - 1))]
    source = _item("SELECTED FROM", "IMAGE", _SOURCE, ReferencedSOPSequence=[new_dataset(reference_items(image))])
    point = [float(column) + 0.5, float(row) + 0.5]
    return _item("CONTAINS", "SCOORD", _REGION, GraphicType="POINT", GraphicData=point, ContentSequence=[source])


def _location(lesion: Lesion) -> list[Any]:
    if lesion.location is None:
        return []
    return [_coded("CONTAINS", _LOCATION, (lesion.location[:16].strip(), PRIVATE_SCHEME, lesion.location))]


def _number(name: Term, value: float, unit: Term, *context: Any) -> Any:
    rounded = significant(value)
    measured = {"MeasurementUnitsCodeSequence": _code(unit), "FloatingPointValue": rounded, "NumericValue": rounded}
    item = _item("CONTAINS", "NUM", name, MeasuredValueSequence=[new_dataset(measured)])
    if context:
        item.ContentSequence = list(context)
    return item


def _coded(relationship: str, name: Term, value: Term) -> Any:
    return _item(relationship, "CODE", name, ConceptCodeSequence=_code(value))


def _item(relationship: str, kind: str, name: Term, **elements: Any) -> Any:
    shared = {"RelationshipType": relationship, "ValueType": kind, "ConceptNameCodeSequence": _code(name)}
    return new_dataset({**shared, **elements})


def _code(term: Term) -> list[Any]:
    value, scheme, meaning = term
    return [new_dataset({"CodeValue": value, "CodingSchemeDesignator": scheme, "CodeMeaning": meaning})]
