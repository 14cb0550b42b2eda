"""Make the tables of the README from the committed results, newest of each kind first.

    python benchmarks/tables.py README.md           rewrite what stands between the markers
    python benchmarks/tables.py README.md --check   exit 1 when the README does not show the results

A table stands between `<!-- table: NAME -->` and `<!-- end -->`.
"""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

RESULTS = Path(__file__).parent / "results"


def newest(kind: str) -> dict[str, Any]:
    """Return the newest result file of a kind, such as "pipeline"."""
    files = sorted(RESULTS.glob(f"*-{kind}.json"))
    return json.loads(files[-1].read_text()) if files else {}


def table(header: Iterable[str], rows: Iterable[Iterable[object]]) -> str:
    """Return a Markdown table."""
    head = list(header)
    lines = [head, ["---"] * len(head), *([str(cell) for cell in row] for row in rows)]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)


def pipeline_table() -> str:
    """End-to-end seconds, memory and agreement beside the peer's."""
    found = newest("pipeline")
    if not found:
        return "Not measured yet."
    rows = []
    for name, seconds in found["seconds"].items():
        ratio = found["ratio_to_peer"].get(name)
        check = found["check"].get(name)
        ours = ratio is not None
        rows.append(
            [
                f"ms-edge, {name}" if ours else name,
                f"{seconds['total']:.1f}",
                f"{ratio:.1f} x" if ours else "1",
                f"{found['peak_mib'][name]:.0f}",
                f"{100 * check['label_agreement']:.2f} %" if check else "",
                f"{found['start_s'][name]:.1f}" if ours else "",
            ]
        )
    machine = found["machine"]
    note = (
        f"{found['study']} ({' x '.join(map(str, found['shape']))}), overlap {found['overlap']}, median of "
        f"{found['repeats']} interleaved runs, {machine['cpu']}, {machine['cores']} cores, {found['date']}. "
        f"Stages other than the network take {100 * found['non_network_share']:.1f} % of the fp32 run; reading both "
        f"files {found['read_s']:.1f} s, saving all outputs {found['save_s']:.1f} s."
    )
    header = ["arrays in, arrays out", "seconds", "faster", "peak memory (MiB)", "same label as the peer"]
    header.append("a process' start to its first tile (s)")
    return table(header, rows) + "\n\n" + note


def accuracy_table() -> str:
    """Lesion figures on real studies, and which of them the weights were trained on."""
    found = newest("accuracy")
    if not found:
        return "Not measured yet."
    header = ["study", "lesion Dice", "sensitivity", "false lesions", "volume found / true (ml)", "95 % Hausdorff (mm)"]
    rows = [
        [
            row["study"],
            f"{row['dice']:.2f}",
            f"{row['sensitivity']:.2f}",
            row["false_lesions"],
            f"{row['predicted_ml']:.1f} / {row['truth_ml']:.1f}",
            f"{row['hausdorff95_mm']:.0f}",
        ]
        for row in found["studies"]
    ]
    return table(header, rows) + f"\n\nn = {len(rows)} studies, {found['note']} ({found['date']})."


def robustness_table() -> str:
    """Lesion Dice of each study by kind and strength of damage, and how far it falls at most."""
    found = newest("robustness")
    if not found:
        return "Not measured yet."
    studies = [study["study"] for study in found["studies"]]
    dice: dict[tuple[str, int], list[float]] = {}
    for row in found["segmentation"]:
        if row["class"] == "lesion":
            dice.setdefault((row["condition"], row["strength"]), []).append(row["dice"])

    def cell(level: tuple[str, int]) -> str:
        change = min(after - before for after, before in zip(dice[level], dice["clean", 0], strict=True))
        values = " / ".join(f"{value:.2f}" for value in dice[level])
        return values if level == ("clean", 0) else f"{values} ({change:+.2f})"

    about = {(row["condition"], row["strength"]): row["about"] for row in found["conditions"]}
    strengths = sorted({strength for _, strength in dice} - {0})
    damage = list(dict.fromkeys(name for name, _ in dice if name != "clean"))
    header = ["damage", *({1: "mild", 2: "middling", 3: "strong"}[strength] for strength in strengths)]
    rows = [["none", cell(("clean", 0)), *[""] * (len(strengths) - 1)]]
    rows += [[name, *(cell((name, strength)) for strength in strengths)] for name in damage]
    legend = "; ".join(f"{name}: {about[name, strengths[-1]]}" for name in damage)
    note = (
        f"Lesion Dice of {' / '.join(studies)} and the largest fall; n = {found['n']} studies, {found['note']} "
        f"({found['date']}). In the last column {legend}."
    )
    return table(header, rows) + "\n\n" + note


def fusion_table() -> str:
    """Figures of the fused images of clean studies, beside simple baselines."""
    found = newest("robustness")
    if not found:
        return "Not measured yet."
    names = {
        "ssim": "SSIM",
        "nmi": "NMI",
        "fmi": "FMI",
        "qabf": "Q^AB/F",
        "vif": "VIF",
        "scd": "SCD",
        "entropy": "bits",
    }
    means: dict[str, dict[str, float]] = {}
    for row in found["summary"]:
        if row["condition"] == "clean" and "method" in row:
            means.setdefault(row["method"], {})[row["figure"]] = row["mean"]
    rows = [[method, *(f"{figures[key]:.3f}" for key in names)] for method, figures in means.items()]
    note = f"Means over n = {found['n']} studies, clean, of T1w and FLAIR alike; {found['note']} ({found['date']})."
    return table(["fused by", *names.values()], rows) + "\n\n" + note


def pareto_table() -> str:
    """What each size of the network costs, and its Dice after the same small training."""
    found = newest("pareto")
    if not found:
        return "Not measured yet."
    header = [
        "size",
        "parameters (M)",
        "kMAC a voxel",
        "mean Dice",
        "lesion Dice",
        "fp32 (s)",
        "bf16 (s)",
        "bundle (MB)",
    ]
    header += ["training step (CPU s)", "steps a second", "waiting for samples"]
    rows = [
        [
            row["size"],
            f"{row['parameters'] / 1e6:.2f}",
            f"{row['kmac_per_voxel']:.1f}",
            f"{row['synthetic_dice']['mean']:.3f}",
            f"{row['synthetic_dice']['lesion']:.3f}",
            *(_seconds(row.get("seconds", {}), name) for name in ("fp32", "bf16")),
            f"{row['bundle_mb']:.1f}",
            f"{row['training']['step_cpu_s']:.1f}",
            f"{row['training']['steps_per_s']:.2f}",
            f"{100 * row['training']['waiting_share']:.0f} %",
        ]
        for row in found["sizes"]
    ]
    recipe, machine = found["recipe"], found["machine"]
    note = (
        f"Dice over {recipe['validation_patches']} synthetic patches of held-out lesion donors, after "
        f"{recipe['steps']} steps of {recipe['batch']} patches of {recipe['side']}^3 for every size, one seed: all of "
        f"them are far from done. Seconds of {found['study']}, arrays in, arrays out, {found['inference_threads']} "
        f"threads, median of {found['repeats']} interleaved runs; training on {found['training_threads']} thread, a "
        f"sample takes {found['sample_cpu_s']:.2f} s of CPU time to make. {machine['cpu']}, {machine['cores']} cores, "
        f"{found['date']}."
    )
    return table(header, rows) + "\n\n" + note


def _seconds(found: dict[str, float], name: str) -> str:
    return f"{found[name]:.1f}" if name in found else ""


def kernels_table() -> str:
    """Extraction and blending beside other libraries."""
    found = newest("kernels")
    return found["markdown"] if found else "Not measured yet."


def alignment_table() -> str:
    """What alignment did to each raw study, beside the published transform."""
    found = newest("alignment")
    if not found:
        return "Not measured yet."
    head = ("study", "done", "header to published (mm)", "ours to published (mm)", "seconds", "extra memory (MiB)")
    rows = [
        (
            row["study"],
            f"moved {row['moved_mm']} mm, {row['turned_deg']} degrees" if row["method"] == "rigid" else "header kept",
            row["header_to_published_mm"],
            row["ours_to_published_mm"],
            row["seconds"],
            row["memory_mib"],
        )
        for row in found["studies"]
    ]
    return f"{table(head, rows)}\n\n{found['machine']['cpu']}, {found['machine']['cores']} cores, {found['date']}."


def memory_table() -> str:
    """Peak memory of a whole run by the size of the volumes."""
    found = newest("memory")
    if not found:
        return "Not measured yet."
    rows = [
        (
            " x ".join(map(str, run["shape"])),
            " x ".join(f"{side:g}" for side in run["spacing_mm"]),
            run["peak_mib"]["read"],
            run["peak_mib"]["saved"],
        )
        for run in found["runs"]
    ]
    head = ("voxels", "mm", "files read (MiB)", "whole run (MiB)")
    note = "ms-edge, fp32, the demo study on larger grids, peak resident memory of the process"
    return f"{table(head, rows)}\n\n{note}, {found['date']}."


def peers_table() -> str:
    """Whole studies beside other software: the same tiles, and the volume as it is."""
    found = newest("peers")
    if not found:
        return "Not measured yet."
    rows = [_peer_row(name, row, found["rows"]) for name, row in found["rows"].items()]
    head = [
        "arrays in, arrays out",
        "same tiles (s)",
        "ours faster",
        "whole volume (s)",
        "ours faster",
        "peak memory (MiB)",
        "same labels",
    ]
    machine = found["machine"]
    note = (
        f"{found['study']} ({' x '.join(map(str, found['shape']))}), {found['tiles']} tiles of "
        f"{' x '.join(map(str, found['tile_shape']))}, overlap {found['overlap']}, median of {found['repeats']} "
        f"interleaved runs (whole volume: {found['whole_repeats']}), {machine['cpu']}, {found['threads']} threads, "
        f"{found['date']}. Faster: {found['conclusion'].get('best', 'rmr_sdk fp32')} against the row. Memory: same "
        "tiles / whole volume."
    )
    lines = [table(head, rows), "", note]
    lines += [f"Not measured: {name} ({reason})." for name, reason in found["unavailable"].items()]
    return "\n".join(lines)


def _peer_row(name: str, row: dict[str, Any], rows: dict[str, Any]) -> list[str]:
    """Give one peer's cells; a ratio only where its labels are ours."""
    ours = [each for each in rows.values() if each.get("gate") == [] and each["label_agreement"] >= 0.995]
    best = min(each["box_median_s"] for each in ours)
    whole, same = row["whole_median_s"], row["label_agreement"] >= 0.995
    is_ours = name.startswith("rmr_sdk")
    memory = [str(row[key]) for key in ("box_peak_mib", "whole_peak_mib") if key in row]
    return [
        name + (" (not gated)" if row.get("gate") else ""),
        f"{row['box_median_s']:.1f}",
        "" if is_ours or not same else f"{row['box_median_s'] / best:.1f} x",
        "" if whole is None else f"{whole:.1f}",
        "" if whole is None or not same else f"{whole / best:.1f} x",
        " / ".join(memory),
        f"{100 * row['label_agreement']:.2f} %",
    ]


PERFECT_DB = 200.0
"""Stands for the infinite ratio of equal images."""


def engines_table() -> str:
    """Every engine and precision of `ms-edge`: seconds, memory and accuracy, beside torch."""
    found = newest("engines")
    if not found:
        return "Not measured yet."
    eager = next(row for row in found["rows"] if row["engine"] == "torch eager")

    def study(row: dict[str, Any], overlap: str) -> str:
        seconds = row["study_s"][overlap]
        spread = f"{seconds['p50']:.1f}" if "p95" not in seconds else f"{seconds['p50']:.1f} ({seconds['p99']:.1f})"
        return f"{spread}, projected" if "projected_from" in seconds else spread

    def accuracy(row: dict[str, Any], figure: str, form: str) -> str:
        values = [figures[figure] for figures in row["accuracy"].values() if figure in figures]
        return " / ".join("same" if value >= PERFECT_DB else format(value, form) for value in values)

    rows = [
        [
            f"{row['engine']} {row['precision']}",
            f"{row['tile_s']['p50']:.2f}, {row['tile_s']['p95']:.2f}, {row['tile_s']['p99']:.2f}",
            f"{eager['tile_s']['p50'] / row['tile_s']['p50']:.1f} x",
            *(study(row, overlap) for overlap in ("0.25", "0.5")),
            row["peak_mib"],
            accuracy(row, "label_agreement", ".2%"),
            accuracy(row, "fused_psnr_db", ".0f"),
            accuracy(row, "lesion_dice", ".3f"),
        ]
        for row in found["rows"]
    ]
    header = [
        "engine",
        "a tile: p50, p95, p99 (s)",
        "faster",
        "a study, overlap 0.25 (s)",
        "overlap 0.5 (s)",
        "peak (MiB)",
        "same label",
        "fused PSNR (dB)",
        "lesion Dice to fp32",
    ]
    machine, counts = found["machine"], found["rows"][0]
    detail = next((row["detail"] for row in found["rows"] if row["detail"]), "")
    missing = "".join(f"\n- {row['engine']} {row['precision']}: {row['reason']}" for row in found["unavailable"])
    note = (
        f"{found['bundle']['name']} {found['bundle']['version']}, tile {' x '.join(map(str, found['tile']))}, with all "
        f"{machine['cores']} cores busy: {counts['tile_s']['n']} tiles of each in turns; {found['study']}, arrays in, "
        f"arrays out, median of {counts['study_s']['0.25']['n']} runs (slowest in brackets), and for torch MONAI's "
        f"{eager['study_s']['0.25']['tiles']} and {eager['study_s']['0.5']['tiles']} windows times its median tile, "
        f"blending left out, beside our {counts['study_s']['0.25']['tiles']} and {counts['study_s']['0.5']['tiles']}. "
        f"Memory is that of a process that reads and runs the study; for torch, of one tile. Accuracy is against the "
        f"fp32 engine on patient19 / patient07, foreground of either. int8: {detail or 'not in this bundle'}. "
        f"{machine['cpu']}, {found['date']}."
    )
    chosen = f"\n\n`auto` here: {found['auto']}"
    return table(header, rows) + "\n\n" + note + chosen + (f"\n\nNot run here:\n{missing}" if missing else "")


def paper_table() -> str:
    """The paper preset, fusion only, beside torch eager and MONAI."""
    found = newest("paper")
    if not found:
        return "Not measured yet."
    peer, machine = found["peer"], found["machine"]
    sides = " x ".join(map(str, found["tile"]))
    rows: list[list[object]] = [
        [
            f"openvino {row['precision']}, {sides}",
            row["tiles"],
            f"{row['study_s']['p50']:.1f} ({row['study_s']['p99']:.1f})",
            f"{row['ratio']:.0f} x",
            row["peak_mib"],
            "same" if row["fused_psnr_db"] >= PERFECT_DB else f"{row['fused_psnr_db']:.0f}",
            f"{row['torch_db']:.0f}",
        ]
        for row in found["rows"]
    ]
    theirs = f"torch eager + MONAI, {' x '.join(map(str, peer['tile']))}"
    rows.append([theirs, peer["tiles"], f"{peer['projected_s']:.0f}, projected from {peer['tile_s']['n']} tiles", "1"])
    rows[-1] += ["", "", ""]
    header = ["", "tiles", "a study (s)", "faster", "peak (MiB)", "fused PSNR to fp32 (dB)", "to torch's tile (dB)"]
    note = (
        f"Paper preset without a head, random weights, {found['study']}, overlap {found['overlap']}, arrays in, arrays "
        f"out, median of {found['rows'][0]['study_s']['n']} runs (slowest in brackets) in turns with torch's tiles. "
        f"{machine['cpu']}, {machine['cores']} cores, {found['date']}."
    )
    missing = "".join(f"\n- {row['engine']} {row['precision']}: {row['reason']}" for row in found["unavailable"])
    return table(header, rows) + "\n\n" + note + (f"\n\nNot reported:\n{missing}" if missing else "")


def plans_table() -> str:
    """Plans of TensorRT-RTX engines by network, precision and GPU."""
    found = newest("plans")
    if not found:
        return "Not measured yet."
    header = ["network", "precision", "SM", "kernels", "attentions fused", "PReLU alone", "convolutions"]
    header += ["modelled traffic", "engine", "build"]
    rows = [
        [
            row["model"],
            row["precision"],
            " ".join(map(str, row["targets"])),
            row["kernels"],
            f"{row['fused_attentions']} of {row['attentions']}",
            row["lone_prelus"],
            ", ".join(f"{count} {name}" for name, count in sorted(row["convolutions"].items())),
            f"{row['traffic'] / 1e9:.2f} GB",
            f"{row['engine_bytes'] / 1e6:.1f} MB",
            f"{row['build_s']:.1f} s",
        ]
        for row in found["engines"]
    ]
    note = f"{found['runtime']}, without a GPU; builds on {found['machine']['cpu']}, {found['date']}."
    return table(header, rows) + "\n\n" + note


def rewrites_table() -> str:
    """What each rewrite of the graph is worth in the plan."""
    found = newest("plans")
    if not found.get("rewrites"):
        return "Not measured yet."
    header = ["step, each exact", "kernels", "attentions fused", "PReLU alone", "modelled traffic", "engine"]
    names = {"paper": "`paper`, tile 32x128x128, no head", "edge": "`edge`, tile 96x112x96"}
    parts = []
    for preset, worths in found["rewrites"].items():
        rows = [
            [
                worth["step"],
                worth["kernels"],
                f"{worth['fused']} of {worth['attentions']}",
                worth["lone_prelus"],
                f"{worth['traffic'] / 1e9:.2f} GB",
                f"{worth['size'] / 1e6:.0f} MB",
            ]
            for worth in worths
        ]
        parts.append(f"{names[preset]}:\n\n{table(header, rows)}")
    return "\n\n".join(parts) + f"\n\n{found['runtime']}, fp16, SM 86, {found['date']}."


def quantise_table() -> str:
    """Clipping methods, every layer in int8, and what is released."""
    found = newest("quantise")
    if not found:
        return "Not measured yet."
    head = ["every layer in int8, clipped by", "equalised", "same label", "lesion Dice to fp32", "fused (dB)"]
    rows = [[row["method"], "yes" if row["equalised"] else "no", *_int8_cells(row)] for row in found["methods"]]
    if "fall_back" in found:
        fallen = found["fall_back"]
        rows.append([f"{len(fallen['kept_float'])} groups fallen back", "", *_int8_cells(fallen)])
    rows.append([f"as released: {len(found['released']['kept_float'])} in float", "", *_int8_cells(found["released"])])
    times, fp32 = found["tile_cpu_s"], found["tile_cpu_s"]["fp32"]
    spent = ", ".join(f"{name} {value:.2f} ({fp32 / value:.2f} times)" for name, value in times.items())
    note = (
        f"Calibrated on {found['calibration_tiles']} tiles, compared with fp32 on {found['compared_tiles']} others; "
        f"peak memory {found['calibration_peak_gib']:.1f} GiB. CPU seconds of a tile on one thread: {spent}. "
        f"{found['machine']['cpu']}, {found['date']}."
    )
    return table(head, rows) + "\n\n" + note


def groups_table() -> str:
    """What each group of layers costs alone in int8, the costliest first."""
    found = newest("quantise")
    if not found or "groups" not in found:
        return "Not measured yet."
    kept = set(found["released"]["kept_float"])
    rows = [
        [row["group"], row["layers"], f"{row['strain']:.2f}", *_int8_cells(row), "yes" if row["group"] in kept else ""]
        for row in found["groups"]
    ]
    head = [
        "group alone in int8",
        "layers",
        "strain",
        "same label",
        "lesion Dice to fp32",
        "fused (dB)",
        "kept in float",
    ]
    return table(head, rows)


def _int8_cells(row: dict[str, Any]) -> list[str]:
    dice = f"{row['lesion_dice_to_fp32']:.4f}" if "lesion_dice_to_fp32" in row else ""
    agreement = f"{100 * row['label_agreement']:.2f} %" if "label_agreement" in row else ""
    return [agreement, dice, f"{row['fused_psnr_db']:.1f}"]


TABLES: dict[str, Callable[[], str]] = {
    "quantise": quantise_table,
    "quantise_groups": groups_table,
    "pipeline": pipeline_table,
    "accuracy": accuracy_table,
    "kernels": kernels_table,
    "pareto": pareto_table,
    "robustness": robustness_table,
    "fusion": fusion_table,
    "alignment": alignment_table,
    "memory": memory_table,
    "engines": engines_table,
    "paper": paper_table,
    "peers": peers_table,
    "plans": plans_table,
    "rewrites": rewrites_table,
}


def render(text: str) -> str:
    """Return a document with every table made anew."""

    def fill(match: re.Match[str]) -> str:
        return f"{match[1]}\n{TABLES[match[2]]()}\n{match[3]}"

    return re.sub(r"(<!-- table: (\w+) -->).*?(<!-- end -->)", fill, text, flags=re.S)


def main(arguments: list[str]) -> int:
    """Rewrite or check a document."""
    document = Path(arguments[0])
    text = document.read_text()
    made = render(text)
    if "--check" in arguments:
        return int(made != text)
    document.write_text(made)
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
