"""What "auto" chooses, leaves out, says and keeps; on engines that take as long as a test says."""

from __future__ import annotations

import logging
from collections.abc import Callable
from datetime import date
from pathlib import Path
from typing import Any

import pytest
from fake_engines import FakeClock, FakeEngine, FakeMaker
from tiny_bundle import make_bundle

from rmr_sdk.bundle import Bundle
from rmr_sdk.engines import decision, timing
from rmr_sdk.engines.base import EngineRequest
from rmr_sdk.engines.cache import EngineCache
from rmr_sdk.engines.choice import open_chosen
from rmr_sdk.errors import ChecksumError, DeviceUnavailableError, EngineError, EngineMismatchError
from rmr_sdk.manifest import Accuracy, Limit

SPEEDS: dict[str, float | str] = {"fp32": 1.27, "bf16": 0.60, "int8": 0.52}
TODAY = date.today().isoformat()
TOLERANCE = (Limit(metric="label_agreement", minimum=0.995),)

Open = Callable[..., tuple[FakeEngine, str]]


def figure(precision: Any, value: float = 0.999, metric: str = "label_agreement") -> Accuracy:
    return Accuracy(precision=precision, study_set="held out", studies=2, metric=metric, value=value)


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> FakeClock:
    clock = FakeClock()
    fixed = timing.time_engines
    monkeypatch.setattr(decision, "time_engines", lambda engines, tile: fixed(engines, tile, clock))
    return clock


@pytest.fixture
def maker(clock: FakeClock) -> FakeMaker:
    return FakeMaker(clock, dict(SPEEDS))


@pytest.fixture(scope="module")
def gated(tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    """Give a bundle whose reduced precisions are all within its tolerance."""
    return make_gated(tmp_path_factory.mktemp("gated") / "tiny.zip", bf16=0.999, int8=0.997)


def make_gated(target: Path, precisions: tuple[str, ...] = ("fp32", "int8"), **agreement: float) -> Bundle:
    accuracy = tuple(figure(precision, value) for precision, value in agreement.items())
    return make_bundle(target, precisions, tolerance=TOLERANCE, accuracy=accuracy)


@pytest.fixture
def choose(maker: FakeMaker, gated: Bundle, cache_dir: Path) -> Open:
    """Give a function that opens the gated bundle on the fake engine."""

    def open_it(
        precision: str = "auto", bundle: Bundle = gated, threads: int = 1, engine: str = "auto", cache: Path = cache_dir
    ) -> tuple[Any, str]:
        return open_chosen(bundle, engine, EngineRequest("auto", precision, threads, cache), [[maker.kind]])

    return open_it


def test_the_fastest_within_tolerance_is_chosen_and_said(choose: Open, maker: FakeMaker) -> None:
    engine, reason = choose()
    assert engine.info.precision == "int8"
    assert reason == (
        "fake (the default engine), cpu (the default device), int8 (fastest of fp32 1.27 s, bf16 0.6 s, "
        f"int8 0.52 s a tile that passed the accuracy gate; measured {TODAY}, now)"
    )
    assert engine.warnings == ()
    assert [(other.info.precision, other.closed) for other in maker.opened] == [
        ("fp32", True),
        ("bf16", True),
        ("int8", False),
    ]


def test_a_decision_is_kept_whatever_the_machine_does_later(choose: Open, maker: FakeMaker) -> None:
    choose()
    maker.speeds |= {"fp32": 0.1, "int8": 5.0}
    engine, reason = choose()
    assert engine.info.precision == "int8"
    assert f"int8 0.52 s a tile that passed the accuracy gate; measured {TODAY}, cached)" in reason
    assert engine.tiles == 0
    assert len(maker.opened) == 4


def test_a_precision_must_win_by_a_margin(choose: Open, maker: FakeMaker) -> None:
    maker.speeds["int8"] = 0.57
    engine, reason = choose()
    assert engine.info.precision == "bf16"
    assert "bf16 (most exact within 10% of the fastest of fp32 1.27 s, bf16 0.6 s, int8 0.57 s" in reason


@pytest.mark.parametrize("change", ["bundle", "threads", "version", "candidates"])
def test_what_changes_the_times_is_measured_again(change: str, choose: Open, maker: FakeMaker, tmp_path: Path) -> None:
    choose()
    maker.speeds |= {"fp32": 0.1}
    options: dict[str, Any] = {}
    if change == "bundle":
        options["bundle"] = make_gated(tmp_path / "other", bf16=0.998, int8=0.998)
    elif change == "threads":
        options["threads"] = 2
    elif change == "version":
        maker.version = "1.1"
    else:
        del maker.speeds["int8"]
    assert choose(**options)[0].info.precision == "fp32"


def test_out_of_tolerance_is_left_out_and_said(choose: Open, tmp_path: Path) -> None:
    engine, reason = choose(bundle=make_gated(tmp_path / "coarse", bf16=0.999, int8=0.981))
    assert engine.info.precision == "bf16"
    assert "int8 left out: label_agreement on held out is 0.981, below 0.995" in reason
    assert "int8 0.52" not in reason


def test_what_was_not_measured_is_left_out_and_said(choose: Open, maker: FakeMaker, tmp_path: Path) -> None:
    engine, reason = choose(bundle=make_bundle(tmp_path / "plain", ("fp32", "int8")))
    assert engine.info.precision == "fp32"
    assert "fp32 (the only precision that may be chosen here; bf16 left out: the accuracy of bf16 against" in reason
    assert "int8 left out: the accuracy of int8 against fp32 was not measured" in reason
    assert engine.tiles == 0
    assert len(maker.opened) == 1


def test_by_name_it_runs_with_a_warning(choose: Open, tmp_path: Path) -> None:
    engine, reason = choose("int8", make_gated(tmp_path / "coarse", int8=0.981))
    assert reason.endswith("int8 (asked for)")
    assert engine.warnings == (
        "int8 runs because it was asked for by name: label_agreement on held out is 0.981, below 0.995.",
    )
    assert "was not measured" in choose("bf16", make_bundle(tmp_path / "plain"))[0].warnings[0]


def test_by_name_within_tolerance_nothing_is_said_or_measured(choose: Open, maker: FakeMaker) -> None:
    for precision in ("fp32", "bf16", "int8"):
        engine, _ = choose(precision)
        assert engine.warnings == ()
        assert engine.tiles == 0
    assert len(maker.opened) == 3


def test_nothing_that_may_be_chosen_is_an_error(choose: Open, maker: FakeMaker, tmp_path: Path) -> None:
    maker.speeds = {"int8": 0.5}
    with pytest.raises(
        EngineMismatchError, match="no precision that may be chosen here: the accuracy of int8"
    ) as caught:
        choose(bundle=make_bundle(tmp_path / "int8", ("int8",)))
    assert "Name a precision" in str(caught.value)


def test_no_graph_for_the_engine_is_an_error(choose: Open, maker: FakeMaker) -> None:
    maker.speeds = {}
    with pytest.raises(EngineMismatchError, match=r"no graph that fake can run here \(it has: fp32, int8\)"):
        choose()
    with pytest.raises(EngineError, match="does not compute in that"):
        choose("fp16")


def test_one_that_does_not_open_is_left_out_and_said(
    choose: Open, maker: FakeMaker, caplog: pytest.LogCaptureFixture
) -> None:
    maker.speeds["int8"] = "it does not reproduce the golden tile"
    with caplog.at_level(logging.WARNING):
        engine, reason = choose()
    assert engine.info.precision == "bf16"
    assert reason.endswith(f"measured {TODAY}, now; int8 does not run here)")
    assert "golden tile" in caplog.text


def test_none_that_opens_is_the_first_ones_error(choose: Open, maker: FakeMaker) -> None:
    maker.speeds = {"fp32": "fp32 is broken", "int8": "int8 is broken"}
    with pytest.raises(EngineError, match="fp32 is broken"):
        choose()


def test_a_damaged_bundle_is_not_taken_for_a_precision_that_fails(
    choose: Open, gated: Bundle, maker: FakeMaker, monkeypatch: pytest.MonkeyPatch
) -> None:
    def damaged(bundle: Bundle) -> None:
        raise ChecksumError("the golden tile is another.", "Fetch it again.")

    monkeypatch.setattr(Bundle, "golden", damaged)
    with pytest.raises(ChecksumError):
        choose()
    assert all(engine.closed for engine in maker.opened)


def test_an_unwritable_cache_is_measured_again_with_a_warning(choose: Open, maker: FakeMaker, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the way")
    for _ in range(2):
        engine, reason = choose(cache=tmp_path / "file")
        assert reason.endswith(f"measured {TODAY}, now, not kept)")
        assert "measured at each opening, and may differ" in engine.warnings[-1]
    assert len(maker.opened) == 6


@pytest.mark.parametrize(
    "content", [b"", b"{}", b'{"chosen": "fake fp64", "measured": "", "seconds": {}, "failed": {}}']
)
def test_a_kept_decision_that_makes_no_sense_is_made_again(
    content: bytes, choose: Open, cache_dir: Path, maker: FakeMaker
) -> None:
    choose()
    (entry,) = (cache_dir / "choice").glob("*.bin")
    EngineCache("choice", cache_dir).store(entry.stem, content)
    assert choose()[1].endswith(f"measured {TODAY}, now)")
    assert len(maker.opened) == 6


def test_who_decided_first_is_right(
    choose: Open, cache_dir: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    choose(cache=tmp_path / "theirs")
    (entry,) = (tmp_path / "theirs" / "choice").glob("*.bin")
    theirs = EngineCache("choice", tmp_path / "theirs").load(entry.stem)
    assert theirs is not None

    def another_process_decides(engines: Any, tile: Any) -> dict[str, float]:
        EngineCache("choice", cache_dir).store(entry.stem, theirs)
        return {"fake fp32": 0.1, "fake bf16": 1.0, "fake int8": 1.0}

    monkeypatch.setattr(decision, "time_engines", another_process_decides)
    engine, reason = choose()
    assert engine.info.precision == "int8"
    assert "int8 0.52 s" in reason


def test_who_waited_for_another_process_measures_nothing(
    choose: Open, maker: FakeMaker, monkeypatch: pytest.MonkeyPatch
) -> None:
    choose()
    recall = decision._recall
    answers = iter([None])
    monkeypatch.setattr(decision, "_recall", lambda *arguments: next(answers, recall(*arguments)))
    assert choose()[1].endswith(f"measured {TODAY}, cached)")
    assert len(maker.opened) == 4


def test_several_engines_race_and_are_named(clock: FakeClock, gated: Bundle, cache_dir: Path) -> None:
    one, other = FakeMaker(clock, {"fp32": 1.0}, "one"), FakeMaker(clock, {"fp32": 0.5, "int8": 0.4}, "other")
    request = EngineRequest("auto", "auto", 1, cache_dir)
    engine, reason = open_chosen(gated, "auto", request, [[one.kind, other.kind]])
    assert engine is other.opened[-1]
    assert reason.startswith(
        "other (the fastest engine here), cpu (the default device), int8 (fastest of one fp32 1 s, "
    )
    named = EngineRequest("auto", "fp32", 1, cache_dir)
    engine, reason = open_chosen(gated, "auto", named, [[one.kind, other.kind]])
    assert engine.info.precision == "fp32"
    assert "fp32 (asked for; fastest of one fp32 1 s, other fp32 0.5 s" in reason


def test_the_next_group_serves_where_no_engine_is_there(clock: FakeClock, gated: Bundle, cache_dir: Path) -> None:
    gone = FakeMaker(clock, {"fp32": 1.0}, "gone", missing="Engine gone is not installed.")
    spare = FakeMaker(clock, {"fp32": 9.0}, "spare")
    request = EngineRequest("auto", "auto", 1, cache_dir)
    engine, reason = open_chosen(gated, "auto", request, [[gone.kind], [spare.kind]])
    assert engine is spare.opened[0]
    assert reason.startswith("spare (the default engine; Engine gone is not installed. Install it.), cpu")
    with pytest.raises(DeviceUnavailableError, match="gone is not installed"):
        open_chosen(gated, "auto", request, [[gone.kind]])
