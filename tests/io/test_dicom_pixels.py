"""The values of DICOM voxels: scaled, signed, inverted, compressed; and what cannot be decoded."""

from __future__ import annotations

import types
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pydicom
import pytest
from dicom_studies import FLAIR, T1, rewrite, write_enhanced, write_series
from pydicom.dataset import Dataset
from test_dicom_geometry import make_volume, read

from rmr_sdk.errors import DeviceUnavailableError, FormatError
from rmr_sdk.volume import Volume

Change = Callable[[int, Dataset], None]


def voxels(folder: Path, volume: Volume, change: Change | None = None) -> np.ndarray:
    """Write a T1 and return what is read of it."""
    write_series(folder, volume, 1, T1, change=change)
    write_series(folder, make_volume(), 2, FLAIR)
    return read(folder)["T1w"].data


def scaled(slope: float, intercept: float, per_slice: float = 0.0) -> Change:
    """Return what gives images a slope and an intercept."""

    def change(k: int, image: Dataset) -> None:
        image.RescaleSlope, image.RescaleIntercept = slope + k * per_slice, intercept

    return change


@pytest.mark.parametrize("dtype", ["uint8", "int16", "uint16"])
def test_integers_stay_as_stored(tmp_path: Path, dtype: str) -> None:
    data = (make_volume().data.astype(np.int64) * 37 - 300).astype(dtype)
    read_back = voxels(tmp_path, Volume(data, make_volume().affine), scaled(1.0, 0.0))
    assert read_back.dtype == dtype
    np.testing.assert_array_equal(read_back, data)


@pytest.mark.parametrize(("slope", "intercept", "per_slice"), [(2.5, 0.0, 0.0), (1.0, -100.0, 0.0), (0.5, 3.0, 0.25)])
def test_slope_and_intercept_of_each_image(tmp_path: Path, slope: float, intercept: float, per_slice: float) -> None:
    data = make_volume().data
    read_back = voxels(tmp_path, make_volume(), scaled(slope, intercept, per_slice))
    assert read_back.dtype == np.float32
    np.testing.assert_allclose(read_back, data * (slope + per_slice * np.arange(10)) + intercept)


def test_a_slope_of_zero_and_private_scaling_are_ignored(tmp_path: Path) -> None:
    def change(_: int, image: Dataset) -> None:
        image.RescaleSlope, image.RescaleIntercept = 0, 0
        image.add_new(0x20050010, "LO", "Philips MR Imaging DD 001")
        image.add_new(0x2005100E, "FL", 0.004)

    np.testing.assert_array_equal(voxels(tmp_path, make_volume(), change), make_volume().data)


def test_inverted_grey_is_turned_round(tmp_path: Path) -> None:
    def change(_: int, image: Dataset) -> None:
        image.PhotometricInterpretation = "MONOCHROME1"

    data = (make_volume().data.astype(np.int32) * 100 - 32000).astype(np.int16)
    read_back = voxels(tmp_path, Volume(data, make_volume().affine), change)
    np.testing.assert_array_equal(read_back, data.max() - data.astype(np.int32) + data.min())
    assert "T1w: series 1: its grey scale is inverted (MONOCHROME1) and was turned round" in read(tmp_path).warnings


def test_bits_that_are_not_stored_are_not_read(tmp_path: Path) -> None:
    def change(_: int, image: Dataset) -> None:
        image.BitsStored, image.HighBit = 12, 11

    data = make_volume().data
    overlaid = Volume(data | np.uint16(0x8000), make_volume().affine)  # as overlays were once hidden in the pixels
    np.testing.assert_array_equal(voxels(tmp_path, overlaid, change), data)


def test_echoes_of_one_file_are_decoded_apart(tmp_path: Path) -> None:
    second = Volume(make_volume().data[::-1].copy(), make_volume().affine)
    write_enhanced(tmp_path, [make_volume(), second], 1, T1, echoes=[3.0, 8.0], shuffle=True)
    write_series(tmp_path, make_volume(), 2, FLAIR)
    from rmr_sdk import Study

    read_back = Study.from_dicom(tmp_path, t1_series="1.2", flair_series=2)["T1w"]
    assert np.array_equal(np.sort(read_back.data, axis=None), np.sort(second.data, axis=None))
    assert read_back.data[0, 0, 0] == second.data[0, 0, 0]


def gdcm_module() -> types.ModuleType:
    return pytest.importorskip("gdcm")


def compress(file: Path, syntax: str) -> None:
    """Write a file anew with its pixels compressed, by GDCM or pydicom."""
    if syntax == "RLELossless":
        return rewrite(file, lambda image: image.compress(pydicom.uid.RLELossless))
    gdcm = gdcm_module()
    reader, change, writer = gdcm.ImageReader(), gdcm.ImageChangeTransferSyntax(), gdcm.ImageWriter()
    reader.SetFileName(str(file))
    assert reader.Read()
    change.SetTransferSyntax(gdcm.TransferSyntax(getattr(gdcm.TransferSyntax, syntax)))
    change.SetInput(reader.GetImage())
    assert change.Change()
    writer.SetFileName(str(file))
    writer.SetFile(reader.GetFile())
    writer.SetImage(change.GetOutput())
    assert writer.Write()
    return None


@pytest.mark.parametrize(
    "syntax", ["RLELossless", "JPEGLosslessProcess14", "JPEGLosslessProcess14_1", "JPEGLSLossless", "JPEG2000Lossless"]
)
@pytest.mark.parametrize("dtype", ["uint16", "int16"])
def test_compressed_series(tmp_path: Path, syntax: str, dtype: str) -> None:
    data = (make_volume().data.astype(np.int64) - (200 if dtype == "int16" else 0)).astype(dtype)
    write_series(tmp_path, Volume(data, make_volume().affine), 1, T1)
    for file in tmp_path.iterdir():
        compress(file, syntax)
    assert pydicom.dcmread(file).file_meta.TransferSyntaxUID.is_compressed
    write_series(tmp_path, make_volume(), 2, FLAIR)
    read_back = read(tmp_path)["T1w"].data
    assert read_back.dtype == dtype
    np.testing.assert_array_equal(read_back, data)


def test_lossy_compression_is_told(tmp_path: Path) -> None:
    def change(_: int, image: Dataset) -> None:
        image.LossyImageCompression, image.LossyImageCompressionRatio = "01", 8.0

    voxels(tmp_path, make_volume(), change)
    assert "T1w: series 1: its images went through lossy compression" in read(tmp_path).warnings


@pytest.mark.parametrize(
    ("syntax", "words"),
    [
        ("1.2.840.10008.1.2.4.201", "series 1 is compressed as High-Throughput JPEG 2000 Image Compression"),
        ("1.2.840.10008.1.2.4.100", "series 1 is compressed as MPEG2 Main Profile / Main Level, for which no decoder"),
    ],
)
def test_a_compression_without_decoder_is_refused_by_name(tmp_path: Path, syntax: str, words: str) -> None:
    write_series(tmp_path, make_volume(), 1, T1)
    for file in tmp_path.iterdir():
        dataset = pydicom.dcmread(file)
        dataset.file_meta.TransferSyntaxUID = pydicom.uid.UID(syntax)
        dataset.PixelData = pydicom.encaps.encapsulate([b"\0" * 8])
        dataset["PixelData"].VR = "OB"
        dataset.save_as(file)
    write_series(tmp_path, make_volume(), 2, FLAIR)
    with pytest.raises(DeviceUnavailableError, match=words) as caught:
        read(tmp_path)
    assert caught.value.fix == 'Run: pip install "rmr-sdk[dicom]".'


def cut_pixels(image: Dataset) -> None:
    image.PixelData = image.PixelData[: len(image.PixelData) // 2]


def drop_pixels(image: Dataset) -> None:
    del image.PixelData


def claim_odd_bits(image: Dataset) -> None:
    image.BitsAllocated = 13


@pytest.mark.parametrize("spoil", [cut_pixels, drop_pixels, claim_odd_bits])
def test_pixels_that_are_not_all_there(tmp_path: Path, spoil: Callable[[Dataset], None]) -> None:
    write_series(tmp_path, make_volume(), 1, T1)
    write_series(tmp_path, make_volume(), 2, FLAIR)
    rewrite(tmp_path / "IM010003", spoil)
    with pytest.raises(
        FormatError, match=r"series 1: the pixels of image 4 are missing, truncated or damaged. Copy or"
    ):
        read(tmp_path)


def test_images_of_several_types(tmp_path: Path) -> None:
    def widen(image: Dataset) -> None:
        image.PixelRepresentation = 1

    write_series(tmp_path, make_volume(), 1, T1)
    write_series(tmp_path, make_volume(), 2, FLAIR)
    rewrite(tmp_path / "IM010003", widen)
    with pytest.raises(FormatError, match="series 1: its images differ in size or type"):
        read(tmp_path)
