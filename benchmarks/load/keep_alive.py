"""HTTP/1.1 GETs on connections that stay open: on each, the next request leaves when the answer is whole.

    python -m benchmarks.load.keep_alive PORT PATH --connections 64 --seconds 1     prints one line of JSON

Every answer is looked at: one that is not 200, or another than the first, ends the program.  It takes some
15 µs a request, far less than the servers do, and needs nothing installed.

Source: RFC 9112.  It reads answers with a content-length only.
"""

import argparse
import json
import re
import selectors
import socket
import subprocess
import time

from benchmarks.load.result import Load, percentile
from benchmarks.processes import LOAD_CORE, pinned, python

_LENGTH = re.compile(rb"\r\ncontent-length: *(\d+)\r\n", re.IGNORECASE)


def run(port: int, path: str, *, connections: int, seconds: float) -> Load:
    """The program below, on the load's core; raises RuntimeError when a request failed."""
    command = python("benchmarks.load.keep_alive", str(port), path)
    command += ["--connections", str(connections), "--seconds", str(seconds)]
    with pinned(LOAD_CORE):
        done = subprocess.run(command, capture_output=True, text=True, timeout=seconds + 60)
    if done.returncode:
        raise RuntimeError(f"the HTTP load ended with code {done.returncode}: {done.stderr}")
    seen = json.loads(done.stdout)
    return Load(seen["calls"], seen["seconds"], seen["p50_ms"], seen["p99_ms"])


class Connection:
    """One socket, and the request on it.  The first is asked alone, so that no crowd waits to be accepted."""

    __slots__ = ("_began", "_received", "_request", "socket")

    def __init__(self, port: int, path: str) -> None:
        self.socket = socket.create_connection(("127.0.0.1", port))
        self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._request = f"GET {path} HTTP/1.1\r\nhost: localhost\r\naccept: */*\r\n\r\n".encode()
        self._received = b""
        self.ask()
        while self.answer() is None:
            pass

    def ask(self) -> None:
        self._began = time.perf_counter()
        self.socket.sendall(self._request)

    def answer(self) -> tuple[bytes, float] | None:
        """Read what has come; the body, and the seconds since it was asked for, once it is whole.

        Raises:
            ConnectionError: the answer is not 200 with a length, or the server has closed.
        """
        data = self.socket.recv(65536)
        if not data:
            raise ConnectionError("the server closed the connection")
        self._received += data
        head, end, body = self._received.partition(b"\r\n\r\n")
        if not end:
            return None
        length = _LENGTH.search(head + b"\r\n")
        if not head.startswith(b"HTTP/1.1 200") or length is None:
            raise ConnectionError(f"an answer that is not 200 with a length: {self._received!r}")
        if len(body) < int(length[1]):
            return None
        self._received = b""
        return body, time.perf_counter() - self._began


def latencies_of(connections: list[Connection], seconds: float) -> list[float]:
    """Ask on all connections until the time is over; how long each request took, in seconds."""
    latencies: list[float] = []
    until = time.perf_counter() + seconds
    expected = None
    with selectors.DefaultSelector() as selector:
        for connection in connections:
            selector.register(connection.socket, selectors.EVENT_READ, connection)
            connection.ask()
        while selector.get_map():
            for key, _ in selector.select():
                came = key.data.answer()
                if came is None:
                    continue
                body, took = came
                latencies.append(took)
                expected = body if expected is None else expected
                if body != expected:
                    raise ConnectionError(f"{body!r} came, and {expected!r} before")
                if time.perf_counter() < until:
                    key.data.ask()
                else:
                    selector.unregister(key.fileobj)
    return latencies


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("port", type=int)
    parser.add_argument("path")
    parser.add_argument("--connections", type=int, default=64)
    parser.add_argument("--seconds", type=float, default=1)
    arguments = parser.parse_args()
    began = time.perf_counter()
    connections = [Connection(arguments.port, arguments.path) for _ in range(arguments.connections)]
    latencies = sorted(1000 * latency for latency in latencies_of(connections, arguments.seconds))
    seen = {"calls": len(connections) + len(latencies), "seconds": time.perf_counter() - began}
    seen |= {"p50_ms": percentile(latencies, 0.5), "p99_ms": percentile(latencies, 0.99)}
    print(json.dumps(seen))


if __name__ == "__main__":
    main()
