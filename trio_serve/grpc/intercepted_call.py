"""A call whose answer comes from an interceptor.

    caller --requests--> | one at a time | --> interceptor --proceed--> the next one's call, or the wire's
    caller <--replies--- | one at a time | <--     its task

The caller's side is that of any call (`PendingCall`), so stubs return the same objects for it.  Neither side
runs ahead of the other: a request waits until the interceptor, or what it proceeds with, asks for it, and the
next reply is asked for when the caller has taken the last.

Knows nothing of attempts, connections and bytes.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, AsyncIterable, Callable
from typing import TYPE_CHECKING, Any

import attrs
import trio
from grpclib.exceptions import GRPCError

from trio_serve.grpc.client_call import ClientCall, UnaryReply
from trio_serve.grpc.client_interceptors import CallDetails, ClientInterceptor, Proceed
from trio_serve.grpc.deadline import current_deadline
from trio_serve.grpc.pending_call import PendingCall
from trio_serve.grpc.rpc_error import RpcError, as_rpc_error
from trio_serve.transport.parking import ParkingPlace
from trio_serve.wire.grpc import Metadata, Status, Trailers

if TYPE_CHECKING:
    from trio_serve.grpc.channel import Channel

__all__ = ["InterceptedCall"]

OK = Trailers(Status.OK, "", (), b"")


class InterceptedCall(PendingCall):
    """One call as its caller sees it, and the task of the interceptor around it."""

    __slots__ = (
        "_details",
        "_inner",
        "_interceptor",
        "_proceed",
        "_raised",
        "_replies",
        "_reply_taken",
        "_request_came",
        "_requests",
    )

    def __init__(
        self,
        channel: Channel,
        details: CallDetails,
        deadline: float,
        interceptor: ClientInterceptor,
        proceed: Proceed,
    ) -> None:
        super().__init__(channel, details.path, deadline)
        self._details = details
        self._interceptor = interceptor
        self._proceed = proceed
        self._inner: PendingCall | None = None  # the last one that the interceptor has proceeded with
        self._raised: Exception | None = None
        self._requests: list[Any] = []  # at most one, if the caller waits for room
        self._request_came = ParkingPlace()
        self._replies: list[Any] = []  # at most one
        self._reply_taken = ParkingPlace()

    # The caller's side.

    def start(self) -> None:
        if self.channel.unusable:
            self.cancel(Status.CANCELLED, self.channel.unusable)
        elif self.end is None:
            self.channel.start_soon(self._run)

    def send(self, request: Any, end: bool = False) -> None:
        self._requests.append(request)
        self.requests_ended = end
        self._request_came.wake()

    def send_end(self) -> None:
        self.requests_ended = True
        self._request_came.wake()

    @property
    def crowded(self) -> bool:
        return self.end is None and bool(self._requests)

    def reply(self) -> Any:
        """The reply, of a call that is over; raises the error that it ended with."""
        if self._replies:
            return self._replies[0]
        raise self.error()

    async def next(self) -> Any:
        """The next reply, or None after the last one.  Cancelling cancels the call."""
        while not self._replies:
            if self.end is not None:
                await trio.lowlevel.checkpoint_if_cancelled()
                if self.end.status is not Status.OK:
                    raise self.error()
                return None
            await self.park(abandon=True)
        return self.next_nowait()

    def next_nowait(self) -> Any:
        """The next reply if it is there."""
        if not self._replies:
            return None
        self._reply_taken.wake()
        return self._replies.pop()

    def read(self, reply: Any) -> Any:
        """Replies are messages already."""
        return reply

    def cancel(self, status: Status = Status.CANCELLED, message: str = "the call was cancelled") -> bool:
        if self.end is None:
            self._replies.clear()  # whoever cancels wants no more of them
        return super().cancel(status, message)

    @property
    def lateness(self) -> str:
        inner = self._inner  # it knows what is waited for
        return super().lateness if inner is None or inner.end is not None else inner.lateness

    def error(self) -> Exception:
        return super().error() if self._raised is None else self._raised

    # What is known of it: what is known of the call that the interceptor proceeded with.

    @property
    def is_sent(self) -> bool:
        return self.end is not None or (self._inner is not None and self._inner.is_sent)

    @property
    def has_headers(self) -> bool:
        inner = self._inner
        # Another call may follow one that failed.
        return inner is not None and inner.has_headers and (self.end is not None or not inner.failed)

    @property
    def initial_metadata(self) -> Metadata:
        return () if self._inner is None else self._inner.initial_metadata

    @property
    def peer(self) -> str:
        return "no peer" if self._inner is None else self._inner.peer

    async def until(self, ready: Callable[[PendingCall], bool], *, abandon: bool) -> None:
        while not ready(self):
            inner = self._inner
            if inner is None or inner.end is not None:
                await self.park(abandon=abandon)
                continue
            try:
                await inner.until(ready, abandon=False)
            except trio.Cancelled:
                if abandon:
                    self.cancel()
                raise

    # The interceptor's side.

    async def _run(self) -> None:
        current_deadline.set(self.deadline)  # which calls made in here inherit
        with trio.CancelScope() as scope:
            self.when_done(scope.cancel)
            try:
                await self._intercept()
            except Exception as error:  # whatever the user's code raises
                self._fail(error)

    async def _intercept(self) -> None:
        kind = self._details.cardinality
        requests = _Requests(self)
        request = requests if kind.client_streaming else await anext(requests)
        result = await self._interceptor(attrs.evolve(self._details, request=request), self._go_on)
        if kind.server_streaming:
            await self._relay(result)
        else:
            if isinstance(result, UnaryReply):
                result = await result
            if result is None:
                raise TypeError(f"the interceptor around {self.path} returned None, which is no reply")
            self._replies.append(result)
        if self.end is None:
            inner = None if self._inner is None else self._inner.end
            self.finish(inner if inner is not None and inner.status is Status.OK else OK)

    def _go_on(self, details: CallDetails) -> Any:
        handle: ClientCall = self._proceed(details)
        self._inner = handle.pending
        self.wake()
        return handle

    async def next_request(self) -> Any:
        """Wait for the caller's next request, and take it; StopAsyncIteration after the last one."""
        while not self._requests:
            if self.requests_ended:
                raise StopAsyncIteration
            await self._request_came.park()
        self.wake()
        return self._requests.pop(0)

    async def _relay(self, replies: Any) -> None:
        if not isinstance(replies, AsyncIterable):
            kind = type(replies).__name__
            raise TypeError(f"the interceptor around {self.path} returned {kind}, no replies to iterate over")
        iterator = aiter(replies)
        try:
            async for reply in iterator:
                if reply is None:
                    raise TypeError(f"the interceptor around {self.path} gave None for a reply")
                self._replies.append(reply)
                self.wake()
                while self._replies:
                    await self._reply_taken.park()
        finally:
            if isinstance(iterator, AsyncGenerator):
                await iterator.aclose()  # it must not run on, or be collected, after its call

    def _fail(self, error: Exception) -> None:
        if self.end is not None:
            return
        self._raised = error = as_rpc_error(error) if isinstance(error, GRPCError) else error
        if isinstance(error, RpcError):
            self.finish(Trailers(error.status, error.message or "", error.trailing_metadata(), b""))
        else:
            text = f"an interceptor of {self.path} failed: {type(error).__name__}: {error}"
            self.finish(Trailers(Status.UNKNOWN, text, (), b""))


class _Requests:
    """The caller's requests, as interceptors and calls take them."""

    __slots__ = ("_call",)

    def __init__(self, call: InterceptedCall) -> None:
        self._call = call

    def __aiter__(self) -> _Requests:
        return self

    async def __anext__(self) -> Any:
        return await self._call.next_request()
