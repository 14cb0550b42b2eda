"""Which series of a study are its T1w and its FLAIR, and what is said of the others."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from dicom_studies import FLAIR, T1, item, write_enhanced, write_series
from pydicom.dataset import Dataset
from test_dicom_geometry import make_volume

from rmr_sdk import Study
from rmr_sdk.errors import StudyError
from rmr_sdk.io.dicom import list_study
from rmr_sdk.io.dicom.parameters import Parameters, weighting
from rmr_sdk.io.dicom.roles import Role
from rmr_sdk.volume import Volume

UNKNOWN = {"RepetitionTime": "", "EchoTime": "", "InversionTime": "", "ScanningSequence": "RM"}
T2 = {"RepetitionTime": 9000.0, "EchoTime": 120.0, "InversionTime": "", "ScanningSequence": "SE"}


def volume(slices: int = 8, spacing_mm: float = 1.0, step_mm: float = 15.0) -> Volume:
    """Return a small volume that reaches over a head."""
    affine = np.diag([spacing_mm, spacing_mm, step_mm, 1.0])
    return Volume(np.arange(5 * 4 * slices, dtype=np.uint16).reshape(5, 4, slices), affine)


def roles(folder: Path) -> dict[str, Role]:
    """Return what each volume is."""
    return {found.key: role for found, role in list_study(folder)[0]}


def chosen(folder: Path, **series: Any) -> list[str]:
    """Return the keys of the series taken for T1w and FLAIR."""
    return [note.split("series ")[1].split(" (")[0] for note in Study.from_dicom(folder, **series).notes]


def parameters(
    scanning: str, tr: float, te: float, ti: float | None = None, flip: float = 90, variant: str = "SK"
) -> Parameters:
    """Return parameters as a scanner gives them."""
    return Parameters(
        repetition_ms=tr,
        echo_ms=te,
        inversion_ms=ti,
        flip_degrees=flip,
        scanning=frozenset(scanning.split()),
        variant=frozenset(variant.split()),
    )


@pytest.mark.parametrize(
    ("acquired", "contrast"),
    [
        # T1w: MPRAGE of three vendors, spoiled gradient echo, spin echo, 3-D turbo spin echo, T1-FLAIR
        (parameters("GR IR", 2300, 2.98, 900, 9, "SK SP MP"), "T1w"),
        (parameters("GR", 8.2, 3.2, 450, 12, "SS SP SK"), "T1w"),
        (parameters("GR", 8.1, 3.7, None, 8, "MP"), "T1w"),
        (parameters("GR", 8.5, 3.2, None, 15, "SS SP SK"), "T1w"),
        (parameters("GR", 250, 2.5, None, 70, "SP"), "T1w"),
        (parameters("SE", 550, 10), "T1w"),
        (parameters("SE", 700, 28), "T1w"),
        (parameters("SE IR", 2000, 20, 800), "T1w"),
        (parameters("RM", 2000, 3, 900), "T1w"),
        # FLAIR: 2-D, 3-D with a long effective echo time, 1.5 T, 7 T, without TI
        (parameters("SE IR", 9000, 120, 2500), "FLAIR"),
        (parameters("SE IR", 5000, 388, 1800), "FLAIR"),
        (parameters("SE", 6000, 110, 1650), "FLAIR"),
        (parameters("SE IR", 10000, 80, 2800), "FLAIR"),
        (parameters("SE IR", 4800, 300), "FLAIR"),
        # neither
        (parameters("SE", 4000, 100), "T2w"),
        (parameters("SE", 3000, 30), "PDw"),
        (parameters("SE IR", 4000, 60, 150), "STIR"),
        (parameters("SE IR", 4000, 30, 160), "STIR"),
        (parameters("SE IR", 9000, 30, 2500), "inversion recovery of another kind"),
        (parameters("GR", 600, 20, None, 20), "T2*w"),
        (parameters("GR", 28, 20, None, 15, "SP"), "T2*w"),
        (parameters("GR", 20, 4, None, 5, "SP"), "PDw"),
        (parameters("GR IR", 5000, 2.9, 2500, 5, "SP MP"), "PDw"),
        (parameters("GR", 6, 3, None, 40, "SS"), "steady-state"),
        (parameters("EP SE", 9000, 90), "echo-planar"),
        (Parameters(repetition_ms=500.0), None),
        (Parameters(), None),
    ],
)  # fmt: skip
def test_parameters_name_the_contrast(acquired: Parameters, contrast: str | None) -> None:
    assert weighting(acquired) == contrast


@pytest.mark.parametrize(
    ("changes", "why"),
    [
        ({"ImageType": ["ORIGINAL", "PRIMARY", "LOCALIZER"]}, "a localiser"),
        ({"SeriesDescription": "3-plane loc"}, "a localiser"),
        ({"SeriesDescription": "AAHead_Scout"}, "a localiser"),
        ({"ImageType": ["DERIVED", "SECONDARY", "MPR"]}, "a reformat"),
        ({"ImageType": ["DERIVED", "SECONDARY", "MIP"]}, "a projection"),
        ({"ImageType": ["DERIVED", "PRIMARY", "M"]}, "derived from other images"),
        ({"ImageType": ["ORIGINAL", "SECONDARY", "M"]}, "derived from other images"),
        ({"ImageType": ["DERIVED", "PRIMARY", "DIFFUSION", "ADC"]}, "diffusion"),
        ({"ImageType": ["ORIGINAL", "PRIMARY", "P", "ND"]}, "a phase image"),
        ({"ImageType": ["ORIGINAL", "PRIMARY", "R_IR", "R", "IR"]}, "a real image"),
        ({"ImageType": ["ORIGINAL", "PRIMARY", "I"]}, "an imaginary image"),
        ({"ImageType": ["ORIGINAL", "PRIMARY", "M", "SWI"]}, "susceptibility-weighted"),
        ({"ImageType": ["ORIGINAL", "PRIMARY", "M", "MOSAIC"]}, "a mosaic: slices as tiles of one image"),
        ({"DiffusionBValue": 1000.0}, "diffusion"),
        ({"SeriesDescription": "ep2d_diff_3scan"}, "diffusion"),
        ({"SeriesDescription": "SWI_mIP"}, "susceptibility-weighted"),
        ({"AngioFlag": "Y"}, "an angiogram"),
        ({"SeriesDescription": "tof_fl3d_tra"}, "an angiogram"),
        ({"SequenceVariant": ["SP", "TOF"]}, "an angiogram"),
        ({"SeriesDescription": "t2_spc_DIR_sag"}, "double inversion recovery"),
        ({"ProtocolName": "WIP DIR3D"}, "double inversion recovery"),
        ({"InversionTime": [3000.0, 450.0]}, "double inversion recovery"),
        ({"SeriesDescription": "ep2d_bold_rest"}, "perfusion or functional"),
        ({"SeriesDescription": "gre_field_mapping"}, "a field map"),
        ({"SeriesDescription": "mp2rage_INV1"}, "magnetisation transfer or relaxometry"),
        ({"SeriesDescription": "t1_tse_sag_cervical"}, "of the spine"),
        ({"BodyPartExamined": "TSPINE"}, "of the spine"),
        ({"Modality": "CT", "SOPClassUID": "1.2.840.10008.5.1.4.1.1.2"}, "CT, not an MR image"),
        ({"Modality": "DOE JANE", "SOPClassUID": "1.2.3"}, "another modality, not an MR image"),
        ({"SOPClassUID": "1.2.840.10008.5.1.4.1.1.7"}, "another kind of object, not an MR image"),
        (T2, "T2w (3D spin echo, TR 9000, TE 120 ms)"),
        (UNKNOWN | {"SeriesDescription": "x"}, "neither its parameters (TR, TE) nor its description say what it is"),
        (
            {**FLAIR, "InversionTime": "", "SeriesDescription": "STIR"},
            "2D inversion recovery spin echo, TR 9000, TE 120 ms: no inversion time, and the description says STIR",
        ),
    ],
)  # fmt: skip
def test_what_is_never_taken(tmp_path: Path, changes: dict[str, Any], why: str) -> None:
    write_series(tmp_path, volume(), 1, {**T1, **changes})
    assert roles(tmp_path)["1"].why == why
    assert roles(tmp_path)["1"].contrast == ""


@pytest.mark.parametrize(("slices", "why"), [(1, "a single slice"), (3, "only 3 slices")])
def test_few_slices_are_not_taken(tmp_path: Path, slices: int, why: str) -> None:
    write_series(tmp_path, volume(slices), 1, T1)
    assert roles(tmp_path)["1"].why == why


@pytest.mark.parametrize(
    ("changes", "contrast"),
    [
        ({**T2, "SeriesDescription": "Ax FLAIR"}, "FLAIR"),
        ({**FLAIR, "SeriesDescription": "flair t2", "SequenceName": "*spcir_242ns"}, "FLAIR"),  # not T2*
        (UNKNOWN | {"SeriesDescription": "t2_tirm_tra_dark-fluid"}, "FLAIR"),
        (UNKNOWN | {"SeriesDescription": "T1 FLAIR"}, "T1w"),
        (UNKNOWN | {"ProtocolName": "3D_T1W_TFE", "SeriesDescription": ""}, "T1w"),
        ({"SeriesDescription": "wrongly called flair"}, "T1w"),
        ({"SeriesDescription": "posterior fossa"}, "T1w"),
        ({"Modality": ""}, "T1w"),
    ],
)  # fmt: skip
def test_descriptions_count_where_parameters_do_not_decide(
    tmp_path: Path, changes: dict[str, Any], contrast: str
) -> None:
    write_series(tmp_path, volume(), 1, {**T1, **changes})
    assert roles(tmp_path)["1"].contrast == contrast


@pytest.mark.parametrize(
    ("changes", "agent"),
    [
        ({"ContrastBolusAgent": "Gadovist"}, True),
        ({"ContrastBolusAgent": "NONE"}, False),
        ({"SeriesDescription": "t1_mprage_sag +KM"}, True),
        ({"SeriesDescription": "T1 post Gd"}, True),
        ({"SeriesDescription": "t1 ohne KM"}, False),
        ({"SeriesDescription": "T1 pre contrast"}, False),
        ({"SeriesDescription": "t1_mprage"}, False),
    ],
)
def test_contrast_agent(tmp_path: Path, changes: dict[str, Any], agent: bool) -> None:
    write_series(tmp_path, volume(), 1, {**T1, **changes})
    assert roles(tmp_path)["1"].agent is agent


def test_agent_of_an_enhanced_file(tmp_path: Path) -> None:
    write_enhanced(tmp_path, [volume()], 1, {**T1, "ContrastBolusAgentSequence": [item(CodeValue="x")]})
    assert roles(tmp_path)["1"].agent


def test_a_native_t1_goes_before_a_finer_one_after_agent(tmp_path: Path) -> None:
    write_series(tmp_path, volume(spacing_mm=0.5, step_mm=7.5, slices=16), 1, {**T1, "ContrastBolusAgent": "Gadovist"})
    write_series(tmp_path, volume(), 2, FLAIR)
    study = Study.from_dicom(tmp_path)
    assert "T1w: series 1 was acquired after contrast agent; no native T1w was found" in study.warnings
    write_series(tmp_path, volume(), 3, T1)
    assert chosen(tmp_path) == ["3", "2"]


@pytest.mark.parametrize(
    "better",
    [
        {"volume": volume(slices=16, step_mm=7.5)},
        {"volume": volume(spacing_mm=0.9)},
        {"volume": volume(slices=9)},
        {"parameters": {"ImageType": ["ORIGINAL", "PRIMARY", "M", "ND", "NORM"]}},
        {"parameters": {"ImageType": ["ORIGINAL", "PRIMARY", "M", "DIS2D"]}},
    ],
    ids=["thinner slices", "finer pixels", "more slices", "normalised", "undistorted"],
)
@pytest.mark.parametrize("number", [1, 3])
def test_the_better_series_is_taken_wherever_it_comes(tmp_path: Path, better: dict[str, Any], number: int) -> None:
    plain = {"ImageType": ["ORIGINAL", "PRIMARY", "M", "ND"]}
    write_series(tmp_path, better.get("volume", volume()), number, {**FLAIR, **plain, **better.get("parameters", {})})
    write_series(tmp_path, volume(), 2, {**FLAIR, **plain})
    write_series(tmp_path, volume(), 4, T1)
    assert chosen(tmp_path) == ["4", str(number)]


def test_parameters_go_before_descriptions_and_a_whole_head_before_both(tmp_path: Path) -> None:
    write_series(tmp_path, volume(), 1, T1)
    write_series(tmp_path, volume(spacing_mm=0.5), 2, {**FLAIR, **UNKNOWN})
    write_series(tmp_path, volume(slices=20, spacing_mm=0.4, step_mm=3.0), 3, FLAIR)
    assert chosen(tmp_path) == ["1", "2"]
    (warning,) = Study.from_dicom(tmp_path).warnings
    assert warning == "FLAIR: series 2 was taken by its description, not by its sequence parameters"
    write_series(tmp_path, volume(), 4, FLAIR)
    assert chosen(tmp_path) == ["1", "4"]
    (warning,) = Study.from_dicom(tmp_path, flair_series=3).warnings
    assert warning == "FLAIR: series 3 covers only 60 mm across its slices"


@pytest.fixture
def study(tmp_path: Path) -> Path:
    """Give a study with two equal FLAIR series, a T1 and a derived FLAIR."""
    write_series(tmp_path, volume(), 1, T1)
    write_series(tmp_path, volume(), 2, FLAIR)
    write_series(tmp_path, volume(), 3, FLAIR)
    write_series(tmp_path, volume(), 7, {**FLAIR, "ImageType": ["DERIVED", "SECONDARY"]})
    return tmp_path


def test_equal_series_are_not_chosen_by_chance(study: Path) -> None:
    with pytest.raises(
        StudyError, match=r"series 2, 3 of the DICOM study are equally good as FLAIR. Name one with"
    ) as caught:
        Study.from_dicom(study)
    assert caught.value.candidates == ("2", "3")


@pytest.mark.parametrize("key", [3, "3", " 3 ", "2.25.3003"])
def test_a_series_can_be_named(study: Path, key: str | int) -> None:
    assert chosen(study, flair_series=key) == ["1", "3"]


def test_a_series_that_the_rules_refuse_can_be_named_with_a_warning(study: Path) -> None:
    (warning,) = Study.from_dicom(study, flair_series=7).warnings
    assert warning == ("FLAIR: series 7 was named by hand; the rules would not take it: derived from other images")


@pytest.mark.parametrize(
    ("series", "words"),
    [
        ({"flair_series": 9}, "there is no series 9 (--flair-series). Name one of 1, 2, 3, 7."),
        ({"t1_series": 2, "flair_series": 2}, "the same series is to be T1w and FLAIR."),
    ],
)
def test_a_series_that_cannot_be_taken(study: Path, series: dict[str, Any], words: str) -> None:
    with pytest.raises(StudyError) as caught:
        Study.from_dicom(study, **series)
    assert words in str(caught.value)


def test_a_modality_that_is_not_mr_cannot_be_named(study: Path) -> None:
    write_series(study, volume(), 8, {"Modality": "CT", "SOPClassUID": "1.2.840.10008.5.1.4.1.1.2"})
    with pytest.raises(StudyError, match="series 8 cannot be a FLAIR: CT, not an MR image"):
        Study.from_dicom(study, flair_series=8)


def test_a_number_that_two_series_have(tmp_path: Path) -> None:
    write_series(tmp_path, volume(), 1, T1)
    write_series(tmp_path / "a", volume(), 2, FLAIR, series="2.25.51")
    write_series(tmp_path / "b", volume(), 2, {**FLAIR, "ImageType": ["DERIVED", "SECONDARY"]}, series="2.25.52")
    assert set(roles(tmp_path)) == {"1", "2.25.51", "2.25.52"}
    assert chosen(tmp_path) == ["1", "2.25.51"]
    assert chosen(tmp_path, flair_series=2) == ["1", "2.25.51"]  # only one of the two is a FLAIR
    with pytest.raises(StudyError, match=r"series 2 stands for 2 volumes .* Name one of 2.25.51, 2.25.52."):
        Study.from_dicom(tmp_path, t1_series=2, flair_series=1)


@pytest.mark.parametrize(
    ("changes", "found"),
    [
        ({"ImageType": ["ORIGINAL", "PRIMARY", "LOCALIZER"]}, "1 x a localiser"),
        ({"Modality": "CT", "SOPClassUID": "1.2.840.10008.5.1.4.1.1.2"}, "1 x CT, not an MR image"),
        (FLAIR, "1 x FLAIR"),
    ],
)
def test_no_candidate_says_what_there_is(tmp_path: Path, changes: dict[str, Any], found: str) -> None:
    write_series(tmp_path, volume(), 1, {**T1, **changes})
    with pytest.raises(StudyError) as caught:
        Study.from_dicom(tmp_path)
    assert str(caught.value) == (
        f"no series of the DICOM study is a T1w ({found}). "
        "Run `rmr study show` on it to see all series, and name one with --t1-series."
    )


@pytest.mark.parametrize(
    ("keyword", "value"),
    [("PatientID", "OTHER-1"), ("PatientName", "Roe^Richard"), ("PatientBirthDate", "19800101")],
)
def test_two_patients_are_refused_without_naming_them(tmp_path: Path, keyword: str, value: str) -> None:
    write_series(tmp_path, volume(), 1, T1)
    write_series(tmp_path, volume(), 2, FLAIR, subject={keyword: value})
    with pytest.raises(StudyError) as caught:
        Study.from_dicom(tmp_path)
    assert str(caught.value) == (
        f"the DICOM files are of 2 patients ({keyword} differs). Pass the files of one patient alone."
    )


def test_names_that_writers_spell_differently_are_one_patient(tmp_path: Path) -> None:
    write_series(
        tmp_path, volume(), 1, T1, subject={"PatientName": "DOPPELGANGER^JACQUELINE^^^", "PatientBirthDate": ""}
    )
    write_series(tmp_path, volume(), 2, FLAIR)
    assert chosen(tmp_path) == ["1", "2"]


def test_two_studies(tmp_path: Path) -> None:
    for number, parameters in ((1, T1), (2, FLAIR), (3, T1), (4, FLAIR)):
        subject = {"StudyInstanceUID": f"2.25.{number // 3}"}
        write_series(tmp_path, volume(), number, parameters, subject=subject)
    with pytest.raises(StudyError, match=r"the DICOM files hold MR images of 2 studies. Pass one study alone, or name"):
        Study.from_dicom(tmp_path)
    with pytest.raises(StudyError, match="T1w and FLAIR are of different studies"):
        Study.from_dicom(tmp_path, t1_series=1, flair_series=4)
    assert chosen(tmp_path, t1_series=3, flair_series=4) == ["3", "4"]


@pytest.mark.parametrize("missing", ["ImagePositionPatient", "ImageOrientationPatient", "PixelSpacing"])
def test_a_series_without_geometry_is_no_candidate(tmp_path: Path, missing: str) -> None:
    def forget(_: int, image: Dataset) -> None:
        delattr(image, missing)

    write_series(tmp_path, volume(), 1, T1, change=forget)
    write_series(tmp_path, volume(), 2, FLAIR)
    assert roles(tmp_path)["1"].why == f"8 of 8 images have no valid {missing}"
    with pytest.raises(StudyError, match="no series of the DICOM study is a T1w"):
        Study.from_dicom(tmp_path)


def test_series_without_a_uid_are_no_candidate(tmp_path: Path) -> None:
    def forget(_: int, image: Dataset) -> None:
        image.SeriesInstanceUID = ""
        image.SeriesNumber = None

    write_series(tmp_path, make_volume(), 1, T1, change=forget)
    assert roles(tmp_path) == {"without UID": Role(why="its images have no SeriesInstanceUID", usable=False)}


def test_colour_is_no_candidate(tmp_path: Path) -> None:
    def paint(_: int, image: Dataset) -> None:
        image.SamplesPerPixel, image.PhotometricInterpretation, image.PlanarConfiguration = 3, "RGB", 0

    write_series(tmp_path, volume(), 1, T1, change=paint)
    assert roles(tmp_path)["1"].why == "in colour"


def test_broken_values_count_as_absent(tmp_path: Path) -> None:
    """Values that break the standard's rules end in no error and no warning: pytest turns warnings into errors."""
    write_series(tmp_path, volume(), 1, T1)
    for file in tmp_path.iterdir():
        data = file.read_bytes()
        file.write_bytes(data.replace(b"2300", b"fast").replace(b"2.98", b"nano"))
    assert "TR or TE are not given" in roles(tmp_path)["1"].why
