"""What a handler sees of its call: grpcio's context, for async and for sync handlers, and grpclib's stream.

    async def Method(self, request, context: ServicerContext)       as under grpc.aio
    def Method(self, request, context: ThreadServicerContext)       as under grpc, in a thread
    async def Method(self, stream: ServicerStream)                  as under grpclib

Source: the public interfaces of ``grpc.aio.ServicerContext``, ``grpc.ServicerContext`` and
``grpclib.server.Stream``.  grpcio is never imported.
"""

import logging
import math
from collections.abc import Callable, Iterable
from typing import Any, NoReturn

import trio
from grpclib.const import Status
from grpclib.exceptions import ProtocolError
from multidict import MultiDict

from trio_serve.grpc.call import ServerCall
from trio_serve.grpc.ending import AbortError, is_expected
from trio_serve.grpc.inbox import EndOfStream
from trio_serve.grpc.rpc_error import pack_details
from trio_serve.wire.grpc import Metadata, MetadataLike, encode_metadata, to_status

logger = logging.getLogger("trio_serve.grpc")

END_OF_STREAM: Any = None
"""What `ServicerContext.read` returns after the last message, as under grpc.aio."""


class CallContext:
    """What both contexts of grpcio have.  Setters only note; they leave with the status."""

    __slots__ = ("_call", "_code", "_details", "_trailing", "callbacks")

    def __init__(self, call: ServerCall) -> None:
        self._call = call
        self._code: object = Status.OK
        self._details = ""
        self._trailing: Metadata = ()
        self.callbacks: list[Callable[..., Any]] | None = None

    def set_code(self, code: object) -> None:
        """End the call with ``code``, once the handler returns.

        Raises:
            TypeError, ValueError: it is no status.
        """
        to_status(code)
        self._code = code

    def set_details(self, details: str) -> None:
        """The text beside the code."""
        self._details = details

    def set_trailing_metadata(self, trailing_metadata: MetadataLike) -> None:
        """Send these after the reply; a second call replaces the first.

        Raises:
            ValueError, TypeError: metadata that cannot be sent.
        """
        self._trailing = _checked(trailing_metadata)

    def set_compression(self, compression: Any) -> None:
        """Compress the messages that follow: a ``grpc.Compression``, ``"gzip"``, ``"deflate"`` or None."""
        self._call.set_compression(compression)

    def disable_next_message_compression(self) -> None:
        """Send the messages that follow as they are."""
        self._call.set_compression(None)

    def code(self) -> object:
        """What `set_code` was given; OK until then."""
        return self._code

    def details(self) -> str:
        """What `set_details` was given."""
        return self._details

    def trailing_metadata(self) -> Metadata:
        """What `set_trailing_metadata` was given."""
        return self._trailing

    def invocation_metadata(self) -> Metadata:
        """What the client sent: ``(key, value)`` pairs, bytes under ``-bin`` keys."""
        return self._call.metadata

    def peer(self) -> str:
        """The client's address, as ``ipv4:127.0.0.1:50000``."""
        return self._call.peer

    def auth_context(self) -> dict[str, list[bytes]]:
        """What TLS knows of the client, in grpcio's property names; empty without TLS."""
        return self._call.auth_context()

    def peer_identities(self) -> list[bytes] | None:
        """The names in the client's certificate; None without one."""
        key = self.peer_identity_key()
        return self.auth_context()[key] if key else None

    def peer_identity_key(self) -> str | None:
        """The property of `auth_context` that has these names."""
        known = self.auth_context()
        for key in ("x509_subject_alternative_name", "x509_common_name"):
            if key in known:
                return key
        return None

    def time_remaining(self) -> float | None:
        """Seconds until the deadline, 0 when it has passed, None without one."""
        return self._call.time_remaining()

    def is_active(self) -> bool:
        """Whether an answer could still reach the client."""
        return not self._call.over

    def answer(self, message: Any) -> None:
        """End a call with a unary reply as the handler left it."""
        call = self._call
        if call.over:
            return
        if self._code is Status.OK and not self._details and not self._trailing:
            call.reply_ok(message)
        else:
            call.reply(message, self._code, self._details, self._trailing)

    def end(self) -> None:
        """End a call with a streamed reply as the handler left it."""
        self._call.finish(self._code, self._details, self._trailing)

    def end_as_set(self, error: Exception) -> None:
        """Where the handler set a status before it raised ``error``, that status counts, as under grpcio.

        Raises:
            AbortError: with that status; nothing otherwise.
        """
        status = to_status(self._code)
        if status is Status.OK or is_expected(error):
            return
        if not isinstance(error, NotImplementedError):  # which is how generated servicers leave a method out
            logger.error("%s: the handler raised", self._call.path, exc_info=error)
        details = self._details or f"{type(error).__name__}: {error}"
        raise AbortError(status, details, self._trailing) from error

    def ended(self) -> None:
        """The handler is done with the call, in whatever way."""
        callbacks, self.callbacks = self.callbacks, None
        for callback in callbacks or ():
            self._call_back(callback)

    def _call_back(self, callback: Callable[..., Any]) -> None:
        callback()

    def _abort(self, code: object, details: str, trailing_metadata: MetadataLike) -> NoReturn:
        status = to_status(code)
        if status is Status.OK:
            raise ValueError("abort() ends a call with an error; return the reply to end it with OK")
        raise AbortError(status, details, _checked(trailing_metadata) or self._trailing)


class ServicerContext(CallContext):
    """For ``async def Method(self, request, context)``."""

    __slots__ = ()

    async def abort(self, code: object, details: str = "", trailing_metadata: MetadataLike = ()) -> NoReturn:
        """End the call here with ``code``: raises, so that the handler goes no further."""
        self._abort(code, details, trailing_metadata)

    async def abort_with_status(self, status: Any) -> NoReturn:
        """As `abort`, with a ``grpc.Status``."""
        self._abort(status.code, status.details, status.trailing_metadata or ())

    async def send_initial_metadata(self, initial_metadata: MetadataLike) -> None:
        """Send the response headers now, with these; raises ValueError for metadata that cannot be sent."""
        self._call.send_initial_metadata(_checked(initial_metadata))
        await trio.lowlevel.checkpoint()

    async def read(self) -> Any:
        """Wait for the next request message; None after the last one."""
        try:
            return await self._call.receive_message()
        except EndOfStream:
            return END_OF_STREAM

    async def write(self, message: Any) -> None:
        """Send one message of a streamed reply; waits while the client takes no more."""
        await self._call.send_message(message)

    def cancelled(self) -> bool:
        """Whether the call ended before it was answered."""
        return self._call.reason is not None

    def done(self) -> bool:
        """Whether the client has its status, or has gone."""
        return self._call.over

    def add_done_callback(self, callback: Callable[["ServicerContext"], Any]) -> None:
        """Call ``callback(context)`` when the handler is done with the call, in whatever way."""
        if self.callbacks is None:
            self.callbacks = []
        self.callbacks.append(callback)

    def _call_back(self, callback: Callable[..., Any]) -> None:
        callback(self)


class ThreadServicerContext(CallContext):
    """For ``def Method(self, request, context)``, which runs in a thread."""

    __slots__ = ()

    def abort(self, code: object, details: str = "", trailing_metadata: MetadataLike = ()) -> NoReturn:
        """End the call here with ``code``: raises, so that the handler goes no further."""
        self._abort(code, details, trailing_metadata)

    def abort_with_status(self, status: Any) -> NoReturn:
        """As `abort`, with a ``grpc.Status``."""
        self._abort(status.code, status.details, status.trailing_metadata or ())

    def send_initial_metadata(self, initial_metadata: MetadataLike) -> None:
        """Send the response headers now, with these; raises ValueError for metadata that cannot be sent."""
        trio.from_thread.run_sync(self._call.send_initial_metadata, _checked(initial_metadata))

    def set_compression(self, compression: Any) -> None:
        """As for async handlers."""
        trio.from_thread.run_sync(self._call.set_compression, compression)

    def cancel(self) -> None:
        """End the call with CANCELLED."""
        trio.from_thread.run_sync(self._call.finish, Status.CANCELLED, "The server cancelled the call.")

    def add_callback(self, callback: Callable[[], Any]) -> bool:
        """Call ``callback()`` when the handler is done with the call; False when the call is over."""
        if self._call.over:
            return False
        if self.callbacks is None:
            self.callbacks = []
        self.callbacks.append(callback)
        return True


class CallDeadline:
    """A call's deadline with grpclib's interface, on Trio's clock."""

    __slots__ = ("_at",)

    def __init__(self, at: float) -> None:
        self._at = at

    def time_remaining(self) -> float:
        """Seconds, 0 when it has passed."""
        return max(0.0, self._at - trio.current_time())


class ServicerStream:
    """For ``async def Method(self, stream)``: grpclib's server stream."""

    __slots__ = ("_call", "_replied", "_unary_reply")

    def __init__(self, call: ServerCall) -> None:
        self._call = call
        self._unary_reply = not call.method.cardinality.value.server_streaming
        self._replied = False

    @property
    def metadata(self) -> "MultiDict[str | bytes]":
        """What the client sent, as a multi-dict."""
        return MultiDict(self._call.metadata)

    @property
    def deadline(self) -> CallDeadline | None:
        return None if self._call.deadline == math.inf else CallDeadline(self._call.deadline)

    @property
    def user_agent(self) -> str | None:
        return next((str(value) for key, value in self._call.metadata if key == "user-agent"), None)

    @property
    def peer(self) -> str:
        return self._call.peer

    async def recv_message(self) -> Any:
        """Wait for the next request message and return it; None after the last one."""
        try:
            return await self._call.receive_message()
        except EndOfStream:
            return None

    def __aiter__(self) -> "ServicerStream":
        return self

    async def __anext__(self) -> Any:
        message = await self.recv_message()
        if message is None:
            raise StopAsyncIteration
        return message

    async def send_initial_metadata(self, *, metadata: MetadataLike | None = None) -> None:
        """Send the response headers now; raises ProtocolError the second time."""
        try:
            self._call.send_initial_metadata(_checked(metadata or ()))
        except RuntimeError as error:
            raise ProtocolError(str(error)) from None
        await trio.lowlevel.checkpoint()

    async def send_message(self, message: Any) -> None:
        """Send a reply message: one for a unary reply, any number for a streamed one."""
        if self._unary_reply and self._replied:
            raise ProtocolError("a reply has been sent already, and the rpc has one only")
        self._replied = True
        await self._call.send_message(message)

    async def send_trailing_metadata(
        self,
        *,
        status: Status = Status.OK,
        status_message: str | None = None,
        status_details: Any = None,
        metadata: MetadataLike | None = None,
    ) -> None:
        """End the call; the handler may go on, but the client has its status."""
        if self._unary_reply and not self._replied and status is Status.OK:
            raise ProtocolError("a unary rpc that ends with OK needs its reply message first")
        message = status_message or ""
        details_bin = pack_details(status, message, status_details) if status_details else b""
        if not self._call.finish(status, message, _checked(metadata or ()), details_bin):
            raise ProtocolError("the call has its status already")
        await trio.lowlevel.checkpoint()

    async def cancel(self) -> None:
        """End the call with CANCELLED."""
        self._call.finish(Status.CANCELLED, "The server cancelled the call.")
        await trio.lowlevel.checkpoint()

    def end(self) -> None:
        """The handler has returned."""
        if self._call.over:
            return
        if self._unary_reply and not self._replied:
            self._call.finish(Status.UNKNOWN, f"{self._call.path} returned without sending its reply")
        else:
            self._call.finish()


def _checked(metadata: MetadataLike) -> Metadata:
    pairs: Iterable[Any] = metadata.items() if hasattr(metadata, "items") else metadata
    checked = tuple((key, value) for key, value in pairs)
    encode_metadata(checked)
    return checked
