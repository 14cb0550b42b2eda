"""What a volume holds, shows and exchanges with nibabel."""

from __future__ import annotations

import nibabel
import numpy as np
import pytest

from rmr_sdk.volume import Volume, to_kernel_dtype

AFFINE = np.array([[-1.5, 0, 0, 90], [0, 1.0, 0, -126], [0, 0, 2.0, -72], [0, 0, 0, 1]])


def test_volume_shares_the_array_and_drops_trailing_axes() -> None:
    array = np.zeros((3, 4, 5, 1, 1), np.int16)
    volume = Volume(array, AFFINE)
    assert volume.data.shape == (3, 4, 5)
    assert np.shares_memory(volume.data, array)
    assert volume.grid.orientation == "LAS"


def test_repr_shows_shape_spacing_orientation_dtype_only() -> None:
    assert repr(Volume(np.zeros((3, 4, 5)), AFFINE)) == "Volume(3 x 4 x 5 voxels, 1.5 x 1 x 2 mm, LAS, float64)"


def test_nibabel_round_trip_keeps_voxels_dtype_and_affine() -> None:
    volume = Volume(np.arange(60, dtype=np.uint16).reshape(3, 4, 5), AFFINE)
    image = volume.to_nibabel()
    back = Volume.from_nibabel(image)
    assert back.data.dtype == np.uint16
    assert np.array_equal(back.data, volume.data)
    assert np.array_equal(back.affine, AFFINE)
    assert image.header.get_xyzt_units()[0] == "mm"


@pytest.mark.parametrize(("dtype", "stored"), [("bool", "uint8"), ("float16", "float32")])
def test_to_nibabel_widens_what_nifti_lacks(dtype, stored) -> None:
    assert Volume(np.ones((3, 4, 5), dtype), AFFINE).to_nibabel().get_data_dtype() == stored


def test_a_mask_hides_no_voxel() -> None:
    array = np.ma.masked_invalid(np.full((2, 2, 2), np.nan))
    assert type(Volume(array, AFFINE).data) is np.ndarray


@pytest.mark.parametrize(("slope", "dtype"), [(1.0, np.int16), (0.5, np.float32)])
def test_from_nibabel_keeps_integers_only_where_nothing_scales_them(tmp_path, slope, dtype) -> None:
    array = np.arange(60, dtype=np.int16).reshape(3, 4, 5)
    image = nibabel.Nifti1Image(array, AFFINE)
    image.header.set_slope_inter(slope, 0.0)
    nibabel.save(image, tmp_path / "x.nii")
    volume = Volume.from_nibabel(nibabel.load(tmp_path / "x.nii"))
    assert volume.data.dtype == dtype
    np.testing.assert_allclose(volume.data, nibabel.load(tmp_path / "x.nii").get_fdata())


@pytest.mark.parametrize(
    ("dtype", "kept"),
    [
        ("int16", True),
        ("uint16", True),
        ("float32", True),
        ("uint8", True),
        ("int64", False),
        ("float64", False),
        ("float16", False),
        ("bool", False),
    ],
)
def test_kernel_dtypes_are_kept_and_others_become_float32(dtype: str, kept: bool) -> None:
    array = np.ones((2, 2, 2), dtype)
    converted = to_kernel_dtype(array)
    assert (converted is array) == kept
    assert kept or converted.dtype == np.float32
    assert np.array_equal(converted, array)


def test_values_beyond_float32_become_infinite() -> None:
    assert np.isinf(to_kernel_dtype(np.array([1e300]))).all()


def test_swapped_bytes_are_put_right() -> None:
    converted = to_kernel_dtype(np.arange(3, dtype=">i2"))
    assert converted.dtype == np.dtype(np.int16)
    assert converted.tolist() == [0, 1, 2]


def test_views_are_kept() -> None:
    flipped = np.zeros((2, 2, 2), np.int16)[::-1]
    assert to_kernel_dtype(flipped) is flipped


def test_items_out_of_line_are_copied() -> None:
    packed = np.zeros((2, 3, 4), [("flag", "u1"), ("value", "f4")])["value"]
    assert to_kernel_dtype(packed).flags.aligned
    assert to_kernel_dtype(packed).dtype == np.float32
