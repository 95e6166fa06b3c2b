"""A gRPC server and client for Trio: `Server` and `Channel`.

Names are imported when they are first used, so that a client does not load the server, nor the other way
round.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from trio_serve.grpc.call import CallEnded, CancelReason, ServerCall
    from trio_serve.grpc.methods import Method, methods_from
    from trio_serve.grpc.rpc_error import RpcError
    from trio_serve.grpc.server import Server
    from trio_serve.wire.grpc import Status

_HOMES = {
    "CallEnded": "trio_serve.grpc.call",
    "CancelReason": "trio_serve.grpc.call",
    "Method": "trio_serve.grpc.methods",
    "RpcError": "trio_serve.grpc.rpc_error",
    "Server": "trio_serve.grpc.server",
    "ServerCall": "trio_serve.grpc.call",
    "Status": "trio_serve.wire.grpc",
    "methods_from": "trio_serve.grpc.methods",
}

__all__ = [
    "CallEnded",
    "CancelReason",
    "Method",
    "RpcError",
    "Server",
    "ServerCall",
    "Status",
    "methods_from",
]


def __getattr__(name: str) -> Any:
    if name in _HOMES:
        return getattr(import_module(_HOMES[name]), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
