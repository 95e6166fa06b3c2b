"""A gRPC server and client for Trio: `Server` and `Channel`.

Names are imported when they are first used, so that a client does not load the server, nor the other way
round.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from trio_serve.grpc.call import ServerCall
    from trio_serve.grpc.call_ended import CallEnded, CancelReason
    from trio_serve.grpc.channel import Channel, ChannelOptions, open_channel
    from trio_serve.grpc.client_call import EOF
    from trio_serve.grpc.client_interceptors import CallDetails, ClientInterceptor
    from trio_serve.grpc.context import ServicerContext, ThreadServicerContext
    from trio_serve.grpc.deadline import current_deadline
    from trio_serve.grpc.health import Health, ServingStatus
    from trio_serve.grpc.inbox import EndOfStream
    from trio_serve.grpc.interceptors import Interceptor
    from trio_serve.grpc.methods import Method, MethodSourceError, methods_from
    from trio_serve.grpc.protos import Protos, load_descriptor_set, load_protos
    from trio_serve.grpc.rpc_error import RpcError, StatusCode
    from trio_serve.grpc.server import SERVER_OPTIONS, Server
    from trio_serve.grpc.subchannel import Connectivity
    from trio_serve.transport.connection import ConnectionOptions
    from trio_serve.transport.dialing import BackoffOptions
    from trio_serve.transport.keepalive import KeepaliveOptions
    from trio_serve.transport.lifetime import LifetimeOptions
    from trio_serve.transport.listener import server_tls
    from trio_serve.wire.grpc import Status
    from trio_serve.wire.http2 import Limits

_HOMES = {
    "BackoffOptions": "trio_serve.transport.dialing",
    "CallDetails": "trio_serve.grpc.client_interceptors",
    "CallEnded": "trio_serve.grpc.call_ended",
    "CancelReason": "trio_serve.grpc.call_ended",
    "Channel": "trio_serve.grpc.channel",
    "ChannelOptions": "trio_serve.grpc.channel",
    "ClientInterceptor": "trio_serve.grpc.client_interceptors",
    "ConnectionOptions": "trio_serve.transport.connection",
    "Connectivity": "trio_serve.grpc.subchannel",
    "current_deadline": "trio_serve.grpc.deadline",
    "EndOfStream": "trio_serve.grpc.inbox",
    "EOF": "trio_serve.grpc.client_call",
    "Health": "trio_serve.grpc.health",
    "Interceptor": "trio_serve.grpc.interceptors",
    "KeepaliveOptions": "trio_serve.transport.keepalive",
    "LifetimeOptions": "trio_serve.transport.lifetime",
    "Limits": "trio_serve.wire.http2",
    "load_descriptor_set": "trio_serve.grpc.protos",
    "load_protos": "trio_serve.grpc.protos",
    "Method": "trio_serve.grpc.methods",
    "methods_from": "trio_serve.grpc.methods",
    "MethodSourceError": "trio_serve.grpc.methods",
    "open_channel": "trio_serve.grpc.channel",
    "Protos": "trio_serve.grpc.protos",
    "RpcError": "trio_serve.grpc.rpc_error",
    "Server": "trio_serve.grpc.server",
    "SERVER_OPTIONS": "trio_serve.grpc.server",
    "server_tls": "trio_serve.transport.listener",
    "ServerCall": "trio_serve.grpc.call",
    "ServicerContext": "trio_serve.grpc.context",
    "ServingStatus": "trio_serve.grpc.health",
    "Status": "trio_serve.wire.grpc",
    "StatusCode": "trio_serve.grpc.rpc_error",
    "ThreadServicerContext": "trio_serve.grpc.context",
}

__all__ = [
    "EOF",
    "SERVER_OPTIONS",
    "BackoffOptions",
    "CallDetails",
    "CallEnded",
    "CancelReason",
    "Channel",
    "ChannelOptions",
    "ClientInterceptor",
    "ConnectionOptions",
    "Connectivity",
    "EndOfStream",
    "Health",
    "Interceptor",
    "KeepaliveOptions",
    "LifetimeOptions",
    "Limits",
    "Method",
    "MethodSourceError",
    "Protos",
    "RpcError",
    "Server",
    "ServerCall",
    "ServicerContext",
    "ServingStatus",
    "Status",
    "StatusCode",
    "ThreadServicerContext",
    "current_deadline",
    "load_descriptor_set",
    "load_protos",
    "methods_from",
    "open_channel",
    "server_tls",
]


def __getattr__(name: str) -> Any:
    if name in _HOMES:
        return getattr(import_module(_HOMES[name]), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
