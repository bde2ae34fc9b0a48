"""Draws lines into an SVG, and nothing more: a plot in the documentation needs no library."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

WIDTH, HEIGHT, LEFT, TOP, RIGHT, BOTTOM = 640, 360, 70, 30, 170, 50
COLOURS = ("#1f5fa8", "#c2571a", "#2e7d4f", "#7a3f98", "#8a6d00", "#555555")


@dataclass(frozen=True, slots=True)
class Line:
    """A named row of points; dashed where it is what could be reached."""

    name: str
    points: Sequence[tuple[float, float]]
    is_dashed: bool = False


@dataclass(frozen=True, slots=True)
class Axis:
    """A label, and whether the scale grows by factors."""

    label: str
    is_log: bool = False

    def place(self, value: float, low: float, high: float) -> float:
        """Return where a value stands between 0 and 1."""
        if self.is_log:
            value, low, high = math.log10(value), math.log10(low), math.log10(high)
        return (value - low) / (high - low) if high > low else 0.5


def draw(title: str, x: Axis, y: Axis, lines: Sequence[Line]) -> str:
    """Return an SVG document."""
    xs = sorted({point[0] for line in lines for point in line.points})
    ys = [point[1] for line in lines for point in line.points]
    low, high = (10 ** math.floor(math.log10(min(ys))) if y.is_log else 0.0), max(ys) * 1.05
    right, bottom = WIDTH - RIGHT, HEIGHT - BOTTOM

    def at(point: tuple[float, float]) -> tuple[float, float]:
        across = LEFT + x.place(point[0], xs[0], xs[-1]) * (right - LEFT)
        return across, bottom - y.place(point[1], low, high) * (bottom - TOP)

    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {HEIGHT}" role="img"'
        f' aria-label="{title}"'
        ' font-family="sans-serif" font-size="12">',
        f'<rect width="{WIDTH}" height="{HEIGHT}" fill="#ffffff"/>',
        f'<text x="{LEFT}" y="18" font-weight="bold">{title}</text>',
        f'<path d="M{LEFT} {TOP}V{bottom}H{right}" fill="none" stroke="#333333"/>',
        f'<text x="{(LEFT + right) / 2:.0f}" y="{HEIGHT - 10}" text-anchor="middle">{x.label}</text>',
        f'<text transform="translate(16 {(TOP + bottom) / 2:.0f}) rotate(-90)" text-anchor="middle">'
        f"{y.label}</text>",
    ]
    taken = -100.0
    for value in xs:
        across = at((value, high))[0]
        if across - taken > 40:
            taken = across
            parts.append(f'<text x="{across:.0f}" y="{bottom + 16}" text-anchor="middle">{value:,g}</text>')
    for value in _ticks(low, high, is_log=y.is_log):
        up = at((xs[0], value))[1]
        parts.append(f'<path d="M{LEFT} {up:.1f}H{right}" stroke="#dddddd"/>')
        parts.append(f'<text x="{LEFT - 6}" y="{up + 4:.1f}" text-anchor="end">{value:,g}</text>')
    for number, line in enumerate(lines):
        colour = COLOURS[number % len(COLOURS)]
        path = " ".join(f"{across:.1f},{up:.1f}" for across, up in map(at, line.points))
        dash = ' stroke-dasharray="5 4"' if line.is_dashed else ""
        parts.append(f'<polyline points="{path}" fill="none" stroke="{colour}" stroke-width="2"{dash}/>')
        if not line.is_dashed:
            parts += [
                f'<circle cx="{across:.1f}" cy="{up:.1f}" r="3" fill="{colour}"/>'
                for across, up in map(at, line.points)
            ]
        down = TOP + 14 + 18 * number
        parts.append(f'<path d="M{right + 12} {down}h20" stroke="{colour}" stroke-width="2"{dash}/>')
        parts.append(f'<text x="{right + 38}" y="{down + 4}">{line.name}</text>')
    return "\n".join([*parts, "</svg>", ""])


def _ticks(low: float, high: float, *, is_log: bool) -> list[float]:
    if is_log:
        return [10.0**power for power in range(round(math.log10(low)), math.floor(math.log10(high)) + 1)]
    step = 10 ** math.floor(math.log10(high))
    step = next(step * part for part in (0.1, 0.2, 0.5, 1) if high / (step * part) <= 6)
    return [step * number for number in range(int(high / step) + 1)]
