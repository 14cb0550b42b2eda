"""The benchmark as one HTML page that needs nothing but itself: plots drawn inside, no script, no address to ask.

Owns what is shown in which order and in which words; `templates/bench.html.j2` owns the looks.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import lru_cache
from pathlib import Path
from typing import NamedTuple

import jinja2

from rmr_sdk.bench import plots
from rmr_sdk.bench.accuracy import accuracy_values
from rmr_sdk.bench.results import BenchResult, Configuration, Roofline
from rmr_sdk.bench.svg import short
from rmr_sdk.manifest import INTENDED_USE
from rmr_sdk.page_template import load_template

WIDE, HALF, NARROW = 950.0, 455.0, 352.0
"""Widths of the plots in pixels: across the page, beside another one, and on a small screen."""


class Drawing(NamedTuple):
    """A plot for large screens and one for small ones, both SVG."""

    wide: str
    narrow: str


def render_html(result: BenchResult) -> str:
    """Return the page; every string is escaped, wherever it came from."""
    accuracy = accuracy_values(result)
    found = result.roofline
    return _template().render(
        result=result,
        colours={each.label: plots.colour_of(result, each.label) for each in result.configurations},
        waterfalls=[(each, _waterfall(result, each)) for each in result.configurations],
        studies=_drawing(lambda width: plots.distribution(result, "study", width), WIDE),
        tiles=_drawing(lambda width: plots.distribution(result, "tile", width), WIDE),
        above_roof=found is not None and above_roof(found),
        roofline=None if found is None else _drawing(lambda width: plots.roofline(result, found, width), HALF),
        pareto=None
        if accuracy is None
        else _drawing(lambda width: plots.pareto(result, accuracy[0], accuracy[1], width), HALF),
        accuracy=accuracy,
        tiles_of=lambda each: f"{each.tiles} tiles" + (f", {each.tiles_skipped} skipped" if each.tiles_skipped else ""),
        stages=plots.ordered_stages,
        machine=list(_machine_rows(result)),
        intended_use=INTENDED_USE,
    )


def above_roof(roofline: Roofline) -> bool:
    """Tell whether a part did more than the roof of its precision allows, which only a disturbed roof explains."""
    roofs = {roof.precision: roof.gflop_per_s for roof in roofline.roofs}
    return any(point.gflop_per_s > roofs.get(point.precision, float("inf")) for point in roofline.points)


def _waterfall(result: BenchResult, each: Configuration) -> Drawing:
    colour = plots.colour_of(result, each.label)
    wide = HALF if len(result.configurations) > 1 else WIDE
    return _drawing(lambda width: plots.waterfall(each, width, colour), wide)


def _drawing(draw: Callable[[float], str], wide: float) -> Drawing:
    return Drawing(draw(wide), draw(NARROW))


def _machine_rows(result: BenchResult) -> Iterator[tuple[str, str]]:
    machine, seen = result.machine, result.conditions
    memory = f", {machine.memory_gib:g} GiB" if machine.memory_gib else ""
    yield "CPU", f"{machine.cpu}, {machine.usable_cores} usable of {machine.logical_cores} logical cores{memory}"
    if machine.instructions:
        yield "Instructions", ", ".join(machine.instructions)
    if machine.board:
        yield "Board", machine.board
    for gpu in machine.gpus:
        yield "GPU", f"{gpu.name}, {gpu.memory_mib:.0f} MiB, driver {gpu.driver}"
    yield "System", f"{machine.system}, {machine.architecture}"
    yield "Versions", ", ".join(f"{name} {version}" for name, version in machine.versions.items())
    clocks = [f"{seen.cpu_mhz:.0f} MHz"] if seen.cpu_mhz else []
    clocks += [f"of at most {seen.cpu_max_mhz:.0f} MHz"] if seen.cpu_max_mhz else []
    clocks += [f'governor "{seen.governor}"'] if seen.governor else []
    yield "CPU clock", " ".join(clocks) or "not told by this machine"
    yield "Power mode", seen.power_mode or "not told by this machine"
    yield "Slowed down", _throttling(result)
    yield (
        "Others",
        (
            "not told by this machine"
            if seen.others_share is None
            else f"{seen.others_share:.1%} of the CPU time went to other processes, "
            f"{seen.stolen_share or 0:.1%} to the hypervisor"
        ),
    )


def _throttling(result: BenchResult) -> str:
    seen = result.conditions
    known = [f"{seen.throttle_events} times"] if seen.throttle_events is not None else []
    known += [f"GPU: {', '.join(seen.gpu_limits)}"] if seen.gpu_limits else []
    known += [f"hottest {seen.hottest_celsius:g} degrees Celsius"] if seen.hottest_celsius is not None else []
    return ", ".join(known) or "not told by this machine"


@lru_cache
def _template() -> jinja2.Template:
    return load_template(Path(__file__).parent / "templates" / "bench.html.j2", short=short)
