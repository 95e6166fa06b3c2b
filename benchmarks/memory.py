"""Memory of a server at rest, and what a connection and a stream cost that do nothing.

    process start > first answer > resident set > +N connections > +N streams on them

Knows one peer at a time, over plain sockets: a gRPC client would hide how many connections it makes.
"""

import contextlib
import socket
import time
from collections.abc import Sequence

import attrs

from benchmarks.load import frames
from benchmarks.processes import MEASURED_CORE, Process

CONNECTIONS = 200
STREAMS_A_CONNECTION = 50
_HELLO = frames.message(b"\n\x05world")


@attrs.frozen
class Resting:
    """Seconds from the start of the process to its first answer, and resident memory."""

    first_answer_s: float
    resident_mb: float
    connection_kb: float
    stream_kb: float


class Idle:
    """Connections whose preface and SETTINGS have been exchanged, and calls on them that wait."""

    def __init__(self, port: int) -> None:
        self.port = port
        self._sockets: list[socket.socket] = []

    def close(self) -> None:
        for connection in self._sockets:
            connection.close()

    def open_connections(self, count: int) -> None:
        for _ in range(count):
            connection = socket.create_connection(("127.0.0.1", self.port))
            connection.settimeout(10)
            connection.sendall(frames.opening())
            _exchange(connection, frames.SETTINGS, frames.ACK)
            self._sockets.append(connection)

    def open_streams(self, each: int) -> None:
        """So many calls on each connection that have begun and wait for the client's first message."""
        block = frames.request_block("/benchmarks.Greeter/Chat")
        for connection in self._sockets:
            octets = [
                frames.frame(frames.HEADERS, frames.END_HEADERS, stream_id, block)
                for stream_id in range(1, 2 * each, 2)
            ]
            connection.sendall(b"".join(octets) + frames.frame(frames.PING, 0, 0, bytes(8)))
            _exchange(connection, frames.PING, frames.ACK)


def _exchange(connection: socket.socket, wanted: int, flags_wanted: int) -> None:
    """Read until a frame of this type and flags comes, acknowledging the server's SETTINGS on the way."""
    received = bytearray()
    while True:
        octets = connection.recv(65_536)
        if not octets:
            raise ConnectionError("the server closed an idle connection")
        received += octets
        found = False
        for kind, flags, _, payload in frames.walk(received):
            if kind in (frames.SETTINGS, frames.PING) and not flags & frames.ACK:
                connection.sendall(frames.frame(kind, frames.ACK, 0, payload if kind == frames.PING else b""))
            found = found or (kind == wanted and flags & flags_wanted == flags_wanted)
        if found:
            return


def call_once(port: int) -> None:
    """One SayHello on a connection of its own; returns when the reply has ended."""
    with socket.create_connection(("127.0.0.1", port)) as connection:
        block = frames.request_block("/benchmarks.Greeter/SayHello")
        request = frames.frame(frames.HEADERS, frames.END_HEADERS, 1, block)
        connection.sendall(
            frames.opening() + request + frames.frame(frames.DATA, frames.END_STREAM, 1, _HELLO)
        )
        _exchange(connection, frames.HEADERS, frames.END_STREAM)


def resting(command: Sequence[str], connections: int = CONNECTIONS) -> Resting:
    """Start a server, call it once, open connections and streams, and note its memory at each step."""
    began = time.perf_counter()
    with Process(command, MEASURED_CORE) as server:
        port = int(server.line().split()[1])
        call_once(port)
        first_answer_s = time.perf_counter() - began
        at_rest = _settled(server)
        with contextlib.closing(Idle(port)) as idle:
            idle.open_connections(connections)
            connected = _settled(server)
            idle.open_streams(STREAMS_A_CONNECTION)
            streaming = _settled(server)
    streams = connections * STREAMS_A_CONNECTION
    return Resting(
        first_answer_s,
        at_rest / 1e6,
        (connected - at_rest) / connections / 1024,
        (streaming - connected) / streams / 1024,
    )


def _settled(server: Process) -> int:
    """The resident set once it no longer grows."""
    before = -1
    while (now := server.resident_bytes()) != before:
        before = now
        time.sleep(0.1)
    return now
