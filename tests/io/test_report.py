"""The report says what the result holds, in JSON and in HTML, and the page depends on nothing outside itself."""

from __future__ import annotations

import base64
import json
import math
import re
from collections.abc import Callable
from dataclasses import replace
from html.parser import HTMLParser
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from sample_results import CLASSES, PROVENANCE, make_fused_only, make_result

from rmr_sdk.align import Alignment
from rmr_sdk.intensity import IntensityMap
from rmr_sdk.io import page, report
from rmr_sdk.io.planes import PLANES, build_view
from rmr_sdk.io.preview import class_colours, draw_panels, draw_projections
from rmr_sdk.location import RULE
from rmr_sdk.result import Lesion, QualityCheck, Result

SCHEMA = Path(__file__).parents[2] / "docs" / "schemas" / "report.schema.json"
HOSTILE = """<script>alert(1)</script>"'><img src=x onerror=alert(2)>{{ 7 * 7 }}"""


class Parsed(HTMLParser):
    """Collects the tags, the attributes and the text of a page."""

    def __init__(self, source: str) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.attributes: list[tuple[str, str]] = []
        self.text = ""
        self.feed(source)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.text += " "
        self.attributes += [(name, value or "") for name, value in attrs]

    def handle_data(self, data: str) -> None:
        self.text += data

    @property
    def words(self) -> str:
        return " ".join(self.text.split())


def make_lesion(number: int, location: str | None = "juxtacortical", **changes: Any) -> Lesion:
    """Return a lesion that is the smaller the higher its number."""
    fields: dict[str, Any] = {
        "id": number,
        "volume_ml": 5.0 / number,
        "diameter_mm": 20.0 / number,
        "centroid_mm": (1.0, 2.0, 3.0),
        "mean_probability": 0.75,
        "voxels": 5000 // number,
        "location": location,
    }
    return Lesion(**{**fields, **changes})


def make_check(name: str, contrast: str | None, **changes: Any) -> QualityCheck:
    """Return a check of which all is well."""
    fields: dict[str, Any] = {"value": 1.0, "unit": "mm", "most": 3.0, "status": "ok", "sentence": "Fine."}
    return QualityCheck(name=name, contrast=contrast, **{**fields, **changes})


def make_alignment(contrast: str, reason: str, **changes: Any) -> Alignment:
    """Return the alignment of a contrast that was moved."""
    fields: dict[str, Any] = {
        "reference": "FLAIR",
        "method": "rigid",
        "matrix": np.eye(4),
        "similarity_before": 1.08,
        "similarity_after": 1.134,
        "shift_mm": 2.13,
        "rotation_deg": 1.07,
    }
    return Alignment(contrast=contrast, reason=reason, **{**fields, **changes})


@pytest.fixture(scope="module")
def render() -> Callable[[Result], str]:
    def render_result(result: Result) -> str:
        view = build_view(result)
        projections = draw_projections(result, view) if result.lesions else None
        return page.render_html(
            report.build_report(result), draw_panels(result, view), projections, class_colours(result)
        )

    return render_result


def test_json_holds_the_result() -> None:
    result = make_result(spheres=[((0, 0, 0), 5.0), ((12, 0, 0), 3.0)], warnings=("coarse",), notice="simulated")
    data = json.loads(report.encode_report(report.build_report(result)))
    assert data["schema_version"] == 1
    assert data["lesions"]["count"] == 2
    assert data["lesions"]["total_ml"] == pytest.approx(sum(item["volume_ml"] for item in data["lesions"]["items"]))
    assert data["lesions"]["items"][1]["centroid_mm"] == pytest.approx([12, 0, 0], abs=0.6)
    assert data["tissue_ml"].keys() == set(CLASSES[1:4])
    assert data["grid"] == {
        "shape": [60, 72, 54],
        "spacing_mm": [1.0, 1.0, 1.0],
        "orientation": "LAS",
        "affine": result.fused.affine.tolist(),
    }
    assert data["intensity"] == {"contrast": "FLAIR", "scale": 1 / 120, "offset": 0.0, "low": 0.0, "high": 1.5}
    assert (data["warnings"], data["notice"]) == (["coarse"], "simulated")
    assert data["timings_s"] == {"prepare": 0.25, "network": 3.5}
    assert data["provenance"]["bundle_hash"] == PROVENANCE.bundle_hash


@pytest.mark.parametrize("make", [make_result, make_fused_only], ids=["segmented", "fused only"])
def test_json_reads_back_as_it_was(make: Callable[[], Result]) -> None:
    written = report.build_report(make())
    assert report.decode_report(report.encode_report(written)) == written


def test_json_tells_no_lesion_from_no_segmentation() -> None:
    none_found, fused_only = (report.build_report(r) for r in (make_result(spheres=[]), make_fused_only()))
    assert none_found.lesions is not None
    assert (none_found.lesions.count, none_found.lesions.total_ml) == (0, 0.0)
    assert (fused_only.lesions, fused_only.tissue_ml, fused_only.classes) == (None, None, None)


def test_an_unlimited_intensity_scale_is_null_and_left_out_of_the_page(render: Callable[[Result], str]) -> None:
    result = make_result(intensity=IntensityMap(scale=0.5, high=math.inf))
    assert json.loads(report.encode_report(report.build_report(result)))["intensity"]["high"] is None
    assert "at most" not in Parsed(render(result)).words


def test_schema_in_docs_is_the_one_in_the_code() -> None:
    assert SCHEMA.read_text(encoding="utf-8").strip() == report.json_schema(), (
        "see rmr_sdk/io/report.py for the command"
    )


def test_page_shows_every_figure(render: Callable[[Result], str]) -> None:
    result = make_result(warnings=("FLAIR is coarse",), notice="simulated")
    (lesion,) = result.lesions or ()
    words = Parsed(render(result)).words
    for part in (
        "Research software, not a medical device",
        "simulated",
        "FLAIR is coarse",
        f"{lesion.volume_ml:.3f} {lesion.diameter_mm:.1f} 0.90 R 10, A 13, S 8",
        "60 x 72 x 54 voxels of 1.00 x 1.00 x 1.00 mm, axes LAS",
        "0.00833333, at least 0, at most 1.5",
        "both contrasts share one grid",
        PROVENANCE.bundle_hash,
        "8 run, 3 skipped",
        "3.75",
    ):
        assert part in words, part


def test_page_without_segmentation_has_no_lesion_table(render: Callable[[Result], str]) -> None:
    words = Parsed(render(make_fused_only())).words
    assert "this bundle only fuses" in words
    assert "Tissue volumes" not in words
    assert "Probability" not in words


def test_page_without_lesions_says_so(render: Callable[[Result], str]) -> None:
    html = render(make_result(spheres=[]))
    words = Parsed(html).words
    assert "No lesion found" in words
    assert "largest" not in words
    assert "Lesions by location" not in words
    assert html.count("<img ") == 1


@pytest.mark.parametrize(("dropped", "words"), [(1, "Not counted as a lesion: 1"), (12, "Not counted as lesions: 12")])
def test_page_says_how_many_lesions_were_dropped(render: Callable[[Result], str], dropped: int, words: str) -> None:
    result = make_result()
    sure = replace(result.provenance, lesions_dropped=dropped, least_lesion_probability=0.6)
    assert f"{words} of a mean probability below 0.60, whose" in Parsed(render(replace(result, provenance=sure))).words
    both = Parsed(render(replace(result, provenance=replace(sure, least_white_matter=0.15)))).words
    assert f"{words} of a mean probability below 0.60 or with less than 0.15 white matter around" in both
    white = replace(sure, least_lesion_probability=0.0, least_white_matter=0.15)
    assert f"{words} with less than 0.15 white matter" in Parsed(render(replace(result, provenance=white))).words
    trimmed = Parsed(render(replace(result, provenance=replace(white, lesion_threshold=0.85)))).words
    assert "white matter around" in trimmed
    assert "or without a voxel of at least 0.85, whose" in trimmed
    small = Parsed(render(replace(result, provenance=replace(sure, least_lesion_mm3=7.5)))).words
    assert f"{words} of a mean probability below 0.60, or of less than 7.5 mm³, whose" in small
    assert "Not counted" not in Parsed(render(result)).words


def test_page_says_which_pieces_were_kept(render: Callable[[Result], str]) -> None:
    result = make_result()
    trimmed = replace(result.provenance, lesion_threshold=0.85, least_piece=0.25)
    words = Parsed(render(replace(result, provenance=trimmed))).words
    assert "probability of at least 0.85 (where this parts a lesion, pieces from 0.25 of the largest on), in" in words
    whole = replace(trimmed, least_piece=0.0)
    assert "probability of at least 0.85, in" in Parsed(render(replace(result, provenance=whole))).words


def test_page_needs_nothing_but_itself(render: Callable[[Result], str]) -> None:
    html = render(make_result(warnings=("w",), notice="n"))
    page = Parsed(html)
    outside = [(n, v) for n, v in page.attributes if n in ("src", "href", "srcset", "data", "poster", "action")]
    assert [value.partition(",")[0] for _, value in outside] == ["data:image/png;base64"] * 2
    assert not {"script", "link", "iframe", "object", "embed", "base"} & set(page.tags)
    without_picture = re.sub(r"base64,[A-Za-z0-9+/=]+", "", html)
    assert not re.search(r"https?:|//|url\(|@import", without_picture)
    assert ("content", "default-src 'none'; img-src data:; style-src 'unsafe-inline'") in page.attributes


def test_picture_in_the_page_is_the_panels(render: Callable[[Result], str]) -> None:
    result = make_result()
    source, _ = (value for name, value in Parsed(render(result)).attributes if name == "src")
    with Image.open(BytesIO(base64.b64decode(source.partition(",")[2]))) as picture:
        assert picture.tobytes() == draw_panels(result, build_view(result)).tobytes()


def test_hostile_strings_stay_text(render: Callable[[Result], str]) -> None:
    import dataclasses

    hostile = dataclasses.replace(
        PROVENANCE,
        bundle=HOSTILE,
        bundle_version=HOSTILE,
        engine=HOSTILE,
        engine_reason=HOSTILE,
        device=HOSTILE,
        geometry=(HOSTILE,),
        versions={HOSTILE: HOSTILE},
    )
    names = ("background", "csf", "grey_matter", HOSTILE, "lesion")
    page = Parsed(
        render(
            make_result(
                provenance=hostile,
                notice=HOSTILE,
                warnings=(HOSTILE,),
                classes=names,
                tissue_ml={HOSTILE: 3.0},
                timings={HOSTILE: 1.0},
                quality=(make_check(HOSTILE, HOSTILE, sentence=HOSTILE, unit=HOSTILE),),
                alignments=(make_alignment(HOSTILE, HOSTILE),),
                lesions=(make_lesion(1, HOSTILE),),
            )
        )
    )
    plain = Parsed(
        render(
            make_result(
                notice="n",
                warnings=("w",),
                tissue_ml={"csf": 3.0},
                timings={"t": 1.0},
                quality=(make_check("n", "T1w"),),
                alignments=(make_alignment("T1w", "why"),),
                lesions=(make_lesion(1, "x"),),
            )
        )
    )
    assert page.tags == plain.tags
    assert not [name for name, _ in page.attributes if name.startswith("on")]
    assert page.text.count("{{ 7 * 7 }}") >= 10


def test_writes_no_path(tmp_path: Path) -> None:
    make_result().save(tmp_path / "Jane Doe 1970")
    for name in ("report.json", "report.html"):
        assert "Jane" not in (tmp_path / "Jane Doe 1970" / name).read_text(encoding="utf-8")


def test_locations_are_counted_and_the_rule_is_stated(render: Callable[[Result], str]) -> None:
    lesions = (
        make_lesion(1, "periventricular", reaches_cortex=True),
        make_lesion(2, "juxtacortical", reaches_cortex=True),
        make_lesion(8, "juxtacortical"),
    )
    result = make_result(lesions=lesions)
    counted = report.build_report(result).lesions
    assert counted is not None
    assert counted.of_3_mm == 2
    assert counted.location_rule == RULE
    by_location = {each.location: (each.count, each.of_3_mm, each.total_ml) for each in counted.by_location or ()}
    assert by_location["juxtacortical"] == (2, 1, pytest.approx(2.5 + 0.625))
    assert by_location["infratentorial"] == (0, 0, 0)
    words = Parsed(render(result)).words
    for part in (
        "periventricular 1 1 5.00 ml",
        "juxtacortical 2 1 3.12 ml",
        "all 3 2 8.12 ml",
        "0.75 periventricular, reaches the cortex R 1",
        "0.75 juxtacortical R 1",
        RULE,
    ):
        assert part in words, part
    assert "outside the brain 0" not in words


def test_without_locations_there_is_no_column_for_them(render: Callable[[Result], str]) -> None:
    result = make_result(lesions=(make_lesion(1, None),))
    counted = report.build_report(result).lesions
    assert counted is not None
    assert (counted.by_location, counted.location_rule) == (None, None)
    words = Parsed(render(result)).words
    assert "Location" not in words
    assert "Diameter, mm Probability Centre, mm 1 5.000 20.0 0.75 R 1" in words


def test_hundreds_of_lesions_stay_readable(render: Callable[[Result], str]) -> None:
    lesions = tuple(make_lesion(number) for number in range(1, 301))
    html = render(make_result(lesions=lesions))
    top, _, rest = html.partition("<details>")
    folded, _, after = rest.partition("</details>")
    rows = [html_part.count("<td>juxtacortical</td>") for html_part in (top, folded, after)]
    assert rows == [50, 250, 0]
    assert "250 smaller lesions, " in Parsed(folded).words
    assert "each at most 0.098 ml" in Parsed(folded).words
    assert "All 300 lesions are in report.json" in Parsed(html).words


def test_quality_checks_of_one_kind_share_a_row(render: Callable[[Result], str]) -> None:
    checks = (
        make_check("slice thickness", "T1w"),
        make_check("noise", "T1w", value=0.00004, unit="%", most=None, least=10.0, sentence="Noisy.", status="warn"),
        make_check("slice thickness", "FLAIR", value=4.0, status="warn", sentence="Slices are thick."),
        make_check("brain volume", None, value=1234.5, unit="ml", least=700.0, most=1700.0),
        make_check("lesions cut off", None, value=0.0, unit="", most=0.0),
    )
    words = Parsed(render(make_result(quality=checks))).words
    for part in (
        "slice thickness T1w 1 mm, FLAIR 4 mm at most 3 mm check FLAIR: Slices are thick.",
        "noise T1w under 0.001 % at least 10 % check T1w: Noisy.",
        "brain volume 1234 ml 700 to 1700 ml ok Fine.",
        "lesions cut off 0 none ok Fine.",
    ):
        assert part in words, part
    data = json.loads(report.encode_report(report.build_report(make_result(quality=checks))))
    assert data["quality"][2] == {
        "name": "slice thickness",
        "contrast": "FLAIR",
        "value": 4.0,
        "unit": "mm",
        "least": None,
        "most": 3.0,
        "status": "warn",
        "sentence": "Slices are thick.",
    }


def test_limits_that_differ_name_their_contrast() -> None:
    checks = (
        make_check("ratio", "T1w", unit="", most=0.95),
        make_check("ratio", "FLAIR", unit="", most=None, least=0.93),
    )
    (row,) = page.quality_rows(checks)
    assert row.limit.replace("\xa0", " ") == "T1w at most 0.95; FLAIR at least 0.93"


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        (
            {},
            "registered rigidly: moved 2.1 mm on average, turned 1.1°; similarity 1.080 before, 1.134 after because",
        ),
        ({"method": "header", "similarity_after": None}, "T1w to FLAIR placed by its header; similarity 1.080 because"),
        (
            {"method": "none", "similarity_before": None, "similarity_after": None},
            "T1w to FLAIR on the same grid because",
        ),
    ],
)
def test_alignment_is_told(render: Callable[[Result], str], changes: dict[str, Any], words: str) -> None:
    result = make_result(alignments=(make_alignment("T1w", "because", **changes),))
    assert words in Parsed(render(result)).words
    (alignment,) = report.build_report(result).alignments
    assert alignment.matrix == np.eye(4).tolist()


def test_the_page_can_be_read_without_seeing_it(render: Callable[[Result], str]) -> None:
    """Every picture has words in its place, every column and row of figures a header, and the language is stated."""
    html = render(make_result(quality=(make_check("n", None),), alignments=(make_alignment("T1w", "why"),)))
    parsed = Parsed(html)
    alternatives = [value for name, value in parsed.attributes if name == "alt"]
    assert len(alternatives) == parsed.tags.count("img") == 2
    assert all(len(words) > 30 for words in alternatives)
    assert parsed.tags.count("th") == html.count('scope="col"') + html.count('scope="row"')
    assert ("lang", "en") in parsed.attributes
    assert "@media print" in html


def test_projections_show_lesions_where_they_are() -> None:
    """The lesion is right, front, top: left of the middle in axial and coronal, and in the upper half everywhere."""
    result = make_result()
    view = build_view(result)
    for plane in PLANES:
        greatest, thickness_mm = view.project_lesions(plane)
        rows, columns = np.nonzero(greatest)
        assert rows.mean() < greatest.shape[0] / 2
        assert columns.mean() < greatest.shape[1] / 2
        assert greatest.max() == int(0.9 * 255)
        assert thickness_mm.max() == pytest.approx(8, abs=1)
    picture = np.asarray(draw_projections(result, view)).astype(int)
    assert ((picture[..., 0] - picture[..., 2]) > 60).any()
    without = make_result(spheres=[])
    picture = np.asarray(draw_projections(without, build_view(without))).astype(int)
    assert not ((picture[..., 0] - picture[..., 2]) > 60).any()
