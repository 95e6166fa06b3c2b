"""Does a call cost the same however much is there besides?  CPU a call of our servers, as something grows.

    streams        open and idle, on 100 connections     of trio_serve.grpc
    connections    open and idle
    methods        registered
    applications   running                               of trio_serve, the whole way
    replicas       among which each call is balanced

All points stand ready on servers of their own, and are measured in turn with the same load: 64 calls in
flight on one more connection.
"""

import contextlib
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager
from functools import partial

import attrs

from benchmarks.cells import Cell
from benchmarks.memory import Idle
from benchmarks.processes import ServerProcess
from benchmarks.turns import Point, in_turn


@attrs.frozen
class Line:
    """CPU microseconds a call against how many there are of something."""

    name: str
    points: tuple[tuple[int, float], ...]


@attrs.frozen
class Growing:
    """What there may be 1 to ``most`` of; ``beside(count)`` is a server that stands beside so many."""

    name: str
    most: int
    beside: Callable[[int], AbstractContextManager[ServerProcess]]

    def counts(self, largest: int) -> list[int]:
        return [10**power for power in range(5) if 10**power <= min(self.most, largest)]


def growing(bare: Sequence[str], whole: Sequence[str]) -> list[Growing]:
    """All that is looked at; ``bare`` and ``whole`` are the commands of the two servers."""
    return [
        Growing("open streams", 10_000, partial(_beside_streams, bare)),
        Growing("open connections", 1_000, partial(_beside_connections, bare)),
        Growing("registered methods", 1_000, partial(_asked_for, bare, "--methods")),
        Growing("applications (trio_serve)", 1_000, partial(_asked_for, whole, "--applications")),
        Growing("replicas (trio_serve)", 100, partial(_asked_for, whole, "--replicas")),
    ]


def lines(chosen: Sequence[Growing], cell: Cell, seconds: float, rounds: int, largest: int) -> list[Line]:
    """Each point up to ``largest``, measured for ``seconds`` in each of so many rounds."""
    with contextlib.ExitStack() as stack:
        points: dict[tuple[str, int], Point] = {}
        for one in chosen:
            for count in one.counts(largest):
                server = stack.enter_context(one.beside(count))
                points[one.name, count] = partial(cell.measure, server, seconds)
        medians = in_turn("growth", points, rounds)
    return [
        Line(one.name, tuple((count, medians[one.name, count].cpu_us) for count in one.counts(largest)))
        for one in chosen
    ]


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


def _asked_for(command: Sequence[str], option: str, count: int) -> ServerProcess:
    return ServerProcess([*command, option, str(count)])
