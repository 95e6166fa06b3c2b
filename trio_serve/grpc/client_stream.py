"""A call as grpclib's users see it: the ``Stream`` behind grpclib's generated stubs.

    async with stub.Method.open() as stream:
        await stream.send_message(request, end=True)
        reply = await stream.recv_message()

Leaving the block waits for the call's end and raises its error, or, on the way out of an exception, ends
the call.

Source: ``grpclib.client.Stream``, whose methods, attributes and errors these are.
Knows nothing of attempts and connections.
"""

from __future__ import annotations

from types import TracebackType
from typing import Any, Self

import trio
from grpclib.exceptions import ProtocolError
from multidict import MultiDict

from trio_serve.grpc.client_method import ClientMethod
from trio_serve.grpc.intercepted_call import InterceptedCall
from trio_serve.grpc.pending_call import ANSWERED
from trio_serve.grpc.replies import StreamReplyCall
from trio_serve.wire.grpc import Metadata, MetadataLike, Status

__all__ = ["ClientStream"]


class ClientStream:
    """One call of a grpclib stub."""

    def __init__(
        self,
        method: ClientMethod,
        request_type: type[Any],
        timeout: float | None,
        metadata: MetadataLike | None,
    ) -> None:
        self.initial_metadata: MultiDict[str | bytes] | None = None
        self.trailing_metadata: MultiDict[str | bytes] | None = None
        self._method = method
        self._cardinality = method.cardinality.value
        self._request_type = request_type
        self._timeout = timeout
        self._metadata = metadata
        self._call: StreamReplyCall | InterceptedCall | None = None
        self._request_sent = False
        self._sent_message = False
        self._trailers_taken = False
        self._cancelled_by_us = False

    async def __aenter__(self) -> Self:
        self._call = self._method.begin(StreamReplyCall, self._timeout, self._metadata)
        self._call.enter()
        await trio.lowlevel.checkpoint_if_cancelled()
        return self

    async def __aexit__(
        self,
        exc_type: type[BaseException] | None,
        exc_val: BaseException | None,
        exc_tb: TracebackType | None,
    ) -> None:
        call = self._open_call
        try:
            if exc_val is None and self._request_sent and not self._cancelled_by_us:
                await self._finish()
        finally:
            call.cancel()

    async def send_request(self, *, end: bool = False) -> None:
        """Send the request's header fields; `send_message` does it when it has not been done.

        Raises:
            ProtocolError: it was done already, or ends a unary request without a message.
        """
        if self._request_sent:
            raise ProtocolError("Request is already sent")
        if end and not self._cardinality.client_streaming:
            raise ProtocolError("Unary request requires a message to be sent before ending outgoing stream")
        self._start()
        if end:
            self._open_call.send_end()
        await trio.lowlevel.checkpoint()

    async def send_message(self, message: Any, *, end: bool = False) -> None:
        """Send a request; waits while the server takes no more.  Cancelling cancels the call.

        Raises:
            RpcError: the call is over.
            ProtocolError: no further request may be sent.
            TypeError: it is not of the rpc's request type.
        """
        call = self._open_call
        if not self._cardinality.client_streaming:
            if self._sent_message:
                raise ProtocolError("Message was already sent")
            end = True
        if call.requests_ended:
            raise ProtocolError("Stream is ended")
        if not isinstance(message, self._request_type):
            raise TypeError(
                f"{self._method.path} takes {self._request_type.__name__}, not {type(message).__name__}"
            )
        await trio.lowlevel.checkpoint()
        if call.end is None:
            call.send(message, end)
        self._sent_message = True
        if not self._request_sent:
            self._start()
        await call.room(abandon=True)
        if call.end is not None and call.end.status is not Status.OK:
            self._keep_metadata()
            raise call.error()

    async def end(self) -> None:
        """Say that no more requests come.

        Raises:
            ProtocolError: nothing was sent yet, or it was said already.
        """
        call = self._open_call
        if not self._request_sent:
            raise ProtocolError("Request was not sent")
        if call.requests_ended and self._cardinality.client_streaming:
            raise ProtocolError("Stream was already ended")
        if not self._cardinality.client_streaming and not self._sent_message:
            raise ProtocolError("Unary request requires a single message to be sent")
        if not call.requests_ended and call.end is None:
            call.send_end()
        await trio.lowlevel.checkpoint()

    async def recv_initial_metadata(self) -> None:
        """Wait for the response headers; ``initial_metadata`` is there then.

        Raises:
            RpcError: the server answered with an error at once.
        """
        call = self._open_call
        if not self._request_sent:
            raise ProtocolError("Request was not sent yet")
        if self.initial_metadata is not None:
            raise ProtocolError("Initial metadata was already received")
        await trio.lowlevel.checkpoint()
        await call.until(ANSWERED, abandon=True)
        self._keep_metadata()
        if not call.has_headers and call.end is not None and call.end.status is not Status.OK:
            raise call.error()

    async def recv_message(self) -> Any:
        """Wait for the next reply; None after the last.

        Raises:
            RpcError: the call ended with another status than OK.
        """
        call = self._open_call
        if not self._request_sent:
            raise ProtocolError("Request was not sent yet")
        try:
            payload = await call.next()
        finally:
            self._keep_metadata()
        return None if payload is None else call.read(payload)

    async def recv_trailing_metadata(self) -> None:
        """Wait for the call's end; ``trailing_metadata`` is there then.

        Raises:
            RpcError: it ended with another status than OK.
            ProtocolError: the requests have not been ended.
        """
        call = self._open_call
        if not call.requests_ended:
            raise ProtocolError("Outgoing stream was not ended")
        if self._trailers_taken:
            raise ProtocolError("Trailing metadata was already received")
        self._trailers_taken = True
        await self._finish()

    async def cancel(self) -> None:
        """End the call; the server is told (RST_STREAM).

        Raises:
            ProtocolError: nothing was sent, or it was cancelled already.
        """
        call = self._open_call
        if not self._request_sent:
            raise ProtocolError("Request was not sent yet")
        if self._cancelled_by_us:
            raise ProtocolError("Stream was already cancelled")
        self._cancelled_by_us = True
        call.cancel()
        await trio.lowlevel.checkpoint()

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> Any:
        message = await self.recv_message()
        if message is None:
            raise StopAsyncIteration
        return message

    @property
    def _open_call(self) -> StreamReplyCall | InterceptedCall:
        if self._call is None:
            raise ProtocolError("Use the stream inside 'async with'")
        return self._call

    def _start(self) -> None:
        self._request_sent = True
        self._method.start(self._open_call)

    async def _finish(self) -> None:
        """Wait for the end; messages that nobody took are passed over."""
        call = self._open_call
        await trio.lowlevel.checkpoint()
        if call.end is None:
            await call.over(abandon=True)
        self._keep_metadata()
        assert call.end is not None
        if call.end.status is not Status.OK:
            raise call.error()

    def _keep_metadata(self) -> None:
        call = self._open_call
        if self.initial_metadata is None and call.is_answered:
            self.initial_metadata = _multidict(call.initial_metadata)
        if self.trailing_metadata is None and call.end is not None:
            self.trailing_metadata = _multidict(call.end.metadata)


def _multidict(metadata: Metadata) -> MultiDict[str | bytes]:
    return MultiDict(metadata)
