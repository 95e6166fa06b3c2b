"""The well-behaved client: a call every few milliseconds on a connection of its own, until its input closes.

    python -m tests.attacks.probe PORT    {"calls": ..., "errors": [...], "p99_ms": ..., "slowest_ms": ...}

A process of its own, so that an attacker's work does not count as the server's latency.
"""

import json
import select
import socket
import sys
import time

from benchmarks.load import frames
from tests.patience import PATIENCE_S

PAUSE_S = 0.005
BLOCK = frames.request_block("/attacks.Victim/Hello")


def call(connection: socket.socket, received: bytearray, stream_id: int) -> None:
    """One call to its end; raises when it was not answered with a message."""
    request = frames.frame(frames.HEADERS, frames.END_HEADERS, stream_id, BLOCK)
    connection.sendall(request + frames.frame(frames.DATA, frames.END_STREAM, stream_id, frames.message(b"")))
    answered = False
    while True:
        octets = connection.recv(65_536)
        if not octets:
            raise ConnectionError("the server closed the connection")
        received += octets
        for kind, flags, at, payload in frames.walk(received):
            if kind in (frames.SETTINGS, frames.PING) and not flags & frames.ACK:
                answer = payload if kind == frames.PING else b""
                connection.sendall(frames.frame(kind, frames.ACK, 0, answer))
            elif kind in (frames.RST_STREAM, frames.GOAWAY):
                raise ConnectionError(f"frame of type {kind}: {payload!r}")
            elif at == stream_id:
                answered = answered or kind == frames.DATA
                if flags & frames.END_STREAM:
                    if not answered:
                        raise ConnectionError("answered with an error")
                    return


def main() -> None:
    latencies: list[float] = []
    errors: list[str] = []
    connection = socket.create_connection(("127.0.0.1", int(sys.argv[1])))
    connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    connection.settimeout(PATIENCE_S)
    connection.sendall(frames.opening())
    received = bytearray()
    stream_id = 1
    while True:
        began = time.perf_counter()
        try:
            call(connection, received, stream_id)
        except OSError as error:
            errors.append(repr(error))
            break
        latencies.append(1000 * (time.perf_counter() - began))
        if stream_id == 1:
            print("calling", flush=True)
        stream_id += 2
        if select.select([sys.stdin], [], [], PAUSE_S)[0]:
            break
    latencies.sort()
    seen = {"calls": len(latencies), "errors": errors, "p99_ms": 0.0, "slowest_ms": 0.0}
    if latencies:
        seen |= {"p99_ms": latencies[int(0.99 * (len(latencies) - 1))], "slowest_ms": latencies[-1]}
    print(json.dumps(seen))


if __name__ == "__main__":
    main()
