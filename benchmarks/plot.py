"""The plot of the README.

left    CPU a call at 64 in flight, from 0: a bar a server, the same requests and changing ones
right   our CPU a call, from 0, as streams, connections and methods grow from 1 to 10,000
below   the command that measures it again, and how
"""

import math
from collections.abc import Mapping, Sequence

from benchmarks import svg
from benchmarks.growth import Line

WIDTH, HEIGHT = 960, 400
_BARS = (130, 450)  # from x to x
_LINES = (560, 920)
_TOP, _BOTTOM = 80, 332
_VALUE = 44  # pixels for the figure at a bar's end
BAR_NAMES = ("the same request", "metadata and deadline change")


def draw(bars: Mapping[str, Sequence[float]], lines: Sequence[Line], source: str) -> str:
    """``bars``: for each server one value in µs for each of ``BAR_NAMES``, NaN where there is none."""
    parts = [*_bar_chart(bars), *_line_chart(lines), svg.note(24, HEIGHT - 16, source)]
    return svg.picture(WIDTH, HEIGHT, parts)


def _bar_chart(bars: Mapping[str, Sequence[float]]) -> list[str]:
    values = [value for row in bars.values() for value in row if value > 0]
    if not values:
        return []
    step = _step(max(values))
    scale = (_BARS[1] - _VALUE - _BARS[0]) / max(values)

    parts = [svg.text(_BARS[0], 24, "CPU µs a unary call, 64 in flight", bold=True)]
    parts += svg.keys(_BARS[0], 36, BAR_NAMES)
    for k in range(math.floor(max(values) / step) + 1):
        x = _BARS[0] + k * step * scale
        parts.append(svg.rule(x, _TOP, x, _BOTTOM))
        parts.append(svg.text(x, _BOTTOM + 18, f"{k * step:g}", anchor="middle"))
    pitch = (_BOTTOM - _TOP) / len(bars)
    thick = 0.8 * pitch / len(BAR_NAMES)
    for row, (server, figures) in enumerate(bars.items()):
        middle = _TOP + (row + 0.5) * pitch
        ours = server.startswith("trio_serve")
        parts.append(svg.text(_BARS[0] - 8, middle + 4, server, anchor="end", bold=ours))
        for k, value in enumerate(figures):
            if value > 0:
                y = middle - 0.4 * pitch + k * thick
                parts.append(svg.bar(_BARS[0], y, value * scale, thick, svg.COLOURS[k]))
                parts.append(
                    svg.text(_BARS[0] + value * scale + 5, y + thick / 2 + 4, f"{value:.3g}", bold=ours)
                )
    return parts


def _line_chart(lines: Sequence[Line]) -> list[str]:
    points = [point for line in lines for point in line.points]
    if not points:
        return []
    decades = max(1, math.ceil(math.log10(max(count for count, _ in points))))
    step = _step(max(cpu for _, cpu in points))
    ceiling = step * (math.floor(max(cpu for _, cpu in points) / step) + 1)

    def x(count: int) -> float:
        return _LINES[0] + math.log10(count) / decades * (_LINES[1] - _LINES[0])

    def y(cpu: float) -> float:
        return _BOTTOM - cpu / ceiling * (_BOTTOM - _TOP)

    parts = [svg.text(_LINES[0], 24, "CPU µs a unary call of trio_serve.grpc beside so many", bold=True)]
    parts += svg.keys(_LINES[0], 36, [line.name for line in lines])
    for decade in range(decades + 1):
        parts.append(svg.rule(x(10**decade), _TOP, x(10**decade), _BOTTOM))
        parts.append(svg.text(x(10**decade), _BOTTOM + 18, f"{10**decade:,}", anchor="middle"))
    for k in range(round(ceiling / step) + 1):
        parts.append(svg.rule(_LINES[0], y(k * step), _LINES[1], y(k * step)))
        parts.append(svg.text(_LINES[0] - 8, y(k * step) + 4, f"{k * step:g}", anchor="end"))
    for line, colour in zip(lines, svg.COLOURS, strict=False):
        parts += svg.curve([(x(count), y(cpu)) for count, cpu in line.points], colour)
    return parts


def _step(largest: float) -> float:
    """A round distance between two rules that puts three to seven of them up to ``largest``."""
    decade: float = 10.0 ** math.floor(math.log10(largest))
    return next(decade * part for part in (0.2, 0.5, 1.0, 2.0) if largest / (decade * part) < 7)
