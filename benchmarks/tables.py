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
                f"{found['peak_rss']['ours_mib' if ours else 'peer_mib']}" if name != "bf16" else "",
                f"{100 * check['label_agreement']:.2f} %" if check else "",
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


TABLES: dict[str, Callable[[], str]] = {
    "pipeline": pipeline_table,
    "accuracy": accuracy_table,
    "kernels": kernels_table,
    "pareto": pareto_table,
    "robustness": robustness_table,
    "fusion": fusion_table,
    "alignment": alignment_table,
    "memory": memory_table,
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
