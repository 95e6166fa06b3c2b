"""The pieces of a picture: SVG written by hand, so that it needs nothing and can be read in a diff.

The ground is white on purpose: a page may be dark, and the picture cannot know.
"""

from collections.abc import Iterable, Sequence
from xml.sax.saxutils import escape

COLOURS = ("#2563eb", "#f59e0b", "#059669", "#db2777", "#7c3aed")
_TEXT, _GREY, _RULE = "#334155", "#64748b", "#e2e8f0"
_GLYPH = 6.4  # the usual width of one at 12 pixels


def picture(width: int, height: int, parts: Iterable[str]) -> str:
    return "\n".join(
        [
            f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" '
            f'font-family="system-ui, sans-serif" font-size="12" fill="{_TEXT}">',
            f'<rect width="{width}" height="{height}" rx="6" fill="#ffffff"/>',
            *parts,
            "</svg>\n",
        ]
    )


def text(x: float, y: float, words: str, *, anchor: str = "start", bold: bool = False) -> str:
    weight = "bold" if bold else "normal"
    return (
        f'<text x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}" font-weight="{weight}">{escape(words)}</text>'
    )


def note(x: float, y: float, words: str) -> str:
    """Small print."""
    return f'<text x="{x:.1f}" y="{y:.1f}" font-size="11" fill="{_GREY}">{escape(words)}</text>'


def rule(x1: float, y1: float, x2: float, y2: float) -> str:
    return f'<line x1="{x1:.1f}" y1="{y1:.1f}" x2="{x2:.1f}" y2="{y2:.1f}" stroke="{_RULE}"/>'


def bar(x: float, y: float, width: float, height: float, colour: str) -> str:
    return f'<rect x="{x:.1f}" y="{y:.1f}" width="{width:.1f}" height="{height:.1f}" fill="{colour}"/>'


def curve(points: Sequence[tuple[float, float]], colour: str) -> list[str]:
    """A line with a dot at each point; in pixels."""
    line = _line(points, f'stroke="{colour}" stroke-width="2"')
    return [line, *(f'<circle cx="{x:.1f}" cy="{y:.1f}" r="3" fill="{colour}"/>' for x, y in points)]


def dashes(points: Sequence[tuple[float, float]]) -> str:
    return _line(points, 'stroke="#94a3b8" stroke-dasharray="5 4"')


def _line(points: Sequence[tuple[float, float]], stroke: str) -> str:
    path = " ".join(f"{x:.1f},{y:.1f}" for x, y in points)
    return f'<polyline points="{path}" fill="none" {stroke}/>'


def key(x: float, y: float, name: str, colour: str) -> list[str]:
    """A square of the colour, and what it stands for."""
    return [bar(x, y, 10, 10, colour), text(x + 16, y + 9, name)]


def keys(x: float, y: float, names: Sequence[str], a_row: int = 3) -> list[str]:
    """So many in a row, in the order of ``COLOURS``."""
    parts = []
    for k, (name, colour) in enumerate(zip(names, COLOURS, strict=False)):
        before = names[k - k % a_row : k]
        left = x + sum(30 + _GLYPH * len(one) for one in before)
        parts += key(left, y + 18 * (k // a_row), name, colour)
    return parts
