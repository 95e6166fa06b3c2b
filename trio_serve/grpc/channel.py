"""A channel: calls to one target, whichever connections that takes.

    async with open_channel("localhost:50051") as channel:
        stub = GreeterStub(channel)                 grpcio's or grpclib's generated stub
        reply = await stub.SayHello(HelloRequest(name="you"))

    call --submit--> a ready subchannel has room? --> its stream
                         | no                ^
                         v                   | connected, a stream ended
                     the queue, bounded -----+       failed: UNAVAILABLE, unless wait_for_ready

Connections are made when the first call needs one, by tasks of the channel's own nursery; calls need no task
at all.  Leaving the block ends the calls that are left, closes the connections, and leaves nothing behind.

Source: gRPC "Connectivity Semantics and API" and "gRPC Wait for Ready Semantics".
Knows nothing of messages.
"""

from __future__ import annotations

import random
import ssl
import threading
from collections import OrderedDict
from collections.abc import AsyncGenerator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any

import attrs
import trio

from trio_serve.grpc.attempt import Attempt
from trio_serve.grpc.balancing import Balancer, PickFirst, RoundRobin
from trio_serve.grpc.client_interceptors import ClientInterceptor
from trio_serve.grpc.client_method import ClientMethod, Credentials, encoding_name
from trio_serve.grpc.multicallable import (
    MULTI_CALLABLES,
    StreamStreamMultiCallable,
    StreamUnaryMultiCallable,
    UnaryStreamMultiCallable,
    UnaryUnaryMultiCallable,
)
from trio_serve.grpc.pending_call import PendingCall
from trio_serve.grpc.retrying import RetrySettings
from trio_serve.grpc.service_config import ServiceConfig, TokenBucket, read_service_config
from trio_serve.grpc.subchannel import Connectivity, SubchannelOptions
from trio_serve.grpc.target import TargetLike, read_target, server_name
from trio_serve.transport.alarms import Alarms
from trio_serve.transport.connection import ConnectionOptions
from trio_serve.transport.dialing import BackoffOptions, ClientTls
from trio_serve.transport.keepalive import KeepaliveOptions
from trio_serve.transport.lifetime import LifetimeOptions
from trio_serve.wire.grpc import MetadataLike, Status, encode_metadata
from trio_serve.wire.http2 import ConnectionClosing, HeaderListTooLarge, TooManyStreams

if TYPE_CHECKING:
    from grpclib.const import Cardinality

    from trio_serve.grpc.client_stream import ClientStream

__all__ = ["Channel", "ChannelOptions", "open_channel"]

USER_AGENT = "grpc-python-trio/0.1.0"
CLOSE_S = 5.0
"""Bound on saying goodbye to peers that do not answer."""


@attrs.frozen(kw_only=True)
class ChannelOptions:
    """What a channel can be told, all of it optional.  Times in seconds, sizes in bytes.

    Args:
        tls: None for plain text, True for the system's trust, or a client context (ALPN h2 is set on it).
        authority: the name to ask for and to find in the certificate, where it is not the target's.
        metadata: sent with every call.
        credentials: asked for metadata at every call, with the method's path; may be async.
        service_config: gRPC's JSON form, as text or decoded.
        balancing: "pick_first" or "round_robin"; over what the service config says.
        wait_for_ready: wait out failures to connect.
        compression: of requests: "gzip", "deflate", or a ``grpc.Compression``.
        interceptors: around every call, the first one outermost.
        message_bytes_max: the largest reply, on the wire and inflated.
        waiting_calls_max: calls that may wait for a connection or a stream; one more fails at once.
        retry_buffer_bytes: requests kept of a call so that it can be tried again.
        keepalive: off, unless it has a ``time_s``.
        idle_timeout_s: a connection without calls is closed after so long.
        backoff: between attempts to connect.
        connection: in place of ``keepalive`` and ``idle_timeout_s``, with all that a connection allows.
        user_agent: stands before our own.
        rng: draws what is varied.

    Raises:
        ValueError, TypeError: from `open_channel`, for an option that makes no sense.
    """

    tls: bool | ssl.SSLContext | None = None
    authority: str | None = None
    metadata: MetadataLike | None = None
    credentials: Credentials | None = None
    service_config: str | dict[str, Any] | ServiceConfig | None = None
    balancing: str | None = None
    wait_for_ready: bool = False
    compression: Any = None
    interceptors: Sequence[ClientInterceptor] = ()
    message_bytes_max: int = 4 * 1024 * 1024
    waiting_calls_max: int = 10_000
    retry_buffer_bytes: int = 256 * 1024
    keepalive: KeepaliveOptions = attrs.field(factory=KeepaliveOptions)
    idle_timeout_s: float = 1800.0
    backoff: BackoffOptions = attrs.field(factory=BackoffOptions)
    connection: ConnectionOptions | None = None
    user_agent: str = ""
    rng: random.Random = attrs.field(factory=random.Random)


@asynccontextmanager
async def open_channel(target: TargetLike, **options: Any) -> AsyncGenerator[Channel, None]:
    """A channel to ``target`` for the length of the block; ``options`` are those of `ChannelOptions`.

    Does not connect yet.  Leaving the block cancels calls that are still under way.

    Raises:
        ValueError, TypeError: a target or an option that makes no sense.
    """
    channel = Channel(target, **options)
    failure: BaseException | None = None
    try:
        async with trio.open_nursery() as nursery:
            await nursery.start(channel.run)
            try:
                yield channel
            except BaseException as error:
                if _holds_cancelled(error):
                    raise
                failure = error  # kept out of the nursery, which would wrap it in a group
            channel.close()
    finally:
        if failure is not None:
            raise failure


def _checked(interceptors: Sequence[ClientInterceptor]) -> tuple[ClientInterceptor, ...]:
    for one in interceptors:
        if not callable(one):
            raise TypeError(f"interceptor {one!r} is no function of (call, proceed)")
    return tuple(interceptors)


def _holds_cancelled(error: BaseException) -> bool:
    if isinstance(error, BaseExceptionGroup):
        return error.subgroup(trio.Cancelled) is not None
    return isinstance(error, trio.Cancelled)


class Channel:
    """What stubs are made on.  ``run`` it in a nursery, or use `open_channel`."""

    def __init__(self, target: TargetLike, **options: Any) -> None:
        settings = ChannelOptions(**options)
        self._target = read_target(target, self._start)
        self.authority = settings.authority or self._target.authority
        self.scheme = "https" if settings.tls else "http"
        self.user_agent = f"{settings.user_agent} {USER_AGENT}".strip()
        self.metadata = encode_metadata(settings.metadata) if settings.metadata else ()
        self.credentials = settings.credentials
        self.encoding = encoding_name(settings.compression)
        self.interceptors = _checked(settings.interceptors)
        self.message_bytes_max = settings.message_bytes_max
        self.retry_buffer_bytes = settings.retry_buffer_bytes
        self.wait_for_ready = settings.wait_for_ready
        self.service_config = read_service_config(settings.service_config)
        self.alarms = Alarms()
        self.now: Callable[[], float] = trio.current_time
        """`trio.current_time`; while the channel runs, without its detour through the run context."""
        self.calls: dict[PendingCall, None] = {}  # in the order in which they began
        throttling = self.service_config.throttling
        throttle = TokenBucket(throttling) if throttling is not None else None
        self.retry_settings = RetrySettings(self.alarms, settings.rng, throttle)
        self._methods: dict[tuple[str, type[Any], type[Any]], ClientMethod] = {}  # of grpclib's stubs
        self._waiting: OrderedDict[Attempt, None] = OrderedDict()
        self._waiting_max = settings.waiting_calls_max
        self._balancer = self._make_balancer(settings)
        self._nursery: trio.Nursery | None = None
        self._token: trio.lowlevel.TrioToken | None = None
        self._thread = 0
        self._closed = False
        self._changed = trio.Event()

    def __repr__(self) -> str:
        return f"<Channel {self._target.text} {self.get_state().name}>"

    def _make_balancer(self, settings: ChannelOptions) -> Balancer:
        tls = None
        if settings.tls:
            context = ssl.create_default_context() if settings.tls is True else settings.tls
            context.set_alpn_protocols(["h2"])
            tls = ClientTls(context, server_name(self.authority))
        connection = settings.connection or ConnectionOptions(
            keepalive=settings.keepalive,
            lifetime=LifetimeOptions(idle_max_s=settings.idle_timeout_s),
        )
        subchannels = SubchannelOptions(connection, settings.backoff, settings.rng)
        wanted = settings.balancing or self.service_config.balancing or "pick_first"
        if wanted not in BALANCERS:
            raise ValueError(f"balancing {wanted!r} is none of {', '.join(BALANCERS)}")
        return BALANCERS[wanted](self._target, tls, self, self.alarms, subchannels)

    # Making calls.

    def unary_unary(
        self,
        method: str,
        request_serializer: Callable[[Any], bytes] | None = None,
        response_deserializer: Callable[[bytes], Any] | None = None,
        _registered_method: bool = False,
    ) -> UnaryUnaryMultiCallable:
        """The rpc at ``/package.Service/Method``; without serializers its messages are bytes."""
        return UnaryUnaryMultiCallable(self, method, request_serializer, response_deserializer)

    def unary_stream(
        self,
        method: str,
        request_serializer: Callable[[Any], bytes] | None = None,
        response_deserializer: Callable[[bytes], Any] | None = None,
        _registered_method: bool = False,
    ) -> UnaryStreamMultiCallable:
        """As `unary_unary`, with streamed replies."""
        return UnaryStreamMultiCallable(self, method, request_serializer, response_deserializer)

    def stream_unary(
        self,
        method: str,
        request_serializer: Callable[[Any], bytes] | None = None,
        response_deserializer: Callable[[bytes], Any] | None = None,
        _registered_method: bool = False,
    ) -> StreamUnaryMultiCallable:
        """As `unary_unary`, with streamed requests."""
        return StreamUnaryMultiCallable(self, method, request_serializer, response_deserializer)

    def stream_stream(
        self,
        method: str,
        request_serializer: Callable[[Any], bytes] | None = None,
        response_deserializer: Callable[[bytes], Any] | None = None,
        _registered_method: bool = False,
    ) -> StreamStreamMultiCallable:
        """As `unary_unary`, with streamed requests and replies."""
        return StreamStreamMultiCallable(self, method, request_serializer, response_deserializer)

    def request(
        self,
        name: str,
        cardinality: Cardinality,
        request_type: type[Any],
        reply_type: type[Any],
        *,
        timeout: float | None = None,
        deadline: Any = None,
        metadata: MetadataLike | None = None,
    ) -> ClientStream:
        """A call as grpclib's generated stubs make it."""
        from trio_serve.grpc.client_stream import ClientStream  # only grpclib's users need multidict

        if deadline is not None:
            left = deadline.time_remaining()
            timeout = left if timeout is None else min(left, timeout)
        method = self._methods.get((name, request_type, reply_type))
        if method is None:
            kind = MULTI_CALLABLES[cardinality]
            method = kind(self, name, request_type.SerializeToString, reply_type.FromString)
            self._methods[name, request_type, reply_type] = method
        return ClientStream(method, request_type, timeout, metadata)

    # Connectivity.

    def get_state(self, try_to_connect: bool = False) -> Connectivity:
        """Where the channel stands; ``try_to_connect`` leaves IDLE."""
        if self._closed:
            return Connectivity.SHUTDOWN
        state = self._balancer.state
        if try_to_connect and state is Connectivity.IDLE:
            self._balancer.connect()
        return state

    async def wait_for_state_change(self, last_observed_state: object) -> None:
        """Wait until the state is another one than ``last_observed_state``."""
        await trio.lowlevel.checkpoint()
        while self.get_state() == last_observed_state:
            await self._changed.wait()

    async def channel_ready(self) -> None:
        """Connect, and wait until the channel is READY, through failures too."""
        await trio.lowlevel.checkpoint()
        while (state := self.get_state(try_to_connect=True)) is not Connectivity.READY:
            if state is Connectivity.SHUTDOWN:
                raise trio.ClosedResourceError("the channel was closed")
            await self._changed.wait()

    # Its life.

    async def run(self, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """Keep the connections, until `close`; cancelling drops them."""
        self._token = trio.lowlevel.current_trio_token()
        self.now = trio.lowlevel.current_clock().current_time
        self._thread = threading.get_ident()
        try:
            async with trio.open_nursery() as nursery:
                self._nursery = nursery
                nursery.start_soon(self.alarms.run)
                task_status.started()
                await self._balancer.run()
                nursery.cancel_scope.cancel()
        finally:
            self.close()
            self._nursery = None

    def close(self) -> None:
        """End every call with CANCELLED and say goodbye to the servers; a second time does nothing."""
        if self._closed:
            return
        self._closed = True
        for call in list(self.calls):
            call.cancel(Status.CANCELLED, "the channel was closed")
        self._balancer.close()
        self._announce()
        if self._nursery is not None:
            self._nursery.cancel_scope.deadline = trio.current_time() + CLOSE_S

    # What calls need.

    @property
    def unusable(self) -> str:
        """Why no call can be made now; empty when one can."""
        if self._closed:
            return "the channel was closed"
        return "" if self._nursery is not None else "the channel is not open; use open_channel()"

    def submit(self, attempt: Attempt) -> None:
        """Open the attempt's stream now, or as soon as there is room for it."""
        if self._closed or self._nursery is None:
            attempt.fail(Status.CANCELLED, self.unusable)
        elif self._waiting or not self._open(attempt):
            self._enqueue(attempt)

    def withdraw(self, attempt: Attempt) -> None:
        """The attempt need not be opened any more."""
        self._waiting.pop(attempt, None)

    def abandon(self, call: PendingCall) -> None:
        """Nobody holds ``call`` any more.  May be called from any thread: the garbage collector's."""
        if threading.get_ident() == self._thread:
            call.cancel()
        elif self._token is not None:
            try:
                self._token.run_sync_soon(call.cancel)
            except trio.RunFinishedError:
                return  # and so are all of its calls

    def start_soon(self, function: Callable[..., Awaitable[Any]], *args: Any) -> None:
        """Run ``function`` in the channel's nursery, with the caller's contextvars."""
        if self._nursery is not None:
            self._nursery.start_soon(function, *args)

    async def _start(self, function: Callable[..., Awaitable[Any]]) -> None:
        assert self._nursery is not None  # only a running channel dials
        await self._nursery.start(function)

    def waiting_for(self) -> str:
        """What a call without a stream waits for, as the end of a sentence."""
        state = self._balancer.state
        if state is Connectivity.READY:
            return ", waiting for the server to allow another stream"
        failure = f": {self._balancer.failure}" if self._balancer.failure else ""
        return f", waiting for a connection to {self._target.text} ({state.value}{failure})"

    def _open(self, attempt: Attempt) -> bool:
        for subchannel in self._balancer.order():
            connection = subchannel.connection
            if connection is not None:
                try:
                    attempt.open(connection)
                except (TooManyStreams, ConnectionClosing):
                    continue
                except HeaderListTooLarge as error:
                    attempt.fail(Status.RESOURCE_EXHAUSTED, str(error))
                return True
        return False

    def _enqueue(self, attempt: Attempt) -> None:
        state = self._balancer.state
        if state is Connectivity.TRANSIENT_FAILURE and not attempt.call.form.wait_for_ready:
            self._refuse(attempt)
        elif len(self._waiting) >= self._waiting_max:
            limit = f"waiting_calls_max={self._waiting_max}"
            text = f"{len(self._waiting)} calls are waiting, all that {limit} allows{self.waiting_for()}"
            attempt.fail(Status.RESOURCE_EXHAUSTED, text)
        else:
            self._waiting[attempt] = None
            if state is not Connectivity.READY or not any(one.connection for one in self._balancer.order()):
                self._balancer.connect()

    def _refuse(self, attempt: Attempt) -> None:
        attempt.fail(Status.UNAVAILABLE, f"no connection to {self._target.text}: {self._balancer.failure}")

    # What the balancer reports (BalancerOwner).

    def room_opened(self) -> None:
        while self._waiting:
            attempt = next(iter(self._waiting))
            if not self._open(attempt):
                return
            self._waiting.pop(attempt, None)

    def connectivity_changed(self) -> None:
        state = self._balancer.state
        if state is Connectivity.READY:
            self.room_opened()
        elif state is Connectivity.TRANSIENT_FAILURE:
            for attempt in [one for one in self._waiting if not one.call.form.wait_for_ready]:
                self._refuse(attempt)
        elif state is Connectivity.IDLE and self._waiting:
            self._balancer.connect()
        self._announce()

    def _announce(self) -> None:
        self._changed.set()
        self._changed = trio.Event()


BALANCERS: dict[str, type[PickFirst] | type[RoundRobin]] = {
    "pick_first": PickFirst,
    "round_robin": RoundRobin,
}
