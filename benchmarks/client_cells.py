"""The clients: ours beside grpc.aio's and grpclib's, measured while all of them call the same server.

The client is on the measured core here, and the server, the fastest that is there, on the other.
"""

import importlib.util
import json
from collections.abc import Sequence

import attrs

from benchmarks.cells import Measured
from benchmarks.processes import LOAD_CORE, MEASURED_CORE, Process, python
from benchmarks.servers.roster import Server


@attrs.frozen
class Client:
    name: str
    command: tuple[str, ...]

    def measure(self, port: int, seconds: float, in_flight: int = 64) -> Measured:
        command = [*self.command, str(port), "--in-flight", str(in_flight), "--seconds", str(seconds)]
        with Process(command, MEASURED_CORE) as client:
            seen = json.loads(client.line())
        return Measured(seen["calls"] / seen["seconds"], seen["cpu_us"], seen["p50_ms"], seen["p99_ms"])


def clients() -> list[Client]:
    known = [
        ("trio_serve.grpc", "trio_serve_client", (), "trio_serve"),
        ("grpc.aio", "grpcio_aio", (), "grpc"),
        ("grpc.aio, uvloop", "grpcio_aio", ("--uvloop",), "uvloop"),
        ("grpclib", "grpclib_client", (), "grpclib"),
    ]
    return [
        Client(name, (*python(f"benchmarks.clients.{program}"), *arguments))
        for name, program, arguments, needs in known
        if importlib.util.find_spec(needs)
    ]


def opposite(servers: Sequence[Server]) -> Server:
    """Which of the ``servers`` the clients call.

    grpc-go's where it is there: one of ours, in Python too, would be as busy as our client, and the client's
    rate would be the server's.
    """
    return next((server for server in servers if server.name == "grpc-go"), servers[0])


class Opposite(Process):
    """The server that the clients call, out of their way."""

    def __init__(self, command: Sequence[str]) -> None:
        super().__init__(command, LOAD_CORE)
        self.port = int(self.line().split()[1])
