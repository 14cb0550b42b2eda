"""Two results side by side: like with like, and no verdict that the noise does not allow."""

from __future__ import annotations

from collections.abc import Callable

import msgspec
import pytest

from rmr_sdk.bench.compare import compare_results, encode_comparison
from rmr_sdk.bench.results import BenchResult, Configuration
from rmr_sdk.bench.table import render_comparison
from rmr_sdk.errors import ConfigError

MakeConfiguration = Callable[..., Configuration]
MakeResult = Callable[..., BenchResult]

SLOW, FAST = [2.0, 2.02, 1.98, 2.01, 1.99], [1.0, 1.01, 0.99, 1.0, 1.02]


def test_every_figure_gets_a_verdict(make_configuration: MakeConfiguration, make_result: MakeResult) -> None:
    before, after = (make_result(make_configuration(seconds)) for seconds in (SLOW, FAST))
    found = compare_results(before, after)
    assert [each.figure for each in found.figures] == ["study", "tile", "network"]
    assert {each.verdict for each in found.figures} == {"faster"}
    assert found.figures[0].ratio == pytest.approx(0.5)
    assert compare_results(after, before).figures[0].verdict == "slower"
    assert compare_results(before, before).figures[0].verdict == "no difference at this noise"
    assert found.remarks == ()
    assert "openvino fp32  study" in render_comparison(found)
    assert msgspec.json.decode(encode_comparison(found))["figures"][0]["verdict"] == "faster"


def test_configurations_are_matched_by_what_they_are(
    make_configuration: MakeConfiguration, make_result: MakeResult
) -> None:
    a = make_result(make_configuration(SLOW), make_configuration(FAST, "bf16"))
    b = make_result(make_configuration(FAST, "int8"), make_configuration(FAST, "bf16"), make_configuration(FAST))
    studies = [each for each in compare_results(a, b).figures if each.figure == "study"]
    assert [(each.configuration, each.verdict) for each in studies] == [
        ("openvino fp32", "faster"),
        ("openvino bf16", "no difference at this noise"),
    ]


def test_a_single_configuration_on_each_side_is_compared_whatever_it_is(
    make_configuration: MakeConfiguration, make_result: MakeResult
) -> None:
    found = compare_results(make_result(make_configuration(SLOW)), make_result(make_configuration(FAST, "bf16")))
    assert found.figures[0].configuration == "openvino fp32 -> openvino bf16"


def test_no_configuration_in_common(make_configuration: MakeConfiguration, make_result: MakeResult) -> None:
    a = make_result(make_configuration(SLOW), make_configuration(SLOW, "bf16"))
    b = make_result(make_configuration(SLOW, "int8"))
    with pytest.raises(ConfigError, match="share no configuration: openvino fp32, openvino bf16 in A, openvino int8"):
        compare_results(a, b)


def test_unlike_runs_are_refused_unless_named(make_result: MakeResult) -> None:
    a = make_result()
    b = make_result(
        overlap=0.5,
        study=msgspec.structs.replace(a.study, fingerprint="c" * 64, demo=False),
        bundle=msgspec.structs.replace(a.bundle, hash="d" * 64),
    )
    with pytest.raises(ConfigError) as caught:
        compare_results(a, b)
    assert str(caught.value) == (
        "The results differ in study (demo study aaaaaaaa and study cccccccc) and "
        "bundle (tiny 1.0.0 bbbbbbbb and tiny 1.0.0 dddddddd) and overlap (0.25 and 0.5). "
        "Compare like with like, or pass --may-differ study bundle overlap."
    )
    with pytest.raises(ConfigError, match=r"differ in overlap \(0.25 and 0.5\)"):
        compare_results(a, b, ("study", "bundle"))
    found = compare_results(a, b, ("study", "bundle", "overlap"))
    assert [remark.partition(":")[0] for remark in found.remarks] == [
        "different study",
        "different bundle",
        "different overlap",
    ]
    with pytest.raises(ConfigError, match='"machine" is nothing that two results must share'):
        compare_results(a, b, ("machine",))


def test_remarks_tell_what_else_differs(make_result: MakeResult) -> None:
    a = make_result(notes=("other processes took 50% of the CPU time",))
    b = make_result(sdk_version="2", machine=msgspec.structs.replace(a.machine, cpu="Other", versions={"numpy": "2"}))
    assert compare_results(a, b).remarks == (
        "different machine: CPU, 2 cores and Other, 2 cores",
        "different SDK: 1 and 2",
        "different numpy: none and 2",
        "different python: 3.11 and none",
        "A: other processes took 50% of the CPU time",
    )
