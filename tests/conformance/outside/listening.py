"""Servers of others: started on a free port, waited for, and killed in the end."""

import contextlib
import socket
import subprocess
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

START_S = 20


def free_port(following: int = 0) -> int:
    """A port that nobody listens on now, nor on the ``following`` ones after it."""
    while True:
        with contextlib.ExitStack() as stack:
            first = stack.enter_context(socket.create_server(("127.0.0.1", 0)))
            port: int = first.getsockname()[1]
            try:
                for offset in range(1, following + 1):
                    stack.enter_context(socket.create_server(("127.0.0.1", port + offset)))
            except (OSError, OverflowError):
                continue
            return port


@contextlib.contextmanager
def listening(
    command: Callable[[int], Sequence[str]],
    directory: str | None = None,
    log: Path | None = None,
    following: int = 0,
) -> Iterator[int]:
    """Start ``command(port)``, wait until it accepts there, and yield the port; ``log`` gets what it says.

    One that listens on the ``following`` ports, too, does so in their order: the last is waited for.

    Raises:
        RuntimeError: it ended, or did not listen in time.
    """
    port = free_port(following)
    with open(log or "/dev/null", "wb") as said:
        server = subprocess.Popen(
            command(port),
            cwd=directory and Path(directory),
            stdin=subprocess.DEVNULL,
            stdout=said,
            stderr=subprocess.STDOUT,
        )
    try:
        _wait(server, port + following)
        yield port
    finally:
        server.kill()
        server.wait()


def _wait(server: "subprocess.Popen[bytes]", port: int) -> None:
    until = time.monotonic() + START_S
    while True:
        with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port)):
            return
        if server.poll() is not None or time.monotonic() > until:
            raise RuntimeError(f"{server.args!r} does not listen on port {port}")
        time.sleep(0.05)
