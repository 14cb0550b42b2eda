"""Measurements in millimetres and millilitres of a volume of labels: lesions and tissues. Counting is native."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import numpy.typing as npt

from rmr_sdk.geometry import AxisMap
from rmr_sdk.manifest import Manifest
from rmr_sdk.postprocess import components, count_labels
from rmr_sdk.result import Lesion
from rmr_sdk.volume import Volume


def find_lesions(labels: Volume, probability: Volume, axes: AxisMap, lesion_label: int) -> tuple[Lesion, ...]:
    """Return the connected lesions of a volume of labels, largest first.

    They are numbered in the manifest's orientation, so that a flipped input numbers them alike.

    Args:
        labels: On the reference's own grid.
        probability: Lesion probability on the same grid.
        axes: From that grid to the manifest's orientation.
        lesion_label: The label of lesions.
    """
    found = components(
        np.ascontiguousarray(axes.apply(labels.data)),
        lesion_label,
        np.ascontiguousarray(axes.apply(probability.data)),
    )
    return tuple(
        Lesion(
            id=lesion.id,
            volume_ml=lesion.voxels * axes.grid.voxel_ml,
            centroid_mm=_point(axes.grid.world(lesion.centroid)),
            mean_probability=float(lesion.mean_probability or 0.0),
            voxels=lesion.voxels,
        )
        for lesion in found
    )


def measure_tissue(labels: Volume, manifest: Manifest) -> Mapping[str, float]:
    """Return the volume in ml of every class but the background and the lesions."""
    classes = manifest.classes or ()
    counts = count_labels(labels.data, len(classes))
    voxel_ml = labels.grid.voxel_ml
    return {
        name: count * voxel_ml
        for name, count in zip(classes[1:], counts[1:], strict=True)
        if name != manifest.lesion_class
    }


def _point(values: npt.NDArray[np.float64]) -> tuple[float, float, float]:
    x, y, z = (float(value) for value in values)
    return x, y, z
