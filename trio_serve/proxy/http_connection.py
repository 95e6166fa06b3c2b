"""One HTTP/1.1 connection: bytes to requests, and the answers of applications to bytes.

    byte stream ──read──> hypercorn's HTTP/1.1 (h11, wsproto) ──> Exchange ──> application
    byte stream <──write── hypercorn's HTTP/1.1 <──────────────────────────────────┘

Hypercorn's protocol does the parsing, and its HTTP/2 is never reached: an upgrade to h2c is not taken, and
prior knowledge is answered 505.  The shell around it is ours, because a write here waits for the socket (that
is the backpressure) and can be cancelled, and because the reader goes on looking while a body is not read
or a pipelined request has to wait: so a client that leaves is noticed at once.

Times: a request's head has 10 s from its first byte; between requests a connection stays open for
``keep_alive_timeout_s``; a client that takes nothing for 60 s is dropped.

Knows ASGI, and nothing of deployments.
"""

import logging
import sys
from collections.abc import Awaitable, Callable
from math import inf
from typing import Any

import h11
import trio
from hypercorn.config import Config
from hypercorn.events import Closed, Event, RawData, Updated
from hypercorn.protocol.events import Event as StreamEvent
from hypercorn.protocol.events import Response
from hypercorn.protocol.h11 import H11Protocol
from hypercorn.protocol.ws_stream import WSStream
from hypercorn.trio.worker_context import EventWrapper, WorkerContext
from hypercorn.typing import ConnectionState
from wsproto.utilities import ProtocolError

from trio_serve.proxy.http_exchange import ASGIApplication, Exchange, Hold, Message, Scope
from trio_serve.transport.byte_stream import GONE, ByteStream

logger = logging.getLogger("trio_serve.proxy")

RECEIVE_BYTES_MAX = 65536
READ_AHEAD_BYTES_MAX = 65536
"""How far the reader reads on while what it has read cannot be taken, to notice a client that leaves."""

HEAD_BYTES_MAX = 16384
HEAD_TIMEOUT_S = 10.0
WRITE_STALL_S = 60.0
WRITE_BYTES_MAX = 65536
LINGER_S = 1.0
"""Seconds for a client to stop sending what nobody reads: closed sooner, a reset may cost it the answer."""

SERVICE_RESTART = 1012
"""WebSocket close code (IANA registry)."""


def http1_config() -> Config:
    """Hypercorn's settings, as far as its HTTP/1.1 protocol reads them."""
    config = Config()
    config.accesslog = config.errorlog = None  # it would write to stderr by itself
    config.h11_max_incomplete_size = HEAD_BYTES_MAX
    config.include_server_header = False
    config.keep_alive_max_requests = sys.maxsize  # an answer to the 1001st would close the connection
    return config


class _NothingMoreToRead(Exception):
    """The client left, or the connection is to end, while the reader could not go on."""


class _Readable(EventWrapper):
    """Set when the next request may be read; who waits for it keeps an eye on the client."""

    def __init__(self, hold: Hold) -> None:
        super().__init__()
        self._hold = hold

    async def wait(self) -> None:
        await self._hold(self._event.wait)


class _H11Connection(h11.Connection):
    """h11's state machine, deaf to what follows a request that said ``connection: close``.

    h11 calls it an error, and by that the good request before it would lose its answer.
    """

    def next_event(self) -> Any:
        return h11.NEED_DATA if self.their_state is h11.MUST_CLOSE else super().next_event()


class _Http1(H11Protocol):
    """Hypercorn's protocol, kept to HTTP/1.1."""

    def __init__(self, hold: Hold, application: Any, config: Config, *args: Any) -> None:
        super().__init__(application, config, *args)
        self.connection = _H11Connection(h11.SERVER, max_incomplete_event_size=config.h11_max_incomplete_size)
        self.can_read = _Readable(hold)
        self._held = b""

    async def _check_protocol(self, event: h11.Request) -> None:
        """Switch to nothing."""

    async def _create_stream(self, request: h11.Request) -> None:
        if request.http_version not in (b"1.0", b"1.1"):
            await self._send_error_response(505)
            await self.send(Closed())
            return
        await super()._create_stream(request)

    async def stream_send(self, event: StreamEvent) -> None:
        if isinstance(event, Response) and event.status_code >= 200 and self.context.terminated.is_set():
            event.headers.append((b"connection", b"close"))  # no further request is to come here
        await super().stream_send(event)

    async def _send_h11_event(self, event: Any) -> None:
        data = self._bytes_of(event)
        if data and isinstance(event, h11.Response) and _has_length(event):
            self._held = data  # its body follows at once, and leaves together with it
            return
        held, self._held = self._held, b""
        if held or data:
            await self.send(RawData(data=held + data))

    def _bytes_of(self, event: Any) -> bytes:
        try:
            return self.connection.send(event) or b""
        except h11.LocalProtocolError:
            if self.connection.their_state is not h11.ERROR:
                raise
            return b""

    @property
    def has_unread_body(self) -> bool:
        return self.connection.their_state in (h11.SEND_BODY, h11.ERROR)

    @property
    def has_unread_head(self) -> bool:
        return bool(self.connection.trailing_data[0])


def _has_length(response: h11.Response) -> bool:
    return any(name == b"content-length" for name, _ in response.headers)


class HttpConnection:
    """One connection, for as long as `run` runs.  Nothing that its client does raises anything there."""

    def __init__(
        self,
        byte_stream: ByteStream,
        application: ASGIApplication,
        config: Config,
        context: WorkerContext,
        server_address: tuple[str, int] | None = None,
        keep_alive_timeout_s: float = 90.0,
    ) -> None:
        self._byte_stream = byte_stream
        self._application = application
        self._keep_alive_timeout_s = keep_alive_timeout_s
        self._nursery: trio.Nursery
        self._exchanges: set[Exchange] = set()
        self._ahead = bytearray()
        self._writing = trio.Lock()
        self._reading = trio.CancelScope()
        self._closing = False
        self._lost = False
        self._protocol = _Http1(
            self._hold,
            application,
            config,
            context,
            self,
            ConnectionState({}),
            byte_stream.tls is not None,
            client_address(byte_stream.peer),
            server_address,
            self._take,
        )

    @property
    def idle(self) -> bool:
        """Whether no request is at work here, nor on its way as far as we can see."""
        return self._protocol.stream is None and not self._protocol.has_unread_head

    async def run(self) -> None:
        """Serve the connection until it ends, and what its requests have started."""
        try:
            async with trio.open_nursery() as self._nursery:
                await self._read_to_the_end()
                await self._protocol.handle(Closed())
                for exchange in self._exchanges:
                    exchange.leave()
                await self._hang_up()
        finally:
            with trio.CancelScope(shield=True):  # waits a second at most, and that for TLS only
                await self._byte_stream.aclose()

    def close(self) -> None:
        """Read no further request; what is being answered still is."""
        self._closing = True
        self._reading.cancel()

    async def cut(self) -> None:
        """End everything now; a WebSocket is told why."""
        stream = self._protocol.stream
        if isinstance(stream, WSStream) and not stream.idle:
            with trio.move_on_after(LINGER_S):
                try:
                    await stream.app_send(
                        {"type": "websocket.close", "code": SERVICE_RESTART, "reason": None}
                    )
                except Exception:
                    logger.debug("a WebSocket could not be closed", exc_info=True)
        self._nursery.cancel_scope.cancel()

    # Reading.

    async def _read_to_the_end(self) -> None:
        try:
            await self._read()
        except _NothingMoreToRead:
            pass
        except GONE:
            self._lost = True
        except (ProtocolError, ValueError) as error:
            logger.info("%s broke the protocol: %r", self._byte_stream.peer, error)

    async def _read(self) -> None:
        head_began: float | None = None
        deadline = trio.current_time() + self._keep_alive_timeout_s
        while not self._closing:
            data = await self._next_data(deadline)
            if not data:
                self._lost = not self._closing
                return
            await self._protocol.handle(RawData(data))
            deadline, head_began = self._patience(head_began)

    def _patience(self, head_began: float | None) -> tuple[float, float | None]:
        """Until when more bytes must come, and since when there is a head that is not complete."""
        if self._protocol.stream is not None:
            return inf, None
        now = trio.current_time()
        if not self._protocol.has_unread_head:
            return now + self._keep_alive_timeout_s, None
        head_began = now if head_began is None else head_began
        return head_began + HEAD_TIMEOUT_S, head_began

    async def _next_data(self, deadline: float) -> bytes:
        if self._ahead:
            data = bytes(self._ahead)
            self._ahead.clear()
            return data
        with trio.CancelScope(deadline=deadline) as self._reading:
            return await self._byte_stream.receive_some(RECEIVE_BYTES_MAX)
        self._closing = True  # silent for too long, or told to close
        return b""

    async def _hold(self, wait: Callable[[], Awaitable[None]]) -> None:
        """Await ``wait()`` in the reader's task, and look meanwhile whether the client leaves.

        Raises:
            _NothingMoreToRead: it did, or the connection was told to close.
        """
        if not self._closing:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(self._read_ahead, nursery.cancel_scope)
                await wait()
                nursery.cancel_scope.cancel()
        if self._lost or self._closing:
            raise _NothingMoreToRead

    async def _read_ahead(self, waiting: trio.CancelScope) -> None:
        try:
            while len(self._ahead) < READ_AHEAD_BYTES_MAX:
                data = await self._byte_stream.receive_some(RECEIVE_BYTES_MAX)
                if not data:
                    break
                self._ahead += data
            else:
                return
        except GONE:
            pass
        self._lost = True
        waiting.cancel()

    # What the protocol reports (and, for spawn_app, asks for).

    async def _take(self, event: Event) -> None:
        if isinstance(event, RawData):
            await self._write(event.data)
        elif isinstance(event, Closed):
            self.close()
        elif isinstance(event, Updated) and event.idle:
            self._reading.deadline = trio.current_time() + self._keep_alive_timeout_s

    async def spawn_app(
        self,
        application: ASGIApplication,
        config: Config,
        scope: Scope,
        send: Callable[[Message | None], Awaitable[None]],
    ) -> Callable[[Message], Awaitable[None]]:
        """Start the application for one request; returns where to put what the client sends to it."""
        scope["asgi"]["spec_version"] = "2.4"  # send() raises when the client has gone
        exchange = Exchange(scope, send, self._hold)
        self._exchanges.add(exchange)
        self._nursery.start_soon(self._run_exchange, exchange, application)
        return exchange.put

    async def _run_exchange(self, exchange: Exchange, application: ASGIApplication) -> None:
        try:
            await exchange.run(application)
        finally:
            self._exchanges.discard(exchange)

    def spawn(self, function: Callable[..., Awaitable[None]], *args: Any) -> None:
        self._nursery.start_soon(function, *args)

    # Writing.

    async def _write(self, data: bytes) -> None:
        """Send, and wait while the client takes nothing.  Cancelled half-way, the connection is lost."""
        if self._lost:
            return
        try:
            self._writing.acquire_nowait()
        except trio.WouldBlock:
            await self._writing.acquire()
        whole = False
        try:
            rest = memoryview(data)[self._byte_stream.send_nowait(data) :]
            while rest:
                with trio.fail_after(WRITE_STALL_S):
                    await self._byte_stream.send_all(rest[:WRITE_BYTES_MAX])
                rest = rest[WRITE_BYTES_MAX:]
            whole = True
        except (trio.TooSlowError, *GONE):
            pass
        finally:
            self._writing.release()
            if not whole:
                self._lost = True
                self._reading.cancel()

    async def _hang_up(self) -> None:
        if not self._lost and self._protocol.has_unread_body:
            with trio.move_on_after(LINGER_S):
                try:
                    await self._byte_stream.send_eof()
                    while await self._byte_stream.receive_some(RECEIVE_BYTES_MAX):
                        pass
                except GONE:
                    pass
        await self._byte_stream.aclose()


def client_address(peer: str) -> tuple[str, int] | None:
    """``("127.0.0.1", 50051)`` of ``ipv4:127.0.0.1:50051``; None where there is no such thing."""
    family, _, address = peer.partition(":")
    host, _, port = address.rpartition(":")
    if family not in ("ipv4", "ipv6") or not port.isdigit():
        return None
    return host.removeprefix("%5B").removesuffix("%5D").replace("%3A", ":"), int(port)
