"""The methods of a stub: what ``XStub(channel)`` gets for each rpc, and calls.

    stub.Method(request, timeout=, metadata=, wait_for_ready=, compression=, credentials=) --> a call

Everything that is the same for all calls of a method is made here, once: its header fields, its part of
the service config.

Source: the signatures are those of grpcio's multi-callables.
Knows nothing of attempts and connections.
"""

from __future__ import annotations

import inspect
from collections.abc import AsyncIterable, Awaitable, Callable, Iterable
from typing import TYPE_CHECKING, Any, TypeAlias, TypeVar

import trio

from trio_serve.grpc.client_call import (
    FinishedCall,
    StreamStreamCall,
    StreamUnaryCall,
    UnaryStreamCall,
    UnaryUnaryCall,
)
from trio_serve.grpc.deadline import inherited_deadline
from trio_serve.grpc.outgoing_call import CallHead, OutgoingCall
from trio_serve.grpc.replies import StreamReplyCall, UnaryReplyCall
from trio_serve.grpc.rpc_error import RpcError
from trio_serve.wire.grpc import (
    ENCODINGS,
    Fields,
    MetadataLike,
    Status,
    compressor,
    encode_metadata,
    frame_message,
    request_prefix,
)
from trio_serve.wire.grpc.compression import Compress

if TYPE_CHECKING:
    from trio_serve.grpc.channel import Channel

__all__ = [
    "ClientMethod",
    "Credentials",
    "StreamStreamMultiCallable",
    "StreamUnaryMultiCallable",
    "UnaryStreamMultiCallable",
    "UnaryUnaryMultiCallable",
    "encoding_name",
]

Credentials: TypeAlias = Callable[[str], MetadataLike | Awaitable[MetadataLike]]
"""What proves who calls: given the method's path, the metadata to send with the call."""

CallT = TypeVar("CallT", bound=OutgoingCall)


def encoding_name(compression: Any) -> str:
    """The message encoding that ``compression`` means: a name, or a member of ``grpc.Compression``.

    Raises:
        ValueError: there is no such encoding.
    """
    if compression is None:
        return "identity"
    number = getattr(compression, "value", compression)
    name = {0: "identity", 1: "deflate", 2: "gzip"}.get(number, str(number).lower())
    if name not in ENCODINGS:
        raise ValueError(f"compression {compression!r} is none of {', '.join(ENCODINGS)}")
    return name


class ClientMethod:
    """One rpc on one channel."""

    __slots__ = ("_channel", "_config", "_deserialize", "_prefixes", "_reply_bytes_max", "_serialize", "path")

    def __init__(
        self,
        channel: Channel,
        path: str,
        serialize: Callable[[Any], bytes] | None,
        deserialize: Callable[[bytes], Any] | None,
    ) -> None:
        self.path = path
        self._channel = channel
        self._serialize = serialize
        self._deserialize = deserialize
        self._config = channel.service_config.for_method(path)
        self._prefixes: dict[str, tuple[Fields, Compress | None]] = {}
        limit = self._config.reply_bytes_max
        self._reply_bytes_max = (
            channel.message_bytes_max if limit is None else min(limit, channel.message_bytes_max)
        )
        self._prefix("identity")

    def begin(
        self,
        make: Callable[[Channel, str, CallHead], CallT],
        timeout: float | None = None,
        metadata: MetadataLike | None = None,
        wait_for_ready: bool | None = None,
        compression: Any = None,
    ) -> CallT:
        """A call that is not started yet.

        Raises:
            ValueError, TypeError: metadata that cannot be sent, an unknown compression.
        """
        channel, config = self._channel, self._config
        encoding = channel.encoding if compression is None else encoding_name(compression)
        prefix, compress = self._prefixes.get(encoding) or self._prefix(encoding)
        if wait_for_ready is None:
            wait_for_ready = (
                channel.wait_for_ready if config.wait_for_ready is None else config.wait_for_ready
            )
        fields = channel.metadata
        if metadata:
            fields = fields + encode_metadata(metadata)
        deadline = self._deadline(timeout)
        head = CallHead(prefix, fields, deadline, compress, self._reply_bytes_max, wait_for_ready)
        call = make(channel, self.path, head)
        if config.retry is not None or config.hedging is not None:
            call.again = channel.retry_settings.again(call, config)
        return call

    def start(self, call: OutgoingCall, credentials: Credentials | None) -> None:
        """Let ``call`` begin, once its credentials are there; never waits."""
        call.enter()
        if credentials is None and self._channel.credentials is None:
            call.start()
        else:
            self.start_authorized(call, credentials)

    def start_authorized(self, call: OutgoingCall, credentials: Credentials | None = None) -> None:
        """Let ``call``, which was entered, begin once its credentials are there; never waits."""
        awaited = []
        for owner in (self._channel.credentials, credentials):
            if owner is None:
                continue
            given = owner(self.path)
            if inspect.isawaitable(given):
                awaited.append(given)
            else:
                call.head.metadata += encode_metadata(given)
        if awaited:
            self._channel.start_soon(self._start_later, call, awaited)
        else:
            call.start()

    def frame(self, request: Any, compress: Compress | None) -> bytes:
        """``request`` as it goes over the wire.

        Raises:
            RpcError: RESOURCE_EXHAUSTED, when it is over the service config's limit.
            TypeError: it is nothing that the rpc's serializer takes.
        """
        try:
            payload = request if self._serialize is None else self._serialize(request)
        except TypeError as error:
            kind = type(request).__name__
            raise TypeError(f"{self.path} got a request of type {kind}, which is no message of it") from error
        limit = self._config.request_bytes_max
        if limit is not None and len(payload) > limit:
            raise RpcError(
                Status.RESOURCE_EXHAUSTED,
                f"request message of {len(payload)} bytes is over maxRequestMessageBytes={limit} "
                "(set in the service config)",
            )
        return frame_message(payload) if compress is None else frame_message(compress(payload), True)

    def read_reply(self, payload: bytes) -> Any:
        """The reply in ``payload``.

        Raises:
            RpcError: INTERNAL, when the deserializer does not take it.
        """
        if self._deserialize is None:
            return payload
        try:
            return self._deserialize(payload)
        except Exception as error:
            text = f"reply message of {self.path} does not parse: {error}"
            raise RpcError(Status.INTERNAL, text) from error

    def _deadline(self, timeout: float | None) -> float:
        deadline = inherited_deadline()
        for seconds in (timeout, self._config.timeout_s):
            if seconds is not None:
                deadline = min(deadline, self._channel.now() + seconds)
        return deadline

    def _prefix(self, encoding: str) -> tuple[Fields, Compress | None]:
        channel = self._channel
        prefix = request_prefix(
            self.path,
            channel.authority,
            scheme=channel.scheme,
            user_agent=channel.user_agent,
            encoding=encoding,
        )
        self._prefixes[encoding] = known = (prefix, compressor(encoding))
        return known

    async def _start_later(self, call: OutgoingCall, awaited: list[Awaitable[MetadataLike]]) -> None:
        with trio.CancelScope() as scope:
            call.when_done(scope.cancel)
            try:
                for one in awaited:
                    call.head.metadata += encode_metadata(await one)
            except Exception as error:  # whatever the user's code raises
                call.failed_by(error, "credentials", Status.UNAVAILABLE)
            else:
                call.start()


class UnaryUnaryMultiCallable(ClientMethod):
    """``reply = await stub.Method(request)``."""

    __slots__ = ()

    def __call__(
        self,
        request: Any,
        timeout: float | None = None,
        metadata: MetadataLike | None = None,
        credentials: Credentials | None = None,
        wait_for_ready: bool | None = None,
        compression: Any = None,
    ) -> UnaryUnaryCall:
        """Start a call; never waits.  ``timeout`` in seconds.

        Raises:
            ValueError, TypeError: metadata that cannot be sent, an unknown compression.
        """
        call = self.begin(UnaryReplyCall, timeout, metadata, wait_for_ready, compression)
        call.send_only(self.frame(request, call.head.compress))
        self.start(call, credentials)
        return UnaryUnaryCall(self, call)

    async def with_call(self, request: Any, **options: Any) -> tuple[Any, FinishedCall]:
        """Wait for the reply, and return it beside how the call ended; options as in a plain call."""
        return await self(request, **options).finished()


class UnaryStreamMultiCallable(ClientMethod):
    """``async for reply in stub.Method(request)``."""

    __slots__ = ()

    def __call__(
        self,
        request: Any,
        timeout: float | None = None,
        metadata: MetadataLike | None = None,
        credentials: Credentials | None = None,
        wait_for_ready: bool | None = None,
        compression: Any = None,
    ) -> UnaryStreamCall:
        """Start a call; as for unary replies."""
        call = self.begin(StreamReplyCall, timeout, metadata, wait_for_ready, compression)
        call.send_only(self.frame(request, call.head.compress))
        self.start(call, credentials)
        return UnaryStreamCall(self, call)


class StreamUnaryMultiCallable(ClientMethod):
    """``reply = await stub.Method(requests)``, or ``call.write(request)`` on a call made without them."""

    __slots__ = ()

    def __call__(
        self,
        request_iterator: Iterable[Any] | AsyncIterable[Any] | None = None,
        timeout: float | None = None,
        metadata: MetadataLike | None = None,
        credentials: Credentials | None = None,
        wait_for_ready: bool | None = None,
        compression: Any = None,
    ) -> StreamUnaryCall:
        """Start a call; the requests are taken from the iterable as the server takes them."""
        call = self.begin(UnaryReplyCall, timeout, metadata, wait_for_ready, compression)
        self.start(call, credentials)
        return StreamUnaryCall(self, call, request_iterator)

    async def with_call(
        self, request_iterator: Iterable[Any] | AsyncIterable[Any], **options: Any
    ) -> tuple[Any, FinishedCall]:
        """Wait for the reply, and return it beside how the call ended; options as in a plain call."""
        return await self(request_iterator, **options).finished()


class StreamStreamMultiCallable(ClientMethod):
    """``async for reply in stub.Method(requests)``, or ``write`` and ``read``."""

    __slots__ = ()

    def __call__(
        self,
        request_iterator: Iterable[Any] | AsyncIterable[Any] | None = None,
        timeout: float | None = None,
        metadata: MetadataLike | None = None,
        credentials: Credentials | None = None,
        wait_for_ready: bool | None = None,
        compression: Any = None,
    ) -> StreamStreamCall:
        """Start a call; the requests are taken from the iterable as the server takes them."""
        call = self.begin(StreamReplyCall, timeout, metadata, wait_for_ready, compression)
        self.start(call, credentials)
        return StreamStreamCall(self, call, request_iterator)
