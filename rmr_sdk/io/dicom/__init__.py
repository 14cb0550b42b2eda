"""DICOM in: the T1 and the FLAIR of a study with many series, as volumes in RAS. Needs the extra `dicom`.

    files     which files of a folder or a .zip are DICOM
    headers   what is read of them, as plain values (tags, parameters)
    series    which images make one volume
    stack     where its voxels are, or why it is no volume (world: LPS <-> RAS)
    roles     what it is: T1w, FLAIR, or something else
    choice    which volume is taken for a contrast
    pixels    its voxels
    source    what DICOM outputs must repeat
    reader    all of it in order

docs/dicom.md has the rules. Output is in `rmr_sdk.io.dicom_out` and its parts.
"""

from rmr_sdk.io.dicom.files import holds_dicom
from rmr_sdk.io.dicom.reader import DicomStudy, list_study, read_study
from rmr_sdk.io.dicom.source import DicomSource

__all__ = ["DicomSource", "DicomStudy", "holds_dicom", "list_study", "read_study"]
