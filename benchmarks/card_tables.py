"""Tables that only the model card shows; those of the README are in `tables`."""

from __future__ import annotations

from typing import Any

from result_tables import newest, table


def stability_table() -> str:
    """How the lesion Dice of each fold swings over its last checkpoints."""
    found = newest("stability")
    if not found:
        return "Not measured yet."
    header = ["study", "checkpoints", "steps", "lowest Dice", "mean", "highest", "spread"]
    rows = [
        [
            run["study"],
            len(run["checkpoints"]),
            f"{run['checkpoints'][0]['step']} to {run['checkpoints'][-1]['step']}",
            *(f"{run[key]:.3f}" for key in ("lowest", "mean", "highest", "spread")),
        ]
        for run in found["runs"]
    ]
    source = f"Each by its fold, which has not seen it, before calibration, {found['precision']} ({found['date']})."
    return f"{table(header, rows)}\n\n{source}"


def sizes_table() -> str:
    """Lesions found and false ones, by how large they are."""
    found = newest("accuracy")
    if not found or "by_size" not in found["studies"][0]:
        return "Not measured yet."
    header = ["study", "lesions of (mm3)", "in the consensus", "found", "false"]
    rows = []
    for study in found["studies"]:
        for row in study["by_size"]:
            upper = (
                f"from {row['from_mm3']:g}" if row["to_mm3"] is None else f"{row['from_mm3']:g} to {row['to_mm3']:g}"
            )
            rows.append([study["study"], upper, row["lesions"], row["touched"], row["false_lesions"]])
    return table(header, rows) + f"\n\nn = {len(found['studies'])} studies ({found['date']})."


def confidence_table() -> str:
    """Figures of each study when only what has some probability is kept."""
    found = newest("confidence")
    if not found:
        return "Not measured yet."
    header = ["study", "kept", "lesion Dice", "sensitivity", "false lesions", "volume found / true (ml)"]
    rows = [
        [
            row["study"],
            _kept(row),
            f"{row['dice']:.2f}",
            f"{row['sensitivity']:.2f}",
            row["false_lesions"],
            f"{row['predicted_ml']:.1f} / {row['truth_ml']:.1f}",
        ]
        for row in found["rows"]
    ]
    studies = len({row["study"] for row in found["rows"]})
    return table(header, rows) + f"\n\nn = {studies} studies, {found['note']}, {found['precision']} ({found['date']})."


def _kept(row: dict[str, Any]) -> str:
    if row["kind"] == "released":
        voxels = f"voxels from {row['level']:.2f}" if row["level"] else "all voxels at its load"
        size = f" and {row['least_mm3']:g} mm3" if row.get("least_mm3") else ""
        return f"as released: {voxels}, lesions from {row['least_lesion']:.2f}{size}"
    names = {
        "all": "all",
        "voxel": "voxels from {:g}",
        "lesion": "lesions of a mean probability from {:g}",
        "size": "lesions from {:g} mm3",
    }
    return names[row["kind"]].format(row["level"])


def heads_table() -> str:
    """Lesions outside the brain, on scans with their heads on."""
    found = newest("heads")
    if not found:
        return "Not measured yet."
    header = ["scan", "voxels (mm)", "lesions", "lesion (ml)", "outside the brain", "outside (ml)", "brain (ml)"]
    rows = [
        [
            row["study"],
            " x ".join(f"{mm:g}" for mm in row["voxels_mm"]),
            row["lesions"],
            f"{row['lesion_ml']:.1f}",
            row["outside"],
            f"{row['outside_ml']:.2f}",
            row["brain_ml"],
        ]
        for row in found["studies"]
    ]
    note = (
        f"n = {len(rows)} scans, none of them in any training, {found['bundle']} in {found['precision']} "
        f"({found['date']}). There is no ground truth and no brain mask for them. The brain is the largest piece of "
        f"what is labelled grey or white matter or lesion, cut where it is thinner than {2 * found['cut_mm']:g} mm; a "
        f"lesion is outside when it is more than {found['near_mm']:g} mm away from it."
    )
    return table(header, rows) + "\n\n" + note


def claims_table() -> str:
    """The verdict on each claim of the method."""
    found = newest("claims")
    if not found:
        return "Not measured yet."
    names = {
        "a": "fusion and segmentation help each other",
        "b": "two-level constraints withstand degradation",
        "c": "any head gains",
    }
    return table(["claim of the method", "verdict"], [[names[key], each] for key, each in found["claims"].items()])
