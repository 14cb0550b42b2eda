"""DICOM objects of a result: where their voxels are, what they say and refer to, judged by other readers."""

from __future__ import annotations

import dataclasses
import shutil
import subprocess
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import highdicom
import numpy as np
import pydicom
import pytest
from dicom_studies import FLAIR, LPS, T1, write_enhanced, write_series
from sample_results import CLASSES, make_fused_only, make_result
from test_dicom_geometry import make_volume

from rmr_sdk import Result, Study
from rmr_sdk.geometry import Grid
from rmr_sdk.io.dicom_fused import to_stored
from rmr_sdk.io.dicom_object import decimal
from rmr_sdk.io.dicom_out import write_dicom
from rmr_sdk.volume import Volume

SHAPE, SPACING = (22, 26, 14), (2.4, 2.5, 4.0)
SEGMENTS = ("lesion", "csf", "grey_matter", "white_matter")
CODES = ("52988006", "65216001", "389081007", "389080008")


def head_grid(codes: str, tilts: tuple[float, ...] = ()) -> Grid:
    """Return a coarse grid that holds the head of the sample results, with axes (column, row, slice)."""
    volume = make_volume(codes, tilts, SHAPE)
    affine = volume.affine.copy()
    affine[:3, :3] *= np.asarray(SPACING) / np.linalg.norm(affine[:3, :3], axis=0)
    affine[:3, 3] = -affine[:3, :3] @ ((np.asarray(SHAPE) - 1) / 2)
    return Grid(SHAPE, affine)


def write_study(folder: Path, grid: Grid, enhanced: bool = False, **subject: str) -> Study:
    """Write and read a study whose FLAIR is on this grid."""
    flair = Volume((100 * np.indices(SHAPE).sum(axis=0)).astype(np.uint16), grid.affine)
    if enhanced:
        write_enhanced(folder, [flair], 2, FLAIR, shuffle=True)
    else:
        write_series(folder, flair, 2, FLAIR, subject=subject)
    t1 = Volume(make_volume(shape=(12, 12, 16)).data, np.diag([4.0, 4.0, 4.0, 1.0]) @ make_volume("PIR").affine)
    write_series(folder, t1, 1, T1, subject=subject)
    return Study.from_dicom(folder, t1_series=1, flair_series=2)


def result_of(study: Study, make: Callable[..., Result] = make_result, **changes: Any) -> Result:
    """Return a sample result on the grid of the study's FLAIR."""
    return make(grid=study["FLAIR"].grid, source=study.source, **changes)


@pytest.fixture(
    scope="module",
    params=[
        ("LPS", (), False),
        ("PIR", (), False),
        ("LIA", (), True),
        ("RAS", (9, -14, 21), False),
        ("AIL", (5, 3, 8), True),
    ],
    ids=["axial", "sagittal", "coronal enhanced", "negated oblique", "oblique enhanced"],
)
def written(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Result]:
    """Give the DICOM folder of a saved result, and the result."""
    codes, tilts, enhanced = request.param
    folder = tmp_path_factory.mktemp("study")
    result = result_of(write_study(folder / "in", head_grid(codes, tilts), enhanced))
    assert result.lesions is not None
    lesion = dataclasses.replace(result.lesions[0], location="deep white matter")
    result = dataclasses.replace(result, lesions=(lesion,))
    write_dicom(folder / "out", result)
    return folder / "out", result


def world_of(positions: Any, orientation: Any, spacing: Any, pixels: np.ndarray) -> np.ndarray:
    """Return the RAS points of the pixels of one frame that are set, by the formula of PS3.3 C.7.6.2.1.1."""
    rows, columns = np.nonzero(pixels)
    across, down = np.array(orientation[:3], float), np.array(orientation[3:], float)
    lps = np.array(positions, float) + columns[:, None] * across * spacing[1] + rows[:, None] * down * spacing[0]
    return lps @ LPS[:3, :3]


def rounded(points: np.ndarray) -> set[tuple[float, ...]]:
    """Return points that can be compared as a set."""
    return {tuple(point) for point in (np.round(points, 3) + 0.0).tolist()}


def items(dataset: pydicom.Dataset) -> Iterator[pydicom.Dataset]:
    """Give all items of all sequences at any depth."""
    for element in dataset:
        if element.VR == "SQ":
            for one in element.value:
                yield one
                yield from items(one)


def test_fused_series_in_another_reader(written: tuple[Path, Result], sitk: ModuleType) -> None:
    folder, result = written
    names = sitk.ImageSeriesReader.GetGDCMSeriesFileNames(str(folder / "fused"))
    image = sitk.ReadImage(names, sitk.sitkFloat32)
    fused = result.fused
    tolerance = float(np.ptp(fused.data)) / 65535
    assert sorted(image.GetSize()) == sorted(SHAPE)
    for index in np.random.default_rng(3).integers(0, SHAPE, (300, 3)):
        place = image.TransformPhysicalPointToContinuousIndex((LPS[:3, :3] @ fused.grid.world(index)).tolist())
        np.testing.assert_allclose(place, np.rint(place), atol=1e-3)
        assert image[tuple(int(n) for n in np.rint(place))] == pytest.approx(
            float(fused.data[tuple(index)]), abs=tolerance
        )


def test_fused_series_says_what_it_is(written: tuple[Path, Result]) -> None:
    folder, result = written
    images = [pydicom.dcmread(file) for file in sorted((folder / "fused").iterdir())]
    assert result.source is not None
    assert {image.FrameOfReferenceUID for image in images} == {"2.25.2002"}
    assert {image.StudyInstanceUID for image in images} == {"2.25.1001"}
    assert len({image.SeriesInstanceUID for image in images} | {"2.25.3001", "2.25.3002"}) == 3
    assert len({image.SOPInstanceUID for image in images}) == SHAPE[2]
    assert [image.InstanceNumber for image in images] == list(range(1, SHAPE[2] + 1))
    for image in images:
        assert list(image.ImageType[:2]) == ["DERIVED", "SECONDARY"]
        assert image.SeriesDescription.startswith("RESEARCH")
        assert image.ContentQualification == "RESEARCH"
        assert "not a medical device" in image.ImageComments


def test_fused_images_refer_to_the_slices_they_came_from(written: tuple[Path, Result]) -> None:
    folder, result = written
    source = result.source
    assert source is not None
    for k, file in enumerate(sorted((folder / "fused").iterdir())):
        references = pydicom.dcmread(file).SourceImageSequence
        own = source.series["FLAIR"].images[k]
        found = [(one.ReferencedSOPInstanceUID, one.get("ReferencedFrameNumber")) for one in references]
        assert (own.sop_instance, own.frame) in found
        # Every T1 slice whose plane passes through the fused slice is referred to.
        corners = np.array([(0, 0), (1, 0), (0, 1), (1, 1)]) * (11, 11)
        grid, t1 = result.fused.grid, source.series["T1w"]
        for n, image in enumerate(t1.images):
            points = np.column_stack([corners, np.full(4, n)]) @ t1.affine[:3, :3].T + t1.affine[:3, 3]
            depth = grid.index(points)[:, 2]
            if depth.min() < k + 0.5 and depth.max() > k - 0.5:
                assert (image.sop_instance, None) in found


def test_segments_lie_where_the_labels_are(written: tuple[Path, Result]) -> None:
    """Read by hand: bits, frames and planes, with nothing of highdicom."""
    folder, result = written
    seg = pydicom.dcmread(folder / "segmentation.dcm")
    bits = np.unpackbits(np.frombuffer(seg.PixelData, np.uint8), bitorder="little")
    frames = bits[: seg.NumberOfFrames * seg.Rows * seg.Columns].reshape(-1, seg.Rows, seg.Columns)
    shared = seg.SharedFunctionalGroupsSequence[0]
    orientation = shared.PlaneOrientationSequence[0].ImageOrientationPatient
    spacing = [float(mm) for mm in shared.PixelMeasuresSequence[0].PixelSpacing]
    found: dict[int, set[tuple[float, ...]]] = {}
    for pixels, group in zip(frames, seg.PerFrameFunctionalGroupsSequence, strict=True):
        number = group.SegmentIdentificationSequence[0].ReferencedSegmentNumber
        position = group.PlanePositionSequence[0].ImagePositionPatient
        found.setdefault(number, set()).update(rounded(world_of(position, orientation, spacing, pixels)))
    assert result.labels is not None
    for number, name in enumerate(SEGMENTS, start=1):
        index = np.argwhere(result.labels.data == CLASSES.index(name))
        assert len(index) > 0
        assert found[number] == rounded(result.labels.grid.world(index)), name


def test_segments_in_a_second_reader(written: tuple[Path, Result]) -> None:
    folder, result = written
    assert result.labels is not None
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        volume = highdicom.seg.segread(folder / "segmentation.dcm").get_volume(combine_segments=True)
    numbers = np.asarray(volume.array)
    for number, name in enumerate(SEGMENTS, start=1):
        points = volume.map_indices_to_reference(np.argwhere(numbers == number)) @ LPS[:3, :3]
        own = result.labels.grid.world(np.argwhere(result.labels.data == CLASSES.index(name)))
        assert rounded(points) == rounded(own)


def test_segments_are_coded_and_refer_to_their_slices(written: tuple[Path, Result]) -> None:
    folder, result = written
    seg = pydicom.dcmread(folder / "segmentation.dcm")
    source = result.source
    assert source is not None
    assert [one.SegmentedPropertyTypeCodeSequence[0].CodeValue for one in seg.SegmentSequence] == list(CODES)
    assert all(one.SegmentAlgorithmType == "AUTOMATIC" for one in seg.SegmentSequence)
    assert seg.SegmentSequence[0].SegmentationAlgorithmIdentificationSequence[0].AlgorithmName == "RMR SDK ms-test"
    assert (seg.SegmentationType, seg.FrameOfReferenceUID) == ("BINARY", "2.25.2002")
    assert seg.ContentQualification == "RESEARCH"
    assert seg.SeriesDescription.startswith("RESEARCH")
    images = {(one.sop_instance, one.frame): k for k, one in enumerate(source.series["FLAIR"].images)}
    for group in seg.PerFrameFunctionalGroupsSequence:
        position = np.array(group.PlanePositionSequence[0].ImagePositionPatient, float)
        (reference,) = group.DerivationImageSequence[0].SourceImageSequence
        k = images[reference.ReferencedSOPInstanceUID, reference.get("ReferencedFrameNumber")]
        np.testing.assert_allclose(LPS[:3, :3] @ result.fused.grid.world((0, 0, k)), position, atol=1e-4)
    known = {image.sop_instance for image in source.series["FLAIR"].images}
    referenced = {one.ReferencedSOPInstanceUID for one in seg.ReferencedSeriesSequence[0].ReferencedInstanceSequence}
    assert referenced == known


def measurement_groups(report: pydicom.Dataset) -> list[pydicom.Dataset]:
    """Return the containers of measurements: those of the classes, then those of the lesions."""
    return [
        one
        for one in items(report)
        if one.get("ValueType") == "CONTAINER" and one.ConceptNameCodeSequence[0].CodeValue == "125007"
    ]


def measured(group: pydicom.Dataset) -> dict[str, float]:
    """Return the numbers of a measurement group by the code of their names."""
    return {
        one.ConceptNameCodeSequence[0].CodeValue: float(one.MeasuredValueSequence[0].NumericValue)
        for one in group.ContentSequence
        if one.ValueType == "NUM"
    }


def test_measurements(written: tuple[Path, Result]) -> None:
    folder, result = written
    report, seg = (pydicom.dcmread(folder / f"{name}.dcm") for name in ("measurements", "segmentation"))
    assert (report.CompletionFlag, report.VerificationFlag) == ("COMPLETE", "UNVERIFIED")
    assert report.SeriesDescription.startswith("RESEARCH")
    groups = measurement_groups(report)
    read_back = highdicom.sr.srread(folder / "measurements.dcm").content
    assert len(read_back.get_volumetric_roi_measurement_groups()) == len(SEGMENTS)
    assert len(read_back.get_planar_roi_measurement_groups()) == 1
    assert b"not a medical device" in (folder / "measurements.dcm").read_bytes()
    assert result.lesions is not None
    assert result.tissue_ml is not None
    classes, lesions = groups[:4], groups[4:]
    assert len(lesions) == len(result.lesions) == 1
    assert measured(classes[0]) == {
        "118565006": pytest.approx(result.lesion_ml, rel=1e-5),
        "246206008": 1.0,
    }
    for number, (name, group) in enumerate(zip(SEGMENTS[1:], classes[1:], strict=True), start=2):
        assert measured(group)["118565006"] == pytest.approx(result.tissue_ml[name], rel=1e-5)
        (segment,) = [one for one in items(group) if "ReferencedSegmentNumber" in one]
        assert (segment.ReferencedSOPInstanceUID, segment.ReferencedSegmentNumber) == (seg.SOPInstanceUID, number)


def test_a_lesion_is_where_the_report_says(written: tuple[Path, Result]) -> None:
    folder, result = written
    report = pydicom.dcmread(folder / "measurements.dcm")
    assert result.lesions is not None
    assert result.source is not None
    centre = np.array(result.lesions[0].centroid_mm)
    group = measurement_groups(report)[4]
    assert "lesion 1" in str(group)
    numbers = measured(group)
    assert numbers["103339001"] == pytest.approx(result.lesions[0].diameter_mm)
    lps = [numbers[f"centroid_{axis}"] for axis in "xyz"]
    np.testing.assert_allclose(LPS[:3, :3] @ lps, centre, atol=1e-3)
    (location,) = [one for one in items(group) if one.get("ValueType") == "CODE" and "99RMR" in str(one)]
    assert location.ConceptCodeSequence[0].CodeMeaning == "deep white matter"
    point = next(one for one in items(group) if one.get("ValueType") == "SCOORD")
    column, row = point.GraphicData
    reference = point.ContentSequence[0].ReferencedSOPSequence[0]
    images = [(one.sop_instance, one.frame) for one in result.source.series["FLAIR"].images]
    k = images.index((reference.ReferencedSOPInstanceUID, reference.get("ReferencedFrameNumber")))
    index = result.fused.grid.index(centre)
    np.testing.assert_allclose((column - 0.5, row - 0.5), index[:2], atol=1e-3)
    assert abs(k - index[2]) <= 0.5


@pytest.mark.skipif(shutil.which("dciodvfy") is None, reason="dciodvfy (Debian: dicom3tools) is not installed")
def test_a_validator_finds_no_error(written: tuple[Path, Result]) -> None:
    folder, _ = written
    for name in ("fused/0001.dcm", "segmentation.dcm", "measurements.dcm"):
        done = subprocess.run(["dciodvfy", "-new", folder / name], capture_output=True, text=True, check=False)
        said = done.stdout + done.stderr
        assert not [line for line in said.splitlines() if line.startswith("Error")], said


def test_no_lesion_is_an_answer_that_can_be_read(tmp_path: Path) -> None:
    result = result_of(write_study(tmp_path / "in", head_grid("LPS")), spheres=())
    write_dicom(tmp_path / "out", result)
    seg = highdicom.seg.segread(tmp_path / "out" / "segmentation.dcm")
    assert [one.SegmentLabel for one in seg.SegmentSequence] == ["lesion", "CSF", "grey matter", "white matter"]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        lesions = np.asarray(seg.get_volume(segment_numbers=[1], combine_segments=False).array)
    assert lesions.shape[:3] == (SHAPE[2], SHAPE[1], SHAPE[0])
    assert not lesions.any()
    frames = [
        one.SegmentIdentificationSequence[0].ReferencedSegmentNumber for one in seg.PerFrameFunctionalGroupsSequence
    ]
    assert frames.count(1) == SHAPE[2]
    report = pydicom.dcmread(tmp_path / "out" / "measurements.dcm")
    assert measured(measurement_groups(report)[0]) == {"118565006": 0.0, "246206008": 0.0}


def test_every_lesion_is_listed(tmp_path: Path) -> None:
    result = result_of(write_study(tmp_path / "in", head_grid("LPS")))
    assert result.lesions is not None
    many = tuple(dataclasses.replace(result.lesions[0], id=number) for number in range(1, 301))
    write_dicom(tmp_path / "out", dataclasses.replace(result, lesions=many))
    report = pydicom.dcmread(tmp_path / "out" / "measurements.dcm")
    groups = measurement_groups(report)
    assert len(groups) == len(SEGMENTS) + 300
    assert measured(groups[0])["246206008"] == 300
    referenced = {one.ReferencedSOPInstanceUID for one in items(groups[-1]) if "ReferencedSOPInstanceUID" in one}
    (evidence,) = report.CurrentRequestedProcedureEvidenceSequence
    assert referenced < {one.ReferencedSOPInstanceUID for one in items(evidence) if "ReferencedSOPInstanceUID" in one}


def test_a_bundle_that_only_fuses_writes_the_series_alone(tmp_path: Path) -> None:
    write_dicom(tmp_path / "out", result_of(write_study(tmp_path / "in", head_grid("LPS")), make_fused_only))
    assert [path.name for path in (tmp_path / "out").iterdir()] == ["fused"]


def test_classes_without_public_codes_get_private_ones(tmp_path: Path) -> None:
    classes = (*CLASSES[:3], "thalamus", "lesion")
    tissue = {"csf": 1.0, "grey_matter": 2.0, "thalamus": 3.0}
    result = result_of(write_study(tmp_path / "in", head_grid("LPS")), classes=classes, tissue_ml=tissue)
    write_dicom(tmp_path / "out", result)
    seg = pydicom.dcmread(tmp_path / "out" / "segmentation.dcm")
    kind = seg.SegmentSequence[3].SegmentedPropertyTypeCodeSequence[0]
    assert (kind.CodeValue, kind.CodingSchemeDesignator) == ("thalamus", "99RMR")


def test_what_breaks_the_rules_is_not_repeated(tmp_path: Path) -> None:
    subject = {
        "PatientSex": "W",
        "PatientBirthDate": "",
        "StudyID": "",
        "PatientIdentityRemoved": "YES",
        "PatientName": "Bono",
    }
    study = write_study(tmp_path / "in", head_grid("LPS"), **subject)
    write_dicom(tmp_path / "out", result_of(study))
    for name in ("fused/0001.dcm", "segmentation.dcm", "measurements.dcm"):
        image = pydicom.dcmread(tmp_path / "out" / name)
        assert (image.PatientName, image.PatientID, image.PatientSex) == ("Bono", "SECRET-4711", "")
        assert image.PatientBirthDate in ("", None)
        assert image.StudyDate == "20260102"
        assert image.PatientIdentityRemoved == "YES"
        assert image.DeidentificationMethod


def test_names_in_other_alphabets_stay_what_they_are(tmp_path: Path) -> None:
    def latin(_: int, image: pydicom.Dataset) -> None:
        image.SpecificCharacterSet = "ISO_IR 100"

    name = "Müßig^Zoë"
    for number, parameters in ((1, T1), (2, FLAIR)):
        volume = make_volume(shape=SHAPE)
        write_series(tmp_path / "in", volume, number, parameters, subject={"PatientName": name}, change=latin)
    write_dicom(tmp_path / "out", result_of(Study.from_dicom(tmp_path / "in"), spheres=()))
    for file in (tmp_path / "out").rglob("*.dcm"):
        assert str(pydicom.dcmread(file).PatientName) == name


def test_a_study_without_a_frame_of_reference_gets_one(tmp_path: Path) -> None:
    write_series(tmp_path / "in", make_volume(shape=SHAPE), 1, {**T1, "FrameOfReferenceUID": ""})
    write_series(tmp_path / "in", make_volume(shape=SHAPE), 2, {**FLAIR, "FrameOfReferenceUID": ""})
    study = Study.from_dicom(tmp_path / "in")
    assert study.frames is None
    write_dicom(tmp_path / "out", result_of(study, spheres=()))
    frames = {
        pydicom.dcmread(file).FrameOfReferenceUID
        for file in (tmp_path / "out").rglob("*.dcm")
        if "measure" not in file.name
    }
    assert len(frames) == 1
    assert frames != {""}


def test_outputs_of_the_other_reference(tmp_path: Path) -> None:
    study = write_study(tmp_path / "in", head_grid("LPS"))
    result = make_result(grid=study["T1w"].grid, source=study.source, reference="T1w", spheres=())
    write_dicom(tmp_path / "out", result)
    seg = pydicom.dcmread(tmp_path / "out" / "segmentation.dcm")
    assert seg.ReferencedSeriesSequence[0].SeriesInstanceUID == "2.25.3001"
    assert (seg.Rows, seg.Columns) == (12, 12)


@pytest.mark.parametrize(
    "values",
    [(0, 0.1, 1234.56), (-3.25, 0, 1e-3), (0, 0, 0), (7, 7, 7), (0, 1e6, 2), (0, 1e-7, 1e-8)],
)
def test_sixteen_bits_keep_precision(values: tuple[float, ...]) -> None:
    fused = np.asarray(values, np.float32)
    stored, slope, intercept = to_stored(fused)
    assert stored.dtype == np.uint16
    error = np.abs(stored * slope + intercept - fused.astype(np.float64)).max()
    assert error <= (np.ptp(fused.astype(np.float64)) / 65535) * 0.501


@pytest.mark.parametrize("value", [0.1, -1 / 3, 1e-12, 123456789.123456, -0.0, 6.02214076e23, -1.23456789012345e-300])
def test_decimal_strings_fit(value: float) -> None:
    assert len(decimal(value)) <= 16
    assert float(decimal(value)) == pytest.approx(value, rel=1e-9)
    assert decimal(-0.0) == "0"
