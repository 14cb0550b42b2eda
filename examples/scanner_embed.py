"""RMR SDK inside another program: slices in as a scanner makes them, arrays out, on the caller's terms.

What it shows, in the order in which scanner software needs it:

1. open once, at the start of the service, and warm up, so that the first patient pays for nothing;
2. ask what a study will take before it is begun: memory and seconds;
3. hand over slices while they are acquired; tiles are computed meanwhile;
4. keep a deadline, and cancel from another thread within one tile;
5. take arrays, not files.

Here a folder plays the scanner: its T1 is complete, its FLAIR comes slice by slice.

Usage: python examples/scanner_embed.py [STUDY_DIR] [--bundle NAME_OR_PATH] [--slice-ms 20] [--deadline 120]

Research software, not a medical device.
"""

from __future__ import annotations

import argparse
import threading
import time
from collections.abc import Sequence

import numpy as np

from rmr_sdk import Pipeline, Progress, Result, RmrError, Study
from rmr_sdk.demo import demo_study_folder


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the example; returns 0, or the exit code of the error."""
    options = _parse(arguments)
    study = Study.from_folder(options.study)
    try:
        with Pipeline.open(options.bundle, max_memory_mib=options.max_memory_mib) as pipeline:
            pipeline.warmup()
            _show_plan(pipeline, study)
            result = _acquire(pipeline, study, options.slice_ms / 1000, options.deadline)
    except RmrError as error:
        print(f"{type(error).__name__}: {error}")
        return error.exit_code
    _show_result(result)
    return 0


def _show_plan(pipeline: Pipeline, study: Study) -> None:
    plan = pipeline.plan(study)
    print(
        f"plan: {plan.tiles} tiles, {plan.bytes / 2**20:.0f} MiB beside the network, "
        f"about {plan.seconds:.1f} s (from {plan.basis})"
    )


def _acquire(pipeline: Pipeline, study: Study, slice_s: float, deadline_s: float) -> Result:
    """Play the scanner: the T1 is there, the FLAIR comes slice by slice."""
    stop = threading.Event()  # set it from any thread, and the run ends within one tile
    flair = study["FLAIR"]
    planes = np.moveaxis(flair.data, 2, 0)

    def watch(_: Progress) -> bool:
        return not stop.is_set()

    with pipeline.stream(
        {"FLAIR": flair.grid},
        {"T1w": study["T1w"]},
        slice_axis=2,
        dtype=flair.data.dtype,
        progress=watch,
        deadline_s=deadline_s,
    ) as stream:
        for index, plane in enumerate(planes):
            time.sleep(slice_s)  # the scanner measures the next slice
            stream.add("FLAIR", index, plane)
        last_slice = time.perf_counter()
        result = stream.finish()
    print(f"result {time.perf_counter() - last_slice:.1f} s after the last slice")
    return result


def _show_result(result: Result) -> None:
    fused = result.fused
    print(f"fused: {fused.data.shape} {fused.data.dtype}, from {fused.data.min():.0f} to {fused.data.max():.0f}")
    if result.lesions is not None:
        print(f"lesions: {len(result.lesions)}, {result.lesion_ml:.2f} ml")
    for warning in result.warnings:
        print(f"warning: {warning}")


def _parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description="RMR SDK inside another program.")
    parser.add_argument("study", nargs="?", default=str(demo_study_folder()), help="folder of a study")
    parser.add_argument("--bundle", default="ms-edge", help="shipped name, folder or .zip")
    parser.add_argument("--slice-ms", type=float, default=20.0, help="time the scanner takes for a slice")
    parser.add_argument("--deadline", type=float, default=120.0, metavar="S", help="seconds for the whole study")
    parser.add_argument("--max-memory-mib", type=float, help="most memory beside the network")
    return parser.parse_args(arguments)


if __name__ == "__main__":
    raise SystemExit(main())
