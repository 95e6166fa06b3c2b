"""A client of our own for where Go is not: it only writes and looks at bytes, and so is fast enough.

Like the Go client it gives every call a deadline, a request id and metadata of its own, and like grpc-go it
puts every field into the HPACK dynamic table, so that the table changes on each request.  It is not a gRPC
client: it sends whole requests and looks at the end of each reply only.

    python -m benchmarks.load.changing PORT --in-flight 64 --seconds 1     prints one line of JSON
    python -m benchmarks.load.changing PORT --work chat ...                streams, message by message
"""

import argparse
import json
import random
import socket
import subprocess
import time
from collections import deque

from benchmarks.load import frames
from benchmarks.load.result import Load, percentile
from benchmarks.processes import LOAD_CORE, pinned, python


def run(port: int, work: str, *, in_flight: int, seconds: float) -> Load:
    """The program below, on the load's core; raises RuntimeError when a call failed."""
    command = python("benchmarks.load.changing", str(port), "--work", work)
    command += ["--in-flight", str(in_flight), "--seconds", str(seconds)]
    with pinned(LOAD_CORE):
        done = subprocess.run(command, capture_output=True, text=True, timeout=seconds + 60)
    if done.returncode:
        raise RuntimeError(f"the client of our own ended with code {done.returncode}: {done.stderr}")
    seen = json.loads(done.stdout)
    return Load(seen["calls"], seen["seconds"], seen["p50_ms"], seen["p99_ms"])


class ChangingBlocks:
    """The field block of each next request, as grpc-go would encode it: every field enters the dynamic table.

    Changing fields enter anew each time; a constant one is referred to until they have pushed it out.
    Source: RFC 7541 sections 2.3.3 (indices), 4.1 (an entry's size), 6.1 and 6.2.1 (representations).
    """

    _TABLE_OCTETS = 4096
    _STATIC = b"\x83\x86"  # :method POST, :scheme http
    _CONSTANT = (
        (b":authority", b"localhost"),
        (b"content-type", b"application/grpc"),
        (b"te", b"trailers"),
        (b"application", b"default"),
    )

    def __init__(self, path: str) -> None:
        self._constant = ((b":path", path.encode()), *self._CONSTANT)
        self._draw = random.Random(1)
        self._entered: dict[tuple[bytes, bytes], int] = {}
        self._sizes: deque[int] = deque()
        self._octets = 0
        self._entries = 0  # that ever entered the table

    def __next__(self) -> bytes:
        draw = self._draw
        parts = [self._STATIC]
        parts += [self._field(field) for field in self._constant]
        parts.append(self._enter((b"grpc-timeout", b"%du" % draw.randrange(20_000_000, 30_000_000))))
        parts.append(self._enter((b"request_id", b"%032x" % draw.getrandbits(128))))
        return b"".join(parts)

    def _field(self, field: tuple[bytes, bytes]) -> bytes:
        entry = self._entered.get(field)
        if entry is not None and self._entries - entry <= len(self._sizes):
            index = 61 + self._entries - entry
            return bytes((0x80 | index,)) if index < 127 else bytes((0xFF, index - 127))
        octets = self._enter(field)
        self._entered[field] = self._entries - 1
        return octets

    def _enter(self, field: tuple[bytes, bytes]) -> bytes:
        name, value = field
        size = 32 + len(name) + len(value)
        self._sizes.append(size)
        self._entries += 1
        self._octets += size
        while self._octets > self._TABLE_OCTETS:
            self._octets -= self._sizes.popleft()
        return bytes((0x40, len(name))) + name + bytes((len(value),)) + value


class Connection:
    """One socket; requests out, ends of replies in."""

    def __init__(self, port: int) -> None:
        self._socket = socket.create_connection(("127.0.0.1", port))
        self._socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._received = bytearray()
        self.send(frames.opening())

    def send(self, octets: bytes) -> None:
        self._socket.sendall(octets)

    def frames(self) -> list[tuple[int, int, int, bytes]]:
        """Wait for octets, answer SETTINGS and PING, and return the frames that have come."""
        octets = self._socket.recv(262_144)
        if not octets:
            raise ConnectionError("the server closed the connection")
        self._received += octets
        came = []
        for kind, flags, stream_id, payload in frames.walk(self._received):
            if kind in (frames.SETTINGS, frames.PING) and not flags & frames.ACK:
                self.send(frames.frame(kind, frames.ACK, 0, payload if kind == frames.PING else b""))
            elif kind in (frames.RST_STREAM, frames.GOAWAY):
                raise ConnectionError(f"frame type {kind} on stream {stream_id}: {payload!r}")
            came.append((kind, flags, stream_id, payload))
        return came


class Unary:
    """Keeps so many calls in flight until the time is over, and notes how long each took."""

    def __init__(self, port: int, in_flight: int) -> None:
        self.connection = Connection(port)
        self.latencies: list[float] = []
        self._blocks = ChangingBlocks("/benchmarks.Greeter/SayHello")
        self._body = frames.message(b"\n\x05world")
        self._in_flight = in_flight
        self._next_stream = 1
        self._began: dict[int, float] = {}

    def run(self, seconds: float) -> None:
        until = time.perf_counter() + seconds
        self._start(self._in_flight)
        while self._began:
            ended = [
                stream_id for _, flags, stream_id, _ in self.connection.frames() if stream_id and flags & 1
            ]
            now = time.perf_counter()
            for stream_id in ended:
                self.latencies.append(now - self._began.pop(stream_id))
            if ended and now < until:
                self._start(len(ended))

    def _start(self, calls: int) -> None:
        now = time.perf_counter()
        octets = []
        for _ in range(calls):
            stream_id = self._next_stream
            self._next_stream += 2
            self._began[stream_id] = now
            octets.append(frames.frame(frames.HEADERS, frames.END_HEADERS, stream_id, next(self._blocks)))
            octets.append(frames.frame(frames.DATA, frames.END_STREAM, stream_id, self._body))
        self.connection.send(b"".join(octets))


class Chat:
    """Keeps so many streams open; on each a message goes out when the answer to the one before has come."""

    def __init__(self, port: int, in_flight: int) -> None:
        self.connection = Connection(port)
        self.latencies: list[float] = []
        self._body = frames.message(b"\n\x05world")
        self._streams = range(1, 2 * in_flight, 2)

    def run(self, seconds: float) -> None:
        block = frames.request_block("/benchmarks.Greeter/Chat")
        until = time.perf_counter() + seconds
        began = dict.fromkeys(self._streams, time.perf_counter())
        for stream_id in self._streams:
            self.connection.send(frames.frame(frames.HEADERS, frames.END_HEADERS, stream_id, block))
            self.connection.send(frames.frame(frames.DATA, 0, stream_id, self._body))
        consumed = 0
        while began:
            octets = []
            for kind, _, stream_id, payload in self.connection.frames():
                if kind != frames.DATA:
                    continue
                now = time.perf_counter()
                self.latencies.append(now - began.pop(stream_id))
                consumed += len(payload)
                if now < until:
                    began[stream_id] = now
                    octets.append(frames.frame(frames.DATA, 0, stream_id, self._body))
            if octets:
                self.connection.send(b"".join(octets))


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("port", type=int)
    parser.add_argument("--work", choices=["unary", "chat"], default="unary")
    parser.add_argument("--in-flight", type=int, default=64)
    parser.add_argument("--seconds", type=float, default=1)
    arguments = parser.parse_args()
    load = (Unary if arguments.work == "unary" else Chat)(arguments.port, arguments.in_flight)
    began = time.perf_counter()
    load.run(arguments.seconds)
    seconds = time.perf_counter() - began
    latencies = sorted(1000 * latency for latency in load.latencies)
    seen = {"calls": len(latencies), "seconds": seconds}
    seen |= {"p50_ms": percentile(latencies, 0.5), "p99_ms": percentile(latencies, 0.99)}
    print(json.dumps(seen))


if __name__ == "__main__":
    main()
