"""Tables and figure of docs/claims.md, made from the newest result.

python benchmarks/bench_claims.py --render
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from pathlib import Path
from statistics import mean, stdev
from typing import Any

import tables
from result_tables import newest, table

DOCUMENT = Path(__file__).parents[2] / "docs" / "claims.md"
FIGURE = DOCUMENT.parent / "images" / "claims.png"

NAMES = {
    "a": "(a) fusion and segmentation help each other",
    "b": "(b) two-level constraints withstand degradation",
    "c": "(c) any head gains",
}
_CLASSES = ("csf", "grey_matter", "white_matter", "lesion")

Result = dict[str, Any]


def render(found: Result, document: Path = DOCUMENT, figure: Path = FIGURE) -> None:
    """Rewrite the tables of the document, and the figure, from a result."""
    makers: dict[str, Callable[[Result], str]] = {
        "claims_verdicts": verdict_table,
        "claims_comparisons": comparison_table,
        "claims_arms": arm_table,
        "claims_overlap": overlap_table,
        "claims_degraded": degraded_table,
        "claims_fusion": fusion_table,
        "claims_reconstruction": reconstruction_note,
        "claims_longer": longer_table,
        "claims_setting": setting,
    }
    for name, make in makers.items():
        tables.TABLES[name] = lambda make=make: make(found)  # type: ignore[misc]
    document.write_text(tables.render(document.read_text()))
    draw(found, figure)


def verdict_table(found: Result) -> str:
    """One line a claim."""
    parts = {name: [c for c in found["comparisons"] if c["claim"] == name and c["decides"]] for name in found["claims"]}
    rows = [
        [NAMES[name], f"**{verdict}**", "; ".join(f"{_short(c)}: {c['verdict']}" for c in parts[name])]
        for name, verdict in found["claims"].items()
    ]
    return table(["claim", "verdict", "its parts"], rows)


def comparison_table(found: Result) -> str:
    """Every comparison, with the difference of each seed."""
    rows = [
        [
            c["claim"] if c["decides"] else f"({c['claim']})",
            c["what"],
            ", ".join(f"{d:+.3f}" for d in c["differences"]),
            f"{c['mean']:+.3f}",
            "" if c["standard_error"] is None else f"{c['standard_error']:.3f}",
            c["verdict"],
        ]
        for c in found["comparisons"]
    ]
    return table(["claim", "difference", "by seed", "mean", "standard error", "rule says"], rows)


def arm_table(found: Result) -> str:
    """What each arm is, costs and takes."""
    rows = [
        [
            arm["name"],
            arm["about"],
            arm["steps"],
            f"{arm['parameters'] / 1e6:.2f}",
            f"{arm['kmac_per_voxel']:.1f}",
            f"{max(run['cpu_seconds'] for run in _runs(found, arm['name'])):.0f}",
        ]
        for arm in found["arms"]
    ]
    return table(["arm", "what", "steps", "parameters (M)", "kMAC a voxel", "longest run (s of CPU time)"], rows)


def overlap_table(found: Result) -> str:
    """Dice of every arm that segments, synthetic and real."""
    studies = sorted({name for run in found["runs"] for name in run.get("figures", {}).get("real", {})})
    rows = []
    for arm in found["arms"]:
        runs = [run["figures"] for run in _runs(found, arm["name"]) if "dice" in run.get("figures", {})]
        if runs:
            cells = [_spread([run["dice"][name] for run in runs]) for name in _CLASSES]
            rows.append([arm["name"], *cells, *(_spread([run["real"][name] for run in runs]) for name in studies)])
    header = ["arm", "CSF", "grey matter", "white matter", "lesion"]
    return table([*header, *(f"lesion, {name}" for name in studies)], rows)


def degraded_table(found: Result) -> str:
    """Dice under each degradation, and how far the fused image changes."""
    rows = []
    for arm in found["arms"]:
        runs = [run["figures"] for run in _runs(found, arm["name"]) if "degraded" in run.get("figures", {})]
        for name in runs[0]["degraded"] if runs else ():
            each = [run["degraded"][name] for run in runs]
            change = [e["image_change"] for e in each if "image_change" in e]
            rows.append(
                [
                    arm["name"],
                    name,
                    *(_spread([e["dice"][of] for e in each]) for of in ("lesion", "tissues")),
                    *(
                        _spread([r["dice"][of] - e["dice"][of] for r, e in zip(runs, each, strict=True)])
                        for of in ("lesion", "tissues")
                    ),
                    _spread(change) if change else "",
                ]
            )
    header = ["arm", "degradation", "lesion Dice", "tissue Dice", "drop, lesion", "drop, tissue", "change of image"]
    return table(header, rows)


def fusion_table(found: Result) -> str:
    """Figures of fusion of the arms whose fused image is trained."""
    rows, header = [], []
    for arm in found["arms"]:
        runs = [run["figures"]["fusion"] for run in _runs(found, arm["name"]) if "fusion" in run.get("figures", {})]
        if runs:
            header = list(runs[0])
            rows.append([arm["name"], *(_spread([run[name] for run in runs]) for name in header)])
    return table(["arm", *(name.replace("_", " ") for name in header)], rows)


def reconstruction_note(found: Result) -> str:
    """How far stage 1 has come: one sentence an autoencoder."""
    lines = []
    for arm in found["arms"]:
        runs = [run["figures"]["reconstruction"] for run in _runs(found, arm["name"]) if arm["kind"] == "autoencoder"]
        if runs:
            t1w, flair = (_spread([run[name] for run in runs]) for name in ("ssim_t1w", "ssim_flair"))
            lines.append(
                f"- `{arm['name']}` gives clean contrasts back with an SSIM of {t1w} (T1) and {flair} (FLAIR)."
            )
    return "\n".join(lines)


def longer_table(found: Result) -> str:
    """The same seed with more steps, where such a result is there: which way the arms are going."""
    longer = newest("claims-longer")
    rows = []
    for result in (found, longer) if longer else ():
        for arm in (arm["name"] for arm in longer["arms"] if arm["kind"] != "autoencoder"):
            runs = [run for run in _runs(result, arm) if run["seed"] < longer["seeds"]]
            cells = [_spread([run["figures"]["dice"][name] for run in runs]) for name in _CLASSES]
            rows.append([result["budget"]["steps"], arm, *cells])
    return table(["steps a stage", "arm", "CSF", "grey matter", "white matter", "lesion"], rows)


def setting(found: Result) -> str:
    """One paragraph on what was run, where."""
    budget, machine = found["budget"], found["machine"]
    patches = f"{budget['batch']} patch{'es' * (budget['batch'] > 1)} of {budget['side']}^3"
    return (
        f"{found['seeds']} seeds, {budget['autoencoder_steps']} steps of stage 1 and {budget['steps']} of stage 2, "
        f"{patches} a step out of {budget['patches']}; "
        f"{budget['validation']} patches of the lesion donors {found['held_out_donors']} to measure on. "
        f"{machine['cpu']}, {found['device']}, {found['threads']} thread"
        f"{'s' * (found['threads'] > 1)}, torch {machine['libraries']['torch']}, {found['date']}."
    )


def draw(found: Result, file: Path) -> None:
    """Draw the paired differences of every comparison that a verdict rests on."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    groups = {
        name: [c for c in found["comparisons"] if c["claim"] == name and c["decides"]] for name in found["claims"]
    }
    sizes = [len(group) for group in groups.values()]
    figure, axes = pyplot.subplots(
        len(groups), 1, figsize=(8, 1.6 + 0.55 * sum(sizes)), height_ratios=sizes, layout="constrained", squeeze=False
    )
    for axis, (name, group) in zip(axes[:, 0], groups.items(), strict=True):
        for place, comparison in enumerate(reversed(group)):
            error = 2 * (comparison["standard_error"] or 0)
            axis.errorbar(comparison["mean"], place, xerr=error, fmt="D", color="black", capsize=4, markersize=5)
            axis.scatter(comparison["differences"], [place + 0.18] * len(comparison["differences"]), s=18, alpha=0.7)
        axis.axvline(0, color="grey", linewidth=0.8)
        axis.set_yticks(range(len(group)), [_short(c) for c in reversed(group)])
        axis.set_ylim(-0.6, len(group) - 0.3)
        axis.set_title(f"{NAMES[name]}: {found['claims'][name]}", fontsize=10, loc="left")
    axes[-1, 0].set_xlabel(
        "difference in the direction of the claim\n(dots: seeds; diamond: mean; bar: two standard errors)"
    )
    file.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(file, dpi=110, metadata={"Software": None})
    pyplot.close(figure)


def _short(comparison: Result) -> str:
    return str(comparison["what"]).split(":")[0]


def _runs(found: Result, arm: str) -> list[Result]:
    return [run for run in found["runs"] if run["arm"] == arm]


def _spread(values: Iterable[float]) -> str:
    """Return mean and standard deviation over seeds."""
    each = list(values)
    return f"{mean(each):.3f}" + (f" ± {stdev(each):.3f}" if len(each) > 1 else "")
