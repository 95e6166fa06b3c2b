"""A call as grpcio's users see it: awaited, iterated, written to.

    call = stub.Method(request)        the call is under way now, before anything is awaited
    reply = await call                 unary reply
    async for reply in call            streamed reply; call.read() one by one
    await call.write(request); await call.done_writing()      streamed requests
    async with stub.Method(...) as call:                      leaving the block ends the call

The call ends with whoever holds it: cancelling the task that awaits, reads or writes cancels it, and so
does dropping the last reference.  Nobody needs to remember to close anything.

Source: the method names and their meaning are grpc.aio's (``grpc.aio.Call`` and its kinds).
Knows nothing of attempts and connections.
"""

from __future__ import annotations

import functools
import math
from collections.abc import AsyncGenerator, AsyncIterable, AsyncIterator, Callable, Generator, Iterable
from typing import TYPE_CHECKING, Any, Self

import trio

from trio_serve.grpc.pending_call import ANSWERED, SENT, PendingCall
from trio_serve.grpc.replies import MESSAGES_A_TURN, StreamReplyCall, UnaryReplyCall
from trio_serve.grpc.rpc_error import RpcError, StatusCode
from trio_serve.wire.grpc import Metadata, Status, Trailers

if TYPE_CHECKING:
    from trio_serve.grpc.intercepted_call import InterceptedCall

__all__ = [
    "EOF",
    "ClientCall",
    "FinishedCall",
    "StreamReply",
    "StreamStreamCall",
    "StreamUnaryCall",
    "UnaryReply",
    "UnaryStreamCall",
    "UnaryUnaryCall",
]


class EndOfReplies:
    """What ``read`` returns after the last reply; false, and equal to ``grpc.aio.EOF``."""

    def __bool__(self) -> bool:
        return False

    def __eq__(self, other: object) -> bool:
        return repr(other) == repr(self)

    def __hash__(self) -> int:
        return hash(repr(self))

    def __repr__(self) -> str:
        return "<grpc.aio.EOF>"


EOF = EndOfReplies()
"""What `StreamReply.read` returns after the last reply; false, and equal to ``grpc.aio.EOF``."""


class ClientCall:
    """What every kind of call offers."""

    __slots__ = ("__weakref__", "pending")

    pending: PendingCall

    def __init__(self, call: PendingCall) -> None:
        self.pending = call

    def __del__(self) -> None:
        call = self.pending
        if call.end is None:
            call.channel.abandon(call)

    async def __aenter__(self) -> Self:
        await trio.lowlevel.checkpoint()
        return self

    async def __aexit__(self, *_: object) -> None:
        self.pending.cancel()
        await trio.lowlevel.checkpoint_if_cancelled()

    def cancel(self) -> bool:
        """End the call; the server is told (RST_STREAM).  False when it was over already."""
        return self.pending.cancel()

    def cancelled(self) -> bool:
        """Whether the call ended with CANCELLED."""
        return self.pending.end is not None and self.pending.end.status is Status.CANCELLED

    def done(self) -> bool:
        """Whether the call is over."""
        return self.pending.end is not None

    def time_remaining(self) -> float | None:
        """Seconds until the deadline, 0 when it has passed, None without one."""
        if self.pending.deadline == math.inf:
            return None
        return max(0.0, self.pending.deadline - trio.current_time())

    def add_done_callback(self, callback: Callable[[Any], None]) -> None:
        """Call ``callback(call)`` once the call is over; what it raises is logged."""
        self.pending.when_done(functools.partial(callback, self))

    async def code(self) -> StatusCode:
        """Wait until the call is over, and return its status."""
        return StatusCode[(await self._ended()).status.name]

    async def details(self) -> str:
        """Wait until the call is over, and return its status message."""
        return (await self._ended()).message

    async def debug_error_string(self) -> str:
        """Wait until the call is over, and return what is known about how it ended."""
        await self._ended()
        return self.pending.story

    async def initial_metadata(self) -> Metadata:
        """Wait for the server's initial metadata (empty when the call ended without any)."""
        await trio.lowlevel.checkpoint()
        await self.pending.until(ANSWERED, abandon=False)
        return self.pending.initial_metadata

    async def trailing_metadata(self) -> Metadata:
        """Wait until the call is over, and return its trailing metadata."""
        return (await self._ended()).metadata

    async def wait_for_connection(self) -> None:
        """Wait until the call is on a connection.

        Raises:
            RpcError: the call ended before.
        """
        await trio.lowlevel.checkpoint()
        await self.pending.until(SENT, abandon=False)
        if self.pending.end is not None and self.pending.end.status is not Status.OK:
            raise self.pending.error()

    async def _ended(self) -> Trailers:
        await trio.lowlevel.checkpoint()
        if self.pending.end is None:
            await self.pending.over(abandon=False)
        assert self.pending.end is not None
        return self.pending.end


class FinishedCall:
    """How a call ended: what ``with_call`` returns beside the reply (grpcio's synchronous methods)."""

    __slots__ = ("_end", "_initial_metadata")

    def __init__(self, call: PendingCall) -> None:
        assert call.end is not None
        self._end = call.end
        self._initial_metadata = call.initial_metadata

    def code(self) -> StatusCode:
        """The status."""
        return StatusCode[self._end.status.name]

    def details(self) -> str:
        """The status message."""
        return self._end.message

    def initial_metadata(self) -> Metadata:
        """What came with the response headers."""
        return self._initial_metadata

    def trailing_metadata(self) -> Metadata:
        """What came with the status."""
        return self._end.metadata


class UnaryReply(ClientCall):
    """A call that is awaited for its one reply."""

    __slots__ = ()

    pending: UnaryReplyCall | InterceptedCall

    # No coroutine of its own: this is where nearly all of a client's tasks wait.
    def __await__(self) -> Generator[Any, None, Any]:
        call = self.pending
        if call.end is None:
            yield from call.over(abandon=True).__await__()
        else:
            yield from trio.lowlevel.checkpoint().__await__()  # noqa: ASYNC105 (it is awaited so)
        return call.reply()

    async def finished(self) -> tuple[Any, FinishedCall]:
        """Wait for the reply, and return it beside how the call ended."""
        return await self, FinishedCall(self.pending)


class StreamReply(ClientCall):
    """A call that is iterated, or read one reply at a time."""

    __slots__ = ()

    pending: StreamReplyCall | InterceptedCall

    def __aiter__(self) -> AsyncIterator[Any]:
        return self

    async def __anext__(self) -> Any:
        payload = self.pending.next_nowait()
        if payload is None:
            payload = await self.pending.next()
            if payload is None:
                raise StopAsyncIteration
        return self._read(payload)

    async def read(self) -> Any:
        """Wait for the next reply; ``EOF`` after the last one.

        Raises:
            RpcError: the call ended with another status than OK.
        """
        payload = self.pending.next_nowait()
        if payload is None:
            payload = await self.pending.next()
        return EOF if payload is None else self._read(payload)

    def _read(self, payload: bytes) -> Any:
        try:
            return self.pending.read(payload)
        except RpcError as error:
            self.pending.cancel(error.status, error.message or "")
            raise


class StreamRequests(ClientCall):
    """A call whose requests come one by one: from an iterable, or by ``write``."""

    __slots__ = ("_turn", "_written_by_hand")

    def __init__(self, call: PendingCall, requests: Any) -> None:
        super().__init__(call)
        self._turn = 0
        self._written_by_hand = requests is None
        if requests is not None:
            call.channel.start_soon(send_all, call, requests)

    async def write(self, request: Any) -> None:
        """Send a request; waits while the server takes no more.  Cancelling cancels the call.

        Raises:
            RpcError: the call is over.
            TypeError, RuntimeError: the requests come from an iterable; writing has been ended.
        """
        if not self._written_by_hand:
            raise TypeError("this call's requests come from the iterable that it was made with")
        call = self.pending
        if call.end is None:
            if call.requests_ended:
                raise RuntimeError("no request can be written after done_writing()")
            call.send(request)
            self._turn += 1
            if call.crowded:
                await call.room(abandon=True)
            elif self._turn % MESSAGES_A_TURN == 0:
                await trio.lowlevel.checkpoint()
        if call.end is not None:
            await trio.lowlevel.checkpoint()
            raise call.error()

    async def done_writing(self) -> None:
        """Say that no more requests come; a second time does nothing."""
        await trio.lowlevel.checkpoint()
        if self.pending.end is None and not self.pending.requests_ended:
            self.pending.send_end()


async def send_all(call: PendingCall, requests: Iterable[Any] | AsyncIterable[Any]) -> None:
    """Send each of ``requests`` as the server takes them; ends with the call.

    What the iterable raises cancels the call, and is the cause of the error that its reader gets.
    """
    with trio.CancelScope() as scope:
        call.when_done(scope.cancel)
        try:
            if isinstance(requests, AsyncIterable):
                await _send_awaited(call, aiter(requests))
            else:
                for number, request in enumerate(requests, 1):
                    await _send(call, request, number)
        except Exception as error:
            call.failed_by(error, "requests", Status.CANCELLED)
        else:
            if call.end is None:
                call.send_end()


async def _send_awaited(call: PendingCall, requests: AsyncIterator[Any]) -> None:
    number = 0
    try:
        async for request in requests:
            number += 1
            await _send(call, request, number)
    finally:
        if isinstance(requests, AsyncGenerator):
            await requests.aclose()  # it must not run on, or be collected, after its call


async def _send(call: PendingCall, request: Any, number: int) -> None:
    if call.end is None:
        call.send(request)
        if call.crowded:
            await call.room(abandon=False)
    if call.end is not None or number % MESSAGES_A_TURN == 0:
        # Once the call is over this is where the loop over the requests is cancelled.
        await trio.lowlevel.checkpoint()


class UnaryUnaryCall(UnaryReply):
    __slots__ = ()


class UnaryStreamCall(StreamReply):
    __slots__ = ()


class StreamUnaryCall(StreamRequests, UnaryReply):
    __slots__ = ()


class StreamStreamCall(StreamRequests, StreamReply):
    __slots__ = ()
