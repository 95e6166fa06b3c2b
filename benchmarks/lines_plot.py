"""A few curves over the load, as an SVG written by hand."""

from collections.abc import Sequence
from xml.sax.saxutils import escape

from benchmarks.plot import COLOURS

WIDTH, HEIGHT = 560, 340
_LEFT, _RIGHT, _TOP, _BOTTOM = 50, 530, 80, 300

Curve = tuple[str, Sequence[tuple[float, float]]]


def svg(title: str, curves: Sequence[Curve]) -> str:
    """``curves``: each a name and its points, (times the peak, per cent of the peak)."""
    most = max(x for _, points in curves for x, _ in points)

    def at(x: float, y: float) -> tuple[float, float]:
        return _LEFT + x / most * (_RIGHT - _LEFT), _BOTTOM - y / 110 * (_BOTTOM - _TOP)

    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {HEIGHT}" '
        'font-family="system-ui, sans-serif" font-size="12" fill="#334155">',
        f'<rect width="{WIDTH}" height="{HEIGHT}" fill="#ffffff"/>',
        _text(_LEFT, 20, title, "start", "bold"),
    ]
    for y in (0, 25, 50, 75, 100):
        left, height = at(0, y)
        parts.append(f'<path d="M{left} {height:.1f}H{_RIGHT}" stroke="#e2e8f0"/>')
        parts.append(_text(left - 6, height + 4, str(y), "end"))
    loads = sorted({x for _, points in curves for x, _ in points})
    parts += [_text(at(x, 0)[0], _BOTTOM + 18, f"{x:g}x", "middle") for x in loads]
    for k, (name, points) in enumerate(curves):
        colour = COLOURS[k % len(COLOURS)]
        path = " ".join("{:.1f},{:.1f}".format(*at(x, y)) for x, y in points)
        parts.append(f'<polyline points="{path}" fill="none" stroke="{colour}" stroke-width="2"/>')
        parts.append(f'<rect x="{_LEFT}" y="{28 + 15 * k}" width="10" height="10" fill="{colour}"/>')
        parts.append(_text(_LEFT + 16, 37 + 15 * k, name, "start"))
    return "\n".join([*parts, "</svg>"]) + "\n"


def _text(x: float, y: float, text: str, anchor: str, weight: str = "normal") -> str:
    return (
        f'<text x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}" font-weight="{weight}">{escape(text)}</text>'
    )
