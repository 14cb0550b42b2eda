"""Tables of how good segmentation, fusion and alignment are, and what a network of another size would give."""

from __future__ import annotations

from typing import Any

from result_tables import newest, table


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
    limits: dict[tuple[str, int], list[float]] = {}
    for row in found.get("limits", ()):
        limits.setdefault((row["condition"], row["strength"]), []).append(row["dice"])
    for name in damage:
        rows.append([name, *(cell((name, strength)) for strength in strengths)])
        if (name, strengths[-1]) in limits:
            left = (" / ".join(f"{value:.2f}" for value in limits[name, strength]) for strength in strengths)
            rows.append([f"the consensus after {name}", *left])
    legend = "; ".join(f"{name}: {about[name, strengths[-1]]}" for name in damage)
    note = (
        f"Lesion Dice of {' / '.join(studies)} and the largest fall; n = {found['n']} studies, {found['note']} "
        f"({found['date']}). In the last column {legend}."
        + (
            " The consensus after a loss of resolution: Dice of the mask itself, damaged likewise and cut at the best "
            "level."
            if limits
            else ""
        )
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
    patches = f"{recipe['batch']} such patches of {recipe['side']}^3"
    note = (
        f"Dice over {recipe['validation_patches']} synthetic patches of held-out lesion donors, most of them near a "
        f"lesion, after {recipe['steps']} steps of {patches} for every size, one seed: all of them are far from done. "
        f"Seconds of {found['study']}, arrays in, arrays out, {found['inference_threads']} threads, median of "
        f"{found['repeats']} interleaved runs; training on {found['training_threads']} thread, a sample takes "
        f"{found['sample_cpu_s']:.2f} s of CPU time to make. {machine['cpu']}, {machine['cores']} cores, "
        f"{found['date']}."
    )
    return table(header, rows) + "\n\n" + note


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


def _seconds(found: dict[str, float], name: str) -> str:
    return f"{found[name]:.1f}" if name in found else ""


def gains_table() -> str:
    """What each departure from the public code changes on each study, with the weights as they are."""
    found = newest("gains")
    if not found:
        return "Not measured yet."
    header = ["departure", "study", "variant", "lesion Dice", "sensitivity", "false lesions", "fused image"]
    rows = [
        [
            row["gain"],
            row["study"],
            row["variant"],
            f"{row['dice']:.3f}",
            f"{row['sensitivity']:.2f}",
            row["false_lesions"],
            _image_cell(row),
        ]
        for gain in dict.fromkeys(row["gain"] for row in found["rows"])
        for row in found["rows"]
        if row["gain"] == gain
    ]
    studies = len({row["study"] for row in found["rows"]})
    return table(header, rows) + f"\n\nn = {studies} studies, torch, {found['precision']} ({found['date']})."


def _image_cell(row: dict[str, Any]) -> str:
    return f"seam {row['seam']:.2f}" if "seam" in row else ""


def candidates_table() -> str:
    """Lesion Dice of weights that were compared on synthetic patches, by load and damage."""
    found = newest("candidates")
    if not found:
        return "Not measured yet."
    damage = list(found["rows"][0]["dice"]["all"])
    rows = [
        [row["candidate"], f"{row['mean']:.3f}"]
        + [" / ".join(f"{row['dice'][load][kind]:.2f}" for load in ("all", "few")) for kind in damage]
        for row in found["rows"]
    ]
    note = (
        f"Lesion Dice with all lesions / with few small ones, each group over {found['patches']} synthetic patches of "
        f"{found['side']}^3 of the held-out donors, at the offset that suits a candidate best ({found['date']})."
    )
    return table(["weights", "mean", *damage], rows) + "\n\n" + note


def stretch_table() -> str:
    """Lesion figures on synthetic heads by how far flat contrasts are stretched."""
    found = newest("stretch")
    if not found:
        return "Not measured yet."
    header = ["fold", "contrasts", "heads", *(_bound_name(bound) for bound in _distinct(found["rows"], "most_median"))]
    rows = []
    for fold in _distinct(found["rows"], "fold"):
        for damage in _distinct(found["rows"], "damage"):
            group = [row for row in found["rows"] if (row["fold"], row["damage"]) == (fold, damage)]
            name = "low" if damage == "contrast" else damage
            cells = [f"{row['dice']:.3f} / {row['f1']:.3f} ({row['stretched']})" for row in group]
            rows.append([fold, name, group[0]["heads"], *cells])
    note = (
        "Lesion Dice / lesion-wise F1 and on how many heads a contrast was stretched, by the largest median that is "
        "left; whole synthetic heads of the held-out donors with all and with few lesions; low: to the power of 0.4 "
        f"({found['date']})."
    )
    return table(header, rows) + "\n\n" + note


def _bound_name(bound: float) -> str:
    return "not stretched" if bound >= 1 else f"{bound:g}"


def _distinct(rows: list[dict[str, Any]], key: str) -> list[Any]:
    return list(dict.fromkeys(row[key] for row in rows))


def looks_table() -> str:
    """How bright and how dark lesions are, on real studies and as they are synthesised."""
    found = newest("looks")
    if not found:
        return "Not measured yet."
    header = ["lesions of", "size (mm3)", "lesions", "brighter on FLAIR", "darker on T1"]
    at = [found["quantiles"].index(quantile) for quantile in (0.05, 0.5, 0.95)]

    def cell(values: list[float]) -> str:
        return " / ".join(f"{values[i]:.2f}" for i in at)

    rows = []
    for row in found["rows"]:
        size = f"{row['from_mm3']} to {row['to_mm3']}" if row["to_mm3"] else f"from {row['from_mm3']}"
        rows.append([row["source"], size, row["lesions"], cell(row["brightness"]), cell(row["darkness"])])
    studies = len({row["source"] for row in found["rows"]} - {"synthetic"})
    return table(header, rows) + f"\n\nn = {studies} studies, by their consensus ({found['date']})."
