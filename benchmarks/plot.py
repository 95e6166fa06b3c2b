"""The plot: an SVG written by hand, so that it needs nothing and can be read in a diff.

    left    CPU a call at 64 in flight, a bar a server, the same and changing requests
    right   our CPU a call as streams, connections and methods grow, from 1 to 10,000

The time axis of the bars is logarithmic: the slowest and the fastest are fifty times apart.
"""

import math
from collections.abc import Mapping, Sequence
from xml.sax.saxutils import escape

from benchmarks.growth import Line

WIDTH, HEIGHT = 960, 360
COLOURS = ("#2563eb", "#f59e0b", "#059669")
_BARS = (170, 440)  # from x to x
_LINES = (560, 930)
_TOP, _BOTTOM = 60, 310


def svg(bars: Mapping[str, Sequence[float]], bar_names: Sequence[str], lines: Sequence[Line]) -> str:
    """``bars``: for each server one value in µs for each of ``bar_names``, NaN where there is none."""
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {HEIGHT}" '
        'font-family="system-ui, sans-serif" font-size="12" fill="#334155">',
        f'<rect width="{WIDTH}" height="{HEIGHT}" fill="#ffffff"/>',
        *_bar_chart(bars, bar_names),
        *_line_chart(lines),
        "</svg>",
    ]
    return "\n".join(parts) + "\n"


def _bar_chart(bars: Mapping[str, Sequence[float]], names: Sequence[str]) -> list[str]:
    values = [value for row in bars.values() for value in row if value > 0]
    if not values:
        return []
    decades = (math.floor(math.log10(min(values))), math.ceil(math.log10(max(values)) + 0.1))
    scale = (_BARS[1] - _BARS[0]) / (decades[1] - decades[0])

    def x(value: float) -> float:
        return _BARS[0] + (math.log10(value) - decades[0]) * scale

    parts = [_text(_BARS[0], 24, "CPU µs a unary call, 64 in flight", weight="bold")]
    parts += _legend(_BARS[0], names)
    for decade in range(decades[0], decades[1] + 1):
        parts.append(_rule(x(10.0**decade), _TOP, x(10.0**decade), _BOTTOM))
        parts.append(_text(x(10.0**decade), _BOTTOM + 16, f"{10.0**decade:g}", anchor="middle"))
    pitch = (_BOTTOM - _TOP) / len(bars)
    thick = 0.8 * pitch / max(1, len(names))
    for row, (server, figures) in enumerate(bars.items()):
        top = _TOP + row * pitch + 0.1 * pitch
        parts.append(_text(_BARS[0] - 8, top + 0.4 * pitch + 4, server, anchor="end"))
        for k, value in enumerate(figures):
            if not value > 0:
                continue
            y = top + k * thick
            parts.append(
                f'<rect x="{_BARS[0]}" y="{y:.1f}" width="{x(value) - _BARS[0]:.1f}" height="{thick:.1f}" '
                f'fill="{COLOURS[k]}"/>'
            )
            parts.append(_text(x(value) + 4, y + thick / 2 + 4, f"{value:.3g}"))
    return parts


def _line_chart(lines: Sequence[Line]) -> list[str]:
    points = [point for line in lines for point in line.points]
    if not points:
        return []
    decades = max(1, math.ceil(math.log10(max(count for count, _ in points))))
    ceiling = 1.25 * max(cpu for _, cpu in points)

    def x(count: int) -> float:
        return _LINES[0] + math.log10(count) / decades * (_LINES[1] - _LINES[0])

    def y(cpu: float) -> float:
        return _BOTTOM - cpu / ceiling * (_BOTTOM - _TOP)

    parts = [_text(_LINES[0], 24, "trio_serve.grpc: CPU µs a call as this grows", weight="bold")]
    parts += _legend(_LINES[0], [line.name for line in lines])
    for decade in range(decades + 1):
        parts.append(_rule(x(10**decade), _TOP, x(10**decade), _BOTTOM))
        parts.append(_text(x(10**decade), _BOTTOM + 16, f"{10**decade:,}", anchor="middle"))
    for cpu in (0.0, ceiling / 2, ceiling):
        parts.append(_rule(_LINES[0], y(cpu), _LINES[1], y(cpu)))
        parts.append(_text(_LINES[0] - 8, y(cpu) + 4, f"{cpu:.0f}", anchor="end"))
    for k, line in enumerate(lines):
        path = " ".join(f"{x(count):.1f},{y(cpu):.1f}" for count, cpu in line.points)
        parts.append(f'<polyline points="{path}" fill="none" stroke="{COLOURS[k]}" stroke-width="2"/>')
        parts += [
            f'<circle cx="{x(count):.1f}" cy="{y(cpu):.1f}" r="3" fill="{COLOURS[k]}"/>'
            for count, cpu in line.points
        ]
    return parts


def _legend(left: float, names: Sequence[str]) -> list[str]:
    parts = []
    for k, name in enumerate(names):
        parts.append(f'<rect x="{left}" y="34" width="10" height="10" fill="{COLOURS[k]}"/>')
        parts.append(_text(left + 14, 43, name))
        left += 30 + 7 * len(name)
    return parts


def _rule(x1: float, y1: float, x2: float, y2: float) -> str:
    return f'<line x1="{x1:.1f}" y1="{y1:.1f}" x2="{x2:.1f}" y2="{y2:.1f}" stroke="#e2e8f0"/>'


def _text(x: float, y: float, text: str, *, anchor: str = "start", weight: str = "normal") -> str:
    return (
        f'<text x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}" font-weight="{weight}">{escape(text)}</text>'
    )
