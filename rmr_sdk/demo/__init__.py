"""The demo study that ships with the SDK: one T1 and one FLAIR of the same grid, and the lesions simulated in them.

`examples/make_demo_study.py` made the files; README.md beside this file says from what and under which licence.
"""

from __future__ import annotations

from pathlib import Path

DEMO_NOTICE = "T1: MNI152 template; FLAIR and lesions are simulated"
"""Every output made from the demo study carries this sentence (it fits a NIfTI description)."""


def demo_study_folder() -> Path:
    """Return the folder that holds `sub-demo_T1w.nii.gz` and `sub-demo_FLAIR.nii.gz`, as `Study.from_folder` reads."""
    return Path(__file__).parent
