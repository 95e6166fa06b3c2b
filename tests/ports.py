"""Free ports, for what has to be told its port before it opens one.

Outside the range from which the kernel takes a connection's own port, so that no other test's connection gets
it meanwhile; and each process that runs tests beside others has a range to itself.
"""

import os
import secrets
import socket

FIRST, EACH = 20_000, 1_000
PROCESSES = 12


def free_port() -> int:
    """A port on which nobody listens now."""
    process = int(os.environ.get("PYTEST_XDIST_WORKER", "gw0").removeprefix("gw")) % PROCESSES
    while True:
        port = FIRST + EACH * process + secrets.randbelow(EACH)
        with socket.socket() as probe:
            try:
                probe.bind(("127.0.0.1", port))
            except OSError:
                continue
            return port
