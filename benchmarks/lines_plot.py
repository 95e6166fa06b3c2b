"""Curves over the load, side by side.

| what is served |  | how long it takes |     each with a scale of its own, from 0 or logarithmic;
|   ______       |  |        ______     |     the loads stand at equal distances
| 1x 2x 5x 10x   |  |  1x 2x 5x 10x     |     a dashed line is what was aimed at
"""

import math
from collections.abc import Sequence

import attrs

from benchmarks import svg

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


def draw(panels: Sequence[Panel]) -> str:
    """The panels in a row; those of one picture have the same curves' names and colours."""
    parts = []
    for k, (name, _) in enumerate(panels[0].curves):
        parts += svg.key(_LEFT, 12 + 17 * k, name, svg.COLOURS[k])
    for k, panel in enumerate(panels):
        parts += [f'<g transform="translate({PANEL_WIDTH * k} 0)">', *_draw(panel), "</g>"]
    return svg.picture(PANEL_WIDTH * len(panels), HEIGHT, parts)


def _draw(panel: Panel) -> list[str]:
    loads = sorted({x for _, points in panel.curves for x, _ in points})
    step = (_RIGHT - _LEFT) / len(loads)
    places = {x: _LEFT + (k + 0.5) * step for k, x in enumerate(loads)}

    def placed(points: Sequence[Point]) -> list[Point]:
        return [(places[x], panel.height(y)) for x, y in points if x in places]

    parts = [svg.text(_LEFT, _TOP - 16, panel.title, bold=True)]
    for y in panel.ticks:
        parts.append(svg.rule(_LEFT, panel.height(y), _RIGHT, panel.height(y)))
        parts.append(svg.text(_LEFT - 6, panel.height(y) + 4, f"{y:g}", anchor="end"))
    parts += [svg.text(place, _BOTTOM + 18, f"{x:g}x", anchor="middle") for x, place in places.items()]
    parts.append(svg.dashes(placed(panel.aim)))
    for (_, points), colour in zip(panel.curves, svg.COLOURS, strict=False):
        parts += svg.curve(placed(points), colour)
    return parts
