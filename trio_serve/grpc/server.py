"""A gRPC server on Trio.

    server = Server(Greeter())                                  a grpclib service
    add_GreeterServicer_to_server(Greeter(), server)            grpcio's generated code
    await server.serve("127.0.0.1", 50051)

    listeners --> connections --> request_received --> ServerCall --> Registration.dispatch --> handler
                      all in one nursery; nothing that a peer or a handler does gets out of it

Knows methods and who is registered for them; nothing of what they do.
"""

import functools
import logging
import math
import socket
import ssl
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import trio

from trio_serve.grpc.answering import IGNORED
from trio_serve.grpc.call import ServerCall
from trio_serve.grpc.counters import MethodCounters, ServerCounters
from trio_serve.grpc.handlers import runner_of
from trio_serve.grpc.handling import Handlers
from trio_serve.grpc.interceptors import Interceptor, compose
from trio_serve.grpc.methods import Method, methods_from, methods_of_generic_handler, methods_of_handlers
from trio_serve.grpc.registration import Dispatch, OnEnd, Registration, TrailingMetadata
from trio_serve.transport.alarms import Alarms
from trio_serve.transport.byte_stream import ByteStream
from trio_serve.transport.connection import ConnectionOptions, Http2Connection
from trio_serve.transport.keepalive import KeepaliveOptions
from trio_serve.transport.listener import (
    Accepting,
    close_listener,
    open_listeners,
    open_unix_listener,
    port_of,
)
from trio_serve.transport.memory import MemoryByteStream, memory_pair
from trio_serve.transport.window_loans import KEPT_BYTES_MAX, LOANS_BYTES_MAX
from trio_serve.wire.grpc import GrpcRefusal, RequestHead, Status, read_request, refusal
from trio_serve.wire.http2 import FieldBlock, Limits, Role, Stream, StreamReceiver

if TYPE_CHECKING:
    from trio_serve.grpc.health import Health

logger = logging.getLogger("trio_serve.grpc")

MESSAGE_BYTES_MAX = 4 * 1024 * 1024
METHOD_NOT_FOUND = GrpcRefusal(Status.UNIMPLEMENTED, "Method not found!")
STANDARD_SERVICES = ("grpc.health.v1.", "grpc.reflection.")
STANDARD_GRACE_S = 0.05
"""How long a health watcher gets to be told NOT_SERVING before a drain ends its call."""

STREAMS_MAX = 100
STREAM_WINDOW_BYTES_MAX = 256 * 1024

SERVER_OPTIONS = ConnectionOptions(
    keepalive=KeepaliveOptions(time_s=7200.0, without_calls=True),
    limits=Limits(
        streams_max=STREAMS_MAX,
        stream_window_bytes_max=STREAM_WINDOW_BYTES_MAX,
        # All windows of streams, kept rooms and loans together: the connection's own window then never
        # closes, and a handler that does not read holds up no call but its own.
        connection_window_bytes=STREAMS_MAX * STREAM_WINDOW_BYTES_MAX + KEPT_BYTES_MAX + LOANS_BYTES_MAX,
    ),
)
"""What a server holds its connections to; others are made of it: ``attrs.evolve(SERVER_OPTIONS, ...)``."""


class Server:
    """Serves methods on sockets, and in memory.

    Args:
        services: whatever `methods_from` takes and that has handlers: grpclib services, above all.
        interceptors: around every handler, the first one outermost.
        message_bytes_max: the largest request message, on the wire and inflated.
        request_timeout_s: the longest that any call may take; a client's earlier deadline counts too.
        max_running: handlers at work at a time, all methods together.
        max_queued: calls that wait for one of those; beyond, RESOURCE_EXHAUSTED at once.
        threads: sync handlers at work at a time.
        connections_max: beyond, connections wait in the kernel's backlog.
        health: serve ``grpc.health.v1``; ``server.health`` says what it answers.
        reflection: serve ``grpc.reflection``, v1 and v1alpha.
        options: what each connection is held to; begin with `SERVER_OPTIONS`.

    Raises:
        MethodSourceError: something among ``services`` describes no methods.
        ValueError: methods without handlers.
    """

    def __init__(
        self,
        *services: object,
        interceptors: Sequence[Interceptor] = (),
        message_bytes_max: int = MESSAGE_BYTES_MAX,
        request_timeout_s: float | None = None,
        max_running: int = 1000,
        max_queued: int = 1000,
        threads: int = 40,
        connections_max: int = 10_000,
        health: bool = True,
        reflection: bool = True,
        options: ConnectionOptions = SERVER_OPTIONS,
    ) -> None:
        self.methods: dict[str, Method] = {}
        """What is registered, by path."""
        self.counters = ServerCounters()
        self.method_counters: dict[str, MethodCounters] = {}
        """Counts by path; a method that was unregistered keeps its own."""
        self.health: Health | None = None
        self.on_refusal: Callable[[RequestHead, Status], None] | None = None
        """Told of each call that reached no method: an unknown path, or a malformed head."""
        self.port = 0
        """The TCP port served, while serving."""
        self._interceptors = tuple(interceptors)
        self.message_bytes_max = message_bytes_max
        self._timeout_s = math.inf if request_timeout_s is None else request_timeout_s
        self._thread_count = threads
        self._connections_max = connections_max
        self._options = options
        self._handlers = Handlers(max_running, max_queued)
        self._registrations: dict[str, Registration] = {}
        self._running = _Running()
        self._add_standard_services(health, reflection)
        for service in services:
            self.add_service(service)

    # Methods.

    def add_service(self, source: object) -> None:
        """Register every method of a service that has handlers.

        Raises:
            MethodSourceError: ``source`` describes no methods.
            ValueError: its methods have no handlers; pass an instance, not the class.
        """
        for method in methods_from(source):
            self.register(method)

    def add_generic_rpc_handlers(self, generic_rpc_handlers: Iterable[Any]) -> None:
        """For grpcio's generated ``add_XServicer_to_server(servicer, server)``."""
        for handler in generic_rpc_handlers:
            for method in methods_of_generic_handler(handler):
                self.register(method)

    def add_registered_method_handlers(self, service: str, handlers: Mapping[str, Any]) -> None:
        """For the same function as newer grpcio-tools generate it."""
        for method in methods_of_handlers(service, handlers):
            self.register(method)

    def register(
        self,
        method: Method,
        dispatch: Dispatch | None = None,
        trailing_metadata: TrailingMetadata | None = None,
        on_end: OnEnd | None = None,
        *,
        parses: bool = True,
    ) -> None:
        """Serve ``method``; one that was registered under its path is replaced.

        ``dispatch(call)`` is called in the reader's turn, when a unary request is complete or a streaming
        call begins, and must not wait.  The default runs ``method.handler`` in a worker of the server's
        own.  ``on_end(call, status number, seconds)`` is called when a call has its answer.  With
        ``parses=False`` a unary request is dispatched as bytes, for a ``dispatch`` that refuses calls and
        lets those that it takes `ServerCall.parse_request`.

        Raises:
            ValueError: neither a handler nor ``dispatch``.
        """
        if dispatch is None:
            run = runner_of(method, self._threads)
            dispatch = self._handlers.dispatch_to(compose(self._interceptors, run))
        counters = self.method_counters.setdefault(method.path, MethodCounters())
        self.methods[method.path] = method
        self._registrations[method.path] = Registration(
            method, dispatch, self.message_bytes_max, counters, trailing_metadata, on_end, parses
        )
        if self.health is not None and not method.service.startswith(STANDARD_SERVICES):
            from trio_serve.grpc.health import ServingStatus

            self.health.set(method.service, ServingStatus.SERVING)

    def unregister(self, path: str) -> None:
        """Serve the method at ``path`` no more; calls that have begun go on."""
        method = self.methods.pop(path, None)
        self._registrations.pop(path, None)
        if method is None or self.health is None:
            return
        if not any(other.service == method.service for other in self.methods.values()):
            self.health.remove(method.service)

    @functools.cached_property
    def _threads(self) -> trio.CapacityLimiter:
        return trio.CapacityLimiter(self._thread_count)

    def _add_standard_services(self, health: bool, reflection: bool) -> None:
        # Imported here: the messages of these services cost a tenth of a second to build.
        if health:
            from trio_serve.grpc.health import Health

            self.health = Health()
            for method in self.health.methods():
                self.register(method)
        if reflection:
            from trio_serve.grpc.reflection import Reflection

            for method in Reflection(self.methods).methods():
                self.register(method)

    # Serving.

    async def serve(
        self,
        host: str | None = "127.0.0.1",
        port: int = 50051,
        *,
        tls: ssl.SSLContext | None = None,
        task_status: trio.TaskStatus[int] = trio.TASK_STATUS_IGNORED,
    ) -> None:
        """Listen on ``host`` and ``port`` (0: a free one) and serve until `drain` or cancelled.

        ``tls`` comes from `server_tls`, or is any context that offers ``h2``.  ``task_status`` is
        told the port.

        Raises:
            OSError: the port is in use, or the host is not ours.
        """
        listeners = await open_listeners(host, port)
        await self.serve_listeners(listeners, tls=tls, task_status=task_status)

    async def serve_unix(
        self, path: str, *, task_status: trio.TaskStatus[int] = trio.TASK_STATUS_IGNORED
    ) -> None:
        """As `serve`, on a Unix socket."""
        await self.serve_listeners([open_unix_listener(path)], task_status=task_status)

    async def serve_listeners(
        self,
        listeners: Sequence[socket.socket] = (),
        *,
        tls: ssl.SSLContext | None = None,
        task_status: trio.TaskStatus[int] = trio.TASK_STATUS_IGNORED,
    ) -> None:
        """Serve on ``listeners``, which are closed afterwards, until `drain` or cancelled.

        Without any it serves what `connect` and `attach` bring.

        Raises:
            RuntimeError: the server is serving already.
        """
        if self._running.nursery is not None:
            raise RuntimeError(
                "this server is serving already; one serve_listeners() takes several listeners"
            )
        self._running = running = _Running()
        self.port = port_of(listeners)
        try:
            async with trio.open_nursery() as background:
                background.start_soon(running.alarms.run)
                await background.start(self._handlers.run)
                await self._accept_until_drained(listeners, tls, task_status)
                background.cancel_scope.cancel()
        finally:
            running.nursery = None
            for listener in listeners:
                close_listener(listener)

    async def _accept_until_drained(
        self,
        listeners: Sequence[socket.socket],
        tls: ssl.SSLContext | None,
        task_status: trio.TaskStatus[int],
    ) -> None:
        running = self._running
        accepting = Accepting(
            self.serve_stream,
            tls=tls,
            handshake_timeout_s=self._options.handshake_timeout_s,
            connections_max=self._connections_max,
        )
        async with trio.open_nursery() as running.nursery:
            nursery = running.nursery
            with running.accepting:
                async with trio.open_nursery() as accepts:
                    for listener in listeners:
                        accepts.start_soon(accepting.accept_from, listener, nursery)
                    task_status.started(self.port)
                    await trio.sleep_forever()
            for listener in listeners:
                close_listener(listener)
            await running.drained.wait()
            nursery.cancel_scope.cancel()  # what is left are handshakes that nobody will finish

    async def serve_stream(self, byte_stream: ByteStream) -> None:
        """Serve one connection until it ends.  The server must be serving; whatever goes wrong is logged.

        Cancelling drops the connection.
        """
        running = self._running
        if running.nursery is None or running.draining:
            await byte_stream.aclose()
            return
        connection = Http2Connection(Role.SERVER, byte_stream, self, running.alarms, self._options)
        running.connections.add(connection)
        counters = self.counters
        counters.connections += 1
        counters.connections_accepted += 1
        try:
            await connection.run()
        except Exception:
            counters.connection_errors += 1
            logger.exception("the connection with %s failed", byte_stream.peer)
        finally:
            counters.connections -= 1
            running.connections.discard(connection)
            running.look_if_drained()

    def attach(self, byte_stream: ByteStream) -> None:
        """Serve one connection in the background, until it or the server ends.

        Raises:
            RuntimeError: the server is not serving.
        """
        if self._running.nursery is None:
            raise RuntimeError("this server is not serving; start serve() or serve_listeners() first")
        self._running.nursery.start_soon(self.serve_stream, byte_stream)

    def connect(self) -> MemoryByteStream:
        """The client's end of a new connection in memory; raises as `attach`."""
        ours, theirs = memory_pair()
        self.attach(ours)
        return theirs

    async def drain(self, timeout_s: float = math.inf) -> None:
        """Stop without losing a call: NOT_SERVING, no new connections, GOAWAY twice, wait, close.

        Calls still running after ``timeout_s`` are ended with UNAVAILABLE.  Returns when the last
        connection is closed.  Cancelling it leaves the drain under way, without the timeout.
        """
        running = self._running
        running.draining = True
        if self.health is not None:
            self.health.drain()
        running.accepting.cancel()
        for connection in list(running.connections):
            connection.drain()
        running.alarms.at(trio.current_time() + STANDARD_GRACE_S, self._stop_standard_calls)
        running.look_if_drained()
        with trio.move_on_after(timeout_s) as patience:
            await running.drained.wait()
        if patience.cancelled_caught:
            self._cut_off()
            await running.drained.wait()

    def _cut_off(self) -> None:
        cut = 0
        for connection in list(self._running.connections):
            for call in _calls_of(connection):
                call.stop()
                cut += 1
            connection.close("the server is stopping")
        if cut:
            logger.warning("drain: %d calls were cut off, they were still running at the timeout", cut)

    def _stop_standard_calls(self) -> None:
        """End the watchers of health where no other call is left: they would never end by themselves."""
        for connection in list(self._running.connections):
            calls = _calls_of(connection)
            if all(call.method.service.startswith(STANDARD_SERVICES) for call in calls):
                for call in calls:
                    call.stop()

    # What connections report (ConnectionOwner).

    def request_received(
        self, connection: Http2Connection, stream: Stream, block: FieldBlock, end_stream: bool
    ) -> StreamReceiver:
        head = read_request(block)
        registration = self._registrations.get(head.path)
        if registration is None or head.problem is not None:
            return self._refuse(connection, stream, head)
        timeout_s = self._timeout_s
        if head.timeout_s is not None and head.timeout_s < timeout_s:
            timeout_s = head.timeout_s
        call = ServerCall(connection, stream, registration, head, timeout_s)
        if timeout_s != math.inf:
            connection.alarms.deadlines.watch(call, timeout_s)
        stream.receiver = call
        if registration.streams_requests:
            if end_stream:
                call.data_received(b"", True)
            call.begin_stream()
        elif end_stream:
            call.data_received(b"", True)
        return call

    def _refuse(self, connection: Http2Connection, stream: Stream, head: RequestHead) -> StreamReceiver:
        problem = head.problem or METHOD_NOT_FOUND
        fields, body = refusal(problem)
        wire = connection.wire
        if isinstance(problem, GrpcRefusal):
            self.counters.unknown.started += 1
            self.counters.unknown.ended(problem.status.value, 0.0)
            if self.on_refusal is not None:
                self.on_refusal(head, problem.status)
            wire.send_headers(stream, fields, end_stream=True)
            wire.release_stream(stream, connection.now())
        else:
            # The stream is not reset: until the client ends it, what it sends is still checked.
            self.counters.refused += 1
            bodiless = head.http_method == "HEAD"
            wire.send_headers(stream, fields, end_stream=bodiless)
            if not bodiless:
                wire.send_data(stream, body, end_stream=True)
        connection.touch()
        return IGNORED

    def settings_received(self, connection: Http2Connection) -> None:
        pass

    def stream_closed(self, connection: Http2Connection) -> None:
        running = self._running
        if running.draining and connection.calls:
            running.alarms.at(trio.current_time() + STANDARD_GRACE_S, self._stop_standard_calls)

    def goaway_received(self, connection: Http2Connection, code: int, debug: bytes) -> None:
        pass

    def connection_closed(self, connection: Http2Connection, reason: str) -> None:
        logger.debug("connection with %s closed: %s", connection.peer, reason)


class _Running:
    """What exists while a server serves, and is new each time."""

    __slots__ = ("accepting", "alarms", "connections", "drained", "draining", "nursery")

    def __init__(self) -> None:
        self.nursery: trio.Nursery | None = None
        self.accepting = trio.CancelScope()
        self.alarms = Alarms()
        self.connections: set[Http2Connection] = set()
        self.draining = False
        self.drained = trio.Event()

    def look_if_drained(self) -> None:
        if self.draining and not self.connections:
            self.drained.set()


def _calls_of(connection: Http2Connection) -> list[ServerCall]:
    receivers = [stream.receiver for stream in connection.wire.streams.values()]
    return [receiver for receiver in receivers if isinstance(receiver, ServerCall)]
