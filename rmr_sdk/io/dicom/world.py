"""LPS and RAS: DICOM's x runs to the patient's left and its y to the back; ours to the right and to the front.

The two differ in nothing else, so one function serves both ways. No other module of the project knows of LPS.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt


def swap_lps_ras(points: npt.ArrayLike) -> npt.NDArray[np.float64]:
    """Return points or directions (..., 3) of one system in the other."""
    return np.asarray(points, np.float64) * (-1.0, -1.0, 1.0)
