"""Curves over the load, side by side, as an SVG written by hand.

| what is served |  | how long it takes |     each with a scale of its own, from 0 or logarithmic;
|   ______       |  |        ______     |     the loads stand at equal distances
| 1x 2x 5x 10x   |  |  1x 2x 5x 10x     |     a dashed line is what was aimed at
"""

import math
from collections.abc import Sequence
from xml.sax.saxutils import escape

import attrs

from benchmarks.plot import COLOURS

PANEL_WIDTH, HEIGHT = 440, 340
_LEFT, _RIGHT, _TOP, _BOTTOM = 50, 420, 100, 300

Point = tuple[float, float]
Curve = tuple[str, Sequence[Point]]


@attrs.frozen
class Panel:
    """``curves`` and ``aim`` over the load; ``ticks``, from bottom to top, are the values that get a line."""

    title: str
    curves: Sequence[Curve]
    ticks: Sequence[float]
    aim: Sequence[Point] = ()
    logarithmic: bool = False

    def height(self, y: float) -> float:
        """``y`` in pixels; what is above or below the ticks is drawn at the edge."""
        low, high = self.ticks[0], self.ticks[-1]
        y = min(max(y, low), high)
        if self.logarithmic:
            y, low, high = math.log10(y), math.log10(low), math.log10(high)
        return _BOTTOM - (y - low) / (high - low) * (_BOTTOM - _TOP)


def svg(panels: Sequence[Panel]) -> str:
    """The panels in a row; those of one picture have the same curves' names and colours."""
    width = PANEL_WIDTH * len(panels)
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {HEIGHT}" '
        'font-family="system-ui, sans-serif" font-size="12" fill="#334155">',
        f'<rect width="{width}" height="{HEIGHT}" fill="#ffffff"/>',
    ]
    for k, (name, _) in enumerate(panels[0].curves):
        parts.append(f'<rect x="{_LEFT}" y="{12 + 17 * k}" width="10" height="10" fill="{COLOURS[k]}"/>')
        parts.append(_text(_LEFT + 16, 21 + 17 * k, name, "start"))
    for k, panel in enumerate(panels):
        parts += [f'<g transform="translate({PANEL_WIDTH * k} 0)">', *_draw(panel), "</g>"]
    return "\n".join([*parts, "</svg>"]) + "\n"


def _draw(panel: Panel) -> list[str]:
    loads = sorted({x for _, points in panel.curves for x, _ in points})
    step = (_RIGHT - _LEFT) / len(loads)
    places = {x: _LEFT + (k + 0.5) * step for k, x in enumerate(loads)}

    def path(points: Sequence[Point]) -> str:
        return " ".join(f"{places[x]:.1f},{panel.height(y):.1f}" for x, y in points if x in places)

    parts = [_text(_LEFT, _TOP - 16, panel.title, "start", "bold")]
    for y in panel.ticks:
        height = panel.height(y)
        parts.append(f'<path d="M{_LEFT} {height:.1f}H{_RIGHT}" stroke="#e2e8f0"/>')
        parts.append(_text(_LEFT - 6, height + 4, f"{y:g}", "end"))
    parts += [_text(place, _BOTTOM + 18, f"{x:g}x", "middle") for x, place in places.items()]
    parts.append(
        f'<polyline points="{path(panel.aim)}" fill="none" stroke="#94a3b8" stroke-dasharray="5 4"/>'
    )
    for k, (_, points) in enumerate(panel.curves):
        colour = COLOURS[k]
        parts.append(f'<polyline points="{path(points)}" fill="none" stroke="{colour}" stroke-width="2"/>')
        parts += [
            f'<circle cx="{places[x]:.1f}" cy="{panel.height(y):.1f}" r="3" fill="{colour}"/>'
            for x, y in points
        ]
    return parts


def _text(x: float, y: float, text: str, anchor: str, weight: str = "normal") -> str:
    return (
        f'<text x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}" font-weight="{weight}">{escape(text)}</text>'
    )
