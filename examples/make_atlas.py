"""Make the atlas that ships in `rmr_sdk/atlas`: coarse tissue to fit by, and the zones that lesions are named after.

It ran once and its output is committed; run it again only to change the atlas. It needs scipy and the ICBM 152 2009a
files inside nilearn's wheel (`pip install scipy nilearn`), reads no network and always gives the same voxels.

    GM, WM maps --- mean over 4 mm ----------------------------------------> tissue
    T1 template --- dark, around the seeds, and the lines of the horns ----> lateral ventricles --> zone 1
    table below --- height of the tentorium over (|x|, y) ------------------> zone 2
    table below --- ellipsoids around thalamus and basal ganglia ----------> zone 4
    T1 template --- not empty, and what is near ---------------------------> zone 8

The tables were drawn by hand on the template and looked at in three planes. Coordinates are mm of the template.

Usage: python examples/make_atlas.py [FOLDER]
"""

from __future__ import annotations

import importlib.util
import itertools
import sys
from pathlib import Path

import nibabel as nib
import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

BoolArray = NDArray[np.bool_]
Point = tuple[float, float, float]

FLUID_BELOW = 110  # T1 of the template: the lateral ventricles, whole and apart from all other fluid
DARK_BELOW = 150  # T1 of the template: other fluid, sulci included
VENTRICLE_SEED: Point = (10, -5, 22)
HORNS: tuple[tuple[Point, ...], ...] = (
    ((30, -42, 2), (34, -36, -6), (36, -28, -12), (34, -18, -17), (30, -9, -21)),  # temporal
    ((27, -56, 6), (24, -68, 6), (23, -80, 5)),  # occipital
)
HORN_RADIUS_MM = 1.5
VENTRICLE_FAVOUR_MM = 3.0  # ventricles grow with age and disease, at the cost of white matter
VENTRICLE_REACH_MM = 20.0
NECK_MM = 30  # the template ends in the medulla; its last slice goes on below
BRAIN_MARGIN_MM = 6.0  # what an affine map leaves of the differences between heads

# |x| -> (y, z) of the tentorium; in the midline from the straight sinus over the colliculi to the mammillary bodies.
TENTORIUM: dict[float, tuple[tuple[float, float], ...]] = {
    0: (
        *((-105, -25), (-92, -22), (-84, -17), (-70, -5), (-58, 4), (-45, 6), (-38, 4), (-31, 2)),
        *((-10, -13), (2, -16), (4, -60)),
    ),
    8: (
        *((-105, -24), (-92, -18), (-79.5, -12.6), (-66, -5.8), (-52, -1), (-40, 2), (-31, 2)),
        *((-12, -12), (2, -18), (4, -60)),
    ),
    14: (
        *((-105, -24), (-91, -20), (-75, -14), (-62, -10), (-52, -8), (-42, -6), (-32, -4), (-24, -9)),
        *((-12, -14), (-4, -20), (-2, -60)),
    ),
    20: ((-105, -24), (-90, -21), (-71, -16), (-55, -15.5), (-41, -18), (-29, -25), (-22, -32), (-18, -60)),
    30: ((-105, -24), (-93, -21), (-79, -20), (-62, -19), (-49, -21), (-38, -26), (-29, -33), (-25, -60)),
    42: ((-105, -24), (-89, -21), (-74, -20), (-58, -21), (-47, -23.6), (-38, -29), (-34, -60)),
    55: ((-105, -25), (-66, -26), (-52, -30), (-44, -60)),
    70: ((-105, -27), (-66, -28), (-52, -32), (-44, -60)),
}
# Centre and semi-axes, on both sides: thalamus, head and body of the caudate, putamen, pallidum, accumbens, and what
# lies below the thalamus.
DEEP_GREY: tuple[tuple[Point, Point], ...] = (
    ((12, -19, 7), (13, 17, 12)),
    ((12, 13, 6), (11, 14, 13)),
    ((15, -3, 20), (8, 16, 8)),
    ((26, 2, 1), (10, 21, 14)),
    ((20, -5, 0), (9, 12, 9)),
    ((10, 10, -7), (8, 8, 7)),
    ((8, -14, -5), (8, 8, 7)),
)


def main(folder: Path) -> None:
    """Write `atlas.npz`."""
    t1, affine = read_template("t1")
    white, grey = (read_template(name)[0] / 255 for name in ("wm", "gm"))
    brain = ndimage.binary_fill_holes(t1 > 0)
    points = np.stack(np.meshgrid(*map(np.arange, t1.shape), indexing="ij"), axis=-1) + affine[:3, 3]
    ventricle = find_ventricles(t1, brain, affine)
    zones = (
        ventricle_zone(t1, brain, ventricle)
        | 2 * (points[..., 2] < tentorium_height(points[..., 0], points[..., 1]))
        | 4 * near_deep_grey(points)
        | 8 * (ndimage.distance_transform_edt(~brain) <= BRAIN_MARGIN_MM)
    )
    tissue = np.stack([shrink(np.where(brain, share, 0), 4) for share in (white, grey)])
    np.savez_compressed(
        folder / "atlas.npz",
        tissue=np.round(255 * tissue).astype(np.uint8),
        tissue_affine=coarser(affine, 4),
        zones=np.pad(zones[::2, ::2, ::2].astype(np.uint8), [(0, 0), (0, 0), (NECK_MM // 2, 0)], mode="edge"),
        zones_affine=(affine + np.outer(np.eye(4)[2], (0, 0, 0, -NECK_MM))) @ np.diag([2.0, 2, 2, 1]),
    )


def read_template(kind: str) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Return a volume of the template, RAS at 1 mm, and its affine."""
    spec = importlib.util.find_spec("nilearn")
    if spec is None or spec.origin is None:
        raise SystemExit("nilearn is not installed: pip install nilearn")
    name = f"mni_icbm152_{kind}_tal_nlin_sym_09a_converted.nii.gz"
    image = nib.load(Path(spec.origin).parent / "datasets" / "data" / name)
    return np.asarray(image.dataobj, np.float64), image.affine


def find_ventricles(t1: NDArray[np.float64], brain: BoolArray, affine: NDArray[np.float64]) -> BoolArray:
    """Return the lateral ventricles: dark and connected to the seeds, with the horns, which are slits, as lines."""
    parts, _ = ndimage.label(brain & (t1 < FLUID_BELOW))
    lines = np.zeros(t1.shape, bool)
    found = np.zeros(t1.shape, bool)
    for side in (1, -1):
        found |= parts == parts[index(affine, VENTRICLE_SEED, side)]
        for horn in HORNS:
            for start, end in itertools.pairwise(horn):
                for share in np.linspace(0, 1, 30):
                    point = tuple(a + share * (b - a) for a, b in zip(start, end, strict=True))
                    lines[index(affine, point, side)] = True
    return found | (ndimage.distance_transform_edt(~lines) <= HORN_RADIUS_MM)


def index(affine: NDArray[np.float64], point: tuple[float, ...], side: int) -> tuple[int, ...]:
    """Return the voxel of a point, mirrored to one side."""
    return tuple(np.round(np.array(point) * (side, 1, 1) - affine[:3, 3]).astype(int))


def ventricle_zone(t1: NDArray[np.float64], brain: BoolArray, ventricle: BoolArray) -> BoolArray:
    """Return what is nearer to the lateral ventricles than to other fluid."""
    other = ~brain | ((t1 < DARK_BELOW) & ~ndimage.binary_dilation(ventricle, iterations=3))
    to_ventricle, to_other = (ndimage.distance_transform_edt(~mask) for mask in (ventricle, other))
    zone: BoolArray = (to_ventricle < to_other + VENTRICLE_FAVOUR_MM) & (to_ventricle < VENTRICLE_REACH_MM) & ~other
    return zone


def tentorium_height(x: NDArray[np.float64], y: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return z of the tentorium, linear between the points of the table."""
    columns = sorted(TENTORIUM)
    profiles = np.stack([np.interp(y[0, :, 0], *zip(*TENTORIUM[column], strict=True)) for column in columns])
    surface = np.stack([np.interp(np.abs(x[:, 0, 0]), columns, profile) for profile in profiles.T], axis=1)
    return surface[..., None]


def near_deep_grey(points: NDArray[np.float64]) -> BoolArray:
    """Return what lies in one of the ellipsoids, on either side."""
    mirrored = np.abs(points[..., :1]), points[..., 1:]
    folded = np.concatenate(mirrored, axis=-1)
    return np.any([(((folded - c) / np.array(r)) ** 2).sum(axis=-1) <= 1 for c, r in DEEP_GREY], axis=0)


def shrink(volume: NDArray[np.float64], side: int) -> NDArray[np.float64]:
    """Return means over blocks; what is left over at the far ends is dropped."""
    d, h, w = (length // side for length in volume.shape)
    blocks = volume[: d * side, : h * side, : w * side].reshape(d, side, h, side, w, side)
    means: NDArray[np.float64] = blocks.mean(axis=(1, 3, 5))
    return means


def coarser(affine: NDArray[np.float64], side: int) -> NDArray[np.float64]:
    """Return the affine of blocks of voxels."""
    coarse = affine @ np.diag([side, side, side, 1.0])
    coarse[:3, 3] = affine[:3, :3] @ np.full(3, (side - 1) / 2) + affine[:3, 3]
    return coarse


if __name__ == "__main__":
    default = Path(__file__).parents[1] / "rmr_sdk" / "atlas"
    main(Path(sys.argv[1]) if len(sys.argv) > 1 else default)
