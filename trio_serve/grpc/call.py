"""One call on the server, from its head to its status; it needs no task of its own.

    request_received --> data_received ... --> dispatch(call) --> reply(message)      unary answer, one piece
                              |                               +-> send_message ... finish(status)
                              +--> inbox --> receive_message

    peer's reset | connection lost | deadline | server stopping  --> on_cancel(reason), once

A unary request is dispatched when it is complete, from the reader's turn, its message already parsed; a
streaming one at its head.  Whoever it is dispatched to answers with `reply` or `finish`, at any time, from
anywhere on the loop; the first answer counts, and whatever comes after it is dropped.

Source: gRPC over HTTP2; the status of each mishap is the one that gRPC's status table names for it.
Knows nothing of who handles it.
"""

import enum
import logging
import math
import ssl
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import trio
from grpclib.exceptions import GRPCError

from trio_serve.grpc.counters import MethodCounters
from trio_serve.grpc.inbox import EndOfStream
from trio_serve.grpc.outbox import LARGE_MESSAGE_BYTES, MESSAGES_A_TURN, Outbox
from trio_serve.grpc.request_inbox import RequestInbox
from trio_serve.transport.connection import Http2Connection
from trio_serve.transport.window_loans import Loan
from trio_serve.wire.grpc import (
    OK_TRAILERS,
    RESPONSE_HEADERS,
    FieldBlock,
    Fields,
    MessageReader,
    Metadata,
    RequestHead,
    Status,
    decompressor,
    frame_message,
    to_status,
    trailers,
    trailers_only,
    whole_message,
)
from trio_serve.wire.http2 import ErrorCode, State, Stream, StreamEnded

if TYPE_CHECKING:
    from trio_serve.grpc.methods import Method

logger = logging.getLogger("trio_serve.grpc")

DETAILS_CHARACTERS_MAX = 4096

# Fetched once: before Python 3.12 each look at an enum's member runs a function of the enum's.
_OK = Status.OK
_CLOSED = State.CLOSED


class CancelReason(enum.Enum):
    """Why a call ended before its handler did."""

    CLIENT = "the client cancelled the call"
    CONNECTION_LOST = "the client's connection was lost"
    DEADLINE = "the call's deadline passed"
    SERVER_STOPPING = "the server is stopping"
    BROKEN = "the client broke the protocol"


class CallEnded(Exception):
    """Nothing can be sent or received any more; ``reason`` says why (None: the call was answered)."""

    def __init__(self, reason: CancelReason | None) -> None:
        super().__init__(reason.value if reason else "the call has been answered")
        self.reason = reason


Dispatch = Callable[["ServerCall"], None]
OnCancel = Callable[[CancelReason], None]
TrailingMetadata = Callable[["ServerCall"], Metadata]
OnEnd = Callable[["ServerCall", int, float], None]


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


class Registration:
    """A method and what happens to its calls: resolved once, so that a call looks nothing up.

    ``trailing_metadata(call)`` is what leaves with a status that the server itself decides: for a passed
    deadline, or a request that cannot be read.  ``on_end(call, status number, seconds)`` hears of every end.
    """

    __slots__ = (
        "counters",
        "dispatch",
        "message_bytes_max",
        "method",
        "on_end",
        "streams_replies",
        "streams_requests",
        "trailing_metadata",
    )

    def __init__(
        self,
        method: "Method",
        dispatch: Dispatch,
        message_bytes_max: int,
        counters: MethodCounters,
        trailing_metadata: "TrailingMetadata | None" = None,
        on_end: "OnEnd | None" = None,
    ) -> None:
        self.method = method
        self.dispatch = dispatch
        self.trailing_metadata = trailing_metadata
        self.on_end = on_end
        self.message_bytes_max = message_bytes_max
        self.counters = counters
        self.streams_requests: bool = method.cardinality.value.client_streaming
        self.streams_replies: bool = method.cardinality.value.server_streaming


class ServerCall:
    """One call.  It receives what its stream reports, and answers on it."""

    __slots__ = (
        "_inbox",
        "_outbox",
        "_started_at",
        "connection",
        "context",
        "deadline",
        "head",
        "on_cancel",
        "over",
        "reason",
        "registration",
        "request",
        "status",
        "stream",
    )

    def __init__(
        self,
        connection: Http2Connection,
        stream: Stream,
        registration: Registration,
        head: RequestHead,
        timeout_s: float,
    ) -> None:
        self.connection = connection
        self.stream = stream
        self.head = head
        self.request: Any = None
        """The message of a unary request, parsed."""
        self.context: Any = None
        """Whatever the one that handles this call keeps with it."""
        self.on_cancel: OnCancel | None = None
        """Called at most once, when the call ended although nobody answered it."""
        self.over = False
        """Whether the call has its status; nothing can be sent any more."""
        self.status: Status | None = None
        self.reason: CancelReason | None = None
        self.registration = registration
        self._inbox: RequestInbox | None = None
        self._outbox: Outbox | None = None
        self._started_at = connection.last_read
        self.deadline = math.inf
        registration.counters.started += 1
        if timeout_s != math.inf:
            self.deadline = self._started_at + timeout_s
            connection.alarms.deadlines.watch(self, timeout_s)

    # What the client sent.

    @property
    def method(self) -> "Method":
        """The rpc that is called."""
        return self.registration.method

    @property
    def streams_requests(self) -> bool:
        """Whether the client may send several messages."""
        return self.registration.streams_requests

    @property
    def streams_replies(self) -> bool:
        """Whether the method answers with a stream of messages."""
        return self.registration.streams_replies

    @property
    def path(self) -> str:
        """As on the wire: ``/package.Service/Name``."""
        return self.head.path

    @property
    def metadata(self) -> Metadata:
        """What the client sent: ``(key, value)`` pairs, bytes under ``-bin`` keys."""
        return self.head.metadata

    @property
    def authority(self) -> str:
        """The server's name as the client knows it."""
        return self.head.authority

    @property
    def peer(self) -> str:
        """The client's address, as ``ipv4:127.0.0.1:50000``."""
        return self.connection.peer

    @property
    def tls(self) -> ssl.SSLObject | None:
        """The TLS session; None without TLS."""
        return self.connection.byte_stream.tls

    @property
    def trailing_metadata(self) -> Metadata:
        """What leaves with a status that the server itself decides."""
        own = self.registration.trailing_metadata
        return () if own is None else own(self)

    def time_remaining(self) -> float | None:
        """Seconds until the deadline, 0 when it has passed, None without one."""
        if self.deadline == math.inf:
            return None
        return max(0.0, self.deadline - trio.current_time())

    def is_active(self) -> bool:
        """Whether an answer could still reach the client."""
        return not self.over

    def auth_context(self) -> dict[str, list[bytes]]:
        """What TLS knows of the client, in grpcio's property names; empty without TLS."""
        return read_auth_context(self.tls)

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

    # What we answer.

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
        outbox = self._outbox
        wire = self.connection.wire
        if outbox is None and code is not Status.OK:
            fields = trailers_only(code, details, trailing_metadata, details_bin)
            wire.send_headers(self.stream, fields, end_stream=True)
        else:
            fields = trailers(code, details, trailing_metadata, details_bin)
            self._opened_outbox().send_headers()
            wire.send_headers(self.stream, fields, end_stream=True)
        self.connection.answered()
        self._end(code)
        return True

    def stop(self, reason: CancelReason = CancelReason.SERVER_STOPPING) -> None:
        """End the call from the server's side: UNAVAILABLE, so that a client may try elsewhere."""
        self._cut_off(reason, Status.UNAVAILABLE, f"The call was cut off: {reason.value}.")

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

    # Inside.

    def _open_inbox(self) -> RequestInbox:
        inbox = self._inbox = RequestInbox(self, self.registration.message_bytes_max)
        return inbox

    def _opened_outbox(self) -> Outbox:
        if self._outbox is None:
            self._outbox = Outbox(self.connection, self.stream)
        return self._outbox

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
        self.request = self._parse(payload)
        registration.dispatch(self)

    def _take_unary_request(self) -> Any:
        request, self.request = self.request, None
        if request is None:
            raise EndOfStream
        return request

    def _parse(self, payload: bytes) -> Any:
        method = self.registration.method
        try:
            return method.deserialize(payload)
        except Exception as error:
            name = getattr(method.request_type, "DESCRIPTOR", None)
            wanted = name.full_name if name is not None else "what the method declares"
            raise GRPCError(
                Status.INVALID_ARGUMENT,
                f"request message of {len(payload)} bytes cannot be parsed as {wanted}",
            ) from error

    def _serialize(self, message: Any) -> bytes:
        method = self.registration.method
        try:
            return method.serialize(message)
        except Exception as error:
            raise GRPCError(Status.INTERNAL, str(error)) from error

    def expire(self) -> None:
        """Answer that the deadline has passed, whatever the handler does; nothing when the call had ended."""
        timeout_s = self.deadline - self._started_at
        text = f"Request timed out after {timeout_s:.6g}s."
        self._cut_off(CancelReason.DEADLINE, Status.DEADLINE_EXCEEDED, text)

    def _break(self, error: Exception) -> None:
        if isinstance(error, GRPCError):
            self._cut_off(CancelReason.BROKEN, error.status, error.message or "")
            return
        logger.error("%s could not be dispatched", self.path, exc_info=error)
        text = f"the call could not be dispatched: {type(error).__name__}"
        self._cut_off(CancelReason.BROKEN, Status.INTERNAL, text)

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


def cut_in_the_middle(text: str, size_max: int) -> str:
    """``text``, or its beginning and its end: what is wrong mostly stands in the last line."""
    if len(text) <= size_max:
        return text
    half = (size_max - 5) // 2
    return f"{text[:half]} ... {text[-half:]}"


def read_auth_context(tls: ssl.SSLObject | None) -> dict[str, list[bytes]]:
    """A peer's certificate in grpcio's property names."""
    if tls is None:
        return {}
    context = {"transport_security_type": [b"ssl"]}
    certificate: dict[str, Any] = tls.getpeercert() or {}
    names = [
        str(value).encode()
        for part in certificate.get("subject", ())
        for key, value in part
        if key == "commonName"
    ]
    alternatives = [str(value).encode() for _, value in certificate.get("subjectAltName", ())]
    if names:
        context["x509_common_name"] = names
    if alternatives:
        context["x509_subject_alternative_name"] = alternatives
    return context
