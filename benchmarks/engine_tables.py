"""Tables of engines: their speed and precision, their plans, and what makes int8."""

from __future__ import annotations

from typing import Any

from result_tables import newest, table

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
