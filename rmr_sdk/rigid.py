"""Rigid registration with SimpleITK, the extra `align`: refines a position that a search has found.

Mattes mutual information over a regular fifth of the reference's voxels, two resolutions, gradient descent. One
thread and a fixed seed: the same study gives the same matrix, bit for bit, on any number of cores; on volumes reduced
to 2 mm that takes a second or two. SimpleITK is told RAS coordinates as they are: all that it needs is that both images
use the same ones.

Source: D. Mattes et al., "PET-CT image registration in the chest using free-form deformations", IEEE TMI 22 (2003);
SimpleITK's ImageRegistrationMethod.
"""

from __future__ import annotations

import importlib
import importlib.util
import threading
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from types import ModuleType
from typing import Any

import numpy as np

from rmr_sdk.errors import GeometryError
from rmr_sdk.geometry import Affine
from rmr_sdk.similarity import BINS, Reduced

_lock = threading.Lock()

_SEED = 1
_SHARE = 0.2  # of the voxels; more changes the answer by less than 0.1 mm
_SHRINK = (2, 1)
_SMOOTHING_MM = (2.0, 0.0)
_STEP, _LEAST_STEP, _STEPS = 1.0, 0.01, 60  # of the optimiser, in units that move voxels by about 1 mm


def is_available() -> bool:
    """Tell whether SimpleITK is installed."""
    return importlib.util.find_spec("SimpleITK") is not None


def refine(reference: Reduced, moving: Reduced, start: Affine, centre_mm: Affine) -> Affine:
    """Find the rigid displacement of a contrast that matches the reference best, near one that matches well.

    Args:
        reference: Stays where it is.
        moving: The other contrast, at its header's position.
        start: (4, 4), where the header puts a point -> where the search begins, in RAS mm.
        centre_mm: What the rotation turns about.

    Returns:
        A matrix like `start`.

    Raises:
        GeometryError: SimpleITK gives up.
    """
    sitk = _simpleitk()
    transform = _transform(sitk, _inverse(start), centre_mm)
    try:
        with _one_thread(sitk):
            _method(sitk, transform).Execute(_image(sitk, reference), _image(sitk, moving))
    except RuntimeError as error:
        raise GeometryError(
            "SimpleITK found no rigid alignment.", 'Align the contrasts beforehand, or use align="header".'
        ) from error
    return _inverse(_matrix(transform, centre_mm))


def _method(sitk: ModuleType, transform: Any) -> Any:
    method = sitk.ImageRegistrationMethod()
    method.SetMetricAsMattesMutualInformation(BINS)
    method.SetMetricSamplingStrategy(method.REGULAR)
    method.SetMetricSamplingPercentage(_SHARE, _SEED)
    method.SetInterpolator(sitk.sitkLinear)
    method.SetInitialTransform(transform, True)
    method.SetOptimizerAsRegularStepGradientDescent(_STEP, _LEAST_STEP, _STEPS)
    method.SetOptimizerScalesFromPhysicalShift()
    method.SetShrinkFactorsPerLevel(_SHRINK)
    method.SetSmoothingSigmasPerLevel(_SMOOTHING_MM)
    method.SmoothingSigmasAreSpecifiedInPhysicalUnitsOn()
    return method


@contextmanager
def _one_thread(sitk: ModuleType) -> Iterator[None]:
    """Keep SimpleITK to one thread: its sums depend on how many there are, and only the global default binds all."""
    process = sitk.ProcessObject
    with _lock:
        threads = process.GetGlobalDefaultNumberOfThreads()
        process.SetGlobalDefaultNumberOfThreads(1)
        try:
            yield
        finally:
            process.SetGlobalDefaultNumberOfThreads(threads)


def _simpleitk() -> ModuleType:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # of its SWIG types, on Python 3.12 and later
        return importlib.import_module("SimpleITK")


def _image(sitk: ModuleType, reduced: Reduced) -> Any:
    spacing = np.asarray(reduced.grid.spacing_mm)
    image = sitk.GetImageFromArray(reduced.level.T)
    image.SetSpacing(spacing.tolist())
    image.SetOrigin(reduced.grid.affine[:3, 3].tolist())
    image.SetDirection((reduced.grid.affine[:3, :3] / spacing).ravel().tolist())
    return image


def _transform(sitk: ModuleType, matrix: Affine, centre_mm: Affine) -> Any:
    """Return a matrix as a transform about a centre; ITK's map points of the reference to points of the moving one."""
    transform = sitk.Euler3DTransform()
    transform.SetCenter(centre_mm.tolist())
    transform.SetMatrix(matrix[:3, :3].ravel().tolist(), 1e-6)
    transform.SetTranslation((matrix[:3, :3] @ centre_mm + matrix[:3, 3] - centre_mm).tolist())
    return transform


def _matrix(transform: Any, centre_mm: Affine) -> Affine:
    matrix = np.eye(4)
    matrix[:3, :3] = np.reshape(transform.GetMatrix(), (3, 3))
    matrix[:3, 3] = np.asarray(transform.GetTranslation()) + centre_mm - matrix[:3, :3] @ centre_mm
    return matrix


def _inverse(matrix: Affine) -> Affine:
    return np.linalg.inv(matrix).astype(np.float64)
