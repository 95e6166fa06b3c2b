"""Which servers there are to compare, and how each is started."""

import importlib.util
from pathlib import Path

import attrs

from benchmarks.processes import python

OURS = "trio_serve.grpc"
OURS_WHOLE = "trio_serve"


@attrs.frozen
class Server:
    """A name for the table, and the command that prints ``ready PORT``."""

    name: str
    command: tuple[str, ...]
    needs: tuple[str, ...] = ()

    @property
    def available(self) -> bool:
        return all(importlib.util.find_spec(module) for module in self.needs)


def _python(name: str, program: str, needs: tuple[str, ...] = (), *arguments: str) -> Server:
    return Server(name, tuple(python(f"benchmarks.servers.{program}", *arguments)), needs)


def roster(go_programs: Path | None) -> list[Server]:
    """The servers that can be had here, ours first; grpc-go when its programs have been built."""
    servers = [
        _python(OURS, "trio_serve_grpc"),
        _python(OURS_WHOLE, "trio_serve_whole"),
        _python("grpcio", "grpcio_sync", ("grpc",)),
        _python("grpc.aio", "grpcio_aio", ("grpc",)),
        _python("grpc.aio, uvloop", "grpcio_aio", ("grpc", "uvloop"), "--uvloop"),
        _python("grpclib", "grpclib_server", ("grpclib",)),
        _python("purerpc", "purerpc_server", ("purerpc",)),
    ]
    if go_programs is not None:
        servers.append(Server("grpc-go", (str(go_programs / "server"),)))
    return [server for server in servers if server.available]
