"""HTTP: a deployment and a FastAPI ingress of ours, beside the same FastAPI application on its usual servers.

    GET on connections that stay open > server > 200 and a dozen bytes      one process, one core

The access logs are off everywhere.  Hypercorn, uvicorn with h11 and we parse with the same h11; uvicorn's
fast form parses in C.
"""

import functools
from collections.abc import Mapping

import attrs

from benchmarks.cells import Cell, Measured
from benchmarks.load import keep_alive
from benchmarks.load.result import Load
from benchmarks.processes import python
from benchmarks.servers.roster import Server

INGRESS = "trio_serve, FastAPI ingress"
CONNECTIONS = (1, 64)


@attrs.frozen
class HttpServer:
    """A server, and the path on it that is asked for."""

    server: Server
    path: str

    @property
    def row(self) -> str:
        """The name in the table; of what is not installed, with the news."""
        name = self.server.name
        return name if self.server.available else f"{name} (not installed: {', '.join(self.server.needs)})"

    def cell(self, connections: int) -> Cell:
        return Cell(_named(connections), "request", functools.partial(_load, self.path, connections))


def servers() -> list[HttpServer]:
    """All that are compared, ours first."""
    return [
        _server("trio_serve, plain deployment", "trio_serve_http", "/plain", ()),
        _server(INGRESS, "trio_serve_http", "/fastapi/hello", ()),
        _server("FastAPI on hypercorn, Trio", "fastapi_hypercorn", "/hello", ()),
        _server("FastAPI on uvicorn, h11", "fastapi_uvicorn", "/hello", ("uvicorn",)),
        _server(
            "FastAPI on uvicorn, httptools and uvloop",
            "fastapi_uvicorn",
            "/hello",
            ("uvicorn", "httptools", "uvloop"),
            "--fast",
        ),
    ]


def ratios(results: Mapping[str, Mapping[str, Measured]]) -> str:
    """CPU of our ingress against each other row of the same run, by the number of connections."""
    ours = results.get(INGRESS, {})
    parts = [
        f"{name}: " + ", ".join(f"{ours[cell].cpu_us / peer[cell].cpu_us:.2f} ({cell})" for cell in ours)
        for name, peer in results.items()
        if peer and ours and name != INGRESS
    ]
    return "; ".join(parts)


def _server(name: str, program: str, path: str, needs: tuple[str, ...], *arguments: str) -> HttpServer:
    command = tuple(python(f"benchmarks.servers.{program}", *arguments))
    return HttpServer(Server(name, command, ("fastapi", *needs)), f"{path}?name=world")


def _named(connections: int) -> str:
    return "1 connection" if connections == 1 else f"{connections} connections"


def _load(path: str, connections: int, port: int, seconds: float) -> Load:
    return keep_alive.run(port, path, connections=connections, seconds=seconds)
