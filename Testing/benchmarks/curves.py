"""Curves as SVG, for the pages of fit.py and quality.py: both axes from 0 to 1, a line for each name, a legend beside it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from html import escape

SIZE, LEFT, TOP, LEGEND = 360, 60, 20, 190  # pixels: of the square, its place, and the room for names
COLOURS = ("#1b6ec2", "#c0392b", "#2e8b57", "#b9770e", "#7d3c98", "#16808d", "#555555")
TICKS = (0, 0.25, 0.5, 0.75, 1)


def svg(curves: Mapping[str, Sequence[tuple[float, float]]], across: str, up: str, diagonal: bool = True) -> str:
    """A picture of curves (points x, y from 0 to 1 each), with the words for both axes."""
    width, height = LEFT + SIZE + LEGEND, TOP + SIZE + 50
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{width}" height="{height}" font-family="sans-serif" font-size="12">',
        f'<rect width="{width}" height="{height}" fill="white"/>',
        f'<rect x="{LEFT}" y="{TOP}" width="{SIZE}" height="{SIZE}" fill="none" stroke="#888"/>',
    ]
    for tick in TICKS:
        x, y = place(tick, tick)
        parts.append(f'<text x="{x:.0f}" y="{TOP + SIZE + 16}" text-anchor="middle">{tick:g}</text>')
        parts.append(f'<text x="{LEFT - 6}" y="{y + 4:.0f}" text-anchor="end">{tick:g}</text>')
    if diagonal:
        parts.append(line([(0, 0), (1, 1)], "#bbb", 1))
    for number, (name, points) in enumerate(curves.items()):
        colour, y = COLOURS[number % len(COLOURS)], TOP + 12 + 18 * number
        parts.append(line(points, colour, 2))
        parts.append(f'<rect x="{LEFT + SIZE + 14}" y="{y - 8}" width="14" height="4" fill="{colour}"/>')
        parts.append(f'<text x="{LEFT + SIZE + 34}" y="{y}">{escape(name)}</text>')
    middle = TOP + SIZE / 2
    parts += [
        f'<text x="{LEFT + SIZE / 2:.0f}" y="{TOP + SIZE + 38}" text-anchor="middle">{escape(across)}</text>',
        f'<text x="14" y="{middle:.0f}" text-anchor="middle" transform="rotate(-90 14 {middle:.0f})">{escape(up)}</text>',
        "</svg>",
    ]
    return "\n".join(parts) + "\n"


def place(x: float, y: float) -> tuple[float, float]:
    """Pixels of a point."""
    return LEFT + SIZE * x, TOP + SIZE * (1 - y)


def line(points: Sequence[tuple[float, float]], colour: str, width: int) -> str:
    where = " ".join(f"{x:.1f},{y:.1f}" for x, y in (place(*point) for point in points))
    return f'<polyline points="{where}" fill="none" stroke="{colour}" stroke-width="{width}"/>'


def roc(own: Sequence[float], others: Sequence[float]) -> list[tuple[float, float]]:
    """Share of `own` scores and of `others` at or above each limit, from none to all."""
    limits = sorted({*own, *others}, reverse=True)
    points = [
        (sum(s >= limit for s in own) / len(own), sum(s >= limit for s in others) / len(others)) for limit in limits
    ]
    return [(0.0, 0.0), *points]
