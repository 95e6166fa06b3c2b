"""The methods of a stub: what ``XStub(channel)`` gets for each rpc, and calls.

    stub.Method(request, timeout=, metadata=, wait_for_ready=, compression=, credentials=) --> a call

Source: the signatures are those of grpcio's multi-callables.
Knows nothing of how a call is made.
"""

from __future__ import annotations

from collections.abc import AsyncIterable, Callable, Iterable
from typing import Any, ClassVar, Generic, TypeVar, Unpack

from grpclib.const import Cardinality

from trio_serve.grpc.client_call import (
    FinishedCall,
    StreamStreamCall,
    StreamUnaryCall,
    UnaryReply,
    UnaryStreamCall,
    UnaryUnaryCall,
)
from trio_serve.grpc.client_method import CallOptions, ClientMethod
from trio_serve.grpc.replies import StreamReplyCall, UnaryReplyCall
from trio_serve.wire.grpc import MetadataLike

__all__ = [
    "MULTI_CALLABLES",
    "StreamStreamMultiCallable",
    "StreamUnaryMultiCallable",
    "UnaryStreamMultiCallable",
    "UnaryUnaryMultiCallable",
]

HandleT = TypeVar("HandleT")


class _UnaryRequestMethod(ClientMethod, Generic[HandleT]):
    """What takes one request."""

    __slots__ = ()

    _engine: ClassVar[type[UnaryReplyCall | StreamReplyCall]]
    _handle: ClassVar[type[Any]]

    def __call__(
        self,
        request: Any,
        timeout: float | None = None,
        metadata: MetadataLike | None = None,
        **options: Unpack[CallOptions],
    ) -> HandleT:
        """Start a call; never waits.  ``timeout`` in seconds.

        Raises:
            ValueError, TypeError: metadata that cannot be sent, an unknown compression, another option than
                those of `CallOptions`, a request that is no message of the rpc.
        """
        call = self.begin(self._engine, timeout, metadata, options)
        call.send(request, True)
        call.enter()
        self.start(call, options)
        handle: HandleT = self._handle(call)
        return handle


class _StreamRequestMethod(ClientMethod, Generic[HandleT]):
    """What takes any number of requests."""

    __slots__ = ()

    _engine: ClassVar[type[UnaryReplyCall | StreamReplyCall]]
    _handle: ClassVar[type[Any]]

    def __call__(
        self,
        request_iterator: Iterable[Any] | AsyncIterable[Any] | None = None,
        timeout: float | None = None,
        metadata: MetadataLike | None = None,
        **options: Unpack[CallOptions],
    ) -> HandleT:
        """As for one request; they are taken from the iterable as the server takes them, or written."""
        call = self.begin(self._engine, timeout, metadata, options)
        call.enter()
        self.start(call, options)
        handle: HandleT = self._handle(call, request_iterator)
        return handle


class _UnaryReplyMethod:
    """What is answered once."""

    __slots__ = ()

    __call__: Callable[..., Any]

    async def with_call(self, request: Any, *arguments: Any, **options: Any) -> tuple[Any, FinishedCall]:
        """Wait for the reply, and return it beside how the call ended; arguments as in a plain call."""
        call: UnaryReply = self(request, *arguments, **options)
        return await call.finished()


class UnaryUnaryMultiCallable(_UnaryRequestMethod[UnaryUnaryCall], _UnaryReplyMethod):
    """``reply = await stub.Method(request)``."""

    __slots__ = ()
    _engine = UnaryReplyCall
    _handle = UnaryUnaryCall
    cardinality = Cardinality.UNARY_UNARY


class UnaryStreamMultiCallable(_UnaryRequestMethod[UnaryStreamCall]):
    """``async for reply in stub.Method(request)``."""

    __slots__ = ()
    _engine = StreamReplyCall
    _handle = UnaryStreamCall
    cardinality = Cardinality.UNARY_STREAM


class StreamUnaryMultiCallable(_StreamRequestMethod[StreamUnaryCall], _UnaryReplyMethod):
    """``reply = await stub.Method(requests)``, or ``call.write(request)`` on a call made without them."""

    __slots__ = ()
    _engine = UnaryReplyCall
    _handle = StreamUnaryCall
    cardinality = Cardinality.STREAM_UNARY


class StreamStreamMultiCallable(_StreamRequestMethod[StreamStreamCall]):
    """``async for reply in stub.Method(requests)``, or ``write`` and ``read``."""

    __slots__ = ()
    _engine = StreamReplyCall
    _handle = StreamStreamCall
    cardinality = Cardinality.STREAM_STREAM


MULTI_CALLABLES: dict[Cardinality, type[ClientMethod]] = {
    kind.cardinality: kind
    for kind in (
        UnaryUnaryMultiCallable,
        UnaryStreamMultiCallable,
        StreamUnaryMultiCallable,
        StreamStreamMultiCallable,
    )
}
