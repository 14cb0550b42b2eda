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


def kernels_table() -> str:
    """Extraction and blending beside other libraries."""
    found = newest("kernels")
    return found["markdown"] if found else "Not measured yet."


TABLES: dict[str, Callable[[], str]] = {
    "pipeline": pipeline_table,
    "accuracy": accuracy_table,
    "kernels": kernels_table,
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
