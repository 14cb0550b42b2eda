"""Tables of what runs how fast, in how much memory, and beside whom."""

from __future__ import annotations

from typing import Any

from result_tables import newest, table


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
                f"{seconds['network']:.1f}" if ours else "",
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
        "What ours does besides the network, lesions measured and checks made, takes "
        f"{100 * found['non_network_share']:.1f} % of the fp32 run; reading both "
        f"files {found['read_s']:.1f} s, saving all outputs {found['save_s']:.1f} s."
    )
    header = [
        "arrays in, arrays out",
        "seconds",
        "of it the network",
        "faster",
        "peak memory (MiB)",
        "same label as the peer",
        "a process' start to its first tile (s)",
    ]
    return table(header, rows) + "\n\n" + note


def kernels_table() -> str:
    """Extraction and blending beside other libraries."""
    found = newest("kernels")
    return found["markdown"] if found else "Not measured yet."


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
