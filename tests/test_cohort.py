"""Cohorts: what is run and what is not run again, and what a failure or an interrupt leaves."""

from __future__ import annotations

import csv
import dataclasses
import errno
import json
import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest
from sample_results import make_result
from tiny_study import make_study, make_tiny, write_study

from rmr_sdk.cohort import (
    Cohort,
    CohortProgress,
    CohortStudy,
    Settings,
    Summary,
    find_studies,
    on_ray,
    run_cohort,
    worker,
)
from rmr_sdk.cohort.run import output_root, run_in_turn
from rmr_sdk.cohort.summary import decode_summary, json_schema
from rmr_sdk.cohort.worker import _describe
from rmr_sdk.errors import (
    BundleError,
    Cancelled,
    ConfigError,
    DeviceUnavailableError,
    FormatError,
    OutputError,
    StudyError,
)
from rmr_sdk.io import report
from rmr_sdk.io.nifti import read_volume, write_volume
from rmr_sdk.io.report import decode_report
from rmr_sdk.pipeline import Pipeline

SCHEMA = Path(__file__).parents[1] / "docs" / "schemas" / "cohort.schema.json"
DERIVED = (
    "desc-rmr_preview.png",
    "desc-rmr_report.html",
    "desc-rmr_report.json",
    "space-FLAIR_desc-fused_FLAIR.nii.gz",
    "space-FLAIR_desc-rmr_dseg.nii.gz",
    "space-FLAIR_label-lesion_probseg.nii.gz",
)


@pytest.fixture(scope="module")
def settings(tmp_path_factory: pytest.TempPathFactory) -> Settings:
    """Give settings that run the tiny bundle."""
    folder = tmp_path_factory.mktemp("bundle")
    make_tiny(folder / "tiny.zip")
    return Settings(bundle=folder / "tiny.zip", cache_dir=folder / "cache", threads=1)


def write_bids(root: Path, *sessions: str, contrasts: tuple[str, ...] = ("T1w", "FLAIR")) -> Path:
    """Write a BIDS data set with the given sessions, such as "sub-01" or "sub-02/ses-A"."""
    study = make_study()
    for session in sessions:
        anat = root / session / "anat"
        anat.mkdir(parents=True)
        for contrast in contrasts:
            write_volume(anat / f"{session.replace('/', '_')}_{contrast}.nii.gz", study[contrast])
    return root


def touch(path: Path) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.touch()
    return path


def names(cohort: Cohort) -> list[str]:
    return [study.name for study in cohort.studies]


def rows(out: Path) -> list[dict[str, str]]:
    with open(out / "summary.csv", newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


# Running


def test_bids_in_bids_out(tmp_path: Path, settings: Settings) -> None:
    root = write_bids(tmp_path, "sub-01", "sub-02/ses-A")
    summary = run_cohort(find_studies(root), root, settings)
    assert (summary.total, summary.done, summary.failed) == (2, 2, 0)
    out = root / "derivatives" / "rmr-sdk"
    for folder, stem in (("sub-01/anat", "sub-01"), ("sub-02/ses-A/anat", "sub-02_ses-A")):
        assert sorted(path.name for path in (out / folder).iterdir()) == sorted(f"{stem}_{name}" for name in DERIVED)
    labels, _ = read_volume(out / "sub-01/anat/sub-01_space-FLAIR_desc-rmr_dseg.nii.gz")
    table = [line.split("\t") for line in (out / "dseg.tsv").read_text().splitlines()]
    assert table[0] == ["index", "name"]
    assert dict(table[1:])["4"] == "lesion"
    assert 4 in np.unique(labels.data)
    description = json.loads((out / "dataset_description.json").read_text())
    assert description["DatasetType"] == "derivative"
    assert description["GeneratedBy"][0]["Name"] == "RMR SDK"
    assert "summary.*" in (out / ".bidsignore").read_text()
    # The derivatives are no studies of the data set that now holds them.
    assert names(find_studies(root)) == ["sub-01", "sub-02_ses-A"]


def test_volumes_on_the_grid_of_another_reference_go_with_the_run_that_made_them(
    tmp_path: Path, settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    root, out = write_bids(tmp_path / "bids", "sub-01"), tmp_path / "out"
    run_cohort(find_studies(root), out, settings)
    anat = out / "sub-01" / "anat"
    (anat / "sub-01_space-FLAIR_desc-mine.txt").write_text("mine")
    on_t1w = dataclasses.replace(settings, reference="T1w")
    with monkeypatch.context() as broken:
        broken.setattr(Pipeline, "run", lambda *_, **__: (_ for _ in ()).throw(StudyError("too noisy.", "Scan again.")))
        (failed,) = run_cohort(find_studies(root), out, on_t1w).studies
    assert failed.status == "failed"
    assert {path.name for path in anat.iterdir()} >= {f"sub-01_{name}" for name in DERIVED}  # nothing has replaced them
    (row,) = run_cohort(find_studies(root), out, on_t1w).studies
    assert row.status == "done"
    wanted = {f"sub-01_{name.replace('FLAIR', 'T1w')}" for name in DERIVED}
    assert {path.name for path in anat.iterdir()} == wanted | {"sub-01_space-FLAIR_desc-mine.txt"}
    (again,) = run_cohort(find_studies(root), out, on_t1w).studies
    assert again.resumed


def test_the_summary_says_what_came_out(tmp_path: Path, settings: Settings) -> None:
    write_study(tmp_path / "in" / "a")
    write_study(tmp_path / "in" / "b")
    (tmp_path / "in" / "b" / "flair.nii.gz").unlink()
    out = tmp_path / "out"
    summary = run_cohort(find_studies(tmp_path / "in"), out, settings)
    assert decode_summary((out / "summary.json").read_bytes()) == summary
    good, bad = summary.studies
    told = decode_report((out / "a" / "report.json").read_bytes())
    assert told.lesions is not None
    assert (good.status, good.lesions, good.report) == ("done", 1, "a/report.html")
    assert good.lesion_ml == pytest.approx(told.lesions.total_ml, abs=1e-4)
    assert good.warnings == told.warnings
    assert (bad.status, bad.lesions, bad.report) == ("failed", None, None)
    assert bad.error is not None
    assert bad.error.startswith('StudyError: contrast "FLAIR" is missing')
    first, second = rows(out)
    assert (first["study"], first["status"], first["lesions"], first["error"]) == ("a", "done", "1", "")
    assert float(first["csf_ml"]) == pytest.approx((told.tissue_ml or {})["csf"], abs=1e-4)
    assert (second["study"], second["status"], second["lesions"]) == ("b", "failed", "")
    assert (summary.bundle, summary.bundle_hash) == ("tiny", told.provenance.bundle_hash)


def counting(seen: list[str]) -> Callable[[CohortProgress], None]:
    """Return a callback that notes each study when its run begins."""

    def note(progress: CohortProgress) -> None:
        if progress.within is not None and progress.within.stage == "prepare":
            seen.append(progress.study)

    return note


def test_only_what_has_changed_is_run_again(tmp_path: Path, settings: Settings) -> None:
    for name in ("a", "b"):
        write_study(tmp_path / "in" / name)
    out, cohort = tmp_path / "out", find_studies(tmp_path / "in")

    def ran(**changes: Any) -> list[str]:
        seen: list[str] = []
        again = run_cohort(cohort, out, dataclasses.replace(settings, **changes), progress=counting(seen))
        assert [row.resumed for row in again.studies] == [row.study not in seen for row in again.studies]
        assert (again.done, again.failed) == (2, 0)
        return seen

    assert ran() == ["a", "b"]
    assert ran() == []
    os.utime(tmp_path / "in" / "b" / "t1.nii.gz", ns=(1, 1))
    assert ran() == ["b"]
    (out / "a" / "fused.nii.gz").unlink()
    assert ran() == ["a"]
    assert ran(overlap=0.5) == ["a", "b"]
    assert ran(overlap=0.5) == []
    for level, most in (("least_lesion_probability", 1.0), ("lesion_threshold", 1.0), ("least_lesion_mm3", 1000.0)):
        assert ran(overlap=0.5, **{level: most}) == ["a", "b"]
        summary = decode_summary((out / "summary.json").read_bytes())
        assert [row.lesions for row in summary.studies] == [0, 0]
    assert ran(overlap=0.5) == ["a", "b"]
    for record in (out / ".rmr-batch").iterdir():
        record.write_text("{broken")
    assert run_cohort(cohort, out, settings).failed == 2  # the files that are there are of unknown origin now
    assert ran(overwrite=True) == ["a", "b"]


def test_a_failed_study_is_tried_again(tmp_path: Path, settings: Settings) -> None:
    study = write_study(tmp_path / "in" / "a")
    flair = (study / "flair.nii.gz").read_bytes()
    (study / "flair.nii.gz").write_bytes(flair[:500])
    cohort = find_studies(tmp_path / "in")
    assert run_cohort(cohort, tmp_path / "out", settings).failed == 1
    (study / "flair.nii.gz").write_bytes(flair)
    summary = run_cohort(cohort, tmp_path / "out", settings)
    assert (summary.done, summary.studies[0].resumed) == (1, False)


@pytest.mark.parametrize("error", [MemoryError(), OSError(errno.ENOSPC, "No space left on device")])
def test_whatever_befalls_a_study_the_others_go_on(
    tmp_path: Path, settings: Settings, monkeypatch: pytest.MonkeyPatch, error: Exception
) -> None:
    for name in ("a", "b", "c"):
        write_study(tmp_path / "in" / name)
    write, calls = report.write_report, []

    def fail_second(folder: Path, *arguments: Any) -> None:
        calls.append(folder)
        if len(calls) == 2:
            raise error
        write(folder, *arguments)

    monkeypatch.setattr(report, "write_report", fail_second)
    summary = run_cohort(find_studies(tmp_path / "in"), tmp_path / "out", settings)
    assert [row.status for row in summary.studies] == ["done", "failed", "done"]
    failed = summary.studies[1].error or ""
    assert failed.startswith(
        ("DeviceMemoryError: the study does not fit in memory", "OutputError: the output folder/b")
    )
    assert str(tmp_path) not in failed
    assert not list((tmp_path / "out").glob("b*"))


def test_messages_name_no_path(tmp_path: Path, settings: Settings) -> None:
    table = tmp_path / "DOE_JANE" / "cohort.csv"
    touch(table)
    table.write_text("study,t1,flair\nA,nowhere/t1.nii.gz,nowhere/flair.nii.gz\n")
    folders = tmp_path / "DOE_JANE" / "folders.csv"
    folders.write_text("study,folder\nB,nowhere\n")
    png = write_study(tmp_path / "DOE_JANE" / "p")
    (png / "t1.nii.gz").write_bytes(b"\x89PNG\r\n\x1a\n" + bytes(400))
    for source, words in (
        (table, "FormatError: the T1w file does not exist"),
        (folders, 'StudyError: "the folder of the study" is not a folder'),
        (tmp_path / "DOE_JANE", "FormatError: the T1w file of the folder is not a NIfTI file"),
    ):
        summary = run_cohort(find_studies(source), tmp_path / f"out-{source.name}", settings)
        failed = [row.error or "" for row in summary.studies]
        assert words in failed[0]
        assert "JANE" not in (tmp_path / f"out-{source.name}" / "summary.json").read_text()


def test_a_message_keeps_the_words_that_look_like_short_paths(
    tmp_path: Path, settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The files are called as words of the message are, and the folder of the results is "."."""
    (tmp_path / "cohort.csv").write_text("study,t1,flair\nA,a,not\n")
    monkeypatch.chdir(tmp_path)
    touch(tmp_path / "a").write_bytes(b"\x89PNG\r\n\x1a\n" + bytes(400))
    touch(tmp_path / "not")
    (row,) = run_cohort(find_studies("cohort.csv"), ".", settings).studies
    assert (row.error or "").startswith("FormatError: the T1w file is not a NIfTI file")


def test_a_message_names_whole_paths_only() -> None:
    study = CohortStudy(name="A", folder=Path("/data/a"), files={"T1w": Path("/data/a/t1")})
    error = OutputError("/data/a.zip, /data/a-b, /x/data/a and ./y are not /data/a/t1, /data/a/t2, /data/a.", "Fix it.")
    told = _describe(error, study, Path())
    assert told == (
        "OutputError: /data/a.zip, /data/a-b, /x/data/a and ./y are not "
        "the T1w file, the folder of the study/t2, the folder of the study. Fix it."
    )
    spoilt = OutputError(os.fsdecode(b"\xff is spoilt."), "Fix it.")
    assert _describe(spoilt, CohortStudy(name="A"), Path()) == "OutputError: \\xff is spoilt. Fix it."


@pytest.mark.parametrize("kind", ["folders", "bids"])
def test_files_of_another_origin_are_not_replaced(tmp_path: Path, settings: Settings, kind: str) -> None:
    out = tmp_path / "out"
    if kind == "bids":
        write_bids(tmp_path / "in", "sub-01")
        foreign = touch(out / "sub-01" / "anat" / "sub-01_space-FLAIR_desc-rmr_dseg.nii.gz")
    else:
        write_study(tmp_path / "in" / "a")
        foreign = touch(out / "a" / "fused.nii.gz")
    cohort = find_studies(tmp_path / "in")
    for _ in range(2):
        (row,) = run_cohort(cohort, out, settings).studies
        assert f"{foreign.name} exists" in (row.error or "")
        assert foreign.stat().st_size == 0
    assert run_cohort(cohort, out, dataclasses.replace(settings, overwrite=True)).done == 1
    assert foreign.stat().st_size > 0
    assert run_cohort(cohort, out, dataclasses.replace(settings, overlap=0.5)).done == 1


def test_a_failure_claims_no_file(tmp_path: Path, settings: Settings) -> None:
    """Neither one that comes after a failure, nor one that a failure with `overwrite` has left there."""
    flair = write_study(tmp_path / "in" / "a") / "flair.nii.gz"
    whole = flair.read_bytes()
    cohort, out = find_studies(tmp_path / "in"), tmp_path / "out"
    for overwrite in (False, True):
        flair.write_bytes(whole[:500])
        assert run_cohort(cohort, out, dataclasses.replace(settings, overwrite=overwrite)).failed == 1
        foreign = touch(out / "a" / "fused.nii.gz")
        flair.write_bytes(whole)
        (row,) = run_cohort(cohort, out, settings).studies
        assert "fused.nii.gz exists" in (row.error or "")
        assert foreign.stat().st_size == 0


def test_results_that_a_crash_left_without_a_record_are_replaced(
    tmp_path: Path, settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_study(tmp_path / "in" / "a")
    cohort, out = find_studies(tmp_path / "in"), tmp_path / "out"

    def crash(*_: Any) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(worker, "make_row", crash)
        with pytest.raises(KeyboardInterrupt):
            run_cohort(cohort, out, settings)
    assert (out / "a" / "fused.nii.gz").is_file()
    assert run_cohort(cohort, out, settings).done == 1


@pytest.mark.parametrize("name", ["dataset_description.json", ".bidsignore", "dseg.tsv", "summary.csv", "summary.json"])
def test_a_summary_of_another_origin_is_not_replaced(
    tmp_path: Path, settings: Settings, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    monkeypatch.setattr(Pipeline, "run", lambda *_, **__: make_result())
    root, out = write_bids(tmp_path / "in", "sub-01"), tmp_path / "out"
    foreign, cohort = touch(out / name), find_studies(root)
    for _ in range(2):
        with pytest.raises(OutputError, match=f"{name} exists"):
            run_cohort(cohort, out, settings)
        assert [path.name for path in out.iterdir()] == [name]
    run_cohort(cohort, out, dataclasses.replace(settings, overwrite=True))
    assert foreign.stat().st_size > 0
    assert run_cohort(cohort, out, settings).done == 1  # with its records, the place is that of a cohort


def test_a_study_whose_name_is_not_utf_8(tmp_path: Path, settings: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Pipeline, "run", lambda *_, **__: make_result())
    try:
        write_study(tmp_path / "in" / os.fsdecode(b"\xfc"))
    except OSError:
        pytest.skip("the file system takes no such name")
    (row,) = run_cohort(find_studies(tmp_path / "in"), tmp_path / "out", settings).studies
    assert (row.study, row.status, row.report) == ("\\xfc", "done", "\\xfc/report.html")
    assert rows(tmp_path / "out")[0]["study"] == "\\xfc"


@pytest.mark.parametrize(
    ("table", "out"),
    [
        ("study,folder\nA,studies/A\n", "studies"),  # the folder itself
        ("study,folder\nA,B\n", "B"),  # in it
        ("study,folder\nA,x/A/images\n", "x"),  # around it
        ("study,folder\nA,x\nB,y/A\n", "y"),  # that of another study
        ("study,t1,flair\nA,x/A/t1.nii,x/A/flair.nii\n", "x"),
    ],
)
def test_results_do_not_go_into_a_study_of_a_table(tmp_path: Path, settings: Settings, table: str, out: str) -> None:
    (tmp_path / "cohort.csv").write_text(table)
    with pytest.raises(ConfigError, match="results would go among the studies"):
        run_cohort(find_studies(tmp_path / "cohort.csv"), tmp_path / "." / out, settings)
    assert [path.name for path in tmp_path.iterdir()] == ["cohort.csv"]


@pytest.mark.parametrize("table", ["study,folder\nA,A\nB,x.zip\n", "study,t1,flair\nA,t1.nii,flair.nii\n"])
def test_results_may_go_beside_the_studies_of_a_table(tmp_path: Path, table: str) -> None:
    (tmp_path / "cohort.csv").write_text(table)
    assert output_root(find_studies(tmp_path / "cohort.csv"), tmp_path / "out") == tmp_path / "out"


@pytest.mark.parametrize("how", ["callback between studies", "callback within a study", "Ctrl-C"])
def test_an_interrupt_keeps_what_is_done(tmp_path: Path, settings: Settings, how: str) -> None:
    for name in ("a", "b", "c"):
        write_study(tmp_path / "in" / name)
    cohort, out = find_studies(tmp_path / "in"), tmp_path / "out"

    def stop(progress: CohortProgress) -> object:
        if how == "Ctrl-C" and progress.study == "b":
            raise KeyboardInterrupt
        if how == "callback within a study":
            return progress.within is None or progress.study != "b"
        return progress.row is None

    with pytest.raises((Cancelled, KeyboardInterrupt)):
        run_cohort(cohort, out, settings, progress=stop)
    assert [row["study"] for row in rows(out)] == ["a"]
    assert sorted(path.name for path in out.iterdir()) == [".rmr-batch", "a", "summary.csv", "summary.json"]
    seen: list[str] = []
    assert run_cohort(cohort, out, settings, progress=counting(seen)).done == 3
    assert seen == ["b", "c"]


def test_progress_counts_studies_and_steps(tmp_path: Path, settings: Settings) -> None:
    write_study(tmp_path / "in" / "a")
    write_study(tmp_path / "in" / "b")
    heard: list[CohortProgress] = []
    run_cohort(find_studies(tmp_path / "in"), tmp_path / "out", settings, progress=heard.append)
    assert [(each.study, each.done) for each in heard if each.row is not None] == [("a", 1), ("b", 2)]
    assert {each.within.stage for each in heard if each.within is not None} == {"prepare", "infer", "measure"}
    assert {each.total for each in heard} == {2}


def test_what_stops_a_cohort_before_it_begins(tmp_path: Path, settings: Settings, monkeypatch: Any) -> None:
    write_study(tmp_path / "in" / "a")
    cohort = find_studies(tmp_path / "in")
    with pytest.raises(ConfigError, match="results would go among the studies"):
        run_cohort(cohort, tmp_path / "in", settings)
    with pytest.raises(BundleError):
        run_cohort(cohort, tmp_path / "out", Settings(bundle="no-such"))
    touch(tmp_path / "file")
    with pytest.raises(OutputError, match="is not a folder"):
        run_cohort(cohort, tmp_path / "file", settings)
    monkeypatch.setattr(os, "mkdir", lambda *_, **__: (_ for _ in ()).throw(OSError(errno.EROFS, "Read-only")))
    with pytest.raises(OutputError, match="Read-only"):
        run_cohort(cohort, tmp_path / "new", settings)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["file", "in"]


def test_a_bundle_that_only_fuses(tmp_path: Path, settings: Settings) -> None:
    make_tiny(tmp_path / "fuse.zip", classes=None)
    root = write_bids(tmp_path / "bids", "sub-01")
    fusing = dataclasses.replace(settings, bundle=tmp_path / "fuse.zip")
    (row,) = run_cohort(find_studies(root), tmp_path / "out", fusing).studies
    assert (row.status, row.lesions, row.tissue_ml, row.lesions_by_location) == ("done", None, None, None)
    assert not list(tmp_path.glob("out/**/*dseg*"))


def test_a_summary_with_locations(tmp_path: Path, settings: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    result = make_result()
    lesions = tuple(dataclasses.replace(each, location="infratentorial") for each in result.lesions or ())
    placed = dataclasses.replace(result, lesions=lesions)
    monkeypatch.setattr(Pipeline, "run", lambda *_, **__: placed)
    write_study(tmp_path / "in" / "a")
    (row,) = run_cohort(find_studies(tmp_path / "in"), tmp_path / "out", settings).studies
    assert row.lesions_by_location is not None
    assert row.lesions_by_location["infratentorial"] == 1
    assert rows(tmp_path / "out")[0]["infratentorial"] == "1"


def test_the_schema_in_docs_is_the_one_in_the_code() -> None:
    assert SCHEMA.read_text(encoding="utf-8").strip() == json_schema(), "see rmr_sdk/cohort/summary.py for the command"


@pytest.mark.parametrize("data", [b"\xff", b"{}", b"[]"])
def test_summaries_that_cannot_be_read(data: bytes) -> None:
    with pytest.raises(FormatError, match="The summary breaks its schema"):
        decode_summary(data)


# On a cluster


def test_without_ray(tmp_path: Path, settings: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "ray", None)
    write_study(tmp_path / "in" / "a")
    with pytest.raises(
        DeviceUnavailableError, match=r'Ray is not installed. Install it with: pip install "rmr-sdk\[ray\]"'
    ):
        run_cohort(find_studies(tmp_path / "in"), tmp_path / "out", settings, executor=on_ray.RayExecutor())


def test_a_cluster_that_does_not_answer(tmp_path: Path, settings: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    class Silent:
        def init(self, **_: Any) -> None:
            raise ConnectionError("nobody there")

        def shutdown(self) -> None:
            pass

    monkeypatch.setattr(on_ray, "_load_ray", lambda: (Silent(), None))
    write_study(tmp_path / "in" / "a")
    executor = on_ray.RayExecutor("ray://nowhere:1")
    with pytest.raises(DeviceUnavailableError, match="no Ray cluster answers"):
        run_cohort(find_studies(tmp_path / "in"), tmp_path / "out", settings, executor=executor)


def test_another_executor_gives_the_same(tmp_path: Path, settings: Settings) -> None:
    """Rows may come in any order; the summary has that of the cohort."""
    for name in ("a", "b"):
        write_study(tmp_path / "in" / name)
    cohort = find_studies(tmp_path / "in")

    def backwards(settings: Settings, out: Path, studies: Any, step: Any) -> Any:
        return run_in_turn(settings, out, studies[::-1], step)

    summaries: list[Summary] = [
        run_cohort(cohort, tmp_path / name, settings, executor=executor)
        for name, executor in (("x", None), ("y", backwards))
    ]
    first, second = ([msgspec.structs.replace(row, seconds=0) for row in each.studies] for each in summaries)
    assert first == second
