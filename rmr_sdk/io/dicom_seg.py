"""The labels as a DICOM Segmentation: one binary segment per class, lesions first, each with coded terms.

A segment without a voxel is an answer too: then every slice is written for every segment, so that readers that take
segments from their frames find it.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from rmr_sdk._version import __version__
from rmr_sdk.io.dicom.extra import load_library
from rmr_sdk.io.dicom_object import (
    MANUFACTURER,
    RESEARCH,
    Origin,
    decimal,
    image_headers,
    new_uid,
    referenced_series,
    resolve_references,
)
from rmr_sdk.io.preview import class_colours
from rmr_sdk.result import Result, display_name

SERIES_NUMBER = 9002
PRIVATE_SCHEME = "99RMR"
"""Coding scheme of terms that have no public code."""

Term = tuple[str, str, str]

LESION: Term = ("52988006", "SCT", "Lesion")
BRAIN: Term = ("12738006", "SCT", "Brain")
_ABNORMAL: Term = ("49755003", "SCT", "Morphologically Abnormal Structure")
_TISSUE: Term = ("85756007", "SCT", "Tissue")
# Category and type of the classes that have public codes: PS3.16 CID 7150, 7153 and 7159.
_CLASSES: dict[str, tuple[Term, Term]] = {
    "csf": (("91720002", "SCT", "Body Substance"), ("65216001", "SCT", "Cerebrospinal Fluid")),
    "grey_matter": (_TISSUE, ("389081007", "SCT", "Gray Matter")),
    "white_matter": (_TISSUE, ("389080008", "SCT", "White Matter")),
}


def segment_classes(result: Result) -> list[str]:
    """Return the class of each segment, from segment 1 on: lesions, then the others in the order of their labels."""
    classes = [name for name in (result.classes or ())[1:] if name != result.lesion_class]
    return [*([result.lesion_class] if result.lesion_class else []), *classes]


def class_term(result: Result, name: str) -> tuple[Term, Term]:
    """Return category and type of a class as coded terms."""
    if name == result.lesion_class:
        return _ABNORMAL, LESION
    return _CLASSES.get(name, (_TISSUE, (name[:16], PRIVATE_SCHEME, display_name(name)[:64])))


def code(term: Term) -> Any:
    """Return a term as highdicom wants it."""
    return load_library("highdicom").sr.CodedConcept(*term)


def write_segmentation(path: Path, origin: Origin) -> Any:
    """Write the segmentation and return it.

    Raises:
        OSError: The file cannot be written.
    """
    hd = load_library("highdicom")
    images = origin.series.images
    # highdicom matches single images by their UIDs: a frame of a multi-frame object gets one for as long as it takes.
    uids = [new_uid() if image.frame else image.sop_instance for image in images]
    segments = _segments(origin.result)
    spacing, step = origin.spacing()
    seg = hd.seg.Segmentation(
        source_images=image_headers(origin, uids),
        pixel_array=segments,
        segmentation_type=hd.seg.SegmentationTypeValues.BINARY,
        segment_descriptions=_descriptions(origin.result),
        series_instance_uid=new_uid(),
        series_number=SERIES_NUMBER,
        sop_instance_uid=new_uid(),
        instance_number=1,
        content_label="SEGMENTATION",
        content_description="Lesions and tissues",
        series_description=f"{RESEARCH}: lesion and tissue segmentation",
        pixel_measures=hd.PixelMeasuresSequence(
            pixel_spacing=[float(decimal(mm)) for mm in spacing],
            slice_thickness=float(decimal(step)),
            spacing_between_slices=float(decimal(step)),
        ),
        omit_empty_frames=len(np.unique(segments)) > len(segment_classes(origin.result)),
        content_qualification=hd.ContentQualificationValues.RESEARCH,
        **origin.equipment,
    )
    resolve_references(seg, dict(zip(uids, images, strict=True)))
    seg.ReferencedSeriesSequence = [referenced_series(origin.series.series, images)]
    del seg.SourceImageSequence  # the frames refer to their own images
    seg.ImageComments = origin.comment
    with open(path, "xb") as file:
        seg.save_as(file)
    return seg


def _segments(result: Result) -> npt.NDArray[np.uint8]:
    """Return the segment of each voxel, (slice, row, column), 0 for none."""
    assert result.labels is not None, "the caller has looked"
    assert result.classes is not None, "labels come with classes"
    numbers = np.zeros(256, np.uint8)
    for number, name in enumerate(segment_classes(result), start=1):
        numbers[result.classes.index(name)] = number
    return np.ascontiguousarray(numbers[result.labels.data].transpose(2, 1, 0))


def _descriptions(result: Result) -> list[Any]:
    hd = load_library("highdicom")
    made, colours = result.provenance, class_colours(result)
    algorithm = hd.AlgorithmIdentificationSequence(
        name=f"RMR SDK {made.bundle}"[:64],
        family=code(("123110", "DCM", "Artificial Intelligence")),
        version=f"{__version__}, bundle {made.bundle_version}"[:64],
        source=MANUFACTURER,
    )
    descriptions = []
    for number, name in enumerate(segment_classes(result), start=1):
        category, kind = class_term(result, name)
        descriptions.append(
            hd.seg.SegmentDescription(
                segment_number=number,
                segment_label=display_name(name)[:64],
                segmented_property_category=code(category),
                segmented_property_type=code(kind),
                algorithm_type=hd.seg.SegmentAlgorithmTypeValues.AUTOMATIC,
                algorithm_identification=algorithm,
                anatomic_regions=[code(BRAIN)],
                tracking_uid=new_uid(),
                tracking_id=display_name(name)[:64],
                display_color=hd.color.CIELabColor.from_rgb(*colours[name]) if name in colours else None,
            )
        )
    return descriptions
