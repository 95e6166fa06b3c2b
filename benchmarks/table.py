"""The results as one markdown table, a row a server (or client), a column a cell."""

import math
from collections.abc import Mapping, Sequence

from benchmarks.cells import Cell, Measured
from benchmarks.growth import Line
from benchmarks.memory import Resting


def servers_table(cells: Sequence[Cell], results: Mapping[str, Mapping[str, Measured]]) -> str:
    """Units a second / CPU µs a unit, and [p50/p99 ms] where the load looked at each call."""
    head = ["server", *(f"{cell.name}, {cell.unit}s" for cell in cells)]
    rows = [[name, *(_cell(by_cell.get(cell.name)) for cell in cells)] for name, by_cell in results.items()]
    return markdown(head, rows)


def clients_table(results: Mapping[str, Measured]) -> str:
    return markdown(
        ["client", "64 in flight"], [[name, _cell(measured)] for name, measured in results.items()]
    )


def memory_table(results: Mapping[str, Resting]) -> str:
    head = ["server", "first answer, s", "at rest, MB", "an idle connection, KB", "an idle stream, KB"]
    rows = [
        [
            name,
            f"{resting.first_answer_s:.2f}",
            f"{resting.resident_mb:.0f}",
            f"{resting.connection_kb:.1f}",
            f"{resting.stream_kb:.1f}",
        ]
        for name, resting in results.items()
    ]
    return markdown(head, rows)


def lines_table(lines: Sequence[Line]) -> str:
    """A row a line, a column a count; empty where a line ends before another."""
    counts = sorted({count for line in lines for count, _ in line.points})
    rows = []
    for line in lines:
        costs = dict(line.points)
        rows.append([line.name, *(_figure(costs[count], 3) if count in costs else "" for count in counts)])
    return markdown(["beside so many", *(f"{count:,}" for count in counts)], rows)


def _cell(measured: Measured | None) -> str:
    if measured is None:
        return "-"
    text = f"{measured.rate:,.0f} / {_figure(measured.cpu_us, 3)}"
    if math.isnan(measured.p50_ms):
        return text
    return f"{text} [{_figure(measured.p50_ms, 2)}/{_figure(measured.p99_ms, 2)}]"


def _figure(value: float, digits: int) -> str:
    return f"{value:,.0f}" if value >= 10 ** (digits - 1) else f"{value:.{digits}g}"


def markdown(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)
