"""Drawings as SVG text: a canvas with the few shapes that the plots need, and the scales of their axes."""

from __future__ import annotations

import html
import math
from collections.abc import Sequence
from dataclasses import dataclass, field

INK, QUIET, FAINT = "#1d2329", "#56616c", "#e1e6ea"
COLOURS = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#b58900", "#56b4e9", "#6a51a3", "#525252")
"""One for each configuration: told apart by readers with any colour vision, after Okabe and Ito."""

FONT = 12
_WIDTH_OF_A_LETTER = 0.56


def text_width(text: str, size: float = FONT) -> float:
    """Return about how wide a text is."""
    return _WIDTH_OF_A_LETTER * size * len(text)


@dataclass(slots=True)
class Canvas:
    """An SVG picture in the making; the origin is at the top left, units are pixels.

    Attributes:
        width: Of the picture.
        height: Of the picture.
        title: What it shows, for those who listen to it.
    """

    width: float
    height: float
    title: str
    parts: list[str] = field(default_factory=list)

    def line(
        self, x1: float, y1: float, x2: float, y2: float, colour: str = INK, width: float = 1, dash: str = ""
    ) -> None:
        """Draw a line."""
        dashes = f' stroke-dasharray="{dash}"' if dash else ""
        self.parts.append(
            f'<line x1="{x1:.1f}" y1="{y1:.1f}" x2="{x2:.1f}" y2="{y2:.1f}" stroke="{colour}" '
            f'stroke-width="{width:g}"{dashes}/>'
        )

    def path(
        self, points: Sequence[tuple[float, float]], colour: str = INK, width: float = 1.5, dash: str = ""
    ) -> None:
        """Draw a line through points."""
        dashes = f' stroke-dasharray="{dash}"' if dash else ""
        joined = " ".join(f"{x:.1f},{y:.1f}" for x, y in points)
        self.parts.append(
            f'<polyline points="{joined}" fill="none" stroke="{colour}" stroke-width="{width:g}"{dashes}/>'
        )

    def rectangle(self, x: float, y: float, width: float, height: float, colour: str) -> None:
        """Fill a rectangle, at least a hair wide."""
        self.parts.append(
            f'<rect x="{x:.1f}" y="{y:.1f}" width="{max(width, 1.0):.1f}" height="{height:.1f}" rx="1.5" '
            f'fill="{colour}"/>'
        )

    def mark(
        self, x: float, y: float, colour: str, shape: str = "circle", radius: float = 4, opacity: float = 1
    ) -> None:
        """Draw a circle, square or triangle."""
        style = f'fill="{colour}" fill-opacity="{opacity:g}" stroke="#fff" stroke-width="0.8"'
        if shape == "square":
            side = 1.8 * radius
            self.parts.append(
                f'<rect x="{x - side / 2:.1f}" y="{y - side / 2:.1f}" width="{side:.1f}" height="{side:.1f}" {style}/>'
            )
        elif shape == "triangle":
            corners = (
                (x, y - 1.3 * radius),
                (x + 1.2 * radius, y + 0.9 * radius),
                (x - 1.2 * radius, y + 0.9 * radius),
            )
            joined = " ".join(f"{a:.1f},{b:.1f}" for a, b in corners)
            self.parts.append(f'<polygon points="{joined}" {style}/>')
        else:
            self.parts.append(f'<circle cx="{x:.1f}" cy="{y:.1f}" r="{radius:g}" {style}/>')

    def text(
        self,
        x: float,
        y: float,
        text: str,
        anchor: str = "start",
        colour: str = INK,
        size: float = FONT,
        bold: bool = False,
    ) -> None:
        """Write a text; `y` is its base line."""
        weight = ' font-weight="600"' if bold else ""
        self.parts.append(
            f'<text x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}" fill="{colour}" font-size="{size:g}"{weight}>'
            f"{html.escape(text)}</text>"
        )

    def render(self) -> str:
        """Return the SVG element."""
        name = html.escape(self.title, quote=True)
        return (
            f'<svg viewBox="0 0 {self.width:g} {self.height:g}" width="{self.width:g}" height="{self.height:g}" '
            f'role="img" aria-label="{name}">{"".join(self.parts)}</svg>'
        )


@dataclass(frozen=True, slots=True)
class Scale:
    """Takes values to pixels, linearly or by their logarithms.

    Attributes:
        low: Value at `start`.
        high: Value at `end`.
        start: Pixel of `low`.
        end: Pixel of `high`.
        logarithmic: Whether equal factors are equal distances; both ends are positive then.
    """

    low: float
    high: float
    start: float
    end: float
    logarithmic: bool = False

    def __call__(self, value: float) -> float:
        """Return the pixel of a value."""
        low, high, at = (math.log10(v) if self.logarithmic else v for v in (self.low, self.high, value))
        return self.start + (at - low) / (high - low) * (self.end - self.start)

    def ticks(self, most: int = 6) -> list[float]:
        """Return round values between the ends."""
        if self.logarithmic:
            return _powers(self.low, self.high, most)
        step = _round_step((self.high - self.low) / max(1, most))
        first = math.ceil(self.low / step - 1e-9)
        return [i * step for i in range(first, math.floor(self.high / step + 1e-9) + 1)]


def _round_step(least: float) -> float:
    """Return the smallest of 1, 2 and 5 times a power of ten that is not below `least`."""
    power = 10.0 ** math.floor(math.log10(least))
    return next(factor * power for factor in (1, 2, 5, 10) if factor * power >= least * (1 - 1e-9))


def _powers(low: float, high: float, most: int) -> list[float]:
    """Return powers of ten, with 2 and 5 times them where there are few; every other one where there are many."""
    first, last = math.floor(math.log10(low)), math.ceil(math.log10(high))
    for factors in ((1, 2, 5), (1, 3), (1,)):
        found = [f * 10.0**p for p in range(first, last + 1) for f in factors]
        found = [value for value in found if low <= value * (1 + 1e-9) and value <= high * (1 + 1e-9)]
        if len(found) <= most:
            return found
    return found[:: -(-len(found) // most)]


def short(value: float) -> str:
    """Return a number with about three digits, without an exponent: "0.025", "6.1", "1200"."""
    if value == 0:
        return "0"
    digits = max(0, 2 - math.floor(math.log10(abs(value))))
    text = f"{value:.{digits}f}"
    return text.rstrip("0").rstrip(".") if "." in text else text
