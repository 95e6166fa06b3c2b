"""How a call is answered, and how it ends.

    reply(message)                       unary answer: headers, message and trailers in one piece
    send_message ... finish(status)      streamed answer
    stop, expire, a broken request       the server's own status, then on_cancel(reason)
            any of them --> _end: counted, and everything that leads back to the call let go

The first answer counts; whatever comes after it is dropped.

Source: gRPC over HTTP2, "Responses".
"""

import logging
import math
from typing import Any

from grpclib.exceptions import GRPCError

from trio_serve.grpc.call_ended import CallEnded, CancelReason
from trio_serve.grpc.call_facts import CallFacts, OnCancel
from trio_serve.grpc.outbox import LARGE_MESSAGE_BYTES, Outbox
from trio_serve.wire.grpc import (
    OK_TRAILERS,
    RESPONSE_HEADERS,
    FieldBlock,
    Fields,
    Metadata,
    Status,
    frame_message,
    to_status,
    trailers,
    trailers_only,
)
from trio_serve.wire.http2 import State, StreamEnded

logger = logging.getLogger("trio_serve.grpc")

DETAILS_CHARACTERS_MAX = 4096

# Fetched once: before Python 3.12 each look at an enum's member runs a function of the enum's.
_OK = Status.OK
_CLOSED = State.CLOSED


class Ignored:
    """The receiver of a stream that has been answered: what still comes has no reader."""

    __slots__ = ()

    def headers_received(self, block: FieldBlock, end_stream: bool) -> None:
        pass

    def data_received(self, data: bytes, end_stream: bool) -> None:
        pass

    def writable(self) -> None:
        pass

    def reset(self, error: StreamEnded) -> None:
        pass


IGNORED = Ignored()


class AnsweredCall(CallFacts):
    """One call, to be answered."""

    __slots__ = ()

    def set_initial_metadata(self, metadata: Metadata) -> None:
        """Send ``metadata`` with the response headers, whenever those leave.

        Raises:
            ValueError, TypeError: metadata that cannot be sent.
            RuntimeError: the response headers have left.
        """
        self._opened_outbox().set_metadata(metadata)

    def send_initial_metadata(self, metadata: Metadata = ()) -> None:
        """Send the response headers now; raises as `set_initial_metadata`."""
        outbox = self._opened_outbox()
        if metadata or outbox.headers_sent:
            outbox.set_metadata(metadata)
        if not self.over:
            outbox.send_headers()

    def set_compression(self, compression: str | int | None) -> None:
        """Compress the messages that follow, if the client takes that: ``"gzip"``, ``"deflate"``,
        ``"identity"``.

        A ``grpc.Compression`` or its number does as well.

        Raises:
            ValueError: an encoding that we do not speak.
        """
        self._opened_outbox().set_compression(compression, self.head.accept_encoding)

    async def send_message(self, message: Any) -> None:
        """Send one message of a streamed reply, and wait while the client takes no more.

        Cancelled while it waits, the message has been sent all the same.

        Raises:
            CallEnded: the call has ended; nothing was sent.
            GRPCError: INTERNAL, ``message`` is not what the method replies with.
        """
        if self.over:
            raise CallEnded(self.reason)
        outbox = self._outbox
        if outbox is None:
            outbox = self._opened_outbox()
        outbox.put(self._serialize(message))
        self.registration.counters.sent += 1
        await outbox.checkpoint()

    def reply(
        self,
        message: Any,
        status: object = Status.OK,
        details: str = "",
        trailing_metadata: Metadata = (),
    ) -> bool:
        """Answer a call that has a unary reply, and end it.  Never waits.

        A message is sent only with OK: a call that failed has none.  Returns False when the call had ended.

        Raises:
            GRPCError: INTERNAL, ``message`` is not what the method replies with; the call is not answered
            by that.
            ValueError: metadata that cannot be sent; the same.
        """
        if self.over:
            return False
        if status is not Status.OK or details:
            status = to_status(status)
            if status is not Status.OK:
                return self.finish(status, details, trailing_metadata)
        if details or trailing_metadata:
            _, *more = trailers(Status.OK, details, trailing_metadata)
            return self.reply_ok(message, tuple(more))
        return self.reply_ok(message)

    def reply_ok(self, message: Any, trailing: Fields = ()) -> bool:
        """As `reply`, for a call that succeeded and whose trailing metadata is encoded; raises as that."""
        if self.over:
            return False
        payload = self._serialize(message)
        if self._outbox is None and len(payload) <= LARGE_MESSAGE_BYTES:
            framed = frame_message(payload)
            self.connection.wire.send_reply(self.stream, RESPONSE_HEADERS, framed, OK_TRAILERS, trailing)
        else:
            self._opened_outbox().reply(payload, OK_TRAILERS + trailing)
        self.registration.counters.sent += 1
        self.connection.answered()
        self._end(_OK)
        return True

    def finish(
        self,
        status: object = Status.OK,
        details: str = "",
        trailing_metadata: Metadata = (),
        details_bin: bytes = b"",
    ) -> bool:
        """End the call with ``status``.  Never waits; returns False when the call had ended.

        ``details_bin`` is a serialized ``google.rpc.Status``.

        Raises:
            ValueError, TypeError: metadata that cannot be sent; the call is not ended by that.
        """
        if self.over:
            return False
        code = to_status(status)
        details = cut_in_the_middle(details, DETAILS_CHARACTERS_MAX)
        if self._outbox is None and code is not Status.OK:
            return self.refuse(code, trailers_only(code, details, trailing_metadata, details_bin))
        fields = trailers(code, details, trailing_metadata, details_bin)
        self._opened_outbox().send_headers()
        self.connection.wire.send_headers(self.stream, fields, end_stream=True)
        self.connection.answered()
        self._end(code)
        return True

    def refuse(self, code: Status, fields: Fields, changing: Fields = ()) -> bool:
        """As `finish`, for a call that was sent nothing and whose answer is encoded (`trailers_only`).

        Where many calls have ``fields`` in common, and only ``changing``, which follows, is this one's own,
        the answer costs a third.
        """
        if self.over:
            return False
        self.connection.wire.send_headers(self.stream, fields, True, changing)
        self.connection.answered()
        self._end(code)
        return True

    def stop(self, reason: CancelReason = CancelReason.SERVER_STOPPING) -> None:
        """End the call from the server's side: UNAVAILABLE, so that a client may try elsewhere."""
        self._cut_off(reason, Status.UNAVAILABLE, f"The call was cut off: {reason.value}.")

    def expire(self) -> None:
        """Answer that the deadline has passed, whatever the handler does; nothing when the call had ended."""
        text = f"Request timed out after {_for_readers(self.deadline - self._started_at)}s."
        self._cut_off(CancelReason.DEADLINE, Status.DEADLINE_EXCEEDED, text)

    def _cut_off(self, reason: CancelReason, status: Status, text: str) -> None:
        if self.over:
            return
        self.reason = reason
        on_cancel = self.on_cancel
        try:
            self.finish(status, text, self.trailing_metadata)
        except (ValueError, TypeError):
            logger.exception("%s: its trailing metadata cannot be sent", self.path)
            self.finish(status, text)
        self._tell(on_cancel, reason)

    def _tell(self, on_cancel: OnCancel | None, reason: CancelReason) -> None:
        if on_cancel is not None:
            try:
                on_cancel(reason)
            except Exception:
                logger.exception("%s: cancelling its handler failed", self.path)

    def _end(self, status: Status) -> None:
        self.over = True
        self.status = status
        self.request = None  # its answer may wait long for a client that does not read
        self.on_cancel = None  # it leads to the handler, which leads back here
        if self.deadline != math.inf:
            self.connection.alarms.deadlines.forget(self)
        number = 0 if status is _OK else status.value
        seconds = self.connection.now() - self._started_at
        registration = self.registration
        registration.counters.ended(number, seconds)
        if registration.on_end is not None:
            registration.on_end(self, number, seconds)
        self.context = None  # it, too, may lead back here
        if self._inbox is not None:
            self._inbox.fail(CallEnded(self.reason))
            self._inbox = None  # it leads back here, too
        if self._outbox is not None:
            self._outbox.wake()
        stream = self.stream
        stream.receiver = IGNORED  # the stream and the call would else keep each other alive
        if stream.state is not _CLOSED:
            # The client may still be sending what nobody will read (RFC 9113 section 8.1).
            self.connection.wire.release_stream(stream, self.connection.now())

    def _opened_outbox(self) -> Outbox:
        if self._outbox is None:
            self._outbox = Outbox(self.connection, self.stream)
        return self._outbox

    def _serialize(self, message: Any) -> bytes:
        try:
            return self.registration.serialize(message)
        except Exception as error:
            raise GRPCError(Status.INTERNAL, str(error)) from error


def _for_readers(seconds: float) -> str:
    """Thousandths at the finest, and no powers of ten."""
    text = f"{seconds:.3f}".rstrip("0").rstrip(".")
    return "less than 0.001" if text == "0" else text


def cut_in_the_middle(text: str, size_max: int) -> str:
    """``text``, or its beginning and its end: what is wrong mostly stands in the last line."""
    if len(text) <= size_max:
        return text
    half = (size_max - 5) // 2
    return f"{text[:half]} ... {text[-half:]}"
