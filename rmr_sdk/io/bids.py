"""BIDS derivatives: what the files of a result are called beside those of the data set that they derive from.

    sub-01/[ses-A/]anat/sub-01[_ses-A]_space-FLAIR_desc-fused_FLAIR.nii.gz         fused volume
                        ..._space-FLAIR_desc-rmr_dseg.nii.gz                       labels, named by dseg.tsv
                        ..._space-FLAIR_label-lesion_probseg.nii.gz                lesion probability
                        ..._desc-rmr_report.json, .html, ..._desc-rmr_preview.png  report

Names after the Brain Imaging Data Structure 1.10, derivatives (https://bids-specification.readthedocs.io).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import msgspec

from rmr_sdk._version import __version__
from rmr_sdk.io.files import check_outputs, output_folder
from rmr_sdk.io.outputs import write_outputs
from rmr_sdk.manifest import INTENDED_USE
from rmr_sdk.result import Result

BIDS_VERSION = "1.10.0"

_VOLUMES = {
    "fused": "space-{reference}_desc-fused_{reference}.nii.gz",
    "labels": "space-{reference}_desc-rmr_dseg.nii.gz",
    "lesion_probability": "space-{reference}_label-lesion_probseg.nii.gz",
}
_REPORTS = {"json": "desc-rmr_report.json", "html": "desc-rmr_report.html", "preview": "desc-rmr_preview.png"}
_IGNORED = "*_report.json\n*_report.html\n*_preview.png\nsummary.*\n.rmr-batch/\n"


def save_derivatives(result: Result, root: Path, entities: Sequence[str], overwrite: bool = False) -> tuple[Path, ...]:
    """Write a result into a data set of derivatives, all of its files or none.

    Args:
        result: What.
        root: The data set.
        entities: The subject and, where there are sessions, the session: ("sub-01", "ses-A").
        overwrite: Replace files of an earlier result.

    Returns:
        The files written.

    Raises:
        OutputError: As for `Result.save`.
    """
    folder, volumes, reports = _place(root, entities, result.reference)
    with output_folder(folder, (*volumes.values(), *reports.values()), overwrite) as staging:
        write_outputs(staging, result, volumes, reports)
        written = sorted(path.name for path in staging.iterdir())
    return tuple(folder / name for name in written)


def check_derivatives(root: Path, entities: Sequence[str], reference: str) -> None:
    """Raise now what `save_derivatives` would raise without `overwrite` for a result on the grid of `reference`.

    Raises:
        OutputError: A file exists, or the folder cannot be written.
    """
    folder, volumes, reports = _place(root, entities, reference)
    check_outputs(folder, (*volumes.values(), *reports.values()), overwrite=False)


def _place(root: Path, entities: Sequence[str], reference: str) -> tuple[Path, dict[str, str], dict[str, str]]:
    """Return the folder of a result, and the names of its volumes and of its reports in there."""
    stem = "_".join(entities)
    return root.joinpath(*entities, "anat"), _names(_VOLUMES, stem, reference), _names(_REPORTS, stem, reference)


def _names(patterns: Mapping[str, str], stem: str, reference: str) -> dict[str, str]:
    return {key: f"{stem}_{pattern.format(reference=reference)}" for key, pattern in patterns.items()}


def dataset_files(classes: Sequence[str] | None) -> dict[str, bytes]:
    """Return what a data set of derivatives needs at its top: its description, the labels' names, what is not BIDS."""
    description = {
        "Name": "RMR SDK: fused volumes, tissue labels and MS lesions",
        "BIDSVersion": BIDS_VERSION,
        "DatasetType": "derivative",
        "GeneratedBy": [{"Name": "RMR SDK", "Version": __version__, "Description": INTENDED_USE}],
    }
    files = {"dataset_description.json": msgspec.json.format(msgspec.json.encode(description), indent=2) + b"\n"}
    files[".bidsignore"] = _IGNORED.encode()
    if classes is not None:
        rows = "".join(f"{index}\t{name}\n" for index, name in enumerate(classes))
        files["dseg.tsv"] = f"index\tname\n{rows}".encode()
    return files
