"""The main job end to end against every peer, in one run: same weights, same volume, same tile and overlap.

    python benchmarks/bench_peers.py --study ../shared/data/open_ms/patient19         about 12 minutes on 2 quiet cores
    python benchmarks/bench_peers.py --crop 96 112 96 --repeats 1 --whole-repeats 0   to try it

Ours is timed from the raw arrays to the result with its lesions and checks; a peer from normalised arrays to fused
image and labels, loading and compiling apart. Two scopes: `box`, where peers get the box around the head that ours
finds by itself, so that all compute the same tiles; and `whole`, the volume as it is, as their users run them. Every
peer is a process of its own (peer_process.py); runs are interleaved, memory is the peak of each process.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import sys
import tempfile
from datetime import date
from pathlib import Path
from typing import Any

import numpy as np
from machine import machine_facts, result_path
from peer_process import OURS, Peer, Task
from peers_study import EAGER, STUDY_PEERS, Setting

from rmr_sdk.bundle import Bundle
from rmr_sdk.geometry import reorient
from rmr_sdk.inference import plan_study
from rmr_sdk.io.nifti import write_volume
from rmr_sdk.preprocess import prepare
from rmr_sdk.study import Study
from rmr_sdk.volume import Volume

ROOT = Path(__file__).parent.parent
LEAST_AGREEMENT = 0.995
TARGET_RATIO, TARGET_NETWORK_S, TARGET_MEMORY = 10.0, 4.0, 1 / 3


def crop_study(study: Study, shape: tuple[int, int, int]) -> Study:
    """Return the middle of a study, in voxels of its own axes."""
    volumes = {}
    for name, volume in study.items():
        starts = [max(0, (extent - side) // 2) for extent, side in zip(volume.data.shape, shape, strict=True)]
        box = tuple(slice(start, start + side) for start, side in zip(starts, shape, strict=True))
        affine = volume.affine.copy()
        affine[:3, 3] += affine[:3, :3] @ starts
        volumes[name] = Volume(np.ascontiguousarray(volume.data[box]), affine)
    return Study(volumes)


def write_inputs(folder: Path, study: Study, setting: Setting) -> dict[str, Any]:
    """Write the study for ours, and both scopes, normalised, for the peers; return the box and the tiles."""
    (folder / "study").mkdir()
    for name, file in (("T1w", "t1"), ("FLAIR", "flair")):
        write_volume(folder / "study" / f"{file}.nii.gz", study[name])
    manifest = Bundle.open(setting.bundle).manifest
    prepared = prepare(Study.from_folder(folder / "study"), manifest)
    whole = np.stack([prepared.intensity[name].apply(array) for name, array in prepared.arrays.items()])[None]
    plan = plan_study(prepared, manifest, setting.overlap, setting.threads)
    low = np.min([tile.low for tile in plan.tiles], 0)
    high = np.max([tile.high for tile in plan.tiles], 0)
    box = tuple(slice(int(a), int(b)) for a, b in zip(low, high, strict=True))
    np.save(folder / "whole.npy", np.ascontiguousarray(whole, np.float32))
    np.save(folder / "box.npy", np.ascontiguousarray(whole[(slice(None), slice(None), *box)], np.float32))
    axes = reorient(study[prepared.reference].grid, manifest.orientation)
    return {"box": box, "axes": axes, "tiles": len(plan.tiles), "tiles_skipped": plan.skipped, "shape": whole.shape[2:]}


def measure(tasks: list[Task], repeats: int, whole_repeats: int) -> tuple[dict[str, dict[str, Any]], dict[str, str]]:
    """Run all peers in turn; return what each one took, and why the others cannot run."""
    rows: dict[str, dict[str, Any]] = {}
    peers, missing = [], {}
    for task in tasks:
        peer = STUDY_PEERS.get(task.name)
        reason = peer.why_not(task.setting.device) if peer is not None else ""
        started = None if reason else Peer(task)
        reason = reason or (started.ready.get("unavailable", "") if started is not None else "")
        if reason or started is None:
            missing[task.name] = reason
        else:
            peers.append(started)
            rows[task.name] = {"ready_s": started.ready["ready_s"], "box_s": [], "whole_s": [], "stages": []}
        print(f"{task.name}: {reason or 'ready'}", flush=True)
    rounds = [("box", False)] + [("box", True)] * repeats + [("whole", True)] * whole_repeats
    for scope, counts in rounds:
        for peer in [peer for peer in peers if peer.name not in missing]:
            if scope == "whole" and peer.name.startswith(OURS):
                continue  # it always gets the whole volume
            answer = peer.run(scope)
            if "unavailable" in answer:
                missing[peer.name] = answer["unavailable"]
                del rows[peer.name]
                continue
            print(f"{peer.name}, {scope}: {answer['seconds']:.2f} s, {answer['peak_mib']} MiB", flush=True)
            _keep(rows[peer.name], scope, counts, answer)
    for peer in peers:
        peer.close()
    return rows, missing


def _keep(row: dict[str, Any], scope: str, counts: bool, answer: dict[str, Any]) -> None:
    row[f"{scope}_peak_mib"] = answer["peak_mib"]
    if not counts:
        row["first_s"] = answer["seconds"]
        return
    row[f"{scope}_s"].append(answer["seconds"])
    if "stages" in answer:
        row["stages"].append(answer["stages"])
        row["engine"] = answer["engine"]


def summarise(rows: dict[str, dict[str, Any]]) -> None:
    """Replace the runs by their medians, the runs kept beside."""
    for row in rows.values():
        for scope in ("box", "whole"):
            runs = row.pop(f"{scope}_s")
            row[f"{scope}_runs_s"] = [round(value, 4) for value in runs]
            row[f"{scope}_median_s"] = round(statistics.median(runs), 4) if runs else None
        stages = row.pop("stages")
        if stages:
            row["stages_median_s"] = {
                stage: round(statistics.median(run[stage] for run in stages), 4) for stage in stages[0]
            }


def check(rows: dict[str, dict[str, Any]], folder: Path, facts: dict[str, Any]) -> None:
    """Compare every answer with that of the SDK in fp32, inside the box, where either has a label."""
    base = _answer(f"{OURS} fp32", "labels", folder, facts)
    for name, row in rows.items():
        labels = _answer(name, "labels", folder, facts)
        either = (base > 0) | (labels > 0)
        row["label_agreement"] = round(float((base == labels)[either].mean()), 6) if either.any() else 1.0


def _answer(name: str, kind: str, folder: Path, facts: dict[str, Any]) -> np.ndarray:
    """Return an answer inside the box, on the network's axes."""
    array = np.load(folder / f"{name}.box.{kind}.npy")
    found: np.ndarray = facts["axes"].apply(array)[facts["box"]] if name.startswith(OURS) else array
    return found


def conclude(rows: dict[str, dict[str, Any]]) -> dict[str, Any]:
    """Compare our fastest gated precision whose labels agree with torch eager + MONAI, and say which targets hold."""
    ours = {name: row for name, row in rows.items() if name.startswith(OURS) and not row["gate"]}
    agreeing = {name: row for name, row in ours.items() if row["label_agreement"] >= LEAST_AGREEMENT}
    if EAGER not in rows or not agreeing:
        return {}
    best = min(agreeing, key=lambda name: agreeing[name]["box_median_s"])
    row, eager = rows[best], rows[EAGER]
    whole = eager["whole_median_s"]
    ratios = {
        "best": best,
        "times_faster_same_tiles": round(eager["box_median_s"] / row["box_median_s"], 2),
        "times_faster_whole_volume": None if whole is None else round(whole / row["box_median_s"], 2),
        "network_s": row["stages_median_s"]["network"],
        "memory_share_same_tiles": round(row["box_peak_mib"] / eager["box_peak_mib"], 3),
        "memory_share_whole_volume": None if whole is None else round(row["box_peak_mib"] / eager["whole_peak_mib"], 3),
        "peer_agreement": eager["label_agreement"],
    }
    faster = ratios["times_faster_whole_volume"] or ratios["times_faster_same_tiles"]
    share = ratios["memory_share_whole_volume"] or ratios["memory_share_same_tiles"]
    return {
        **ratios,
        "targets": {
            f"at least {TARGET_RATIO:.0f} times as fast as torch eager + MONAI": faster >= TARGET_RATIO,
            f"less than {TARGET_NETWORK_S:.0f} s of network time": ratios["network_s"] < TARGET_NETWORK_S,
            "labels agree to 99.5 %": min(row["label_agreement"], eager["label_agreement"]) >= LEAST_AGREEMENT,
            "at most a third of its peak memory": share <= TARGET_MEMORY,
        },
    }


def main() -> int:
    """Measure, check, write the JSON, print it."""
    options = _parse()
    manifest = Bundle.open(options.bundle).manifest
    setting = Setting(
        checkpoint=str(options.checkpoint),
        bundle=options.bundle,
        tile_shape=manifest.tile_shape,
        overlap=options.overlap,
        threads=options.threads,
        device=options.device,
        classes=len(manifest.classes or ()),
        sigma_scale=manifest.window.sigma_scale,
    )
    precisions = options.precision or ["fp32", "bf16", *(p for p in manifest.onnx_precisions if p == "int8")]
    names = [f"{OURS} {precision}" for precision in dict.fromkeys(["fp32", *precisions])]
    names += [name for name in STUDY_PEERS if not options.peers or any(part in name for part in options.peers)]
    study = Study.from_folder(options.study)
    with tempfile.TemporaryDirectory() as place:
        facts = write_inputs(Path(place), crop_study(study, tuple(options.crop)) if options.crop else study, setting)
        rows, missing = measure([Task(name, setting, place) for name in names], options.repeats, options.whole_repeats)
        if f"{OURS} fp32" not in rows:
            print(f"nothing to compare with: {missing[f'{OURS} fp32']}", file=sys.stderr)
            return 1
        summarise(rows)
        check(rows, Path(place), facts)
    for name in (name for name in rows if name.startswith(OURS)):
        rows[name]["gate"] = list(manifest.tolerance_problems(name.rpartition(" ")[2]))
    report = {
        "benchmark": "peers",
        "date": date.today().isoformat(),
        "machine": machine_facts(),
        "device": options.device,
        "study": options.study.name,
        "shape": [int(side) for side in facts["shape"]],
        "box": [side.stop - side.start for side in facts["box"]],
        "tiles": facts["tiles"],
        "tile_shape": list(manifest.tile_shape),
        "overlap": options.overlap,
        "threads": options.threads,
        "repeats": options.repeats,
        "whole_repeats": options.whole_repeats,
        "bundle": {"name": manifest.name, "version": manifest.version},
        "rows": rows,
        "unavailable": missing,
        "conclusion": conclude(rows),
    }
    differing = [name for name, row in rows.items() if row["label_agreement"] < LEAST_AGREEMENT]
    report["labels_differ"] = differing
    if options.out or not options.crop:
        (options.out or result_path("peers")).write_text(json.dumps(report, indent=1) + "\n", encoding="utf-8")
    print(json.dumps(report["conclusion"], indent=1))
    if EAGER in differing:
        print("the labels of torch differ from ours: these figures compare different things", file=sys.stderr)
        return 1
    return 0


def _parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    data = Path(os.environ.get("RMR_DATA", "../shared/data"))
    parser.add_argument("--study", type=Path, default=data / "open_ms" / "patient19")
    parser.add_argument("--checkpoint", type=Path, default=ROOT / "models" / "ms-edge.pth")
    parser.add_argument("--bundle", default="ms-edge", help="must hold the weights of --checkpoint")
    parser.add_argument("--device", choices=("cpu", "cuda"), default="cpu")
    parser.add_argument(
        "--precision", nargs="*", help="of ours (default: fp32, bf16, and int8 where the bundle has it)"
    )
    parser.add_argument("--peers", nargs="*", help="only peers whose name holds one of these")
    parser.add_argument("--overlap", type=float, default=0.25)
    parser.add_argument("--threads", type=int, default=os.cpu_count() or 1)
    parser.add_argument("--repeats", type=int, default=3, help="interleaved rounds on the box")
    parser.add_argument("--whole-repeats", type=int, default=1, help="interleaved rounds on the whole volume")
    parser.add_argument("--crop", type=int, nargs=3, metavar="N", help="use the middle of the study, to try things")
    parser.add_argument("--out", type=Path)
    return parser.parse_args()


if __name__ == "__main__":
    sys.exit(main())
