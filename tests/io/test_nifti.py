"""NIfTI in and out: what is read, which affine counts, and files that are whole or not there."""

from __future__ import annotations

import contextlib
import gzip
import resource
import signal
from collections.abc import Iterator

import nibabel
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from rmr_sdk.errors import OutputError
from rmr_sdk.geometry import Grid
from rmr_sdk.io.nifti import read_volume, write_volume
from rmr_sdk.volume import Volume

LAS = np.array([[-1.5, 0, 0, 90], [0, 1.0, 0, -126], [0, 0, 2.0, -72], [0, 0, 0, 1]])
TILTED = np.array([[-0.9, 0.1, 0, 9], [0.1, 0.9, 0.3, 8], [0, -0.2, 2.9, 7], [0, 0, 0, 1]], np.float32).astype(float)


def save(path, array, affine=LAS, *, sform=2, qform=2, kind=nibabel.Nifti1Image, **header):
    image = kind(array, affine)
    image.set_sform(affine, sform)
    image.set_qform(affine, qform)
    for name, value in header.items():
        image.header[name] = value
    nibabel.save(image, path)
    return path


@pytest.mark.parametrize("suffix", [".nii", ".nii.gz"])
@pytest.mark.parametrize("dtype", ["uint8", "int16", "uint16", "int32", "float32", "float64"])
def test_round_trip_keeps_voxels_and_affine_exactly(tmp_path, dtype, suffix) -> None:
    array = np.random.default_rng(0).integers(0, 200, (4, 5, 6)).astype(dtype)
    write_volume(tmp_path / f"x{suffix}", Volume(array, TILTED))
    volume, warnings = read_volume(tmp_path / f"x{suffix}")
    assert warnings == []
    assert np.array_equal(volume.data, array)
    assert volume.data.dtype == (dtype if dtype in ("uint8", "int16", "uint16") else "float32")
    assert np.array_equal(volume.affine, TILTED)
    image = nibabel.load(tmp_path / f"x{suffix}")
    assert image.get_data_dtype() == dtype
    assert np.array_equal(np.asanyarray(image.dataobj), array)


@pytest.mark.parametrize(("dtype", "stored"), [("bool", "uint8"), ("float16", "float32")])
def test_dtypes_that_nifti_lacks_are_widened(tmp_path, dtype, stored) -> None:
    write_volume(tmp_path / "x.nii", Volume(np.ones((2, 3, 4), dtype), LAS))
    assert nibabel.load(tmp_path / "x.nii").get_data_dtype() == stored


def test_swapped_bytes_are_written_right(tmp_path) -> None:
    array = np.arange(24, dtype=">i2").reshape(2, 3, 4)
    write_volume(tmp_path / "x.nii", Volume(array, LAS))
    assert np.array_equal(read_volume(tmp_path / "x.nii")[0].data, array)


@pytest.mark.parametrize("order", ["C", "F"])
def test_any_memory_order_gives_the_same_bytes(tmp_path, order) -> None:
    array = np.arange(120, dtype=np.float32).reshape(4, 5, 6)
    write_volume(tmp_path / "a.nii.gz", Volume(array, LAS))
    write_volume(tmp_path / "b.nii.gz", Volume(np.asarray(array, order=order)[::-1][::-1], LAS))
    assert (tmp_path / "a.nii.gz").read_bytes() == (tmp_path / "b.nii.gz").read_bytes()


def test_header_of_a_written_file(tmp_path) -> None:
    write_volume(tmp_path / "x.nii.gz", Volume(np.zeros((4, 5, 6), np.float32), LAS), description="é" + "x" * 99)
    header = nibabel.load(tmp_path / "x.nii.gz").header
    assert header.get_xyzt_units()[0] == "mm"
    assert (int(header["sform_code"]), int(header["qform_code"])) == (2, 2)
    np.testing.assert_allclose(header.get_qform(), LAS, atol=1e-6)
    assert header["descrip"].item().decode("ascii") == "?" + "x" * 78


def test_shear_goes_into_the_sform_alone(tmp_path) -> None:
    sheared = LAS.copy()
    sheared[0, 1] = 0.5
    write_volume(tmp_path / "x.nii", Volume(np.zeros((4, 5, 6), np.float32), sheared))
    header = nibabel.load(tmp_path / "x.nii").header
    assert (int(header["sform_code"]), int(header["qform_code"])) == (2, 0)
    volume, warnings = read_volume(tmp_path / "x.nii")
    assert np.array_equal(volume.affine, sheared)
    assert warnings == []


def test_a_tilt_too_small_for_a_quaternion_goes_into_the_sform_alone(tmp_path, sitk) -> None:
    affine, tilt = np.diag([-1.0, 1.0, 1.0, 1.0]), np.radians(0.02)
    affine[0, [0, 2]] = -np.cos(tilt), -np.sin(tilt)
    affine[2, [0, 2]] = -np.sin(tilt), np.cos(tilt)
    write_volume(tmp_path / "x.nii", Volume(np.zeros((300, 4, 4), np.uint8), affine))
    assert int(nibabel.load(tmp_path / "x.nii").header["qform_code"]) == 0
    point = sitk.ReadImage(str(tmp_path / "x.nii")).TransformIndexToPhysicalPoint((299, 0, 0))
    np.testing.assert_allclose(point, [299 * np.cos(tilt), 0, -299 * np.sin(tilt)], atol=1e-3)


def test_voxels_lie_as_in_the_file(tmp_path) -> None:
    volume, _ = read_volume(save(tmp_path / "x.nii.gz", np.zeros((4, 5, 6), np.int16)))
    assert volume.data.flags.f_contiguous


@pytest.mark.parametrize(
    ("slope", "intercept", "dtype"),
    [(np.nan, np.nan, "int16"), (0.0, 5.0, "int16"), (1, 0, "int16"), (2, 0, "float32"), (1, -9, "float32")],
)
def test_slope_and_intercept(tmp_path, slope, intercept, dtype) -> None:
    array = np.arange(120, dtype=np.int16).reshape(4, 5, 6)
    path = save(tmp_path / "x.nii", array)
    data = nibabel.Nifti1Header(path.read_bytes()[:348], check=False)
    data["scl_slope"], data["scl_inter"] = slope, intercept
    path.write_bytes(data.binaryblock + path.read_bytes()[348:])
    volume, _ = read_volume(path)
    assert volume.data.dtype == dtype
    np.testing.assert_allclose(volume.data, nibabel.load(path).get_fdata())


@pytest.mark.parametrize("kind", [nibabel.Nifti1Image, nibabel.Nifti2Image])
@pytest.mark.parametrize("order", ["<", ">"])
def test_both_versions_and_byte_orders(tmp_path, kind, order) -> None:
    array = np.arange(120, dtype=f"{order}i2").reshape(4, 5, 6)
    header = kind.header_class(endianness=order)
    header.set_data_dtype(array.dtype)
    nibabel.save(kind(array, TILTED, header), tmp_path / "x.nii.gz")
    volume, _ = read_volume(tmp_path / "x.nii.gz")
    assert np.array_equal(volume.data, array)
    assert volume.data.dtype.isnative
    assert np.array_equal(volume.affine, TILTED)


def test_a_trailing_axis_of_length_one_is_dropped(tmp_path) -> None:
    volume, _ = read_volume(save(tmp_path / "x.nii", np.ones((4, 5, 6, 1, 1), np.int16)))
    assert volume.data.shape == (4, 5, 6)


def test_header_extensions_and_several_gzip_members_are_read(tmp_path) -> None:
    image = nibabel.Nifti1Image(np.arange(120, dtype=np.int16).reshape(4, 5, 6), LAS)
    image.header.extensions.append(nibabel.nifti1.Nifti1Extension("comment", b"a note"))
    data = image.to_bytes()
    (tmp_path / "x.nii.gz").write_bytes(gzip.compress(data[:500]) + gzip.compress(data[500:]))
    assert np.array_equal(read_volume(tmp_path / "x.nii.gz")[0].data, np.arange(120).reshape(4, 5, 6))


@pytest.mark.parametrize(
    ("sform", "qform", "used", "warning"),
    [
        (2, 0, "sform", None),
        (0, 1, "qform", None),
        (1, 1, "sform", "sform and qform of the header disagree by up to 7 mm; the sform was used"),
        (0, 0, None, "the header does not say where left and right are; its axes were taken to run to L, A and S"),
    ],
)
def test_which_affine_counts(tmp_path, sform, qform, used, warning) -> None:
    affines = {"sform": LAS, "qform": LAS + np.array([[0, 0, 0, 7], [0] * 4, [0] * 4, [0] * 4])}
    image = nibabel.Nifti1Image(np.zeros((4, 5, 6), np.int16), None)
    image.header.set_sform(affines["sform"], sform)
    image.header.set_qform(affines["qform"], qform)
    (tmp_path / "x.nii").write_bytes(image.to_bytes())
    raw = bytearray((tmp_path / "x.nii").read_bytes())
    raw[252:256] = np.array([qform, sform], "<i2").tobytes()
    (tmp_path / "x.nii").write_bytes(raw)
    volume, warnings = read_volume(tmp_path / "x.nii")
    assert warnings == ([warning] if warning else [])
    if used:
        np.testing.assert_allclose(volume.affine, affines[used], atol=1e-5)
    else:
        assert volume.grid.orientation == "LAS"


def test_an_invalid_qform_beside_a_sform_is_a_warning(tmp_path) -> None:
    path = save(tmp_path / "x.nii", np.zeros((4, 5, 6), np.int16))
    raw = bytearray(path.read_bytes())
    raw[256:268] = np.array([1, 1, 1], "<f4").tobytes()
    path.write_bytes(raw)
    volume, warnings = read_volume(path)
    assert np.array_equal(volume.affine, LAS)
    assert warnings == ["the qform of the header is invalid; its sform was used"]


@pytest.mark.parametrize(("unit", "factor"), [("meter", 1000), ("micron", 0.001), ("mm", 1), ("unknown", 1)])
def test_units_become_millimetres(tmp_path, unit, factor) -> None:
    image = nibabel.Nifti1Image(np.zeros((4, 5, 6), np.int16), np.diag([2.0, 1.0, 1.0, 1.0]))
    image.header.set_xyzt_units(unit)
    nibabel.save(image, tmp_path / "x.nii")
    volume, warnings = read_volume(tmp_path / "x.nii")
    assert volume.affine[0, 0] == 2 * factor
    assert warnings == ([f"the unit of the header is the {unit}; lengths were converted to mm"] if factor != 1 else [])


@given(
    angles=st.tuples(*[st.floats(-3, 3).map(lambda value: round(value, 9))] * 3),
    spacing=st.tuples(*[st.floats(0.3, 6)] * 3),
    origin=st.tuples(*[st.floats(-200, 200)] * 3),
    mirrored=st.booleans(),
)
def test_simpleitk_reads_every_voxel_where_it_was(tmp_path_factory, sitk, angles, spacing, origin, mirrored) -> None:
    x, y, z = (np.cos(angle) + 1j * np.sin(angle) for angle in angles)
    turn = np.eye(3)
    for (i, j), angle in zip(((0, 1), (1, 2), (0, 2)), (x, y, z), strict=True):
        step = np.eye(3)
        step[[i, j], [i, j]], step[i, j], step[j, i] = angle.real, -angle.imag, angle.imag
        turn = step @ turn
    affine = np.eye(4)
    affine[:3, :3] = turn @ np.diag([-1 if mirrored else 1, 1, 1]) @ np.diag(spacing)
    affine[:3, 3] = origin
    path = tmp_path_factory.mktemp("sitk") / "x.nii.gz"
    array = np.arange(24, dtype=np.int16).reshape(2, 3, 4)
    write_volume(path, Volume(array, affine))
    image = sitk.ReadImage(str(path))
    grid = Grid(array.shape, affine)
    for index in np.ndindex(array.shape):
        assert image[index] == array[index]
        point = np.asarray(image.TransformIndexToPhysicalPoint(index)) * (-1, -1, 1)
        np.testing.assert_allclose(point, grid.world(index), atol=0.01)  # ITK goes by the qform


@contextlib.contextmanager
def no_room() -> Iterator[None]:
    """Let no file of this process grow beyond 1000 bytes, as on a full disk; also not what the tests print to."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    handler = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1000, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
        signal.signal(signal.SIGXFSZ, handler)


def test_a_full_disk_leaves_the_old_file_and_nothing_else(tmp_path) -> None:
    (tmp_path / "x.nii").write_bytes(b"old")
    volume = Volume(np.zeros((9, 9, 9), np.float32), LAS)
    with pytest.raises(OutputError, match=r"x\.nii cannot be written: File too large"), no_room():
        write_volume(tmp_path / "x.nii", volume)
    assert [(path.name, path.read_bytes()) for path in tmp_path.iterdir()] == [("x.nii", b"old")]


def test_an_existing_file_is_replaced_with_the_usual_permissions(tmp_path) -> None:
    (tmp_path / "plain").touch()
    for _ in range(2):
        write_volume(tmp_path / "x.nii", Volume(np.zeros((2, 2, 2), np.float32), LAS))
    assert (tmp_path / "x.nii").stat().st_mode == (tmp_path / "plain").stat().st_mode
    assert sorted(path.name for path in tmp_path.iterdir()) == ["plain", "x.nii"]


def test_real_files_keep_their_voxels_and_affine(data_dir, tmp_path) -> None:
    for name in ("open_ms/patient07/flair.nii.gz", "open_ms_raw/patient12_study1/t1.nii.gz"):
        image = nibabel.load(data_dir / name)
        volume, warnings = read_volume(data_dir / name)
        assert warnings == []
        assert np.array_equal(volume.affine, image.affine)
        assert np.array_equal(volume.data, np.asanyarray(image.dataobj))
        write_volume(tmp_path / "x.nii.gz", volume)
        assert np.array_equal(nibabel.load(tmp_path / "x.nii.gz").affine, image.affine)
