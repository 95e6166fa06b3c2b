"""gRPC services over HTTP/1.1: for browsers (gRPC-Web) and for curl (JSON, Connect's unary protocol).

    POST /package.Service/Method ──> gRPC-Web | Connect ──> a channel in memory ──> the gRPC server
                                       translate                                     > proxy > deployment

A translated call is a real gRPC call, through the server's own door: routing, deadlines, limits, statuses,
cancellation and flow control are the same on both ports, and so is what answers health checks.

Only requests whose content type says so are taken; everything else is for applications.  Each of these types
makes a browser ask first (CORS), and the answer is no until ``cors_origins`` allow it.

Source: gRPC-Web (PROTOCOL-WEB.md of the gRPC project); the Connect protocol; the Fetch standard.
Knows gRPC's channel, and nothing of deployments.
"""

from collections.abc import Awaitable, Callable, Collection
from math import inf

import trio
from grpclib.const import Cardinality

from trio_serve.grpc.channel import Channel
from trio_serve.grpc.methods import Method
from trio_serve.grpc.server import Server
from trio_serve.proxy import http_connect, http_grpc_web
from trio_serve.proxy.counters import OTHER
from trio_serve.proxy.http_answer import HttpAnswer
from trio_serve.proxy.http_cors import Cors
from trio_serve.proxy.http_exchange import Receive, Scope
from trio_serve.proxy.http_grpc_call import GrpcRequest, Multicallables

CALLS_PER_CHANNEL = 90
"""The server takes 100 streams a connection; what is beyond gets a connection of its own."""

Translate = Callable[[GrpcRequest, Receive, HttpAnswer], Awaitable[None]]

_BY_CONTENT_TYPE: dict[bytes, Translate] = {
    b"application/json": http_connect.answer,
    b"application/proto": http_connect.answer,
    b"application/grpc-web": http_grpc_web.answer,
    b"application/grpc-web+proto": http_grpc_web.answer,
    b"application/grpc-web-text": http_grpc_web.answer,
    b"application/grpc-web-text+proto": http_grpc_web.answer,
}


class GrpcOverHttp:
    """Translates for one gRPC server; `run` it while it is used."""

    def __init__(self, server: Server, cors_origins: Collection[str] = ()) -> None:
        self._server = server
        self._cors = Cors(cors_origins)
        self._channels: list[tuple[Channel, Multicallables]] = []
        self._nursery: trio.Nursery | None = None

    async def run(self, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """Keep the channels to the server, until cancelled."""
        async with trio.open_nursery() as self._nursery:
            task_status.started()
            await trio.sleep_forever()

    def takes(self, scope: Scope, path: str) -> bool:
        """Whether this request is for a gRPC service."""
        if scope["type"] != "http" or scope["method"] not in ("POST", "OPTIONS"):
            return False
        if scope["method"] == "OPTIONS":
            return path in self._server.methods and self._cors.is_preflight(scope)
        content_type = _content_type(scope)
        is_web = content_type.startswith(b"application/grpc-web")
        return content_type in _BY_CONTENT_TYPE and (is_web or path in self._server.methods)

    def wrong_type(self, scope: Scope, path: str) -> str | None:
        """What is wrong with a POST to a method of ours that `takes` refused; None when it is none."""
        if scope["type"] != "http" or scope["method"] != "POST" or path not in self._server.methods:
            return None
        types = ", ".join(kind.decode() for kind in _BY_CONTENT_TYPE)
        sent = _content_type(scope).decode("latin-1") or "none"
        return f"{path} is a gRPC method; its content type can be {types}, not {sent}."

    def label(self, path: str) -> str:
        """The path of a method as metrics name it: one that is not served is anybody's invention."""
        return path if path in self._server.methods else OTHER

    async def answer(
        self, scope: Scope, path: str, receive: Receive, answer: HttpAnswer, request_id: str
    ) -> None:
        """Answer a request that `takes` has said yes to."""
        answer.headers += self._cors.headers(scope)
        if scope["method"] == "OPTIONS":
            await answer.send_head_only(204)
            return
        channel, multicallables = await self._channel_with_room()
        method = self._server.methods.get(path) or _unknown(path)
        content_type = _content_type(scope)
        request = GrpcRequest(
            scope, method, content_type, request_id, self._server.message_bytes_max, multicallables
        )
        await _BY_CONTENT_TYPE[content_type](request, receive, answer)

    async def _channel_with_room(self) -> tuple[Channel, Multicallables]:
        for channel, multicallables in self._channels:
            if len(channel.calls) < CALLS_PER_CHANNEL:
                return channel, multicallables
        assert self._nursery is not None
        channel = Channel(self._server, message_bytes_max=2**31 - 1, idle_timeout_s=inf)
        await self._nursery.start(channel.run)
        self._channels.append((channel, Multicallables(channel)))
        return self._channels[-1]


def _content_type(scope: Scope) -> bytes:
    for name, value in scope["headers"]:
        if name == b"content-type":
            kind: bytes = value.partition(b";")[0].strip().lower()
            return kind
    return b""


def _unknown(path: str) -> Method:
    """A method that the server has not; it says so better than we could."""
    return Method(path, "", "", Cardinality.UNARY_UNARY, None, None, bytes, bytes)
