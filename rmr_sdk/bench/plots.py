"""The plots of a benchmark's page: waterfall, distribution, roofline and Pareto, each for a given width."""

from __future__ import annotations

from collections.abc import Sequence

from rmr_sdk.bench.results import BenchResult, Configuration, Distribution, Roofline
from rmr_sdk.bench.svg import COLOURS, FAINT, FONT, INK, QUIET, Canvas, Scale, short, text_width

STAGES = ("prepare", "extract", "network", "blend", "measure", "check", "other")
_SHAPES = {"network": "circle", "blend": "square", "extract": "triangle"}
_ROW = 24


def colour_of(result: BenchResult, label: str) -> str:
    """Return the colour of a configuration in every plot."""
    labels = [each.label for each in result.configurations]
    return COLOURS[labels.index(label) % len(COLOURS)]


def ordered_stages(configuration: Configuration) -> list[str]:
    """Return the stages in the order in which a run comes to them; those that are not known go last."""
    known = [stage for stage in STAGES if stage in configuration.stages_s]
    return known + [stage for stage in configuration.stages_s if stage not in known]


def waterfall(configuration: Configuration, width: float, colour: str) -> str:
    """Draw the stages of a run one after the other, medians."""
    stages = ordered_stages(configuration)
    seconds = {stage: configuration.stages_s[stage].p50_s for stage in stages}
    total = sum(seconds.values()) or 1.0
    left = 62.0
    canvas = Canvas(width, _ROW * len(stages) + 26, f"Stages of {configuration.label}")
    scale = Scale(0, total, left, width - 8)
    _bottom_axis(canvas, scale, 4, _ROW * len(stages) + 4, "")
    at = 0.0
    for row, stage in enumerate(stages):
        y = row * _ROW + 6
        canvas.text(left - 8, y + 14, stage, "end", QUIET)
        start, end = scale(at), scale(at + seconds[stage])
        canvas.rectangle(start, y + 2, end - start, _ROW - 8, colour)
        label = f"{short(seconds[stage])} s, {100 * seconds[stage] / total:.1f} %"
        _bar_label(canvas, label, start, end, y + 14, left, width - 8)
        at += seconds[stage]
    return canvas.render()


def _bar_label(canvas: Canvas, label: str, start: float, end: float, y: float, left: float, right: float) -> None:
    """Write beside a bar, or into it where that is the only place."""
    needed = text_width(label) + 8
    if end + needed <= right:
        canvas.text(end + 6, y, label)
    elif start - needed >= left:
        canvas.text(start - 6, y, label, "end")
    else:
        canvas.text((start + end) / 2, y, label, "middle", "#fff")


def distribution(result: BenchResult, figure: str, width: float) -> str:
    """Draw every sample of a figure, its median and its 95th percentile.

    Args:
        result: What was measured.
        figure: "study" or "tile".
        width: Of the picture.
    """
    rows = [(each.label, each.study_s if figure == "study" else each.tile_s) for each in result.configurations]
    row_height = 44
    canvas = Canvas(width, row_height * len(rows) + 42, f"Seconds of each {figure}, every sample")
    low = min(samples.min_s for _, samples in rows)
    high = max(samples.max_s for _, samples in rows)
    margin = max(0.06 * (high - low), 0.02 * high, 1e-6)
    scale = Scale(max(0.0, low - margin), high + margin, 10, width - 14)
    _bottom_axis(canvas, scale, 4, row_height * len(rows) + 4, "seconds")
    for index, (label, samples) in enumerate(rows):
        _strip(canvas, scale, label, samples, index * row_height + 6, colour_of(result, label))
    return canvas.render()


def _strip(canvas: Canvas, scale: Scale, label: str, samples: Distribution, y: float, colour: str) -> None:
    canvas.text(12, y + 10, f"{label}: p50 {short(samples.p50_s)} s, n = {samples.samples}", colour=QUIET)
    middle = y + 27
    for index, value in enumerate(samples.values_s):
        canvas.mark(scale(value), middle + 3.5 * ((index * 2) % 5 - 2) / 2, colour, radius=3.6, opacity=0.65)
    canvas.line(scale(samples.p50_s), middle - 10, scale(samples.p50_s), middle + 10, INK, 2)
    if samples.p95_s is not None:
        canvas.line(scale(samples.p95_s), middle - 10, scale(samples.p95_s), middle + 10, INK, 1.5, "3 2")


def roofline(result: BenchResult, found: Roofline, width: float) -> str:
    """Draw the roofs of the machine, and the parts of the pipeline below them."""
    height, left, bottom = 320.0, 52.0, 278.0
    canvas = Canvas(width, height, "Roofline")
    points = [point for point in found.points if point.gflop_per_s > 0 and point.intensity > 0]
    peak = max((roof.gflop_per_s for roof in found.roofs), default=0.0)
    speeds = [point.gflop_per_s for point in points] + [roof.gflop_per_s for roof in found.roofs]
    reach = [point.intensity for point in points] + [peak / found.copy_gb_per_s or 1.0]
    x = Scale(min(reach) / 3, max(reach) * 4, left, width - 10, logarithmic=True)
    y = Scale(min(speeds, default=1.0) / 3, max(speeds, default=1.0) * 2.5, bottom, 10, logarithmic=True)
    _bottom_axis(canvas, x, 10, bottom, "operations per byte")
    for tick in y.ticks(7):
        canvas.line(left, y(tick), width - 10, y(tick), FAINT)
        canvas.text(left - 6, y(tick) + 4, short(tick), "end", QUIET)
    canvas.text(left + 4, 20, "GFLOP/s", colour=QUIET)
    _roofs(canvas, found, peak, x, y)
    named: set[str] = set()
    for point in points:
        kind, _, label = point.name.partition(", ")
        px, py = x(point.intensity), y(point.gflop_per_s)
        canvas.mark(px, py, colour_of(result, label), _SHAPES.get(kind, "circle"), 5)
        if kind not in named:
            named.add(kind)
            near_edge = px + 130 > width
            canvas.text(px - 9 if near_edge else px + 9, py + 15, kind, "end" if near_edge else "start")
    return canvas.render()


def _roofs(canvas: Canvas, found: Roofline, peak: float, x: Scale, y: Scale) -> None:
    """Draw the slope of the copy up to the highest roof, and each roof from where it meets the slope."""
    speed = found.copy_gb_per_s
    low = max(x.low, y.low / speed)
    high = min(x.high, (peak or y.high) / speed)
    if low < high:
        canvas.path([(x(low), y(low * speed)), (x(high), y(high * speed))], QUIET, 2)
        middle = (low * high) ** 0.5
        canvas.text(x(middle) + 8, y(middle * speed) + 14, f"copy {short(speed)} GB/s", colour=QUIET)
    for roof in found.roofs:
        corner = max(x.low, roof.gflop_per_s / speed)
        canvas.path([(x(min(corner, x.high)), y(roof.gflop_per_s)), (x.end, y(roof.gflop_per_s))], QUIET, 2)
        canvas.text(x.end, y(roof.gflop_per_s) - 5, f"{roof.precision} {short(roof.gflop_per_s)}", "end", QUIET)


def pareto(result: BenchResult, values: Sequence[tuple[str, float]], meaning: str, width: float) -> str:
    """Draw accuracy over seconds: up and to the left is better.

    Args:
        result: What was measured.
        values: Label of a configuration -> its accuracy; at least one.
        meaning: What the accuracy is.
        width: Of the picture.
    """
    height, left, bottom = 280.0, 52.0, 238.0
    canvas = Canvas(width, height, f"{meaning} over seconds")
    seconds = {each.label: each.study_s.p50_s for each in result.configurations}
    low, high = min(value for _, value in values), max(value for _, value in values)
    margin = max(0.25 * (high - low), 0.002)
    x = Scale(0, 1.15 * max(seconds[label] for label, _ in values), left, width - 10)
    y = Scale(low - margin, min(high + margin, max(high, 1.0) + 0.1 * margin), bottom, 26)
    _bottom_axis(canvas, x, 26, bottom, "seconds a study (median)")
    for tick in y.ticks(5):
        canvas.line(left, y(tick), width - 10, y(tick), FAINT)
        canvas.text(left - 6, y(tick) + 4, f"{tick:.4f}".rstrip("0").rstrip("."), "end", QUIET)
    canvas.text(4, 14, meaning, colour=QUIET)
    canvas.path(
        [(x(a), y(b)) for a, b in _front([(seconds[label], value) for label, value in values])], QUIET, 1, "4 3"
    )
    for label, value in values:
        px, py = x(seconds[label]), y(value)
        canvas.mark(px, py, colour_of(result, label), radius=5)
        right = px + 10 + text_width(label) < width
        canvas.text(px + 9 if right else px - 9, py - 8, label, "start" if right else "end")
    return canvas.render()


def _front(points: Sequence[tuple[float, float]]) -> list[tuple[float, float]]:
    """Return those that no other one beats in both, fastest first."""
    front: list[tuple[float, float]] = []
    for point in sorted(points, key=lambda each: (each[0], -each[1])):
        if not front or point[1] > front[-1][1]:
            front.append(point)
    return front


def _bottom_axis(canvas: Canvas, scale: Scale, top: float, bottom: float, title: str) -> None:
    """Draw grid lines, their values and a title below."""
    room = max(2, int((scale.end - scale.start) / 70))
    for tick in scale.ticks(room):
        canvas.line(scale(tick), top, scale(tick), bottom, FAINT)
        label = short(tick)
        half = text_width(label) / 2
        at = min(max(scale(tick), half), canvas.width - half)  # a long label at an end stays in the picture
        canvas.text(at, bottom + FONT + 4, label, "middle", QUIET)
    canvas.line(scale.start, bottom, scale.end, bottom, QUIET)
    if title:
        canvas.text(scale.end, bottom + 2 * FONT + 8, title, "end", QUIET)
