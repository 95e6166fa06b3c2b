"""One attempt of a call: one HTTP/2 stream, from the request's header fields to the trailers.

    call ---- open() ----> HEADERS, DATA* ...            a call may need several attempts:
              <- headers, message*, trailers | reset     refused, retried, hedged

The attempt turns what comes on its stream into the call's words and decides nothing: what a failure
leads to is the call's affair.  It runs in the connection reader's turn and needs no task.

Source: gRPC over HTTP2, "Responses" and "HTTP2 Transport Mapping"; gRFC A6 (previous attempts).
Knows nothing of retry policies, deadlines or balancing.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import trio

from trio_serve.transport.connection import Http2Connection
from trio_serve.wire.grpc import (
    FieldBlock,
    ResponseHead,
    Status,
    Trailers,
    read_response_headers,
    read_trailers,
)
from trio_serve.wire.http2 import ErrorCode, Stream, StreamEnded

if TYPE_CHECKING:
    from trio_serve.grpc.outgoing_call import OutgoingCall

__all__ = ["Attempt"]

RESET_STATUS: dict[int, Status] = {  # gRPC over HTTP2, "Errors"
    ErrorCode.REFUSED_STREAM: Status.UNAVAILABLE,
    ErrorCode.CANCEL: Status.CANCELLED,
    ErrorCode.ENHANCE_YOUR_CALM: Status.RESOURCE_EXHAUSTED,
    ErrorCode.INADEQUATE_SECURITY: Status.PERMISSION_DENIED,
}


class Attempt:
    """One stream of one call, or its place in the queue for one (a StreamReceiver)."""

    __slots__ = ("_end_sent", "_sent", "call", "connection", "head", "number", "over", "stream")

    def __init__(self, call: OutgoingCall, number: int) -> None:
        self.call = call
        self.number = number
        self.connection: Http2Connection | None = None
        self.stream: Stream | None = None
        self.head: ResponseHead | None = None
        self.over = False
        self._sent = 0
        self._end_sent = False

    def open(self, connection: Http2Connection) -> None:
        """Open the stream on ``connection`` and send what the call has to send so far.

        Raises:
            TooManyStreams, ConnectionClosing: not here, not now; nothing was sent.
            HeaderListTooLarge: not to this server; nothing was sent.
        """
        call, wire = self.call, connection.wire
        fields = call.changing_fields(self.number)
        self.stream = stream = wire.open_stream(call.form.prefix, self, False, fields)
        self.connection = connection
        requests = call.requests
        if call.requests_ended and len(requests) == 1:
            self._sent = 1
            self._end_sent = True
            wire.send_data(stream, requests[0], True)
            connection.answered()
        else:
            self.push()
        call.attempt_opened()

    def push(self) -> None:
        """Send the requests that the call has kept and this attempt has not sent yet."""
        call, connection, stream = self.call, self.connection, self.stream
        if connection is None or stream is None:
            return
        requests = call.requests
        for number in range(self._sent, len(requests)):
            self._end_sent = call.requests_ended and number + 1 == len(requests)
            connection.wire.send_data(stream, requests[number], self._end_sent)
        self._sent = len(requests)
        if call.requests_ended and not self._end_sent:
            self._end_sent = True
            connection.wire.send_data(stream, b"", True)
        connection.answered()

    def send(self, data: bytes, end: bool) -> None:
        """Send one more framed request of a call that keeps them no longer."""
        if self.connection is not None and self.stream is not None and not self._end_sent:
            self._end_sent = end
            self.connection.wire.send_data(self.stream, data, end)
            self.connection.touch()

    def give_back(self, size: int) -> None:
        """The call has consumed ``size`` bytes of DATA."""
        if self.connection is not None and self.stream is not None:
            self.connection.wire.acknowledge(self.stream, size)
            if self.connection.wire.unsent:
                self.connection.touch()

    def drop(self, code: ErrorCode = ErrorCode.CANCEL) -> None:
        """Nobody wants this attempt any more."""
        if self.over:
            return
        stream = self.stream
        call = self._leave()
        if stream is None:
            call.channel.withdraw(self)
        elif self.connection is not None:
            self.connection.wire.reset_stream(stream, code)
            self.connection.touch()

    def fail(self, status: Status, message: str, code: ErrorCode = ErrorCode.CANCEL) -> None:
        """End the attempt from our side, because of what the server sent or because it cannot start."""
        if not self.over:
            call = self.call
            self.drop(code)
            call.attempt_ended(self, Trailers(status, message, (), b""))

    def _leave(self) -> OutgoingCall:
        """The attempt is over: its stream and its call know it, and would else be kept alive by it."""
        call = self.call
        self.over = True
        self.stream = None
        del self.call
        return call

    # What the wire connection reports (StreamReceiver).

    def headers_received(self, block: FieldBlock, end_stream: bool) -> None:
        if self.over:
            return
        if end_stream:
            self._end(read_trailers(block))
            return
        if self.head is not None:
            self.fail(Status.INTERNAL, "the server sent trailers that do not end the stream")
            return
        head = read_response_headers(block)
        if head.problem is not None:
            self.fail(head.problem.status, head.problem.message)
            return
        self.head = head
        self.call.attempt_answered(self)

    def data_received(self, data: bytes, end_stream: bool) -> None:
        if self.over:
            return
        if data:
            self.call.data_received(self, data)
        if end_stream and not self.over:
            self._end(Trailers(Status.INTERNAL, "the server ended the call without trailers", (), b""))

    def writable(self) -> None:
        if not self.over:
            self.call.writable()

    def reset(self, error: StreamEnded) -> None:
        if self.over:
            return
        end = Trailers(self._status_of(error), str(error), (), b"")
        self._leave().attempt_ended(self, end, processed=error.processed)

    def _status_of(self, error: StreamEnded) -> Status:
        if not error.processed or self.connection is None or self.connection.wire.closed is not None:
            return Status.UNAVAILABLE
        if not error.by_peer:
            return Status.INTERNAL  # we reset it, because the server broke a rule of HTTP/2
        status = RESET_STATUS.get(error.code, Status.INTERNAL)
        if status is Status.CANCELLED and trio.current_time() >= self.call.deadline:
            return Status.DEADLINE_EXCEEDED  # the server's watch was a little quicker than ours
        return status

    def _end(self, end: Trailers) -> None:
        stream = self.stream
        call = self._leave()
        if not self._end_sent and self.connection is not None and stream is not None:
            # The answer is complete, so the rest of the request is of no use to anybody.
            self.connection.wire.reset_stream(stream, ErrorCode.NO_ERROR)
            self.connection.touch()
        call.attempt_ended(self, end)
