"""What DICOM outputs must repeat of DICOM inputs: who, which study, which images. The one place that keeps it.

It holds a patient's data, so it shows nothing of it: not in a repr, not in a log, not in a report. Only
`rmr_sdk.io.dicom_out` and its parts look inside.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np

from rmr_sdk.geometry import Affine
from rmr_sdk.io.dicom.series import DicomVolume


@dataclass(frozen=True, slots=True, kw_only=True)
class ImageReference:
    """One image of the input.

    Attributes:
        sop_class, sop_instance: The object.
        frame: Its number in a multi-frame object, from 1; None for an object that is one image.
    """

    sop_class: str
    sop_instance: str
    frame: int | None


@dataclass(frozen=True, slots=True, kw_only=True, repr=False, eq=False)
class SeriesSource:
    """A series that a contrast was read from.

    Attributes:
        series: Its UID.
        number: Its number; None where it has none.
        frame_of_reference, position_indicator: The coordinate system of its positions.
        patient_position: How the patient lay in the scanner, such as HFS.
        lossy: Ratio and method, where it was compressed with loss.
        images: One a slice, in the order of the volume's third axis.
        affine: (column, row, slice) index -> RAS mm.
        shape: Columns, rows and slices.
    """

    series: str
    number: int | None
    frame_of_reference: str
    position_indicator: str
    patient_position: str
    lossy: tuple[str, str] | None
    images: tuple[ImageReference, ...]
    affine: Affine
    shape: tuple[int, int, int]


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class DicomSource:
    """What the volumes of a study were read from.

    Attributes:
        subject: Elements of the patient and study modules, keyword -> value.
        series: Contrast -> the series it was read from.
    """

    subject: Mapping[str, str] = field(repr=False)
    series: Mapping[str, SeriesSource] = field(repr=False)


def series_source(volume: DicomVolume) -> SeriesSource:
    """Collect the references of a volume; its stack must have a grid."""
    grid = volume.stack.grid
    assert grid is not None, "the stack has been checked"
    file = volume.file
    return SeriesSource(
        series=file.series,
        number=file.number,
        frame_of_reference=file.frame_of_reference,
        position_indicator=file.position_indicator,
        patient_position=file.patient_position,
        lossy=file.lossy,
        images=tuple(
            ImageReference(
                sop_class=frame.file.sop_class,
                sop_instance=frame.file.sop_instance,
                frame=frame.index + 1 if frame.file.frames > 1 else None,
            )
            for frame in volume.stack.frames
        ),
        affine=np.asarray(grid.affine),
        shape=grid.shape,
    )
