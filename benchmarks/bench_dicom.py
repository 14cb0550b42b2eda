"""A DICOM study from its files to DICOM objects: the seconds of every stage, and the reading against SimpleITK's.

The series are made from NIfTI studies, one object per slice, with two derived series beside them that must be passed
over. Voxels that are read are checked against their source and against SimpleITK before any time is reported. Wall
clock and processor seconds are both given: on a busy machine only the latter compare.

    python benchmarks/bench_dicom.py
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
import tempfile
import time
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from bench_pipeline import data_folder
from machine import machine_facts, result_path

from rmr_sdk import Pipeline, Result, Study, Volume
from rmr_sdk.io import dicom_out
from rmr_sdk.io.dicom import list_study
from rmr_sdk.io.dicom.extra import quiet
from rmr_sdk.io.dicom_object import find_origin

sys.path.insert(0, str(Path(__file__).parent.parent / "tests"))

Seconds = dict[str, dict[str, float]]


def make_study(source: Path, folder: Path) -> Study:
    """Write a NIfTI study as DICOM, T1 and FLAIR and a derived copy of each; return what was written."""
    from dicom_studies import FLAIR, T1, write_series

    study, written = Study.from_folder(source), {}
    for number, (contrast, parameters) in enumerate((("T1w", T1), ("FLAIR", FLAIR)), start=1):
        data = study[contrast].data
        if data.dtype != np.uint16:
            data = np.clip(np.rint(data * (4000 / data.max())), 0, None).astype(np.uint16)
        written[contrast] = Volume(data, study[contrast].affine)
        write_series(folder / contrast, written[contrast], number, parameters)
        derived = {**parameters, "ImageType": ["DERIVED", "SECONDARY", "MPR"]}
        write_series(folder / f"{contrast} derived", written[contrast], number + 10, derived)
    return Study(written)


def check(read: Study, written: Study) -> None:
    """Make sure that every voxel came back to its place."""
    for contrast, volume in read.items():
        points = volume.grid.world(np.random.default_rng(0).integers(0, volume.data.shape, (2000, 3)))
        own, other = (np.rint(one.grid.index(points)).astype(int) for one in (volume, written[contrast]))
        same = np.array_equal(volume.data[tuple(own.T)], written[contrast].data[tuple(other.T)])
        if not same or volume.data.size != written[contrast].data.size:
            raise SystemExit(f"{contrast} did not come back as it was written: no time is reported")


class Clock:
    """Collects wall-clock and processor seconds by stage."""

    def __init__(self) -> None:
        self.seconds: Seconds = {}

    def __call__(self, stage: str, run: Callable[[], Any]) -> Any:
        wall, processor = time.perf_counter(), time.process_time()
        value = run()
        self.seconds[stage] = {"wall_s": time.perf_counter() - wall, "cpu_s": time.process_time() - processor}
        return value


def time_peer(folder: Path) -> tuple[Seconds, dict[str, np.ndarray]]:
    """Read both series with SimpleITK, which is told where they are."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        import SimpleITK as sitk  # noqa: N813 - its usual name
    clock, arrays = Clock(), {}

    def read() -> None:
        for contrast in ("T1w", "FLAIR"):
            names = sitk.ImageSeriesReader.GetGDCMSeriesFileNames(str(folder / contrast))
            arrays[contrast] = sitk.GetArrayFromImage(sitk.ReadImage(names))

    clock("read with SimpleITK", read)
    return clock.seconds, arrays


def time_stages(folder: Path, written: Study, pipeline: Pipeline | None) -> tuple[Seconds, Result | None]:
    """Time every stage once; without a pipeline only those that read."""
    clock = Clock()
    clock("list series", lambda: list_study(folder))
    study = clock("read", lambda: Study.from_dicom(folder))
    check(study, written)
    if pipeline is None:
        return clock.seconds, None
    result: Result = clock("run", lambda: pipeline.run(study))
    with tempfile.TemporaryDirectory() as out, quiet():
        clock("write NIfTI, report and preview", lambda: result.save(Path(out) / "plain", dicom=False))
        origin = find_origin(result)
        (Path(out) / "fused").mkdir()
        clock("write fused series", lambda: dicom_out.write_fused(Path(out) / "fused", origin))
        segmentation = clock("write SEG", lambda: dicom_out.write_segmentation(Path(out) / "seg.dcm", origin))
        clock("write SR", lambda: dicom_out.write_measurements(Path(out) / "sr.dcm", origin, segmentation))
    return clock.seconds, result


def median(runs: list[Seconds]) -> Seconds:
    """Return the median of each stage."""
    return {
        stage: {kind: round(statistics.median(run[stage][kind] for run in runs), 3) for kind in ("wall_s", "cpu_s")}
        for stage in runs[0]
    }


def measure(source: Path, pipeline: Pipeline | None, repeats: int) -> dict[str, Any]:
    """Return the times of one study."""
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary) / "study"
        written = make_study(source, folder)
        runs, peers, result = [], [], None
        for _ in range(repeats):
            seconds, result = time_stages(folder, written, pipeline)
            runs.append(seconds)
            peer, arrays = time_peer(folder)
            peers.append(peer)
        for contrast, array in arrays.items():
            if array.size != written[contrast].data.size or array.sum(dtype=np.int64) != written[contrast].data.sum(
                dtype=np.int64
            ):
                raise SystemExit("SimpleITK read something else: no time is reported")
        files = sum(1 for path in folder.rglob("*") if path.is_file())
    stages = median(runs)
    report: dict[str, Any] = {
        "study": "/".join(source.parts[-2:]),
        "shapes": {name: list(volume.data.shape) for name, volume in written.items()},
        "files": files,
        "stages": stages,
        "peer": median(peers),
    }
    if result is not None:
        total = sum(stages[stage]["wall_s"] for stage in stages if stage != "list series")
        report["share_of_wall"] = {
            stage: round(one["wall_s"] / total, 3) for stage, one in stages.items() if stage != "list series"
        }
        report["total_wall_s"] = round(total, 2)
        report["run_stages_wall_s"] = {stage: round(seconds, 3) for stage, seconds in result.timings.items()}
        report["lesions"] = len(result.lesions or ())
    return report


def main() -> int:
    """Run the benchmark and write its JSON."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--out", type=Path, default=result_path("dicom"))
    options = parser.parse_args()
    data = data_folder()
    dicom_out.check_libraries()  # imported before anything is timed
    with Pipeline.open("ms-edge") as pipeline:
        pipeline.warmup()
        whole = measure(data / "open_ms_raw" / "patient12_study1", pipeline, options.repeats)
    large = measure(data / "open_ms" / "patient19", None, options.repeats)
    report = {
        "benchmark": "dicom",
        "machine": machine_facts(),
        "repeats": options.repeats,
        "raw study, all stages": whole,
        "1 mm study, reading": large,
    }
    options.out.write_text(json.dumps(report, indent=2) + "\n")
    print(json.dumps(report, indent=2))
    return 0


if __name__ == "__main__":
    sys.exit(main())
