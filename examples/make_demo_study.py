"""Make the demo study that ships in `rmr_sdk/demo`: a real T1 template, a simulated FLAIR, simulated MS lesions.

It ran once and its output is committed; run it again only to change the study. It needs scipy and the ICBM 152 2009a
files inside nilearn's wheel (`pip install scipy nilearn`), reads no network and always gives the same voxels.

    T1 template ----- stretch ----------------------- darken lesions --> sub-demo_T1w.nii.gz
    GM, WM maps ----- mix tissues --- brighten lesions, bias, noise --> sub-demo_FLAIR.nii.gz
    table below ----- soft ellipsoids, kept to white matter ----------> sub-demo_label-lesion_mask.nii.gz

Usage: python examples/make_demo_study.py [FOLDER]
"""

from __future__ import annotations

import gzip
import importlib.util
import sys
from pathlib import Path
from typing import NamedTuple

import nibabel as nib
import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

FloatArray = NDArray[np.float32]

SEED = 20090
MARGIN_VOXELS = 4
NOTICE = b"T1: MNI152 template; FLAIR and lesions are simulated"

# Template grey values: below the first all is fluid, at the second the brightest white matter.
T1_RANGE = (30.0, 240.0)
# FLAIR of a fluid, grey matter, white matter and lesion voxel in arbitrary units, as 3 T studies show them.
FLAIR_MEANS = {"csf": 22.0, "grey_matter": 120.0, "white_matter": 98.0, "lesion": 160.0}
FLAIR_NOISE = 3.0
BIAS_AMPLITUDE = 0.05


class Ellipsoid(NamedTuple):
    """A lesion: centre (x, y, z) and semi-axes in MNI mm, turned by `turn_deg` about the vertical axis."""

    centre: tuple[float, float, float]
    semi_axes: tuple[float, float, float]
    turn_deg: float = 0.0


LESIONS = (
    # Periventricular ovoids, long axis away from the ventricle (Dawson's fingers).
    Ellipsoid((27, -34, 22), (12, 6.5, 8), -25),
    Ellipsoid((-27, -30, 24), (10, 5.5, 6.5), 20),
    Ellipsoid((24, -8, 27), (7, 4, 4.5), -10),
    Ellipsoid((-24, 2, 25), (7.5, 3.5, 4.5), 15),
    Ellipsoid((20, 28, 12), (5, 4, 4), 40),
    Ellipsoid((-19, 30, 10), (4.5, 3, 3.5), -40),
    Ellipsoid((-32, -58, 8), (5, 6.5, 5), 30),
    # Deep white matter.
    Ellipsoid((26, 12, 32), (3, 2.6, 2.8)),
    Ellipsoid((-27, -16, 38), (3.2, 2.6, 3.4)),
    Ellipsoid((24, -46, 36), (2.8, 2.8, 2.4)),
    Ellipsoid((-22, 38, 16), (2.6, 2.4, 2.6)),
    # Juxtacortical.
    Ellipsoid((38, -8, 40), (4, 3.2, 3.6), 20),
    Ellipsoid((-34, 20, 28), (3.6, 3, 3.4), -20),
    # Infratentorial: middle cerebellar peduncle.
    Ellipsoid((22, -52, -34), (4.2, 3.4, 3.2), 30),
)


def main(folder: Path) -> None:
    """Write the three files of the study into `folder`."""
    t1, grey, white, affine = load_template()
    rng = np.random.default_rng(SEED)
    shares = tissue_shares(t1, grey, white)
    lesion = lesion_share(affine, white, rng)
    save(folder / "sub-demo_T1w.nii.gz", simulate_t1(t1, lesion), affine)
    save(folder / "sub-demo_FLAIR.nii.gz", simulate_flair(shares, lesion, t1 > 0, rng), affine)
    save(folder / "sub-demo_label-lesion_mask.nii.gz", (lesion > 0.5).astype(np.uint8), affine)


def load_template() -> tuple[FloatArray, FloatArray, FloatArray, NDArray[np.float64]]:
    """Read the skull-stripped T1 template and the two tissue maps, cropped to the brain and a margin."""
    spec = importlib.util.find_spec("nilearn")
    if spec is None or spec.origin is None:
        raise SystemExit("The template is missing. Run: pip install nilearn")
    data = Path(spec.origin).parent / "datasets" / "data"
    images = [nib.load(data / f"mni_icbm152_{name}_tal_nlin_sym_09a_converted.nii.gz") for name in ("t1", "gm", "wm")]
    brain = np.asanyarray(images[0].dataobj) > 0
    (found,) = ndimage.find_objects(brain.astype(np.uint8))
    box = tuple(slice(max(s.start - MARGIN_VOXELS, 0), s.stop + MARGIN_VOXELS) for s in found)
    t1, grey, white = (np.asarray(image.dataobj, dtype=np.float32)[box] for image in images)
    affine = images[0].affine.copy()
    affine[:3, 3] += affine[:3, :3] @ [s.start for s in box]
    return t1, grey / 255, white / 255, affine


def tissue_shares(t1: FloatArray, grey: FloatArray, white: FloatArray) -> dict[str, FloatArray]:
    """Split every brain voxel between fluid, grey and white matter."""
    total = np.maximum(grey + white, 1)
    grey, white = grey / total, white / total
    return {"csf": (t1 > 0) * (1 - grey - white), "grey_matter": grey, "white_matter": white}


def lesion_share(affine: NDArray[np.float64], white: FloatArray, rng: np.random.Generator) -> FloatArray:
    """Draw the lesions: 1 inside, soft and slightly irregular at the edge, almost nothing outside white matter."""
    x, y, z = (affine[:3, :3] @ np.indices(white.shape).reshape(3, -1) + affine[:3, 3:]).reshape(3, *white.shape)
    ragged = ndimage.gaussian_filter(rng.standard_normal(white.shape), 1.8)
    ragged *= 0.16 / ragged.std()
    share = np.zeros(white.shape)
    for lesion in LESIONS:
        turn = np.deg2rad(lesion.turn_deg)
        dx, dy, dz = x - lesion.centre[0], y - lesion.centre[1], z - lesion.centre[2]
        along, across = np.cos(turn) * dx + np.sin(turn) * dy, np.cos(turn) * dy - np.sin(turn) * dx
        a, b, c = lesion.semi_axes
        radius = np.sqrt((along / a) ** 2 + (across / b) ** 2 + (dz / c) ** 2) + ragged
        edge_mm = (1 - radius) * min(lesion.semi_axes)
        share = np.maximum(share, 1 / (1 + np.exp(-np.clip(edge_mm / 0.5, -30, 30))))
    return (share * np.clip(white * 1.6, 0, 1)).astype(np.float32)


def simulate_t1(t1: FloatArray, lesion: FloatArray) -> NDArray[np.uint8]:
    """Stretch the template linearly and give lesions the grey of the cortex or, at the core, below it."""
    low, high = T1_RANGE
    stretched = np.clip((t1 - low) / (high - low) * 230, 4, 255) * (t1 > 0)
    return to_uint8(stretched * (1 - 0.36 * ndimage.gaussian_filter(lesion, 0.7)))


def simulate_flair(
    shares: dict[str, FloatArray], lesion: FloatArray, brain: NDArray[np.bool_], rng: np.random.Generator
) -> NDArray[np.uint8]:
    """Mix the tissue means, brighten lesions, blur as partial volume does, then apply a bias field and Rician noise."""
    signal = sum(share * FLAIR_MEANS[name] for name, share in shares.items())
    signal = signal * (1 - lesion) + FLAIR_MEANS["lesion"] * lesion
    signal = ndimage.gaussian_filter(signal, 0.6)
    bias = ndimage.zoom(rng.standard_normal((4, 4, 4)), np.array(brain.shape) / 4, order=3, mode="nearest")
    signal *= 1 + BIAS_AMPLITUDE * np.clip(bias, -2, 2) / 2
    real, imaginary = rng.normal(scale=FLAIR_NOISE, size=(2, *brain.shape))
    return to_uint8(np.hypot(signal + real, imaginary).clip(1) * brain)


def to_uint8(values: NDArray[np.floating]) -> NDArray[np.uint8]:
    """Round to the nearest grey value."""
    return np.rint(values).clip(0, 255).astype(np.uint8)


def save(path: Path, data: NDArray[np.uint8], affine: NDArray[np.float64]) -> None:
    """Write a NIfTI file whose bytes hold no time, and which says itself what is simulated."""
    image = nib.Nifti1Image(data, affine)
    image.header.set_xyzt_units("mm")
    image.set_sform(affine, code="mni")
    image.set_qform(affine, code="mni")
    image.header["descrip"] = NOTICE
    path.write_bytes(gzip.compress(image.to_bytes(), compresslevel=9, mtime=0))


if __name__ == "__main__":
    main(Path(sys.argv[1]) if len(sys.argv) > 1 else Path(__file__).parents[1] / "rmr_sdk" / "demo")
