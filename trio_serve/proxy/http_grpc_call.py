"""One gRPC call made for an HTTP request: its metadata, its deadline, and how it ended.

    HTTP headers       metadata                  HTTP trailers do not exist: metadata that follows the
    grpc-timeout       the call's deadline       answer is told in whatever way the protocol has for it

Source: gRPC over HTTP2, for metadata and timeouts.
Knows nothing of the protocols that are translated.
"""

from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import AbstractAsyncContextManager, aclosing
from math import inf

import attrs
from grpclib.exceptions import GRPCError

from trio_serve.grpc.channel import Channel
from trio_serve.grpc.methods import Method
from trio_serve.grpc.multicallable import UnaryStreamMultiCallable
from trio_serve.grpc.rpc_error import RpcError
from trio_serve.proxy.http_exchange import ClientGone, Receive, Scope
from trio_serve.wire.grpc import Metadata, Status, decode_metadata, decode_timeout

_KEPT_OUT = frozenset(
    (
        *(b"connection", b"content-encoding", b"content-length", b"content-type", b"expect", b"host"),
        *(b"keep-alive", b"te", b"trailer", b"transfer-encoding", b"upgrade", b"user-agent", b"x-request-id"),
        *(b"accept", b"accept-charset", b"accept-encoding", b"accept-language", b"origin", b"referer"),
        *(b"cache-control", b"pragma", b"dnt", b"priority", b"x-grpc-web", b"x-user-agent"),
    )
)
_KEPT_OUT_PREFIXES = (b"grpc-", b"connect-", b"sec-", b"access-control-")


class Multicallables:
    """The methods of one channel, each made once."""

    def __init__(self, channel: Channel) -> None:
        self._channel = channel
        self._by_path: dict[str, UnaryStreamMultiCallable] = {}

    def of(self, method: Method) -> UnaryStreamMultiCallable:
        """The method as bytes in and bytes out; one reply is a stream of one."""
        if not method.service:  # an unknown path: anybody can invent any number of those
            return self._channel.unary_stream(method.path)
        known = self._by_path.get(method.path)
        if known is None:
            known = self._by_path[method.path] = self._channel.unary_stream(method.path)
        return known


@attrs.frozen
class Ending:
    """How a call ended; ``details`` is a serialized ``google.rpc.Status``, or empty."""

    status: Status
    message: str
    metadata: Metadata
    details: bytes = b""


@attrs.define(eq=False)
class GrpcRequest:
    """What a translator gets: the HTTP request, and the method that it calls."""

    scope: Scope
    method: Method
    content_type: bytes
    request_id: str
    message_bytes_max: int
    multicallables: Multicallables
    initial_metadata: Metadata = ()
    ending: Ending | None = None

    def header(self, name: bytes) -> bytes | None:
        return next((value for key, value in self.scope["headers"] if key == name), None)

    def call(
        self, message: bytes, timeout_s: float | None
    ) -> AbstractAsyncContextManager[AsyncIterator[bytes]]:
        """Call the method: in the block, its replies as they come; after the last one there is an `ending`.

        The initial metadata is there with the first of them.  Leaving the block early cancels the call.
        """
        return aclosing(self._replies(message, timeout_s))

    async def _replies(self, message: bytes, timeout_s: float | None) -> AsyncGenerator[bytes, None]:
        try:
            multicallable = self.multicallables.of(self.method)
            call = multicallable(message, timeout=timeout_s, metadata=self._metadata())
        except ValueError as error:
            self.ending = self.failed(Status.INTERNAL, f"malformed metadata: {error}")
            return
        async with call:
            try:
                async for reply in call:
                    self.initial_metadata = await call.initial_metadata()
                    yield reply
            except RpcError as error:
                self.initial_metadata = error.initial_metadata()
                self.ending = self._ended_by(error, timeout_s)
                return
            self.initial_metadata = await call.initial_metadata()
            self.ending = Ending(Status.OK, await call.details(), await call.trailing_metadata())

    def failed(self, status: Status, message: str) -> Ending:
        """An ending that we decide here, with the request id that every answer has."""
        return Ending(status, message, (("request_id", self.request_id),))

    def _ended_by(self, error: RpcError, timeout_s: float | None) -> Ending:
        metadata: Metadata = error.trailing_metadata()
        if error.status is Status.DEADLINE_EXCEEDED and not metadata:
            # Our own end of the call has noticed first, and the server's answer is no longer heard.
            return self.failed(error.status, f"Request timed out after {timeout_s:g}s.")
        details = next((value for key, value in metadata if key == "grpc-status-details-bin"), b"")
        kept = tuple(pair for pair in metadata if pair[0] != "grpc-status-details-bin")
        return Ending(error.status, error.message or "", kept, details if isinstance(details, bytes) else b"")

    def _metadata(self) -> Metadata:
        fields = [
            (name, value)
            for name, value in self.scope["headers"]
            if name not in _KEPT_OUT and not name.startswith(_KEPT_OUT_PREFIXES)
        ]
        metadata = decode_metadata(fields)
        if any(key == "request_id" for key, _ in metadata):
            return metadata
        return (*metadata, ("request_id", self.request_id))

    def timeout_s(self) -> float | None:
        """``grpc-timeout`` in seconds.

        Raises:
            GRPCError: it is none.
        """
        value = self.header(b"grpc-timeout")
        if value is None:
            return None
        try:
            timeout_s = decode_timeout(value)
        except ValueError as error:
            raise GRPCError(Status.INTERNAL, str(error)) from None
        return None if timeout_s == inf else timeout_s

    async def read_body(self, receive: Receive, bytes_max: int) -> bytes:
        """The whole body of the request.

        Raises:
            GRPCError: it is larger than ``bytes_max``; the rest of it has not been read.
            ClientGone: the client left before its end.
        """
        pieces, size = [], 0
        while True:
            message = await receive()
            if message["type"] == "http.disconnect":
                raise ClientGone
            pieces.append(message.get("body", b""))
            size += len(pieces[-1])
            if size > bytes_max:
                raise GRPCError(
                    Status.RESOURCE_EXHAUSTED,
                    f"request of over {bytes_max} bytes is too large for "
                    f"message_bytes_max={self.message_bytes_max} (set it in grpc_options)",
                )
            if not message.get("more_body", False):
                return b"".join(pieces)
