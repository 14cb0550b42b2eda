"""`rmr demo`: the study that ships with the SDK, or a real one, and how well the lesions found agree with a mask."""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np

from rmr_sdk.bundle import Bundle
from rmr_sdk.cli.run import add_run_options, run_study
from rmr_sdk.cli.terminal import say
from rmr_sdk.demo import DEMO_NOTICE, demo_study_folder
from rmr_sdk.geometry import reorient
from rmr_sdk.io.nifti import read_volume
from rmr_sdk.result import Result
from rmr_sdk.study import Study
from rmr_sdk.volume import Volume

_MASKS = ("lesion.nii.gz", "*_label-lesion_mask.nii.gz", "anat/*_label-lesion_mask.nii.gz")


def add_parser(
    commands: argparse._SubParsersAction[argparse.ArgumentParser], everywhere: argparse.ArgumentParser
) -> None:
    """Add the command to the grammar."""
    about = "Run the demo study that comes with the SDK, or a study of yours; needs no network."
    parser = commands.add_parser("demo", help=about, description=about, parents=[everywhere], allow_abbrev=False)
    parser.add_argument("study", nargs="?", type=Path, metavar="STUDY_DIR", help="a real study in place of the demo's")
    parser.add_argument(
        "--out",
        type=Path,
        default=Path("demo_output"),
        metavar="DIR",
        help="where the files go, in the place of those of an earlier run (default %(default)s)",
    )
    add_run_options(parser)
    parser.set_defaults(command=_demo)


def _demo(options: argparse.Namespace) -> int:
    simulated = options.study is None
    folder = demo_study_folder() if simulated else options.study
    if simulated and not options.json:
        say(f"Demo study. {DEMO_NOTICE}.")
    result = run_study(
        lambda: Study.from_folder(folder), options, overwrite=True, notice=DEMO_NOTICE if simulated else ""
    )
    mask = _find_mask(folder)
    if mask is not None and result.lesion_class is not None and not options.json:
        volume, _ = read_volume(mask, label="the lesion mask of the folder")
        seen = folder.resolve().name in Bundle.open(options.bundle).manifest.training.studies_seen
        say(_describe_overlap(lesion_dice(result, volume), simulated, seen))
    return 0


def lesion_dice(result: Result, mask: Volume) -> float | None:
    """Measure how well the lesions of a result agree with a mask: 2 |A and B| / (|A| + |B|).

    Args:
        result: With labels.
        mask: Lesions are above 0.5. On the result's grid, though its axes may be stored in another order.

    Returns:
        0 to 1, 1 also where neither holds a lesion; None where the grids differ or the result has no lesion class.
    """
    if result.labels is None or result.classes is None or result.lesion_class is None:
        return None
    axes = reorient(mask.grid, result.labels.grid.orientation)
    if not axes.grid.matches(result.labels.grid, tolerance_mm=0.1):
        return None
    truth = axes.apply(mask.data) > 0.5
    found = result.labels.data == result.classes.index(result.lesion_class)
    marked = int(np.count_nonzero(truth)) + int(np.count_nonzero(found))
    return 2 * int(np.count_nonzero(truth & found)) / marked if marked else 1.0


def _find_mask(folder: Path) -> Path | None:
    return next((path for pattern in _MASKS for path in sorted(folder.glob(pattern))), None)


def _describe_overlap(dice: float | None, simulated: bool, seen: bool) -> str:
    if dice is None:
        return "Overlap:  not measured: the lesion mask of the folder is on another grid"
    if simulated:
        return f"Overlap:  Dice {dice:.3f} with the simulated lesions; it shows that the installation works, no more"
    what = "the network has learnt from a study of this name, if it is this one it measures nothing"
    return f"Overlap:  Dice {dice:.3f} with the lesion mask of the folder; {what if seen else 'this is one study'}"
