"""The cells of the table: a piece of work, the load that asks for it, and what one unit of it cost.

    warm up  >  CPU before  >  as much work as fills the time  >  CPU after

The CPU time is the measured process's own; the load runs on the other core.
"""

from collections.abc import Callable
from pathlib import Path

import attrs

from benchmarks.load import changing, golang, h2load
from benchmarks.load.result import Load
from benchmarks.processes import ServerProcess

GREETER = "/benchmarks.Greeter/"
HELLO = b"\n\x05world"
STREAMED_MESSAGES = 2000
BLOB_BYTES = 1024 * 1024
_BLOB = b"\n\x80\x80\x40" + bytes(BLOB_BYTES)
_COUNT = b"\x08\xd0\x0f"  # value: STREAMED_MESSAGES


@attrs.frozen
class Measured:
    """Units a second, microseconds of CPU a unit, and latencies."""

    rate: float
    cpu_us: float
    p50_ms: float
    p99_ms: float


@attrs.frozen
class Cell:
    """One column: ``load(port, seconds)`` works for about so long and says how many units that were."""

    name: str
    unit: str
    load: Callable[[int, float], Load]

    def measure(self, server: ServerProcess, seconds: float) -> Measured:
        self.load(server.port, seconds / 5)
        before = server.cpu_seconds()
        load = self.load(server.port, seconds)
        cpu_s = server.cpu_seconds() - before
        return Measured(load.rate, cpu_s / load.calls * 1e6, load.p50_ms, load.p99_ms)


def cells(go_programs: Path | None) -> list[Cell]:
    """What can be measured with the loads that are here."""
    columns: list[Cell] = []
    if h2load.available():
        columns += [
            Cell("unary, 1 in flight", "call", _same(1)),
            Cell("unary, 16", "call", _same(16)),
            Cell("unary, 64", "call", _same(64)),
            Cell("unary, 256", "call", _same(256, connections=4)),
            Cell("unary, 8 connections x 8", "call", _same(64, connections=8)),
        ]
    columns += [
        Cell("real client, 64", "call", _real(go_programs, "unary", 64)),
        Cell("bidi, 16 streams", "message", _real(go_programs, "chat", 16)),
    ]
    if h2load.available():
        columns += [
            Cell("server-streaming", "message", _streaming),
            Cell("1 MiB echo", "MB", _echo),
        ]
    return columns


def real_client(go_programs: Path | None) -> str:
    return "grpc-go" if go_programs is not None else "a client of our own (no Go here)"


def _filling(seconds: float, once: Callable[[int], Load], at_least: int) -> Load:
    """Make calls, more at a time as their rate becomes known, until the time is filled; all of them count."""
    load = once(at_least)
    calls, spent = load.calls, load.seconds
    while spent < 0.8 * seconds:
        longer = min(16.0, (seconds - spent) / load.seconds)
        load = once(max(at_least, int(load.calls * longer)))
        calls, spent = calls + load.calls, spent + load.seconds
    return Load(calls, spent, load.p50_ms, load.p99_ms)


def _same(in_flight: int, connections: int = 1) -> Callable[[int, float], Load]:
    def load(port: int, seconds: float) -> Load:
        def once(calls: int) -> Load:
            return h2load.run(
                port, GREETER + "SayHello", HELLO, calls=calls, in_flight=in_flight, connections=connections
            )

        return _filling(seconds, once, 4 * in_flight)

    return load


def _real(go_programs: Path | None, work: str, in_flight: int) -> Callable[[int, float], Load]:
    def load(port: int, seconds: float) -> Load:
        if go_programs is not None:
            return golang.run(go_programs / "load", port, work, in_flight=in_flight, seconds=seconds)
        return changing.run(port, work, in_flight=in_flight, seconds=seconds)

    return load


def _streaming(port: int, seconds: float) -> Load:
    def once(calls: int) -> Load:
        return h2load.run(
            port, GREETER + "Count", _COUNT, calls=calls, reply_bytes_min=STREAMED_MESSAGES * len("Hello, 1!")
        )

    streams = _filling(seconds, once, 1)
    return Load(streams.calls * STREAMED_MESSAGES, streams.seconds)


def _echo(port: int, seconds: float) -> Load:
    def once(calls: int) -> Load:
        return h2load.run(port, GREETER + "Echo", _BLOB, calls=calls, in_flight=4, reply_bytes_min=BLOB_BYTES)

    echoes = _filling(seconds, once, 8)
    return Load(echoes.calls * BLOB_BYTES / 1e6, echoes.seconds)
