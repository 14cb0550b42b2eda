"""The files of a result: its volumes and its report, under names of the caller's choice; `files` makes them appear."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from rmr_sdk.io import nifti, report
from rmr_sdk.result import REPORT_FILES, VOLUME_FILES, Result
from rmr_sdk.volume import Volume


def write_outputs(
    folder: Path,
    result: Result,
    volume_names: Mapping[str, str] = VOLUME_FILES,
    report_names: Mapping[str, str] = REPORT_FILES,
) -> None:
    """Write the volumes that a result has, and its report, into a folder that exists.

    Args:
        folder: Where.
        result: What.
        volume_names: Volume field -> file name, `.nii.gz`.
        report_names: As for `rmr_sdk.io.report.write_report`.

    Raises:
        OSError: A file cannot be written.
    """
    for name, file_name in volume_names.items():
        volume: Volume | None = getattr(result, name)
        if volume is not None:
            with open(folder / file_name, "xb") as file:
                nifti.write_stream(file, volume, gzipped=True, description=result.notice)
    report.write_report(folder, result, report_names)
