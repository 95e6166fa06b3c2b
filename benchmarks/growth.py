"""Does a call cost the same however much is open besides?  CPU a call of our server, as something grows.

    streams      open and idle, on 100 connections
    connections  open and idle
    methods      registered

All points of a run are measured on the same day with the same load: 64 calls in flight on one connection.
"""

import contextlib
from collections.abc import Iterator, Sequence

import attrs

from benchmarks.cells import Cell
from benchmarks.memory import Idle
from benchmarks.processes import ServerProcess

STREAMS = (1, 10, 100, 1_000, 10_000)
CONNECTIONS = (1, 10, 100, 1_000)
METHODS = (1, 10, 100, 1_000)


@attrs.frozen
class Line:
    """CPU microseconds a call against how many there are of something."""

    name: str
    points: tuple[tuple[int, float], ...]

    @property
    def growth(self) -> float:
        """The last point as a multiple of the first."""
        return self.points[-1][1] / self.points[0][1]


def lines(command: Sequence[str], cell: Cell, seconds: float, largest: int = 10_000) -> Iterator[Line]:
    """Measure every point up to ``largest``, on a new server each."""
    for name, counts, measure in (
        ("open streams", STREAMS, _with_streams),
        ("open connections", CONNECTIONS, _with_connections),
        ("registered methods", METHODS, _with_methods),
    ):
        points = [(count, measure(command, cell, seconds, count)) for count in counts if count <= largest]
        yield Line(name, tuple(points))


def _with_streams(command: Sequence[str], cell: Cell, seconds: float, count: int) -> float:
    connections = min(count, 100)
    with ServerProcess(command) as server, contextlib.closing(Idle(server.port)) as idle:
        idle.open_connections(connections)
        idle.open_streams(count // connections)
        return cell.measure(server, seconds).cpu_us


def _with_connections(command: Sequence[str], cell: Cell, seconds: float, count: int) -> float:
    with ServerProcess(command) as server, contextlib.closing(Idle(server.port)) as idle:
        idle.open_connections(count)
        return cell.measure(server, seconds).cpu_us


def _with_methods(command: Sequence[str], cell: Cell, seconds: float, count: int) -> float:
    with ServerProcess([*command, "--methods", str(count)]) as server:
        return cell.measure(server, seconds).cpu_us
