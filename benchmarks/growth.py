"""Does a call cost the same however much is open besides?  CPU a call of our server, as something grows.

    streams      open and idle, on 100 connections
    connections  open and idle
    methods      registered

All points stand ready on servers of their own, and are measured in turn with the same load: 64 calls in
flight on one more connection.
"""

import contextlib
from collections import defaultdict
from collections.abc import Iterator, Sequence
from functools import partial

import attrs

from benchmarks.cells import Cell
from benchmarks.memory import Idle
from benchmarks.processes import ServerProcess
from benchmarks.turns import Point, in_turn

STREAMS = (1, 10, 100, 1_000, 10_000)
CONNECTIONS = (1, 10, 100, 1_000)
METHODS = (1, 10, 100, 1_000)


@attrs.frozen
class Line:
    """CPU microseconds a call against how many there are of something."""

    name: str
    points: tuple[tuple[int, float], ...]


def lines(command: Sequence[str], cell: Cell, seconds: float, rounds: int, largest: int) -> list[Line]:
    """Each point up to ``largest``, measured for ``seconds`` in each of so many rounds."""
    with contextlib.ExitStack() as stack:
        points: dict[tuple[str, int], Point] = {}
        for name, counts, standing in (
            ("open streams", STREAMS, _beside_streams),
            ("open connections", CONNECTIONS, _beside_connections),
            ("registered methods", METHODS, _beside_methods),
        ):
            for count in counts:
                if count <= largest:
                    server = stack.enter_context(standing(command, count))
                    points[name, count] = partial(cell.measure, server, seconds)
        medians = in_turn("growth", points, rounds)
    found: dict[str, list[tuple[int, float]]] = defaultdict(list)
    for (name, count), measured in medians.items():
        found[name].append((count, measured.cpu_us))
    return [Line(name, tuple(of)) for name, of in found.items()]


@contextlib.contextmanager
def _beside_streams(command: Sequence[str], count: int) -> Iterator[ServerProcess]:
    connections = min(count, 100)
    with ServerProcess(command) as server, contextlib.closing(Idle(server.port)) as idle:
        idle.open_connections(connections)
        idle.open_streams(count // connections)
        yield server


@contextlib.contextmanager
def _beside_connections(command: Sequence[str], count: int) -> Iterator[ServerProcess]:
    with ServerProcess(command) as server, contextlib.closing(Idle(server.port)) as idle:
        idle.open_connections(count)
        yield server


def _beside_methods(command: Sequence[str], count: int) -> ServerProcess:
    return ServerProcess([*command, "--methods", str(count)])
