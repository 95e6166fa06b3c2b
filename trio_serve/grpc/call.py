"""One call on the server, from its head to its status; it needs no task of its own.

    request_received --> data_received ... --> dispatch(call) --> reply(message)      unary answer, one piece
                              |                               +-> send_message ... finish(status)
                              +--> inbox --> receive_message

    peer's reset | connection lost | deadline | server stopping  --> on_cancel(reason), once

A unary request is dispatched when it is complete, from the reader's turn, its message already parsed; a
streaming one at its head.  Whoever it is dispatched to answers with `reply` or `finish`, at any time, from
anywhere on the loop; the first answer counts, and whatever comes after it is dropped.

Its state and what one may read of it are in `call_facts`, how it is answered and ends in `answering`; here is
what its stream reports, and its messages.

Source: gRPC over HTTP2; the status of each mishap is the one that gRPC's status table names for it.
Knows nothing of who handles it.
"""

import logging
from typing import Any

import trio
from grpclib.exceptions import GRPCError

from trio_serve.grpc.answering import AnsweredCall
from trio_serve.grpc.call_ended import CallEnded, CancelReason
from trio_serve.grpc.inbox import EndOfStream
from trio_serve.grpc.outbox import MESSAGES_A_TURN
from trio_serve.grpc.request_inbox import RequestInbox
from trio_serve.transport.window_loans import Loan
from trio_serve.wire.grpc import (
    FieldBlock,
    MessageReader,
    Status,
    decompressor,
    whole_message,
)
from trio_serve.wire.http2 import ErrorCode, StreamEnded

logger = logging.getLogger("trio_serve.grpc")


class ServerCall(AnsweredCall):
    """One call.  It receives what its stream reports, and answers on it."""

    __slots__ = ()

    async def receive_message(self) -> Any:
        """Wait for the next request message and return it, parsed.

        For a unary request, that is the one message, once.  Cancelling loses none.

        Raises:
            EndOfStream: the client has sent its last message.
            GRPCError: the message is over the limit, cut off, or cannot be parsed; the call has ended with
            it.
            CallEnded: the call has ended.
        """
        if not self.registration.streams_requests:
            return self._take_unary_request()
        if self.over:
            raise CallEnded(self.reason)
        inbox = self._inbox
        if inbox is None:
            inbox = self._open_inbox()
        inbox.turn += 1
        if inbox.turn >= MESSAGES_A_TURN:
            inbox.turn = 0
            await trio.lowlevel.checkpoint()  # a window holds tens of thousands of tiny messages
        try:
            while (payload := inbox.take_nowait()) is None:
                await inbox.wait()
            self.registration.counters.received += 1
            return self._parse(payload)
        except GRPCError as error:
            self._break(error)
            raise

    def __aiter__(self) -> "ServerCall":
        return self

    __anext__ = receive_message

    # What the stream reports (StreamReceiver).

    def headers_received(self, block: FieldBlock, end_stream: bool) -> None:
        self.data_received(b"", end_stream)  # trailers of a request: gRPC gives them no meaning

    def data_received(self, data: bytes, end_stream: bool) -> None:
        if self.over:
            return
        try:
            registration = self.registration
            if registration.streams_requests:
                inbox = self._inbox or self._open_inbox()
                inbox.put(data, end_stream)
                return
            if end_stream and self._inbox is None:
                payload = whole_message(data, registration.message_bytes_max)
                if payload is not None:
                    self._begin(payload)
                    return
            self._gather(data, end_stream)
        except Exception as error:
            self._break(error)

    def begin_stream(self) -> None:
        """Dispatch a call with streamed requests; its messages come later."""
        try:
            self.registration.dispatch(self)
        except Exception as error:
            self._break(error)

    def writable(self) -> None:
        if self._outbox is not None:
            self._outbox.wake()

    def reset(self, error: StreamEnded) -> None:
        if not self.over:
            client = error.by_peer and error.code != ErrorCode.NO_ERROR
            reason = CancelReason.CLIENT if client else CancelReason.CONNECTION_LOST
            on_cancel = self.on_cancel
            self.reason = reason
            self._end(Status.CANCELLED)
            self._tell(on_cancel, reason)

    # For the inbox.

    def open_reader(self) -> MessageReader:
        """What cuts the client's DATA into messages (for the inbox)."""
        return MessageReader(self.registration.message_bytes_max, decompressor(self.head.encoding))

    def open_loan(self) -> Loan:
        """How room is borrowed for a large message (for the inbox)."""
        return Loan(self.connection.loans, self.stream)

    def give_back(self, size: int) -> None:
        """Let the client send ``size`` bytes more (for the inbox)."""
        self.connection.wire.acknowledge(self.stream, size)
        self.connection.writer.wake()

    # Inside.

    def _open_inbox(self) -> RequestInbox:
        inbox = self._inbox = RequestInbox(self, self.registration.message_bytes_max)
        return inbox

    def _gather(self, data: bytes, end_stream: bool) -> None:
        """A unary request that came in several pieces, or compressed, or wrong."""
        inbox = self._inbox or self._open_inbox()
        inbox.put(data, end_stream)
        try:
            while (payload := inbox.take_nowait()) is not None:
                if self.request is not None:
                    raise GRPCError(Status.UNIMPLEMENTED, f"{self.path} takes one request message; more came")
                self.request = payload
        except EndOfStream:
            if self.request is None:
                raise GRPCError(
                    Status.UNIMPLEMENTED, f"{self.path} takes one request message; none came"
                ) from None
            self._begin(self.request)

    def _begin(self, payload: bytes) -> None:
        registration = self.registration
        registration.counters.received += 1
        self.request = self._parse(payload) if registration.parses else payload
        registration.dispatch(self)

    def parse_request(self) -> Any:
        """The message of a unary request, for who registered the method with ``parses=False``.

        Raises:
            GRPCError: INVALID_ARGUMENT, it is none.
        """
        message = self.request = self._parse(self.request)
        return message

    def _take_unary_request(self) -> Any:
        request, self.request = self.request, None
        if request is None:
            raise EndOfStream
        return request

    def _parse(self, payload: bytes) -> Any:
        try:
            return self.registration.deserialize(payload)
        except Exception as error:
            name = getattr(self.method.request_type, "DESCRIPTOR", None)
            wanted = name.full_name if name is not None else "what the method declares"
            raise GRPCError(
                Status.INVALID_ARGUMENT,
                f"request message of {len(payload)} bytes cannot be parsed as {wanted}",
            ) from error

    def _break(self, error: Exception) -> None:
        if isinstance(error, GRPCError):
            self._cut_off(CancelReason.BROKEN, error.status, error.message or "")
            return
        logger.error("%s could not be dispatched", self.path, exc_info=error)
        text = f"the call could not be dispatched: {type(error).__name__}"
        self._cut_off(CancelReason.BROKEN, Status.INTERNAL, text)
